/**
 * \file four.cuh
 * Rows read and written four elements at a time where they are aligned for it, else one by one; and
 * rows copied as they are. For what is bound by memory.
 */
#ifndef QP_CUDA_ROWS_FOUR_CUH
#define QP_CUDA_ROWS_FOUR_CUH

#include "cuda/core/number.cuh"

/* --- W = 1 or 4 elements of fp32 or bf16 ------------------------------------------------------ */

/** Whether all rows may be read in fours. */
static inline bool qp_in_fours(qp_mat_t m)
{
    return m.data.address % (4 * qp_dtype_bytes(m.dtype)) == 0 && m.ld % 4 == 0 && m.n_col % 4 == 0;
}

/** The same for a flat array of fp32. */
static inline bool qp_in_fours(qp_dptr_t p)
{
    return p.address % (4 * sizeof(float)) == 0;
}

static __device__ inline void qp_get(float (&x)[1], const float *from)
{
    x[0] = *from;
}

static __device__ inline void qp_get(float (&x)[4], const float *from)
{
    const float4 all = *reinterpret_cast<const float4 *>(from);
    x[0] = all.x;
    x[1] = all.y;
    x[2] = all.z;
    x[3] = all.w;
}

static __device__ inline void qp_get(float (&x)[1], const qp_mat_t &m, int64_t row, int64_t col)
{
    x[0] = qp_mat_get(m, row, col);
}

static __device__ inline void qp_get(float (&x)[4], const qp_mat_t &m, int64_t row, int64_t col)
{
    const int64_t at = row * m.ld + col;
    if (m.dtype == QP_F32) {
        qp_get(x, qp_at<float>(m.data) + at);
        return;
    }
    const uint2 all = *reinterpret_cast<const uint2 *>(qp_at<qp_bf16_t>(m.data) + at);
    x[0] = __uint_as_float(all.x << 16);
    x[1] = __uint_as_float(all.x & 0xffff0000u);
    x[2] = __uint_as_float(all.y << 16);
    x[3] = __uint_as_float(all.y & 0xffff0000u);
}

static __device__ inline void qp_put(const float (&x)[1], const qp_mat_t &m, int64_t row,
                                     int64_t col)
{
    qp_mat_put(m, row, col, x[0]);
}

static __device__ inline void qp_put(const float (&x)[4], const qp_mat_t &m, int64_t row,
                                     int64_t col)
{
    const int64_t at = row * m.ld + col;
    if (m.dtype == QP_F32) {
        *reinterpret_cast<float4 *>(qp_at<float>(m.data) + at) = float4{x[0], x[1], x[2], x[3]};
        return;
    }
    *reinterpret_cast<uint2 *>(qp_at<qp_bf16_t>(m.data) + at) =
        uint2{qp_bf16_bits(x[0]) | (unsigned)qp_bf16_bits(x[1]) << 16,
              qp_bf16_bits(x[2]) | (unsigned)qp_bf16_bits(x[3]) << 16};
}

/* --- bytes ------------------------------------------------------------------------------------ */

/** Bytes of the largest word in which all of the matrix' rows may be copied. */
static inline int qp_word_of(qp_mat_t m)
{
    const size_t width = qp_dtype_bytes(m.dtype);
    const size_t all = m.data.address | (size_t)m.ld * width | (size_t)m.n_col * width;
    return all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : all % 2 == 0 ? 2 : 1;
}

template <typename W>
static __device__ inline void qp_copy_as(void *to, const void *from, int64_t bytes, int first,
                                         int step)
{
    for (int64_t i = first; i < bytes / (int64_t)sizeof(W); i += step)
        static_cast<W *>(to)[i] = static_cast<const W *>(from)[i];
}

/** Copies a row in words of so many bytes: this thread's are \a first, first + step ... */
static __device__ inline void qp_copy_words(void *to, const void *from, int64_t bytes, int word,
                                            int first, int step)
{
    if (word == 16)
        qp_copy_as<uint4>(to, from, bytes, first, step);
    else if (word == 4)
        qp_copy_as<uint32_t>(to, from, bytes, first, step);
    else if (word == 2)
        qp_copy_as<uint16_t>(to, from, bytes, first, step);
    else
        qp_copy_as<uint8_t>(to, from, bytes, first, step);
}

#endif
