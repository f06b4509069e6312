/*
 * A task is a token and a piece of its past, with all heads: rows of all kv heads lie side by side,
 * and memory gives them together. Where pieces begin depends on the sequence alone.
 */
#include "compute/cpu/attention/attention_decode.h"

#include "compute/cpu/attention/kv.h"
#include "compute/cpu/gemm/transpose.h"

enum { TILE = QP_DECODE_TILE, PIECE = QP_DECODE_PIECE };

/* Rows are called into the cache so long before they are multiplied. */
enum { AHEAD = TILE, MAX_ROW = 2 * PIECE + AHEAD };

/* --- the kernel for any CPU and type ---------------------------------------------------------- */

static inline void widen(float *wide, const qp_decode_tile_t *tile)
{
    for (int i = 0; i < TILE; i++)
        qp_cpu_kv_load(wide + i * tile->e, tile->dtype, tile->row[i] + tile->offset, tile->e);
}

/* Of one query. Features that fill no register come last, one by one. */
static inline void score_one(float *restrict score, const float *restrict query,
                             const float *restrict wide, int64_t e, float scale)
{
    qp_floats_t sum[TILE];
#pragma GCC unroll 16
    for (int k = 0; k < TILE; k++)
        sum[k] = (qp_floats_t){0};
    int64_t c = 0;
    for (; c + QP_WORDS <= e; c += QP_WORDS) {
        qp_floats_t q, x;
        memcpy(&q, query + c, sizeof q);
#pragma GCC unroll 16
        for (int k = 0; k < TILE; k++) {
            memcpy(&x, wide + k * e + c, sizeof x);
            sum[k] += q * x;
        }
    }
    qp_cpu_sum_lanes(score, sum);
    for (; c < e; c++)
        for (int k = 0; k < TILE; k++)
            score[k] += query[c] * wide[k * e + c];
    for (int k = 0; k < TILE; k++)
        score[k] *= scale;
}

QP_CPU_CLONES static void score_tile(float *score, const void *query, const qp_decode_tile_t *tile,
                                     float scale, float *wide)
{
    widen(wide, tile);
    for (int64_t h = 0; h < tile->group; h++)
        score_one(score + h * PIECE, (const float *)query + h * tile->e, wide, tile->e, scale);
}

/* Four rows at a time, so that out is touched less often. */
QP_CPU_CLONES static void add_tile(float *restrict out, const float *restrict weight,
                                   const qp_decode_tile_t *tile, float *restrict wide)
{
    const int64_t e = tile->e;
    widen(wide, tile);
    for (int64_t h = 0; h < tile->group; h++, out += e, weight += PIECE)
        for (int i = 0; i < TILE; i += 4) {
            const float *restrict row = wide + i * e, *restrict w = weight + i;
            for (int64_t c = 0; c < e; c++)
                out[c] += w[0] * row[c] + w[1] * row[e + c] + w[2] * row[2 * e + c] +
                          w[3] * row[3 * e + c];
        }
}

static const qp_decode_kernel_t any_kernel = {QP_F32, score_tile, add_tile};

/* --- plan ------------------------------------------------------------------------------------- */

typedef struct {
    int64_t seq, row; /* row of the batch */
    int64_t first, n; /* keys */
} piece_t;

/* Results of each piece and head: exp(score - top) weighted values, the sum of weights, top. */
typedef struct {
    float *out;       /* [n_piece, H, E] */
    float *top, *sum; /* [n_piece, H] */
} partial_t;

typedef struct {
    const qp_kv_t *kv;
    const qp_kv_map_t *map;
    qp_attention_t a;
    int64_t group;
    const qp_decode_kernel_t *kernel;
    const qp_mat_t *qkv, *out;
    partial_t partial;
    piece_t *piece;
    int64_t n_piece, n_row;
    int64_t *row_first; /* [n_row + 1] first piece of a row */
} decode_t;

/* Counts the work; writes the tables too once they have their memory. */
static void plan_decode(decode_t *d, const qp_ragged_t *batch)
{
    d->n_piece = d->n_row = 0;
    for (int64_t s = 0; s < d->map->n_decode; s++) {
        const int64_t first = batch->cu_seqlens_host[s], end = batch->cu_seqlens_host[s + 1];
        for (int64_t row = first; row < end; row++, d->n_row++) {
            const int64_t n_key = d->map->n_past[s] + row - first + 1;
            if (d->piece != NULL)
                d->row_first[d->n_row] = d->n_piece;
            for (int64_t k = 0; k < n_key; k += PIECE, d->n_piece++)
                if (d->piece != NULL)
                    d->piece[d->n_piece] = (piece_t){s, row, k, qp_min_i64(n_key - k, PIECE)};
        }
    }
    if (d->piece != NULL)
        d->row_first[d->n_row] = d->n_piece;
}

