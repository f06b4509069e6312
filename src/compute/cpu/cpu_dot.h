/** \file cpu_dot.h  Dot products of bf16 rows, for CPUs with AVX-512 BF16. */
#ifndef QP_COMPUTE_CPU_DOT_H
#define QP_COMPUTE_CPU_DOT_H

#include <stdint.h>

/**
 * c[j * ldc + i] = a_i b_j for the rows of a [n_a, n] and b [n_b, n], both dense bf16; sums in
 * fp32, in an order that depends on n alone. Rows of a come from memory once, those of b should fit
 * the first-level cache. Behind b there must be three more rows, whatever they hold.
 */
typedef struct {
    const uint16_t *a, *b;
    int64_t n_a, n_b, n;
    float *c;
    int64_t ldc;
} qp_cpu_dots_t;

/** In the calling thread. Only where oneDNN has products of bf16 (qp_cpu_device_t.packed_bf16). */
void qp_cpu_dots(const qp_cpu_dots_t *dots);

#endif
