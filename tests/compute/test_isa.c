/* QP_TEST: isa=AVX2,AVX2_VNNI,AVX512_CORE,AVX512_CORE_VNNI,AVX512_CORE_BF16
 * Our own products of whole numbers, and what a device does with the kind of CPU it finds: the same
 * integers everywhere. */
#include "compute/cpu/cpu.h"
#include "compute/cpu/linear/weight.h"
#include "cpu_testing.h"

enum { GAP = 5, GUARD = 0x55 }; /* between the rows of a */

/* Element (i, j) of a packed panel of k rows. */
static int64_t packed_at(int64_t i, int64_t j, int64_t k)
{
    return j / QP_CPU_PACK * QP_CPU_PACK * k + i / 4 * 4 * QP_CPU_PACK + j % QP_CPU_PACK * 4 +
           i % 4;
}

/* extreme: the largest sums there are, which overflow 16 bits after two terms. */
static void test_product(const qp_cpu_int8_product_t *product, int64_t m, int64_t n, int64_t k,
                         bool extreme)
{
    const qp_philox_key_t key = {.seed = 3, .step = (uint32_t)m};
    const int64_t lda = k + GAP;
    uint8_t *a = QP_NEW("test", uint8_t, m * lda);
    int8_t *b = QP_NEW("test", int8_t, k * n);
    int32_t *c = QP_NEW("test", int32_t, m * n + 1);
    for (int64_t i = 0; i < m * lda; i++)
        a[i] = extreme ? 255 : (uint8_t)(256.0f * qp_philox_uniform(&key, (uint64_t)i));
    for (int64_t i = 0; i < k * n; i++)
        b[i] =
            extreme
                ? (int8_t)(i / QP_CPU_PACK % 2 == 0 ? -127 : 127)
                : (int8_t)((int)(255.0f * qp_philox_uniform(&key, (uint64_t)(m * lda + i))) - 127);
    for (int64_t i = 0; i < m * n + 1; i++)
        c[i] = GUARD;
    product->run(c, a, lda, b, m, n, k, m % 2 == 0 ? b : NULL);
    int64_t n_wrong = 0;
    for (int64_t r = 0; r < m; r++)
        for (int64_t j = 0; j < n; j++) {
            int32_t sum = 0;
            for (int64_t i = 0; i < k; i++)
                sum += a[r * lda + i] * b[packed_at(i, j, k)];
            n_wrong += c[r * n + j] != sum;
        }
    CHECK_MSG(n_wrong == 0, "[%lld, %lld] x [%lld, %lld]: %lld differ", (long long)m, (long long)k,
              (long long)k, (long long)n, (long long)n_wrong);
    CHECK(c[m * n] == GUARD);
    QP_FREE(a);
    QP_FREE(b);
    QP_FREE(c);
}

/* Blocks of every height, more rows and more depth than are widened at a time. */
static void test_products(const qp_cpu_int8_product_t *product)
{
    for (int64_t m = 1; m <= 13; m++)
        test_product(product, m, 64, 64, false);
    test_product(product, 128, 256, 576, false);
    test_product(product, 131, 128, 320, false);
    test_product(product, 300, 64, 192, false);
    test_product(product, 9, 192, 1536, false);
    test_product(product, 7, 64, 4096, true);
}

/* Weights lie in one layout wherever there is AVX2; who multiplies them is the CPU's affair. */
static void test_device(void)
{
    qp_device_t *device = open_compute(QP_COMPUTE_AUTO, 1);
    const qp_cpu_device_t *cpu = (qp_cpu_device_t *)device;
    const char *name = qp_device_describe(device);
    if (strstr(name, "AVX") != NULL)
        CHECK_MSG(cpu->packed_int8, "%s", name);
    CHECK_MSG((cpu->int8_product == NULL) == (strstr(name, "AMX") != NULL), "%s", name);
    qp_device_close(&device);
}

int main(void)
{
    const qp_cpu_int8_product_t *product = qp_cpu_int8_product();
    if (product != NULL)
        test_products(product);
    test_device();
    return qp_test_end();
}
