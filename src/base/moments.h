/** \file moments.h  Mean and variance of a list of numbers. */
#ifndef QP_BASE_MOMENTS_H
#define QP_BASE_MOMENTS_H

#include <stdint.h>

#include "base/dtype.h"

typedef struct {
    double mean;
    double squares; /**< sum of the squared distances from the mean */
    double var;     /**< with Bessel's correction, as torch; 0 where that is 0/0: of one number */
} qp_moments_t;

/**
 * Of x [n], QP_F32 or QP_F64; all 0 for n = 0. In double, in the order of the numbers, and in two
 * passes: nothing cancels, however far the numbers are from 0. NaN and infinity pass through.
 */
qp_moments_t qp_moments(const void *x, qp_dtype_t dtype, int64_t n);

#endif
