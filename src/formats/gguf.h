/**
 * \file gguf.h
 * Reader (mapped) of GGUF model files, versions 2 and 3, little endian; writer of small GGUF files;
 * dequantisation of the block formats. Layouts follow ggml's block structures.
 */
#ifndef QP_FORMATS_GGUF_H
#define QP_FORMATS_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

/** A tensor type of the file: rows are sequences of blocks of block_len elements. */
typedef struct {
    uint32_t id; /**< ggml's number */
    const char *name;
    int64_t block_len;
    int64_t block_bytes;
    /** n_block blocks to fp32, bit-equal to ggml's reference arithmetic. */
    void (*dequantise)(const uint8_t *blocks, int64_t n_block, float *out);
} qp_ggml_type_t;

/** The type with this number, or NULL when it cannot be read here. */
const qp_ggml_type_t *qp_ggml_type(uint32_t id);
/** ggml's name of a type number, also of types that cannot be read here ("Q2_K"); "?" if unknown.
 */
const char *qp_ggml_type_name(uint32_t id);

enum { QP_GGUF_MAX_DIM = 4 };

typedef struct {
    char *name;
    const qp_ggml_type_t *type;
    int n_dim;
    int64_t dim[QP_GGUF_MAX_DIM]; /**< dim[0] runs fastest: columns; missing ones are 1 */
    const uint8_t *data;
    size_t n_bytes;
} qp_gguf_tensor_t;

typedef struct qp_gguf qp_gguf_t;

/**
 * Opens and checks a whole model; damage: QP_INPUT naming the path and the key or tensor. Of a
 * model that was split (llama.cpp's NAME-00001-of-00002.gguf) \a path may be any part; the others
 * must lie beside it and fit, else QP_INPUT names the part. Metadata are those of the first part.
 */
qp_error_t qp_gguf_open(const char *path, qp_gguf_t **gguf);
void qp_gguf_close(qp_gguf_t **gguf);
/** Of the first part. */
const char *qp_gguf_path(const qp_gguf_t *gguf);

int64_t qp_gguf_n_tensor(const qp_gguf_t *gguf);
const qp_gguf_tensor_t *qp_gguf_tensor(const qp_gguf_t *gguf, int64_t i);
/** NULL if absent. */
const qp_gguf_tensor_t *qp_gguf_find(const qp_gguf_t *gguf, const char *name);
/** Row i of the matrix (or the vector) as fp32: dim[0] elements. */
void qp_gguf_row(const qp_gguf_tensor_t *tensor, int64_t i, float *row);

/** Metadata. Absent key or other type (any integer type will do for i64, any float for f64):
 * QP_INPUT. */
bool qp_gguf_has(const qp_gguf_t *gguf, const char *key);
qp_error_t qp_gguf_get_i64(const qp_gguf_t *gguf, const char *key, int64_t *value);
qp_error_t qp_gguf_get_f64(const qp_gguf_t *gguf, const char *key, double *value);
/** The string is the caller's (qp_free). */
qp_error_t qp_gguf_get_str(const qp_gguf_t *gguf, const char *key, char **value);
/** Appends one JSON object of all keys that start with \a prefix, arrays included. */
qp_error_t qp_gguf_metadata_json(const qp_gguf_t *gguf, const char *prefix, qp_str_t *json);

#endif
