/**
 * \file scaling.h
 * quipu --plan-for: memory and time of the deck's run on a machine that is described, for 1, 2, 4
 * and up to 1,024 ranks.
 */
#ifndef QP_TRAIN_SCALING_SCALING_H
#define QP_TRAIN_SCALING_SCALING_H

#include "train/run/run.h"
#include "train/scaling/times.h"

/** A line of a table: the run on so many ranks. */
typedef struct {
    qp_layout_t layout;
    int64_t n_row; /**< of a step: batch.global_sequences */
    qp_times_t times;
    double tokens_per_second, efficiency; /**< the latter against the table's first line */
    int64_t node_bytes, device_bytes;     /**< planned on the fullest node, on a device */
    bool fits;
} qp_scaling_row_t;

enum { QP_MAX_SCALING_ROW = 11 }; /* 1 to 1,024 ranks */

typedef struct {
    int n;
    qp_scaling_row_t row[QP_MAX_SCALING_ROW];
    char *end; /**< why it has no more rows (qp_free) */
} qp_scaling_table_t;

/** A step's data, in the mean over the rows that were looked at. */
typedef struct {
    int64_t n_row; /**< looked at */
    double n_token, n_pair, n_picked;
    double n_prompt, n_answer; /**< PPO: of a query; tokens that an answer is taken to have */
} qp_scaling_data_t;

/** What is planned. */
typedef struct {
    const qp_machine_t *machine;
    qp_settings_t settings; /**< those of the line that is planned; strings are the caller's */
    qp_run_t run;
    qp_scaling_data_t data;    /**< of one row */
    qp_memory_plan_t plan;     /**< of a full node */
    qp_recompute_t recompute;  /**< there */
    qp_layout_t layout;        /**< there */
    qp_job_t job;              /**< there */
    qp_scaling_table_t strong; /**< the deck's rows of a step, shared out */
    qp_scaling_table_t
        weak; /**< so many rows a rank as on a full node, or fewer: what a deck may say */
    int64_t rows_of_rank; /**< of the weak one */
} qp_scaling_t;

/** The deck's settings for a machine: qp_settings_read_for() with its values. QP_INPUT: the deck
 * wants another backend. */
qp_error_t qp_scaling_settings(const qp_machine_t *machine, const char *deck,
                               const char *const *sets, int n_set, qp_settings_t *settings);

/**
 * Looks at the deck's files and makes the tables. QP_INPUT: what a dry run refuses, and methods and
 * settings that this does not model, by name. By one process; fini() in any case.
 */
qp_error_t qp_scaling_create(qp_comm_t *comm, const qp_settings_t *settings,
                             const qp_machine_t *machine, qp_scaling_t *scaling);
void qp_scaling_fini(qp_scaling_t *scaling);
/** QP_INPUT as of a dry run: a full node has not enough memory. */
qp_error_t qp_scaling_check(const qp_scaling_t *scaling);
/** All of it as text. */
void qp_scaling_print(const qp_scaling_t *scaling, qp_str_t *out);

#endif
