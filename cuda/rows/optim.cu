/* The optimiser's flat arrays. */
#include <math.h>

#include "cuda/core/number.cuh"

enum { BLOCK = 256 };

/* --- sum of squares --------------------------------------------------------------------------- */

/* Partial sums: at most so many, whatever the card, so that the order of the additions is one. */
enum { N_PIECE = 512, PIECE_LEAST = 16 * BLOCK, SUM_BYTES = (N_PIECE + 1) * sizeof(double) };

/* In all threads of the block. */
static __device__ double block_sum(double x)
{
    QP_SHARED(double, part, [BLOCK / QP_WARP]);
    for (int h = QP_WARP / 2; h > 0; h /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, h);
    if (threadIdx.x % QP_WARP == 0)
        part[threadIdx.x / QP_WARP] = x;
    __syncthreads();
    x = 0.0;
    for (int i = 0; i < BLOCK / QP_WARP; i++)
        x += part[i];
    return x;
}

static __global__ void sum_squares_kernel(const float *x, int64_t n, double *piece)
{
    double sum = 0.0;
    for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * BLOCK)
        sum = fma((double)x[i], (double)x[i], sum); /* the product is exact */
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        piece[blockIdx.x] = sum;
}

static __global__ void sum_pieces_kernel(const double *piece, int n_piece, double *sum)
{
    double x = 0.0;
    for (int i = (int)threadIdx.x; i < n_piece; i += BLOCK)
        x += piece[i];
    x = block_sum(x);
    if (threadIdx.x == 0)
        *sum = x;
}

/* --- AdamW ------------------------------------------------------------------------------------ */

/* The constants of one step, rounded to fp32 where torch rounds them. */
typedef struct {
    float grad_scale, decay, one_minus_beta1, beta2, one_minus_beta2, root_bias2, eps, step_size;
} adamw_step_t;

typedef struct {
    float *param, *m, *v;
    const float *grad;
    qp_bf16_t *copy; /* or NULL */
} adamw_arrays_t;

/* torch.optim.AdamW, single tensor: decay, lerp, addcmul, sqrt, divide, add eps, addcdiv. */
static __global__ void adamw_kernel(adamw_arrays_t a, int64_t n, adamw_step_t s)
{
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= n)
        return;
    const float g = a.grad[i] * s.grad_scale, m = a.m[i] + s.one_minus_beta1 * (g - a.m[i]);
    const float v = a.v[i] * s.beta2 + s.one_minus_beta2 * g * g;
    const float denom = sqrtf(v) / s.root_bias2 + s.eps;
    const float p = a.param[i] * s.decay - s.step_size * (m / denom);
    a.m[i] = m;
    a.v[i] = v;
    a.param[i] = p;
    if (a.copy != NULL)
        qp_put(a.copy + i, p);
}

QP_CUDA_BEGIN

void qp_cuda_rows_need(const qp_cuda_device_t *device, const qp_pass_size_t *size,
                       qp_cuda_need_t *need)
{
    (void)device;
    (void)size; /* a norm is asked for beside passes, too */
    qp_cuda_need(need, QP_CUDA_SCRATCH_SUM, SUM_BYTES);
}

qp_error_t qp_cuda_sum_squares(qp_queue_t *q, qp_dptr_t x, int64_t n, double *out)
{
    double *piece = static_cast<double *>(qp_cuda_scratch(q, QP_CUDA_SCRATCH_SUM, SUM_BYTES));
    double *sum = piece + N_PIECE;
    const int64_t n_block = (n + PIECE_LEAST - 1) / PIECE_LEAST;
    const int n_piece = n_block < N_PIECE ? (int)n_block : (int)N_PIECE;
    if (n_piece > 0)
        QP_TRY(QP_LAUNCH(q, sum_squares_kernel, (unsigned)n_piece, BLOCK, qp_at<const float>(x), n,
                         piece));
    QP_TRY(QP_LAUNCH(q, sum_pieces_kernel, 1, BLOCK, piece, n_piece, sum));
    return qp_cuda_download(q, out, qp_dptr_t{reinterpret_cast<uintptr_t>(sum)}, sizeof *out);
}

qp_error_t qp_cuda_adamw(qp_queue_t *q, qp_dptr_t param, qp_dptr_t copy_bf16, qp_dptr_t grad,
                         qp_dptr_t m, qp_dptr_t v, int64_t n, const qp_adamw_t *hyper)
{
    const double step = (double)hyper->step;
    const adamw_step_t s = {
        .grad_scale = hyper->grad_scale,
        .decay = (float)(1.0 - hyper->lr * hyper->weight_decay),
        .one_minus_beta1 = (float)(1.0 - hyper->beta1),
        .beta2 = (float)hyper->beta2,
        .one_minus_beta2 = (float)(1.0 - hyper->beta2),
        .root_bias2 = (float)sqrt(1.0 - pow(hyper->beta2, step)),
        .eps = (float)hyper->eps,
        .step_size = (float)(hyper->lr / (1.0 - pow(hyper->beta1, step))),
    };
    const adamw_arrays_t a = {qp_at<float>(param), qp_at<float>(m), qp_at<float>(v),
                              qp_at<const float>(grad), qp_at<qp_bf16_t>(copy_bf16)};
    if (n == 0)
        return NULL;
    return QP_LAUNCH(q, adamw_kernel, qp_blocks_of(n, BLOCK), BLOCK, a, n, s);
}

QP_CUDA_END
