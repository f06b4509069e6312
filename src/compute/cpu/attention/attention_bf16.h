/**
 * \file attention_bf16.h
 * Attention kernels of our own for AVX-512 with BF16: one block of QB queries against SUB keys,
 * with scores and probabilities in registers and the first-level cache. Everywhere else, and for
 * other types and head sizes, oneDNN multiplies (attention_forward.c, _backward.c).
 *
 * All is held transposed, queries in lanes: maxima and sums over keys need no shuffles, and two
 * rows of probabilities make a row of the packed operand of the next product. What is masked is
 * left out by groups of 16 keys x 16 queries.
 */
#ifndef QP_COMPUTE_CPU_ATTENTION_ATTENTION_BF16_H
#define QP_COMPUTE_CPU_ATTENTION_ATTENTION_BF16_H

#include "compute/cpu/attention/attention.h"

/** What a block has: operands of SUB keys and QB queries are packed (pack.h). */
typedef struct {
    int64_t head_dim; /**< multiple of 64 */
    float scale;
    int64_t n_query, n_key; /**< real ones, at most QB and SUB; the others are zero */
    int64_t ahead;          /**< query q sees the keys up to ahead + q; >= SUB - 1: all */
} qp_bf16_block_t;

typedef struct {
    qp_bf16_block_t block;
    const void *query, *key; /**< Q^T [E, QB], K^T [E, SUB] */
    const void *value;       /**< V [SUB, E] */
    float *score;            /**< [SUB, QB] */
    void *prob;              /**< P^T [SUB, QB] packed */
    float *out;              /**< O^T [E, QB] relative to top, added to */
    float *top, *sum;        /**< [QB] largest score in units of ln 2, sum of 2^(score - top) */
} qp_bf16_forward_t;

typedef struct {
    qp_bf16_block_t block;
    const void *query_trans, *dout_trans, *key_trans, *value_trans; /**< [E, QB], [E, SUB] */
    const void *query, *dout, *key;                                 /**< [QB, E], [SUB, E] */
    const float *lse, *delta;                                       /**< [QB] */
    void *prob, *dprob;   /**< [SUB, QB] bf16: P^T, dS^T */
    void *packed;         /**< dS^T packed */
    float *dquery;        /**< dQ^T [E, QB], added to; without the factor scale */
    float *dkey, *dvalue; /**< [SUB, E], added to; dkey without the factor scale */
} qp_bf16_backward_t;

/** Groups of 16 that hold n; vector v of queries is their group v. */
static inline int64_t qp_bf16_groups(int64_t n)
{
    return (n + 15) / 16;
}

/** The first vector of queries that sees some key of the group, and how many groups one sees. */
static inline int64_t qp_bf16_first_vector(const qp_bf16_block_t *b, int64_t group)
{
    return 16 * group <= b->ahead ? 0 : (16 * group - b->ahead) / 16;
}

static inline int64_t qp_bf16_groups_seen(const qp_bf16_block_t *b, int64_t vector)
{
    const int64_t n = qp_min_i64(b->ahead + 16 * (vector + 1), b->n_key);
    return n <= 0 ? 0 : qp_bf16_groups(n);
}

struct qp_bf16_attention {
    void (*forward)(const qp_bf16_forward_t *block);
    void (*backward)(const qp_bf16_backward_t *block);
};

/** The kernels, or NULL: this CPU, type or head size takes the general way. */
const qp_bf16_attention_t *qp_bf16_attention(const qp_cpu_device_t *device, qp_dtype_t dtype,
                                             int64_t head_dim);

void qp_bf16_attention_forward(const qp_bf16_forward_t *t);
void qp_bf16_attention_backward(const qp_bf16_backward_t *t);

#endif
