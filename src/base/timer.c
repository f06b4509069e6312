#include "base/timer.h"

#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/log.h"

double qp_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void qp_timers_add(qp_timers_t *timers, const char *name, double seconds)
{
    int i = 0;
    while (i < timers->n_phase && strcmp(timers->phase[i].name, name) != 0)
        i++;
    QP_ASSERT(i < QP_MAX_PHASE);
    if (i == timers->n_phase)
        timers->phase[timers->n_phase++].name = name;
    timers->phase[i].seconds += seconds;
    timers->phase[i].n_call++;
}

void qp_timers_report(qp_timers_t *timers, const char *title)
{
    double total = 0.0;
    for (int i = 0; i < timers->n_phase; i++)
        total += timers->phase[i].seconds;
    qp_log_stat("%s: %.3f s in timed phases", title, total);
    for (int i = 0; i < timers->n_phase; i++)
        qp_log_stat("  %-22s %9.3f s %5.1f%% %8lld calls", timers->phase[i].name,
                    timers->phase[i].seconds, 100.0 * timers->phase[i].seconds / (total + 1e-30),
                    (long long)timers->phase[i].n_call);
    *timers = (qp_timers_t){0};
}
