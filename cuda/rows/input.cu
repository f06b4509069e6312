#include "cuda/rows/input.cuh"

static __global__ void input_kernel(qp_input_t in)
{
    qp_input_row(in, blockIdx.x, [](int64_t, float) {});
}

QP_CUDA_BEGIN
qp_error_t qp_cuda_input(qp_queue_t *q, const qp_input_t *x)
{
    const int64_t n_col = qp_input_n_col(x);
    QP_ASSERT(x->copy.n_row == x->x.n_row && x->copy.n_col == n_col);
    if (x->x.n_row == 0 || n_col == 0)
        return NULL;
    return QP_LAUNCH(q, input_kernel, (unsigned)x->x.n_row, qp_row_threads(n_col), *x);
}
QP_CUDA_END
