/**
 * \file tile.cuh
 * What the attention kernels share: a sequence as tiles of T rows, rows of one head in shared
 * memory, and the two products of tiles.
 *
 * A block of 4 T threads is 16 threads wide. A thread holds rows 4 y to 4 y + 3 of a result of T
 * rows: of scores the columns x, x + 16, ...; of E features the pairs 2 x, 2 x + 32, ... So what
 * the lanes read of a row at once lies in different banks, and sums over a row take shuffles of 16
 * lanes. Everything is fp32; features are filled up with zeros to EP, a multiple of 32.
 *
 * A row's arithmetic is the same wherever it stands in its tile, and keys that it does not see add
 * zeros to its sums: its bits depend on the keys that it sees alone.
 */
#ifndef QP_CUDA_ATTENTION_TILE_CUH
#define QP_CUDA_ATTENTION_TILE_CUH

#include "cuda/core/number.cuh"

enum { QP_TILE_X = 16, QP_TILE_ROWS = 4, QP_TILE_MAX_E = QP_CUDA_MAX_HEAD_DIM };

/* Whole loops, whose arrays then are registers; and loops of which a few steps are enough. */
#ifdef CUDA_ON_CPU
#define QP_UNROLL
#define QP_UNROLL_SOME(n)
#else
#define QP_PRAGMA(text) _Pragma(#text)
#define QP_UNROLL _Pragma("unroll")
#define QP_UNROLL_SOME(n) QP_PRAGMA(unroll n)
#endif

/** Threads of a block with tiles of \a t rows. */
static __host__ __device__ constexpr int qp_tile_threads(int t)
{
    return QP_TILE_X * t / QP_TILE_ROWS;
}

/** Floats from row to row of a tile with \a n columns: rows begin in different banks. */
static __host__ __device__ constexpr int qp_tile_pitch(int n)
{
    return n + 4;
}

/** Where a thread stands. */
static __device__ inline int qp_tile_x(void)
{
    return (int)threadIdx.x % QP_TILE_X;
}

static __device__ inline int qp_tile_row(void)
{
    return (int)threadIdx.x / QP_TILE_X * QP_TILE_ROWS;
}

/* --- tiles of a ragged batch ------------------------------------------------------------------ */

/** Sequences [first, n_seq) of a batch. */
typedef struct {
    const int32_t *cu_seqlens; /**< on the device */
    int first, n_seq;
} qp_tile_batch_t;

typedef struct {
    int seq, n;        /**< the sequence and its rows in the batch */
    int64_t first_row; /**< of the sequence, in the batch */
    int first;         /**< the tile's first row, in the sequence */
} qp_tile_t;

/** Places of tiles: a few more than there are tiles. */
static inline int64_t qp_tile_places(const qp_ragged_t *batch, int64_t first, int t)
{
    const int64_t n_token = batch->cu_seqlens_host[batch->n_seq] - batch->cu_seqlens_host[first];
    return n_token / t + batch->n_seq - first;
}

/**
 * The tile that has a place; false: there is none. Sequence s has as many places as tiles or one
 * more, from floor(rows before it / T) + sequences before it on.
 */
template <int T>
static __device__ inline bool qp_tile_find(qp_tile_t *tile, const qp_tile_batch_t *b, int place)
{
    const int start = b->cu_seqlens[b->first];
    int low = b->first, high = b->n_seq;
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        if ((b->cu_seqlens[middle] - start) / T + middle - b->first <= place)
            low = middle;
        else
            high = middle;
    }
    const int row = b->cu_seqlens[low];
    tile->seq = low;
    tile->n = b->cu_seqlens[low + 1] - row;
    tile->first_row = row;
    tile->first = (place - (row - start) / T - (low - b->first)) * T;
    return tile->first < tile->n;
}

/* --- rows of a head --------------------------------------------------------------------------- */

/** The columns of one head or more in a matrix of fp32, bf16 or int8. */
typedef struct {
    qp_mat_t m;
    const float *scale; /**< int8: [rows, scale_ld], a column for each head; or NULL */
    int64_t scale_ld;
    bool quads; /**< four elements of a head may be read at once, and two written */
} qp_heads_t;

static inline qp_heads_t qp_heads(qp_mat_t m, int64_t first_head, int64_t n_head, int64_t e)
{
    const size_t width = qp_dtype_bytes(m.dtype);
    qp_heads_t h = {};
    h.m = qp_mat_cols(m, first_head * e, n_head * e);
    h.quads = e % 4 == 0 && m.ld % 4 == 0 && h.m.data.address % (4 * width) == 0;
    return h;
}

