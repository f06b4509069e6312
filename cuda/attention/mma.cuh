/**
 * \file mma.cuh
 * Tiles of attention in bf16 with fp32 sums, for the tensor cores: how they lie in shared memory,
 * and their two products. A block has four warps; warp w has rows 16 w to 16 w + 15 of a result of
 * 64 rows, as qp_mma_bf16() has them: with g = lane / 4 and t = lane % 4 a lane holds of each eight
 * columns 2t and 2t + 1 of rows g (elements 0, 1) and g + 8 (2, 3).
 *
 * Operands lie in two forms: rows [T, EP / 2] of pairs of features, for products that sum over
 * features, and pairs of rows [T / 2, EP], for those that sum over rows. Pitches are such that the
 * lanes of a warp read different banks.
 */
#ifndef QP_CUDA_ATTENTION_MMA_CUH
#define QP_CUDA_ATTENTION_MMA_CUH

#include "cuda/attention/pass.cuh"
#include "cuda/core/ptx.h"

enum { QP_MMA_WARPS = 4, QP_MMA_THREADS = QP_MMA_WARPS * QP_WARP, QP_MMA_ROWS = 16 * QP_MMA_WARPS };

/** Words from row to row, and from one pair of rows to the next. */
static __host__ __device__ constexpr int qp_mma_row_pitch(int ep)
{
    return ep / 2 + 4;
}

static __host__ __device__ constexpr int qp_mma_pair_pitch(int ep)
{
    return ep + 8;
}

