/**
 * \file input.cuh
 * Inputs of linears, row by row (qp_input_t), in the formulas of compute/cpu/rows/input.c.
 */
#ifndef QP_CUDA_ROWS_INPUT_CUH
#define QP_CUDA_ROWS_INPUT_CUH

#include "cuda/core/number.cuh"

/** Threads of a block that computes rows of n features, wherever it does: the order in which the
 * squares of a row are summed follows from it. */
static inline unsigned qp_row_threads(int64_t n)
{
    return n <= 256 ? 64 : n <= 1024 ? 128 : n <= 8192 ? 256 : 512;
}

/** Element i of the copy of row r, under the mask. */
static __device__ inline void qp_input_put_copy(const qp_input_t &in, int64_t r, int64_t i, float x)
{
    const uint32_t *bits = (const uint32_t *)in.mask.bits.address;
    if (bits != NULL) {
        const int64_t words = (in.copy.n_col + 63) / 64 * 2;
        const uint32_t bit = bits[r * words + i / 32] >> (i % 32) & 1u;
        x = bit != 0u ? x * in.mask.scale : 0.0f;
    }
    qp_mat_put(in.copy, r, i, x);
}

/** 1 / sqrt(mean(x^2) + eps) of a row, in all threads of the block. */
template <typename T> static __device__ inline float qp_input_rstd(const qp_input_t &in, const T *x)
{
    float sum = 0.0f;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < in.x.n_col; i += blockDim.x) {
        const float v = qp_f32(x[i]);
        sum += v * v;
    }
    return 1.0f / sqrtf(qp_block_sum(sum) / (float)in.x.n_col + in.eps);
}

/** put(i, x) for each element of SWIGLU_GRADIENT's row: all that an element is made of has been
 * read when it is put, so the copy may be where x is. */
template <typename T, typename Put>
static __device__ __forceinline__ void qp_input_swiglu_gradient(const qp_input_t &in, int64_t r,
                                                                const T *x, Put put)
{
    const int64_t n = in.dout.n_col;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        const float gate = qp_f32(x[i]), up = qp_f32(x[n + i]), dy = qp_mat_get(in.dout, r, i);
        const float s = 1.0f / (1.0f + expf(-gate));
        put(i, dy * up * s * (1.0f + gate * (1.0f - s)));
        put(n + i, dy * gate * s);
    }
}

template <typename T, typename Put>
static __device__ __forceinline__ void qp_input_elements(const qp_input_t &in, int64_t r, Put put)
{
    const T *x = (const T *)in.x.data.address + r * in.x.ld;
    if (in.kind == QP_INPUT_PLAIN) {
#pragma unroll 4
        for (int64_t i = threadIdx.x; i < in.x.n_col; i += blockDim.x)
            put(i, qp_f32(x[i]));
    } else if (in.kind == QP_INPUT_RMSNORM) {
        const float *weight = (const float *)in.weight.address;
        const float rstd = qp_input_rstd(in, x);
        if (threadIdx.x == 0)
            ((float *)in.rstd.address)[r] = rstd;
#pragma unroll 4
        for (int64_t i = threadIdx.x; i < in.x.n_col; i += blockDim.x)
            put(i, qp_f32(x[i]) * (rstd * weight[i]));
    } else if (in.kind == QP_INPUT_SWIGLU) {
        const int64_t n = in.x.n_col / 2;
#pragma unroll 4
        for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
            const float gate = qp_f32(x[i]);
            put(i, qp_f32(x[n + i]) * (gate / (1.0f + expf(-gate))));
        }
    } else {
        qp_input_swiglu_gradient(in, r, x, put);
    }
}

/**
 * Row r by the threads of a block of whole warps, qp_row_threads() of them: put(i, x) for each
 * element, once; writes rstd and the copy. May hold barriers; what put() wrote is seen by other
 * threads after another one.
 */
template <typename Put>
static __device__ __forceinline__ void qp_input_row(const qp_input_t &in, int64_t r, Put put)
{
    const bool copies = in.copy.data.address != 0;
    const auto both = [&](int64_t i, float x) {
        if (copies)
            qp_input_put_copy(in, r, i, x);
        put(i, x);
    };
    if (in.x.dtype == QP_F32)
        qp_input_elements<float>(in, r, both);
    else
        qp_input_elements<qp_bf16_t>(in, r, both);
}

#endif