/** Four elements in fp32 at \a at, not scaled. */
static __device__ inline float4 qp_heads_quad(const qp_heads_t &h, int64_t at)
{
    const char *p = (const char *)h.m.data.address;
    if (h.m.dtype == QP_F32)
        return *reinterpret_cast<const float4 *>(p + at * 4);
    if (h.m.dtype == QP_BF16) {
        const uint2 x = *reinterpret_cast<const uint2 *>(p + at * 2);
        return {__uint_as_float(x.x << 16), __uint_as_float(x.x & 0xffff0000u),
                __uint_as_float(x.y << 16), __uint_as_float(x.y & 0xffff0000u)};
    }
    const int x = *reinterpret_cast<const int *>(p + at);
    return {(float)(int8_t)x, (float)(int8_t)(x >> 8), (float)(int8_t)(x >> 16), (float)(x >> 24)};
}

static __device__ inline float qp_heads_one(const qp_heads_t &h, int64_t at)
{
    const char *p = (const char *)h.m.data.address;
    if (h.m.dtype == QP_F32)
        return ((const float *)p)[at];
    return h.m.dtype == QP_BF16 ? qp_f32(((const qp_bf16_t *)p)[at])
                                : qp_f32(((const int8_t *)p)[at]);
}

/** Features [col, col + 4) of a head of \a e in fp32, not scaled; zeros behind the last one. */
static __device__ inline float4 qp_heads_get(const qp_heads_t &h, int64_t row, int head, int col,
                                             int e)
{
    const int64_t at = row * h.m.ld + (int64_t)head * e + col;
    if (col + 4 <= e && h.quads)
        return qp_heads_quad(h, at);
    return {col < e ? qp_heads_one(h, at) : 0.0f, col + 1 < e ? qp_heads_one(h, at + 1) : 0.0f,
            col + 2 < e ? qp_heads_one(h, at + 2) : 0.0f,
            col + 3 < e ? qp_heads_one(h, at + 3) : 0.0f};
}

/** Features col (even) and col + 1 of those that there are. */
static __device__ inline void qp_heads_put(const qp_heads_t &h, int64_t row, int head, int col,
                                           int e, float x, float y)
{
    const int64_t at = row * h.m.ld + (int64_t)head * e + col;
    if (h.quads && col < e) {
        if (h.m.dtype == QP_F32)
            *reinterpret_cast<float2 *>((float *)h.m.data.address + at) = {x, y};
        else
            *reinterpret_cast<uint32_t *>((qp_bf16_t *)h.m.data.address + at) =
                qp_bf16_bits(x) | (uint32_t)qp_bf16_bits(y) << 16;
        return;
    }
    if (col < e)
        qp_mat_put(h.m, row, (int64_t)head * e + col, x);
    if (col + 1 < e)
        qp_mat_put(h.m, row, (int64_t)head * e + col + 1, y);
}

/** Where the rows of keys stand: one after the other, or in the pages of a cache. */
typedef struct {
    const int32_t *block_table; /**< [n_seq, ld]; NULL: no pages */
    int64_t ld;
    int block_len;
} qp_pages_t;

static __device__ inline int64_t qp_page_row(const qp_pages_t &pages, int seq, int token)
{
    const int block = token / pages.block_len;
    return (int64_t)pages.block_table[seq * pages.ld + block] * pages.block_len +
           (token - block * pages.block_len);
}

/**
 * Rows of a head to shared memory [T, EP]; those from n on are zero. Row i is row \a first + i of
 * the matrix, or page_row[i] where that is given (shared memory).
 */
template <int T, int EP>
static __device__ inline void qp_tile_load(float *to, const qp_heads_t &h, int head, int e,
                                           int64_t first, const int64_t *page_row, int n)
{
    enum { QUADS = EP / 4, N = T * QUADS / qp_tile_threads(T) };
    QP_UNROLL_SOME(4)
    for (int i = 0; i < N; i++) {
        const int at = (int)threadIdx.x + i * qp_tile_threads(T), r = at / QUADS,
                  col = at % QUADS * 4;
        float4 x = {0.0f, 0.0f, 0.0f, 0.0f};
        if (r < n && col < e) {
            const int64_t row = page_row != NULL ? page_row[r] : first + r;
            x = qp_heads_get(h, row, head, col, e);
            if (h.scale != NULL) {
                const float scale = h.scale[row * h.scale_ld + head];
                x = {x.x * scale, x.y * scale, x.z * scale, x.w * scale};
            }
        }
        *reinterpret_cast<float4 *>(to + r * qp_tile_pitch(EP) + col) = x;
    }
}

/** This thread's part of n rows of a head, times a factor for each, to rows first, ... */
template <int EP>
static __device__ inline void qp_tile_store(const qp_heads_t &h, int head, int e, int64_t first,
                                            int n, const float (&part)[QP_TILE_ROWS][EP / 16],
                                            const float (&factor)[QP_TILE_ROWS])
{
    QP_UNROLL
    for (int i = 0; i < QP_TILE_ROWS; i++)
        QP_UNROLL
    for (int j = 0; j < EP / 32; j++)
        if (qp_tile_row() + i < n)
            qp_heads_put(h, first + qp_tile_row() + i, head, 2 * qp_tile_x() + 32 * j, e,
                         part[i][2 * j] * factor[i], part[i][2 * j + 1] * factor[i]);
}

