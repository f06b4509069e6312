/*
 * Attention of single rows to the paged cache: a block has a row, a kv head with all its query
 * heads, and a piece of the keys; another kernel joins the pieces in order. Where pieces begin
 * depends on the sequence alone.
 */
#include "cuda/attention/attention.h"
#include "cuda/attention/tile.cuh"

enum { PIECE = 256, THREADS = 128, N_WARP = THREADS / QP_WARP };

/* So many lanes share a key: a warp reads the rows of four at once. */
enum { KEY_LANES = 8, KEYS = QP_WARP / KEY_LANES };

typedef struct {
    qp_heads_t out, query, key, value;
    qp_tile_batch_t batch; /* its first n_seq sequences are decoded */
    qp_pages_t pages;
    const int32_t *n_past;
    int64_t max_piece; /* of a row */
    float *part;       /* [n_row, max_piece, H, E] exp(score - top) weighted values */
    float *top, *sum;  /* [n_row, max_piece, H] of the weights */
    int e, n_head, group;
    float scale;
} decode_t;

/* A row, its sequence and its keys. */
typedef struct {
    int seq, n_key;
} row_t;

static __device__ inline row_t find_row(const decode_t &d, int row)
{
    int low = 0, high = d.batch.n_seq;
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        if (d.batch.cu_seqlens[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return {low, d.n_past[low] + row - d.batch.cu_seqlens[low] + 1};
}

/* Memory of a block: query, weights and parts of sums of up to N heads. */
template <int EP, int N> struct shared_t {
    float query[N][EP], weight[N][PIECE], part[THREADS / (EP / 4)][N][EP];
    int64_t row[PIECE]; /* of the cache */
};

/* --- scores ----------------------------------------------------------------------------------- */

/* Scores of n keys for n_head heads. */
template <int EP, int N>
static __device__ inline void score(const decode_t &d, shared_t<EP, N> *s, int kv_head, int n_head,
                                    int n)
{
    const int lane = (int)threadIdx.x % KEY_LANES, first = (int)threadIdx.x / KEY_LANES;
    for (int start = 0; start < n; start += N_WARP * KEYS) { /* all lanes: shuffles */
        const int k = start + first;
        const int64_t row = s->row[k < n ? k : 0];
        float sum[N] = {};
        QP_UNROLL
        for (int i = 0; i < EP / (4 * KEY_LANES); i++) {
            const int c = 4 * (lane + i * KEY_LANES);
            const float4 x = qp_heads_get(d.key, row, kv_head, c, d.e);
            QP_UNROLL
            for (int h = 0; h < N; h++) {
                const float4 q = *reinterpret_cast<const float4 *>(&s->query[h][c]);
                sum[h] = fmaf(q.w, x.w, fmaf(q.z, x.z, fmaf(q.y, x.y, fmaf(q.x, x.x, sum[h]))));
            }
        }
        const float scale =
            d.key.scale == NULL ? d.scale : d.scale * d.key.scale[row * d.key.scale_ld + kv_head];
        QP_UNROLL
        for (int h = 0; h < N; h++) {
            if (h < n_head)
                for (int by = KEY_LANES / 2; by > 0; by /= 2)
                    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], by);
            if (h < n_head && lane == 0 && k < n)
                s->weight[h][k] = sum[h] * scale;
        }
    }
}

/* Softmax within the piece, a warp per head; weights of values get their scales. */
template <int EP, int N>
static __device__ inline void softmax(const decode_t &d, shared_t<EP, N> *s, int kv_head, int first,
                                      int n_head, int64_t piece, int n)
{
    const int lane = (int)threadIdx.x % QP_WARP;
    for (int h = (int)threadIdx.x / QP_WARP; h < n_head; h += N_WARP) {
        float top = -INFINITY, sum = 0.0f;
        for (int k = lane; k < n; k += QP_WARP)
            top = qp_max(s->weight[h][k], top);
        top = qp_warp_max(top);
        for (int k = lane; k < n; k += QP_WARP) {
            float weight = expf(s->weight[h][k] - top);
            sum += weight;
            if (d.value.scale != NULL)
                weight *= d.value.scale[s->row[k] * d.value.scale_ld + kv_head];
            s->weight[h][k] = weight;
        }
        sum = qp_warp_sum(sum);
        if (lane == 0) {
            d.top[piece * d.n_head + first + h] = top;
            d.sum[piece * d.n_head + first + h] = sum;
        }
    }
}

/* --- values ----------------------------------------------------------------------------------- */

