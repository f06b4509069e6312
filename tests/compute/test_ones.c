/* QP_TEST: check=0
 * Products of ones: each result is the number of what was summed, exactly, however the sum was cut
 * into steps and pieces. So a lost tail shows in a moment. */
#include "cpu_testing.h"

static const int64_t depths[] = {1, 2, 15, 16, 17, 31, 32, 33, 255, 512, 513, 767, 1500};
enum { N_DEPTH = sizeof depths / sizeof depths[0], M = 5, N = 7, MOST = 1500 };

/* op(a) op(b) of matrices that are all ones. */
static void check_product(qp_device_t *device, qp_dtype_t dtype, qp_dptr_t ones, int64_t k,
                          int trans)
{
    const bool trans_a = trans & 1, trans_b = trans & 2;
    const qp_mat_t a = qp_mat(ones, dtype, trans_a ? k : M, trans_a ? M : k),
                   b = qp_mat(ones, dtype, trans_b ? N : k, trans_b ? k : N);
    tensor_t c = make_tensor(device, QP_F32, M, N);
    CHECK_OK(device->ops->matmul(qp_device_queue(device), 1.0f, a, trans_a, b, trans_b, 0.0f, c.m,
                                 (qp_mask_t){.scale = 1.0f}));
    double *got = get_all(&c);
    for (int i = 0; i < M * N; i++)
        CHECK_MSG(got[i] == (double)k, "%d ones, transposed %d, element %d: %g", (int)k, trans, i,
                  got[i]);
    qp_free(got);
    free_tensor(&c);
}

static void test_products(qp_compute_t compute)
{
    qp_device_t *device = open_compute(compute, 1);
    const qp_dtype_t dtype = compute == QP_COMPUTE_BF16 ? QP_BF16 : QP_F32;
    void *host = qp_alloc("test", qp_bytes(MOST * N, qp_dtype_bytes(dtype)));
    for (int64_t i = 0; i < MOST * N; i++)
        put_element(host, dtype, i, 1.0);
    qp_dptr_t ones = upload_bytes(device, host, qp_bytes(MOST * N, qp_dtype_bytes(dtype)));
    for (int d = 0; d < N_DEPTH; d++)
        for (int trans = 0; trans < 4; trans++)
            check_product(device, dtype, ones, depths[d], trans);
    device->ops->release(device, &ones);
    qp_free(host);
    qp_device_close(&device);
}

int main(void)
{
    test_products(QP_COMPUTE_FP32);
    if (has_bf16())
        test_products(QP_COMPUTE_BF16);
    return qp_test_end();
}
