/**
 * \file tensorboard.h
 * Metrics as TensorBoard reads them: a file of events for each start of a run. Rank 0 only.
 *
 * A file is a list of TFRecords (length, its checksum, data, its checksum; tensorflow's
 * record_writer.cc), each an Event in the encoding of protocol buffers (event.proto,
 * summary.proto).
 */
#ifndef QP_TRAIN_REPORT_TENSORBOARD_H
#define QP_TRAIN_REPORT_TENSORBOARD_H

#include "train/report/metrics.h"

typedef struct qp_tensorboard qp_tensorboard_t;

/**
 * Begins a file in \a folder, which is made if it is absent. What earlier files say of steps beyond
 * \a step counts no more. Failure: QP_IO.
 */
qp_error_t qp_tensorboard_open(const char *folder, int64_t step, qp_tensorboard_t **tensorboard);

/**
 * The cells of a row that are set and finite, before it is written to the table. Names are those
 * that transformers gives them: "eval_loss" is "eval/loss", all others are "train/<name>".
 */
qp_error_t qp_tensorboard_write(qp_tensorboard_t *tensorboard, const qp_metrics_t *metrics,
                                int64_t step);
void qp_tensorboard_close(qp_tensorboard_t **tensorboard);

#endif
