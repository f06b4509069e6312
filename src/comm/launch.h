/**
 * \file launch.h
 * How this process was started, as its environment tells: by a launcher that knows of others, or
 * alone. Inside of the comm module.
 */
#ifndef QP_COMM_LAUNCH_H
#define QP_COMM_LAUNCH_H

#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

/** What a launcher says of this process. */
typedef struct {
    const char *by;     /**< "mpirun", "Slurm", ...; NULL: nobody says anything */
    int64_t size, rank; /**< of the tasks started together; 1 and 0 when nobody says so */
} qp_launch_t;

/** Reads the environment. A shell inside a batch system's step of one task is no launcher. */
qp_launch_t qp_launch_read(void);

/** Several tasks that have no means to find each other: QP_INPUT, before MPI starts. */
qp_error_t qp_launch_check(const qp_launch_t *launch);
/** As many ranks as tasks: QP_INPUT where MPI sees this process alone, one of several. */
qp_error_t qp_launch_check_size(const qp_launch_t *launch, int size);

/**
 * A process on its own needs no launcher, but MPI libraries that find the marks of one want to talk
 * to it. hide() takes those marks out of the environment and keeps them in \a hidden; restore()
 * puts them back and frees it.
 */
void qp_launch_hide(qp_str_t *hidden);
void qp_launch_restore(qp_str_t *hidden);

#endif
