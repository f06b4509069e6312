/**
 * \file child.h
 * Another program as a child process: started, written to, brought to its end, reaped. It gets
 * standard input, output and error, and no other descriptor of this process: sockets would stay
 * open for as long as it lives, so that a dead rank looks alive, and files locked.
 */
#ifndef QP_BASE_CHILD_H
#define QP_BASE_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

typedef struct {
    pid_t pid;    /**< 0: it has ended and is reaped, or never began */
    int status;   /**< of waitpid(), once it has ended; 0: all is well */
    int to, from; /**< our ends of pipes to its input and from its output, which never block; -1:
                       none. An end may be closed by qp_child_close() at any time. */
    bool apart;   /**< as it was started */
} qp_child_t;

typedef struct {
    const char *name;        /**< what messages begin with: "reward program judge" */
    const char *const *argv; /**< with a NULL at its end; argv[0] is looked for in PATH */
    int input;               /**< a descriptor to read from, and it writes to our standard output;
                                  -1: pipes for both */
    bool apart;              /**< in a process group of its own, with SIGTERM, SIGUSR1 and SIGINT
                                  blocked: batch systems send them to all processes of a job */
    bool quiet;              /**< its standard error goes nowhere */
} qp_child_config_t;

/** QP_INPUT: cannot be started; QP_IO: no pipe. */
qp_error_t qp_child_start(const qp_child_config_t *config, qp_child_t *child);

/** Whether it ends within so many seconds (INFINITY: waits for it); it is then reaped. */
bool qp_child_ended(qp_child_t *child, double seconds);

/** "ended with exit status 7", "was ended by signal 9 (Killed)"; the caller's (qp_free). */
char *qp_child_describe_end(const qp_child_t *child);

/** write() to its input; -1 with EPIPE where it reads no more, without the signal that would end
 * this process. */
ssize_t qp_child_write(const qp_child_t *child, const void *bytes, size_t n_bytes);

/** Closes an end of a pipe, or nothing; sets it to -1. */
void qp_child_close(int *end);

/**
 * Ends its input, then sends it (its process group, when apart) signals, until it has ended.
 * Returns how many that took. Closes both ends. Nothing where it never began.
 */
int qp_child_stop(qp_child_t *child);

#endif
