/** \file linear_testing.h  Frozen weights of every kind, and the numbers that they stand for. */
#ifndef QP_TEST_LINEAR_TESTING_H
#define QP_TEST_LINEAR_TESTING_H

#include "compute/cpu/rows/quantise.h"
#include "cpu_testing.h"

/** Of LLM.int8. */
static const float threshold = 6.0f;

/* A linear and what it stands for. */
typedef struct {
    qp_weight_t w;
    int8_t *q;     /* [n_out, n_in] int8 kinds */
    float *scale;  /* [n_out] */
    float *bias;   /* [n_out] or NULL */
    double *dense; /* [n_out, n_in] weights as stored, rotated back */
} linear_t;

/* The definition: H_ij = (-1)^popcount(i & j) / sqrt(block). */
static inline void rotate_twin(double *row, int64_t n)
{
    int64_t block = 64;
    while (n % block != 0)
        block /= 2;
    double out[64];
    for (int64_t first = 0; first < n; first += block) {
        for (int64_t i = 0; i < block; i++) {
            out[i] = 0.0;
            for (int64_t j = 0; j < block; j++)
                out[i] += (__builtin_popcountll((unsigned long long)(i & j)) & 1 ? -1.0 : 1.0) *
                          row[first + j] / sqrt((double)block);
        }
        memcpy(row + first, out, (size_t)block * sizeof *out);
    }
}

static inline bool is_int8(qp_weight_kind_t kind)
{
    return kind == QP_WEIGHT_INT8 || kind == QP_WEIGHT_LLM_INT8;
}

/* Row o of the linear: normal numbers, quantised as import does; l->dense gets what is left of it.
 */
static inline void make_row(linear_t *l, int64_t o, void *plain)
{
    const int64_t n = l->w.n_in;
    const qp_philox_key_t key = {.seed = 11, .sample = (uint32_t)o};
    double *row = l->dense + o * n, absmax = 0.0;
    for (int64_t i = 0; i < n; i++)
        row[i] = (double)qp_philox_normal(&key, (uint64_t)i);
    if (l->w.kind == QP_WEIGHT_INT8)
        rotate_twin(row, n);
    for (int64_t i = 0; i < n; i++)
        absmax = fmax(absmax, fabs(row[i]));
    l->scale[o] = (float)(absmax / 127.0);
    for (int64_t i = 0; i < n; i++) {
        if (is_int8(l->w.kind)) {
            l->q[o * n + i] = (int8_t)rint(row[i] / (double)l->scale[o]);
            row[i] = (double)l->q[o * n + i] * (double)l->scale[o];
        } else if (l->w.kind == QP_WEIGHT_BF16) {
            ((uint16_t *)plain)[o * n + i] = qp_f32_to_bf16((float)row[i]);
            row[i] = (double)qp_bf16_to_f32(qp_f32_to_bf16((float)row[i]));
        } else {
            ((float *)plain)[o * n + i] = (float)row[i];
            row[i] = (double)(float)row[i];
        }
    }
    if (l->w.kind == QP_WEIGHT_INT8)
        rotate_twin(row, n);
}

/** All of \a w is given but its storage. */
static inline linear_t make_weight(qp_device_t *device, qp_weight_t w)
{
    const int64_t n_out = w.n_out, n_in = w.n_in;
    const bool has_bias = w.has_bias, int8 = is_int8(w.kind);
    linear_t l = {.w = w};
    l.q = QP_NEW("test", int8_t, n_out * n_in);
    l.scale = QP_NEW("test", float, n_out);
    l.bias = has_bias ? QP_NEW("test", float, n_out) : NULL;
    l.dense = QP_NEW("test", double, n_out *n_in);
    float *plain = QP_NEW("test", float, n_out *n_in);
    for (int64_t o = 0; o < n_out; o++) {
        make_row(&l, o, plain);
        if (has_bias)
            l.bias[o] = 0.1f * (float)(o % 7);
    }
    pack_weight(device, &l.w, int8 ? (void *)l.q : plain, int8 ? l.scale : NULL, l.bias, n_out);
    QP_FREE(plain);
    return l;
}

static inline void free_linear(qp_device_t *device, linear_t *l)
{
    device->ops->release(device, &l->w.storage);
    QP_FREE(l->q);
    QP_FREE(l->scale);
    QP_FREE(l->bias);
    QP_FREE(l->dense);
}

/* Row of x as the backend quantises it: 128 + integer. LLM.int8: absmax below the threshold. */
static inline float quantise_twin(uint8_t *q, const linear_t *l, const tensor_t *x, int64_t r)
{
    const int64_t n = l->w.n_in;
    float *row = QP_NEW("test", float, n);
    for (int64_t i = 0; i < n; i++)
        row[i] = (float)x->x[r * n + i];
    if (l->w.kind == QP_WEIGHT_INT8)
        qp_cpu_hadamard(row, n, qp_hadamard_block(n));
    const float absmax = l->w.kind == QP_WEIGHT_INT8 ? qp_cpu_absmax(row, n)
                                                     : qp_cpu_absmax_below(row, n, threshold);
    const float scale = qp_cpu_quantise(q, row, n, absmax);
    QP_FREE(row);
    return scale;
}

#endif
