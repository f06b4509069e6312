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
#include "model/engine/engine.h"
#include "model/pass/pass.h"
#include "optim/optim.h"

/** What job.method may be. */
/*        enum               deck        trains  shards of data.train */
#define QP_METHODS(X)                             \
    X(QP_METHOD_SFT, "sft", true, "sft")          \
    X(QP_METHOD_REWARD, "reward", true, "reward") \
    X(QP_METHOD_DPO, "dpo", true, "reward")       \
    X(QP_METHOD_PPO, "ppo", true, "prompt")       \
    X(QP_METHOD_EVAL, "eval", false, NULL)        \
    X(QP_METHOD_GENERATE, "generate", false, NULL)
#define QP_METHOD_ENUM(id, name, trains, kind) id,
typedef enum { QP_METHODS(QP_METHOD_ENUM) QP_N_METHOD } qp_method_id_t;
#undef QP_METHOD_ENUM
typedef enum { QP_RESTART_AUTO, QP_RESTART_NEVER, QP_RESTART_REQUIRE } qp_restart_t;

typedef struct {
    int method; /**< qp_method_id_t */
    const char *name;
    int64_t seed;
    int restart;           /**< qp_restart_t: "auto|never|require" */
    const char *output;    /**< folder of all runs */
    int64_t stall_timeout; /**< seconds; 0: none */
} qp_job_config_t;

typedef struct {
    int64_t every_steps; /**< 0: never between start and end */
    bool at_start, at_end;
} qp_eval_config_t;

typedef struct {
    int64_t every_steps; /**< 0: only when the run stops */
    int64_t keep;
    int64_t stop_after_steps; /**< of this start; 0: off */
    const char *walltime;     /**< "auto", or as qp_duration_parse() reads it */
    const char *walltime_margin;
    double walltime_seconds; /**< filled by the check: negative is "auto" */
    double walltime_margin_seconds;
} qp_checkpoint_config_t;

typedef struct {
    int level; /**< qp_log_level_t: "error|warn|info|stat|debug" */
    int64_t every_steps;
    bool tensorboard;
} qp_log_config_t;

typedef struct {
    qp_deck_strings_t prompts;
    int64_t every_steps, max_new_tokens;
} qp_samples_config_t;

typedef struct {
    const char *input, *output; /**< JSONL files; output NULL: answers.jsonl in the run's folder */
    const char *chat_template;  /**< file; NULL: the base's own */
} qp_prompts_config_t;

/** How a reward model learns from pairs (doc/rlhf.md). */
typedef struct {
    bool margin; /**< the pair's margin is subtracted from the difference of rewards */
    double center_rewards_coefficient;
    double score_init_std;
} qp_reward_config_t;

typedef enum { QP_DPO_SIGMOID, QP_DPO_HINGE, QP_DPO_IPO } qp_dpo_loss_t;
typedef struct {
    double beta, label_smoothing;
    int loss_type; /**< qp_dpo_loss_t: "sigmoid|hinge|ipo" */
} qp_dpo_config_t;

/** Where rewards of answers come from: exactly one of adapter (with its base) and command. */
typedef struct {
    const char *adapter; /**< PEFT folder with a score head, on base.file or on \a base */
    const char *base;    /**< another base file; alone: one that a reward adapter was merged into */
    qp_deck_strings_t command;
    double timeout; /**< seconds for one answer of the command */
} qp_reward_model_config_t;

/** job.method = "eval" on queries. */
typedef struct {
    const char *against; /**< PEFT folder of another policy, "base", or NULL: none */
} qp_compare_config_t;

typedef enum { QP_PPO_STANDARD, QP_PPO_TRL_0_4_2 } qp_ppo_preset_t;
typedef enum { QP_WHITEN_BATCH, QP_WHITEN_MINI_BATCH, QP_WHITEN_SEQUENCE } qp_whiten_t;
typedef enum { QP_KL_ADAPTIVE, QP_KL_LINEAR, QP_KL_FIXED } qp_kl_control_t;

