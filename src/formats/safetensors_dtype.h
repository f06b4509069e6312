/** \file safetensors_dtype.h  Type names of the safetensors format; for its reader and writer. */
#ifndef QP_FORMATS_SAFETENSORS_DTYPE_H
#define QP_FORMATS_SAFETENSORS_DTYPE_H

#include <stdbool.h>

#include "base/dtype.h"

/** "F32" to QP_F32; false for types that Quipu does not know. */
bool qp_safetensors_dtype(const char *name, qp_dtype_t *dtype);
/** QP_F32 to "F32". */
const char *qp_safetensors_dtype_name(qp_dtype_t dtype);

#endif
