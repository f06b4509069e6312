/* Frozen weights in memory: parts, packing, and int8 weights transposed for backward. */
#include "cuda/core/number.cuh"
#include "cuda/linear/impl.h"

enum { TILE = 64, TILE_THREADS = 256, ROW_THREADS = 128 };

/* --- storage ---------------------------------------------------------------------------------- */

static int64_t row_length(const qp_weight_t *w)
{
    return qp_weight_dtype(w->kind) == QP_I8 ? qp_int8_align(w->n_in) : w->n_in;
}

static size_t round64(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* int8: with the rows in excess. A head of floats may be an embedding: it ends where that does. */
static size_t data_bytes(const qp_weight_t *w)
{
    const qp_dtype_t dtype = qp_weight_dtype(w->kind);
    const int64_t n_row = dtype == QP_I8 ? qp_int8_rows(w->n_out) : w->n_out;
    return qp_bytes(n_row * row_length(w), qp_dtype_bytes(dtype));
}

/* Cuts a part off the front of the storage; a part of no bytes is none. */
static const void *take(uintptr_t *at, size_t bytes)
{
    const void *part = bytes > 0 ? (const void *)*at : NULL;
    *at += round64(bytes);
    return part;
}

/* The parts, one after another; *end gets the first address behind them. */
static qp_cuda_weight_t parts_of(const qp_weight_t *w, uintptr_t *end)
{
    const size_t row_bytes = qp_bytes(w->n_out, sizeof(float));
    const bool int8 = qp_weight_dtype(w->kind) == QP_I8;
    qp_cuda_weight_t parts = {.kind = w->kind,
                              .n_out = w->n_out,
                              .n_in = w->n_in,
                              .mode = w->mode,
                              .data = NULL,
                              .ld = row_length(w),
                              .scale = NULL,
                              .bias = NULL};
    *end = w->storage.address;
    parts.data = take(end, data_bytes(w));
    parts.scale = (const float *)take(end, int8 ? row_bytes : 0);
    parts.bias = (const float *)take(end, w->has_bias ? row_bytes : 0);
    return parts;
}

/* --- packing ---------------------------------------------------------------------------------- */

/* A row of int8 to one of length ld with zeros behind; rows from n_row on are zero. */
static __global__ void pack_kernel(int8_t *to, int64_t ld, const int8_t *from, int64_t n_row,
                                   int64_t n_col)
{
    const int64_t row = blockIdx.x;
    for (int64_t col = threadIdx.x; col < ld; col += blockDim.x)
        to[row * ld + col] = row < n_row && col < n_col ? from[row * n_col + col] : (int8_t)0;
}

/* n rows from \a first on; the last piece fills the rows in excess. */
static qp_error_t pack_int8(qp_queue_t *q, const qp_cuda_weight_t *w, int64_t first, qp_dptr_t from,
                            int64_t n)
{
    const bool last = first + n == w->n_out;
    const int64_t n_row = last ? qp_int8_rows(w->n_out) - first : n;
    const int8_t *plain = (const int8_t *)from.address;
    int8_t *to = (int8_t *)w->data + first * w->ld;
    if (n_row == n && w->ld == w->n_in)
        return qp_cuda_copy(q, {(uintptr_t)to}, from, qp_bytes(n, (size_t)w->ld));
    return QP_LAUNCH(q, pack_kernel, (unsigned)n_row, ROW_THREADS, to, w->ld, plain, n, w->n_in);
}

/* --- the transposed matrix -------------------------------------------------------------------- */

/* Four bytes of a row of weights, from column \a col on, a multiple of 4. */
static __device__ inline uint32_t load_word(const qp_cuda_weight_t &w, int64_t row, int64_t col)
{
    if (row >= w.n_out || col >= w.ld)
        return 0;
    return *(const uint32_t *)((const int8_t *)w.data + row * w.ld + col);
}

/* Byte \a byte of four words, as a word. */
static __device__ inline uint32_t gather_byte(const uint32_t word[4], int byte)
{
    uint32_t gathered = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
        gathered |= (word[i] >> 8 * byte & 0xffu) << 8 * i;
    return gathered;
}

/* A tile of 64 outputs x 64 inputs. Block x: outputs, y: inputs. A thread turns 4 x 4 bytes. */
static __global__ void __launch_bounds__(TILE_THREADS)
    transpose_kernel(int8_t *to, int64_t ld, int64_t n_row, qp_cuda_weight_t w, int64_t first)
{
    enum { WORDS = TILE / 4 };
    QP_SHARED(uint32_t, tile, [TILE][WORDS + 1]); /* [input][four outputs] */
    const int64_t out = (int64_t)blockIdx.x * TILE, in = (int64_t)blockIdx.y * TILE;
    const int x = threadIdx.x % WORDS, y = threadIdx.x / WORDS;
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        word[i] = load_word(w, out + 4 * y + i, first + in + 4 * x);
#pragma unroll
    for (int i = 0; i < 4; i++)
        tile[4 * x + i][y] = gather_byte(word, i);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t row = in + y + WORDS * i, col = out + 4 * x;
        if (row < n_row && col < ld)
            *(uint32_t *)(to + row * ld + col) = tile[y + WORDS * i][x];
    }
}

