/**
 * \file scorer.h
 * Rewards of answers: from a reward adapter on the run's own base, from another base with or
 * without an adapter, or from an external command.
 */
#ifndef QP_TRAIN_SCORER_H
#define QP_TRAIN_SCORER_H

#include "train/reward_command.h"
#include "train/rollout.h"

struct qp_scorer {
    const qp_reward_model_config_t *config;
    bool own_base;                   /**< another base than the run's */
    bool has_lora;                   /**< it has an adapter with matrices */
    qp_lora_config_t lora;           /**< of the adapter */
    const char *target[QP_N_LINEAR]; /**< names in lora.targets */
    qp_base_info_t info;             /**< of its own base */
    /* after load() */
    qp_base_t *base;
    qp_adapter_t *adapter;
    qp_workspace_t *ws;
    qp_reward_command_t *command;
};

/** Looks at the files that the deck names. Collective; fini() in any case. */
qp_error_t qp_scorer_open(qp_comm_t *comm, const qp_settings_t *settings,
                          const qp_tokenizer_t *tokenizer, qp_scorer_t **scorer);
/** Its base must have as many positions as the longest answered query. */
qp_error_t qp_scorer_check(const qp_scorer_t *scorer, int64_t n_position);
/** Adds what it will take to the memory plan; max_token: of a micro-batch. */
void qp_scorer_plan(const qp_scorer_t *scorer, qp_device_t *device, int64_t n_position,
                    int64_t max_token, qp_memory_plan_t *plan);
/** Loads the model on run->base and run->ws or its own, or starts the command. Collective. */
qp_error_t qp_scorer_load(qp_scorer_t *scorer, qp_run_t *run);
void qp_scorer_destroy(qp_comm_t *comm, qp_scorer_t **scorer);

/**
 * reward [rollout->n_seq], the same bits on any number of ranks. A model reads a response that does
 * not end with EOS as if it did, since it has learned from whole answers. Not finite: left as it
 * is. Collective.
 */
qp_error_t qp_scorer_score(qp_scorer_t *scorer, qp_run_t *run, const qp_rollout_t *rollout,
                           double *reward);

#endif
