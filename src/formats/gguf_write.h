/** \file gguf_write.h  Writes small GGUF files (adapters): metadata and fp32 tensors. */
#ifndef QP_FORMATS_GGUF_WRITE_H
#define QP_FORMATS_GGUF_WRITE_H

#include "formats/safetensors.h"

/** One metadata key: a string, or a float32 where text is NULL. */
typedef struct {
    const char *key, *text;
    float number;
} qp_gguf_key_t;

/**
 * Writes a version 3 file with these keys and fp32 tensors (dims in C order, as everywhere here;
 * GGUF stores them reversed). Complete or not at all. Failure: QP_IO.
 */
qp_error_t qp_gguf_write(const char *path, const qp_gguf_key_t *key, int64_t n_key,
                         const qp_tensor_t *tensor, int64_t n_tensor);

#endif
