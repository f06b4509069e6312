/**
 * \file json.h
 * JSON that others wrote: read as Python's json.load reads it, and values taken with their types
 * checked. A value that is there with another type than asked for is an error, never the default.
 */
#ifndef QP_FORMATS_JSON_H
#define QP_FORMATS_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    /** A \uD800 without its other half is an error; without the flag it becomes U+FFFD. */
    QP_JSON_REFUSE_SURROGATES = 1,
    /** Two equal keys in one object are an error; without the flag the last one counts. */
    QP_JSON_REFUSE_DUPLICATES = 2,
    /** NaN, Infinity and numbers beyond a double are null: missing cells, as pandas writes them. */
    QP_JSON_NAN_IS_NULL = 4
};

/**
 * Parses a text of one JSON value; *root is the caller's (json_decref), NULL on failure. Accepts
 * what Python's json.load accepts and jansson alone does not: integers beyond 64 bits (they become
 * reals), numbers beyond a double and NaN, Infinity and -Infinity (they become strings of that
 * name, which no number's reader takes), \u0000 in strings, the last of two equal keys. Wrong
 * syntax or UTF-8: QP_INPUT "<name>:<line>: ...". Not collective, thread-safe.
 */
qp_error_t qp_json_parse(const char *name, const void *text, size_t n_bytes, unsigned flags,
                         json_t **root);
/** The same, and the value must be an object. */
qp_error_t qp_json_parse_object(const char *name, const void *text, size_t n_bytes, unsigned flags,
                                json_t **root);

/** The value of a key of an object; NULL where it is absent or null, or \a object is no object. */
const json_t *qp_json_get(const json_t *object, const char *key);

/*
 * Values of keys. Absent or null: the default. Another type or out of range: QP_INPUT that names
 * key, found and expected; put the file in front with qp_error_context(). Texts live as long as the
 * object.
 */
qp_error_t qp_json_bool(const json_t *object, const char *key, bool otherwise, bool *value);
/** An integer of JSON (1.0 is none) in [min, max]. */
qp_error_t qp_json_int(const json_t *object, const char *key, int64_t otherwise, int64_t min,
                       int64_t max, int64_t *value);
/** Any finite number. */
qp_error_t qp_json_number(const json_t *object, const char *key, double otherwise, double *value);
/** A string without NUL inside. */
qp_error_t qp_json_string(const json_t *object, const char *key, const char *otherwise,
                          const char **value);
/** A value of this type, which must be there (JSON_TRUE: true or false). */
qp_error_t qp_json_want(const json_t *object, const char *key, json_type type, json_t **value);

/** "is <value>, expected <what>" for a value of any type, cut to a line; for messages of others. */
qp_error_t qp_json_wrong(const char *key, const json_t *value, const char *expected);

#endif
