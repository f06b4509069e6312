/**
 * \file pattern.h
 * Regular expressions as Python's re.fullmatch reads them, for names in files that Python programs
 * wrote. Done by PCRE2; what the two read differently is refused.
 */
#ifndef QP_FORMATS_PATTERN_H
#define QP_FORMATS_PATTERN_H

#include <stdbool.h>

#include "base/error.h"

typedef struct qp_pattern qp_pattern_t;

/** A wrong pattern, or one with what is not common to Python and PCRE2: QP_INPUT. */
qp_error_t qp_pattern_create(const char *pattern, qp_pattern_t **out);
void qp_pattern_destroy(qp_pattern_t **pattern);
/** Whether the pattern matches the whole of an ASCII text. A search without end: QP_INPUT. */
qp_error_t qp_pattern_fullmatch(const qp_pattern_t *pattern, const char *text, bool *matches);

#endif
