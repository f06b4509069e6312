/*
 * Causal attention backward, in three kernels, none of which adds to what another block writes:
 *
 *   delta = rowsum(dO * O)
 *   dV = sum P^T dO, dK = sum dS^T Q     a block has a tile of keys of one kv head and walks the
 *                                        tiles of queries that see it, of all heads of the group
 *   dQ = sum dS K                        a block has a tile of queries of one head and walks the
 *                                        tiles of keys that it sees
 *
 * with P = exp(scale Q K^T - lse) and dS = P (dO V^T - delta); the factor scale of dS is left to dQ
 * and dK. What is masked is set to zero, not computed: its exponential may be infinite.
 */
#include "cuda/attention/attention.h"
#include "cuda/attention/pass.cuh"

/* Four tiles of features and one of weights are in shared memory: less than the 99 KB that every
 * card since sm_80 gives. */
static __host__ __device__ constexpr int tile_rows(int ep)
{
    return ep <= 64 ? 64 : ep <= 128 ? 32 : 16;
}

static constexpr size_t shared_bytes(int ep)
{
    const int t = tile_rows(ep);
    return (size_t)(4 * t * qp_tile_pitch(ep) + t * qp_tile_pitch(t)) * sizeof(float);
}

/* --- delta ------------------------------------------------------------------------------------ */

enum { DELTA_THREADS = 128 };

/* A warp per row and head. */
static __global__ void delta_kernel(qp_backward_t b)
{
    const int lane = (int)threadIdx.x % QP_WARP;
    const int64_t at = (int64_t)blockIdx.x * (DELTA_THREADS / QP_WARP) + threadIdx.x / QP_WARP;
    const int64_t row = at / b.n_head;
    const int head = (int)(at % b.n_head);
    float sum = 0.0f;
    for (int c = 4 * lane; row < b.n_token && c < b.e; c += 4 * QP_WARP) {
        const float4 x = qp_heads_get(b.out, row, head, c, b.e);
        const float4 y = qp_heads_get(b.dout, row, head, c, b.e);
        sum = fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, sum))));
    }
    sum = qp_warp_sum(sum);
    if (row < b.n_token && lane == 0)
        b.delta[head * b.n_token + row] = sum;
}

/* --- weights ---------------------------------------------------------------------------------- */

/* P from a score. */
static __device__ inline float weight_of(const qp_backward_t &b, float score, float lse,
                                         bool is_seen)
{
    return is_seen ? expf(score * b.scale - lse) : 0.0f;
}

/* dS from dP. */
static __device__ inline float dscore_of(float weight, float dweight, float delta, bool is_seen)
{
    return is_seen ? weight * (dweight - delta) : 0.0f;
}

/* --- dK, dV ----------------------------------------------------------------------------------- */

template <int T, int EP> struct shared_t {
    float *key, *value, *query, *dout, *weight;
    __device__ explicit shared_t(float *p)
    {
        key = p;
        value = key + T * qp_tile_pitch(EP);
        query = value + T * qp_tile_pitch(EP);
        dout = query + T * qp_tile_pitch(EP);
        weight = dout + T * qp_tile_pitch(EP);
    }
};

/* P^T and dS^T, [keys, queries]: query c sees the keys up to \a ahead + c, and there are n. */
template <int T, int EP>
static __device__ inline void
weights_of_keys(const qp_backward_t &b, const shared_t<T, EP> &s, const float *lse,
                const float *delta, float (&weight)[QP_TILE_ROWS][T / 16],
                float (&dscore)[QP_TILE_ROWS][T / 16], int ahead, int n)
{
    qp_tile_scores<T, EP>(weight, s.key, s.query, b.e);
    qp_tile_scores<T, EP>(dscore, s.value, s.dout, b.e);
    QP_UNROLL
    for (int i = 0; i < QP_TILE_ROWS; i++)
        QP_UNROLL
    for (int j = 0; j < T / 16; j++) {
        const int c = qp_tile_x() + j * QP_TILE_X;
        const bool is_seen = qp_tile_row() + i <= ahead + c && c < n;
        weight[i][j] = weight_of(b, weight[i][j], lse[c], is_seen);
        dscore[i][j] = dscore_of(weight[i][j], dscore[i][j], delta[c], is_seen);
    }
}

