/**
 * \file loop.h
 * The step loop that all training methods share: micro-batches, gradient sum, optimiser, metrics,
 * one agreed decision per step, evaluation, samples, checkpoints. A method says what a micro-batch
 * is.
 */
#ifndef QP_TRAIN_LOOP_H
#define QP_TRAIN_LOOP_H

#include "train/run.h"

/** The work of one step. */
typedef struct {
    int64_t n_micro; /**< micro-batches over all ranks: the leaves of the gradient's tree */
    int64_t n_token; /**< over all ranks */
    double epoch;    /**< progress at the step's end */
} qp_work_t;

/** A training method; \a owner is its own state. */
typedef struct {
    const char *name;
    const char *const *metric; /**< [n_metric] columns of metrics.csv; the first is the loss */
    int n_metric;
    const char *const *eval_metric; /**< [n_eval_metric]; the first is the loss */
    int n_eval_metric;
    int n_value; /**< doubles that a micro-batch reports */
    /** Gets the work of the next step. Collective; agreed. */
    qp_error_t (*next)(void *owner, qp_work_t *work);
    /** Adds the gradient of local micro-batch i to the adapter's; fills value [n_value].
     * Rank-local. */
    qp_error_t (*micro)(void *owner, int64_t i, const qp_pass_t *pass, double *value);
    /** metric [n_metric] from the totals over all micro-batches, total [n_value]. */
    void (*finish)(void *owner, const double *total, double *metric);
    /** metric [n_eval_metric] on held-out data; NULL if there is none. Collective; agreed. */
    qp_error_t (*evaluate)(void *owner, double *metric);
} qp_method_t;

/** What a checkpoint restores besides the adapter and its moments. */
typedef struct {
    int64_t step; /**< completed steps: the position in the data */
    int64_t num_tokens, n_skipped, n_skipped_in_row;
} qp_progress_t;

typedef struct qp_loop qp_loop_t;

/**
 * Makes the optimiser and the gradient sums, and restores the newest checkpoint as job.restart
 * says. Collective.
 */
qp_error_t qp_loop_create(qp_run_t *run, const qp_method_t *method, void *owner, qp_loop_t **loop);
void qp_loop_destroy(qp_loop_t **loop);

/** Completed steps: the method starts its data here. */
int64_t qp_loop_step(const qp_loop_t *loop);

/**
 * Steps until optim.steps are done or something asks to stop; then writes a checkpoint, the adapter
 * and the curves. Stopped early: QP_STOPPED saying why. Collective.
 */
qp_error_t qp_loop_run(qp_loop_t *loop);

#endif
