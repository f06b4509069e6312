/** \file impl.h  What the files of cuda/linear/ share. */
#ifndef QP_CUDA_LINEAR_IMPL_H
#define QP_CUDA_LINEAR_IMPL_H

#include "cuda/linear/linear.h"

QP_CUDA_BEGIN

/** Columns [first, first + n) of int8 weights as rows: to [qp_int8_rows(n), ld], ld =
 * qp_int8_align(n_out), zeros where there is no weight. */
qp_error_t qp_cuda_weight_transpose(qp_queue_t *q, int8_t *to, const qp_cuda_weight_t *w,
                                    int64_t first, int64_t n);

/** sum [n] = the sums of rows of int8 [n, ld]. */
qp_error_t qp_cuda_weight_sums(qp_queue_t *q, int32_t *sum, const int8_t *rows, int64_t n,
                               int64_t ld);

/**
 * LLM.int8: as qp_cuda_linear_prepare(), and the outlier columns of x (doc/numerics.md: the batch
 * decides, as in bitsandbytes), which leave \a rows for the first columns of \a thin, of as many
 * rows and columns: how many there are changes from batch to batch. Slot OUTLIER.
 */
qp_error_t qp_cuda_linear_prepare_llm(qp_queue_t *q, const qp_cuda_rows_t *rows,
                                      const qp_cuda_rows_t *thin, qp_cuda_outliers_t *outliers,
                                      const qp_input_t *x, const qp_cuda_weight_t *w);

/** Scratch of the files: rows to prepare, and products. */
void qp_cuda_prepare_need(const qp_cuda_device_t *device, const qp_pass_size_t *size,
                          qp_cuda_need_t *need);
void qp_cuda_product_need(const qp_cuda_device_t *device, const qp_pass_size_t *size,
                          qp_cuda_need_t *need);

QP_CUDA_END

#endif
