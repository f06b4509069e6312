/** \file evaluate.h  Held-out data: loss of the current role, and job.method = "eval". */
#ifndef QP_TRAIN_METHODS_EVALUATE_H
#define QP_TRAIN_METHODS_EVALUATE_H

#include "train/run/run.h"

typedef struct {
    double loss;       /**< mean of -log p over counted targets */
    double perplexity; /**< exp(loss) */
    int64_t n_target;
} qp_evaluation_t;

/** Over data.eval_rows rows of data.eval; the same bits on any number of ranks. Collective. */
qp_error_t qp_evaluate(qp_run_t *run, qp_evaluation_t *evaluation);

/**
 * job.method = "eval": looks at what data.eval holds, logs, and writes eval.json into the run's
 * folder. Texts: loss and perplexity. Pairs: accuracy of a reward adapter and its calibration.
 * Queries: rewards of answers, best of n, win rate against a rival. Collective.
 */
qp_error_t qp_method_eval(qp_run_t *run);

#endif