/* A thread has four features and every THREADS / (EP / 4)-th key. */
template <int EP, int N>
static __device__ inline void add(const decode_t &d, shared_t<EP, N> *s, int kv_head, int n)
{
    enum { QUADS = EP / 4, PARTS = THREADS / QUADS };
    const int c = (int)threadIdx.x % QUADS * 4, part = (int)threadIdx.x / QUADS;
    if (part >= PARTS)
        return;
    float sum[N][4] = {};
    for (int k = part; k < n && c < d.e; k += PARTS) {
        const float4 x = qp_heads_get(d.value, s->row[k], kv_head, c, d.e);
        QP_UNROLL
        for (int h = 0; h < N; h++) {
            const float weight = s->weight[h][k];
            sum[h][0] = fmaf(weight, x.x, sum[h][0]);
            sum[h][1] = fmaf(weight, x.y, sum[h][1]);
            sum[h][2] = fmaf(weight, x.z, sum[h][2]);
            sum[h][3] = fmaf(weight, x.w, sum[h][3]);
        }
    }
    QP_UNROLL
    for (int h = 0; h < N; h++)
        *reinterpret_cast<float4 *>(&s->part[part][h][c]) = {sum[h][0], sum[h][1], sum[h][2],
                                                             sum[h][3]};
}

template <int EP, int N>
static __device__ inline void write_sums(const decode_t &d, const shared_t<EP, N> *s, int first,
                                         int n_head, int64_t piece)
{
    enum { PARTS = THREADS / (EP / 4) };
    for (int i = (int)threadIdx.x; i < n_head * EP; i += THREADS) {
        const int h = i / EP, c = i % EP;
        float sum = 0.0f;
        for (int p = 0; p < PARTS; p++)
            sum += s->part[p][h][c];
        if (c < d.e)
            d.part[(piece * d.n_head + first + h) * d.e + c] = sum;
    }
}

/* --- kernels ---------------------------------------------------------------------------------- */

/* N heads of the group at a time. */
template <int EP, int N>
static __global__ void __launch_bounds__(THREADS, 1) piece_kernel(decode_t d)
{
    QP_SHARED_DYNAMIC(char, memory);
    shared_t<EP, N> *s = reinterpret_cast<shared_t<EP, N> *>(memory);
    const int row = (int)(blockIdx.x / d.max_piece), kv_head = (int)blockIdx.y;
    const int64_t piece = blockIdx.x;
    const int first_key = (int)(blockIdx.x % d.max_piece) * PIECE;
    const row_t r = find_row(d, row);
    if (first_key >= r.n_key)
        return;
    const int n = r.n_key - first_key < PIECE ? r.n_key - first_key : PIECE;
    for (int k = (int)threadIdx.x; k < n; k += THREADS)
        s->row[k] = qp_page_row(d.pages, r.seq, first_key + k);
    for (int done = 0; done < d.group; done += N) {
        const int n_head = d.group - done < N ? d.group - done : N;
        const int first = kv_head * d.group + done;
        for (int i = (int)threadIdx.x; i < N * EP / 4; i += THREADS) {
            const int h = i / (EP / 4), c = i % (EP / 4) * 4;
            float4 x = {0.0f, 0.0f, 0.0f, 0.0f};
            if (h < n_head && c < d.e)
                x = qp_heads_get(d.query, row, first + h, c, d.e);
            *reinterpret_cast<float4 *>(&s->query[h][c]) = x;
        }
        for (int i = (int)threadIdx.x; i < N * PIECE; i += THREADS)
            s->weight[i / PIECE][i % PIECE] = 0.0f; /* heads that are not there */
        __syncthreads();
        score<EP, N>(d, s, kv_head, n_head, n);
        __syncthreads();
        softmax<EP, N>(d, s, kv_head, first, n_head, piece, n);
        __syncthreads();
        add<EP, N>(d, s, kv_head, n);
        __syncthreads();
        write_sums<EP, N>(d, s, first, n_head, piece);
    }
}

/* A block per row and head. */
static __global__ void __launch_bounds__(THREADS) join_kernel(decode_t d)
{
    const int row = (int)blockIdx.x, head = (int)blockIdx.y;
    const int n_piece = (find_row(d, row).n_key + PIECE - 1) / PIECE;
    const int64_t first = (int64_t)row * d.max_piece * d.n_head + head;
    float top = -INFINITY;
    for (int i = 0; i < n_piece; i++)
        top = qp_max(d.top[first + i * d.n_head], top);
    for (int c = 2 * (int)threadIdx.x; c < d.e; c += 2 * THREADS) {
        float x = 0.0f, y = 0.0f, sum = 0.0f;
        for (int i = 0; i < n_piece; i++) {
            const int64_t at = first + i * d.n_head;
            const float weight = expf(d.top[at] - top);
            sum = fmaf(weight, d.sum[at], sum);
            x = fmaf(weight, d.part[at * d.e + c], x);
            y = fmaf(weight, c + 1 < d.e ? d.part[at * d.e + c + 1] : 0.0f, y);
        }
        qp_heads_put(d.out, row, head, c, d.e, x / sum, y / sum);
    }
}

