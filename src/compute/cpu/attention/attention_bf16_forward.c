#include "compute/cpu/attention/attention_bf16.h"

#if defined(__x86_64__)

#include "compute/cpu/attention/attention_tile.h"

/* S^T of one group of keys and the vectors from \a first on, n_row keys at a time, and the largest
 * of each query. What is masked is -infinity. */
QP_TILE_INLINE void score_rows(const qp_bf16_forward_t *t, int n_row, int n_vector, int64_t group,
                               int64_t first, __m512 *top)
{
    const qp_bf16_block_t *b = &t->block;
    const __m512 nothing = _mm512_set1_ps(-INFINITY);
    const int64_t behind = group * QP_LANES - b->ahead - first * QP_LANES; /* first key, query */
    const bool masked = behind + QP_LANES > 1;
    const qp_tile_operand_t query = qp_tile_packed(t->query, first * QP_LANES, 0);
    for (int64_t k = 0; k < QP_LANES; k += n_row) {
        const int64_t key = group * QP_LANES + k;
        float *score = t->score + key * QP_QB + first * QP_LANES;
        __m512 sum[QP_LANES];
        qp_tile_zero(sum, n_row * n_vector);
        qp_tile_multiply(sum, n_row, n_vector, qp_tile_packed(t->key, key, 0), query,
                         b->head_dim / 2);
#pragma GCC unroll 16
        for (int r = 0; r < n_row; r++)
#pragma GCC unroll 16
            for (int v = 0; v < n_vector; v++) {
                __m512 x = sum[r * n_vector + v];
                if (masked)
                    x = _mm512_mask_mov_ps(nothing, qp_tile_seen(behind + k + r - v * QP_LANES), x);
                top[first + v] = _mm512_max_ps(top[first + v], x);
                _mm512_store_ps(score + r * QP_QB + v * QP_LANES, x);
            }
    }
}

/* By the number of vectors: so many rows that the tile has sums enough to hide their latency. */
#define DEFINE_SCORE(n_row, n_vector)                                                   \
    QP_TILE_ISA static void score_##n_vector(const qp_bf16_forward_t *t, int64_t group, \
                                             int64_t first, __m512 *top)                \
    {                                                                                   \
        score_rows(t, n_row, n_vector, group, first, top);                              \
    }
DEFINE_SCORE(16, 1)
DEFINE_SCORE(8, 2)
DEFINE_SCORE(4, 3)
DEFINE_SCORE(4, 4)
static void (*const score[])(const qp_bf16_forward_t *t, int64_t group, int64_t first,
                             __m512 *top) = {NULL, score_1, score_2, score_3, score_4};

/* Probabilities of the first n_key keys for one vector of queries, relative to the running
 * maximum; returns what shrinks those before it. */
QP_TILE_ISA static __m512 softmax(const qp_bf16_forward_t *t, int64_t vector, int64_t n_key,
                                  __m512 top)
{
    const int64_t at = vector * QP_LANES;
    const __m512 scale = _mm512_set1_ps(t->block.scale * (float)M_LOG2E);
    const __m512 old = _mm512_load_ps(t->top + at);
    top = _mm512_max_ps(old, _mm512_mul_ps(top, scale));
    const __m512 shrink = qp_tile_exp2(_mm512_sub_ps(old, top));
    __m512 sum = _mm512_mul_ps(_mm512_load_ps(t->sum + at), shrink);
    for (int64_t k = 0; k < n_key; k += 2) {
        const float *s = t->score + k * QP_QB + at;
        const __m512 p = qp_tile_exp2(_mm512_fmsub_ps(_mm512_load_ps(s), scale, top));
        const __m512 q = qp_tile_exp2(_mm512_fmsub_ps(_mm512_load_ps(s + QP_QB), scale, top));
        sum = _mm512_add_ps(sum, _mm512_add_ps(p, q));
        _mm512_store_si512((char *)t->prob + k / 2 * QP_STEP + at * QP_PAIR,
                           qp_tile_interleave(qp_tile_convert(p, q)));
    }
    _mm512_store_ps(t->top + at, top);
    _mm512_store_ps(t->sum + at, sum);
    return shrink;
}

/* Rows of O^T: what was there shrinks, V^T P^T of n_step pairs of keys is added. */
QP_TILE_INLINE void add_values(const qp_bf16_forward_t *t, int n_row, int n_vector, int64_t first,
                               int64_t n_step, const __m512 *shrink)
{
    const qp_tile_operand_t prob = qp_tile_packed(t->prob, first * QP_LANES, 0);
    for (int64_t c = 0; c < t->block.head_dim; c += n_row) {
        const char *panel = (const char *)t->value + c / QP_SUB * QP_PANEL;
        float *out = t->out + c * QP_QB + first * QP_LANES;
        __m512 sum[QP_LANES];
#pragma GCC unroll 16
        for (int r = 0; r < n_row; r++)
#pragma GCC unroll 16
            for (int v = 0; v < n_vector; v++)
                sum[r * n_vector + v] =
                    _mm512_mul_ps(_mm512_load_ps(out + r * QP_QB + v * QP_LANES), shrink[v]);
        qp_tile_multiply(sum, n_row, n_vector, qp_tile_packed(panel, c % QP_SUB, 0), prob, n_step);
#pragma GCC unroll 16
        for (int r = 0; r < n_row; r++)
#pragma GCC unroll 16
            for (int v = 0; v < n_vector; v++)
                _mm512_store_ps(out + r * QP_QB + v * QP_LANES, sum[r * n_vector + v]);
    }
}

QP_TILE_ISA void qp_bf16_attention_forward(const qp_bf16_forward_t *t)
{
    const qp_bf16_block_t *b = &t->block;
    const int64_t n_vector = qp_bf16_groups(b->n_query), n_group = qp_bf16_groups(b->n_key);
    __m512 top[QP_VECTORS], shrink[QP_VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < QP_VECTORS; v++)
        top[v] = _mm512_set1_ps(-INFINITY);
    for (int64_t g = 0; g < n_group; g++) {
        const int64_t first = qp_bf16_first_vector(b, g);
        if (first < n_vector)
            score[n_vector - first](t, g, first, top);
    }
    bool whole = n_vector == QP_VECTORS;
    for (int64_t v = 0; v < n_vector; v++) {
        const int64_t n = qp_bf16_groups_seen(b, v);
        shrink[v] = softmax(t, v, n * QP_LANES, top[v]);
        whole = whole && n == QP_VECTORS;
    }
    if (whole)
        add_values(t, QP_VECTORS, QP_VECTORS, 0, QP_SUB_STEPS, shrink);
    else
        for (int64_t v = 0; v < n_vector; v++)
            add_values(t, QP_LANES, 1, v, qp_bf16_groups_seen(b, v) * QP_GROUP_STEPS, &shrink[v]);
}

static const qp_bf16_attention_t kernels = {qp_bf16_attention_forward, qp_bf16_attention_backward};

#endif

const qp_bf16_attention_t *qp_bf16_attention(const qp_cpu_device_t *device, qp_dtype_t dtype,
                                             int64_t head_dim)
{
#if defined(__x86_64__)
    if (device->packed_bf16 && dtype == QP_BF16 && head_dim % QP_SUB == 0)
        return &kernels;
#endif
    (void)device;
    return NULL;
}
