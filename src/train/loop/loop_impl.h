/** \file loop_impl.h  The inside of the loop, shared by its files: steps, state and reports. */
#ifndef QP_TRAIN_LOOP_LOOP_IMPL_H
#define QP_TRAIN_LOOP_LOOP_IMPL_H

#include "ckpt/ckpt.h"
#include "train/micro/accumulate.h"
#include "train/loop/loop.h"
#include "train/report/metrics.h"
#include "train/report/tensorboard.h"
#include "train/loop/stop.h"

/** A replicated device array as checkpoint entry: each rank writes its slab, everyone reads all. */
typedef struct {
    qp_device_t *device;
    qp_dptr_t data;
    int64_t n, first, n_mine;
} qp_device_array_t;

enum { QP_N_DEVICE_ARRAY = 3 };

/** Columns of metrics.csv that every method has. */
typedef enum {
    QP_COLUMN_STEP,
    QP_COLUMN_EPOCH,
    QP_COLUMN_GRAD_NORM,
    QP_COLUMN_LEARNING_RATE,
    QP_COLUMN_NUM_TOKENS,
    QP_COLUMN_TOKENS_PER_SECOND,
    QP_COLUMN_STEP_TIME,
    QP_COLUMN_SKIPPED_STEPS,
    QP_COLUMN_RANK_MEAN,
    QP_COLUMN_RANK_MAX,
    QP_COLUMN_SLOWEST_RANK,
    QP_N_COLUMN
} qp_column_t;

enum { QP_MAX_VALUE = 48 };

/** How one step went. */
typedef struct {
    qp_work_t work;
    double metric[QP_MAX_VALUE];
    double grad_norm; /* of the last update */
    double learning_rate, seconds;
    double own_seconds; /* in which this rank did not wait for others */
    bool skipped;       /* an update at least */
    bool cut;           /* nothing of it counts: the run ends with the step before */
} qp_step_result_t;

struct qp_loop {
    qp_run_t *run;
    const qp_method_t *method;
    void *owner;
    qp_progress_t progress;
    int64_t first_step; /* of this start */
    int64_t update;     /* of the step: the one being computed */
    double start;
    qp_optim_t *optim;
    qp_accumulator_t *accumulator;
    qp_leaf_values_t values;
    int64_t first_leaf; /* of this rank */
    qp_stop_t stop;
    qp_error_t report_error; /* of rank 0's files; decides at the next word */
    /* loop_state.c */
    char *checkpoints;
    qp_state_t *state;
    qp_device_array_t array[QP_N_DEVICE_ARRAY];
    int64_t checkpoint_step; /* step of the newest checkpoint; -1: none */
    /* loop_report.c */
    qp_metrics_t metrics;
    int column[QP_N_COLUMN], first_metric, first_eval_metric;
    qp_tensorboard_t *tensorboard; /* NULL: not wanted, or another rank's */
    double own_seconds;            /* of this rank's steps since the last look at all ranks' */
    int64_t n_own_step;
    int told_rank; /* that the log has called slow last; -1: none */
    FILE *samples;
    int64_t samples_step, eval_step; /* of the last ones; -1: none */
};

/** Registers the state and restores the newest checkpoint. Collective. */
qp_error_t qp_loop_restore(qp_loop_t *loop);
/** Writes a checkpoint unless this step has one. Collective. */
qp_error_t qp_loop_checkpoint(qp_loop_t *loop);

/** Opens metrics.csv and samples.jsonl, cut at the current step. Collective. */
qp_error_t qp_loop_report_open(qp_loop_t *loop);
void qp_loop_report_close(qp_loop_t *loop);
/** Seconds of a step that each rank has worked since the last time, where a line in the log is due:
 * into the coming row, with the slowest rank. Collective. */
void qp_loop_compare_ranks(qp_loop_t *loop, const qp_step_result_t *result);
/** One row of metrics, the progress line, a log line if due. Errors wait in report_error. */
void qp_loop_report_step(qp_loop_t *loop, const qp_step_result_t *result);
/** Held-out metrics into the coming row and the log. Collective. */
qp_error_t qp_loop_evaluate(qp_loop_t *loop);
/** Writes a row that has only held-out metrics: the start. */
void qp_loop_report_eval_row(qp_loop_t *loop);
/** Answers the sample prompts. Collective. */
qp_error_t qp_loop_sample(qp_loop_t *loop);

#endif
