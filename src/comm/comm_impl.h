/** \file comm_impl.h  What is inside qp_comm_t; for the sources of this folder. */
#ifndef QP_COMM_COMM_IMPL_H
#define QP_COMM_COMM_IMPL_H

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

#endif