/* Lays out the plan and the partial results; returns their bytes. */
static size_t carve_tables(decode_t *d, char *memory)
{
    const int64_t n_partial = d->n_piece * d->a.n_head;
    char *at = memory;
    d->piece = qp_cpu_carve(&at, qp_bytes(d->n_piece, sizeof *d->piece));
    d->row_first = qp_cpu_carve(&at, qp_bytes(d->n_row + 1, sizeof *d->row_first));
    d->partial.out = qp_cpu_carve(&at, qp_bytes(n_partial * d->a.head_dim, sizeof(float)));
    d->partial.top = qp_cpu_carve(&at, qp_bytes(n_partial, sizeof(float)));
    d->partial.sum = qp_cpu_carve(&at, qp_bytes(n_partial, sizeof(float)));
    return (size_t)(at - memory);
}

/* Memory of one thread. */
typedef struct {
    int64_t key[PIECE];       /* rows of the cache */
    const char *row[MAX_ROW]; /* where its keys and then its values begin, both in whole tiles */
    float *query;             /* [H, E] */
    float *score;             /* [H, PIECE] */
    float *wide;              /* [TILE, E] */
} lane_t;

static size_t carve_lane(lane_t *lane, const decode_t *d, char *memory)
{
    const int64_t e = d->a.head_dim;
    char *at = memory;
    lane->query = qp_cpu_carve(&at, qp_bytes(d->a.n_head * e, sizeof(float)));
    lane->score = qp_cpu_carve(&at, qp_bytes(d->a.n_head * PIECE, sizeof(float)));
    lane->wide = qp_cpu_carve(&at, qp_bytes(TILE * e, sizeof(float)));
    return (size_t)(at - memory);
}

/* Of all threads; *bytes gets those of one. */
static size_t lanes_bytes(const decode_t *d, const qp_cpu_device_t *device, size_t *bytes)
{
    lane_t measure;
    *bytes = carve_lane(&measure, d, NULL);
    return *bytes * (size_t)device->n_thread;
}

void qp_cpu_attention_decode_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                                     qp_cpu_scratch_need_t *need)
{
    decode_t d = {.a = size->attention,
                  .n_row = size->n_decode,
                  .n_piece = size->n_decode * ((size->n_key + PIECE - 1) / PIECE)};
    size_t bytes;
    qp_cpu_need(need, QP_SCRATCH_ATTENTION_TASK, lanes_bytes(&d, device, &bytes));
    qp_cpu_need(need, QP_SCRATCH_ATTENTION_SUM, carve_tables(&d, NULL));
}

/* --- a piece ---------------------------------------------------------------------------------- */

/* x *= scales of the rows, if they have any */
static inline void scale_rows(float *restrict x, const qp_mat_t *scale, const int64_t *row,
                              int64_t kv_head, int64_t n)
{
    if (qp_dptr_is_null(scale->data))
        return;
    for (int64_t i = 0; i < n; i++)
        x[i] *= qp_cpu_kv_scale(scale, row[i], kv_head);
}

/* Softmax within the piece, of n scores; those that fill up the last tile become 0. */
static inline void softmax(float *restrict score, int64_t n, float *top, float *sum)
{
    float largest = -INFINITY, total = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; i++)
        largest = score[i] > largest ? score[i] : largest;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++) {
        score[i] = qp_cpu_expf_negative(score[i] - largest);
        total += score[i];
    }
    for (; n % TILE != 0; n++)
        score[n] = 0.0f;
    *top = largest;
    *sum = total;
}

QP_CPU_CLONES static void weigh(const decode_t *d, const lane_t *lane, int64_t n, int64_t piece)
{
    for (int64_t h = 0; h < d->a.n_head; h++) {
        const int64_t at = piece * d->a.n_head + h;
        float *score = lane->score + h * PIECE;
        scale_rows(score, &d->kv->k_scale, lane->key, h / d->group, n);
        softmax(score, n, &d->partial.top[at], &d->partial.sum[at]);
        scale_rows(score, &d->kv->v_scale, lane->key, h / d->group, n);
    }
}

/* The queries in the type that the kernel wants. */
static const char *load_queries(const decode_t *d, int64_t row, const lane_t *lane)
{
    const void *query = qp_cpu_at(d->qkv, row, 0);
    if (d->qkv->dtype == d->kernel->query)
        return query;
    qp_cpu_convert(lane->query, d->kernel->query, query, d->qkv->dtype,
                   d->a.n_head * d->a.head_dim);
    return (const char *)lane->query;
}

/* The last key fills up the last tile. Returns the keys with it. */
static int64_t find_rows(const decode_t *d, const piece_t *p, lane_t *lane)
{
    const int64_t n = (p->n + TILE - 1) / TILE * TILE;
    qp_cpu_kv_rows(lane->key, d->kv, d->map, p->seq, p->first, p->n);
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = lane->key[qp_min_i64(i, p->n - 1)];
        lane->row[i] = qp_cpu_at(&d->kv->k, row, 0);
        lane->row[n + i] = qp_cpu_at(&d->kv->v, row, 0);
    }
    for (int64_t i = 0; i < AHEAD; i++)
        lane->row[2 * n + i] = lane->row[2 * n - 1];
    return n;
}

