/**
 * \file collectives.h
 * Sums over ranks of device memory: the second table beside the op table. "mpi" is there for every
 * device: the tree of comm.h over host memory, in a helper thread, so that it overlaps with what
 * the device computes. A device may have others (cuda/nccl/). All slots are collective.
 */
#ifndef QP_COMPUTE_COLLECTIVES_H
#define QP_COMPUTE_COLLECTIVES_H

#include "comm/comm.h"
#include "compute/ops.h"

typedef struct qp_collectives qp_collectives_t;

typedef struct {
    const char *name;
    /**
     * \a sum at p [n] fp32 over all ranks, in place, with the same bits everywhere: in the order of
     * qp_tree_sum_f32(). It begins when q's work so far is done, and returns at once. Every rank
     * begins the same sums in the same order.
     */
    void (*sum_begin)(qp_collectives_t *c, qp_queue_t *q, qp_dptr_t p, int64_t n);
    /** What is queued in q from here on finds all sums that were begun. Returns the first error of
     * them on this rank. */
    qp_error_t (*sum_wait)(qp_collectives_t *c, qp_queue_t *q);
    void (*destroy)(qp_collectives_t *c);
} qp_collectives_ops_t;

/** What a backend extends (first member of its own struct). */
struct qp_collectives {
    const qp_collectives_ops_t *ops;
};

/** How a device makes its own. */
typedef struct qp_collectives_maker {
    qp_error_t (*create)(qp_comm_t *comm, qp_device_t *device, int64_t n_max, qp_collectives_t **c);
    /** Bytes of the device that a create with n_max takes on n_rank ranks. */
    size_t (*bytes)(const qp_device_t *device, int n_rank, int64_t n_max);
    size_t outside; /**< bytes that a library of its own takes of the device, about */
    int64_t chunk;  /**< elements summed at once */
} qp_collectives_maker_t;

/** Makes the collectives of a device, those of device.allreduce; sums of at most \a n_max elements
 * are under way at a time. */
qp_error_t qp_collectives_create(qp_comm_t *comm, qp_device_t *device, int64_t n_max,
                                 qp_collectives_t **c);
/** Finishes what was begun. Nulls; NULL allowed. */
void qp_collectives_destroy(qp_collectives_t **c);

/** Bytes of the host (pinned) and of the device that a create takes, for the memory plan. */
size_t qp_collectives_host_bytes(const qp_device_t *device, int64_t n_max);
size_t qp_collectives_bytes(const qp_device_t *device, int n_rank, int64_t n_max);
/** Elements that are summed at once. */
int64_t qp_collectives_chunk(const qp_device_t *device);
/** Bytes that libraries take of the device's memory beside that, about. */
size_t qp_collectives_outside(const qp_device_t *device, int n_rank);

/** The collectives "mpi". */
qp_error_t qp_collectives_mpi_create(qp_comm_t *comm, qp_device_t *device, int64_t n_max,
                                     qp_collectives_t **c);

#endif
