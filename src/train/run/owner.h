/**
 * \file owner.h
 * A run's folder has one owner: the file <run>/lock names host, process and job, and shows by its
 * time stamp that the owner is alive. It relies on nothing but that a file can be made exclusively,
 * so it holds on network file systems without locks of their own.
 */
#ifndef QP_TRAIN_RUN_OWNER_H
#define QP_TRAIN_RUN_OWNER_H

#include <stdbool.h>

#include "base/error.h"

typedef struct qp_owner qp_owner_t;

/**
 * Makes this process the owner, and starts a thread that shows it to be alive. A dead owner's lock
 * is taken over: at once where it can be seen that its process is gone, else
 * when it has not moved for QP_OWNER_STALE_SECONDS, for which this waits. A live one, and what is
 * no lock at all (a folder, a link, a file of something else): QP_INPUT naming it. Rank 0.
 */
enum { QP_OWNER_STALE_SECONDS = 60 };
qp_error_t qp_owner_take(const char *folder, qp_owner_t **owner);

/** A line for the log about the dead owner whose lock was taken over, or NULL. */
const char *qp_owner_before(const qp_owner_t *owner);

/** The lock is still this process's; otherwise QP_IO naming who took it. NULL: nothing is owned. */
qp_error_t qp_owner_check(const qp_owner_t *owner);
/** What the thread has seen last, for nothing: if true, check. */
bool qp_owner_is_lost(const qp_owner_t *owner);

/** Gives the folder back. NULL is allowed. */
void qp_owner_release(qp_owner_t **owner);

/** Says in the log who owns a folder now, if anybody seems to; takes nothing. What is no lock:
 * QP_INPUT, as above. Rank 0. */
qp_error_t qp_owner_report(const char *folder);

#endif