/* A tile from row \a i on; memory is asked for the one that comes AHEAD rows later. */
static qp_decode_tile_t take_tile(const decode_t *d, const lane_t *lane, int64_t i, int64_t kv_head)
{
    enum { LINE = 64 };
    const qp_dtype_t dtype = d->kv->k.dtype;
    const size_t bytes = qp_bytes(d->a.head_dim, qp_dtype_bytes(dtype));
    const qp_decode_tile_t tile = {.row = lane->row + i,
                                   .offset = (size_t)kv_head * bytes,
                                   .dtype = dtype,
                                   .e = d->a.head_dim,
                                   .group = d->group};
    for (int r = 0; r < TILE; r++)
        for (size_t b = 0; b < bytes; b += LINE)
            __builtin_prefetch(tile.row[AHEAD + r] + tile.offset + b);
    return tile;
}

static void run_piece(const decode_t *d, int64_t piece, lane_t *lane)
{
    const piece_t *p = &d->piece[piece];
    const qp_decode_kernel_t *kernel = d->kernel;
    const int64_t e = d->a.head_dim, group = d->group, n = find_rows(d, p, lane);
    const size_t query_bytes = qp_bytes(group * e, qp_dtype_bytes(kernel->query));
    const char *query = load_queries(d, p->row, lane);
    float *out = d->partial.out + piece * d->a.n_head * e;
    for (int64_t i = 0; i < n; i += TILE)
        for (int64_t g = 0; g < d->a.n_kv_head; g++) {
            const qp_decode_tile_t tile = take_tile(d, lane, i, g);
            kernel->score(lane->score + g * group * PIECE + i, query + (size_t)g * query_bytes,
                          &tile, d->a.scale, lane->wide);
        }
    weigh(d, lane, p->n, piece);
    memset(out, 0, qp_bytes(d->a.n_head * e, sizeof *out));
    for (int64_t i = 0; i < n; i += TILE)
        for (int64_t g = 0; g < d->a.n_kv_head; g++) {
            const qp_decode_tile_t tile = take_tile(d, lane, n + i, g);
            kernel->add(out + g * group * e, lane->score + g * group * PIECE + i, &tile,
                        lane->wide);
        }
}

/* Joins the pieces of one (row, head) in order. */
QP_CPU_CLONES static void join_pieces(const decode_t *d, int64_t row, int64_t head)
{
    const int64_t e = d->a.head_dim, n_head = d->a.n_head;
    const partial_t *p = &d->partial;
    float out[QP_CPU_CHUNK] = {0}, top = -INFINITY, sum = 0.0f;
    const int64_t first = d->row_first[row] * n_head + head, end = d->row_first[row + 1] * n_head;
    for (int64_t i = first; i < end; i += n_head)
        top = p->top[i] > top ? p->top[i] : top;
    for (int64_t i = first; i < end; i += n_head) {
        const float weight = qp_cpu_expf(p->top[i] - top);
        sum += weight * p->sum[i];
        for (int64_t c = 0; c < e; c++)
            out[c] += weight * p->out[i * e + c];
    }
    for (int64_t c = 0; c < e; c++)
        out[c] /= sum;
    qp_cpu_store(qp_cpu_at(d->out, d->piece[d->row_first[row]].row, head * e), d->out->dtype, out,
                 e);
}

void qp_cpu_attention_decode(qp_cpu_device_t *device, const qp_mat_t *out, const qp_mat_t *qkv,
                             const qp_kv_t *kv, const qp_attention_t *a, const qp_ragged_t *batch,
                             const qp_kv_map_t *map)
{
    decode_t d = {.kv = kv,
                  .map = map,
                  .a = *a,
                  .group = a->n_head / a->n_kv_head,
                  .kernel = qp_bf16_decode(device, qkv->dtype, kv->k.dtype, a->head_dim),
                  .qkv = qkv,
                  .out = out};
    if (d.kernel == NULL)
        d.kernel = &any_kernel;
    plan_decode(&d, batch);
    if (d.n_row == 0)
        return;
    carve_tables(&d, qp_cpu_scratch(device, QP_SCRATCH_ATTENTION_SUM, carve_tables(&d, NULL)));
    plan_decode(&d, batch);
    size_t lane_bytes;
    const size_t all = lanes_bytes(&d, device, &lane_bytes);
    char *memory = qp_cpu_scratch(device, QP_SCRATCH_ATTENTION_TASK, all);
#pragma omp parallel num_threads(device->n_thread)
    {
        lane_t lane;
        carve_lane(&lane, &d, memory + (size_t)omp_get_thread_num() * lane_bytes);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < d.n_piece; i++)
            run_piece(&d, i, &lane);
#pragma omp for collapse(2)
        for (int64_t i = 0; i < d.n_row; i++)
            for (int64_t h = 0; h < d.a.n_head; h++)
                join_pieces(&d, i, h);
    }
}
