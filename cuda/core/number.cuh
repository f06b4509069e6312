/**
 * \file number.cuh
 * Elements as kernels see them: fp32 (float) and bf16 (qp_bf16_t), and sums over warps and blocks
 * in an order that does not change.
 */
#ifndef QP_CUDA_CORE_NUMBER_CUH
#define QP_CUDA_CORE_NUMBER_CUH

#include "cuda/core/launch.h"

enum { QP_WARP = 32 };

/** The bits of a bf16. */
struct qp_bf16_t {
    uint16_t bits;
};

static __device__ inline float qp_f32(float x)
{
    return x;
}

static __device__ inline float qp_f32(qp_bf16_t x)
{
    return __uint_as_float((uint32_t)x.bits << 16);
}

/** Whole numbers. */
static __device__ inline float qp_f32(int8_t x)
{
    return (float)x;
}

/** Round to nearest, ties to even; NaN stays NaN. As qp_f32_to_bf16(). */
static __device__ inline uint16_t qp_bf16_bits(float x)
{
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static __device__ inline void qp_put(float *to, float x)
{
    *to = x;
}

static __device__ inline void qp_put(qp_bf16_t *to, float x)
{
    to->bits = qp_bf16_bits(x);
}

/** A matrix of fp32 or bf16 whose type is known when the kernel runs: for what is bound by memory.
 */
static __device__ inline float qp_mat_get(const qp_mat_t &m, int64_t row, int64_t col)
{
    const int64_t at = row * m.ld + col;
    return m.dtype == QP_F32 ? ((const float *)m.data.address)[at]
                             : qp_f32(((const qp_bf16_t *)m.data.address)[at]);
}

static __device__ inline void qp_mat_put(const qp_mat_t &m, int64_t row, int64_t col, float x)
{
    const int64_t at = row * m.ld + col;
    if (m.dtype == QP_F32)
        ((float *)m.data.address)[at] = x;
    else
        qp_put((qp_bf16_t *)m.data.address + at, x);
}

template <typename T> static __host__ __device__ inline T *qp_at(qp_dptr_t p)
{
    return reinterpret_cast<T *>(p.address);
}

/** The sum of all lanes, the same in all of them; all 32 take part. */
template <typename T> static __device__ inline T qp_warp_sum(T x)
{
    for (int h = QP_WARP / 2; h > 0; h /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, h);
    return x;
}

/** The larger one; NaN if one is. */
static __device__ inline float qp_max(float a, float b)
{
    return a > b || a != a ? a : b;
}

static __device__ inline float qp_warp_max(float x)
{
    for (int h = QP_WARP / 2; h > 0; h /= 2)
        x = qp_max(__shfl_xor_sync(0xffffffffu, x, h), x);
    return x;
}

/** What \a join makes of the values of all threads, in a block of whole warps: the same in all of
 * them, in a fixed order; none: a value that changes nothing. Holds two barriers. */
template <typename T, typename Join>
static __device__ inline T qp_block_reduce(T x, T none, Join join)
{
    QP_SHARED(T, part, [QP_WARP]);
    for (int h = QP_WARP / 2; h > 0; h /= 2)
        x = join(__shfl_xor_sync(0xffffffffu, x, h), x);
    if (threadIdx.x % QP_WARP == 0)
        part[threadIdx.x / QP_WARP] = x;
    __syncthreads();
    x = threadIdx.x % QP_WARP < blockDim.x / QP_WARP ? part[threadIdx.x % QP_WARP] : none;
    for (int h = QP_WARP / 2; h > 0; h /= 2)
        x = join(__shfl_xor_sync(0xffffffffu, x, h), x);
    __syncthreads(); /* part may be written again */
    return x;
}

template <typename T> static __device__ inline T qp_block_sum(T x)
{
    return qp_block_reduce(x, (T)0, [](T a, T b) { return a + b; });
}

/** NaN if one is; of numbers >= 0 or whatever is not below \a least. */
static __device__ inline float qp_block_max(float x, float least)
{
    return qp_block_reduce(x, least, [](float a, float b) { return qp_max(a, b); });
}

#endif