/* A warp for each row. */
static __global__ void sum_kernel(int32_t *sum, const int8_t *rows, int64_t n, int64_t ld)
{
    const int64_t row = (int64_t)blockIdx.x * (blockDim.x / QP_WARP) + threadIdx.x / QP_WARP;
    const int lane = threadIdx.x % QP_WARP;
    int total = 0;
    for (int64_t col = 4 * lane; row < n && col < ld; col += 4 * QP_WARP)
        total = __dp4a(*(const int *)(rows + row * ld + col), 0x01010101, total);
    for (int h = QP_WARP / 2; h > 0; h /= 2)
        total += __shfl_xor_sync(0xffffffffu, total, h);
    if (lane == 0 && row < n)
        sum[row] = total;
}

/* --- for all ---------------------------------------------------------------------------------- */

QP_CUDA_BEGIN

qp_cuda_weight_t qp_cuda_weight(const qp_weight_t *w)
{
    uintptr_t end;
    return parts_of(w, &end);
}

qp_cuda_weight_t qp_cuda_weight_rows(const qp_cuda_weight_t *w, int64_t first, int64_t n)
{
    const size_t bytes = qp_dtype_bytes(qp_weight_dtype(w->kind));
    qp_cuda_weight_t rows = *w;
    QP_ASSERT(first % QP_WEIGHT_ROWS == 0 && first + n <= w->n_out);
    rows.n_out = n;
    rows.data = (const char *)w->data + qp_bytes(first * w->ld, bytes);
    rows.scale = w->scale != NULL ? w->scale + first : NULL;
    rows.bias = w->bias != NULL ? w->bias + first : NULL;
    return rows;
}

size_t qp_cuda_weight_bytes(const qp_device_t *device, const qp_weight_t *w)
{
    (void)device;
    qp_weight_t null = *w;
    uintptr_t end;
    null.storage.address = 0;
    (void)parts_of(&null, &end);
    return (size_t)end;
}

qp_error_t qp_cuda_weight_pack(qp_queue_t *q, const qp_weight_t *weight, int64_t first,
                               qp_mat_t plain, qp_dptr_t scale, qp_dptr_t bias)
{
    const qp_cuda_weight_t w = qp_cuda_weight(weight);
    const qp_dtype_t dtype = qp_weight_dtype(w.kind);
    const int64_t n = plain.n_row;
    const size_t row_bytes = qp_bytes(n, sizeof(float));
    QP_ASSERT(first % QP_WEIGHT_ROWS == 0 && first + n <= w.n_out);
    QP_ASSERT(n % QP_WEIGHT_ROWS == 0 || first + n == w.n_out);
    QP_ASSERT(plain.dtype == dtype && plain.n_col == w.n_in && plain.ld == w.n_in);
    QP_ASSERT((scale.address == 0) == (w.scale == NULL));
    QP_ASSERT((bias.address == 0) == (w.bias == NULL));
    if (n == 0)
        return NULL;
    if (dtype == QP_I8) {
        QP_TRY(pack_int8(q, &w, first, plain.data, n));
    } else {
        const size_t before = qp_bytes(first * w.n_in, qp_dtype_bytes(dtype));
        QP_TRY(qp_cuda_copy(q, {(uintptr_t)w.data + before}, plain.data,
                            qp_bytes(n * w.n_in, qp_dtype_bytes(dtype))));
    }
    if (w.scale != NULL)
        QP_TRY(qp_cuda_copy(q, {(uintptr_t)(w.scale + first)}, scale, row_bytes));
    if (w.bias != NULL)
        QP_TRY(qp_cuda_copy(q, {(uintptr_t)(w.bias + first)}, bias, row_bytes));
    return NULL;
}

qp_error_t qp_cuda_weight_transpose(qp_queue_t *q, int8_t *to, const qp_cuda_weight_t *w,
                                    int64_t first, int64_t n)
{
    const int64_t ld = qp_int8_align(w->n_out), n_row = qp_int8_rows(n);
    const dim3 grid(qp_blocks_of(ld, TILE), qp_blocks_of(n_row, TILE));
    QP_ASSERT(first % 4 == 0);
    return QP_LAUNCH(q, transpose_kernel, grid, TILE_THREADS, to, ld, n_row, *w, first);
}

qp_error_t qp_cuda_weight_sums(qp_queue_t *q, int32_t *sum, const int8_t *rows, int64_t n,
                               int64_t ld)
{
    const unsigned grid = qp_blocks_of(n, ROW_THREADS / QP_WARP);
    return QP_LAUNCH(q, sum_kernel, grid, ROW_THREADS, sum, rows, n, ld);
}

QP_CUDA_END
