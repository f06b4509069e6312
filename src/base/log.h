/**
 * \file log.h
 * The human log. Rank 0 speaks unless a message is forced onto every rank; a clean run prints no
 * warning. Machine output (metrics.csv, samples.jsonl) never goes through here.
 */
#ifndef QP_BASE_LOG_H
#define QP_BASE_LOG_H

#include <stdbool.h>

#include "base/error.h"

typedef enum { QP_LOG_ERROR, QP_LOG_WARN, QP_LOG_INFO, QP_LOG_STAT, QP_LOG_DEBUG } qp_log_level_t;

/**
 * Sets the threshold and this process's rank. Ranks other than 0 stay silent except for errors at
 * level QP_LOG_ERROR raised through qp_log_error_here() and everything at QP_LOG_DEBUG.
 */
void qp_log_init(qp_log_level_t level, int rank);

/** Copies every line also to the file at \a path (appended). It cannot be opened: QP_IO; written
 * later: a warning, and no copy from there on. */
qp_error_t qp_log_tee(const char *path);

/** Closes the copy. */
void qp_log_fini(void);

qp_log_level_t qp_log_level(void);

/** Writes one line "[level time] text". Texts of the user's files stand in messages as they are:
 * control characters are escaped here, so that none ends the line. Use the macros. */
__attribute__((format(printf, 3, 4))) void qp_log(qp_log_level_t level, bool every_rank,
                                                  const char *format, ...);

/** An error of this rank from a thread that ends the process: past the buffers and their locks,
 * which another thread may hang in. */
void qp_log_at_once(const char *text);

/** Shows \a text in place on a terminal (carriage return, no newline); nothing if stderr is none.
 */
void qp_log_progress(const char *text);

#define qp_log_error(...) qp_log(QP_LOG_ERROR, false, __VA_ARGS__)
#define qp_log_error_here(...) qp_log(QP_LOG_ERROR, true, __VA_ARGS__)
#define qp_log_warn(...) qp_log(QP_LOG_WARN, false, __VA_ARGS__)
#define qp_log_info(...) qp_log(QP_LOG_INFO, false, __VA_ARGS__)
#define qp_log_stat(...) qp_log(QP_LOG_STAT, false, __VA_ARGS__)
#define qp_log_debug(...) qp_log(QP_LOG_DEBUG, false, __VA_ARGS__)

#endif
