/**
 * \file attention_tile.h
 * What the attention kernels of AVX-512 with BF16 share: a product of a few rows held in registers,
 * and a base-2 exponential. x86 only.
 *
 * Operands are packed as pack.h says, 64 columns wide: a step of a product is one pair of
 * numbers of each column, STEP bytes on. The columns of the first operand are rows of the result,
 * those of the second its lanes.
 */
#ifndef QP_COMPUTE_CPU_ATTENTION_ATTENTION_TILE_H
#define QP_COMPUTE_CPU_ATTENTION_ATTENTION_TILE_H

#include <immintrin.h>

#include "compute/cpu/attention/attention.h"

#define QP_TILE_ISA __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define QP_TILE_INLINE QP_TILE_ISA static inline __attribute__((always_inline))

enum {
    QP_LANES = 16,
    QP_VECTORS = QP_QB / QP_LANES, /* of the queries of a block */
    QP_PAIR = 2 * sizeof(uint16_t),
    QP_STEP = QP_SUB * QP_PAIR,       /* bytes from one step of a packed operand to the next */
    QP_GROUP_STEPS = QP_LANES / 2,    /* steps that contract a group of 16 keys or queries */
    QP_SUB_STEPS = QP_SUB / 2,        /* and a block of them */
    QP_PANEL = QP_SUB_STEPS * QP_STEP /* bytes of 64 columns of an operand with 64 rows */
};

/**
 * 2^x to a relative error of 2^-18.4, a thousandth of bf16's, and exact for whole x; 0 of -infinity
 * and for x < -150, NaN of NaN. x = n + r with 0 <= r < 1, and a minimax polynomial for 2^r.
 */
QP_TILE_INLINE __m512 qp_tile_exp2(__m512 x)
{
    const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(0x1.b7f730p-7f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.abf868p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ee2450p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62d6c6p-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, x);
}

/** One operand where a tile reads it: bytes from row to row (first operand), step to step. */
typedef struct {
    const char *at;
    int64_t row, step;
} qp_tile_operand_t;

/** The columns of a packed operand from \a column on, its steps from \a step on. */
QP_TILE_INLINE qp_tile_operand_t qp_tile_packed(const void *operand, int64_t column, int64_t step)
{
    return (qp_tile_operand_t){(const char *)operand + step * QP_STEP + column * QP_PAIR, QP_PAIR,
                               QP_STEP};
}

/** Row-major [rows, QB] instead. */
QP_TILE_INLINE qp_tile_operand_t qp_tile_plain(const void *operand, int64_t row, int64_t step)
{
    return (qp_tile_operand_t){(const char *)operand + (row * QP_SUB_STEPS + step) * QP_PAIR,
                               QP_SUB_STEPS * QP_PAIR, QP_PAIR};
}

/** sum [n_row, n_vector] += a b over n_step pairs; the first two are constants. */
QP_TILE_INLINE void qp_tile_multiply(__m512 *sum, int n_row, int n_vector, qp_tile_operand_t a,
                                     qp_tile_operand_t b, int64_t n_step)
{
    for (int64_t i = 0; i < n_step; i++, a.at += a.step, b.at += b.step) {
        __m512bh lanes[QP_VECTORS];
#pragma GCC unroll 16
        for (int v = 0; v < n_vector; v++)
            lanes[v] = (__m512bh)_mm512_load_si512(b.at + v * (int)sizeof *lanes);
#pragma GCC unroll 16
        for (int r = 0; r < n_row; r++) {
            int32_t pair;
            memcpy(&pair, a.at + r * a.row, sizeof pair);
            const __m512bh all = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 16
            for (int v = 0; v < n_vector; v++)
                sum[r * n_vector + v] = _mm512_dpbf16_ps(sum[r * n_vector + v], all, lanes[v]);
        }
    }
}

QP_TILE_INLINE void qp_tile_zero(__m512 *sum, int n)
{
#pragma GCC unroll 16
    for (int i = 0; i < n; i++)
        sum[i] = _mm512_setzero_ps();
}

/** Adds a product to rows of fp32, \a ld apart. */
QP_TILE_INLINE void qp_tile_add(float *to, int64_t ld, int n_row, int n_vector, qp_tile_operand_t a,
                                qp_tile_operand_t b, int64_t n_step)
{
    __m512 sum[QP_LANES];
#pragma GCC unroll 16
    for (int r = 0; r < n_row; r++)
#pragma GCC unroll 16
        for (int v = 0; v < n_vector; v++)
            sum[r * n_vector + v] = _mm512_load_ps(to + r * ld + v * QP_LANES);
    qp_tile_multiply(sum, n_row, n_vector, a, b, n_step);
#pragma GCC unroll 16
    for (int r = 0; r < n_row; r++)
#pragma GCC unroll 16
        for (int v = 0; v < n_vector; v++)
            _mm512_store_ps(to + r * ld + v * QP_LANES, sum[r * n_vector + v]);
}

/** Two rows of 16 numbers as bf16, one after the other. */
QP_TILE_INLINE __m512i qp_tile_convert(__m512 first, __m512 second)
{
    return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

/** And as pairs of one number of each. */
QP_TILE_INLINE __m512i qp_tile_interleave(__m512i rows)
{
    const __m512i from =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(from, rows);
}

/** The lanes of a vector of queries that see a key which is \a behind the first of them. */
static inline __mmask16 qp_tile_seen(int64_t behind)
{
    const int64_t n = behind < 0 ? 0 : behind > QP_LANES ? QP_LANES : behind;
    return (__mmask16)(0xffffu << n & 0xffffu);
}

#endif
