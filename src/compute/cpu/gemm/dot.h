/** \file dot.h  Dot products of rows, for CPUs with AVX2 or more. */
#ifndef QP_COMPUTE_CPU_GEMM_DOT_H
#define QP_COMPUTE_CPU_GEMM_DOT_H

#include <stdint.h>

#include "base/dtype.h"

/**
 * c[j * ldc + i] = a_i b_j for the rows of a [n_a, n] and b [n_b, n], both dense; sums in fp32, in
 * an order that depends on n alone. Rows of a come from memory once, those of b should fit the
 * first-level cache. Behind b there must be three more rows, whatever they hold.
 */
typedef struct {
    const void *a, *b;
    int64_t n_a, n_b, n;
    float *c;
    int64_t ldc;
} qp_cpu_dots_t;

/** In the calling thread. */
typedef void (*qp_cpu_dot_product_t)(const qp_cpu_dots_t *dots);

/**
 * Of rows of these types: fp32 with fp32, bf16 with fp32, bf16 with bf16 (AVX-512 BF16). NULL where
 * this CPU has none; it is capped by ONEDNN_MAX_CPU_ISA as oneDNN is.
 */
qp_cpu_dot_product_t qp_cpu_dot_product(qp_dtype_t a, qp_dtype_t b);

#endif
