/** \file csv.h  The text of a metrics.csv: a header, then rows of numbers; an empty field is none.
 */
#ifndef QP_TRAIN_REPORT_CSV_H
#define QP_TRAIN_REPORT_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Field \a i of a line: *start and its length; false beyond the last. */
bool qp_csv_field(const char *line, int i, const char **start, size_t *n);

/** Index of a column in the header, or -1. */
int qp_csv_column(const char *text, const char *name);

/** The number in a field of a row; NaN where there is none. */
double qp_csv_number(const char *line, int column);

/** The row behind a line; NULL behind the last one that is whole. */
const char *qp_csv_next(const char *line);

/** Rows in which a column (-1: none) has a number. */
int64_t qp_csv_count(const char *text, int column);

#endif