/* --- launch ----------------------------------------------------------------------------------- */

template <int EP, int N>
static qp_error_t launch_heads(qp_queue_t *q, const decode_t *d, const dim3 &grid)
{
    return QP_LAUNCH_SHARED(q, (piece_kernel<EP, N>), grid, THREADS, sizeof(shared_t<EP, N>), *d);
}

template <int EP> static qp_error_t launch(qp_queue_t *q, const decode_t *d, const dim3 &grid)
{
    return d->group == 1   ? launch_heads<EP, 1>(q, d, grid)
           : d->group <= 4 ? launch_heads<EP, 4>(q, d, grid)
                           : launch_heads<EP, 8>(q, d, grid);
}

static int64_t pieces_of(int64_t n_key)
{
    return (n_key + PIECE - 1) / PIECE;
}

static int64_t longest(const qp_ragged_t *batch, const qp_kv_map_t *map)
{
    int64_t n_key = 0;
    for (int64_t s = 0; s < map->n_decode; s++) {
        const int64_t n = batch->cu_seqlens_host[s + 1] - batch->cu_seqlens_host[s];
        if (n > 0 && map->n_past[s] + n > n_key)
            n_key = map->n_past[s] + n;
    }
    return n_key;
}

/* Lays out the partial results; returns their bytes. */
static size_t carve(decode_t *d, char *memory, int64_t n_part)
{
    char *at = memory;
    d->part = (float *)qp_cuda_carve(&at, qp_bytes(n_part * d->e, sizeof(float)));
    d->top = (float *)qp_cuda_carve(&at, qp_bytes(n_part, sizeof(float)));
    d->sum = (float *)qp_cuda_carve(&at, qp_bytes(n_part, sizeof(float)));
    return (size_t)(at - memory);
}

QP_CUDA_BEGIN
size_t qp_cuda_attention_decode_bytes(const qp_attention_t *a, int64_t n_row, int64_t n_key)
{
    decode_t d = {};
    d.e = (int)a->head_dim;
    return carve(&d, NULL, n_row * pieces_of(n_key) * a->n_head);
}

qp_error_t qp_cuda_attention_decode(qp_queue_t *q, qp_mat_t out, qp_mat_t qkv, const qp_kv_t *kv,
                                    const qp_attention_t *a, const qp_ragged_t *batch,
                                    const qp_kv_map_t *map)
{
    const int64_t n_row = batch->cu_seqlens_host[map->n_decode], n_head = a->n_head;
    const int64_t n_kv = a->n_kv_head, e = a->head_dim, n_key = longest(batch, map);
    QP_ASSERT(n_head % n_kv == 0 && e <= QP_TILE_MAX_E);
    if (n_row == 0)
        return NULL;
    decode_t d = {};
    d.out = qp_heads(out, 0, n_head, e);
    d.query = qp_heads(qkv, 0, n_head, e);
    d.key = qp_heads(kv->k, 0, n_kv, e);
    d.value = qp_heads(kv->v, 0, n_kv, e);
    d.key.scale = qp_at<const float>(kv->k_scale.data);
    d.key.scale_ld = kv->k_scale.ld;
    d.value.scale = qp_at<const float>(kv->v_scale.data);
    d.value.scale_ld = kv->v_scale.ld;
    d.batch.cu_seqlens = qp_at<const int32_t>(batch->cu_seqlens);
    d.batch.n_seq = (int)map->n_decode;
    d.pages.block_table = qp_at<const int32_t>(map->block_table_device);
    d.pages.ld = map->table_ld;
    d.pages.block_len = (int)kv->block_len;
    d.n_past = qp_at<const int32_t>(map->n_past_device);
    d.max_piece = pieces_of(n_key);
    d.e = (int)e;
    d.n_head = (int)n_head;
    d.group = (int)(n_head / n_kv);
    d.scale = a->scale;
    const size_t bytes = qp_cuda_attention_decode_bytes(a, n_row, n_key);
    carve(&d, (char *)qp_cuda_scratch(q, QP_CUDA_SCRATCH_ATTENTION, bytes),
          n_row * d.max_piece * n_head);
    const dim3 pieces((unsigned)(n_row * d.max_piece), (unsigned)n_kv);
    QP_TRY(QP_TILE_BY_SIZE(d.e, launch, q, &d, pieces));
    return QP_LAUNCH(q, join_kernel, dim3((unsigned)n_row, (unsigned)n_head), THREADS, d);
}
QP_CUDA_END
