#include "formats/json.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

/* --- what jansson does not take --------------------------------------------------------------- */

/* A text on its way to jansson: what is read so far is in out. */
typedef struct {
    const char *at, *end;
    qp_str_t out;
    bool nan_is_null, lone_surrogate;
} rewrite_t;

/* The four hexadecimal digits behind "\u" at text, or -1. */
static long unicode_escape(const char *text, const char *end)
{
    if (end - text < 6 || text[0] != '\\' || text[1] != 'u')
        return -1;
    long code = 0;
    for (int i = 2; i < 6; i++) {
        const char c = text[i];
        if (!isxdigit((unsigned char)c))
            return -1;
        code = code * 16 + (isdigit((unsigned char)c) ? c - '0' : (c | 32) - 'a' + 10);
    }
    return code;
}

/* One escape of a string; lone halves of surrogate pairs are U+FFFD. */
static void copy_escape(rewrite_t *r)
{
    const long code = unicode_escape(r->at, r->end);
    if (code < 0xd800 || code > 0xdfff) {
        const size_t n = r->end - r->at < 2 ? (size_t)(r->end - r->at) : 2;
        qp_str_append(&r->out, r->at, n);
        r->at += n;
        return;
    }
    const long next = unicode_escape(r->at + 6, r->end);
    if (code < 0xdc00 && next >= 0xdc00 && next <= 0xdfff) {
        qp_str_append(&r->out, r->at, 12);
        r->at += 12;
        return;
    }
    r->lone_surrogate = true;
    qp_str_puts(&r->out, "\\ufffd");
    r->at += 6;
}

static void copy_string(rewrite_t *r)
{
    qp_str_putc(&r->out, *r->at++);
    while (r->at < r->end && *r->at != '"') {
        if (*r->at == '\\') {
            copy_escape(r);
            continue;
        }
        const char *stop = r->at;
        while (stop < r->end && *stop != '"' && *stop != '\\')
            stop++;
        qp_str_append(&r->out, r->at, (size_t)(stop - r->at));
        r->at = stop;
    }
    if (r->at < r->end)
        qp_str_putc(&r->out, *r->at++);
}

static void put_not_finite(rewrite_t *r, const char *name)
{
    if (r->nan_is_null)
        qp_str_puts(&r->out, "null");
    else
        qp_str_printf(&r->out, "\"%s\"", name);
}

/* A number: jansson reads 64-bit integers and finite reals. Its syntax is jansson's to judge. */
static void copy_number(rewrite_t *r)
{
    const char *begin = r->at;
    while (r->at < r->end && (isdigit((unsigned char)*r->at) || strchr("+-.eE", *r->at) != NULL) &&
           *r->at != '\0')
        r->at++;
    const size_t n = (size_t)(r->at - begin);
    char *number = qp_format("%.*s", (int)n, begin);
    const bool integer = strpbrk(number, ".eE") == NULL;
    errno = 0;
    (void)strtoll(number, NULL, 10);
    if (isinf(strtod(number, NULL))) {
        put_not_finite(r, number[0] == '-' ? "-Infinity" : "Infinity");
    } else {
        qp_str_append(&r->out, number, n);
        if (integer && errno == ERANGE)
            qp_str_puts(&r->out, "e0");
    }
    qp_free(number);
}

/* The constants that only Python writes; false where none stands here. */
static bool copy_constant(rewrite_t *r)
{
    static const char *const names[] = {"NaN", "Infinity", "-Infinity"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const size_t n = strlen(names[i]);
        if ((size_t)(r->end - r->at) < n || memcmp(r->at, names[i], n) != 0)
            continue;
        put_not_finite(r, names[i]);
        r->at += n;
        return true;
    }
    return false;
}

static void rewrite(rewrite_t *r)
{
    while (r->at < r->end) {
        const char c = *r->at;
        if (c == '"')
            copy_string(r);
        else if (copy_constant(r))
            continue;
        else if (c == '-' || isdigit((unsigned char)c))
            copy_number(r);
        else
            qp_str_putc(&r->out, *r->at++);
    }
}

