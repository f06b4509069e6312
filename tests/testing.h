/**
 * \file testing.h
 * Small test support: CHECK macros that count failures, temporary folders, relative errors.
 * A test is a main() that ends with `return qp_test_end();`.
 */
#ifndef QP_TESTING_H
#define QP_TESTING_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/** Exit code that CTest takes as "skipped". */
enum { QP_TEST_SKIP = 77 };

/** Records a failure with its place; returns condition. */
bool qp_test_check(bool condition, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#define CHECK(condition) qp_test_check((condition), __FILE__, __LINE__, "%s", #condition)
#define CHECK_MSG(condition, ...) qp_test_check((condition), __FILE__, __LINE__, __VA_ARGS__)
/** The expression must succeed; prints the error's message otherwise and frees it. */
#define CHECK_OK(expression) qp_test_ok((expression), __FILE__, __LINE__)
/** The expression must fail with this code and a message that contains text; frees the error. */
#define CHECK_FAILS(expression, code, text) \
    qp_test_fails((expression), (code), (text), __FILE__, __LINE__)

bool qp_test_ok(qp_error_t error, const char *file, int line);
bool qp_test_fails(qp_error_t error, qp_code_t code, const char *text, const char *file, int line);

/** ||a - b|| / ||b|| in double. */
double qp_test_relative_error(const float *a, const float *b, int64_t n);

/** Path of a fresh folder for this test (per process), removed by qp_test_end(). */
const char *qp_test_folder(void);

/** Path of a file in the source tree ("tests/golden/x"); static buffer ring. */
const char *qp_test_source(const char *relative);

/** Path in the data folder beside the checkout ("data/stackexchange/..."), or NULL when it is
 * absent. */
const char *qp_test_shared(const char *relative);

/** Checks for leaks, prints the verdict, removes the folder, returns the exit code (0 or 1). */
int qp_test_end(void);

#endif
