/** \file gguf_file.h  One GGUF file, which may be a part of a model. Used by gguf.c. */
#ifndef QP_FORMATS_GGUF_FILE_H
#define QP_FORMATS_GGUF_FILE_H

#include "formats/gguf.h"
#include "formats/gguf_value.h"
#include "formats/map.h"

typedef struct {
    qp_map_t map;
    int64_t n_value;
    qp_gguf_value_t *value;
    int64_t n_tensor;
    qp_gguf_tensor_t *tensor;
} qp_gguf_file_t;

/** Opens and checks a file but for repeated tensors; to be closed in any case. */
qp_error_t qp_gguf_file_open(const char *path, qp_gguf_file_t *file);
void qp_gguf_file_close(qp_gguf_file_t *file);

/** A name that stands there twice, or NULL. Sorts the names. */
const char *qp_gguf_repeated(const char **name, int64_t n);

/** NULL if absent. */
const qp_gguf_value_t *qp_gguf_file_value(const qp_gguf_file_t *file, const char *key);
/** As qp_gguf_get_*. */
qp_error_t qp_gguf_file_i64(const qp_gguf_file_t *file, const char *key, int64_t *value);
qp_error_t qp_gguf_file_f64(const qp_gguf_file_t *file, const char *key, double *value);
qp_error_t qp_gguf_file_str(const qp_gguf_file_t *file, const char *key, char **value);

#endif
