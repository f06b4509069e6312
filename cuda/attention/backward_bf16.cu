/*
 * Attention backward with products in bf16: as backward.cu, on tensor cores. P and dS are rounded
 * to bf16 for their products. Exponentials are of base 2.
 */
#include "cuda/attention/mma.cuh"

/* Tiles: 64 rows that a block has, STEP rows at a time that it walks. */
enum { T = QP_MMA_ROWS, STEP = 32, N = STEP / 8 };

static const float log2e = 1.442695040888963407f;

/* Words of shared memory: two tiles as rows and the steps' rows, twice, and n_pair times pairs. */
static constexpr size_t shared_bytes(int ep, int n_pair)
{
    return (size_t)(2 * (T + STEP) * qp_mma_row_pitch(ep) +
                    n_pair * (STEP / 2) * qp_mma_pair_pitch(ep)) *
           sizeof(uint32_t);
}

/* lse in units of ln 2 and delta of rows from \a row on, n of them, to shared memory. */
static __device__ inline void load_statistics(const qp_backward_t &b, float *lse, float *delta,
                                              int n_row, int head, int64_t row, int n)
{
    const int i = (int)threadIdx.x;
    if (i >= n_row)
        return;
    lse[i] = i < n ? b.lse[head * b.n_token + row + i] * log2e : 0.0f;
    delta[i] = i < n ? b.delta[head * b.n_token + row + i] : 0.0f;
}

/* Scores become P, and dP becomes dS. */
static __device__ inline void weigh(const qp_backward_t &b, float *score, float *dscore, float lse,
                                    float delta, bool is_seen)
{
    *score = is_seen ? exp2f(*score * (b.scale * log2e) - lse) : 0.0f;
    *dscore = is_seen ? *score * (*dscore - delta) : 0.0f;
}

/* --- dK, dV ----------------------------------------------------------------------------------- */

template <int EP>
static __global__ void __launch_bounds__(QP_MMA_THREADS, 1) keys_bf16_kernel(qp_backward_t b)
{
    QP_SHARED(float, lse, [STEP]);
    QP_SHARED(float, delta, [STEP]);
    QP_SHARED_DYNAMIC(uint32_t, key);
    uint32_t *value = key + T * qp_mma_row_pitch(EP), *query = value + T * qp_mma_row_pitch(EP);
    uint32_t *dout = query + STEP * qp_mma_row_pitch(EP);
    uint32_t *query_pairs = dout + STEP * qp_mma_row_pitch(EP);
    uint32_t *dout_pairs = query_pairs + STEP / 2 * qp_mma_pair_pitch(EP);
    qp_tile_t tile;
    /* The first tiles of a sequence are seen by the most queries: they go first. */
    if (!qp_tile_find<T>(&tile, &b.batch, (int)blockIdx.x))
        return;
    const int kv_head = (int)blockIdx.y, n_key = tile.n - tile.first;
    const int64_t key_row = tile.first_row + tile.first;
    qp_mma_load<T, EP>(key, NULL, b.key, kv_head, b.e, key_row, NULL, n_key);
    qp_mma_load<T, EP>(value, NULL, b.value, kv_head, b.e, key_row, NULL, n_key);
    float dkey[EP / 8][4] = {}, dvalue[EP / 8][4] = {};
    for (int head = kv_head * b.group; head < (kv_head + 1) * b.group; head++)
        for (int first = tile.first; first < tile.n; first += STEP) {
            const int64_t row = tile.first_row + first;
            const int n = tile.n - first;
            __syncthreads(); /* the queries before are done with */
            qp_mma_load<STEP, EP>(query, query_pairs, b.query, head, b.e, row, NULL, n);
            qp_mma_load<STEP, EP>(dout, dout_pairs, b.dout, head, b.e, row, NULL, n);
            load_statistics(b, lse, delta, STEP, head, row, n);
            __syncthreads();
            float score[N][4], dscore[N][4]; /* [keys, queries] */
            qp_mma_scores<EP, N>(score, key, query);
            qp_mma_scores<EP, N>(dscore, value, dout);
            QP_UNROLL
            for (int i = 0; i < 4 * N; i++) {
                const int c = i / 4 * 8 + 2 * qp_mma_t() + i % 2, r = qp_mma_row(i % 4 / 2);
                weigh(b, &score[i / 4][i % 4], &dscore[i / 4][i % 4], lse[c], delta[c],
                      r <= first - tile.first + c && c < n);
            }
            qp_mma_add<EP, N>(dvalue, score, dout_pairs);
            qp_mma_add<EP, N>(dkey, dscore, query_pairs);
        }
    const float scale[2] = {b.scale, b.scale}, one[2] = {1.0f, 1.0f};
    qp_mma_store<EP>(b.dkey, kv_head, b.e, key_row, n_key, dkey, scale);
    qp_mma_store<EP>(b.dvalue, kv_head, b.e, key_row, n_key, dvalue, one);
}

