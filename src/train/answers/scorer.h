/**
 * \file scorer.h
 * Rewards of answers: from a reward adapter on the run's own base, from another base with or
 * without an adapter, or from an external command.
 */
#ifndef QP_TRAIN_ANSWERS_SCORER_H
#define QP_TRAIN_ANSWERS_SCORER_H

#include "train/answers/rollout.h"
#include "train/settings.h"

typedef struct qp_scorer qp_scorer_t;

/** Looks at the files that the deck names. Collective; destroy() in any case. */
qp_error_t qp_scorer_open(qp_comm_t *comm, const qp_settings_t *settings,
                          const qp_tokenizer_t *tokenizer, qp_scorer_t **scorer);
/** Whether its adapter or head is there and fits its base, or the run's (\a config). Rank-local. */
qp_error_t qp_scorer_check_files(const qp_scorer_t *scorer, const qp_llama_config_t *config);
/** Tokens that it knows of the run's n_vocab. */
int64_t qp_scorer_n_vocab(const qp_scorer_t *scorer, int64_t n_vocab);
/** Identity of another base than the run's; 0: there is none. */
uint64_t qp_scorer_base_id(const qp_scorer_t *scorer);
/** Its adapter, if that stands on the run's base and so shares workspace and engine; or NULL. */
const qp_lora_config_t *qp_scorer_shared_lora(const qp_scorer_t *scorer);
/** Its own base with its adapter's config (NULL: none), or NULL where it has none. */
const qp_base_info_t *qp_scorer_base(const qp_scorer_t *scorer, const qp_lora_config_t **lora);
/** A sequence (\a what, of n_token tokens) that is longer than its base's window: QP_INPUT. */
qp_error_t qp_scorer_check_length(const qp_scorer_t *scorer, const char *what, int64_t n_token);
/** A base of its own must be one that the device can do, and have as many positions as the longest
 * answered query. */
qp_error_t qp_scorer_check(const qp_scorer_t *scorer, const qp_device_t *device,
                           int64_t n_position);

/** Bytes that it takes beside the run's base and workspace; for the memory plan. */
typedef struct {
    size_t base, staging;      /**< as of qp_base_bytes(), qp_base_staging_bytes() */
    size_t adapter, workspace; /**< on each rank */
} qp_scorer_bytes_t;
/** shape: of the run's base; max_token: of a micro-batch. */
qp_scorer_bytes_t qp_scorer_bytes(const qp_scorer_t *scorer, const qp_base_shape_t *shape,
                                  int64_t n_position, int64_t max_token);

/** The largest pass of a base of its own; no pass if there is none. */
qp_pass_size_t qp_scorer_pass_size(const qp_scorer_t *scorer, const qp_device_t *device,
                                   int64_t max_token);

/** What a scorer works with of its run; all of it outlives the scorer. */
typedef struct {
    qp_comm_t *comm;
    qp_device_t *device;
    const qp_base_config_t *base_config; /**< how a base of its own multiplies */
    const qp_base_t *base;               /**< for an adapter without a base of its own */
    qp_workspace_t *ws;                  /**< likewise */
    const qp_tokenizer_t *tokenizer;
    qp_eos_t eos;
    int64_t n_position;
    int64_t max_token; /**< of a micro-batch */
    int64_t micro_sequences;
} qp_scorer_host_t;
/** Loads the model on the host's base and workspace or its own, or starts the command. Collective.
 */
qp_error_t qp_scorer_load(qp_scorer_t *scorer, const qp_scorer_host_t *host);
void qp_scorer_destroy(qp_comm_t *comm, qp_scorer_t **scorer);

/**
 * reward [rollout->n_seq], the same bits on any number of ranks. A model reads a response that does
 * not end with EOS as if it did, since it has learned from whole answers. Not finite: left as it
 * is. Collective.
 */
qp_error_t qp_scorer_score(qp_scorer_t *scorer, const qp_rollout_t *rollout, double *reward);

#endif