template <int EP>
static __global__ void __launch_bounds__(qp_tile_threads(tile_rows(EP)), 1)
    keys_kernel(qp_backward_t b)
{
    enum { T = tile_rows(EP) };
    QP_SHARED(float, lse, [T]);
    QP_SHARED(float, delta, [T]);
    QP_SHARED_DYNAMIC(float, memory);
    const shared_t<T, EP> s(memory);
    qp_tile_t tile;
    /* The first tiles of a sequence are seen by the most queries: they go first. */
    if (!qp_tile_find<T>(&tile, &b.batch, (int)blockIdx.x))
        return;
    const int kv_head = (int)blockIdx.y, n_key = tile.n - tile.first;
    qp_tile_load<T, EP>(s.key, b.key, kv_head, b.e, tile.first_row + tile.first, NULL, n_key);
    qp_tile_load<T, EP>(s.value, b.value, kv_head, b.e, tile.first_row + tile.first, NULL, n_key);
    float dkey[QP_TILE_ROWS][EP / 16] = {}, dvalue[QP_TILE_ROWS][EP / 16] = {};
    for (int head = kv_head * b.group; head < (kv_head + 1) * b.group; head++)
        for (int first = tile.first; first < tile.n; first += T) {
            const int64_t row = tile.first_row + first;
            const int n = tile.n - first, i = (int)threadIdx.x;
            __syncthreads(); /* the queries before are done with */
            qp_tile_load<T, EP>(s.query, b.query, head, b.e, row, NULL, n);
            qp_tile_load<T, EP>(s.dout, b.dout, head, b.e, row, NULL, n);
            if (i < T) {
                lse[i] = i < n ? b.lse[head * b.n_token + row + i] : 0.0f;
                delta[i] = i < n ? b.delta[head * b.n_token + row + i] : 0.0f;
            }
            __syncthreads();
            float weight[QP_TILE_ROWS][T / 16], dscore[QP_TILE_ROWS][T / 16];
            weights_of_keys<T, EP>(b, s, lse, delta, weight, dscore, first - tile.first, n);
            qp_tile_keep<T>(s.weight, weight);
            __syncthreads();
            qp_tile_add<T, EP>(dvalue, s.weight, s.dout);
            __syncthreads();
            qp_tile_keep<T>(s.weight, dscore);
            __syncthreads();
            qp_tile_add<T, EP>(dkey, s.weight, s.query);
        }
    const float scale[QP_TILE_ROWS] = {b.scale, b.scale, b.scale, b.scale};
    const float one[QP_TILE_ROWS] = {1.0f, 1.0f, 1.0f, 1.0f};
    qp_tile_store<EP>(b.dkey, kv_head, b.e, tile.first_row + tile.first, n_key, dkey, scale);
    qp_tile_store<EP>(b.dvalue, kv_head, b.e, tile.first_row + tile.first, n_key, dvalue, one);
}

/* --- dQ --------------------------------------------------------------------------------------- */

/* dS, [queries, keys]: query i sees the keys up to \a ahead + i, and there are n. */
template <int T, int EP>
static __device__ inline void
weights_of_queries(const qp_backward_t &b, const shared_t<T, EP> &s, const float *lse,
                   const float *delta, float (&dscore)[QP_TILE_ROWS][T / 16], int ahead, int n)
{
    float weight[QP_TILE_ROWS][T / 16];
    qp_tile_scores<T, EP>(weight, s.query, s.key, b.e);
    qp_tile_scores<T, EP>(dscore, s.dout, s.value, b.e);
    QP_UNROLL
    for (int i = 0; i < QP_TILE_ROWS; i++)
        QP_UNROLL
    for (int j = 0; j < T / 16; j++) {
        const int row = qp_tile_row() + i;
        const bool is_seen = qp_tile_x() + j * QP_TILE_X <= ahead + row && row < n;
        weight[i][j] = weight_of(b, weight[i][j], lse[row], is_seen);
        dscore[i][j] = dscore_of(weight[i][j], dscore[i][j], delta[row], is_seen);
    }
}

