/**
 * \file ptx.h
 * Instructions that CUDA C++ has no name for, each with a plain twin for the executor.
 */
#ifndef QP_CUDA_CORE_PTX_H
#define QP_CUDA_CORE_PTX_H

#include "cuda/core/number.cuh"

/**
 * mma.sync.m16n8k16, bf16 with fp32 sums: c += a b of a warp, a [16, 16] in rows, b [16, 8] in
 * columns. With g = lane / 4 and t = lane % 4 a lane holds
 *
 *     a[0], a[2]: row g, features 2t, 2t + 1 and 2t + 8, 2t + 9;  a[1], a[3]: the same of row g + 8
 *     b[0], b[1]: column g, features 2t, 2t + 1 and 2t + 8, 2t + 9
 *     c[0], c[1]: row g, columns 2t, 2t + 1;  c[2], c[3]: the same of row g + 8
 *
 * with the lower feature in the lower half of a word.
 */
#ifndef CUDA_ON_CPU
static __device__ inline void qp_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
/* A product of two bf16 is exact in fp32, so that a sum with it is rounded once, as by fmaf(). */
static inline void qp_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const int lane = cuda_on_cpu::thread_now->lane, g = lane / 4, t = lane % 4;
    const auto *values = cuda_on_cpu::meet("mma.sync", 0xffffffffu, mine, sizeof mine);
    float row[2][16], col[2][16];
    for (int f = 0; f < 8; f++) { /* features 2f, 2f + 1 */
        const int from = f % 4, high = f / 4;
        for (int i = 0; i < 2; i++) {
            uint32_t of_row[6], of_col[6];
            memcpy(of_row, values->of_lane[4 * g + from], sizeof of_row);
            memcpy(of_col, values->of_lane[4 * (2 * t + i) + from], sizeof of_col);
            const uint32_t x = of_row[2 * high + i], y = of_col[4 + high];
            row[i][2 * f] = __uint_as_float(x << 16);
            row[i][2 * f + 1] = __uint_as_float(x & 0xffff0000u);
            col[i][2 * f] = __uint_as_float(y << 16);
            col[i][2 * f + 1] = __uint_as_float(y & 0xffff0000u);
        }
    }
    for (int f = 0; f < 16; f++)
        for (int i = 0; i < 4; i++)
            c[i] += row[i / 2][f] * col[i % 2][f];
}
#endif

#endif
