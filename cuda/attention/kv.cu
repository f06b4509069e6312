/* Rows of the paged KV cache: in fp32 or bf16 as they are, or in int8 with a scale per kv head. */
#include "cuda/rows/four.cuh"

enum { BLOCK = 128, N_WARP = BLOCK / QP_WARP };

/* --- append ----------------------------------------------------------------------------------- */

typedef struct {
    qp_kv_t kv;
    qp_mat_t k, v; /* the new ones */
    const int32_t *cu_seqlens, *n_past, *block_table;
    int64_t n_seq, table_ld;
    int head_dim, n_head;
    int word, width; /* plain copies: bytes of a word and of an element */
} append_t;

/* The token's row in the cache. Its sequence is the last one that does not begin behind it. */
static __device__ int64_t row_of(const append_t &a, int64_t token)
{
    int64_t seq = 0, end = a.n_seq;
    while (end - seq > 1) {
        const int64_t middle = (seq + end) / 2;
        if (a.cu_seqlens[middle] <= token)
            seq = middle;
        else
            end = middle;
    }
    const int64_t at = a.n_past[seq] + token - a.cu_seqlens[seq];
    const int64_t block = a.block_table[seq * a.table_ld + at / a.kv.block_len];
    return block * a.kv.block_len + at % a.kv.block_len;
}

static __device__ void append_row(const append_t &a, const qp_mat_t &to, int64_t to_row,
                                  const qp_mat_t &from, int64_t from_row)
{
    if (to.dtype == from.dtype)
        qp_copy_words(qp_at<char>(to.data) + to_row * to.ld * a.width,
                      qp_at<const char>(from.data) + from_row * from.ld * a.width,
                      to.n_col * a.width, a.word, (int)threadIdx.x, BLOCK);
    else
        for (int64_t col = threadIdx.x; col < to.n_col; col += BLOCK)
            qp_mat_put(to, to_row, col, qp_mat_get(from, from_row, col));
}

static __global__ void append_kernel(append_t a)
{
    const int64_t row = row_of(a, blockIdx.x);
    append_row(a, a.kv.k, row, a.k, blockIdx.x);
    append_row(a, a.kv.v, row, a.v, blockIdx.x);
}

/* One head by one warp. The bits of |x| order as integers do, and those of a NaN stand above all: a
 * head that is not finite gets a scale that is not. */
static __device__ void quantise_head(const qp_mat_t &to, const qp_mat_t &scale, int64_t to_row,
                                     const qp_mat_t &from, int64_t from_row, int head, int n)
{
    const int lane = (int)threadIdx.x % QP_WARP;
    const int64_t first = (int64_t)head * n;
    unsigned top = 0;
    for (int i = lane; i < n; i += QP_WARP) {
        const unsigned m = __float_as_uint(qp_mat_get(from, from_row, first + i)) & 0x7fffffffu;
        top = m > top ? m : top;
    }
    for (int h = QP_WARP / 2; h > 0; h /= 2) {
        const unsigned m = __shfl_xor_sync(0xffffffffu, top, h);
        top = m > top ? m : top;
    }
    const float absmax = __uint_as_float(top), factor = absmax > 1e-30f ? 127.0f / absmax : 0.0f;
    int8_t *q = qp_at<int8_t>(to.data) + to_row * to.ld + first;
    for (int i = lane; i < n; i += QP_WARP) {
        float y = qp_mat_get(from, from_row, first + i) * factor;
        y = y < -127.0f ? -127.0f : y;
        y = y > 127.0f ? 127.0f : y;
        /* 1.5 * 2^23 rounds to an integer, half to even, that stands in the lowest bits. */
        q[i] = (int8_t)(__float_as_uint(y + 12582912.0f) & 0xffu);
    }
    if (lane == 0)
        qp_at<float>(scale.data)[to_row * scale.ld + head] = absmax / 127.0f;
}

static __global__ void append_int8_kernel(append_t a)
{
    const int64_t row = row_of(a, blockIdx.x);
    for (int h = (int)threadIdx.x / QP_WARP; h < a.n_head; h += N_WARP) {
        quantise_head(a.kv.k, a.kv.k_scale, row, a.k, blockIdx.x, h, a.head_dim);
        quantise_head(a.kv.v, a.kv.v_scale, row, a.v, blockIdx.x, h, a.head_dim);
    }
}

/* --- copies ----------------------------------------------------------------------------------- */

enum { N_KIND = 4, MAX_LAYER = 64 };

/* The matrices of a kind in all layers of a launch: where is told apart, in bytes. */
typedef struct {
    int64_t ld, n; /* from row to row, and of a row */
    int word;
} shape_t;

/* Together below the 4 KiB that arguments may have. */
typedef struct {
    shape_t shape[N_KIND];
    int64_t block_len;
    int n_layer;
    char *at[MAX_LAYER][N_KIND]; /* NULL: there is none */
} layers_t;

