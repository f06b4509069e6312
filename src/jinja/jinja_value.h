/**
 * \file jinja_value.h
 * Values of a template: what Python has (strings of code points, 64-bit integers, lists, tuples,
 * dicts, ranges, generators), namespaces and Jinja's own objects. Everything a rendering makes
 * lives in its arena until the rendering ends. Strings, lists, tuples and dicts never change once
 * they can be seen (the sandbox allows no method that changes them), so they share memory freely.
 */
#ifndef QP_JINJA_VALUE_H
#define QP_JINJA_VALUE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* --- memory ----------------------------------------------------------------------------------- */

typedef struct qp_jinja_chunk qp_jinja_chunk_t;
/** Memory that is freed at once; zero-initialise. */
typedef struct {
    qp_jinja_chunk_t *last;
    size_t n_bytes; /**< taken so far */
} qp_jinja_arena_t;

/** Zeroed memory, aligned to 16 bytes. */
void *qp_jinja_take(qp_jinja_arena_t *arena, size_t n_bytes);
void qp_jinja_arena_fini(qp_jinja_arena_t *arena);
#define QP_JINJA_NEW(arena, type, n) ((type *)qp_jinja_take((arena), (size_t)(n) * sizeof(type)))

/** Text that grows in an arena; zero-initialise all but the arena. */
typedef struct {
    qp_jinja_arena_t *arena;
    char *data;
    size_t n, capacity;
} qp_jinja_text_t;
void qp_jinja_put(qp_jinja_text_t *text, const void *bytes, size_t n);
void qp_jinja_puts(qp_jinja_text_t *text, const char *bytes);
void qp_jinja_put_code(qp_jinja_text_t *text, uint32_t code);

/* --- values ----------------------------------------------------------------------------------- */

typedef enum {
    QP_JV_MISSING, /**< no value: an argument that was not given, a name that was not set */
    QP_JV_UNDEFINED,
    QP_JV_NONE,
    QP_JV_BOOL,
    QP_JV_INT,
    QP_JV_FLOAT,
    QP_JV_STRING,
    QP_JV_LIST,
    QP_JV_TUPLE,
    QP_JV_DICT,
    QP_JV_RANGE,
    QP_JV_VIEW,
    QP_JV_ITER,
    QP_JV_NAMESPACE,
    QP_JV_MACRO,
    QP_JV_METHOD,
    QP_JV_FUNCTION,
    QP_JV_LOOP,
    QP_JV_JOINER,
    QP_JV_CYCLER,
    QP_JV_N_TYPE
} qp_jv_type_t;

/** Room behind a string or list, so that `x = x + y` in a loop does not copy x each time. */
typedef struct {
    char *data;
    size_t used, capacity; /* bytes */
} qp_jv_room_t;

typedef struct {
    const char *data; /* [n] UTF-8 */
    size_t n;
    int64_t n_chars;    /* code points; -1: not counted yet */
    int64_t item;       /* element of the tracked list, or -1 */
    qp_jv_room_t *room; /* may be NULL */
    bool markup;        /* marked safe: + and other operations would escape */
} qp_jv_string_t;

typedef struct qp_jv qp_jv_t;

typedef struct {
    const qp_jv_t *at; /* [n] */
    int64_t n;
    int64_t item;
    qp_jv_room_t *room;
    bool group; /* of the filter groupby: has names for its two elements */
} qp_jv_list_t;

typedef struct {
    qp_jv_t *key, *value; /* [n], in the order of insertion */
    int64_t n, capacity;
    int32_t *slot; /* [n_slot] index + 1 by hash, or 0; NULL while small */
    int64_t n_slot;
    int64_t item;
} qp_jv_dict_t;

typedef struct {
    int64_t start, stop, step, n;
} qp_jv_range_t;

typedef enum { QP_JV_KEYS, QP_JV_VALUES, QP_JV_ITEMS } qp_jv_view_kind_t;
typedef struct {
    qp_jv_view_kind_t kind;
    const qp_jv_dict_t *dict;
} qp_jv_view_t;

