/**
 * \file settings.h
 * The whole deck as plain structs: what every module asked for, checked, plus the deck's identity.
 * Nothing below reads the deck itself.
 */
#ifndef QP_TRAIN_SETTINGS_H
#define QP_TRAIN_SETTINGS_H

#include "comm/comm.h"
#include "data/data.h"
#include "deck/deck.h"
#include "model/engine.h"
#include "model/model.h"
#include "optim/optim.h"

typedef enum { QP_METHOD_SFT, QP_METHOD_EVAL, QP_METHOD_GENERATE } qp_method_id_t;
typedef enum { QP_RESTART_AUTO, QP_RESTART_NEVER, QP_RESTART_REQUIRE } qp_restart_t;

typedef struct {
    int method; /**< qp_method_id_t: "sft|eval|generate" */
    const char *name;
    int64_t seed;
    int restart;        /**< qp_restart_t: "auto|never|require" */
    const char *output; /**< folder of all runs */
} qp_job_config_t;

typedef struct {
    int64_t every_steps; /**< 0: never between start and end */
    bool at_start, at_end;
} qp_eval_config_t;

typedef struct {
    int64_t every_steps; /**< 0: only when the run stops */
    int64_t keep;
    int64_t stop_after_steps; /**< of this start; 0: off */
    const char *walltime;     /**< "auto", seconds or h:mm:ss */
    const char *walltime_margin;
    double walltime_seconds; /**< filled by the check: negative is "auto" */
    double walltime_margin_seconds;
} qp_checkpoint_config_t;

typedef struct {
    int level; /**< qp_log_level_t: "error|warn|info|stat|debug" */
    int64_t every_steps;
} qp_log_config_t;

typedef struct {
    qp_deck_strings_t prompts;
    int64_t every_steps, max_new_tokens;
} qp_samples_config_t;

typedef struct {
    const char *input, *output; /**< JSONL files; output NULL: answers.jsonl in the run's folder */
} qp_prompts_config_t;

typedef struct {
    qp_job_config_t job;
    qp_base_config_t base;
    qp_lora_config_t lora;
    qp_data_config_t data;
    qp_batch_config_t batch;
    qp_optim_config_t optim;
    qp_eval_config_t eval;
    qp_checkpoint_config_t checkpoint;
    qp_device_config_t device;
    qp_generate_config_t generate;
    qp_samples_config_t samples;
    qp_prompts_config_t prompts;
    qp_log_config_t log;

    qp_deck_t *deck;      /**< owns all strings above */
    uint64_t deck_hash;   /**< qp_deck_hash() */
    qp_str_t fingerprint; /**< qp_deck_fingerprint() */
    qp_str_t used;        /**< used.cfg */
} qp_settings_t;

extern const qp_deck_group_t qp_job_deck, qp_eval_deck, qp_checkpoint_deck, qp_log_deck,
    qp_samples_deck, qp_prompts_deck;

/** Schema of all modules, in the order of the documentation. Static. */
const qp_deck_group_t *const *qp_settings_groups(int *n_group);

/** Name of a method, as in the deck. */
const char *qp_method_name(int method);

/** Micro-batches of one optimiser step over all ranks. */
int64_t qp_settings_n_micro(const qp_settings_t *settings);

/**
 * Reads, fills and checks everything. \a command (the command line) goes into used.cfg. Collective
 * (comm NULL: this process alone); all problems that the schema can see come in one QP_INPUT error.
 */
qp_error_t qp_settings_read(qp_comm_t *comm, const char *path, const char *const *sets, int n_set,
                            const char *command, qp_settings_t *settings);
void qp_settings_fini(qp_settings_t *settings);

/** "auto" gives -1; otherwise seconds from "300", "300.5", "5:00" or "1:05:00". False if none of
 * them. */
bool qp_duration_parse(const char *text, double *seconds);

#endif