/* --- dQ --------------------------------------------------------------------------------------- */

template <int EP>
static __global__ void __launch_bounds__(QP_MMA_THREADS, 1) queries_bf16_kernel(qp_backward_t b)
{
    QP_SHARED(float, lse, [T]);
    QP_SHARED(float, delta, [T]);
    QP_SHARED_DYNAMIC(uint32_t, query);
    uint32_t *dout = query + T * qp_mma_row_pitch(EP), *key = dout + T * qp_mma_row_pitch(EP);
    uint32_t *value = key + STEP * qp_mma_row_pitch(EP);
    uint32_t *key_pairs = value + STEP * qp_mma_row_pitch(EP);
    qp_tile_t tile;
    /* The last tiles of a sequence see the most keys: they go first. */
    if (!qp_tile_find<T>(&tile, &b.batch, (int)(gridDim.x - 1 - blockIdx.x)))
        return;
    const int head = (int)blockIdx.y, kv_head = head / b.group, n = tile.n - tile.first;
    const int64_t row = tile.first_row + tile.first;
    qp_mma_load<T, EP>(query, NULL, b.query, head, b.e, row, NULL, n);
    qp_mma_load<T, EP>(dout, NULL, b.dout, head, b.e, row, NULL, n);
    load_statistics(b, lse, delta, T, head, row, n);
    float dquery[EP / 8][4] = {};
    for (int first = 0; first < tile.first + T && first < tile.n; first += STEP) {
        const int64_t key_row = tile.first_row + first;
        __syncthreads(); /* the keys before are done with */
        qp_mma_load<STEP, EP>(key, key_pairs, b.key, kv_head, b.e, key_row, NULL, tile.n - first);
        qp_mma_load<STEP, EP>(value, NULL, b.value, kv_head, b.e, key_row, NULL, tile.n - first);
        __syncthreads();
        float score[N][4], dscore[N][4]; /* [queries, keys] */
        qp_mma_scores<EP, N>(score, query, key);
        qp_mma_scores<EP, N>(dscore, dout, value);
        QP_UNROLL
        for (int i = 0; i < 4 * N; i++) {
            const int c = i / 4 * 8 + 2 * qp_mma_t() + i % 2, r = qp_mma_row(i % 4 / 2);
            weigh(b, &score[i / 4][i % 4], &dscore[i / 4][i % 4], lse[r], delta[r],
                  c <= tile.first - first + r && r < n);
        }
        qp_mma_add<EP, N>(dquery, dscore, key_pairs);
    }
    const float scale[2] = {b.scale, b.scale};
    qp_mma_store<EP>(b.dquery, head, b.e, row, n, dquery, scale);
}

/* --- launch ----------------------------------------------------------------------------------- */

template <int EP> static qp_error_t launch(qp_queue_t *q, const qp_backward_t *b, unsigned n_place)
{
    const dim3 keys(n_place, (unsigned)(b->n_head / b->group));
    const dim3 queries(n_place, (unsigned)b->n_head);
    QP_TRY(
        QP_LAUNCH_SHARED(q, (keys_bf16_kernel<EP>), keys, QP_MMA_THREADS, shared_bytes(EP, 2), *b));
    return QP_LAUNCH_SHARED(q, (queries_bf16_kernel<EP>), queries, QP_MMA_THREADS,
                            shared_bytes(EP, 1), *b);
}

QP_CUDA_BEGIN
qp_error_t qp_cuda_attention_backward_bf16(qp_queue_t *q, const qp_backward_t *b,
                                           const qp_ragged_t *batch)
{
    const unsigned n_place = (unsigned)qp_tile_places(batch, 0, T);
    return QP_MMA_BY_SIZE(b->e, launch, q, b, n_place);
}
QP_CUDA_END
