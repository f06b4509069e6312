#include "base/activity.h"

#include <stdatomic.h>
#include <unistd.h>

#include "base/timer.h"

static atomic_uint_fast64_t n_mark;
static atomic_int n_wait; /* waits that the first thread is in */
static _Atomic(const char *) phase = "the start";
static double waited, began; /* seconds; the first thread's own */

static bool is_first_thread(void)
{
    static _Thread_local int first = -1;
    if (first < 0)
        first = gettid() == getpid();
    return first != 0;
}

void qp_activity_mark(void)
{
    atomic_fetch_add_explicit(&n_mark, 1, memory_order_relaxed);
}

const char *qp_activity_phase(const char *name)
{
    return atomic_exchange(&phase, name);
}

/* Of the first thread: from now on it is in so many waits. Gives what it was in. */
static int change(int n)
{
    const int before = atomic_load(&n_wait);
    if (before == 0 && n > 0)
        began = qp_time();
    else if (before > 0 && n == 0)
        waited += qp_time() - began;
    atomic_store(&n_wait, n);
    return before;
}

void qp_activity_wait_begin(void)
{
    if (is_first_thread())
        change(atomic_load(&n_wait) + 1);
}

void qp_activity_wait_end(void)
{
    if (!is_first_thread())
        return;
    change(atomic_load(&n_wait) - 1);
    qp_activity_mark();
}

int qp_activity_work_begin(void)
{
    return is_first_thread() ? change(0) : 0;
}

void qp_activity_work_end(int n_wait_before)
{
    if (!is_first_thread())
        return;
    change(n_wait_before);
    qp_activity_mark();
}

double qp_activity_waited(void)
{
    return waited;
}

qp_activity_t qp_activity_read(void)
{
    return (qp_activity_t){.n_mark = atomic_load(&n_mark),
                           .waits = atomic_load(&n_wait) > 0,
                           .phase = atomic_load(&phase)};
}
