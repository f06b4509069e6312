/**
 * \file sequences.h
 * A ragged micro-batch that is put together from sequences in host memory, with room for what the
 * heads say of it.
 */
#ifndef QP_TRAIN_MICRO_SEQUENCES_H
#define QP_TRAIN_MICRO_SEQUENCES_H

#include "model/pass/pass.h"

typedef struct {
    int64_t max_token, n_token, n_seq;
    int32_t *token, *target, *position; /**< [n_token]; target -1 but for responses */
    int32_t *cu_seqlens;                /**< [n_seq + 1] */
    uint32_t *sample;                   /**< [n_token] */
    uint8_t *valued;                    /**< [n_token] 0 at first: the caller sets them */
    float *logprob, *entropy, *value;   /**< [n_token] outputs */
    float *dlogprob, *dvalue;           /**< [n_token] 0 at first: gradients */
} qp_sequences_t;

void qp_sequences_init(qp_sequences_t *sequences, int64_t max_token);
void qp_sequences_fini(qp_sequences_t *sequences);
void qp_sequences_clear(qp_sequences_t *sequences);

/**
 * Appends n tokens, and then \a added if it is none of -1. The tokens from n_query on are a
 * response: their predecessors get them as targets.
 */
void qp_sequences_add(qp_sequences_t *sequences, const int32_t *token, int64_t n, int64_t n_query,
                      int32_t added, uint32_t sample);

/** The same as the model takes it. */
qp_model_batch_t qp_sequences_batch(const qp_sequences_t *sequences);

#endif
