/**
 * \file memory_plan.h
 * What the run will allocate, label by label, against what the node can give: computed before the
 * first large allocation.
 */
#ifndef QP_TRAIN_RUN_MEMORY_PLAN_H
#define QP_TRAIN_RUN_MEMORY_PLAN_H

#include <stddef.h>

#include "comm/comm.h"

enum { QP_MAX_PLAN_ROW = 16 };

typedef struct {
    int n;
    struct {
        const char *label; /* static string */
        size_t bytes;
        bool per_node; /* once per node; otherwise once per rank */
    } row[QP_MAX_PLAN_ROW];
    int64_t program;   /**< bytes of a rank that is in place before anything is allocated */
    int64_t available; /**< bytes a node can give, the least of all nodes; -1: unknown */
} qp_memory_plan_t;

/** Takes what the program itself has already, and the available memory of all nodes. Collective:
 * before anything large is allocated. */
void qp_memory_plan_init(qp_memory_plan_t *plan, qp_comm_t *comm);
void qp_memory_plan_add(qp_memory_plan_t *plan, const char *label, size_t bytes, bool per_node);

/** Bytes of the fullest node. */
int64_t qp_memory_plan_node_bytes(const qp_memory_plan_t *plan, qp_comm_t *comm);

/** Whether \a extra bytes more per rank still fit (always true when the memory is unknown). */
bool qp_memory_plan_fits(const qp_memory_plan_t *plan, qp_comm_t *comm, size_t extra);

/** Logs the table at level info. */
void qp_memory_plan_print(const qp_memory_plan_t *plan, qp_comm_t *comm);

/** Logs what a rank and the fullest node have had at most, beside the plan. Collective. */
void qp_memory_plan_compare(const qp_memory_plan_t *plan, qp_comm_t *comm);

/** QP_INPUT with the table's largest rows and a hint when it does not fit. Same on all ranks. */
qp_error_t qp_memory_plan_check(const qp_memory_plan_t *plan, qp_comm_t *comm);

#endif
