/**
 * \file head.h
 * What the heads in floats (lm_head.c) and in int8 (lm_head_int8.c) have in common: the statistics
 * of a row over the vocabulary and what follows from them. lm_head.c has the formulas.
 */
#ifndef QP_COMPUTE_CPU_HEAD_HEAD_H
#define QP_COMPUTE_CPU_HEAD_HEAD_H

#include <math.h>

#include "compute/cpu/linear/weight.h"

/** Running statistics of one row over the vocabulary. */
typedef struct {
    float top;      /**< largest logit so far */
    float sum;      /**< of exp(z - top), without the target */
    float weighted; /**< of exp(z - top) (z - top), without the target */
    float target_logit;
} qp_cpu_head_row_t;

/** Nothing seen yet. */
static inline qp_cpu_head_row_t qp_cpu_head_row(void)
{
    return (qp_cpu_head_row_t){.top = -INFINITY};
}

/**
 * Takes n more logits into a row's statistics and turns them into exp(z - top), 0 at the target;
 * target: its column in z or -1. out [d], or NULL, is brought to the new top.
 */
void qp_cpu_head_scan(qp_cpu_head_row_t *row, float *z, int64_t n, int64_t target, float *out,
                      int64_t d);

/** Where the results of a call go; entropy may be NULL, dhidden without data. */
typedef struct {
    float *logprob, *entropy;
    qp_mat_t dhidden;
} qp_cpu_head_result_t;

/**
 * Results of row r of a call whose statistics are complete. counts: it has a target, else all is 0.
 * With a gradient: out [d] is the sum of exp(z - top) W without the target (used up), w [d] the
 * target's row of W; else out is NULL.
 */
void qp_cpu_head_write(const qp_cpu_head_result_t *to, int64_t r, const qp_cpu_head_row_t *row,
                       bool counts, float *out, const float *w);

/** Slot lm_head with an int8 head. */
qp_error_t qp_cpu_lm_head_int8(qp_queue_t *q, const qp_cpu_head_result_t *to, qp_mat_t hidden,
                               const qp_weight_t *head, const int32_t *target);
void qp_cpu_lm_head_int8_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                                 qp_cpu_scratch_need_t *need);

#endif
