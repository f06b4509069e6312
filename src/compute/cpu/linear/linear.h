/** \file linear.h  A product with frozen weights: what linear.c prepares, linear_tile.c
 * computes. */
#ifndef QP_COMPUTE_CPU_LINEAR_LINEAR_H
#define QP_COMPUTE_CPU_LINEAR_LINEAR_H

#include "compute/cpu/linear/weight.h"

/**
 * y [n_row, n_col] = add + a [n_row, k] times the weights (forward) or their transpose (backward).
 * In int8 a is uint8 = zero point + the quantised value (128 where rows are made of x); the zero
 * point times the sum of each weight column is taken off again.
 */
typedef struct {
    qp_cpu_device_t *device;
    const qp_cpu_weight_t *w;
    bool backward;
    int64_t n_row, n_col, k;
    const qp_input_t *x; /**< what a is made of */
    qp_mat_t y, add;     /**< add: no data is zero */

    qp_dtype_t dtype; /**< of a: QP_U8, QP_BF16 or QP_F32 */
    bool prepared;    /**< a is made of x by the product; else it is there */
    void *a;          /**< made: dense, up to the next multiple of QP_CPU_ROUND rows */
    int64_t lda;
    float *row_scale;   /**< [n_row] of int8 rows, or NULL */
    int32_t zero_point; /**< what stands for 0 in them */
    char *rows;         /**< [n_thread] of row_bytes: one row in fp32 */
    size_t row_bytes;

    /* LLM.int8: the outlier columns of x beside the int8 product; none when n_outlier is 0. */
    qp_dtype_t thin_dtype;
    void *thin;             /**< [n_row, n_outlier] */
    const int32_t *outlier; /**< [n_outlier] input features */
    int64_t n_outlier;
} qp_cpu_linear_t;

/** Type of a product; see qp_linear_mode_t. Weights that are no int8 stay as exact as they are. */
qp_dtype_t qp_cpu_linear_dtype(const qp_cpu_device_t *device, const qp_cpu_weight_t *w,
                               bool backward);

/** The product that an op wants: its type, and room in scratch for the rows that are made of x. */
void qp_cpu_linear_init(qp_cpu_linear_t *l, qp_cpu_device_t *device, const qp_cpu_weight_t *w,
                        const qp_input_t *x, bool backward);

/** Makes all rows now, for products with parts of the weights. */
void qp_cpu_linear_prepare_all(qp_cpu_linear_t *l);

/** Row r of x becomes row r of a. In the calling thread. */
void qp_cpu_linear_prepare(const qp_cpu_linear_t *l, int thread, int64_t r);

/** Most bytes of a thread's memory in a product of depth \a k with copied panels of \a dtype (or
 * int8), and \a n_outlier columns of type \a thin apart. */
size_t qp_cpu_linear_lane_bytes(qp_dtype_t dtype, int64_t k, qp_dtype_t thin, int64_t n_outlier);

qp_error_t qp_cpu_linear_product(const qp_cpu_linear_t *l);

#endif
