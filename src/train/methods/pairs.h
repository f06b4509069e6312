/**
 * \file pairs.h
 * What methods that learn from pairs of answers share: batches of chosen and rejected sequences,
 * the step, evaluation, and its calibration. A method gives the objective: what a pair costs.
 */
#ifndef QP_TRAIN_METHODS_PAIRS_H
#define QP_TRAIN_METHODS_PAIRS_H

#include "train/loop/loop.h"

typedef struct {
    qp_run_t *run;
    qp_loader_t *loader;
    qp_step_batch_t batch;
    /* room for one micro-batch */
    int32_t *no_target; /**< [max_token] -1 */
    uint8_t *last;      /**< [max_token] 1 at the last token of a sequence */
    float *value[2];    /**< [max_token] outputs: of the role, and of the reference */
    float *gradient;    /**< [max_token] */
} qp_pairs_t;

/** The two sequences of a pair: 0 chosen, 1 rejected. */
enum { QP_CHOSEN, QP_REJECTED, QP_N_SIDE };

/** What an objective reports of pairs, as sums: the loss first, then these. */
typedef enum {
    QP_PAIR_LOSS,
    QP_PAIR_ACCURACY, /**< pairs whose chosen side has the higher reward */
    QP_PAIR_MARGIN,   /**< reward of the chosen minus that of the rejected side */
    QP_PAIR_CHOSEN,   /**< reward of the chosen side */
    QP_PAIR_REJECTED,
    QP_PAIR_SUM_1, /**< two more of the method's own */
    QP_PAIR_SUM_2,
    QP_N_PAIR_SUM
} qp_pair_sum_t;

typedef struct {
    const char *name;
    const char *const *metric; /**< [n_metric], in the order of qp_pair_sum_t */
    const char *const *eval_metric;
    int n_metric;
    /**
     * Adds the sums of a micro-batch's pairs; with pass->training also the gradient of
     * weight * loss. reward [n_pair, QP_N_SIDE] gets each side's reward, if not NULL. Rank-local.
     */
    qp_error_t (*training_step)(qp_pairs_t *pairs, const qp_batch_t *batch, const qp_pass_t *pass,
                                double weight, double *sum, double *reward);
    bool targets; /**< it is made of tokens' probabilities */
} qp_pair_objective_t;

/** log(1 / (1 + exp(-x))), exact at both ends. */
double qp_log_sigmoid(double x);

/** Trains with an objective. Collective. */
qp_error_t qp_pairs_train(qp_run_t *run, const qp_pair_objective_t *objective);

/** Means over the held-out pairs, and their calibration. */
typedef struct {
    int64_t n_pair;
    double mean[QP_N_PAIR_SUM];
    int n_bin; /**< by margin of the scores: the quarters of the pairs, or fewer */
    struct {
        double least, most; /**< margins in it */
        int64_t n_pair;
        double accuracy, confidence; /**< mean of sigmoid(difference of rewards) */
    } bin[4];
} qp_pair_evaluation_t;

/** Over data.eval_rows pairs of data.eval; the same bits on any number of ranks. Collective. */
qp_error_t qp_pairs_evaluate(qp_run_t *run, const qp_pair_objective_t *objective,
                             qp_pair_evaluation_t *evaluation);

extern const qp_pair_objective_t qp_reward_objective, qp_dpo_objective;

#endif
