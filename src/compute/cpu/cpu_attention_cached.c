/*
 * Attention of new tokens to a paged cache. Decoding is bound by reading the cache, and does dot
 * products on it; other sequences go through the blocked products of training. The pieces that a
 * past is cut into depend on that sequence alone.
 */
#include "compute/cpu/cpu_attention.h"
#include "compute/cpu/cpu_kv.h"
#include "compute/cpu/cpu_transpose.h"

enum {
    TILE = 16,   /* keys that are in fp32 at a time, while the next ones are fetched */
    PIECE = 256, /* keys of one task */
    MANY = 2048  /* keys whose blocks are there together, of one sequence or more */
};

/* --- decoding --------------------------------------------------------------------------------- */

/* One task: a new token, a kv head (all query heads of its group) and a piece of the past. */
typedef struct {
    int64_t seq, row; /* row of the batch */
    int64_t first, n; /* keys */
    int64_t kv_head;
    int64_t partial; /* among the partial results; those of one row are [piece, H] */
} piece_t;

/* Result of one piece for one head: exp(score - top) weighted values, their sum, top. */
typedef struct {
    float *out;       /* [n_partial, E] */
    float *top, *sum; /* [n_partial] */
} partial_t;

typedef struct {
    const qp_kv_t *kv;
    const qp_kv_map_t *map;
    qp_attention_t a;
    int64_t group;
    qp_mat_t qkv, out;
    partial_t partial;
    piece_t *piece;
    int64_t n_piece, n_partial, n_row;
    int64_t *row_first, *row_of; /* [n_row + 1] first partial, [n_row] row of the batch */
} decode_t;

/* Counts the work; writes the tables too once they have their memory. */
static void plan_decode(decode_t *d, const qp_ragged_t *batch)
{
    d->n_piece = d->n_partial = d->n_row = 0;
    for (int64_t s = 0; s < d->map->n_decode; s++) {
        int64_t first = batch->cu_seqlens_host[s], n = batch->cu_seqlens_host[s + 1] - first;
        for (int64_t i = 0; i < n; i++) {
            int64_t n_key = d->map->n_past[s] + i + 1;
            if (d->piece != NULL) {
                d->row_first[d->n_row] = d->n_partial;
                d->row_of[d->n_row] = first + i;
            }
            d->n_row++;
            for (int64_t k = 0; k < n_key; k += PIECE) {
                for (int64_t g = 0; g < d->a.n_kv_head; g++, d->n_piece++)
                    if (d->piece != NULL)
                        d->piece[d->n_piece] = (piece_t){s, first + i,
                                                         k, qp_cpu_min(n_key - k, PIECE),
                                                         g, d->n_partial + g * d->group};
                d->n_partial += d->a.n_head;
            }
        }
    }
    if (d->piece != NULL)
        d->row_first[d->n_row] = d->n_partial;
}

/* One thread's memory: a tile of keys or values in fp32, the group's queries and scores. */
typedef struct {
    int64_t *row; /* [PIECE + TILE] rows of the cache; the last one is there TILE times more */
    float *tile;  /* [TILE, E] */
    float *query; /* [group, E] */
    float *score; /* [group, PIECE] */
} lane_t;

static size_t carve_lane(lane_t *lane, const decode_t *d, char *memory)
{
    char *at = memory;
    lane->row = qp_cpu_carve(&at, (PIECE + TILE) * sizeof *lane->row);
    lane->tile = qp_cpu_carve(&at, (size_t)(TILE * d->a.head_dim) * sizeof(float));
    lane->query = qp_cpu_carve(&at, (size_t)(d->group * d->a.head_dim) * sizeof(float));
    lane->score = qp_cpu_carve(&at, (size_t)(d->group * PIECE) * sizeof(float));
    return (size_t)(at - memory);
}

/* score [TILE] = scale times the products of one query with the rows of a tile. Features that fill
 * no register come last, one by one. */
QP_CPU_CLONES static void score_tile(float *restrict score, const float *restrict query,
                                     const float *restrict tile, int64_t e, float scale)
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
            memcpy(&x, tile + k * e + c, sizeof x);
            sum[k] += q * x;
        }
    }
    qp_cpu_sum_lanes(score, sum);
    for (; c < e; c++)
        for (int k = 0; k < TILE; k++)
            score[k] += query[c] * tile[k * e + c];
    for (int k = 0; k < TILE; k++)
        score[k] *= scale;
}

/* out += sum over n rows of weight * row; four rows at a time, so that out is touched less often.
 */
static inline void add_rows(float *restrict out, const float *restrict row,
                            const float *restrict weight, int64_t n, int64_t e)
{
    int64_t i = 0;
    for (; i + 4 <= n; i += 4, row += 4 * e)
        for (int64_t c = 0; c < e; c++)
            out[c] += weight[i] * row[c] + weight[i + 1] * row[e + c] +
                      weight[i + 2] * row[2 * e + c] + weight[i + 3] * row[3 * e + c];
    for (; i < n; i++, row += e)
        for (int64_t c = 0; c < e; c++)
            out[c] += weight[i] * row[c];
}

