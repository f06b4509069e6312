/**
 * \file metrics.h
 * metrics.csv and other line files of a run that continue after a restart. Rank 0 only.
 */
#ifndef QP_TRAIN_REPORT_METRICS_H
#define QP_TRAIN_REPORT_METRICS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/**
 * Opens \a path for appending. Lines whose step is beyond \a step are cut first (step < 0: all
 * lines go). The step of a line is the first integer after \a key, which is "" for CSV (the line's
 * first field). Lines without one (a header) stay. Failure: QP_IO.
 */
qp_error_t qp_lines_open(const char *path, const char *key, int64_t step, FILE **file);

enum { QP_MAX_METRIC = 64 };

/** A table of named columns. */
typedef struct {
    int n;
    const char *name[QP_MAX_METRIC]; /**< static strings */
    double value[QP_MAX_METRIC];
    bool is_set[QP_MAX_METRIC];
    FILE *file;
} qp_metrics_t;

/** Adds a column; returns its index. Before open. */
int qp_metrics_add(qp_metrics_t *metrics, const char *name);
/**
 * Opens the file (rows beyond \a step are cut) and writes the header if it is new. A file with
 * other columns, which another version wrote, is kept as "<path>.until-<step>", with a warning, and
 * a new one begun.
 */
qp_error_t qp_metrics_open(qp_metrics_t *metrics, const char *path, int64_t step);
void qp_metrics_set(qp_metrics_t *metrics, int column, double value);
/** Writes the row (unset cells stay empty; what is not finite as nan, inf) and empties the cells.
 */
qp_error_t qp_metrics_write(qp_metrics_t *metrics);
void qp_metrics_close(qp_metrics_t *metrics);

#endif
