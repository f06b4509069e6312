/**
 * \file env.h
 * What surrounds the process: environment variables (read nowhere else), the batch system's time
 * limit and the memory that is still free.
 */
#ifndef QP_BASE_ENV_H
#define QP_BASE_ENV_H

#include <stdint.h>

/** Value of an environment variable, or NULL when it is unset or empty. */
const char *qp_env(const char *name);

/**
 * Seconds from now until the batch system ends the job: SLURM_JOB_END_TIME (seconds since 1970), or
 * PBS_WALLTIME (a duration, counted from now: call it at start). Negative when no batch system says
 * so. *source gets the variable's name.
 */
double qp_env_walltime(const char **source);

/** Bytes that this node can still give: MemAvailable, or what its cgroup leaves if less. -1:
 * unknown. */
int64_t qp_env_memory_available(void);

/**
 * Bytes of memory that this process has now, and has had at most; of pages that it shares with
 * other processes only its part (the kernel's PSS). -1: unknown.
 */
int64_t qp_env_memory_used(void);
int64_t qp_env_memory_peak(void);

#endif
