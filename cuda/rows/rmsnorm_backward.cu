/* The gradient of RMS norm: dx = rstd (g - x rstd^2 mean(g x)) with g = dy * weight. */
#include "cuda/rows/four.cuh"

enum { BLOCK = 256 };

typedef struct {
    qp_mat_t dx, dy, x;
    const float *rstd, *weight;
    bool accumulate;
} rmsnorm_backward_t;

/* One row per block, read twice: the second time from the cache. dx may be dy. */
template <int W> static __global__ void rmsnorm_backward_kernel(rmsnorm_backward_t b)
{
    const int64_t row = blockIdx.x, n = b.x.n_col;
    float g[W], x[W], w[W], dot = 0.0f;
    for (int64_t col = W * threadIdx.x; col < n; col += W * BLOCK) {
        qp_get(g, b.dy, row, col);
        qp_get(x, b.x, row, col);
        qp_get(w, b.weight + col);
        for (int i = 0; i < W; i++)
            dot = fmaf(g[i] * w[i], x[i], dot);
    }
    dot = qp_block_sum(dot);
    const float rstd = b.rstd[row], slope = rstd * rstd * rstd * dot / (float)n;
    for (int64_t col = W * threadIdx.x; col < n; col += W * BLOCK) {
        float old[W] = {};
        qp_get(g, b.dy, row, col);
        qp_get(x, b.x, row, col);
        qp_get(w, b.weight + col);
        if (b.accumulate)
            qp_get(old, b.dx, row, col);
        for (int i = 0; i < W; i++) {
            g[i] = g[i] * w[i] * rstd - x[i] * slope;
            g[i] = b.accumulate ? old[i] + g[i] : g[i];
        }
        qp_put(g, b.dx, row, col);
    }
}

QP_CUDA_BEGIN
qp_error_t qp_cuda_rmsnorm_backward(qp_queue_t *q, qp_mat_t dx, qp_mat_t dy, qp_mat_t x,
                                    qp_dptr_t rstd, qp_dptr_t weight, bool accumulate)
{
    QP_ASSERT(dx.n_row == x.n_row && dx.n_col == x.n_col);
    QP_ASSERT(dy.n_row == x.n_row && dy.n_col == x.n_col);
    if (x.n_row == 0 || x.n_col == 0)
        return NULL;
    const rmsnorm_backward_t b = {
        dx, dy, x, qp_at<const float>(rstd), qp_at<const float>(weight), accumulate};
    const unsigned grid = (unsigned)x.n_row;
    if (qp_in_fours(dx) && qp_in_fours(dy) && qp_in_fours(x) && qp_in_fours(weight))
        return QP_LAUNCH(q, (rmsnorm_backward_kernel<4>), grid, BLOCK, b);
    return QP_LAUNCH(q, (rmsnorm_backward_kernel<1>), grid, BLOCK, b);
}
QP_CUDA_END
