#include "compute/cpu/gemm/dot.h"

#include "compute/cpu/gemm/dnnl.h"
#include "compute/cpu/rows/math.h"
#include "compute/cpu/gemm/transpose.h"

#if defined(__x86_64__)

#include <immintrin.h>

/* Rows of b at a time, or one; blocks of a that memory is asked for in advance. */
enum { GROUP = 4, MAX_SUMS = 16, AHEAD = 2 };

/*
 * Defines dots_<name>(): n_sum sums in registers, of n_sum rows of a with one of b, or of fewer
 * with GROUP rows. Macros, for an inline function cannot be told its instruction set by the
 * function it is inlined into.
 *
 * block: product [n_sum] is n_a rows of a (the last ones may repeat) with n_b rows of b; n_a n_b =
 * n_sum. Of the n_a rows AHEAD blocks on, every n_turn-th from \a turn on is called into the cache.
 */
#define DEFINE_DOTS(name, isa, a_t, b_t, vector, WIDTH, n_sum, LOAD_A, LOAD_B, MULTIPLY_ADD, SUM)  \
    __attribute__((target(isa), always_inline)) static inline void add_##name(                     \
        vector *sum, const a_t *const *a, const a_t *const *ahead, const b_t *b, int64_t ldb,      \
        int n_a, int n_b, int64_t at)                                                              \
    {                                                                                              \
        vector row[GROUP];                                                                         \
        _Pragma("GCC unroll 4") for (int j = 0; j < n_b; j++) row[j] = LOAD_B(b + j * ldb + at);   \
        _Pragma("GCC unroll 16") for (int i = 0; i < n_a; i++)                                     \
        {                                                                                          \
            const vector x = LOAD_A(a[i] + at);                                                    \
            _mm_prefetch((const char *)(ahead[i] + at), _MM_HINT_T1);                              \
            _Pragma("GCC unroll 4") for (int j = 0; j < n_b; j++) sum[j * n_a + i] =               \
                MULTIPLY_ADD(sum[j * n_a + i], x, row[j]);                                         \
        }                                                                                          \
    }                                                                                              \
    /* What is left of rows of n, less than WIDTH. */                                              \
    __attribute__((target(isa), always_inline)) static inline void add_rest_##name(                \
        vector *sum, const a_t *const *a, const b_t *b, int64_t n, int n_a, int n_b)               \
    {                                                                                              \
        const size_t rest = (size_t)(n % WIDTH);                                                   \
        const a_t *row[MAX_SUMS];                                                                  \
        a_t a_rest[MAX_SUMS][WIDTH] = {{0}};                                                       \
        b_t b_rest[GROUP][WIDTH] = {{0}};                                                          \
        for (int j = 0; j < n_b; j++)                                                              \
            memcpy(b_rest[j], b + (j + 1) * n - rest, rest * sizeof(b_t));                         \
        for (int i = 0; i < n_a; i++) {                                                            \
            memcpy(a_rest[i], a[i] + n - rest, rest * sizeof(a_t));                                \
            row[i] = a_rest[i];                                                                    \
        }                                                                                          \
        add_##name(sum, row, row, b_rest[0], WIDTH, n_a, n_b, 0);                                  \
    }                                                                                              \
    __attribute__((target(isa), always_inline)) static inline void block_##name(                   \
        float *product, const qp_cpu_dots_t *d, int64_t first_a, const b_t *b, int n_a, int n_b,   \
        int64_t turn, int64_t n_turn)                                                              \
    {                                                                                              \
        vector sum[n_sum];                                                                         \
        const a_t *a[n_sum], *ahead[n_sum];                                                        \
        _Pragma("GCC unroll 16") for (int i = 0; i < (n_sum); i++) sum[i] = (vector){0};           \
        _Pragma("GCC unroll 16") for (int i = 0; i < n_a; i++)                                     \
        {                                                                                          \
            a[i] = (const a_t *)d->a + qp_min_i64(first_a + i, d->n_a - 1) * d->n;                 \
            ahead[i] = i % n_turn == turn ? a[i] + AHEAD * n_a * d->n : a[i];                      \
        }                                                                                          \
        for (int64_t at = 0; at + (WIDTH) <= d->n; at += (WIDTH))                                  \
            add_##name(sum, a, ahead, b, d->n, n_a, n_b, at);                                      \
        if (d->n % (WIDTH) != 0)                                                                   \
            add_rest_##name(sum, a, b, d->n, n_a, n_b);                                            \
        SUM(product, sum);                                                                         \
    }                                                                                              \
    __attribute__((target(isa))) static void one_##name(const qp_cpu_dots_t *d)                    \
    {                                                                                              \
        for (int64_t i = 0; i < d->n_a; i += (n_sum)) {                                            \
            float product[n_sum];                                                                  \
            block_##name(product, d, i, d->b, n_sum, 1, 0, 1);                                     \
            memcpy(d->c + i, product, (size_t)qp_min_i64(d->n_a - i, n_sum) * sizeof *product);    \
        }                                                                                          \
    }                                                                                              \
    __attribute__((target(isa))) static void groups_##name(const qp_cpu_dots_t *d)                 \
    {                                                                                              \
        enum { N_A = (n_sum) / GROUP };                                                            \
        const int64_t n_group = (d->n_b + GROUP - 1) / GROUP;                                      \
        for (int64_t i = 0; i < d->n_a; i += N_A)                                                  \
            for (int64_t g = 0; g < n_group; g++) {                                                \
                const int64_t j = g * GROUP;                                                       \
                float product[n_sum];                                                              \
                block_##name(product, d, i, (const b_t *)d->b + j * d->n, N_A, GROUP, g, n_group); \
                const size_t n = (size_t)qp_min_i64(d->n_a - i, N_A);                              \
                for (int64_t k = 0; k < qp_min_i64(d->n_b - j, GROUP); k++)                        \
                    memcpy(d->c + (j + k) * d->ldc + i, product + k * N_A, n * sizeof *product);   \
            }                                                                                      \
    }                                                                                              \
    static void dots_##name(const qp_cpu_dots_t *d)                                                \
    {                                                                                              \
        (d->n_b == 1 ? one_##name : groups_##name)(d);                                             \
    }

/* --- AVX2 ------------------------------------------------------------------------------------- */

#define AVX2 "avx2,fma"

/* Eight sums of eight lanes each, in a tree. */
__attribute__((target(AVX2), always_inline)) static inline void sum_256(float *to,
                                                                        const __m256 *sum)
{
    for (int i = 0; i < 8; i += 4) {
        const __m256 x = _mm256_hadd_ps(_mm256_hadd_ps(sum[i], sum[i + 1]),
                                        _mm256_hadd_ps(sum[i + 2], sum[i + 3]));
        _mm_storeu_ps(to + i, _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)));
    }
}

