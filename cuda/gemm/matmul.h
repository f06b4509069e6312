/**
 * \file matmul.h
 * Products of floats, and of floats with int8 weights as whole numbers, by kernels of our own: a
 * row of the result depends on its own row of a alone (ascending order of the summed features, no
 * split), whatever the number of rows.
 */
#ifndef QP_CUDA_GEMM_MATMUL_H
#define QP_CUDA_GEMM_MATMUL_H

#include "cuda/cuda.h"

QP_CUDA_BEGIN

/**
 * c = mask(alpha op(a) op(b) [column scales] + bias) + beta c, where what is null does not count.
 *
 * The operands are multiplied as fp32 (fused multiply-adds in fp32) if dtype is QP_F32, else as
 * bf16 with fp32 sums (operands in fp32 are rounded to bf16 first). b may be QP_I8: whole numbers,
 * exact in either. c is fp32 or bf16.
 */
typedef struct {
    qp_dtype_t dtype;
    bool trans_a, trans_b;
    float alpha, beta;
    qp_mat_t a, b, c;
    const float *column_scale; /**< [n], or NULL */
    const float *bias;         /**< [n], or NULL */
    qp_mat_t
        add; /**< [m, n] fp32 or bf16, added at the end; or no data. It may be c (beta is 0). */
    qp_mask_t mask;
} qp_cuda_product_t;

/** Queues the product. Sizes m, n follow from c; k from a. */
qp_error_t qp_cuda_product(qp_queue_t *q, const qp_cuda_product_t *p);

QP_CUDA_END

#endif
