/** \file quantise.h  Rows of activations: rotation and int8, in fp32. */
#ifndef QP_COMPUTE_CPU_ROWS_QUANTISE_H
#define QP_COMPUTE_CPU_ROWS_QUANTISE_H

#include <stdint.h>

/** Multiplies n features by the block-diagonal orthonormal Hadamard matrix, in place; its own
 * inverse. */
void qp_cpu_hadamard(float *x, int64_t n, int64_t block);

/** max |x_i|; NaN if any x is NaN. */
float qp_cpu_absmax(const float *x, int64_t n);

/** max |x_i| over |x_i| < threshold; NaN if any x is NaN. */
float qp_cpu_absmax_below(const float *x, int64_t n, float threshold);

/**
 * q_i = 128 + rn(127 x_i / absmax), half to even. Returns the scale absmax / 127; a row of zeros
 * has scale 0, a row that is not finite a scale that is not finite (so the result is not finite
 * either).
 */
float qp_cpu_quantise(uint8_t *q, const float *x, int64_t n, float absmax);

/** x_i *= scale_i. */
void qp_cpu_scale(float *x, const float *scale, int64_t n);

#endif
