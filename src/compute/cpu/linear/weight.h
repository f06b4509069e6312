/**
 * \file weight.h
 * How frozen weights lie in memory, and panels of them ready for a product.
 *
 * int8 weights are packed where oneDNN (AVX-512 VNNI) or our own product (int8.h, AVX2)
 * multiplies them so and n_in is a multiple of 64. The packed form is made of blocks of 64 outputs
 * x 64 inputs, all blocks of the first 64 outputs first, missing outputs zero; inside a block byte
 * [i / 4][o][i % 4] is W[o][i] (oneDNN's BA16a64b4a). So the columns of y from a multiple of 64 on
 * are one piece of memory, and the transposed matrix has the same blocks with each tile of 4 x 4
 * bytes transposed. Other int8 weights are row-major [n_out, n_in].
 *
 * fp32 and bf16 weights are W^T [n_in, n_out] in strips (strip.h): forward reads them as they
 * lie, in one stream. Those of a head lie as they come, [n_out, n_in].
 */
#ifndef QP_COMPUTE_CPU_LINEAR_WEIGHT_H
#define QP_COMPUTE_CPU_LINEAR_WEIGHT_H

#include "compute/cpu/cpu.h"
#include "compute/cpu/gemm/int8.h"

/** A head of fp32 or bf16 as the matrix [n_out, n_in] that it is. */
static inline qp_mat_t qp_cpu_head_rows(const qp_weight_t *w)
{
    return qp_mat(w->storage, qp_weight_dtype(w->kind), w->n_out, w->n_in);
}

/** The parts of a weight. */
qp_cpu_weight_t qp_cpu_weight(const qp_weight_t *w);

/** Features that a product sums over: n_in, or backward n_out, where packed outputs that do not
 * exist count too: what they are multiplied by does not matter. */
int64_t qp_cpu_weight_depth(const qp_cpu_device_t *device, const qp_cpu_weight_t *w, bool backward);

/** Outputs [first, first + n), first a multiple of 64, of int8 weights as a weight of its own,
 * without bias and col_sum. */
qp_cpu_weight_t qp_cpu_weight_outputs(const qp_cpu_weight_t *w, int64_t first, int64_t n);

/** The int8 weights [n_in] of one output, as they are: neither scaled nor rotated back. */
void qp_cpu_weight_output(const qp_cpu_device_t *device, const qp_cpu_weight_t *w, int64_t output,
                          float *to);

static inline bool qp_cpu_weight_is_int8(const qp_cpu_weight_t *w)
{
    return w->kind == QP_WEIGHT_INT8 || w->kind == QP_WEIGHT_LLM_INT8;
}

/**
 * How some columns of the result see the weights: as the matrix b [k, n] of a product. Forward: the
 * columns are outputs, k = n_in; backward: the columns are inputs, k = n_out.
 */
typedef struct {
    bool backward;
    qp_dtype_t dtype; /**< QP_I8, or the floats QP_BF16 and QP_F32, which are in strips */
    bool packed;      /**< int8 blocks; else int8 is stored [n, k] */
    bool copied;      /**< made by qp_cpu_panel() in the caller's buffer; else it is the weights */
    size_t strip_bytes; /**< of 64 columns: one after the other */
} qp_cpu_panel_t;

/** Bytes of 64 columns of int8 of depth \a k. */
static inline size_t qp_cpu_int8_strip_bytes(int64_t k)
{
    return qp_bytes(k, QP_CPU_PACK);
}

/** What panels of \a w look like in a product of \a dtype. */
qp_cpu_panel_t qp_cpu_panel_plan(const qp_cpu_device_t *device, const qp_cpu_weight_t *w,
                                 qp_dtype_t dtype, bool backward);

/**
 * The panel of columns [first, first + n), first a multiple of 64. \a buffer holds as many strips
 * as begin in it when the panel is copied. int8 weights become whole numbers: their scales are the
 * caller's business.
 */
const void *qp_cpu_panel(const qp_cpu_panel_t *panel, const qp_cpu_device_t *device,
                         const qp_cpu_weight_t *w, int64_t first, int64_t n, void *buffer);

/**
 * Rows of a forward panel: to [n_input, n] in bf16 or fp32 holds int8 W[first + j][input[i]] at (i,
 * j).
 */
void qp_cpu_weight_inputs(const qp_cpu_device_t *device, const qp_cpu_weight_t *w, int64_t first,
                          int64_t n, const int32_t *input, int64_t n_input, qp_dtype_t dtype,
                          void *to);

#endif
