#include "cuda/nccl/fold.h"

#include "cuda/core/launch.h"

enum { BLOCK = 256 };

/* A thread has one element of all pieces to itself. */
static __global__ void fold_kernel(float *pieces, int64_t n, const qp_merge_t *merge, int n_merge)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    for (int m = 0; m < n_merge; m++)
        pieces[merge[m].to * n + i] += pieces[merge[m].from * n + i];
}

QP_CUDA_BEGIN
qp_error_t qp_cuda_fold(qp_queue_t *q, float *pieces, int64_t n, const qp_merge_t *merge,
                        int n_merge)
{
    if (n == 0 || n_merge == 0)
        return NULL;
    return QP_LAUNCH(q, fold_kernel, qp_blocks_of(n, BLOCK), BLOCK, pieces, n, merge, n_merge);
}
QP_CUDA_END
