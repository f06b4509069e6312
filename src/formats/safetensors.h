/**
 * \file safetensors.h
 * Reader (one file, mapped; or a sharded folder) and writer of the safetensors format.
 */
#ifndef QP_FORMATS_SAFETENSORS_H
#define QP_FORMATS_SAFETENSORS_H

#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"

enum { QP_TENSOR_MAX_DIM = 4 };

/** A named tensor in a mapped file; data points into the map and lives as long as it. */
typedef struct {
    const char *name;
    qp_dtype_t dtype;
    int n_dim;
    int64_t dim[QP_TENSOR_MAX_DIM];
    const void *data;
    size_t n_bytes;
    const char *path; /**< file it stands in, for messages */
} qp_tensor_t;

typedef struct qp_safetensors qp_safetensors_t;

/** Opens a .safetensors file, or a folder with model.safetensors or model.safetensors.index.json. */
qp_error_t qp_safetensors_open(const char *path, qp_safetensors_t **st);
void qp_safetensors_close(qp_safetensors_t **st);
int64_t qp_safetensors_n(const qp_safetensors_t *st);
const qp_tensor_t *qp_safetensors_at(const qp_safetensors_t *st, int64_t i);
/** NULL if absent. */
const qp_tensor_t *qp_safetensors_find(const qp_safetensors_t *st, const char *name);

/** Writes a file with these tensors in order ({"format":"pt"} metadata); temporary name, fsync, rename. */
qp_error_t qp_safetensors_write(const char *path, const qp_tensor_t *tensors, int64_t n_tensor);

#endif
