/** \file comm_impl.h  What is inside qp_comm_t; for the sources of this folder. */
#ifndef QP_COMM_COMM_IMPL_H
#define QP_COMM_COMM_IMPL_H

#include <sched.h>

#include "comm/comm.h"
#include "comm/mpi_check.h"
#include "comm/tree.h"

/** Pieces of at most this many elements go into one MPI call, whose counts are int. */
enum { QP_COMM_PIECE = 1 << 28 };

struct qp_comm {
    MPI_Comm world, node;
    int rank, size;
    int node_rank, node_size;
    int n_node;
    bool finalize; /**< this handle started MPI */
    qp_tree_t tree;
};

/**
 * Keeps the n_part processors of part \a part, of those in \a set: neighbours, in hwloc's order
 * (packages, caches, cores, siblings of a core). Keeps all of them where it does not know them.
 */
void qp_cores_keep_part(cpu_set_t *set, int part, int n_part);

#endif