/* --- products --------------------------------------------------------------------------------- */

/** score = a b^T of tiles [T, EP], of the first e features. */
template <int T, int EP>
static __device__ inline void qp_tile_scores(float (&score)[QP_TILE_ROWS][T / 16], const float *a,
                                             const float *b, int e)
{
    const float *x = a + qp_tile_row() * qp_tile_pitch(EP);
    const float *y = b + qp_tile_x() * qp_tile_pitch(EP);
    QP_UNROLL
    for (int i = 0; i < QP_TILE_ROWS; i++)
        QP_UNROLL
    for (int j = 0; j < T / 16; j++)
        score[i][j] = 0.0f;
    QP_UNROLL_SOME(2)
    for (int c = 0; c < e; c += 4) {
        float4 row[QP_TILE_ROWS];
        QP_UNROLL
        for (int i = 0; i < QP_TILE_ROWS; i++)
            row[i] = *reinterpret_cast<const float4 *>(x + i * qp_tile_pitch(EP) + c);
        QP_UNROLL
        for (int j = 0; j < T / 16; j++) {
            const float4 k =
                *reinterpret_cast<const float4 *>(y + j * QP_TILE_X * qp_tile_pitch(EP) + c);
            QP_UNROLL
            for (int i = 0; i < QP_TILE_ROWS; i++) {
                float s = fmaf(row[i].x, k.x, score[i][j]);
                s = fmaf(row[i].y, k.y, s);
                s = fmaf(row[i].z, k.z, s);
                score[i][j] = fmaf(row[i].w, k.w, s);
            }
        }
    }
}

/** sum += weight x of weights [T, T] and rows [T, EP]. */
template <int T, int EP>
static __device__ inline void qp_tile_add(float (&sum)[QP_TILE_ROWS][EP / 16], const float *weight,
                                          const float *x)
{
    weight += qp_tile_row() * qp_tile_pitch(T);
    x += 2 * qp_tile_x();
    QP_UNROLL_SOME(1)
    for (int k = 0; k < T; k += 4) {
        float w[QP_TILE_ROWS][4];
        QP_UNROLL
        for (int i = 0; i < QP_TILE_ROWS; i++) {
            const float4 four =
                *reinterpret_cast<const float4 *>(weight + i * qp_tile_pitch(T) + k);
            w[i][0] = four.x, w[i][1] = four.y, w[i][2] = four.z, w[i][3] = four.w;
        }
        QP_UNROLL
        for (int r = 0; r < 4; r++)
            QP_UNROLL
        for (int j = 0; j < EP / 32; j++) {
            const float2 v =
                *reinterpret_cast<const float2 *>(x + (k + r) * qp_tile_pitch(EP) + 32 * j);
            QP_UNROLL
            for (int i = 0; i < QP_TILE_ROWS; i++) {
                sum[i][2 * j] = fmaf(w[i][r], v.x, sum[i][2 * j]);
                sum[i][2 * j + 1] = fmaf(w[i][r], v.y, sum[i][2 * j + 1]);
            }
        }
    }
}

/** This thread's weights to shared memory [T, T]. */
template <int T>
static __device__ inline void qp_tile_keep(float *to, const float (&weight)[QP_TILE_ROWS][T / 16])
{
    QP_UNROLL
    for (int i = 0; i < QP_TILE_ROWS; i++)
        QP_UNROLL
    for (int j = 0; j < T / 16; j++)
        to[(qp_tile_row() + i) * qp_tile_pitch(T) + qp_tile_x() + j * QP_TILE_X] = weight[i][j];
}

/** Over the 16 lanes that hold a row. */
static __device__ inline float qp_tile_max(float x)
{
    for (int h = QP_TILE_X / 2; h > 0; h /= 2)
        x = qp_max(__shfl_xor_sync(0xffffffffu, x, h), x);
    return x;
}

static __device__ inline float qp_tile_sum(float x)
{
    for (int h = QP_TILE_X / 2; h > 0; h /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, h);
    return x;
}

/** Calls f<EP> of the smallest EP that holds e features. */
#define QP_TILE_BY_SIZE(e, f, ...)      \
    ((e) <= 32    ? f<32>(__VA_ARGS__)  \
     : (e) <= 64  ? f<64>(__VA_ARGS__)  \
     : (e) <= 96  ? f<96>(__VA_ARGS__)  \
     : (e) <= 128 ? f<128>(__VA_ARGS__) \
     : (e) <= 192 ? f<192>(__VA_ARGS__) \
                  : f<256>(__VA_ARGS__))

#endif
