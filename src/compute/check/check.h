/**
 * \file check.h
 * The backend "check", a tool for developers: the ops of the CPU under the strictest reading of the
 * contract in ops.h.
 *
 * - A device address points to memory that nobody can read or write; ops get the address of what
 *   lies behind it. So host code that looks behind an address ends with a message that names the
 *   allocation, as does an op that gets an address outside of live memory.
 * - Work is queued and done as late as possible, when something waits for it, and with several
 *   queues in an order that a seed (environment variable QUIPU_CHECK_SEED) draws. So what is not
 *   waited for is not there.
 * - Asynchronous copies from or to host memory that is not pinned end with a message.
 * - An op that is larger than the passes that reserve() was told of ends with a message that says
 *   so.
 * - New memory, and what discard() was told of, is full of NaN (-1 as a whole number), and so is
 * the target of download_async() until its time has come.
 *
 * With the environment variable QUIPU_CHECK_MEMORY it is a device with so many bytes of its own: it
 * gives no more, the memory plan knows, and a run gets no byte that was not planned.
 *
 * Results are those of the CPU, bit for bit.
 */
#ifndef QP_COMPUTE_CHECK_H
#define QP_COMPUTE_CHECK_H

#include <pthread.h>

#include "compute/cpu/cpu.h"

/** Opens the device; see qp_device_open(). */
qp_error_t qp_check_device_open(const qp_device_config_t *config, int index, int node_size,
                                qp_device_t **device);

/* --- check_memory.c --------------------------------------------------------------------------- */

typedef struct {
    const char *label;
    uintptr_t address;
    size_t bytes;
    bool alive;
} qp_check_block_t;

typedef struct {
    pthread_mutex_t lock; /**< of the list of blocks */
    int n_open;
    char *address;           /**< what is given out: no page of it can be touched */
    char *data;              /**< what lies behind it, of the same size */
    size_t used;             /**< addresses are never given out again */
    qp_check_block_t *block; /**< [n_block] in the order of their addresses */
    int64_t n_block, capacity;
} qp_check_memory_t;

/** The memory of all devices of the process: as on a card, an address of one is good for another.
 * Each open is followed by a close. */
qp_error_t qp_check_memory_open(qp_check_memory_t **memory);
void qp_check_memory_close(qp_check_memory_t **memory);
qp_error_t qp_check_memory_alloc(qp_check_memory_t *memory, const char *label, size_t bytes,
                                 qp_dptr_t *out);
/** Returns how many bytes it had; *label: under which one, unchanged where there was none. */
size_t qp_check_memory_release(qp_check_memory_t *memory, qp_dptr_t p, const char **label);

/**
 * What lies behind \a bytes at a device address, for \a op (a static string); aborts if they are
 * not inside of one live allocation. None gives none.
 */
qp_dptr_t qp_check_behind(qp_check_memory_t *memory, const char *op, qp_dptr_t p, size_t bytes);

/* --- check_queue.c ---------------------------------------------------------------------------- */

typedef struct qp_check_device qp_check_device_t;
typedef struct qp_check_queue qp_check_queue_t;

/** Work in a queue. Extended by what an op is given (first member of their own struct). */
typedef struct qp_check_task {
    struct qp_check_task *next;
    const char *op;
    /** NULL: only waits for the place \a until in the queue \a after. */
    qp_error_t (*run)(struct qp_check_task *task, qp_queue_t *cpu);
    qp_check_device_t *device;
    const qp_check_queue_t *after;
    uint64_t until;
    qp_pass_size_t used; /**< the size of pass that the op is of, as far as its arguments tell */
    void **kept;         /**< [n_kept] owned copies of what the arguments point to */
    int n_kept, capacity;
} qp_check_task_t;

struct qp_check_queue {
    qp_queue_t base; /* first */
    qp_check_queue_t *next;
    qp_check_task_t *first, *last;
    uint64_t n_put, n_done;
};

/** Host memory that the device may read and write by itself. */
typedef struct {
    const char *start;
    size_t bytes;
} qp_check_pinned_t;

struct qp_check_device {
    qp_device_t base; /* first */
    qp_device_t *cpu; /**< who computes */
    qp_check_memory_t *memory;
    pthread_mutex_t lock;      /**< around every slot: a helper thread may wait, too */
    qp_check_queue_t *queue;   /**< list of all; the last one is the default queue */
    qp_check_pinned_t *pinned; /**< [n_pinned] */
    int64_t n_pinned;
    int64_t all_bytes, used_bytes; /**< what alloc may give, -1: no limit; and has given */
    uint64_t seed, draw;
    qp_pass_size_t *reserved; /**< [n_reserved] */
    int64_t n_reserved;
    size_t scratch_bytes; /**< counted against the budget */
    qp_error_t error;     /**< the first of work that was done since something waited */
};

/** A task of \a bytes for a queue. */
void *qp_check_task(qp_queue_t *q, const char *op, size_t bytes,
                    qp_error_t (*run)(qp_check_task_t *task, qp_queue_t *cpu));
/** A copy of host memory that lives as long as the task. NULL gives NULL. */
void *qp_check_keep(qp_check_task_t *task, const void *from, size_t bytes);
/** Puts the task behind the others of the queue. Takes the lock. */
void qp_check_put(qp_queue_t *q, qp_check_task_t *task);
/** Does all work of the queue, or of all of them; returns the first error since the last wait. */
qp_error_t qp_check_wait(qp_queue_t *q);
qp_error_t qp_check_wait_all(qp_check_device_t *device);

/* The slots. */
qp_error_t qp_check_queue_create(qp_device_t *device, qp_queue_t **queue);
void qp_check_queue_destroy(qp_queue_t **queue);
qp_error_t qp_check_event_create(qp_device_t *device, qp_event_t **event);
void qp_check_event_destroy(qp_event_t **event);
qp_error_t qp_check_event_record(qp_queue_t *q, qp_event_t *event);
qp_error_t qp_check_event_wait(qp_queue_t *q, qp_event_t *event);
qp_error_t qp_check_event_synchronize(qp_event_t *event);

/* --- check_pinned.c --------------------------------------------------------------------------- */

/** Aborts if \a op is given host memory that is not pinned. */
void qp_check_is_pinned(qp_check_device_t *device, const char *op, const void *p, size_t bytes);

/* The slots. */
qp_error_t qp_check_host_alloc(qp_device_t *device, const char *label, size_t bytes, void **out);
void qp_check_host_release(qp_device_t *device, void *p);
qp_error_t qp_check_host_register(qp_device_t *device, void *p, size_t bytes);
void qp_check_host_unregister(qp_device_t *device, void *p);

/* --- check_reserve.c -------------------------------------------------------------------------- */

/** Notes a size; the scratch for all of them counts as memory of the device, where a budget says
 * how much it has for that. */
qp_error_t qp_check_reserved(qp_check_device_t *device, const qp_pass_size_t *size);
qp_error_t qp_check_scratch(qp_check_device_t *device);
/** Aborts if no pass that was reserved for is as large as what the task uses. */
void qp_check_covered(const qp_check_task_t *task);

/* --- check_ops.c ------------------------------------------------------------------------------ */

extern const qp_ops_t qp_ops_check;

#endif
