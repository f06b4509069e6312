/** \file tree.h  The deterministic sum over the ranks of one MPI communicator. */
#ifndef QP_COMM_TREE_H
#define QP_COMM_TREE_H

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"

/** The tree sum over one communicator, with its buffers; see tree.c. */
typedef struct {
    MPI_Comm comm;
    int rank, size;
    bool patient;   /**< sleep between polls instead of spinning (helper threads) */
    int *count;     /**< [4 * size] counts and offsets of the two exchanges */
    void *pieces;   /**< [size][ceil(chunk / size)] contributions of all ranks to my piece */
    size_t n_bytes; /**< of pieces */
} qp_tree_t;

void qp_tree_init(qp_tree_t *tree, MPI_Comm comm, bool patient);
void qp_tree_fini(qp_tree_t *tree);
/** In place; dtype is QP_F32 or QP_F64. Collective over tree->comm. */
void qp_tree_sum(qp_tree_t *tree, void *data, int64_t n, qp_dtype_t dtype);

#endif
