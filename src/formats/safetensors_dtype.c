#include "formats/safetensors_dtype.h"

#include <stddef.h>
#include <string.h>

static const char *const dtype_names[QP_N_DTYPE] = {
    [QP_F32] = "F32", [QP_BF16] = "BF16", [QP_F16] = "F16", [QP_F64] = "F64", [QP_I8] = "I8",
    [QP_U8] = "U8",   [QP_I32] = "I32",   [QP_U32] = "U32", [QP_I64] = "I64", [QP_U64] = "U64",
};

bool qp_safetensors_dtype(const char *name, qp_dtype_t *dtype)
{
    for (int i = 0; i < QP_N_DTYPE; i++)
        if (strcmp(dtype_names[i], name) == 0) {
            *dtype = (qp_dtype_t)i;
            return true;
        }
    return false;
}

const char *qp_safetensors_dtype_name(qp_dtype_t dtype)
{
    return dtype_names[dtype];
}