#define WIDEN_256(p) \
    ((__m256)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p))), 16))
#define FMA_256(sum, a, b) _mm256_fmadd_ps((a), (b), (sum))

DEFINE_DOTS(f32_avx2, AVX2, float, float, __m256, 8, 8, _mm256_loadu_ps, _mm256_loadu_ps, FMA_256,
            sum_256)
DEFINE_DOTS(mixed_avx2, AVX2, uint16_t, float, __m256, 8, 8, WIDEN_256, _mm256_loadu_ps, FMA_256,
            sum_256)

/* --- AVX-512 ---------------------------------------------------------------------------------- */

#define AVX512 "avx512f,avx512bw,avx512dq"

__attribute__((target(AVX512), always_inline)) static inline void sum_512(float *to,
                                                                          const __m512 *sum)
{
    qp_floats_t lanes[MAX_SUMS];
    memcpy(lanes, sum, sizeof lanes);
    qp_cpu_sum_lanes(to, lanes);
}

#define WIDEN_512(p) \
    ((__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p))), 16))
#define FMA_512(sum, a, b) _mm512_fmadd_ps((a), (b), (sum))
#define LOAD_PAIRS(p) ((__m512)_mm512_loadu_si512(p))
#define DOT_PAIRS(sum, a, b) _mm512_dpbf16_ps((sum), (__m512bh)(a), (__m512bh)(b))

DEFINE_DOTS(f32_avx512, AVX512, float, float, __m512, 16, 16, _mm512_loadu_ps, _mm512_loadu_ps,
            FMA_512, sum_512)
DEFINE_DOTS(mixed_avx512, AVX512, uint16_t, float, __m512, 16, 16, WIDEN_512, _mm512_loadu_ps,
            FMA_512, sum_512)
DEFINE_DOTS(bf16, AVX512 ",avx512bf16", uint16_t, uint16_t, __m512, 32, 16, LOAD_PAIRS, LOAD_PAIRS,
            DOT_PAIRS, sum_512)

qp_cpu_dot_product_t qp_cpu_dot_product(qp_dtype_t a, qp_dtype_t b)
{
    static const struct {
        qp_dtype_t a, b;
        dnnl_cpu_isa_t isa;
        qp_cpu_dot_product_t product;
    } table[] = {
        {QP_F32, QP_F32, dnnl_cpu_isa_avx512_core, dots_f32_avx512},
        {QP_F32, QP_F32, dnnl_cpu_isa_avx2, dots_f32_avx2},
        {QP_BF16, QP_F32, dnnl_cpu_isa_avx512_core, dots_mixed_avx512},
        {QP_BF16, QP_F32, dnnl_cpu_isa_avx2, dots_mixed_avx2},
        {QP_BF16, QP_BF16, dnnl_cpu_isa_avx512_core_bf16, dots_bf16},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].a == a && table[i].b == b && qp_cpu_dnnl_has(table[i].isa))
            return table[i].product;
    return NULL;
}

#else

qp_cpu_dot_product_t qp_cpu_dot_product(qp_dtype_t a, qp_dtype_t b)
{
    (void)a;
    (void)b;
    return NULL;
}

#endif
