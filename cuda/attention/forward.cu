/*
 * Causal attention forward: a block has a tile of queries of one head and walks the tiles of keys
 * that they see, with the softmax on line (Milakov and Gimelshein 2018; Dao 2023).
 */
#include "cuda/attention/attention.h"
#include "cuda/attention/pass.cuh"

/* Two tiles of features and one of weights are in shared memory: less than the 99 KB that every
 * card since sm_80 gives. */
static __host__ __device__ constexpr int tile_rows(int ep)
{
    return ep <= 128 ? 64 : 32;
}

static constexpr size_t shared_bytes(int ep)
{
    const int t = tile_rows(ep);
    return (size_t)(2 * t * qp_tile_pitch(ep) + t * qp_tile_pitch(t)) * sizeof(float);
}

/* Rows of a tile as this thread has them. */
template <int EP> struct rows_t {
    float out[QP_TILE_ROWS][EP / 16];           /* not yet divided by the sum */
    float top[QP_TILE_ROWS], sum[QP_TILE_ROWS]; /* largest score; this lane's share of the sum */
};

/* Scores become weights relative to the running maximum; query i sees keys up to \a seen + i. */
template <int T, int EP>
static __device__ inline void softmax(rows_t<EP> *rows, float (&score)[QP_TILE_ROWS][T / 16],
                                      int seen, float scale)
{
    QP_UNROLL
    for (int i = 0; i < QP_TILE_ROWS; i++) {
        float top = -INFINITY;
        QP_UNROLL
        for (int j = 0; j < T / 16; j++) {
            const bool is_seen = qp_tile_x() + j * QP_TILE_X <= seen + qp_tile_row() + i;
            score[i][j] = is_seen ? score[i][j] * scale : -INFINITY;
            top = qp_max(score[i][j], top);
        }
        top = qp_max(qp_tile_max(top), rows->top[i]);
        const float shrink = expf(rows->top[i] - top);
        rows->top[i] = top;
        float sum = 0.0f;
        QP_UNROLL
        for (int j = 0; j < T / 16; j++) {
            score[i][j] = expf(score[i][j] - top);
            sum += score[i][j];
        }
        rows->sum[i] = rows->sum[i] * shrink + sum;
        QP_UNROLL
        for (int j = 0; j < EP / 16; j++)
            rows->out[i][j] *= shrink;
    }
}

template <int T, int EP>
static __device__ inline void finish(const qp_forward_t &f, rows_t<EP> *rows, const qp_tile_t &tile,
                                     int head)
{
    float part[QP_TILE_ROWS];
    const int64_t first = tile.first_row + tile.first;
    const int n = tile.n - tile.first;
    QP_UNROLL
    for (int i = 0; i < QP_TILE_ROWS; i++) {
        const float sum = qp_tile_sum(rows->sum[i]);
        const int row = qp_tile_row() + i;
        if (f.lse != NULL && row < n && qp_tile_x() == 0)
            f.lse[head * f.n_token + first + row] = rows->top[i] + logf(sum);
        part[i] = 1.0f / sum;
    }
    qp_tile_store<EP>(f.out, head, f.e, first, n, rows->out, part);
}

template <int EP, bool PAGED>
static __global__ void __launch_bounds__(qp_tile_threads(tile_rows(EP)), 1)
    forward_kernel(qp_forward_t f)
{
    enum { T = tile_rows(EP) };
    QP_SHARED(int64_t, page_row, [T]);
    QP_SHARED_DYNAMIC(float, query);
    float *key = query + T * qp_tile_pitch(EP), *weight = key + T * qp_tile_pitch(EP);
    qp_tile_t tile;
    /* The last tiles of a sequence see the most keys: they go first. */
    if (!qp_tile_find<T>(&tile, &f.batch, (int)(gridDim.x - 1 - blockIdx.x)))
        return;
    const int head = (int)blockIdx.y, kv_head = head / f.group, n = tile.n - tile.first;
    const int past = PAGED ? f.n_past[tile.seq] : 0, position = past + tile.first;
    const int n_key = n < T ? position + n : position + T;
    qp_tile_load<T, EP>(query, f.query, head, f.e, tile.first_row + tile.first, NULL, n);
    rows_t<EP> rows = {};
    for (int i = 0; i < QP_TILE_ROWS; i++)
        rows.top[i] = -INFINITY;
    for (int first = 0; first < n_key; first += T) {
        const int64_t first_row = tile.first_row + first, *page = PAGED ? page_row : NULL;
        if (PAGED && (int)threadIdx.x < T && first + (int)threadIdx.x < n_key)
            page_row[threadIdx.x] = qp_page_row(f.pages, tile.seq, first + (int)threadIdx.x);
        __syncthreads(); /* the values before are done with */
        qp_tile_load<T, EP>(key, f.key, kv_head, f.e, first_row, page, n_key - first);
        __syncthreads();
        float score[QP_TILE_ROWS][T / 16];
        qp_tile_scores<T, EP>(score, query, key, f.e);
        softmax<T, EP>(&rows, score, position - first, f.scale);
        qp_tile_keep<T>(weight, score);
        __syncthreads(); /* the keys are done with: values take their place */
        qp_tile_load<T, EP>(key, f.value, kv_head, f.e, first_row, page, n_key - first);
        __syncthreads();
        qp_tile_add<T, EP>(rows.out, weight, key);
    }
    finish<T, EP>(f, &rows, tile, head);
}

