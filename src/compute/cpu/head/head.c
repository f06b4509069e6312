#include "compute/cpu/head/head.h"

#include "compute/cpu/rows/math.h"

/* Returns what earlier sums of the row are to be multiplied by. */
QP_CPU_CLONES static float scan_row(qp_cpu_head_row_t *row, float *restrict z, int64_t n,
                                    int64_t target)
{
    float top = row->top, sum = 0.0f, weighted = 0.0f;
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < n; i++)
        top = z[i] > top ? z[i] : top;
    if (target >= 0) {
        row->target_logit = z[target];
        z[target] = -INFINITY;
    }
#pragma omp simd reduction(+ : sum, weighted)
    for (int64_t i = 0; i < n; i++) {
        const float below = z[i] - top, p = qp_cpu_expf(below);
        sum += p;
        weighted += p * (below < -128.0f ? -128.0f : below); /* p is 0 there; 0 times -inf is not */
        z[i] = p;
    }
    /* A sum that is not a number stays one. */
    const float shrink = row->sum != 0.0f ? qp_cpu_expf(row->top - top) : 0.0f;
    if (row->sum != 0.0f)
        weighted += shrink * (row->weighted + (row->top - top) * row->sum);
    row->sum = row->sum != 0.0f ? sum + shrink * row->sum : sum;
    row->weighted = weighted;
    row->top = top;
    return shrink;
}

QP_CPU_CLONES static void scale_row(float *restrict x, float factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

void qp_cpu_head_scan(qp_cpu_head_row_t *row, float *z, int64_t n, int64_t target, float *out,
                      int64_t d)
{
    const float shrink = scan_row(row, z, n, target);
    if (out != NULL && shrink != 1.0f)
        scale_row(out, shrink, d);
}

/* out becomes scale (sum w - out). */
QP_CPU_CLONES static void finish_gradient(float *restrict out, const float *restrict w, float sum,
                                          float scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = scale * (sum * w[i] - out[i]);
}

void qp_cpu_head_write(const qp_cpu_head_result_t *to, int64_t r, const qp_cpu_head_row_t *row,
                       bool counts, float *out, const float *w)
{
    const int64_t d = to->dhidden.n_col;
    const float below = counts ? row->target_logit - row->top : 0.0f;
    const float target_p = counts ? qp_cpu_expf(below) : 0.0f, sum = row->sum + target_p;
    to->logprob[r] = counts ? below - logf(sum) : 0.0f;
    if (to->entropy != NULL) {
        const float target_part = target_p * (below < -128.0f ? -128.0f : below);
        to->entropy[r] = logf(sum) - (row->weighted + target_part) / sum;
    }
    if (out == NULL)
        return;
    if (counts)
        finish_gradient(out, w, row->sum, 1.0f / sum, d);
    else
        memset(out, 0, qp_bytes(d, sizeof *out));
    qp_cpu_convert(qp_cpu_at(&to->dhidden, r, 0), to->dhidden.dtype, out, QP_F32, d);
}