/* Softmax of one head's scores within the piece. */
static inline void softmax_piece(float *restrict score, int64_t n, float *top, float *sum)
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
    *top = largest;
    *sum = total;
}

static void find_rows(const decode_t *d, const piece_t *p, int64_t *row)
{
    qp_cpu_kv_rows(row, d->kv, d->map, p->seq, p->first, p->n);
    for (int64_t i = 0; i < TILE; i++)
        row[p->n + i] = row[p->n - 1];
}

/* Up to TILE rows of one kv head in fp32. Rows of different heads lie between them, so the next
 * tile would have to be waited for. */
static inline void load_tile(float *tile, const qp_mat_t *from, const int64_t *row, int64_t kv_head,
                             int64_t n, int64_t e)
{
    const qp_dtype_t dtype = from->dtype;
    const int64_t width = (int64_t)qp_dtype_bytes(dtype), ld = from->ld * width;
    const char *base = qp_cpu_at(from, 0, kv_head * e);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t b = 0; b < e * width; b += 64)
            __builtin_prefetch(base + row[i + TILE] * ld + b);
        qp_cpu_kv_load(tile + i * e, dtype, base + row[i] * ld, e);
    }
}

/* x *= scales of the rows, if they have any */
static inline void scale_rows(float *restrict x, const qp_mat_t *scale, const int64_t *row,
                              int64_t kv_head, int64_t n)
{
    if (qp_dptr_is_null(scale->data))
        return;
    for (int64_t i = 0; i < n; i++)
        x[i] *= qp_cpu_kv_scale(scale, row[i], kv_head);
}

/* Scores of the piece's keys for every head of the group. */
static inline void score_piece(const decode_t *d, const piece_t *p, const lane_t *lane)
{
    int64_t e = d->a.head_dim;
    for (int64_t i = 0; i < p->n; i += TILE) {
        int64_t n = qp_cpu_min(p->n - i, TILE);
        load_tile(lane->tile, &d->kv->k, lane->row + i, p->kv_head, n, e);
        for (int64_t h = 0; h < d->group; h++) /* scores behind the last key are not read */
            score_tile(lane->score + h * PIECE + i, lane->query + h * e, lane->tile, e, d->a.scale);
    }
}

QP_CPU_CLONES static void run_piece(const decode_t *d, const piece_t *p, const lane_t *lane)
{
    int64_t e = d->a.head_dim, group = d->group;
    float *restrict out = d->partial.out + p->partial * e;
    find_rows(d, p, lane->row);
    qp_cpu_load(lane->query, d->qkv.dtype, qp_cpu_at(&d->qkv, p->row, p->kv_head * group * e),
                group * e);
    score_piece(d, p, lane);
    for (int64_t h = 0; h < group; h++) {
        float *score = lane->score + h * PIECE;
        scale_rows(score, &d->kv->k_scale, lane->row, p->kv_head, p->n);
        softmax_piece(score, p->n, &d->partial.top[p->partial + h],
                      &d->partial.sum[p->partial + h]);
        scale_rows(score, &d->kv->v_scale, lane->row, p->kv_head, p->n);
    }
    memset(out, 0, (size_t)(group * e) * sizeof(float));
    for (int64_t i = 0; i < p->n; i += TILE) {
        int64_t n = qp_cpu_min(p->n - i, TILE);
        load_tile(lane->tile, &d->kv->v, lane->row + i, p->kv_head, n, e);
        for (int64_t h = 0; h < group; h++)
            add_rows(out + h * e, lane->tile, lane->score + h * PIECE + i, n, e);
    }
}

/* Joins the pieces of one (row, head) in order. */
QP_CPU_CLONES static void join_pieces(const decode_t *d, int64_t row, int64_t head)
{
    int64_t e = d->a.head_dim;
    const partial_t *p = &d->partial;
    float out[QP_CPU_CHUNK] = {0}, top = -INFINITY, sum = 0.0f;
    for (int64_t i = d->row_first[row] + head; i < d->row_first[row + 1]; i += d->a.n_head)
        top = p->top[i] > top ? p->top[i] : top;
    for (int64_t i = d->row_first[row] + head; i < d->row_first[row + 1]; i += d->a.n_head) {
        float weight = qp_cpu_expf(p->top[i] - top);
        sum += weight * p->sum[i];
        for (int64_t c = 0; c < e; c++)
            out[c] += weight * p->out[i * e + c];
    }
    for (int64_t c = 0; c < e; c++)
        out[c] /= sum;
    qp_cpu_store(qp_cpu_at(&d->out, d->row_of[row], head * e), d->out.dtype, out, e);
}

/* The heads of one stretch of keys go to one thread where there are stretches enough: they lie side
 * by side, and memory gives them together. */
static int pieces_at_a_time(const decode_t *d, const qp_cpu_device_t *device)
{
    const int64_t n_kv_head = d->a.n_kv_head;
    return d->n_piece / n_kv_head >= (int64_t)2 * device->n_thread ? (int)n_kv_head : 1;
}

