/** \file math.h  Arithmetic that vectorises when it is inlined into QP_CPU_CLONES functions. */
#ifndef QP_COMPUTE_CPU_ROWS_MATH_H
#define QP_COMPUTE_CPU_ROWS_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/dtype.h"
#include "base/minmax.h"

/** Elements of a row that are in fp32 at a time: they stay in the first-level cache. */
enum { QP_CPU_CHUNK = 1024 };

/** Copies n elements from one of fp32, bf16 to the other (or the same) type. In rows.c. */
void qp_cpu_convert(void *to, qp_dtype_t to_dtype, const void *from, qp_dtype_t from_dtype,
                    int64_t n);

/**
 * exp(x) to 2 ulp for -87.33 <= x <= 88.37. x = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts,
 * the first exact in n * ln2_high), a minimax polynomial for exp(r), and n added to the exponent.
 */
static inline float qp_cpu_exp_within(float x)
{
    const float round = 0x1.8p23f, ln2_high = 0x1.63p-1f, ln2_low = -0x1.bd0106p-13f;
    float shifted = x * 0x1.715476p0f + round;
    float n = shifted - round;
    float r = x - n * ln2_high;
    r = r - n * ln2_low;
    float p = 0x1.6a2254p-10f;
    p = p * r + 0x1.123b02p-7f;
    p = p * r + 0x1.5558f8p-5f;
    p = p * r + 0x1.55549p-3f;
    p = p * r + 0x1.fffffcp-2f;
    p = (p * r) * r + r + 1.0f;
    uint32_t bits, exponent;
    memcpy(&bits, &p, sizeof bits);
    memcpy(&exponent, &shifted, sizeof exponent);
    bits += exponent << 23;
    memcpy(&p, &bits, sizeof p);
    return p;
}

/** exp(x) to 2 ulp; 0 below -87.33 (no denormals), infinity above 88.37, NaN of NaN. */
static inline float qp_cpu_expf(float x)
{
    float y = x < -87.33f ? -87.33f : x;
    float p = qp_cpu_exp_within(y > 88.37f ? 88.37f : y);
    p = x < -87.33f ? 0.0f : p;
    p = x > 88.37f ? INFINITY : p;
    return x != x ? x : p;
}

/** The same for x <= 0, as in a softmax; a NaN that arithmetic made stays NaN. */
static inline float qp_cpu_expf_negative(float x)
{
    float p = qp_cpu_exp_within(x < -87.33f ? -87.33f : x);
    return x < -87.33f ? 0.0f : p;
}

#endif
