#include "compute/cpu/attention/attention_bf16.h"

#if defined(__x86_64__)

#include "compute/cpu/attention/attention_tile.h"

/* P^T or dS^T of two keys for one vector of queries: as rows, and as pairs of a packed operand. */
QP_TILE_INLINE __m512i store_pair(void *rows, int64_t key, int64_t query, __m512 first,
                                  __m512 second)
{
    const __m512i both = qp_tile_convert(first, second);
    uint16_t *to = (uint16_t *)rows + key * QP_QB + query;
    _mm256_store_si256((void *)to, _mm512_castsi512_si256(both));
    _mm256_store_si256((void *)(to + QP_QB), _mm512_extracti64x4_epi64(both, 1));
    return both;
}

/* P^T and dS^T = P^T (dP^T - delta) of one group of keys and the vectors from \a first on, n_row
 * keys at a time. */
QP_TILE_INLINE void probability_rows(const qp_bf16_backward_t *t, int n_row, int n_vector,
                                     int64_t group, int64_t first)
{
    const qp_bf16_block_t *b = &t->block;
    const int64_t behind = group * QP_LANES - b->ahead - first * QP_LANES; /* first key, query */
    const bool masked = behind + QP_LANES > 1;
    const qp_tile_operand_t query = qp_tile_packed(t->query_trans, first * QP_LANES, 0);
    const qp_tile_operand_t dout = qp_tile_packed(t->dout_trans, first * QP_LANES, 0);
    const __m512 scale = _mm512_set1_ps(b->scale * (float)M_LOG2E);
    __m512 lse[QP_VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < n_vector; v++)
        lse[v] = _mm512_mul_ps(_mm512_load_ps(t->lse + (first + v) * QP_LANES),
                               _mm512_set1_ps((float)M_LOG2E));
    for (int64_t k = 0; k < QP_LANES; k += n_row) {
        const int64_t key = group * QP_LANES + k;
        __m512 prob[QP_LANES], sum[QP_LANES];
        qp_tile_zero(prob, n_row * n_vector);
        qp_tile_multiply(prob, n_row, n_vector, qp_tile_packed(t->key_trans, key, 0), query,
                         b->head_dim / 2);
#pragma GCC unroll 16
        for (int r = 0; r < n_row; r++)
#pragma GCC unroll 16
            for (int v = 0; v < n_vector; v++) {
                __m512 *p = &prob[r * n_vector + v];
                *p = qp_tile_exp2(_mm512_fmsub_ps(*p, scale, lse[v]));
                if (masked)
                    *p = _mm512_maskz_mov_ps(qp_tile_seen(behind + k + r - v * QP_LANES), *p);
            }
        qp_tile_zero(sum, n_row * n_vector);
        qp_tile_multiply(sum, n_row, n_vector, qp_tile_packed(t->value_trans, key, 0), dout,
                         b->head_dim / 2);
#pragma GCC unroll 16
        for (int r = 0; r < n_row; r += 2)
#pragma GCC unroll 16
            for (int v = 0; v < n_vector; v++) {
                const int64_t at = (first + v) * QP_LANES;
                const __m512 delta = _mm512_load_ps(t->delta + at);
                const __m512 *p = &prob[r * n_vector + v], *d = &sum[r * n_vector + v];
                const __m512 ds0 = _mm512_mul_ps(p[0], _mm512_sub_ps(d[0], delta));
                const __m512 ds1 = _mm512_mul_ps(p[n_vector], _mm512_sub_ps(d[n_vector], delta));
                store_pair(t->prob, key + r, at, p[0], p[n_vector]);
                _mm512_store_si512((char *)t->packed + (key + r) / 2 * QP_STEP + at * QP_PAIR,
                                   qp_tile_interleave(store_pair(t->dprob, key + r, at, ds0, ds1)));
            }
    }
}

/* By the number of vectors: so many rows that the tile has sums enough to hide their latency. */
#define DEFINE_PROBABILITY(n_row, n_vector)                                                    \
    QP_TILE_ISA static void probability_##n_vector(const qp_bf16_backward_t *t, int64_t group, \
                                                   int64_t first)                              \
    {                                                                                          \
        probability_rows(t, n_row, n_vector, group, first);                                    \
    }
DEFINE_PROBABILITY(16, 1)
DEFINE_PROBABILITY(8, 2)
DEFINE_PROBABILITY(4, 3)
DEFINE_PROBABILITY(4, 4)
static void (*const probability[])(const qp_bf16_backward_t *t, int64_t group, int64_t first) = {
    NULL, probability_1, probability_2, probability_3, probability_4};

/* dK or dV of a group of keys: += x^T y of the groups of queries [first, end). */
QP_TILE_ISA static void add_keys(float *to, const void *x, const void *y, int64_t head_dim,
                                 int64_t group, int64_t first, int64_t end)
{
    const int64_t step = first * QP_GROUP_STEPS, n_step = (end - first) * QP_GROUP_STEPS;
    for (int64_t c = 0; c < head_dim; c += QP_SUB)
        for (int64_t k = group * QP_LANES; k < (group + 1) * QP_LANES; k += QP_VECTORS)
            qp_tile_add(to + k * head_dim + c, head_dim, QP_VECTORS, QP_VECTORS,
                        qp_tile_plain(x, k, step),
                        qp_tile_packed((const char *)y + c / QP_SUB * QP_PANEL, 0, step), n_step);
}

/* Rows of dQ^T: += K^T dS^T of n_step pairs of keys. */
QP_TILE_INLINE void add_query(const qp_bf16_backward_t *t, int n_row, int n_vector, int64_t first,
                              int64_t n_step)
{
    for (int64_t c = 0; c < t->block.head_dim; c += n_row)
        qp_tile_add(t->dquery + c * QP_QB + first * QP_LANES, QP_QB, n_row, n_vector,
                    qp_tile_packed((const char *)t->key + c / QP_SUB * QP_PANEL, c % QP_SUB, 0),
                    qp_tile_packed(t->packed, first * QP_LANES, 0), n_step);
}

QP_TILE_ISA void qp_bf16_attention_backward(const qp_bf16_backward_t *t)
{
    const qp_bf16_block_t *b = &t->block;
    const int64_t n_vector = qp_bf16_groups(b->n_query), n_group = qp_bf16_groups(b->n_key);
    for (int64_t g = 0; g < n_group; g++) {
        const int64_t first = qp_bf16_first_vector(b, g);
        if (first < n_vector)
            probability[n_vector - first](t, g, first);
    }
    for (int64_t g = 0; g < n_group; g++) {
        const int64_t first = qp_bf16_first_vector(b, g);
        if (first < n_vector) {
            add_keys(t->dvalue, t->prob, t->dout, b->head_dim, g, first, n_vector);
            add_keys(t->dkey, t->dprob, t->query, b->head_dim, g, first, n_vector);
        }
    }
    if (n_vector == QP_VECTORS && qp_bf16_groups_seen(b, 0) == QP_VECTORS)
        add_query(t, QP_VECTORS, QP_VECTORS, 0, QP_SUB_STEPS);
    else
        for (int64_t v = 0; v < n_vector; v++)
            add_query(t, QP_LANES, 1, v, qp_bf16_groups_seen(b, v) * QP_GROUP_STEPS);
}

#endif
