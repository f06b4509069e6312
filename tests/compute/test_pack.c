/* QP_TEST: isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16
 * Packed second operands: a product with one equals the product with the plain matrix, odd sizes,
 * both orders, both types of source. Products add in one order either way only by luck, so values
 * are small whole numbers: every sum is exact.
 */
#include "compute/cpu/rows/math.h"
#include "compute/cpu/gemm/pack.h"
#include "cpu_testing.h"

static float whole_number(int64_t i)
{
    return (float)((i * 37 + i / 7) % 17 - 8);
}

static void test_product(qp_cpu_device_t *device, qp_dtype_t dtype, qp_dtype_t from_dtype,
                         bool trans, int64_t m, int64_t n, int64_t k)
{
    const int64_t n_row = trans ? n : k, n_col = trans ? k : n, ld = n_col + 3;
    float *b = qp_alloc("test", qp_bytes(n_row * ld, sizeof *b));
    float *a = qp_alloc("test", qp_bytes(m * k, sizeof *a));
    float *c = qp_alloc("test", qp_bytes(m * n, sizeof *c));
    void *from = qp_alloc("test", qp_bytes(n_row * ld, sizeof *b));
    void *left = qp_alloc("test", qp_bytes(m * k, sizeof *a));
    void *packed = qp_alloc("test", qp_cpu_operand_bytes(device, dtype, k, n));
    for (int64_t i = 0; i < n_row * ld; i++)
        b[i] = whole_number(i);
    for (int64_t i = 0; i < m * k; i++)
        a[i] = whole_number(3 * i + 1);
    qp_cpu_convert(from, from_dtype, b, QP_F32, n_row * ld);
    qp_cpu_convert(left, dtype, a, QP_F32, m * k);
    qp_cpu_operand_pack(device, packed, dtype, from, from_dtype, ld, trans, k, n);
    qp_cpu_gemm_spec_t spec = {.m = m,
                               .n = n,
                               .k = k,
                               .lda = k,
                               .ldc = n,
                               .a = (int32_t)dtype,
                               .b = (int32_t)dtype,
                               .c = QP_F32,
                               .alpha = 1.0f};
    qp_cpu_operand_describe(device, &spec, trans);
    const qp_cpu_gemm_t *gemm;
    CHECK_OK(qp_cpu_gemm_get(device, &spec, &gemm));
    CHECK_OK(qp_cpu_gemm_run(gemm, 0, left, packed, c));
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float sum = 0.0f;
            for (int64_t d = 0; d < k; d++)
                sum += a[i * k + d] * b[trans ? j * ld + d : d * ld + j];
            n_wrong += c[i * n + j] != sum;
        }
    CHECK_MSG(n_wrong == 0, "%s from %s%s [%lld, %lld, %lld]: %lld wrong", qp_dtype_name(dtype),
              qp_dtype_name(from_dtype), trans ? "^T" : "", (long long)m, (long long)n,
              (long long)k, (long long)n_wrong);
    void *all[] = {b, a, c, from, left, packed};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        qp_free(all[i]);
}

static void test_dtype(qp_dtype_t dtype)
{
    static const int64_t sizes[][3] = {
        {1, 1, 1}, {5, 63, 31}, {64, 64, 32}, {16, 65, 33}, {33, 200, 96}};
    qp_device_t *device = open_device(1);
    qp_cpu_device_t *cpu = (qp_cpu_device_t *)device;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int trans = 0; trans < 2; trans++) {
            test_product(cpu, dtype, QP_F32, trans, sizes[i][0], sizes[i][1], sizes[i][2]);
            test_product(cpu, dtype, QP_BF16, trans, sizes[i][0], sizes[i][1], sizes[i][2]);
        }
    qp_device_close(&device);
}

int main(void)
{
    if (has_bf16())
        test_dtype(QP_BF16);
    test_dtype(QP_F32);
    return qp_test_end();
}
