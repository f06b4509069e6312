/*
 * KL between the distributions over the vocabulary that two hidden states give. With z the logits
 * of a row, m their maximum and s the sum of exp(z - m),
 *
 *     kl = sum of p ((z_p - m_p) - (z_q - m_q)) - log s_p + log s_q.
 *
 * A few rows at a time: their logits are all that is kept.
 */
#include "compute/cpu/cpu.h"
#include "compute/cpu/rows/math.h"

#include <math.h>

enum { ROWS = 8 };

QP_CPU_CLONES static float largest(const float *restrict z, int64_t n)
{
    float top = z[0];
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < n; i++)
        top = z[i] > top ? z[i] : top;
    return top;
}

QP_CPU_CLONES static float kl_row(const float *restrict p, const float *restrict q, int64_t n)
{
    const float top_p = largest(p, n), top_q = largest(q, n);
    float sum_p = 0.0f, sum_q = 0.0f, weighted = 0.0f;
#pragma omp simd reduction(+ : sum_p, sum_q, weighted)
    for (int64_t i = 0; i < n; i++) {
        const float below_p = p[i] - top_p, below_q = q[i] - top_q;
        const float w = qp_cpu_expf(below_p);
        sum_p += w;
        sum_q += qp_cpu_expf(below_q);
        weighted += w * (below_p - below_q);
    }
    return weighted / sum_p - logf(sum_p) + logf(sum_q);
}

static size_t logit_bytes(int64_t n_vocab)
{
    return qp_bytes(2 * ROWS * n_vocab, sizeof(float));
}

void qp_cpu_lm_kl_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                          qp_cpu_scratch_need_t *need)
{
    (void)device; /* one call's, whatever the threads */
    qp_cpu_need(need, QP_SCRATCH_KL, logit_bytes(size->n_vocab));
}

qp_error_t qp_cpu_lm_kl(qp_queue_t *q, qp_dptr_t kl, qp_mat_t hidden_p, qp_mat_t hidden_q,
                        const qp_weight_t *head)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    const int64_t n_vocab = head->n_out;
    float *out = qp_cpu_f32(kl);
    float *logits = qp_cpu_scratch(device, QP_SCRATCH_KL, logit_bytes(n_vocab));
    QP_ASSERT(hidden_p.n_row == hidden_q.n_row);
    for (int64_t first = 0; first < hidden_p.n_row; first += ROWS) {
        const int64_t n = qp_min_i64(hidden_p.n_row - first, ROWS);
        float *const z[] = {logits, logits + ROWS * n_vocab};
        const qp_mat_t hidden[] = {qp_mat_rows(hidden_p, first, n),
                                   qp_mat_rows(hidden_q, first, n)};
        for (int i = 0; i < 2; i++)
            QP_TRY(qp_cpu_lm_logits(q, qp_mat((qp_dptr_t){(uintptr_t)z[i]}, QP_F32, n, n_vocab),
                                    hidden[i], head));
#pragma omp parallel for num_threads(qp_cpu_threads(q, n *n_vocab))
        for (int64_t r = 0; r < n; r++)
            out[first + r] = kl_row(z[0] + r * n_vocab, z[1] + r * n_vocab, n_vocab);
    }
    return NULL;
}