qp_error_t qp_json_parse(const char *name, const void *text, size_t n_bytes, unsigned flags,
                         json_t **root)
{
    rewrite_t r = {.at = text,
                   .end = (const char *)text + n_bytes,
                   .nan_is_null = (flags & QP_JSON_NAN_IS_NULL) != 0};
    const size_t duplicates = (flags & QP_JSON_REFUSE_DUPLICATES) != 0 ? JSON_REJECT_DUPLICATES : 0;
    json_error_t where = {0};
    qp_error_t error = NULL;
    *root = NULL;
    rewrite(&r);
    if (r.lone_surrogate && (flags & QP_JSON_REFUSE_SURROGATES) != 0)
        error = QP_ERROR(QP_INPUT, "%s: holds half of a surrogate pair (\\uD800 to \\uDFFF)", name);
    else
        *root = json_loadb(r.out.n > 0 ? r.out.data : "", r.out.n,
                           JSON_DECODE_ANY | JSON_ALLOW_NUL | duplicates, &where);
    if (error == NULL && *root == NULL)
        error = QP_ERROR(QP_INPUT, "%s:%d: %s", name, where.line, where.text);
    qp_str_fini(&r.out);
    return error;
}

qp_error_t qp_json_parse_object(const char *name, const void *text, size_t n_bytes, unsigned flags,
                                json_t **root)
{
    QP_TRY(qp_json_parse(name, text, n_bytes, flags, root));
    if (json_is_object(*root))
        return NULL;
    json_decref(*root);
    *root = NULL;
    return QP_ERROR(QP_INPUT, "%s: is no JSON object", name);
}

/* --- values ----------------------------------------------------------------------------------- */

qp_error_t qp_json_wrong(const char *key, const json_t *value, const char *expected)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    qp_error_t error =
        QP_ERROR(QP_INPUT, "%s is %.60s%s, expected %s", key, text != NULL ? text : "unreadable",
                 text != NULL && strlen(text) > 60 ? "..." : "", expected);
    free(text);
    return error;
}

const json_t *qp_json_get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

qp_error_t qp_json_bool(const json_t *object, const char *key, bool otherwise, bool *value)
{
    const json_t *found = qp_json_get(object, key);
    *value = found == NULL ? otherwise : json_is_true(found);
    if (found != NULL && !json_is_boolean(found))
        return qp_json_wrong(key, found, "true or false");
    return NULL;
}

qp_error_t qp_json_int(const json_t *object, const char *key, int64_t otherwise, int64_t min,
                       int64_t max, int64_t *value)
{
    const json_t *found = qp_json_get(object, key);
    *value = found == NULL ? otherwise : (int64_t)json_integer_value(found);
    if (found == NULL || (json_is_integer(found) && *value >= min && *value <= max))
        return NULL;
    char *expected = qp_format("an integer from %lld to %lld", (long long)min, (long long)max);
    qp_error_t error = qp_json_wrong(key, found, expected);
    qp_free(expected);
    return error;
}

qp_error_t qp_json_number(const json_t *object, const char *key, double otherwise, double *value)
{
    const json_t *found = qp_json_get(object, key);
    *value = found == NULL ? otherwise : json_number_value(found);
    if (found != NULL && !json_is_number(found))
        return qp_json_wrong(key, found, "a number");
    return NULL;
}

qp_error_t qp_json_string(const json_t *object, const char *key, const char *otherwise,
                          const char **value)
{
    const json_t *found = qp_json_get(object, key);
    *value = found == NULL ? otherwise : json_string_value(found);
    if (found != NULL &&
        (!json_is_string(found) || strlen(json_string_value(found)) != json_string_length(found)))
        return qp_json_wrong(key, found, "a string");
    return NULL;
}

qp_error_t qp_json_want(const json_t *object, const char *key, json_type type, json_t **value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",    [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "an integer",  [JSON_REAL] = "a number",  [JSON_TRUE] = "true or false",
        [JSON_FALSE] = "true or false", [JSON_NULL] = "null",
    };
    *value = json_object_get(object, key);
    if (*value == NULL)
        return QP_ERROR(QP_INPUT, "%s is missing", key);
    const bool boolean = type == JSON_TRUE && json_is_boolean(*value);
    if (json_typeof(*value) != type && !boolean)
        return qp_json_wrong(key, *value, names[type]);
    return NULL;
}
