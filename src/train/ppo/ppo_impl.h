/** \file ppo_impl.h  The inside of PPO, shared by its files: experience, step and statistics. */
#ifndef QP_TRAIN_PPO_PPO_IMPL_H
#define QP_TRAIN_PPO_PPO_IMPL_H

#include "train/loop/loop.h"
#include "train/ppo/ppo_math.h"
#include "train/answers/rollout.h"
#include "train/answers/scorer.h"
#include "train/micro/sequences.h"

/**
 * What a step learns from: answers to its queries, what was thought of them before the first
 * update, and their rewards. Every rank holds all of it, the same bits. [n] are arrays of tokens
 * (ppo_math.h).
 */
typedef struct {
    qp_rollout_t rollout;
    float *logprob, *ref_logprob, *value; /**< [n] */
    float *kl, *reward;                   /**< [n] */
    float *advantage, *returns;           /**< [n] */
    float *whitened;                      /**< [n] advantages of the update */
    double *score;                        /**< [n_seq] as they came; see shaped */
    double *shaped;                       /**< [n_seq] what the last token of each gets */
    double *sequence_kl;                  /**< [n_seq] sums of kl */
    int64_t *order;                       /**< [ppo_epochs, n_seq] permutation of the sequences */
} qp_experience_t;

/** Parts of a step, in their order. */
typedef enum {
    QP_PPO_START,
    QP_PPO_GENERATE_DONE,
    QP_PPO_SCORE_DONE,
    QP_PPO_FORWARD_DONE,
    QP_PPO_REWARDS_DONE,
    QP_N_PPO_TIME
} qp_ppo_time_t;

/** The state that lives over steps, and a step's. */
typedef struct {
    qp_run_t *run;
    const qp_ppo_config_t *config;
    qp_loader_t *loader;
    int64_t step; /**< 0-based: the one that next() made */
    double epoch; /**< of the data, at the step's end */
    double kl_coef;
    qp_running_moments_t moments;
    qp_experience_t experience;
    qp_sequences_t room; /**< a micro-batch */
    int64_t n_part;      /**< sequences of an update that learn */
    int64_t n_mini;      /**< mini-batches of an epoch */
    /* of this step's updates */
    int64_t update;                        /**< the one that experience.whitened is for; -1: none */
    double sum[QP_N_PPO_SUM], n_sum_token; /**< totals, and the tokens they are of */
    int64_t n_done, n_left_out;
    bool stopped_early;
    bool skipped; /**< a score was not finite */
    double learning_rate;
    double time[QP_N_PPO_TIME]; /**< qp_time() at the end of each part */
} qp_ppo_t;

void qp_ppo_init(qp_ppo_t *ppo, qp_run_t *run);
void qp_ppo_fini(qp_ppo_t *ppo);
/** The step from the rollout on: scores (experience.score is set), looks, rewards. Collective. */
qp_error_t qp_ppo_make_experience(qp_ppo_t *ppo);

/** What the loop calls; its owner is a qp_ppo_t. */
extern const qp_method_t qp_ppo_method;

/* --- ppo_experience.c ------------------------------------------------------------------------- */

/** Makes room for what follows from experience.rollout, and draws the order of its sequences. */
void qp_ppo_init_experience(qp_ppo_t *ppo);
/** Frees an experience. */
void qp_experience_fini(qp_experience_t *experience);
/**
 * Log-probabilities and values of policy and reference before the first update, computed in the
 * very micro-batches of the first epoch: its first ratios are exactly 1. Collective.
 */
qp_error_t qp_ppo_forward_pass(qp_ppo_t *ppo);
/** KL; then, unless the step is skipped, scores as they are shaped, rewards, advantages and
 * returns. The same on all ranks. */
void qp_ppo_compute_rewards(qp_ppo_t *ppo);

/** Where in experience.order update u's sequences stand: n_part from there on. */
int64_t qp_ppo_place(const qp_ppo_t *ppo, int64_t u);
/** Tokens of update u's responses. */
int64_t qp_ppo_update_tokens(const qp_ppo_t *ppo, int64_t u);
/** The micro-batch of the micro_sequences sequences that stand from \a place on in the order. */
qp_model_batch_t qp_ppo_batch(qp_ppo_t *ppo, int64_t place);
/** Makes the advantages of update u, where it has its own: mini-batch whitening. */
void qp_ppo_whiten_update(qp_ppo_t *ppo, int64_t u);

/* --- ppo_report.c: metrics, doc/rlhf.md ------------------------------------------------------- */

