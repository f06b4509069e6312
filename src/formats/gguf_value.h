/** \file gguf_value.h  Metadata values of a GGUF file: bounded reading and conversion. Used by
 * gguf.c. */
#ifndef QP_FORMATS_GGUF_VALUE_H
#define QP_FORMATS_GGUF_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

/** A reading position in a mapped file. */
typedef struct {
    const char *path;
    const uint8_t *data;
    size_t n_bytes, position;
} qp_gguf_cursor_t;

/** One key with its value: a scalar (n = 1) or an array of n items, checked but still as in the
 * file. */
typedef struct {
    char *key; /**< owned by the reader */
    uint32_t type;
    bool is_array;
    uint64_t n;
    const uint8_t *data; /**< first item; strings are length and bytes, one after another */
} qp_gguf_value_t;

qp_error_t qp_gguf_read_u32(qp_gguf_cursor_t *cursor, uint32_t *value);
qp_error_t qp_gguf_read_u64(qp_gguf_cursor_t *cursor, uint64_t *value);
/** A string without NUL bytes, of sane length; the caller's (qp_free). */
qp_error_t qp_gguf_read_name(qp_gguf_cursor_t *cursor, char **name);
/** Key and value; value->key is set (and owned by value) only on success. */
qp_error_t qp_gguf_read_value(qp_gguf_cursor_t *cursor, qp_gguf_value_t *value);

/** "an integer", "a float", "a string", "a bool" or "an array", for messages. */
const char *qp_gguf_value_kind(const qp_gguf_value_t *value);
/** Scalars; false when the value is of another kind. */
bool qp_gguf_value_i64(const qp_gguf_value_t *value, int64_t *out);
bool qp_gguf_value_f64(const qp_gguf_value_t *value, double *out);
/** Copy of a string value (qp_free), or NULL when it is none. */
char *qp_gguf_value_str(const qp_gguf_value_t *value);
/** Appends "key": value. A string that is not UTF-8: QP_INPUT. */
qp_error_t qp_gguf_value_json(const qp_gguf_value_t *value, qp_str_t *json);

#endif