static void attend_decode(decode_t *d, qp_cpu_device_t *device, const qp_ragged_t *batch)
{
    plan_decode(d, batch);
    if (d->n_row == 0)
        return;
    size_t piece_bytes = qp_bytes(d->n_piece, sizeof *d->piece);
    size_t row_bytes = qp_bytes(d->n_row + 1, sizeof *d->row_of);
    size_t out_bytes = qp_bytes(d->n_partial * d->a.head_dim, sizeof(float));
    size_t sum_bytes = qp_bytes(d->n_partial, sizeof(float));
    size_t bytes = qp_cpu_round64(piece_bytes) + 2 * qp_cpu_round64(row_bytes) +
                   qp_cpu_round64(out_bytes) + 2 * qp_cpu_round64(sum_bytes);
    char *at = qp_cpu_scratch(device, QP_SCRATCH_ATTENTION_SUM, bytes);
    d->piece = qp_cpu_carve(&at, piece_bytes);
    d->row_first = qp_cpu_carve(&at, row_bytes);
    d->row_of = qp_cpu_carve(&at, row_bytes);
    d->partial.out = qp_cpu_carve(&at, out_bytes);
    d->partial.top = qp_cpu_carve(&at, sum_bytes);
    d->partial.sum = qp_cpu_carve(&at, sum_bytes);
    plan_decode(d, batch);
    lane_t measure;
    const size_t lane_bytes = carve_lane(&measure, d, NULL);
    char *memory =
        qp_cpu_scratch(device, QP_SCRATCH_ATTENTION_TASK, lane_bytes * (size_t)device->n_thread);
#pragma omp parallel num_threads(device->n_thread)
    {
        lane_t lane;
        carve_lane(&lane, d, memory + (size_t)omp_get_thread_num() * lane_bytes);
#pragma omp for schedule(dynamic, pieces_at_a_time(d, device))
        for (int64_t i = 0; i < d->n_piece; i++)
            run_piece(d, &d->piece[i], &lane);
#pragma omp for collapse(2)
        for (int64_t i = 0; i < d->n_row; i++)
            for (int64_t h = 0; h < d->a.n_head; h++)
                join_pieces(d, i, h);
    }
}

/* --- in blocks -------------------------------------------------------------------------------- */

/* End of the sequences from first on that are done together. */
static int64_t end_of_part(const qp_ragged_t *batch, const qp_kv_map_t *map, int64_t first)
{
    int64_t s = first, n_key = 0;
    while (s < batch->n_seq) {
        n_key += batch->cu_seqlens_host[s + 1] - batch->cu_seqlens_host[s] + map->n_past[s];
        if (n_key > MANY && s > first) /* at least one */
            break;
        s++;
    }
    return s;
}

/* Pasts may be long and many: blocks of all of them at once would be a second cache. */
static qp_error_t attend_blocks(const decode_t *d, qp_cpu_device_t *device,
                                const qp_ragged_t *batch)
{
    const qp_kv_map_t *map = d->map;
    for (int64_t first = map->n_decode, end; first < batch->n_seq; first = end) {
        end = end_of_part(batch, map, first);
        const qp_ragged_t part = {.n_token = batch->cu_seqlens_host[end],
                                  .n_seq = end - first,
                                  .cu_seqlens_host = batch->cu_seqlens_host + first};
        qp_blocks_t b;
        qp_blocks_init(&b, device, QP_FOR_FORWARD, &d->a, d->qkv.dtype, &part, map->n_past + first,
                       1);
        const qp_key_source_t source = {.k = d->kv->k,
                                        .v = d->kv->v,
                                        .k_scale = d->kv->k_scale,
                                        .v_scale = d->kv->v_scale,
                                        .block_table = map->block_table + first * map->table_ld,
                                        .table_ld = map->table_ld,
                                        .block_len = d->kv->block_len};
        qp_blocks_load_keys(&b, device, &source);
        QP_TRY(qp_blocks_forward(&b, device, &d->out, NULL, &d->qkv));
    }
    return NULL;
}

qp_error_t qp_cpu_attention_cached(qp_queue_t *q, qp_mat_t out, qp_mat_t qkv, const qp_kv_t *kv,
                                   const qp_attention_t *a, const qp_ragged_t *batch,
                                   const qp_kv_map_t *map)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    QP_ASSERT(qkv.n_row == batch->n_token && out.n_row == batch->n_token);
    QP_ASSERT(map->n_decode <= batch->n_seq);
    QP_ASSERT(out.n_col == a->n_head * a->head_dim);
    QP_ASSERT(kv->k.n_col == a->n_kv_head * a->head_dim && kv->v.n_col == kv->k.n_col);
    decode_t decode = {
        .kv = kv, .map = map, .a = *a, .group = a->n_head / a->n_kv_head, .qkv = qkv, .out = out};
    attend_decode(&decode, device, batch);
    return attend_blocks(&decode, device, batch);
}
