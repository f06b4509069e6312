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
#include "base/str.h"

enum {
    /** A \uD800 without its other half is an error; without the flag it becomes U+FFFD. */
    QP_JSON_REFUSE_SURROGATES = 1,
    /** Two equal keys in one object are an error; without the flag the last one counts. */
    QP_JSON_REFUSE_DUPLICATES = 2,
    /** NaN, Infinity and numbers beyond a double are null: missing cells, as pandas writes them. */
    QP_JSON_NAN_IS_NULL = 4
};

/** How a text of JSON nests at the place up to which it was followed; zero-initialise. */
typedef struct {
    int64_t depth;           /**< lists and objects that are open */
    int64_t deepest, lowest; /**< largest and smallest depth so far; below 0: one ends that did not
                                  begin */
    bool in_string, escaped;
} qp_json_nesting_t;
/** One byte further. */
void qp_json_follow(qp_json_nesting_t *nesting, char c);
/** To the end of a text. */
qp_json_nesting_t qp_json_nesting(const void *text, size_t n_bytes);
/** Deeper ones are not read, here and (from about 1,000 on) in Python. jansson counts what stands
 * in the innermost one, too. */
enum { QP_JSON_MAX_DEPTH = JSON_PARSER_MAX_DEPTH - 1 };

/**
 * Parses a text of one JSON value; *root is the caller's (json_decref), NULL on failure. Accepts
 * what Python's json.load accepts and jansson alone does not: integers beyond 64 bits (they become
 * reals), numbers beyond a double and NaN, Infinity and -Infinity (they become strings of that
 * text behind a NUL, which no reader below takes), \u0000 in strings, the last of two equal keys.
 * Wrong syntax or UTF-8: QP_INPUT "<name>:<line>: ..."; too deep: "<name>: nested deeper ...". With
 * \a name NULL, of a text whose place the caller knows, what is wrong alone. Not collective,
 * thread-safe.
 */
qp_error_t qp_json_parse(const char *name, const void *text, size_t n_bytes, unsigned flags,
                         json_t **root);
/** The same, and the value must be an object; with a name. */
qp_error_t qp_json_parse_object(const char *name, const void *text, size_t n_bytes, unsigned flags,
                                json_t **root);

/*
 * Text of JSON, as it stands. Rank-local.
 */
/** The next piece between the commas of an array's or object's inside, with the white space around
 * it; *at, 0 at first, moves behind its comma. False at the end. */
bool qp_json_next_piece(const char *inside, size_t n_bytes, size_t *at, const char **piece,
                        size_t *n_piece);
/** Appends a text that qp_json_parse() takes without white space, as one line of strict JSON: every
 * number as it stands, whatever its size; NaN and Infinity are null. */
void qp_json_compact(const char *text, size_t n_bytes, qp_str_t *out);
/** A value of any type as one line, with numbers that are not finite as the file has them
 * (qp_free).
 */
char *qp_json_line(const json_t *value);

/** The value of a key of an object; NULL where it is absent or null, or \a object is no object. */
const json_t *qp_json_get(const json_t *object, const char *key);

/** A string without NUL inside: so no number that is not finite. NULL is none. */
bool qp_json_is_string(const json_t *value);

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

/** A number to be written: JSON has none that is not finite, so null stands for it. */
json_t *qp_json_real(double x);

/** "is <value>, expected <what>" for a value of any type, cut to a line; for messages of others. */
qp_error_t qp_json_wrong(const char *key, const json_t *value, const char *expected);

#endif
