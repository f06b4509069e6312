/**
 * \file loop.h
 * The step loop that all training methods share: micro-batches, gradient sum, optimiser, metrics,
 * one agreed decision per step, evaluation, samples, checkpoints. A method says what a micro-batch
 * is.
 */
#ifndef QP_TRAIN_LOOP_LOOP_H
#define QP_TRAIN_LOOP_LOOP_H

#include "ckpt/ckpt.h"
#include "train/run/run.h"

/** The work of one step: one optimiser update, or several on what the step has made (PPO). */
typedef struct {
    int64_t n_update; /**< 0: the step is skipped; the method says why */
    int64_t n_micro;  /**< micro-batches of an update over all ranks: the leaves of the gradient's
                           tree */
    int64_t n_token;  /**< of the step, over all ranks */
    double epoch;     /**< progress at the step's end */
} qp_work_t;

/** What becomes of an update, from its totals: the same on all ranks. */
typedef enum {
    QP_UPDATE_APPLY,
    QP_UPDATE_LEAVE_OUT, /**< the gradient is not applied */
    QP_UPDATE_LAST       /**< it is applied, and no other follows in this step */
} qp_update_end_t;

/** A training method; \a owner is its own state. */
typedef struct {
    const char *name;
    const char *const *metric; /**< [n_metric] columns of metrics.csv */
    int n_metric;
    int n_shown;                    /**< the first of them that stand in the log's lines */
    const char *const *eval_metric; /**< [n_eval_metric] */
    int n_eval_metric;
    int n_value; /**< doubles that a micro-batch reports; where one is not finite, the update is
                      skipped */
    /** Adds what a checkpoint must hold besides. May be NULL. */
    void (*register_state)(void *owner, qp_state_t *state);
    /** Gets the work of the next step. Collective; agreed. */
    qp_error_t (*next)(void *owner, qp_work_t *work);
    /** Adds the gradient of local micro-batch i of update u to the adapter's; fills value
     * [n_value]. Rank-local. */
    qp_error_t (*training_step)(void *owner, int64_t u, int64_t i, const qp_pass_t *pass,
                                double *value);
    /** Takes note of update u: total [n_value] over its micro-batches. NULL: all are applied. */
    qp_update_end_t (*end_update)(void *owner, int64_t u, const double *total);
    /** metric [n_metric] of the step from the totals of its last update; may be called without
     * any (total NULL). */
    void (*finish)(void *owner, const double *total, double *metric);
    /** metric [n_eval_metric] on held-out data; NULL if there is none. Collective; agreed. */
    qp_error_t (*evaluate)(void *owner, double *metric);
    /** After finish(): lines of this step for samples.jsonl, on rank 0. May be NULL. */
    qp_error_t (*samples)(void *owner, int64_t step, qp_str_t *lines);
} qp_method_t;

/** What a checkpoint restores besides the adapter and its moments. */
typedef struct {
    int64_t step; /**< completed steps: the position in the data */
    int64_t num_tokens, n_skipped, n_skipped_in_row;
} qp_progress_t;

/**
 * The work of a step of one update on a batch from the loader; \a targets: of which it is made of.
 * Where these are none, there is nothing to learn: no update, with a warning.
 */
qp_work_t qp_loop_work(const qp_run_t *run, const qp_step_batch_t *batch, bool targets);

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
