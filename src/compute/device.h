/**
 * \file device.h
 * Devices, device memory and queues as the code above sees them. A device address is opaque: only
 * ops of its backend may look behind it.
 */
#ifndef QP_COMPUTE_DEVICE_H
#define QP_COMPUTE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/timer.h"
#include "compute/budget.h"

/** Device address; {0} is none. */
typedef struct {
    uintptr_t address;
} qp_dptr_t;

static inline qp_dptr_t qp_dptr_at(qp_dptr_t p, size_t bytes)
{
    return (qp_dptr_t){p.address + bytes};
}

static inline bool qp_dptr_is_null(qp_dptr_t p)
{
    return p.address == 0;
}

/** A row-major matrix on the device; a view, owns nothing. ld: elements from row to row. */
typedef struct {
    qp_dptr_t data;
    qp_dtype_t dtype;
    int64_t n_row, n_col, ld;
} qp_mat_t;

/** Dense view (ld = n_col). */
static inline qp_mat_t qp_mat(qp_dptr_t data, qp_dtype_t dtype, int64_t n_row, int64_t n_col)
{
    return (qp_mat_t){data, dtype, n_row, n_col, n_col};
}

static inline qp_mat_t qp_mat_cols(qp_mat_t m, int64_t first, int64_t n_col)
{
    m.data = qp_dptr_at(m.data, (size_t)first * qp_dtype_bytes(m.dtype));
    m.n_col = n_col;
    return m;
}

static inline qp_mat_t qp_mat_rows(qp_mat_t m, int64_t first, int64_t n_row)
{
    m.data = qp_dptr_at(m.data, (size_t)(first * m.ld) * qp_dtype_bytes(m.dtype));
    m.n_row = n_row;
    return m;
}

typedef enum { QP_BACKEND_AUTO, QP_BACKEND_CPU, QP_BACKEND_CUDA, QP_BACKEND_CHECK } qp_backend_t;

typedef struct {
    int backend;          /**< qp_backend_t */
    int compute;          /**< index into "auto|bf16|fp32" (qp_compute_t) */
    int recompute;        /**< index into "auto|none|layer" */
    int64_t threads;      /**< CPU threads per rank; 0: cores of the node / ranks of the node */
    int allreduce;        /**< index into "auto|mpi|tree|nccl" (qp_allreduce_t) */
    int64_t nccl_timeout; /**< seconds; 0: none */
    double memory;  /**< GB of a GPU that may be used; 0: all. For a dry run it is the GPU's */
    bool dry;       /**< opened for its sizes alone: a GPU need not be there. Not of the deck */
    bool elsewhere; /**< and those of another machine: its CPU may know more. Not of the deck */
} qp_device_config_t;

typedef enum { QP_COMPUTE_AUTO, QP_COMPUTE_BF16, QP_COMPUTE_FP32 } qp_compute_t;
typedef enum {
    QP_ALLREDUCE_AUTO,
    QP_ALLREDUCE_MPI,
    QP_ALLREDUCE_TREE,
    QP_ALLREDUCE_NCCL
} qp_allreduce_t;
typedef enum { QP_RECOMPUTE_AUTO, QP_RECOMPUTE_NONE, QP_RECOMPUTE_LAYER } qp_recompute_t;

struct qp_comm;
struct qp_ops;
struct qp_collectives_maker;

/**
 * One per rank. Holds the backend's op table and its growing scratch memory. Backends extend it
 * (first member of their own struct).
 */
typedef struct qp_device {
    const struct qp_ops *ops;
    void (*close)(struct qp_device *device);
    struct qp_queue *queue;         /**< the default queue */
    char description[160];          /**< for the log */
    qp_device_config_t config;      /**< resolved: backend, compute and threads are definite */
    const struct qp_ops *timed_ops; /**< the backend's own table where ops are timed, or NULL */
    qp_timers_t timers;             /**< of the ops */
    /** How it sums over ranks by itself (collectives.h); NULL: by MPI alone. */
    const struct qp_collectives_maker *collectives;
    /** What alloc() may give, once the op take_budget was called; and what it has given. */
    qp_budget_t budget;
    /** Bytes of its own memory that libraries and code take later on, beside alloc(): an estimate
     * for the memory plan. */
    size_t outside;
    int64_t max_head_dim; /**< features of a head that attention can do at most; 0: any */
    bool queued; /**< work may be done later than an op returns: it pays to queue more before
                    looking */
    bool host_addressable; /**< device addresses are host addresses (CPU): weights may live in
                                node-shared memory, qp_device_from_host() works */
} qp_device_t;

/** A point in the work of a queue; see ops.h. Backends define it. */
typedef struct qp_event qp_event_t;

/** An ordered stream of ops on a device; ops on one queue run in order. Backends extend it. */
typedef struct qp_queue {
    qp_device_t *device;
} qp_queue_t;

/**
 * Makes backend and compute definite where they are "auto". Backend: cuda where the program has it
 * and this node a GPU that it can use, else cpu; before that the environment variable QUIPU_BACKEND
 * (for tests). Compute: bf16 on a GPU and where the CPU has instructions that multiply it (AVX-512
 * BF16, AMX), else fp32: a function of backend and instruction set alone, never of a measurement,
 * for it belongs to a run's identity. *why (a static string, or NULL) tells why the backend; NULL
 * if it was none of our choice. Rank-local.
 */
qp_error_t qp_device_resolve(qp_device_config_t *config, const char **why);

/**
 * Which of the GPUs that this rank sees is its own, for qp_device_open(): the first that no rank
 * before it has taken, whether the launcher shows each rank all GPUs of its node or some. 0 on a
 * backend without GPUs, and for a dry run where there are none. Collective. QP_INPUT: there is none
 * left for a rank.
 */
qp_error_t qp_device_assign(struct qp_comm *comm, const qp_device_config_t *config, int *index);

/**
 * Opens the backend of the config: the GPU of that index, or a share of the cores of a node with so
 * many ranks. Rank-local. QP_INPUT: a backend that this program was built without, or that this
 * node has nothing for; bf16 compute on a CPU that has no AVX-512 (with AVX-512 but no bf16
 * instructions it is emulated: slow, and a warning).
 */
qp_error_t qp_device_open(const qp_device_config_t *config, int index, int node_size,
                          qp_device_t **device);
void qp_device_close(qp_device_t **device);

/**
 * From now on device->ops waits for each op and adds its time to device->timers. Before anything
 * keeps the old table.
 */
void qp_device_time_ops(qp_device_t *device);

/** The device's default queue. */
qp_queue_t *qp_device_queue(qp_device_t *device);

/** "cpu: 2 threads, AVX-512 VNNI BF16, oneDNN 2.6.3, bf16"; owned by the device. */
const char *qp_device_describe(const qp_device_t *device);

/** A host block (node-shared memory) as a device address, and back; only if host_addressable. */
qp_dptr_t qp_device_from_host(const qp_device_t *device, void *host);
void *qp_device_to_host(const qp_device_t *device, qp_dptr_t p);

/** dtype of activations in products: bf16 or fp32 by config.compute. */
static inline qp_dtype_t qp_device_dtype(const qp_device_t *device)
{
    return device->config.compute == QP_COMPUTE_FP32 ? QP_F32 : QP_BF16;
}

#endif
