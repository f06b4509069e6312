/**
 * \file mpi_check.h
 * Checked MPI calls, for comm and h5 only. Every MPI call stands inside one of the two macros:
 * either its failure becomes an error the caller passes up, or (where no agreement is possible any
 * more) it ends the job.
 */
#ifndef QP_COMM_MPI_CHECK_H
#define QP_COMM_MPI_CHECK_H

#include <mpi.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/activity.h"

/** QP_TRY(QP_MPI(MPI_Barrier(comm))): NULL, or a QP_INTERNAL error with MPI's own text. */
#define QP_MPI(call) qp_mpi_check(QP_MPI_WAITS(call), #call, __FILE__, __LINE__)

/** Inside collectives that return nothing: a failure is printed and ends the whole job. */
#define QP_MPI_MUST(call) qp_mpi_must(QP_MPI_WAITS(call), #call, __FILE__, __LINE__)

/** Within a call of MPI a rank may wait for others (base/activity.h). */
#define QP_MPI_WAITS(call) (qp_activity_wait_begin(), qp_mpi_waited(call))
static inline int qp_mpi_waited(int status)
{
    qp_activity_wait_end();
    return status;
}

__attribute__((warn_unused_result)) qp_error_t qp_mpi_check(int status, const char *call,
                                                            const char *file, int line);
void qp_mpi_must(int status, const char *call, const char *file, int line);

/** MPI's type of the same elements. */
MPI_Datatype qp_mpi_type(qp_dtype_t dtype);

#endif
