/** \file cpu_linear.h  A product with frozen weights: what cpu_linear.c prepares, cpu_linear_tile.c
 * computes. */
#ifndef QP_COMPUTE_CPU_LINEAR_H
#define QP_COMPUTE_CPU_LINEAR_H

#include "compute/cpu/cpu_weight.h"

/**
 * y [n_row, n_col] = a [n_row, k] times the weights (forward) or their transpose (backward). In
 * int8 a is uint8 = 128 + the quantised value; 128 times the sum of each weight column is taken off
 * again.
 */
typedef struct {
    qp_cpu_device_t *device;
    const qp_weight_t *w;
    bool backward, accumulate;
    int64_t n_row, n_col, k;
    qp_mat_t y;

    qp_dtype_t dtype; /**< of a: QP_U8, QP_BF16 or QP_F32 */
    void *a;
    int64_t lda;
    float *row_scale; /**< [n_row] of int8 rows, or NULL */

    /* LLM.int8: the outlier columns of x beside the int8 product; none when n_outlier is 0. */
    qp_dtype_t thin_dtype;
    void *thin;             /**< [n_row, n_thin], zeros after the outlier columns */
    const int32_t *outlier; /**< [n_outlier] input features */
    int64_t n_outlier, n_thin;
} qp_cpu_linear_t;

qp_error_t qp_cpu_linear_product(const qp_cpu_linear_t *l);

#endif
