/** \file convert.h  Runs of stored numbers to and from fp32; addresses need no alignment. */
#ifndef QP_FORMATS_CONVERT_H
#define QP_FORMATS_CONVERT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"

/** True for the types below: QP_F32, QP_F16, QP_BF16. */
bool qp_convert_knows(qp_dtype_t dtype);
/** n stored numbers to fp32; exact. */
void qp_convert_to_f32(qp_dtype_t dtype, const void *from, int64_t n, float *to);
/** n fp32 numbers to a stored type, rounded to nearest even. */
void qp_convert_from_f32(qp_dtype_t dtype, const float *from, int64_t n, void *to);
/** Index of the first NaN or infinity, or -1. */
int64_t qp_find_not_finite(const float *x, int64_t n);

#endif