/* id, name, value: what it is in ppo_report.c's terms */
#define QP_PPO_METRICS(X)                                                                          \
    X(QP_PPO_METRIC_MEAN_SCORES, "ppo/mean_scores", mean(&f->shaped))                              \
    X(QP_PPO_METRIC_OBJECTIVE_KL, "objective/kl", mean(&f->kl))                                    \
    X(QP_PPO_METRIC_LOSS_TOTAL, "ppo/loss/total",                                                  \
      of_update(f, QP_PPO_LOSS_POLICY) +                                                           \
          f->ppo->config->vf_coef * of_update(f, QP_PPO_LOSS_VALUE))                               \
    X(QP_PPO_METRIC_LOSS_POLICY, "ppo/loss/policy", of_update(f, QP_PPO_LOSS_POLICY))              \
    X(QP_PPO_METRIC_LOSS_VALUE, "ppo/loss/value", of_update(f, QP_PPO_LOSS_VALUE))                 \
    X(QP_PPO_METRIC_STD_SCORES, "ppo/std_scores", deviation(&f->shaped))                           \
    X(QP_PPO_METRIC_ENV_REWARD_MEAN, "env/reward_mean", mean(&f->score))                           \
    X(QP_PPO_METRIC_ENV_REWARD_STD, "env/reward_std", deviation(&f->score))                        \
    X(QP_PPO_METRIC_OBJECTIVE_KL_COEF, "objective/kl_coef", f->ppo->kl_coef)                       \
    X(QP_PPO_METRIC_OBJECTIVE_ENTROPY, "objective/entropy", mean(&f->entropy))                     \
    X(QP_PPO_METRIC_OBJECTIVE_LOGPROBS, "objective/logprobs", mean(&f->logprob))                   \
    X(QP_PPO_METRIC_OBJECTIVE_REF_LOGPROBS, "objective/ref_logprobs", mean(&f->ref_logprob))       \
    X(QP_PPO_METRIC_MEAN_NON_SCORE_REWARD, "ppo/mean_non_score_reward", mean(&f->non_score))       \
    X(QP_PPO_METRIC_LEARNING_RATE, "ppo/learning_rate", f->ppo->learning_rate)                     \
    X(QP_PPO_METRIC_POLICY_ENTROPY, "ppo/policy/entropy", of_update(f, QP_PPO_ENTROPY))            \
    X(QP_PPO_METRIC_POLICY_APPROXKL, "ppo/policy/approxkl", of_update(f, QP_PPO_APPROXKL))         \
    X(QP_PPO_METRIC_POLICY_POLICYKL, "ppo/policy/policykl", of_update(f, QP_PPO_POLICYKL))         \
    X(QP_PPO_METRIC_POLICY_CLIPFRAC, "ppo/policy/clipfrac", of_update(f, QP_PPO_CLIPFRAC))         \
    X(QP_PPO_METRIC_POLICY_ADVANTAGES_MEAN, "ppo/policy/advantages_mean",                          \
      of_update(f, QP_PPO_ADVANTAGES))                                                             \
    X(QP_PPO_METRIC_POLICY_RATIO, "ppo/policy/ratio", of_update(f, QP_PPO_RATIO))                  \
    X(QP_PPO_METRIC_RETURNS_MEAN, "ppo/returns/mean", f->returns_mean)                             \
    X(QP_PPO_METRIC_RETURNS_VAR, "ppo/returns/var", f->returns_var)                                \
    X(QP_PPO_METRIC_VAL_VPRED, "ppo/val/vpred", of_update(f, QP_PPO_VPRED))                        \
    X(QP_PPO_METRIC_VAL_ERROR, "ppo/val/error", of_update(f, QP_PPO_ERROR))                        \
    X(QP_PPO_METRIC_VAL_CLIPFRAC, "ppo/val/clipfrac", of_update(f, QP_PPO_VALUE_CLIPFRAC))         \
    X(QP_PPO_METRIC_VAL_MEAN, "ppo/val/mean", f->value_mean)                                       \
    X(QP_PPO_METRIC_VAL_VAR, "ppo/val/var", f->value_var)                                          \
    X(QP_PPO_METRIC_VAL_VAR_EXPLAINED, "ppo/val/var_explained", explained(f))                      \
    X(QP_PPO_METRIC_TOKENS_QUERIES_LEN_MEAN, "tokens/queries_len_mean", mean(&f->query))           \
    X(QP_PPO_METRIC_TOKENS_QUERIES_LEN_STD, "tokens/queries_len_std", deviation(&f->query))        \
    X(QP_PPO_METRIC_TOKENS_RESPONSES_LEN_MEAN, "tokens/responses_len_mean", mean(&f->response))    \
    X(QP_PPO_METRIC_TOKENS_RESPONSES_LEN_STD, "tokens/responses_len_std", deviation(&f->response)) \
    X(QP_PPO_METRIC_ROLLOUT_STOPPED, "rollout/stopped", f->stopped)                                \
    X(QP_PPO_METRIC_ROLLOUT_LOGPROB_DIFFERENCE, "rollout/logprob_difference", f->difference)       \
    X(QP_PPO_METRIC_UPDATES, "ppo/updates", (double)f->ppo->n_done)                                \
    X(QP_PPO_METRIC_TIME_GENERATE, "time/ppo/generate",                                            \
      lasted(f, QP_PPO_START, QP_PPO_GENERATE_DONE))                                               \
    X(QP_PPO_METRIC_TIME_SCORE, "time/ppo/score",                                                  \
      lasted(f, QP_PPO_GENERATE_DONE, QP_PPO_SCORE_DONE))                                          \
    X(QP_PPO_METRIC_TIME_FORWARD_PASS, "time/ppo/forward_pass",                                    \
      lasted(f, QP_PPO_SCORE_DONE, QP_PPO_FORWARD_DONE))                                           \
    X(QP_PPO_METRIC_TIME_COMPUTE_REWARDS, "time/ppo/compute_rewards",                              \
      lasted(f, QP_PPO_FORWARD_DONE, QP_PPO_REWARDS_DONE))                                         \
    X(QP_PPO_METRIC_TIME_OPTIMIZE_STEP, "time/ppo/optimize_step",                                  \
      f->now - f->ppo->time[QP_PPO_REWARDS_DONE])                                                  \
    X(QP_PPO_METRIC_TIME_TOTAL, "time/ppo/total", f->now - f->ppo->time[QP_PPO_START])
#define QP_PPO_METRIC_ENUM(id, name, value) id,
typedef enum { QP_PPO_METRICS(QP_PPO_METRIC_ENUM) QP_N_PPO_METRIC } qp_ppo_metric_t;
#undef QP_PPO_METRIC_ENUM
extern const char *const qp_ppo_metric[QP_N_PPO_METRIC];
void qp_ppo_report(qp_ppo_t *ppo, double *metric);
/** Queries, responses, scores and KL of the step as lines of JSON. */
qp_error_t qp_ppo_samples(void *owner, int64_t step, qp_str_t *lines);

#endif