template <int EP>
static qp_error_t launch(qp_queue_t *q, const qp_forward_t *f, int64_t n_place, int64_t n_head)
{
    const dim3 grid((unsigned)n_place, (unsigned)n_head);
    const unsigned threads = (unsigned)qp_tile_threads(tile_rows(EP));
    if (f->pages.block_table == NULL)
        return QP_LAUNCH_SHARED(q, (forward_kernel<EP, false>), grid, threads, shared_bytes(EP),
                                *f);
    return QP_LAUNCH_SHARED(q, (forward_kernel<EP, true>), grid, threads, shared_bytes(EP), *f);
}

static qp_forward_t begin(qp_mat_t out, qp_mat_t qkv, const qp_attention_t *a,
                          const qp_ragged_t *batch)
{
    qp_forward_t f = {};
    QP_ASSERT(a->n_head % a->n_kv_head == 0 && a->head_dim <= QP_TILE_MAX_E);
    QP_ASSERT(qkv.n_row == batch->n_token && out.n_row == batch->n_token);
    QP_ASSERT(qkv.n_col == (a->n_head + 2 * a->n_kv_head) * a->head_dim);
    f.out = qp_heads(out, 0, a->n_head, a->head_dim);
    f.query = qp_heads(qkv, 0, a->n_head, a->head_dim);
    f.batch.cu_seqlens = qp_at<const int32_t>(batch->cu_seqlens);
    f.batch.n_seq = (int)batch->n_seq;
    f.n_token = batch->n_token;
    f.e = (int)a->head_dim;
    f.group = (int)(a->n_head / a->n_kv_head);
    f.scale = a->scale;
    return f;
}

static qp_error_t run(qp_queue_t *q, const qp_forward_t *f, const qp_attention_t *a,
                      const qp_ragged_t *batch)
{
    if (f->query.m.dtype == QP_BF16 && f->e <= QP_BF16_MAX_E)
        return qp_cuda_attention_forward_bf16(q, f, batch, a->n_head);
    const int t = f->e <= 128 ? tile_rows(128) : tile_rows(256);
    const int64_t n_place = qp_tile_places(batch, f->batch.first, t);
    return QP_TILE_BY_SIZE(f->e, launch, q, f, n_place, a->n_head);
}

QP_CUDA_BEGIN
qp_error_t qp_cuda_attention_forward(qp_queue_t *q, qp_mat_t out, qp_dptr_t lse, qp_mat_t qkv,
                                     const qp_attention_t *a, const qp_ragged_t *batch)
{
    if (batch->n_token == 0)
        return NULL;
    qp_forward_t f = begin(out, qkv, a, batch);
    f.key = qp_heads(qkv, a->n_head, a->n_kv_head, a->head_dim);
    f.value = qp_heads(qkv, a->n_head + a->n_kv_head, a->n_kv_head, a->head_dim);
    f.lse = qp_at<float>(lse);
    return run(q, &f, a, batch);
}

qp_error_t qp_cuda_attention_prefill(qp_queue_t *q, qp_mat_t out, qp_mat_t qkv, const qp_kv_t *kv,
                                     const qp_attention_t *a, const qp_ragged_t *batch,
                                     const qp_kv_map_t *map)
{
    if (batch->cu_seqlens_host[map->n_decode] == batch->n_token)
        return NULL;
    qp_forward_t f = begin(out, qkv, a, batch);
    f.key = qp_heads(kv->k, 0, a->n_kv_head, a->head_dim);
    f.value = qp_heads(kv->v, 0, a->n_kv_head, a->head_dim);
    f.key.scale = qp_at<const float>(kv->k_scale.data);
    f.key.scale_ld = kv->k_scale.ld;
    f.value.scale = qp_at<const float>(kv->v_scale.data);
    f.value.scale_ld = kv->v_scale.ld;
    f.batch.first = (int)map->n_decode;
    f.pages.block_table = qp_at<const int32_t>(map->block_table_device);
    f.pages.ld = map->table_ld;
    f.pages.block_len = (int)kv->block_len;
    f.n_past = qp_at<const int32_t>(map->n_past_device);
    return run(q, &f, a, batch);
}
QP_CUDA_END
