#include "cuda/core/number.cuh"

static __global__ void axpby_kernel(float alpha, qp_mat_t x, float beta, qp_mat_t y)
{
    const int64_t row = blockIdx.x;
    for (int64_t col = threadIdx.x; col < y.n_col; col += blockDim.x) {
        const float old = beta == 0.0f ? 0.0f : beta * qp_mat_get(y, row, col);
        qp_mat_put(y, row, col, alpha * qp_mat_get(x, row, col) + old);
    }
}

QP_CUDA_BEGIN
qp_error_t qp_cuda_axpby(qp_queue_t *q, float alpha, qp_mat_t x, float beta, qp_mat_t y)
{
    if (y.n_row == 0 || y.n_col == 0)
        return NULL;
    return QP_LAUNCH(q, axpby_kernel, (unsigned)y.n_row, 128, alpha, x, beta, y);
}
QP_CUDA_END