/** Why a value is undefined. */
typedef struct {
    const char *format; /* of name and what */
    const char *name, *what;
} qp_jv_undefined_t;

typedef struct qp_jinja_iter qp_jinja_iter_t;
typedef struct qp_jinja_loop qp_jinja_loop_t;
typedef struct qp_jinja_macro qp_jinja_macro_t;
typedef struct qp_jinja_builtin qp_jinja_builtin_t;
typedef struct qp_jinja_run qp_jinja_run_t;
typedef struct qp_jv_method qp_jv_method_t;

typedef struct {
    const qp_jv_string_t *separator;
    bool used;
} qp_jv_joiner_t;
typedef struct {
    const qp_jv_list_t *items;
    int64_t at;
} qp_jv_cycler_t;

struct qp_jv {
    qp_jv_type_t type;
    union {
        int64_t i; /* and BOOL: 0 or 1 */
        double f;
        qp_jv_string_t *s;
        qp_jv_list_t *list; /* and TUPLE */
        qp_jv_dict_t *dict; /* and NAMESPACE */
        qp_jv_range_t *range;
        qp_jv_view_t *view;
        const qp_jv_undefined_t *undefined;
        qp_jinja_iter_t *iter;
        qp_jinja_loop_t *loop;
        qp_jinja_macro_t *macro;
        qp_jv_method_t *method;
        const qp_jinja_builtin_t *function;
        qp_jv_joiner_t *joiner;
        qp_jv_cycler_t *cycler;
        const void *object;
    } as;
};

struct qp_jv_method {
    qp_jv_t self;
    const qp_jinja_builtin_t *builtin;
};

static inline qp_jv_t qp_jv_none(void)
{
    return (qp_jv_t){.type = QP_JV_NONE};
}
static inline qp_jv_t qp_jv_bool(bool value)
{
    return (qp_jv_t){.type = QP_JV_BOOL, .as.i = value};
}
static inline qp_jv_t qp_jv_int(int64_t value)
{
    return (qp_jv_t){.type = QP_JV_INT, .as.i = value};
}
static inline qp_jv_t qp_jv_float(double value)
{
    return (qp_jv_t){.type = QP_JV_FLOAT, .as.f = value};
}
static inline bool qp_jv_is_integer(const qp_jv_t *v) /* as Python sees it: bool is one */
{
    return v->type == QP_JV_INT || v->type == QP_JV_BOOL;
}
static inline bool qp_jv_is_number(const qp_jv_t *v)
{
    return qp_jv_is_integer(v) || v->type == QP_JV_FLOAT;
}
static inline bool qp_jv_is_sequence(const qp_jv_t *v)
{
    return v->type == QP_JV_STRING || v->type == QP_JV_LIST || v->type == QP_JV_TUPLE;
}
static inline double qp_jv_as_double(const qp_jv_t *v)
{
    return v->type == QP_JV_FLOAT ? v->as.f : (double)v->as.i;
}

/** A string of its own memory, of memory that lives as long as the arena, or of what grew; the
 * first and the last are followed by a NUL. */
qp_jv_t qp_jv_string(qp_jinja_arena_t *arena, const char *data, size_t n);
qp_jv_t qp_jv_string_at(qp_jinja_arena_t *arena, const char *data, size_t n);
qp_jv_t qp_jv_string_of(const qp_jinja_text_t *text);
/** The same as a value of a C string. */
qp_jv_t qp_jv_name(qp_jinja_arena_t *arena, const char *name);
/** A list or tuple of elements that live as long as the arena. */
qp_jv_t qp_jv_list(qp_jinja_arena_t *arena, qp_jv_type_t type, const qp_jv_t *at, int64_t n);
qp_jv_t qp_jv_dict(qp_jinja_arena_t *arena);
qp_jv_t qp_jv_undefined(qp_jinja_arena_t *arena, const char *format, const char *name,
                        const char *what);
