/* The optimiser's flat arrays. */
#include "compute/cpu/cpu.h"
#include "compute/cpu/rows/math.h"

#include <math.h>

/* Pieces of a sum: their number is fixed, so the order of the additions does not know the threads.
 */
enum { N_PIECE = 256 };

QP_CPU_CLONES static double sum_squares_piece(const float *restrict x, int64_t n)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

qp_error_t qp_cpu_sum_squares(qp_queue_t *q, qp_dptr_t x, int64_t n, double *out)
{
    double piece[N_PIECE];
    int64_t n_each = (n + N_PIECE - 1) / N_PIECE;
#pragma omp parallel for num_threads(qp_cpu_threads(q, n))
    for (int64_t i = 0; i < N_PIECE; i++) {
        int64_t first = qp_min_i64(i * n_each, n), end = qp_min_i64(first + n_each, n);
        piece[i] = sum_squares_piece(qp_cpu_f32(x) + first, end - first);
    }
    double sum = 0.0;
    for (int i = 0; i < N_PIECE; i++)
        sum += piece[i];
    *out = sum;
    return NULL;
}

/* The constants of one step, rounded to fp32 where torch rounds them. */
typedef struct {
    float grad_scale, decay, one_minus_beta1, beta2, one_minus_beta2, root_bias2, eps, step_size;
} adamw_step_t;

typedef struct {
    float *param, *grad, *m, *v;
    uint16_t *copy;
} adamw_arrays_t;

/* torch.optim.AdamW, single tensor: decay, lerp, addcmul, sqrt, divide, add eps, addcdiv. */
QP_CPU_CLONES static void adamw_chunk(const adamw_arrays_t *a, int64_t first, int64_t n,
                                      const adamw_step_t *s)
{
    float *restrict param = a->param + first, *restrict m = a->m + first,
                    *restrict v = a->v + first;
    const float *restrict grad = a->grad + first;
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * s->grad_scale;
        float p = param[i] * s->decay;
        m[i] = m[i] + s->one_minus_beta1 * (g - m[i]);
        v[i] = v[i] * s->beta2 + s->one_minus_beta2 * g * g;
        float denom = sqrtf(v[i]) / s->root_bias2 + s->eps;
        param[i] = p - s->step_size * (m[i] / denom);
    }
    if (a->copy != NULL)
        qp_cpu_store(a->copy + first, QP_BF16, param, n);
}

qp_error_t qp_cpu_adamw(qp_queue_t *q, qp_dptr_t param, qp_dptr_t copy_bf16, qp_dptr_t grad,
                        qp_dptr_t m, qp_dptr_t v, int64_t n, const qp_adamw_t *hyper)
{
    double step = (double)hyper->step;
    adamw_step_t s = {
        .grad_scale = hyper->grad_scale,
        .decay = (float)(1.0 - hyper->lr * hyper->weight_decay),
        .one_minus_beta1 = (float)(1.0 - hyper->beta1),
        .beta2 = (float)hyper->beta2,
        .one_minus_beta2 = (float)(1.0 - hyper->beta2),
        .root_bias2 = (float)sqrt(1.0 - pow(hyper->beta2, step)),
        .eps = (float)hyper->eps,
        .step_size = (float)(hyper->lr / (1.0 - pow(hyper->beta1, step))),
    };
    adamw_arrays_t a = {qp_cpu_f32(param), qp_cpu_f32(grad), qp_cpu_f32(m), qp_cpu_f32(v),
                        qp_cpu_bf16(copy_bf16)};
#pragma omp parallel for num_threads(qp_cpu_threads(q, n))
    for (int64_t first = 0; first < n; first += QP_CPU_CHUNK)
        adamw_chunk(&a, first, qp_min_i64(n - first, QP_CPU_CHUNK), &s);
    return NULL;
}
