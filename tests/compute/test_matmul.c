/* QP_TEST: isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16 check=0
 * Dense products against a double twin: types, transposes, alpha and beta, sizes around the tiles.
 */
#include "cpu_testing.h"

static const qp_mask_t no_mask = {0};

/* [m, k] x [k, n]; tiles are 128 x 256, depth is cut at 512 where a is transposed. */
static const struct {
    int64_t m, n, k;
} sizes[] = {{1, 1, 1},     {3, 17, 5},    {1, 300, 64},    {17, 8, 576},
             {130, 33, 48}, {8, 100, 700}, {16, 130, 1553}, {257, 290, 31}};
enum { N_SIZE = sizeof sizes / sizeof sizes[0] };

static void twin(double *c, double alpha, const tensor_t *a, bool trans_a, const tensor_t *b,
                 bool trans_b, double beta, int64_t m, int64_t n, int64_t k)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0.0;
            for (int64_t d = 0; d < k; d++)
                sum +=
                    a->x[trans_a ? d * m + i : i * k + d] * b->x[trans_b ? j * k + d : d * n + j];
            c[i * n + j] = alpha * sum + (beta == 0.0 ? 0.0 : beta * c[i * n + j]);
        }
}

typedef struct {
    int64_t m, n, k;
    qp_dtype_t a, b, c;
    bool trans_a, trans_b;
    float alpha, beta;
} case_t;

static tensor_t operand(qp_device_t *device, qp_dtype_t dtype, int64_t n_row, int64_t n_col,
                        bool trans, uint32_t site)
{
    return make_normal(device, dtype, trans ? n_col : n_row, trans ? n_row : n_col, site);
}

static void test_product(qp_device_t *device, const case_t *t)
{
    qp_queue_t *q = qp_device_queue(device);
    tensor_t a = operand(device, t->a, t->m, t->k, t->trans_a, 1);
    tensor_t b = operand(device, t->b, t->k, t->n, t->trans_b, 2);
    tensor_t c = t->beta == 0.0f ? make_tensor(device, t->c, t->m, t->n)
                                 : make_normal(device, t->c, t->m, t->n, 3);
    twin(c.x, (double)t->alpha, &a, t->trans_a, &b, t->trans_b, (double)t->beta, t->m, t->n, t->k);
    CHECK_OK(
        device->ops->matmul(q, t->alpha, a.m, t->trans_a, b.m, t->trans_b, t->beta, c.m, no_mask));
    CHECK_TENSOR(&c, c.x, TOL_REDUCTION, "%s%s x %s%s -> %s, [%lld, %lld, %lld], alpha %g beta %g",
                 qp_dtype_name(t->a), t->trans_a ? "^T" : "", qp_dtype_name(t->b),
                 t->trans_b ? "^T" : "", qp_dtype_name(t->c), (long long)t->m, (long long)t->n,
                 (long long)t->k, (double)t->alpha, (double)t->beta);
    free_tensor(&a);
    free_tensor(&b);
    free_tensor(&c);
}

/* Equal pairs of operand types and both results, then mixed pairs: exact in fp32 compute. */
enum { N_EQUAL = 4 };
static const qp_dtype_t types[][3] = {
    {QP_F32, QP_F32, QP_F32},    {QP_F32, QP_F32, QP_BF16}, {QP_BF16, QP_BF16, QP_F32},
    {QP_BF16, QP_BF16, QP_BF16}, {QP_BF16, QP_F32, QP_F32}, {QP_F32, QP_BF16, QP_BF16},
};
enum { N_TYPE = sizeof types / sizeof types[0] };
static const float scalars[][2] = {{1.0f, 0.0f}, {0.5f, 1.0f}, {1.0f, -0.25f}, {0.5f, 0.0f}};
enum { N_SCALAR = sizeof scalars / sizeof scalars[0] };

static void test_products(qp_compute_t compute, size_t n_type)
{
    qp_device_t *device = open_compute(compute, 2);
    for (size_t s = 0; s < N_SIZE; s++)
        for (size_t t = 0; t < n_type; t++)
            for (int trans = 0; trans < 4; trans++) {
                const float *scalar = scalars[(s + t + (size_t)trans) % N_SCALAR];
                const case_t c = {sizes[s].m,  sizes[s].n,  sizes[s].k,       types[t][0],
                                  types[t][1], types[t][2], (trans & 1) != 0, (trans & 2) != 0,
                                  scalar[0],   scalar[1]};
                test_product(device, &c);
            }
    qp_device_close(&device);
}

/* A mixed pair in bf16 compute loses the lower half of the fp32 operand, no more. */
static void test_mixed_in_bf16(void)
{
    qp_device_t *device = open_compute(QP_COMPUTE_BF16, 2);
    tensor_t a = make_normal(device, QP_F32, 40, 70, 1),
             b = make_normal(device, QP_BF16, 70, 30, 2);
    tensor_t c = make_tensor(device, QP_F32, 40, 30);
    for (int64_t i = 0; i < 40 * 70; i++)
        a.x[i] = (double)qp_bf16_to_f32(qp_f32_to_bf16((float)a.x[i]));
    twin(c.x, 1.0, &a, false, &b, false, 0.0, 40, 30, 70);
    CHECK_OK(device->ops->matmul(qp_device_queue(device), 1.0f, a.m, false, b.m, false, 0.0f, c.m,
                                 no_mask));
    CHECK_TENSOR(&c, c.x, TOL_REDUCTION, "mixed pair in bf16 compute");
    free_tensor(&a);
    free_tensor(&b);
    free_tensor(&c);
    qp_device_close(&device);
}

/* The same bits again, and with another number of threads; the second call allocates nothing. */
static void test_repeatable(qp_compute_t compute, qp_dtype_t dtype)
{
    enum { M = 300, N = 290, K = 1100 };
    qp_device_t *one = open_compute(compute, 1), *three = open_compute(compute, 3);
    for (int trans = 0; trans < 2; trans++) {
        tensor_t a = operand(one, dtype, M, K, trans, 1), b = make_normal(one, dtype, K, N, 2);
        tensor_t c = make_tensor(one, dtype, M, N), again = make_tensor(one, dtype, M, N);
        CHECK_OK(one->ops->matmul(qp_device_queue(one), 1.0f, a.m, trans, b.m, false, 0.0f, c.m,
                                  no_mask));
        settle(one);
        const int64_t alive = qp_mem_alive();
        for (int i = 0; i < 20; i++) {
            CHECK_OK(one->ops->matmul(qp_device_queue(one), 1.0f, a.m, trans, b.m, false, 0.0f,
                                      again.m, no_mask));
            CHECK(same_rows(&c, 0, &again, M));
        }
        CHECK(qp_mem_alive() == alive);
        for (int i = 0; i < 20; i++) {
            CHECK_OK(three->ops->matmul(qp_device_queue(three), 1.0f, a.m, trans, b.m, false, 0.0f,
                                        again.m, no_mask));
            settle(three);
            CHECK(same_rows(&c, 0, &again, M));
        }
        tensor_t *all[] = {&a, &b, &c, &again};
        for (int i = 0; i < 4; i++)
            free_tensor(all[i]);
    }
    qp_device_close(&one);
    qp_device_close(&three);
}

int main(void)
{
    test_products(QP_COMPUTE_FP32, N_TYPE);
    test_repeatable(QP_COMPUTE_FP32, QP_F32);
    if (has_bf16()) {
        test_products(QP_COMPUTE_BF16, N_EQUAL);
        test_mixed_in_bf16();
        test_repeatable(QP_COMPUTE_BF16, QP_BF16);
    }
    return qp_test_end();
}
