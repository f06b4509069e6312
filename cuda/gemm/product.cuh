/**
 * \file product.cuh
 * What the kernels of products in bf16 (product_bf16.cu) and in fp32 (product_f32.cu) have in
 * common: operands brought from memory eight elements at a time, and the result written.
 *
 * An element of the result is one chain over the summed features in ascending order, whatever the
 * tile it lies in: tiles are chosen by what fills the card.
 */
#ifndef QP_CUDA_GEMM_PRODUCT_CUH
#define QP_CUDA_GEMM_PRODUCT_CUH

#include "cuda/core/ptx.h"
#include "cuda/gemm/matmul.h"

/** One of the two matrices: [n, k], n the rows or columns of the result. */
struct qp_operand_t {
    const void *data;
    int64_t ld, n;
    bool along;  /**< features stand together; else what n counts does */
    bool vector; /**< eight elements from a multiple of eight on are aligned for a wide load */
};

/** A product as its kernels see it. */
struct qp_product_t {
    qp_cuda_product_t p;
    qp_operand_t a, b;
    int64_t m, n, k;
    int64_t n_row_tile, n_col_tile; /**< set at the launch */
    int64_t piece; /**< features that one block sums over: k, or less where partial is set */
    int64_t n_piece;
    float *partial; /**< [n_piece, m, n] sums of pieces, or NULL: the result is written */
};

/* --- host ------------------------------------------------------------------------------------- */

/** Queues a product whose operands are multiplied in bf16, or in fp32. */
qp_error_t qp_product_bf16(qp_queue_t *q, qp_product_t *p);
qp_error_t qp_product_f32(qp_queue_t *q, qp_product_t *p);

enum { QP_LARGE_TILE = 128, QP_SMALL_TILE = 64 };

/** Whether large tiles would leave much of the card idle. */
static inline bool qp_product_wants_small(qp_queue_t *q, const qp_product_t *p)
{
    const int64_t n_row = (p->m + QP_LARGE_TILE - 1) / QP_LARGE_TILE;
    const int64_t n_col = (p->n + QP_LARGE_TILE - 1) / QP_LARGE_TILE;
    return p->m <= QP_SMALL_TILE || p->n <= QP_SMALL_TILE ||
           n_row * n_col * p->n_piece < 2 * qp_cuda_device(q)->n_sm;
}

/** launch(A(), B()), of the types of the operands: what it returns. */
template <typename Launch>
static inline qp_error_t qp_product_by_type(const qp_product_t *p, Launch launch)
{
    const auto with = [&](auto a) {
        switch (p->p.b.dtype) {
        case QP_F32:
            return launch(a, float());
        case QP_BF16:
            return launch(a, qp_bf16_t());
        default:
            return launch(a, int8_t());
        }
    };
    return p->p.a.dtype == QP_F32 ? with(float()) : with(qp_bf16_t());
}

/** Fills in how many tiles there are; the grid. */
static inline dim3 qp_product_grid(qp_product_t *p, int64_t tile)
{
    p->n_row_tile = (p->m + tile - 1) / tile;
    p->n_col_tile = (p->n + tile - 1) / tile;
    return dim3((unsigned)(p->n_row_tile * p->n_col_tile), (unsigned)p->n_piece);
}

/* --- tiles ------------------------------------------------------------------------------------ */

/** First row and column of the block's tile. Blocks that run together share rows and columns: some
 * rows of tiles are done column by column. */
static __device__ inline void qp_tile_start(const qp_product_t &p, int tile, int64_t *row,
                                            int64_t *col)
{
    const int64_t together = 16, per_band = together * p.n_col_tile;
    const int64_t first = blockIdx.x / per_band * together, at = blockIdx.x % per_band;
    const int64_t height = p.n_row_tile - first < together ? p.n_row_tile - first : together;
    *row = (first + at % height) * tile;
    *col = at / height * tile;
}

/* --- operands --------------------------------------------------------------------------------- */

static __device__ inline uint32_t qp_bits(float x)
{
    return __float_as_uint(x);
}

static __device__ inline uint32_t qp_bits(qp_bf16_t x)
{
    return x.bits;
}

