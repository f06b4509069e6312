/*
 * Attention forward with products in bf16: as forward.cu, on tensor cores. Scores and weights stay
 * in registers; weights are rounded to bf16 for their product, sums take them as they are.
 * Exponentials are of base 2.
 */
#include "cuda/attention/mma.cuh"

enum { T = QP_MMA_ROWS, N = T / 8 };

static const float ln2 = 0.693147180559945309f, log2e = 1.442695040888963407f;

static constexpr size_t shared_bytes(int ep)
{
    return (size_t)(2 * T * qp_mma_row_pitch(ep) + T / 2 * qp_mma_pair_pitch(ep)) *
           sizeof(uint32_t);
}

/* Rows of a tile as this lane has them. */
template <int EP> struct rows_t {
    float out[EP / 8][4]; /* not yet divided by the sum */
    float top[2], sum[2]; /* largest score in units of ln 2; this lane's share of the sum */
};

/* Over the four lanes that hold a row. */
static __device__ inline float four_max(float x)
{
    x = qp_max(__shfl_xor_sync(0xffffffffu, x, 1), x);
    return qp_max(__shfl_xor_sync(0xffffffffu, x, 2), x);
}

static __device__ inline float four_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* Scores become weights relative to the running maximum; query i sees keys up to \a seen + i. */
template <int EP>
static __device__ inline void softmax(rows_t<EP> *rows, float (&score)[N][4], int seen, float scale)
{
    QP_UNROLL
    for (int half = 0; half < 2; half++) {
        float top = -INFINITY;
        QP_UNROLL
        for (int i = 0; i < 2 * N; i++) {
            float *s = &score[i / 2][2 * half + i % 2];
            const bool is_seen = 8 * (i / 2) + 2 * qp_mma_t() + i % 2 <= seen + qp_mma_row(half);
            *s = is_seen ? *s * scale : -INFINITY;
            top = qp_max(*s, top);
        }
        top = qp_max(four_max(top), rows->top[half]);
        const float shrink = exp2f(rows->top[half] - top);
        rows->top[half] = top;
        float sum = 0.0f;
        QP_UNROLL
        for (int i = 0; i < 2 * N; i++) {
            float *s = &score[i / 2][2 * half + i % 2];
            *s = exp2f(*s - top);
            sum += *s;
        }
        rows->sum[half] = rows->sum[half] * shrink + sum;
        QP_UNROLL
        for (int j = 0; j < EP / 8; j++) {
            rows->out[j][2 * half] *= shrink;
            rows->out[j][2 * half + 1] *= shrink;
        }
    }
}

template <int EP>
static __device__ inline void finish(const qp_forward_t &f, const rows_t<EP> &rows,
                                     const qp_tile_t &tile, int head)
{
    float part[2];
    const int64_t first = tile.first_row + tile.first;
    const int n = tile.n - tile.first;
    QP_UNROLL
    for (int half = 0; half < 2; half++) {
        const float sum = four_sum(rows.sum[half]);
        const int row = qp_mma_row(half);
        if (f.lse != NULL && row < n && qp_mma_t() == 0)
            f.lse[head * f.n_token + first + row] = fmaf(rows.top[half], ln2, logf(sum));
        part[half] = 1.0f / sum;
    }
    qp_mma_store<EP>(f.out, head, f.e, first, n, rows.out, part);
}

template <int EP, bool PAGED>
static __global__ void __launch_bounds__(QP_MMA_THREADS, 1) forward_bf16_kernel(qp_forward_t f)
{
    QP_SHARED(int64_t, page_row, [T]);
    QP_SHARED_DYNAMIC(uint32_t, query);
    uint32_t *key = query + T * qp_mma_row_pitch(EP), *value = key + T * qp_mma_row_pitch(EP);
    qp_tile_t tile;
    /* The last tiles of a sequence see the most keys: they go first. */
    if (!qp_tile_find<T>(&tile, &f.batch, (int)(gridDim.x - 1 - blockIdx.x)))
        return;
    const int head = (int)blockIdx.y, kv_head = head / f.group, n = tile.n - tile.first;
    const int position = (PAGED ? f.n_past[tile.seq] : 0) + tile.first;
    const int n_key = n < T ? position + n : position + T;
    qp_mma_load<T, EP>(query, NULL, f.query, head, f.e, tile.first_row + tile.first, NULL, n);
    rows_t<EP> rows = {};
    rows.top[0] = rows.top[1] = -INFINITY;
    for (int first = 0; first < n_key; first += T) {
        const int64_t first_row = tile.first_row + first, *page = PAGED ? page_row : NULL;
        __syncthreads(); /* the keys before are done with */
        if (PAGED) {
            const int at = first + (int)threadIdx.x;
            if ((int)threadIdx.x < T && at < n_key)
                page_row[threadIdx.x] = qp_page_row(f.pages, tile.seq, at);
            __syncthreads();
        }
        qp_mma_load<T, EP>(key, NULL, f.key, kv_head, f.e, first_row, page, n_key - first);
        qp_mma_load<T, EP>(NULL, value, f.value, kv_head, f.e, first_row, page, n_key - first);
        __syncthreads();
        float score[N][4];
        qp_mma_scores<EP, N>(score, query, key);
        softmax<EP>(&rows, score, position - first, f.scale * log2e);
        qp_mma_add<EP, N>(rows.out, score, value);
    }
    finish<EP>(f, rows, tile, head);
}

template <int EP> static qp_error_t launch(qp_queue_t *q, const qp_forward_t *f, const dim3 &grid)
{
    if (f->pages.block_table == NULL)
        return QP_LAUNCH_SHARED(q, (forward_bf16_kernel<EP, false>), grid, QP_MMA_THREADS,
                                shared_bytes(EP), *f);
    return QP_LAUNCH_SHARED(q, (forward_bf16_kernel<EP, true>), grid, QP_MMA_THREADS,
                            shared_bytes(EP), *f);
}

QP_CUDA_BEGIN
qp_error_t qp_cuda_attention_forward_bf16(qp_queue_t *q, const qp_forward_t *f,
                                          const qp_ragged_t *batch, int64_t n_head)
{
    const dim3 grid((unsigned)qp_tile_places(batch, f->batch.first, T), (unsigned)n_head);
    return QP_MMA_BY_SIZE(f->e, launch, q, f, grid);
}
QP_CUDA_END
