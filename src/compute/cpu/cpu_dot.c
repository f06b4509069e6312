#include "compute/cpu/cpu_dot.h"

#include "compute/cpu/cpu.h"
#include "compute/cpu/cpu_math.h"
#include "compute/cpu/cpu_transpose.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define ISA __attribute__((target("avx512f,avx512bw,avx512dq,avx512bf16")))
#define INLINE ISA static inline __attribute__((always_inline))

/* Sixteen sums in registers; four rows of b at a time, or one. */
enum { SUMS = 16, GROUP = 4, WIDTH = 32 };

/* The lanes in mask of WIDTH numbers times WIDTH numbers, pair by pair. */
INLINE void add_products(__m512 *sum, const uint16_t *const *a, const uint16_t *const *ahead,
                         const uint16_t *b, int64_t ldb, int n_a, int n_b, int64_t at,
                         __mmask32 mask)
{
    __m512bh row[GROUP];
#pragma GCC unroll 16
    for (int j = 0; j < n_b; j++)
        row[j] = (__m512bh)_mm512_maskz_loadu_epi16(mask, b + j * ldb + at);
#pragma GCC unroll 16
    for (int i = 0; i < n_a; i++) {
        const __m512bh x = (__m512bh)_mm512_maskz_loadu_epi16(mask, a[i] + at);
        _mm_prefetch((const char *)(ahead[i] + at), _MM_HINT_T1);
#pragma GCC unroll 16
        for (int j = 0; j < n_b; j++)
            sum[j * n_a + i] = _mm512_dpbf16_ps(sum[j * n_a + i], x, row[j]);
    }
}

/*
 * product [SUMS]: n_a rows of a (the last ones may repeat) with n_b rows of b; n_a n_b = SUMS. Of
 * the n_a rows after these, every n_turn-th from \a turn on is called into the cache.
 */
INLINE void dot_block(float *product, const qp_cpu_dots_t *d, int64_t first_a, const uint16_t *b,
                      int n_a, int n_b, int64_t turn, int64_t n_turn)
{
    __m512 sum[SUMS];
    const uint16_t *a[SUMS], *ahead[SUMS];
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_setzero_ps();
#pragma GCC unroll 16
    for (int i = 0; i < n_a; i++) {
        a[i] = d->a + qp_cpu_min(first_a + i, d->n_a - 1) * d->n;
        ahead[i] = i % n_turn == turn ? a[i] + n_a * d->n : b;
    }
    int64_t at = 0;
    for (; at + WIDTH <= d->n; at += WIDTH)
        add_products(sum, a, ahead, b, d->n, n_a, n_b, at, ~(__mmask32)0);
    if (at < d->n)
        add_products(sum, a, ahead, b, d->n, n_a, n_b, at, ((__mmask32)1 << (d->n - at)) - 1);
    qp_floats_t lanes[SUMS];
    memcpy(lanes, sum, sizeof lanes);
    qp_cpu_sum_lanes(product, lanes);
}

ISA static void dot_one(const qp_cpu_dots_t *d)
{
    for (int64_t i = 0; i < d->n_a; i += SUMS) {
        float product[SUMS];
        dot_block(product, d, i, d->b, SUMS, 1, 0, 1);
        memcpy(d->c + i, product, (size_t)qp_cpu_min(d->n_a - i, SUMS) * sizeof *product);
    }
}

ISA static void dot_groups(const qp_cpu_dots_t *d)
{
    const int64_t n_group = (d->n_b + GROUP - 1) / GROUP;
    for (int64_t i = 0; i < d->n_a; i += GROUP)
        for (int64_t g = 0; g < n_group; g++) {
            const int64_t j = g * GROUP;
            float product[SUMS];
            dot_block(product, d, i, d->b + j * d->n, GROUP, GROUP, g, n_group);
            const int64_t n = qp_cpu_min(d->n_a - i, GROUP);
            for (int64_t k = 0; k < qp_cpu_min(d->n_b - j, GROUP); k++)
                memcpy(d->c + (j + k) * d->ldc + i, product + k * GROUP,
                       (size_t)n * sizeof *product);
        }
}

void qp_cpu_dots(const qp_cpu_dots_t *d)
{
    (d->n_b == 1 ? dot_one : dot_groups)(d);
}

#else

void qp_cpu_dots(const qp_cpu_dots_t *d)
{
    (void)d;
    QP_ASSERT(!"a CPU without bf16");
}

#endif
