/** \file comm_impl.h  What is inside qp_comm_t; for the sources of this folder. */
#ifndef QP_COMM_COMM_IMPL_H
#define QP_COMM_COMM_IMPL_H

#include "comm/comm.h"
#include "comm/mpi_check.h"

/** Pieces of at most this many elements go into one MPI call, whose counts are int. */
enum { QP_COMM_PIECE = 1 << 28 };

/** The tree sum over one communicator, with its buffers; see tree.c. */
typedef struct {
    MPI_Comm comm;
    int rank, size;
    bool patient;   /**< sleep between polls instead of spinning (helper threads) */
    int *count;     /**< [4 * size] counts and offsets of the two exchanges */
    void *pieces;   /**< [size][ceil(chunk / size)] contributions of all ranks to my piece */
    size_t n_bytes; /**< of pieces */
} qp_tree_t;

struct qp_comm {
    MPI_Comm world, node;
    int rank, size;
    int node_rank, node_size;
    int n_node;
    bool finalize; /**< this handle started MPI */
    qp_tree_t tree;
};

MPI_Datatype qp_comm_type(qp_dtype_t dtype);

void qp_tree_init(qp_tree_t *tree, MPI_Comm comm, bool patient);
void qp_tree_fini(qp_tree_t *tree);
/** In place; dtype is QP_F32 or QP_F64. Collective over tree->comm. */
void qp_tree_sum(qp_tree_t *tree, void *data, int64_t n, qp_dtype_t dtype);

#endif
