/**
 * \file strip.h
 * Strips: the second operand b [k, n] of a float product, 64 columns at a time, as the products of
 * float.h read it. A strip is made of blocks of 16 steps x 64 columns of four bytes, 4 KiB. A
 * step is a row of b in fp32 and two of them in bf16, element [step][j][i % 2] being b[i][j]; so a
 * strip of bf16 is what oneDNN calls BA16a64b2a. Rows behind the last one are zero, and columns
 * behind the last one up to a multiple of 16; what stands in further columns does not matter.
 */
#ifndef QP_COMPUTE_CPU_GEMM_STRIP_H
#define QP_COMPUTE_CPU_GEMM_STRIP_H

#include "compute/cpu/cpu.h"

enum { QP_CPU_STRIP = 64, QP_CPU_STRIP_BLOCK = 16 * QP_CPU_STRIP * 4 };

/** Rows of b in a block: 16 or 32. */
static inline int64_t qp_cpu_strip_depth(qp_dtype_t dtype)
{
    return dtype == QP_BF16 ? 32 : 16;
}

/** Bytes of one strip: a multiple of 4 KiB. */
static inline size_t qp_cpu_strip_bytes(qp_dtype_t dtype, int64_t k)
{
    const int64_t depth = qp_cpu_strip_depth(dtype);
    return qp_bytes((k + depth - 1) / depth, QP_CPU_STRIP_BLOCK);
}

static inline int64_t qp_cpu_strips(int64_t n)
{
    return (n + QP_CPU_STRIP - 1) / QP_CPU_STRIP;
}

/**
 * Writes b [k, n], n <= 64, as a strip of \a dtype (fp32 or bf16) from row-major rows of \a from
 * (fp32 or bf16, leading dimension ld): b itself, or with \a trans its transpose [n, k]. Any
 * thread.
 */
void qp_cpu_strip_pack(void *to, qp_dtype_t dtype, const void *from, qp_dtype_t from_dtype,
                       int64_t ld, bool trans, int64_t k, int64_t n);

/** The transpose of a strip: to [64, k] in the same type, leading dimension ld; k a multiple of the
 * depth. */
void qp_cpu_strip_unpack(void *to, int64_t ld, qp_dtype_t dtype, const void *strip, int64_t k);

/** A strip of fp32 from one of bf16. */
void qp_cpu_strip_widen(float *to, const void *strip, int64_t k);

#endif
