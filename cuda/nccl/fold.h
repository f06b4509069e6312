/** \file fold.h  The sum over what the ranks sent, in the order of comm/tree.c. */
#ifndef QP_CUDA_NCCL_FOLD_H
#define QP_CUDA_NCCL_FOLD_H

#include "cuda/cuda.h"

QP_CUDA_BEGIN

/** One addition of the tree: piece \a to += piece \a from. */
typedef struct {
    int32_t to, from;
} qp_merge_t;

/** pieces [n_piece][n]: the merges (device, [n_merge]) one after the other; the sum is piece 0. */
qp_error_t qp_cuda_fold(qp_queue_t *q, float *pieces, int64_t n, const qp_merge_t *merge,
                        int n_merge);

QP_CUDA_END

#endif