/** Two numbers as bf16, the first in the lower half. */
static __device__ inline uint32_t qp_bf16_pair(float low, float high)
{
#ifdef CUDA_ON_CPU
    return qp_bf16_bits(low) | (uint32_t)qp_bf16_bits(high) << 16;
#else
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

/** Where a lane stands. */
static __device__ inline int qp_mma_g(void)
{
    return (int)threadIdx.x % QP_WARP / 4;
}

static __device__ inline int qp_mma_t(void)
{
    return (int)threadIdx.x % 4;
}

/** Row of the block's result that a lane's elements 2 half, 2 half + 1 are of. */
static __device__ inline int qp_mma_row(int half)
{
    return (int)threadIdx.x / QP_WARP * 16 + qp_mma_g() + 8 * half;
}

/** Features [col, col + 4) of a head as bf16; zeros behind the last one. */
static __device__ inline uint2 qp_heads_bf16(const qp_heads_t &h, int64_t row, int head, int col,
                                             int e)
{
    if (h.m.dtype == QP_BF16 && h.quads && col + 4 <= e)
        return *reinterpret_cast<const uint2 *>((const qp_bf16_t *)h.m.data.address + row * h.m.ld +
                                                (int64_t)head * e + col);
    float4 x = qp_heads_get(h, row, head, col, e);
    if (h.scale != NULL) {
        const float scale = h.scale[row * h.scale_ld + head];
        x = {x.x * scale, x.y * scale, x.z * scale, x.w * scale};
    }
    return {qp_bf16_pair(x.x, x.y), qp_bf16_pair(x.z, x.w)};
}

/**
 * T rows of a head to shared memory, in the forms that are not NULL; those from n on are zero. Row
 * i is row \a first + i of the matrix, or page_row[i] where that is given (shared memory).
 */
template <int T, int EP>
static __device__ inline void qp_mma_load(uint32_t *rows, uint32_t *pairs, const qp_heads_t &h,
                                          int head, int e, int64_t first, const int64_t *page_row,
                                          int n)
{
    enum { QUADS = EP / 4 };
    QP_UNROLL_SOME(4)
    for (int at = (int)threadIdx.x; at < T / 2 * QUADS; at += QP_MMA_THREADS) {
        const int pair = at / QUADS, col = at % QUADS * 4;
        uint2 x[2];
        QP_UNROLL
        for (int i = 0; i < 2; i++) {
            const int r = 2 * pair + i;
            x[i] = {0, 0};
            if (r < n && col < e)
                x[i] = qp_heads_bf16(h, page_row != NULL ? page_row[r] : first + r, head, col, e);
            if (rows != NULL)
                *reinterpret_cast<uint2 *>(rows + r * qp_mma_row_pitch(EP) + col / 2) = x[i];
        }
        if (pairs != NULL)
            *reinterpret_cast<uint4 *>(pairs + pair * qp_mma_pair_pitch(EP) + col) = {
                (x[0].x & 0xffffu) | x[1].x << 16, x[0].x >> 16 | (x[1].x & 0xffff0000u),
                (x[0].y & 0xffffu) | x[1].y << 16, x[0].y >> 16 | (x[1].y & 0xffff0000u)};
    }
}

/** score [64, 8 N] = a b^T, of rows. */
template <int EP, int N>
static __device__ inline void qp_mma_scores(float (&score)[N][4], const uint32_t *a,
                                            const uint32_t *b)
{
    enum { PITCH = qp_mma_row_pitch(EP) };
    a += qp_mma_row(0) * PITCH + qp_mma_t();
    b += qp_mma_g() * PITCH + qp_mma_t();
    QP_UNROLL
    for (int n = 0; n < N; n++)
        score[n][0] = score[n][1] = score[n][2] = score[n][3] = 0.0f;
    QP_UNROLL
    for (int k = 0; k < EP / 16; k++, a += 8, b += 8) {
        const uint32_t x[4] = {a[0], a[8 * PITCH], a[4], a[8 * PITCH + 4]};
        QP_UNROLL
        for (int n = 0; n < N; n++) {
            const uint32_t y[2] = {b[n * 8 * PITCH], b[n * 8 * PITCH + 4]};
            qp_mma_bf16(score[n], x, y);
        }
    }
}

/** sum [64, EP] += weight x; the weights as a product leaves them, [64, 8 N], and pairs of rows. */
template <int EP, int N>
static __device__ inline void qp_mma_add(float (&sum)[EP / 8][4], const float (&weight)[N][4],
                                         const uint32_t *x)
{
    enum { PITCH = qp_mma_pair_pitch(EP) };
    x += qp_mma_t() * PITCH + qp_mma_g();
    QP_UNROLL
    for (int k = 0; k < N / 2; k++, x += 8 * PITCH) {
        const float(&low)[4] = weight[2 * k], (&high)[4] = weight[2 * k + 1];
        const uint32_t w[4] = {qp_bf16_pair(low[0], low[1]), qp_bf16_pair(low[2], low[3]),
                               qp_bf16_pair(high[0], high[1]), qp_bf16_pair(high[2], high[3])};
        QP_UNROLL
        for (int n = 0; n < EP / 8; n++) {
            const uint32_t y[2] = {x[8 * n], x[8 * n + 4 * PITCH]};
            qp_mma_bf16(sum[n], w, y);
        }
    }
}

/** A lane's part of n rows of a head, times a factor for each half, to rows first, ... */
template <int EP>
static __device__ inline void qp_mma_store(const qp_heads_t &h, int head, int e, int64_t first,
                                           int n, const float (&part)[EP / 8][4],
                                           const float (&factor)[2])
{
    QP_UNROLL
    for (int half = 0; half < 2; half++)
        QP_UNROLL
    for (int j = 0; j < EP / 8; j++)
        if (qp_mma_row(half) < n)
            qp_heads_put(h, first + qp_mma_row(half), head, 8 * j + 2 * qp_mma_t(), e,
                         part[j][2 * half] * factor[half], part[j][2 * half + 1] * factor[half]);
}

/** Calls f<EP> of the smallest EP that holds e features. */
#define QP_MMA_BY_SIZE(e, f, ...)     \
    ((e) <= 32   ? f<32>(__VA_ARGS__) \
     : (e) <= 64 ? f<64>(__VA_ARGS__) \
     : (e) <= 80 ? f<80>(__VA_ARGS__) \
     : (e) <= 96 ? f<96>(__VA_ARGS__) \
                 : f<128>(__VA_ARGS__))

#endif
