/** \file timer.h  Wall clock and per-phase timers printed at log.level = "stat". */
#ifndef QP_BASE_TIMER_H
#define QP_BASE_TIMER_H

#include <stdint.h>

#include "base/activity.h"

/** Seconds of a monotonic clock. */
double qp_time(void);

/** A set of named phases; plain value, zero-initialise. */
enum { QP_MAX_PHASE = 32 };
typedef struct {
    int n_phase;
    struct {
        const char *name; /* static string */
        double seconds;
        int64_t n_call;
    } phase[QP_MAX_PHASE];
} qp_timers_t;

/** Adds \a seconds to the phase \a name (made on first use). */
void qp_timers_add(qp_timers_t *timers, const char *name, double seconds);
/** Logs the table at level stat: seconds, share, calls; then zeroes it. */
void qp_timers_report(qp_timers_t *timers, const char *title);

/** Times one statement, as a phase of the process (base/activity.h). */
#define QP_TIMED(timers, name, statement)                       \
    do {                                                        \
        double qp_start_ = qp_time();                           \
        QP_PHASE((name), statement);                            \
        qp_timers_add((timers), (name), qp_time() - qp_start_); \
    } while (0)

#endif
