/**
 * \file cublaslt.h
 * cuBLASLt, opened by its name when the device is: the program starts on nodes without it. Used for
 * exact products of int8 alone.
 */
#ifndef QP_CUDA_GEMM_CUBLASLT_H
#define QP_CUDA_GEMM_CUBLASLT_H

#include "cuda/cuda.h"

QP_CUDA_BEGIN

typedef struct qp_cublaslt qp_cublaslt_t;

/** QP_INPUT: the library is not there, or older than what the program was built with. */
qp_error_t qp_cublaslt_open(qp_cublaslt_t **lt);
/** Nulls; NULL allowed. */
void qp_cublaslt_close(qp_cublaslt_t **lt);

/** Multiples of them are the leading dimensions and depths of int8 operands, in bytes, and the
 * numbers of their rows: tensor cores want some of it, and the library knows nothing of products
 * with few rows. */
enum { QP_INT8_ALIGN = 16, QP_INT8_ROWS = 32 };

static inline int64_t qp_int8_align(int64_t n)
{
    return (n + QP_INT8_ALIGN - 1) / QP_INT8_ALIGN * QP_INT8_ALIGN;
}

static inline int64_t qp_int8_rows(int64_t n)
{
    return (n + QP_INT8_ROWS - 1) / QP_INT8_ROWS * QP_INT8_ROWS;
}

/** Product of two int8 matrices, each with its rows along the summed features. Rows in excess may
 * hold anything. */
typedef struct {
    const int8_t *a;  /**< [m, k] */
    const int8_t *b;  /**< [n, k] */
    int32_t *c;       /**< [m, n] = a b^T, exact */
    int64_t m, n;     /**< multiples of QP_INT8_ROWS */
    int64_t k;        /**< a multiple of QP_INT8_ALIGN */
    int64_t lda, ldb; /**< multiples of QP_INT8_ALIGN */
    int64_t ldc;      /**< a multiple of 4 */
} qp_int8_product_t;

/** Queues the product. All pointers are aligned to 16 bytes. */
qp_error_t qp_cublaslt_int8(qp_queue_t *q, const qp_int8_product_t *p);

/** Bytes of slot WORKSPACE. */
size_t qp_cublaslt_workspace(const qp_cuda_device_t *device);

QP_CUDA_END

#endif
