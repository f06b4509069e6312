#include "app/waiting.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/env.h"
#include "base/timer.h"

/* Longer than most waits of a step, and a few times what it costs to sleep and be woken. */
static const double SPIN_SECONDS = 1.5e-4;

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    __asm__ volatile("" ::: "memory");
}

/* Turns of a spinning loop in SPIN_SECONDS; a turn takes 10 to 50 ns, as the processor likes. */
static int spin_count(void)
{
    enum { N = 2000, N_TRY = 3 };
    double least = 1.0;
    for (int k = 0; k < N_TRY; k++) {
        const double start = qp_time();
        for (int i = 0; i < N; i++)
            relax();
        const double seconds = qp_time() - start;
        least = seconds < least ? seconds : least;
    }
    return least > 0.0 ? (int)(SPIN_SECONDS * N / least) : N;
}

void qp_waiting_set(char **argv)
{
    char count[32], path[4096];
    /* Not as /proc/self/exe: the process would be called exe. */
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n < 0 || qp_env("OMP_WAIT_POLICY") != NULL || qp_env("GOMP_SPINCOUNT") != NULL)
        return;
    path[n] = '\0';
    snprintf(count, sizeof count, "%d", spin_count());
    setenv("GOMP_SPINCOUNT", count, 1);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    execv(path, argv);
}