/** QP_INPUT: what is wrong with using this undefined value. */
qp_error_t qp_jv_undefined_error(const qp_jv_t *value);

/** The value of JSON (numbers: 64-bit integers and doubles). */
qp_jv_t qp_jv_of_json(qp_jinja_arena_t *arena, const json_t *json);

/** Element of the tracked list that this value is, or -1. */
int64_t qp_jv_item(const qp_jv_t *value);

/* --- strings as sequences of code points ------------------------------------------------------ */

int64_t qp_jv_length(qp_jv_string_t *s);
/** Byte at which code point \a index begins, 0 <= index <= length. */
size_t qp_jv_offset(qp_jv_string_t *s, int64_t index);
/** Python's str.isspace of a code point; and of the first character of a text. */
bool qp_jinja_is_space(uint32_t code);
size_t qp_jinja_space_at(const char *text, const char *end); /* its bytes, 0: no space */
/** Bytes of the space at the end of [text, end). */
size_t qp_jinja_space_before(const char *text, const char *end);
static inline bool qp_jv_equals_text(const qp_jv_string_t *s, const char *data, size_t n)
{
    return s->n == n && __builtin_memcmp(s->data, data, n) == 0;
}

static inline bool qp_jv_same_text(const qp_jv_string_t *a, const qp_jv_string_t *b)
{
    return qp_jv_equals_text(a, b->data, b->n);
}

/* --- dicts ------------------------------------------------------------------------------------ */

/** Value of a key, or NULL. The key must be hashable (qp_jv_check_key). */
const qp_jv_t *qp_jv_get(const qp_jv_dict_t *dict, const qp_jv_t *key);
const qp_jv_t *qp_jv_get_text(const qp_jv_dict_t *dict, const char *key, size_t n);
/** Sets a key of a dict that nobody else sees yet (or of a namespace). */
void qp_jv_set(qp_jinja_arena_t *arena, qp_jv_dict_t *dict, const qp_jv_t *key,
               const qp_jv_t *value);
void qp_jv_set_name(qp_jinja_arena_t *arena, qp_jv_dict_t *dict, const qp_jv_string_t *key,
                    const qp_jv_t *value);
/** QP_INPUT if Python could not hash it. */
qp_error_t qp_jv_check_key(const qp_jv_t *key);

/* --- comparing -------------------------------------------------------------------------------- */

/** Python's name of the type, for messages. */
const char *qp_jv_type_name(const qp_jv_t *value);
bool qp_jv_truth(const qp_jv_t *value);
/** ==, which never fails (but stops at a depth that no JSON has: QP_INPUT). */
qp_error_t qp_jv_equal(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t *b, bool *equal);
/** *order <, == or > 0; values without an order: QP_INPUT. */
qp_error_t qp_jv_compare(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t *b, int *order);
/** `is`; QP_INPUT where it depends on the Python that runs it. */
qp_error_t qp_jv_same(const qp_jv_t *a, const qp_jv_t *b, bool *same);

/* --- writing ---------------------------------------------------------------------------------- */

/** What str() and repr() of Python write. */
qp_error_t qp_jv_str(qp_jinja_run_t *run, qp_jinja_text_t *text, const qp_jv_t *value);
qp_error_t qp_jv_repr(qp_jinja_run_t *run, qp_jinja_text_t *text, const qp_jv_t *value);
/** str() as a value: strings are themselves. */
qp_error_t qp_jv_to_string(qp_jinja_run_t *run, const qp_jv_t *value, qp_jv_t *string);
/** repr() of a double: the shortest text that reads back the same. */
void qp_jv_put_float(qp_jinja_text_t *text, double value);

/** Settings of json.dumps. */
typedef struct {
    bool ensure_ascii, sort_keys;
    const qp_jv_string_t *indent; /* NULL: one line */
    const qp_jv_string_t *between, *behind_key;
} qp_jv_json_t;
qp_error_t qp_jv_dump(qp_jinja_run_t *run, const qp_jv_json_t *how, qp_jinja_text_t *text,
                      const qp_jv_t *value);

#endif
