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

/**
 * Opens a .safetensors file, or a folder with model.safetensors or model.safetensors.index.json.
 * Truncation, a wrong header length, overlaps, an unsupported dtype, ...: QP_INPUT naming file and
 * tensor.
 */
qp_error_t qp_safetensors_open(const char *path, qp_safetensors_t **st);
void qp_safetensors_close(qp_safetensors_t **st);
/** Tensors of all files, in name order. */
int64_t qp_safetensors_n(const qp_safetensors_t *st);
const qp_tensor_t *qp_safetensors_at(const qp_safetensors_t *st, int64_t i);
/** NULL if absent. */
const qp_tensor_t *qp_safetensors_find(const qp_safetensors_t *st, const char *name);

/** An fp32 matrix to be written; name and data stay the caller's. */
qp_tensor_t qp_tensor_matrix(const char *name, const float *data, int64_t n_row, int64_t n_col);

/** Elements of a tensor. */
int64_t qp_tensor_n(const qp_tensor_t *tensor);

/** Writes a file with these tensors in order ({"format":"pt"} metadata); temporary name, fsync,
 * rename. */
qp_error_t qp_safetensors_write(const char *path, const qp_tensor_t *tensors, int64_t n_tensor);

/**
 * The same as a stream: names, types and shapes first (data is not looked at), then the bytes of
 * all tensors one after another in that order.
 */
typedef struct qp_safetensors_writer qp_safetensors_writer_t;
qp_error_t qp_safetensors_writer_create(const char *path, const qp_tensor_t *tensors,
                                        int64_t n_tensor, qp_safetensors_writer_t **writer);
qp_error_t qp_safetensors_writer_append(qp_safetensors_writer_t *writer, const void *data,
                                        size_t n_bytes);
/** Checks that all bytes came, fsyncs, renames. Destroys the writer either way. */
qp_error_t qp_safetensors_writer_commit(qp_safetensors_writer_t **writer);
void qp_safetensors_writer_abandon(qp_safetensors_writer_t **writer);

#endif