/** PPO; names and defaults as TRL's PPOConfig where it has them. */
typedef struct {
    int preset; /**< qp_ppo_preset_t; fills the keys below that the deck leaves out */
    int64_t ppo_epochs, mini_batch_sequences;     /**< mini_batch_sequences 0: the whole batch */
    int64_t output_min_length, output_max_length; /**< length sampler; max 0: off (min 1) */
    bool stop_at_eos;
    double missing_eos_penalty, reward_baseline;
    double gamma, lam;
    int value_head_init; /**< qp_head_init_t: "zeros|linear" */
    double vf_coef, cliprange, cliprange_value;
    int kl_penalty; /**< qp_kl_penalty_t: "kl|abs|mse|k3|full" */
    int kl_control; /**< qp_kl_control_t: "adaptive|linear|fixed" */
    double init_kl_coef, final_kl_coef, target, horizon;
    bool early_stopping;
    double target_kl, ratio_threshold;
    bool use_score_scaling, use_score_norm;
    double score_clip;
    bool whiten_rewards;
    int whiten_advantages; /**< qp_whiten_t: "batch|mini-batch|sequence" */
    bool dropout;          /**< in all passes */
    double summary_dropout_prob;
    int64_t dropped_accumulation; /**< of so many parts of a mini-batch only the last
                                       one learns; 1: all do */
} qp_ppo_config_t;

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
    qp_reward_config_t reward;
    qp_reward_model_config_t reward_model;
    qp_ppo_config_t ppo;
    qp_dpo_config_t dpo;
    qp_compare_config_t compare;
    qp_log_config_t log;

    qp_deck_t *deck;      /**< owns all strings above */
    uint64_t deck_hash;   /**< qp_deck_hash() */
    qp_str_t fingerprint; /**< qp_deck_fingerprint() */
    qp_str_t at_default;  /**< qp_deck_at_default() */
    qp_str_t used;        /**< used.cfg */
} qp_settings_t;

extern const qp_deck_group_t qp_job_deck, qp_eval_deck, qp_checkpoint_deck, qp_log_deck,
    qp_samples_deck, qp_prompts_deck, qp_reward_deck, qp_reward_model_deck, qp_ppo_deck,
    qp_dpo_deck, qp_compare_deck;

/** Schema of all modules, in the order of the documentation. Static. */
const qp_deck_group_t *const *qp_settings_groups(int *n_group);

/** Name of a method, as in the deck. */
const char *qp_method_name(int method);
/** Whether a method runs the step loop. */
bool qp_method_trains(int method);
/** Kind of shards that it reads (data.h); NULL: any that it finds, or none. */
const char *qp_method_shards(int method);

/** Sequences of one optimiser update over all ranks: batch.global_sequences, or PPO's mini-batch.
 */
int64_t qp_settings_update_sequences(const qp_settings_t *settings);
/** Micro-batches of one optimiser update over all ranks. */
int64_t qp_settings_n_micro(const qp_settings_t *settings);
/** Most tokens of an answer that PPO samples. */
int64_t qp_settings_max_response(const qp_settings_t *settings);

/**
 * Reads, fills and checks everything. \a command (the command line) goes into used.cfg. Collective
 * (comm NULL: this process alone); all problems that the schema can see come in one QP_INPUT error.
 */
qp_error_t qp_settings_read(qp_comm_t *comm, const char *path, const char *const *sets, int n_set,
                            const char *command, qp_settings_t *settings);
/** The same for another machine, whose values (deck lines, see qp_deck_adopt(); NULL: none) stand
 * where the deck and --set say nothing. */
qp_error_t qp_settings_read_for(qp_comm_t *comm, const char *taken, const char *path,
                                const char *const *sets, int n_set, const char *command,
                                qp_settings_t *settings);
void qp_settings_fini(qp_settings_t *settings);

#endif