template <int EP>
static __global__ void __launch_bounds__(qp_tile_threads(tile_rows(EP)), 1)
    queries_kernel(qp_backward_t b)
{
    enum { T = tile_rows(EP) };
    QP_SHARED(float, lse, [T]);
    QP_SHARED(float, delta, [T]);
    QP_SHARED_DYNAMIC(float, memory);
    const shared_t<T, EP> s(memory);
    qp_tile_t tile;
    /* The last tiles of a sequence see the most keys: they go first. */
    if (!qp_tile_find<T>(&tile, &b.batch, (int)(gridDim.x - 1 - blockIdx.x)))
        return;
    const int head = (int)blockIdx.y, kv_head = head / b.group, n = tile.n - tile.first;
    const int64_t row = tile.first_row + tile.first;
    const int lane = (int)threadIdx.x;
    qp_tile_load<T, EP>(s.query, b.query, head, b.e, row, NULL, n);
    qp_tile_load<T, EP>(s.dout, b.dout, head, b.e, row, NULL, n);
    if (lane < T) {
        lse[lane] = lane < n ? b.lse[head * b.n_token + row + lane] : 0.0f;
        delta[lane] = lane < n ? b.delta[head * b.n_token + row + lane] : 0.0f;
    }
    float dquery[QP_TILE_ROWS][EP / 16] = {};
    for (int first = 0; first <= tile.first; first += T) {
        const int64_t key_row = tile.first_row + first;
        __syncthreads(); /* the keys before are done with */
        qp_tile_load<T, EP>(s.key, b.key, kv_head, b.e, key_row, NULL, tile.n - first);
        qp_tile_load<T, EP>(s.value, b.value, kv_head, b.e, key_row, NULL, tile.n - first);
        __syncthreads();
        float dscore[QP_TILE_ROWS][T / 16];
        weights_of_queries<T, EP>(b, s, lse, delta, dscore, tile.first - first, n);
        qp_tile_keep<T>(s.weight, dscore);
        __syncthreads();
        qp_tile_add<T, EP>(dquery, s.weight, s.key);
    }
    const float scale[QP_TILE_ROWS] = {b.scale, b.scale, b.scale, b.scale};
    qp_tile_store<EP>(b.dquery, head, b.e, row, n, dquery, scale);
}

/* --- launch ----------------------------------------------------------------------------------- */

template <int EP>
static qp_error_t launch(qp_queue_t *q, const qp_backward_t *b, const qp_ragged_t *batch)
{
    const unsigned n_place = (unsigned)qp_tile_places(batch, 0, tile_rows(EP));
    const unsigned threads = (unsigned)qp_tile_threads(tile_rows(EP));
    const dim3 keys(n_place, (unsigned)(b->n_head / b->group));
    const dim3 queries(n_place, (unsigned)b->n_head);
    QP_TRY(QP_LAUNCH_SHARED(q, (keys_kernel<EP>), keys, threads, shared_bytes(EP), *b));
    return QP_LAUNCH_SHARED(q, (queries_kernel<EP>), queries, threads, shared_bytes(EP), *b);
}

QP_CUDA_BEGIN
size_t qp_cuda_attention_backward_bytes(const qp_attention_t *a, int64_t n_token)
{
    return qp_bytes(a->n_head * n_token, sizeof(float));
}

qp_error_t qp_cuda_attention_backward(qp_queue_t *q, qp_mat_t dqkv, qp_mat_t dout, qp_mat_t out,
                                      qp_dptr_t lse, qp_mat_t qkv, const qp_attention_t *a,
                                      const qp_ragged_t *batch)
{
    const int64_t n_head = a->n_head, n_kv = a->n_kv_head, e = a->head_dim;
    QP_ASSERT(n_head % n_kv == 0 && e <= QP_TILE_MAX_E);
    QP_ASSERT(qkv.n_row == batch->n_token && qkv.n_col == (n_head + 2 * n_kv) * e);
    if (batch->n_token == 0)
        return NULL;
    qp_backward_t b = {};
    b.query = qp_heads(qkv, 0, n_head, e);
    b.key = qp_heads(qkv, n_head, n_kv, e);
    b.value = qp_heads(qkv, n_head + n_kv, n_kv, e);
    b.dquery = qp_heads(dqkv, 0, n_head, e);
    b.dkey = qp_heads(dqkv, n_head, n_kv, e);
    b.dvalue = qp_heads(dqkv, n_head + n_kv, n_kv, e);
    b.out = qp_heads(out, 0, n_head, e);
    b.dout = qp_heads(dout, 0, n_head, e);
    b.batch.cu_seqlens = qp_at<const int32_t>(batch->cu_seqlens);
    b.batch.n_seq = (int)batch->n_seq;
    b.lse = qp_at<const float>(lse);
    b.delta = (float *)qp_cuda_scratch(q, QP_CUDA_SCRATCH_ATTENTION,
                                       qp_cuda_attention_backward_bytes(a, batch->n_token));
    b.n_token = batch->n_token;
    b.e = (int)e;
    b.n_head = (int)n_head;
    b.group = (int)(n_head / n_kv);
    b.scale = a->scale;
    const unsigned n_delta = qp_blocks_of(n_head * batch->n_token, DELTA_THREADS / QP_WARP);
    QP_TRY(QP_LAUNCH(q, delta_kernel, n_delta, DELTA_THREADS, b));
    if (qkv.dtype == QP_BF16 && e <= QP_BF16_MAX_E)
        return qp_cuda_attention_backward_bf16(q, &b, batch);
    return QP_TILE_BY_SIZE(b.e, launch, q, &b, batch);
}
QP_CUDA_END
