/** \file attention_twin.h  Causal attention and its gradient in plain double-precision loops. */
#ifndef QP_TEST_ATTENTION_TWIN_H
#define QP_TEST_ATTENTION_TWIN_H

#include <math.h>
#include <stdint.h>

#include "base/mem.h"
#include "compute/ops.h"

/** Query t of sequence s of n tokens sees its keys 0..t. qkv [n, (H + 2G) E], out [n, H E], lse [H,
 * n]. */
static inline void attention_twin(double *out, double *lse, const double *qkv,
                                  const qp_attention_t *a, int64_t n)
{
    int64_t e = a->head_dim, ld = (a->n_head + 2 * a->n_kv_head) * e,
            group = a->n_head / a->n_kv_head;
    double *p = QP_NEW("twin", double, n);
    for (int64_t h = 0; h < a->n_head; h++)
        for (int64_t t = 0; t < n; t++) {
            const double *q = qkv + t * ld + h * e;
            const double *k = qkv + (a->n_head + h / group) * e, *v = k + a->n_kv_head * e;
            double top = -INFINITY, sum = 0.0;
            for (int64_t u = 0; u <= t; u++) {
                p[u] = 0.0;
                for (int64_t c = 0; c < e; c++)
                    p[u] += (double)a->scale * q[c] * k[u * ld + c];
                top = fmax(top, p[u]);
            }
            for (int64_t u = 0; u <= t; u++)
                sum += p[u] = exp(p[u] - top);
            for (int64_t c = 0; c < e; c++) {
                double y = 0.0;
                for (int64_t u = 0; u <= t; u++)
                    y += p[u] / sum * v[u * ld + c];
                out[t * a->n_head * e + h * e + c] = y;
            }
            lse[h * n + t] = top + log(sum);
        }
    QP_FREE(p);
}

/** dqkv from dout; out and lse as attention_twin() left them. */
static inline void attention_backward_twin(double *dqkv, const double *dout, const double *out,
                                           const double *lse, const double *qkv,
                                           const qp_attention_t *a, int64_t n)
{
    int64_t e = a->head_dim, ld = (a->n_head + 2 * a->n_kv_head) * e,
            group = a->n_head / a->n_kv_head;
    for (int64_t i = 0; i < n * ld; i++)
        dqkv[i] = 0.0;
    for (int64_t h = 0; h < a->n_head; h++)
        for (int64_t t = 0; t < n; t++) {
            int64_t kv = (a->n_head + h / group) * e, vv = kv + a->n_kv_head * e;
            const double *q = qkv + t * ld + h * e, *dy = dout + t * a->n_head * e + h * e;
            const double *y = out + t * a->n_head * e + h * e;
            double delta = 0.0;
            for (int64_t c = 0; c < e; c++)
                delta += dy[c] * y[c];
            for (int64_t u = 0; u <= t; u++) {
                const double *k = qkv + u * ld + kv, *v = qkv + u * ld + vv;
                double s = 0.0, dp = 0.0;
                for (int64_t c = 0; c < e; c++) {
                    s += (double)a->scale * q[c] * k[c];
                    dp += dy[c] * v[c];
                }
                double p = exp(s - lse[h * n + t]), ds = p * (dp - delta) * (double)a->scale;
                for (int64_t c = 0; c < e; c++) {
                    dqkv[t * ld + h * e + c] += ds * k[c];
                    dqkv[u * ld + kv + c] += ds * q[c];
                    dqkv[u * ld + vv + c] += p * dy[c];
                }
            }
        }
}

#endif
