/**
 * \file error.h
 * Errors as values. A fallible function returns qp_error_t; NULL is success. The message is written
 * where the error happens and names the file, the deck key or the tensor, what was found and what
 * was expected. The code doubles as the exit code of the program.
 */
#ifndef QP_BASE_ERROR_H
#define QP_BASE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    QP_OK = 0,
    QP_INTERNAL = 1, /**< a bug of ours or of a library */
    QP_INPUT = 2,    /**< the user's deck, file or arguments are wrong */
    QP_IO = 3,       /**< reading or writing failed */
    QP_STOPPED = 10  /**< stopped early with a good checkpoint: continue me */
} qp_code_t;

struct qp_error {
    qp_code_t code;
    const char *file; /**< source file that raised it (static string) */
    int line;
    char *message; /**< owned */
};
typedef struct qp_error *qp_error_t;

/** Stands between the messages of an error that has several, as of a deck with several mistakes:
 * the report prints each as a line of its own. No line feed, which the log escapes as it does
 * everything that may come from a user's file. */
#define QP_ERROR_NEXT "\036" /* ASCII's record separator */

/** Creates an error; never returns NULL. Not collective. */
__attribute__((format(printf, 4, 5), warn_unused_result)) qp_error_t
qp_error_create(qp_code_t code, const char *file, int line, const char *format, ...);

/** Puts "context: " in front of the message of \a error; passes NULL through. Returns \a error. */
__attribute__((format(printf, 2, 3))) qp_error_t qp_error_context(qp_error_t error,
                                                                  const char *format, ...);

/** The earlier of two errors (\a later is freed if both are given), or NULL: for clean-up that can
 * fail. */
__attribute__((warn_unused_result)) qp_error_t qp_error_first(qp_error_t error, qp_error_t later);

/** Frees an error and nulls the pointer; NULL is allowed. */
void qp_error_destroy(qp_error_t *error);

/** Tells the compiler and the static analyser what qp_error_create() promises. */
__attribute__((warn_unused_result)) static inline qp_error_t qp_error_not_null(qp_error_t error)
{
    if (error == NULL)
        __builtin_unreachable();
    return error;
}

/** Makes an error where it happens: return QP_ERROR(QP_INPUT, "%s: no such file", path); */
#define QP_ERROR(code, ...) \
    qp_error_not_null(qp_error_create((code), __FILE__, __LINE__, __VA_ARGS__))

/** Passes an error up to the caller. */
#define QP_TRY(expression)                   \
    do {                                     \
        qp_error_t qp_error_ = (expression); \
        if (qp_error_ != NULL)               \
            return qp_error_;                \
    } while (0)

/** Stores an error in the local `error` and jumps to the clean-up label `done`. */
#define QP_TRY_DONE(expression) \
    do {                        \
        error = (expression);   \
        if (error != NULL)      \
            goto done;          \
    } while (0)

/** Bug trap, always compiled in; \a condition must be free of side effects. Aborts with file:line.
 */
#define QP_ASSERT(condition)                                  \
    do {                                                      \
        if (!(condition))                                     \
            qp_assert_failed(__FILE__, __LINE__, #condition); \
    } while (0)

__attribute__((noreturn)) void qp_assert_failed(const char *file, int line, const char *condition);

/**
 * Prints \a error at level error on this rank, a line for each message, frees it and returns its
 * exit code; QP_OK for NULL. For main() only.
 */
int qp_error_report(qp_error_t *error);

#endif
