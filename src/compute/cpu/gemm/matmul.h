/** \file matmul.h  Dense products: what sums over rows (matmul.c) and rows that stand alone
 * (matmul_rows.c) have in common (matmul_tile.c). */
#ifndef QP_COMPUTE_CPU_GEMM_MATMUL_H
#define QP_COMPUTE_CPU_GEMM_MATMUL_H

#include "compute/cpu/cpu.h"

/** c = mask(alpha op(a) op(b)) + beta c. */
typedef struct {
    qp_cpu_device_t *device;
    qp_dtype_t dtype; /**< in which the operands are multiplied */
    bool trans_a, trans_b;
    float alpha, beta;
    qp_mat_t a, b, c;
    qp_mask_t mask;
    int64_t k;
} qp_cpu_matmul_t;

/** A matrix in the type of the product: itself or a dense copy in scratch. */
qp_mat_t qp_cpu_matmul_cast(const qp_cpu_matmul_t *p, qp_cpu_scratch_slot_t slot, qp_mat_t m);

/** Bytes of such a copy. */
size_t qp_cpu_matmul_cast_bytes(qp_dtype_t dtype, int64_t n_row, int64_t n_col);

/** Rows [row, row + m) and columns [col, col + n), n <= QP_CPU_COLS, of a product. */
typedef struct {
    float *x; /**< rows ld apart; used up */
    int64_t ld;
    float alpha; /**< x is still to be multiplied by it */
    int64_t row, m, col, n;
} qp_cpu_matmul_tile_t;

/** c = mask(alpha x) + beta c */
void qp_cpu_matmul_write(const qp_cpu_matmul_t *p, const qp_cpu_matmul_tile_t *tile);

/** Bytes of a thread's memory in qp_cpu_matmul_rows(). */
size_t qp_cpu_matmul_lane_bytes(const qp_cpu_device_t *device, qp_dtype_t dtype, int64_t k);

/** Without trans_a: a row of c depends on its own row of a alone. */
qp_error_t qp_cpu_matmul_rows(const qp_cpu_matmul_t *p);

#endif
