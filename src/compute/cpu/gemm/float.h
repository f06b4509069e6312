/**
 * \file float.h
 * Products of floats whose rows stand alone: an element of the result is one chain of fused
 * multiply-adds over k, in order, whatever the rows beside it and however many there are. In fp32
 * the bits are those of every CPU with FMA. Where there is AMX oneDNN multiplies bf16, several
 * times as fast.
 */
#ifndef QP_COMPUTE_CPU_GEMM_FLOAT_H
#define QP_COMPUTE_CPU_GEMM_FLOAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"

enum { QP_CPU_PART = 24 }; /**< rows that are best multiplied at a time: a multiple of all blocks */

/** c = a b, or c += a b in the same chain. */
typedef struct qp_cpu_float {
    float *c;      /**< [m, n], rows 64 apart; columns up to the next multiple of 16 are written */
    const void *a; /**< [m, k] in the type of the product, rows lda apart */
    const void *strip; /**< [k, n <= 64], strip.h */
    int64_t lda, m, n, k;
    bool accumulate;
} qp_cpu_float_t;

/** In the calling thread. */
typedef void (*qp_cpu_float_product_t)(const qp_cpu_float_t *p);

/**
 * The product of fp32 or bf16 for this CPU; NULL for bf16 without AVX-512. Like oneDNN's, it is
 * capped by ONEDNN_MAX_CPU_ISA: all machines of a kind can be tried on one.
 */
qp_cpu_float_product_t qp_cpu_float_product(qp_dtype_t dtype);

#endif