/* A block copies the rows of one copy in one layer, a warp some of them. */
static __global__ void copy_kernel(layers_t l, const qp_kv_rows_t *rows)
{
    const qp_kv_rows_t c = rows[blockIdx.x / (unsigned)l.n_layer];
    const unsigned layer = blockIdx.x % (unsigned)l.n_layer;
    for (int kind = 0; kind < N_KIND; kind++) {
        char *base = l.at[layer][kind];
        const shape_t &s = l.shape[kind];
        for (int r = (int)threadIdx.x / QP_WARP; base != NULL && r < c.n_row; r += N_WARP)
            qp_copy_words(base + (c.to * l.block_len + r) * s.ld,
                          base + (c.from * l.block_len + r) * s.ld, s.n, s.word,
                          (int)threadIdx.x % QP_WARP, QP_WARP);
    }
}

static qp_mat_t matrix_of(const qp_kv_t *kv, int kind)
{
    return kind == 0 ? kv->k : kind == 1 ? kv->v : kind == 2 ? kv->k_scale : kv->v_scale;
}

static shape_t shape_of(qp_mat_t m)
{
    if (qp_dptr_is_null(m.data))
        return shape_t{0, 0, 1};
    const int64_t width = (int64_t)qp_dtype_bytes(m.dtype);
    return shape_t{m.ld * width, m.n_col * width, qp_word_of(m)};
}

/* Puts a layer behind those that are there; false if it is unlike them or there is no room. */
static bool add_layer(layers_t *l, const qp_kv_t *kv)
{
    if (l->n_layer == MAX_LAYER || (l->n_layer > 0 && l->block_len != kv->block_len))
        return false;
    for (int kind = 0; kind < N_KIND; kind++) {
        const qp_mat_t m = matrix_of(kv, kind);
        const shape_t s = shape_of(m), *first = &l->shape[kind];
        if (l->n_layer > 0 && (s.ld != first->ld || s.n != first->n || s.word != first->word))
            return false;
        l->shape[kind] = s;
        l->at[l->n_layer][kind] = qp_at<char>(m.data);
    }
    l->block_len = kv->block_len;
    l->n_layer++;
    return true;
}

QP_CUDA_BEGIN

qp_error_t qp_cuda_kv_append(qp_queue_t *q, const qp_kv_t *kv, qp_mat_t qkv,
                             const qp_attention_t *attention, const qp_ragged_t *batch,
                             const qp_kv_map_t *map)
{
    const int64_t e = attention->head_dim, n_kv = attention->n_kv_head * e;
    const int64_t n_q = attention->n_head * e;
    QP_ASSERT(kv->k.n_col == n_kv && kv->v.n_col == n_kv && qkv.n_col == n_q + 2 * n_kv);
    QP_ASSERT(kv->k.dtype != QP_I8 || kv->k_scale.n_col == attention->n_kv_head);
    if (batch->n_token == 0)
        return NULL;
    append_t a = {.kv = *kv,
                  .k = qp_mat_cols(qkv, n_q, n_kv),
                  .v = qp_mat_cols(qkv, n_q + n_kv, n_kv),
                  .cu_seqlens = qp_at<const int32_t>(batch->cu_seqlens),
                  .n_past = qp_at<const int32_t>(map->n_past_device),
                  .block_table = qp_at<const int32_t>(map->block_table_device),
                  .n_seq = batch->n_seq,
                  .table_ld = map->table_ld,
                  .head_dim = (int)e,
                  .n_head = (int)attention->n_kv_head,
                  .word = 16,
                  .width = (int)qp_dtype_bytes(kv->k.dtype)};
    const qp_mat_t all[] = {kv->k, kv->v, a.k, a.v};
    for (const qp_mat_t &m : all)
        a.word = qp_word_of(m) < a.word ? qp_word_of(m) : a.word;
    const unsigned grid = (unsigned)batch->n_token;
    return kv->k.dtype == QP_I8 ? QP_LAUNCH(q, append_int8_kernel, grid, BLOCK, a)
                                : QP_LAUNCH(q, append_kernel, grid, BLOCK, a);
}

qp_error_t qp_cuda_kv_copy(qp_queue_t *q, const qp_kv_copy_t *copies)
{
    const qp_kv_rows_t *rows = qp_at<const qp_kv_rows_t>(copies->rows_device);
    for (int64_t first = 0; first < copies->n_layer && copies->n_copy > 0;) {
        layers_t l = {};
        while (first < copies->n_layer && add_layer(&l, &copies->layer[first]))
            first++;
        QP_TRY(QP_LAUNCH(q, copy_kernel, (unsigned)(copies->n_copy * l.n_layer), BLOCK, l, rows));
    }
    return NULL;
}

QP_CUDA_END