static __device__ inline uint32_t qp_bits(int8_t x)
{
    return (uint8_t)x;
}

/** Eight elements of memory as they lie there. */
template <typename T> struct qp_eight_t {
    uint32_t word[2 * sizeof(T)];
};

/** The first n of eight elements, zeros after them. */
template <typename T>
static __device__ inline void qp_load_eight(qp_eight_t<T> *to, const T *from, int64_t n,
                                            bool vector)
{
    constexpr int WORDS = 2 * (int)sizeof(T), IN_WORD = 4 / (int)sizeof(T);
    if (vector && n >= 8) {
        if constexpr (WORDS == 2) {
            const uint2 x = *reinterpret_cast<const uint2 *>(from);
            to->word[0] = x.x;
            to->word[1] = x.y;
        } else {
#pragma unroll
            for (int i = 0; i < WORDS; i += 4) {
                const uint4 x = reinterpret_cast<const uint4 *>(from)[i / 4];
                to->word[i] = x.x;
                to->word[i + 1] = x.y;
                to->word[i + 2] = x.z;
                to->word[i + 3] = x.w;
            }
        }
        return;
    }
#pragma unroll
    for (int w = 0; w < WORDS; w++) {
        uint32_t word = 0;
#pragma unroll
        for (int i = 0; i < IN_WORD; i++)
            if (w * IN_WORD + i < n)
                word |= qp_bits(from[w * IN_WORD + i]) << (i * 32 / IN_WORD);
        to->word[w] = word;
    }
}

/** Eight elements from (at, feature) on, along features or along what n counts; what is outside of
 * the matrix, or from feature end on, is 0. */
template <typename T>
static __device__ inline void qp_load_operand(qp_eight_t<T> *to, const qp_operand_t &from,
                                              int64_t at, int64_t feature, int64_t end)
{
    const T *data = static_cast<const T *>(from.data);
    if (from.along)
        qp_load_eight(to, data + at * from.ld + feature, at < from.n ? end - feature : 0,
                      from.vector);
    else
        qp_load_eight(to, data + feature * from.ld + at, feature < end ? from.n - at : 0,
                      from.vector);
}

/** Element i of eight. */
static __device__ inline float qp_element(const qp_eight_t<float> &x, int i)
{
    return __uint_as_float(x.word[i]);
}

static __device__ inline float qp_element(const qp_eight_t<qp_bf16_t> &x, int i)
{
    return __uint_as_float(i % 2 == 0 ? x.word[i / 2] << 16 : x.word[i / 2] & 0xffff0000u);
}

static __device__ inline float qp_element(const qp_eight_t<int8_t> &x, int i)
{
    return (float)(int8_t)(x.word[i / 4] >> (i % 4 * 8));
}

/* --- the result ------------------------------------------------------------------------------- */

/** What becomes of a sum. */
static __device__ inline float qp_product_value(const qp_cuda_product_t &p, int64_t row,
                                                int64_t col, float sum)
{
    float x = p.alpha * sum;
    if (p.column_scale != NULL)
        x *= p.column_scale[col];
    if (p.bias != NULL)
        x += p.bias[col];
    if (p.mask.bits.address != 0) {
        const uint64_t word =
            qp_at<const uint64_t>(p.mask.bits)[row * ((p.c.n_col + 63) / 64) + col / 64];
        x = (word >> (col % 64) & 1) != 0 ? x * p.mask.scale : 0.0f;
    }
    if (p.beta != 0.0f)
        x += p.beta * qp_mat_get(p.c, row, col);
    if (p.add.data.address != 0)
        x += qp_mat_get(p.add, row, col);
    return x;
}

/** The sum of the block's piece of features. */
static __device__ inline void qp_product_put(const qp_product_t &p, int64_t row, int64_t col,
                                             float sum)
{
    if (row >= p.m || col >= p.n)
        return;
    if (p.partial != NULL)
        p.partial[((int64_t)blockIdx.y * p.m + row) * p.n + col] = sum;
    else
        qp_mat_put(p.p.c, row, col, qp_product_value(p.p, row, col, sum));
}

#endif
