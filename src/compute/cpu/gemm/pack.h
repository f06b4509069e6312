/**
 * \file pack.h
 * The second operand b [k, n] of a product, in the layout that oneDNN multiplies without copying
 * it first. Worth it wherever one b is used more than once.
 *
 * bf16 is packed where oneDNN likes it so (qp_cpu_device_t.packed_bf16): the strips of strip.h
 * one after the other, missing columns zero (oneDNN's BA16a64b2a). Everything else stays row-major.
 * In a product with a packed operand the others must be dense (lda = k, ldc = n): else oneDNN has
 * only plain loops for it, and qp_cpu_gemm_get() fails. Below k = 32 plain operands are faster.
 */
#ifndef QP_COMPUTE_CPU_GEMM_PACK_H
#define QP_COMPUTE_CPU_GEMM_PACK_H

#include "compute/cpu/cpu.h"

/** Bytes of a packed (or, where that is not done, dense) operand of \a dtype; multiple of 64. */
size_t qp_cpu_operand_bytes(const qp_cpu_device_t *device, qp_dtype_t dtype, int64_t k, int64_t n);

/**
 * Sets packed_b, trans_b and ldb of a product whose b was (or will be) written by
 * qp_cpu_operand_pack() with the same \a trans; k, n and b of the spec are set.
 */
void qp_cpu_operand_describe(const qp_cpu_device_t *device, qp_cpu_gemm_spec_t *spec, bool trans);

/**
 * Writes b [k, n] in \a dtype (fp32 or bf16) from row-major rows of \a from (fp32 or bf16, leading
 * dimension ld): b itself, or with \a trans its transpose [n, k]. Any thread.
 */
void qp_cpu_operand_pack(const qp_cpu_device_t *device, void *to, qp_dtype_t dtype,
                         const void *from, qp_dtype_t from_dtype, int64_t ld, bool trans, int64_t k,
                         int64_t n);

#endif
