/**
 * \file memory_plan.h
 * What the run will allocate, label by label and place by place, against what nodes and devices can
 * give: computed before the first large allocation.
 */
#ifndef QP_TRAIN_RUN_MEMORY_PLAN_H
#define QP_TRAIN_RUN_MEMORY_PLAN_H

#include <stddef.h>

#include "comm/comm.h"
#include "compute/ops.h"

enum { QP_MAX_PLAN_ROW = 16 };

/**
 * Where something is. A device whose memory is the host's (CPU) has none of its own: there what is
 * on the device is host memory of the rank, and the plan has one limit.
 */
typedef enum {
    QP_PLACE_RANK,  /**< host memory, once per rank */
    QP_PLACE_NODE,  /**< host memory, once per node */
    QP_PLACE_DEVICE /**< memory of each rank's device */
} qp_place_t;

/** The same on all ranks. */
typedef struct {
    int n;
    struct {
        const char *name, *label; /* static strings */
        size_t bytes;
        qp_place_t place;
    } row[QP_MAX_PLAN_ROW];
    int64_t n_rank;    /**< ranks of the fullest node */
    int64_t program;   /**< bytes of a rank that is in place before anything is allocated */
    int64_t host_free; /**< bytes a node can give, the least of all nodes; -1: unknown */
    bool has_device;   /**< devices have memory of their own */
    /** Of the smallest device; what others have of it is a row. Each rank has its own; -1: unknown
     */
    int64_t device_free;
} qp_memory_plan_t;

/** Takes what the program itself has already, and the free memory of all nodes and devices; a row
 * for what stands in a device's memory beside that of ops.h: context, code, libraries, and other
 * programs. Collective: before anything large is allocated. */
qp_error_t qp_memory_plan_init(qp_memory_plan_t *plan, qp_comm_t *comm, qp_device_t *device);
/** The plan of a job with other ranks on other nodes, of which each has host_bytes. Right behind
 * init() of one process. */
void qp_memory_plan_move(qp_memory_plan_t *plan, const qp_device_t *device, int n_rank,
                         int n_node_rank, int64_t host_bytes);
/** \a label: under which it is allocated. On a device it is rounded up to pieces of a budget. */
void qp_memory_plan_add(qp_memory_plan_t *plan, const char *label, size_t bytes, qp_place_t place);
/** Where several rows have one label, they have a name each. */
void qp_memory_plan_add_as(qp_memory_plan_t *plan, const char *name, const char *label,
                           size_t bytes, qp_place_t place);

/** Host bytes of the fullest node; bytes of a device. */
int64_t qp_memory_plan_node_bytes(const qp_memory_plan_t *plan);
int64_t qp_memory_plan_device_bytes(const qp_memory_plan_t *plan);

/** Whether \a extra bytes more on each device still fit (a limit that is unknown is none). */
bool qp_memory_plan_fits(const qp_memory_plan_t *plan, size_t extra);

/** Logs the table at level info. */
void qp_memory_plan_print(const qp_memory_plan_t *plan);

/** Logs what a rank and the fullest node have had at most, beside the plan; of a device also each
 * label that had not what was planned. Collective. */
void qp_memory_plan_compare(const qp_memory_plan_t *plan, qp_comm_t *comm, qp_device_t *device);

/** QP_INPUT naming the place that is too small, the largest rows in it and a hint. */
qp_error_t qp_memory_plan_check(const qp_memory_plan_t *plan);

/** Takes the device's part of the plan, all at once (take_budget of ops.h). No room: QP_IO with the
 * largest rows. Collective. */
qp_error_t qp_memory_plan_take(const qp_memory_plan_t *plan, qp_comm_t *comm, qp_device_t *device);

#endif
