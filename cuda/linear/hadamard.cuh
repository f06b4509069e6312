/** \file hadamard.cuh  The rotation of compute/cpu/rows/quantise.c, with its order of sums. */
#ifndef QP_CUDA_LINEAR_HADAMARD_CUH
#define QP_CUDA_LINEAR_HADAMARD_CUH

#include "cuda/core/number.cuh"

/** A rotation in blocks of features (qp_hadamard_block()); block 0: none. */
typedef struct {
    int block;
    float norm; /**< 1 / sqrt(block) */
} qp_rotation_t;

static inline qp_rotation_t qp_rotation(int64_t block)
{
    qp_rotation_t rotation = {(int)block, 1.0f / sqrtf((float)block)};
    return rotation;
}

/** One butterfly over the lanes of a warp. */
static __device__ inline float qp_butterfly(float x, int h)
{
    const float other = __shfl_xor_sync(0xffffffffu, x, h);
    return (threadIdx.x & (unsigned)h) != 0u ? other - x : x + other;
}

/** Rotates 64 features, of which lane l of a warp has l (low) and l + 32 (high). All lanes. */
static __device__ inline void qp_rotate64(float &low, float &high, qp_rotation_t rotation)
{
#pragma unroll
    for (int h = 1; h < QP_WARP; h *= 2)
        if (h < rotation.block) {
            low = qp_butterfly(low, h);
            high = qp_butterfly(high, h);
        }
    if (rotation.block > QP_WARP) {
        const float sum = low + high, difference = low - high;
        low = sum;
        high = difference;
    }
    low *= rotation.norm;
    high *= rotation.norm;
}

#endif
