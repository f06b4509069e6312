/**
 * \file run.h
 * A run: everything that a method works with, from the checked deck to the loaded model. Opened in
 * two parts: what is cheap and can refuse (files, plan), then what is large.
 */
#ifndef QP_TRAIN_RUN_RUN_H
#define QP_TRAIN_RUN_RUN_H

#include "base/timer.h"
#include "ckpt/ckpt.h"
#include "text/tokenizer.h"
#include "train/answers/answers.h"
#include "train/run/memory_plan.h"
#include "train/run/owner.h"
#include "train/answers/prompts.h"
#include "train/answers/scorer.h"
#include "train/settings.h"

/** What a run is given: the files that the deck names, as far as their headers tell. */
typedef struct {
    qp_base_info_t info;
    qp_tokenizer_t *tokenizer;
    qp_eos_t eos;               /**< of base and tokenizer */
    qp_dataset_t *train, *eval; /**< NULL when the deck names none */
    qp_plan_t *eval_plan;
    qp_prompts_t prompts;        /**< of samples or generate; may be none */
    qp_scorer_t *scorer;         /**< rewards of answers, or NULL */
    bool has_adapter;            /**< the role is base + adapter */
    qp_head_config_t head;       /**< of the adapter */
    bool has_rival;              /**< another policy is compared with */
    qp_lora_config_t rival_lora; /**< of its adapter; init NULL: the base alone */
    qp_str_t inputs;  /**< of a run that trains: what its checkpoints keep of the files it reads */
    char *checkpoint; /**< to continue from, or NULL */
    char *began_with; /**< the inputs of that checkpoint */
    double write_seconds; /**< that it took to be written; 0: not known */
} qp_run_given_t;

/** How large it is; follows from what is given and the deck. */
typedef struct {
    int n_rank;                    /**< of the job */
    int64_t answer_tokens;         /**< longest answer to one of the prompts */
    qp_generate_config_t generate; /**< of the engine */
    int64_t n_generate;            /**< longest sequence that the engine makes; 0: no engine */
    int64_t row_tokens;            /**< most tokens of a row: a text, a pair, a query with answer */
    int64_t n_position;            /**< positions the base must serve */
    int64_t n_param;               /**< of the adapter */
    qp_recompute_t recompute;
} qp_run_size_t;

/** What qp_run_load() makes. */
typedef struct {
    qp_base_t *base;
    qp_adapter_t *adapter; /**< NULL: the base alone */
    qp_adapter_t *rival;   /**< likewise */
    qp_workspace_t *ws;    /**< for micro-batches; NULL in generate */
    qp_engine_t *engine;   /**< for the prompts; NULL without any */
} qp_run_model_t;

typedef struct {
    qp_comm_t *comm;
    const qp_settings_t *settings;
    char *folder;      /**< <job.output>/<job.name> */
    qp_owner_t *owner; /**< of the folder; rank 0, NULL in a dry run */
    qp_device_t *device;
    qp_run_given_t given;
    qp_run_size_t size;
    qp_memory_plan_t plan;
    qp_run_model_t model;
    qp_timers_t timers;
} qp_run_t;

/**
 * Folder, log, device, base header, tokenizer, data sets, prompts and the memory plan; the log says
 * what they are, and from which checkpoint it would go on. Refuses what cannot work, and a folder
 * that another run owns. On failure close() is still to be called. With \a dry nothing is written.
 * Collective.
 */
qp_error_t qp_run_open(qp_comm_t *comm, const qp_settings_t *settings, bool dry, qp_run_t *run);

/** The same without the memory plan, whose places are then another machine's. */
qp_error_t qp_run_look(qp_comm_t *comm, const qp_settings_t *settings, bool dry, qp_run_t *run);
/**
 * Sizes and memory plan of a run that was looked at, as if it had so many ranks, n_node_rank of
 * them on a node with host_bytes for a job; the size of a device is that of device.memory. By one
 * process; may be called again.
 */
qp_error_t qp_run_plan_for(qp_run_t *run, int n_rank, int n_node_rank, int64_t host_bytes);

/** Base, adapter and workspace. Collective. */
qp_error_t qp_run_load(qp_run_t *run);

/** Collective. */
void qp_run_close(qp_run_t *run);

/** What a checkpoint of the run says of itself after so many steps. */
qp_ckpt_info_t qp_run_describe(const qp_run_t *run, int64_t step);

/** The role the deck asks for. */
qp_role_t qp_run_role(const qp_run_t *run);

/** A role that answers with the run's engine. */
qp_answerer_t qp_run_answerer(const qp_run_t *run, qp_role_t role);
/** Answers the run's prompts; step -1: of no step. See qp_answer(). Collective. */
qp_error_t qp_run_answer(const qp_run_t *run, int64_t step, qp_str_t *lines,
                         qp_answer_count_t *count);

/** Most tokens of a micro-batch. */
int64_t qp_run_max_token(const qp_run_t *run);

/** What the model calls a micro-batch. */
qp_model_batch_t qp_run_batch(const qp_batch_t *batch);

#endif
