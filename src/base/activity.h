/**
 * \file activity.h
 * How this process gets on, for a watch that looks from a thread of its own (comm/stall.h). All
 * calls are cheap enough for every layer and every piece of a file.
 */
#ifndef QP_BASE_ACTIVITY_H
#define QP_BASE_ACTIVITY_H

#include <stdbool.h>
#include <stdint.h>

/** Something got done. Any thread. */
void qp_activity_mark(void);

/** From here on the process is busy with \a name (a static string), for messages. Gives what it was
 * busy with before, to be set again behind it. */
const char *qp_activity_phase(const char *name);

/** One statement in the phase \a name. */
#define QP_PHASE(name, statement)                                 \
    do {                                                          \
        const char *const qp_before_ = qp_activity_phase((name)); \
        statement;                                                \
        (void)qp_activity_phase(qp_before_);                      \
    } while (0)

/**
 * Around what ends only when other ranks do their part. Pairs may be nested; an end is a mark, too.
 * Those of other threads than the process's first count for nothing: it waits for its helpers, and
 * says so itself where these wait for other ranks.
 */
void qp_activity_wait_begin(void);
void qp_activity_wait_end(void);

/** Around work of this process in the midst of such a call: a write within a collective close.
 * Begin gives what end wants. */
int qp_activity_work_begin(void);
void qp_activity_work_end(int n_wait_before);

/** Seconds that the process's first thread has waited for other ranks so far. Of that thread. */
double qp_activity_waited(void);

typedef struct {
    uint64_t n_mark;
    bool waits; /**< for other ranks */
    const char *phase;
} qp_activity_t;

/** As it is now. Any thread. */
qp_activity_t qp_activity_read(void);

#endif
