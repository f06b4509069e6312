/** \file plan.h  Inside of the data module: the rows of a plan, and batches made of them. */
#ifndef QP_DATA_PLAN_H
#define QP_DATA_PLAN_H

#include "data/data.h"

/** A run of tokens of one stored sequence. */
typedef struct {
    int64_t sequence; /**< global index in the data set */
    int32_t start, n; /**< tokens [start, start + n) */
} qp_piece_t;

struct qp_plan {
    int64_t n_row, n_piece;
    int64_t *first_piece; /**< [n_row + 1] */
    qp_piece_t *piece;    /**< [n_piece], row after row */
    int64_t row_tokens;   /**< at most so many tokens in a row */
    bool joined;          /**< the pieces of a row are one sequence */
    bool completion_only;
    qp_eos_t eos; /**< joined: every whole sequence must end with one of them, if there are any */
    int64_t n_left_out, n_cut, n_dropped;
};

/** Most tokens that a row of this data set and config can have. */
int64_t qp_plan_row_tokens(const qp_dataset_t *dataset, const qp_data_config_t *config);

/** Allocates a batch for n_row rows of at most row_tokens tokens. */
void qp_batch_init(qp_batch_t *batch, int64_t n_row, int64_t row_tokens);
void qp_batch_fini(qp_batch_t *batch);
void qp_batch_clear(qp_batch_t *batch);
/** Reads a row and appends it; \a place is the row's number in the global batch. Rank-local. */
qp_error_t qp_batch_add_row(qp_batch_t *batch, const qp_dataset_t *dataset, const qp_plan_t *plan,
                            int64_t row, int64_t place);

#endif
