/**
 * \file ppo_math.h
 * The arithmetic of PPO on host arrays: rewards, advantages, losses with their gradients, KL
 * control and statistics of scores (doc/rlhf.md, "A step of PPO"). Nothing here knows models, ranks
 * or files.
 *
 * A *response* is what the policy answered to a query. Arrays "of tokens" hold the response tokens
 * of n_seq sequences one after another; those of sequence s are [cu[s], cu[s + 1]), and there is at
 * least one. Sums are in double and in the order of the tokens. NaN passes through everything here
 * and what overflows is infinite, so that a run that has diverged shows in its metrics.
 */
#ifndef QP_TRAIN_PPO_PPO_MATH_H
#define QP_TRAIN_PPO_PPO_MATH_H

#include <stdbool.h>
#include <stdint.h>

/** Estimators of KL(policy || reference) per token, d = logprob - ref_logprob:
 *  kl (k1): d; abs: |d|; mse: d^2 / 2; k3: exp(-d) - 1 + d (Schulman 2020; not in TRL's step()).
 *  full, the KL itself over the whole vocabulary, is the model's work: qp_model_kl(). */
typedef enum { QP_KL_K1, QP_KL_ABS, QP_KL_MSE, QP_KL_K3, QP_KL_FULL } qp_kl_penalty_t;
void qp_ppo_kl(qp_kl_penalty_t penalty, const float *logprob, const float *ref_logprob, int64_t n,
               float *kl);

/** reward = -kl_coef kl, plus the score of a sequence at its last token. score: [n_seq] */
void qp_ppo_rewards(float *reward, const float *kl, const double *score, double kl_coef,
                    const int64_t *cu, int64_t n_seq);

/** Generalised advantage estimation (Schulman et al. 2016) within each sequence; nothing
 *  is expected after its last token. returns = advantage + value. */
void qp_ppo_advantages(float *advantage, float *returns, const float *reward, const float *value,
                       double gamma, double lam, const int64_t *cu, int64_t n_seq);

/**
 * x = (x - mean) / sqrt(var + 1e-8), mean and var as qp_moments() has them (of one element TRL's
 * var is NaN); with keep_mean the mean is added again: for rewards. One element alone
 * becomes 0, or stays with keep_mean. TRL's whitened rewards reach padding too, and from there the
 * answers that end before it; ours have no padding.
 */
void qp_ppo_whiten(float *x, int64_t n, bool keep_mean);

/** What a token's loss depends on besides the policy as it is now; all [n] of tokens. */
typedef struct {
    const float *logprob, *value; /**< of the pass before the first update */
    const float *advantage, *returns;
} qp_ppo_old_t;

/** The policy as it is now on n tokens, and the gradients of the loss that it gets; [n] each. */
typedef struct {
    int64_t n;
    const float *logprob, *value, *entropy;
    float *dlogprob, *dvalue;
} qp_ppo_now_t;

typedef struct {
    double cliprange, cliprange_value, vf_coef;
} qp_ppo_clip_t;

/** Sums over the tokens of a part of a mini-batch; divided by the tokens of the whole they are the
 *  means that TRL logs. ppo/loss/total is policy + vf_coef value. */
/* enum, metric of TRL (doc/rlhf.md, "metrics.csv") */
#define QP_PPO_SUMS(X)                                                                 \
    X(QP_PPO_LOSS_POLICY, "ppo/loss/policy") /* max(-A rho, -A clip(rho)) */           \
    X(QP_PPO_LOSS_VALUE, "ppo/loss/value")   /* max((v - R)^2, (clip(v) - R)^2) / 2 */ \
    X(QP_PPO_ENTROPY, "ppo/policy/entropy")                                            \
    X(QP_PPO_APPROXKL, "ppo/policy/approxkl") /* (logprob - old)^2 / 2 */              \
    X(QP_PPO_POLICYKL, "ppo/policy/policykl") /* old - logprob */                      \
    X(QP_PPO_CLIPFRAC, "ppo/policy/clipfrac") /* the clipped branch is the greater */  \
    X(QP_PPO_ADVANTAGES, "ppo/policy/advantages_mean")                                 \
    X(QP_PPO_RATIO, "ppo/policy/ratio") /* rho = exp(logprob - old) */                 \
    X(QP_PPO_VPRED, "ppo/val/vpred")    /* v */                                        \
    X(QP_PPO_ERROR, "ppo/val/error")    /* (v - R)^2 */                                \
    X(QP_PPO_VALUE_CLIPFRAC, "ppo/val/clipfrac")
#define QP_PPO_SUM_ENUM(id, name) id,
typedef enum { QP_PPO_SUMS(QP_PPO_SUM_ENUM) QP_N_PPO_SUM } qp_ppo_sum_t;
#undef QP_PPO_SUM_ENUM
/** The names above, in order: [QP_N_PPO_SUM]. */
extern const char *const qp_ppo_sum_name[QP_N_PPO_SUM];

/**
 * Clipped losses: L = policy + vf_coef value, each a mean over the n_all tokens of the
 * whole mini-batch. rho is clipped to 1 -+ cliprange, the value to old -+ cliprange_value. Writes
 * now->dlogprob and dvalue; at a tie of the two branches of a maximum the unclipped one counts. The
 * entropy is only summed. Adds to sum [QP_N_PPO_SUM], token by token: parts in order give the bits
 * of the whole. The caller zeroes the gradient where the mean rho exceeds TRL's ratio_threshold.
 */
void qp_ppo_loss(const qp_ppo_clip_t *clip, const qp_ppo_old_t *old, const qp_ppo_now_t *now,
                 int64_t n_all, double *sum);

/* --- KL control ------------------------------------------------------------------------------- */

/** Adaptive (Ziegler et al. 2019): the next coefficient, kl_coef (1 + e n_sample /
 *  horizon) with e = kl / target - 1 clipped to -+0.2. kl: per response the sum of what qp_ppo_kl()
 *  gave, whatever the estimator (trl#1180), averaged over the n_sample of the whole batch. */
double qp_ppo_adapt_kl(double kl_coef, double kl, double target, double horizon, int64_t n_sample);

/* --- scores ----------------------------------------------------------------------------------- */

/**
 * Moments of all scores so far, by the parallel update of Chan et al. 1979 as in TRL's
 * RunningMoments: var without, std with Bessel's correction. It starts with count 1e-24, std and
 * var 1. One score alone has an infinite std, as there.
 */
typedef struct {
    double mean, std, var, count;
} qp_running_moments_t;
void qp_running_moments_init(qp_running_moments_t *moments);
/** Takes n >= 1 more scores in; *mean and *std get those of these n alone (std with Bessel's
 *  correction; 0 for n = 1). */
void qp_running_moments_update(qp_running_moments_t *moments, const double *score, int64_t n,
                               double *mean, double *std);

/**
 * What is done to scores before they become rewards, in the order and with the formulas of TRL's
 * step(): the moments take the new scores in, then s = running std + FLT_EPSILON divides, then they
 * are clipped. Unlike there, scores that have never differed but by rounding (running std at most
 * FLT_EPSILON max(1, |running mean|)) are not divided: 1 / FLT_EPSILON would blow them up.
 */
typedef struct {
    bool use_score_scaling; /**< score / s */
    bool use_score_norm;    /**< with scaling: (score - running mean) / s */
    double score_clip;      /**< to [-clip, clip], also without scaling; 0: off */
} qp_score_shaping_t;
/** score: all n of the step, over all ranks; without scaling the moments stay as they are. */
void qp_ppo_shape_scores(const qp_score_shaping_t *shaping, qp_running_moments_t *moments,
                         double *score, int64_t n);

#endif
