/**
 * \file stall.h
 * A watch over all ranks: one that stands still for too long ends the job, by its name. Nobody else
 * would: the others wait for it in a collective call, and the launcher sees processes that live.
 */
#ifndef QP_COMM_STALL_H
#define QP_COMM_STALL_H

#include "comm/comm.h"

typedef struct qp_stall qp_stall_t;

/**
 * Starts the watch. From then on a thread of each rank tells rank 0 (rank 0's tells rank 1), on a
 * communicator of its own, how long ago base/activity.h was marked, and whether the rank waits for
 * others. The job is ended by MPI_Abort with QP_IO and one message when, for \a timeout seconds,
 *
 * - nothing is heard of a rank (stopped, swapped out, its node is gone), or
 * - a rank has neither got anything done nor waited for others (a file system that hangs), or
 * - all ranks have waited for each other (the network).
 *
 * Only time in which the watching process itself ran counts, so a job may be suspended as a whole.
 * timeout 0: no watch, *stall is NULL. Collective.
 */
qp_error_t qp_stall_watch(qp_comm_t *comm, double timeout, qp_stall_t **stall);

/** Ends the watch when all ranks have come here; until then they are watched. From here on an alarm
 * ends this process after \a timeout seconds more, for MPI_Finalize waits for the others, too.
 * Collective. Nulls; NULL allowed. */
void qp_stall_end(qp_stall_t **stall);

#endif
