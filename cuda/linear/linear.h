/**
 * \file linear.h
 * Products with frozen weights, in the steps that linear_forward(), linear_backward() and the
 * language-model head in int8 are made of: rows are prepared (function of the row, rotation, scales
 * of dy, rounding), then multiplied. Numbers are those of the CPU (compute/cpu/linear): an int8
 * product of the same rows has the same bits.
 *
 * int8 products go through int32 sums of some columns at a time, which stay in the GPU's cache;
 * backward transposes the weights of those columns first.
 */
#ifndef QP_CUDA_LINEAR_LINEAR_H
#define QP_CUDA_LINEAR_LINEAR_H

#include "cuda/cuda.h"
#include "cuda/gemm/cublaslt.h"

QP_CUDA_BEGIN

/* --- weights ---------------------------------------------------------------------------------- */

/** The parts of a weight. */
typedef struct {
    qp_weight_kind_t kind;
    int64_t n_out, n_in;
    qp_linear_mode_t mode;
    /** [n_out, ld] in qp_weight_dtype(): whole numbers if int8, neither scaled nor rotated back;
     *  then zeros are behind, up to ld and to the next multiple of QP_INT8_ROWS rows. */
    const void *data;
    int64_t ld;         /**< n_in; of int8 rounded up to a multiple of QP_INT8_ALIGN */
    const float *scale; /**< [n_out] of int8 kinds, or NULL */
    const float *bias;  /**< [n_out], or NULL */
} qp_cuda_weight_t;

qp_cuda_weight_t qp_cuda_weight(const qp_weight_t *w);

/** Outputs [first, first + n), first a multiple of QP_WEIGHT_ROWS, as a weight of its own. Its rows
 * are followed by others, not by zeros, unless they are the last ones. */
qp_cuda_weight_t qp_cuda_weight_rows(const qp_cuda_weight_t *w, int64_t first, int64_t n);

static inline bool qp_cuda_weight_is_int8(const qp_cuda_weight_t *w)
{
    return w->kind == QP_WEIGHT_INT8 || w->kind == QP_WEIGHT_LLM_INT8;
}

/* --- rows ------------------------------------------------------------------------------------- */

/** Type of a product: QP_I8, QP_BF16 or QP_F32; the latter two with int8 weights are "on whole
 * numbers" (qp_linear_mode_t). */
qp_dtype_t qp_cuda_linear_dtype(const qp_cuda_device_t *device, const qp_cuda_weight_t *w,
                                bool backward);

/** Rows as a product takes them. */
typedef struct {
    qp_dtype_t dtype;
    int64_t n_row, n_col;
    int64_t ld;         /**< int8: a multiple of QP_INT8_ALIGN; what is behind n_col is finite */
    void *data;         /**< [n_row, ld], aligned to 16 bytes; int8: room for qp_int8_rows(n_row) */
    float *scale;       /**< [n_row] of int8 rows */
    int32_t zero_point; /**< backward, int8: what stands for 0 in them, say -128; else 0 */
} qp_cuda_rows_t;

/** Room for rows, cut off \a at (qp_cuda_carve()); from NULL it says how much they take. */
qp_cuda_rows_t qp_cuda_rows(qp_dtype_t dtype, int64_t n_row, int64_t n_col, char **at);

/** Queues: \a rows, of qp_cuda_linear_dtype(), are made of x for the product with w. Not of
 * LLM.int8 in int8. */
qp_error_t qp_cuda_linear_prepare(qp_queue_t *q, const qp_cuda_rows_t *rows, const qp_input_t *x,
                                  const qp_cuda_weight_t *w, bool backward);

/* --- products --------------------------------------------------------------------------------- */

/** Outlier columns of x that LLM.int8 keeps beside the int8 product; on the device. */
typedef struct {
    const int32_t *count;  /**< [1] how many there are */
    const int32_t *column; /**< [count] input features, ascending */
    const void *thin;      /**< [n_row, count] in thin_dtype, rows ld apart */
    qp_dtype_t thin_dtype;
    int64_t ld;
} qp_cuda_outliers_t;

/** y [n_row, n_col] = add + a times the weights (forward: with their scales and bias) or their
 * transpose (backward: dx, rotated back). */
typedef struct {
    const qp_cuda_weight_t *w;
    bool backward;
    qp_cuda_rows_t a;
    qp_mat_t y, add;                    /**< add: no data is zero; may be y */
    const qp_cuda_outliers_t *outliers; /**< or NULL */
} qp_cuda_linear_t;

/** Queues the product. Slots PRODUCT, TRANSPOSED, WORKSPACE. */
qp_error_t qp_cuda_linear_product(qp_queue_t *q, const qp_cuda_linear_t *l);

/* qp_cuda_linear_need() counts n_token, widest, weight and backward of the size it is given: the
 * head calls it with a size of its own, as compute/cpu/head/lm_head_int8.c does. */

QP_CUDA_END

#endif
