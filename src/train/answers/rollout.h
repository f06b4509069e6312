/**
 * \file rollout.h
 * Answers to the queries of a step: each rank answers its own, every rank gets all.
 */
#ifndef QP_TRAIN_ANSWERS_ROLLOUT_H
#define QP_TRAIN_ANSWERS_ROLLOUT_H

#include <jansson.h>

#include "base/str.h"
#include "train/answers/answerer.h"

/** Sequences of a query and its response, in the order of the global batch; same on all ranks. */
typedef struct {
    int64_t n_seq, n_token; /**< n_token: of responses */
    int64_t *first;         /**< [n_seq + 1] of each sequence in token */
    int64_t *n_query;       /**< [n_seq] */
    int64_t *cu;            /**< [n_seq + 1] boundaries of the responses in arrays of tokens */
    int32_t *token;         /**< [first[n_seq]] query, then response */
    float *logprob;         /**< [n_token] as the engine drew them */
    uint8_t *stopped;       /**< [n_seq] 1: ended by EOS */
} qp_rollout_t;

/** This rank's queries, a part of the global batch. */
typedef struct {
    int64_t n, n_global;
    int64_t first;            /**< number of the first in the global batch: ranks in order */
    const int32_t *const *id; /**< [n] */
    const int64_t *n_id;      /**< [n] */
} qp_queries_t;

/** How they are answered, besides the engine's own config. */
typedef struct {
    uint32_t step;                  /**< of the random numbers */
    uint32_t draw;                  /**< which of several answers to the same queries this is */
    int64_t min_length, max_length; /**< each length in between is as probable; they may be equal */
    bool stop_at_eos;
} qp_rollout_config_t;

/** Answers and gathers; the responses do not depend on the rank count. Collective. */
qp_error_t qp_rollout_run(const qp_answerer_t *who, const qp_queries_t *queries,
                          const qp_rollout_config_t *config, qp_rollout_t *rollout);
void qp_rollout_fini(qp_rollout_t *rollout);

static inline int64_t qp_rollout_length(const qp_rollout_t *rollout, int64_t seq)
{
    return rollout->first[seq + 1] - rollout->first[seq];
}

static inline int64_t qp_rollout_n_response(const qp_rollout_t *rollout, int64_t seq)
{
    return rollout->cu[seq + 1] - rollout->cu[seq];
}

/** The text of a sequence's response or query, without special tokens. */
qp_error_t qp_rollout_text(const qp_rollout_t *rollout, const qp_tokenizer_t *tokenizer,
                           int64_t seq, bool response, qp_str_t *text);

/**
 * Adds query, response, their length and how it ended to a JSON object (jansson's, taken), and the
 * object to \a lines as a line of samples.jsonl or answers.jsonl.
 */
qp_error_t qp_rollout_line(const qp_rollout_t *rollout, const qp_tokenizer_t *tokenizer,
                           int64_t seq, json_t *object, qp_str_t *lines);

#endif
