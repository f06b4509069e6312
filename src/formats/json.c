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
    bool compact; /* for a line of a file, not for jansson: numbers stay as they stand */
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

/* A string that no reader of strings takes for one: see qp_json_line(). */
static void put_not_finite(rewrite_t *r, const char *text, size_t n)
{
    if (r->nan_is_null)
        qp_str_puts(&r->out, "null");
    else
        qp_str_printf(&r->out, "\"\\u0000%.*s\"", (int)n, text);
}

/* A number: jansson reads 64-bit integers and finite reals. Its syntax is jansson's to judge. */
static void copy_number(rewrite_t *r)
{
    const char *begin = r->at;
    while (r->at < r->end && (isdigit((unsigned char)*r->at) || strchr("+-.eE", *r->at) != NULL) &&
           *r->at != '\0')
        r->at++;
    const size_t n = (size_t)(r->at - begin);
    if (r->compact) {
        qp_str_append(&r->out, begin, n);
        return;
    }
    char *number = qp_format("%.*s", (int)n, begin);
    const bool integer = strpbrk(number, ".eE") == NULL;
    errno = 0;
    (void)strtoll(number, NULL, 10);
    if (isinf(strtod(number, NULL))) {
        put_not_finite(r, begin, n);
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
        put_not_finite(r, names[i], n);
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
        else if (r->compact && strchr(" \t\r\n", c) != NULL)
            r->at++;
        else
            qp_str_putc(&r->out, *r->at++);
    }
}

/* --- nesting ---------------------------------------------------------------------------------- */

void qp_json_follow(qp_json_nesting_t *nesting, char c)
{
    if (nesting->escaped) {
        nesting->escaped = false;
    } else if (nesting->in_string) {
        nesting->escaped = c == '\\';
        nesting->in_string = c != '"';
    } else {
        nesting->in_string = c == '"';
        nesting->depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (nesting->depth > nesting->deepest)
            nesting->deepest = nesting->depth;
        if (nesting->depth < nesting->lowest)
            nesting->lowest = nesting->depth;
    }
}

qp_json_nesting_t qp_json_nesting(const void *text, size_t n_bytes)
{
    qp_json_nesting_t nesting = {0};
    for (size_t i = 0; i < n_bytes; i++)
        qp_json_follow(&nesting, ((const char *)text)[i]);
    return nesting;
}

/* --- parsing ---------------------------------------------------------------------------------- */

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
    if (qp_json_nesting(text, n_bytes).deepest > QP_JSON_MAX_DEPTH)
        error = QP_ERROR(QP_INPUT, "nested deeper than %d lists and objects", QP_JSON_MAX_DEPTH);
    else if (r.lone_surrogate && (flags & QP_JSON_REFUSE_SURROGATES) != 0)
        error = QP_ERROR(QP_INPUT, "holds half of a surrogate pair (\\uD800 to \\uDFFF)");
    else
        *root = json_loadb(r.out.n > 0 ? r.out.data : "", r.out.n,
                           JSON_DECODE_ANY | JSON_ALLOW_NUL | duplicates, &where);
    if (error == NULL && *root == NULL) {
        error = QP_ERROR(QP_INPUT, "%s", where.text);
        if (name != NULL)
            error = qp_error_context(error, "%s:%d", name, where.line);
    } else if (name != NULL) {
        error = qp_error_context(error, "%s", name);
    }
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

/* --- text ------------------------------------------------------------------------------------- */

bool qp_json_next_piece(const char *inside, size_t n_bytes, size_t *at, const char **piece,
                        size_t *n_piece)
{
    qp_json_nesting_t nesting = {0};
    if (*at >= n_bytes)
        return false;
    *piece = inside + *at;
    for (; *at < n_bytes; ++*at) {
        if (inside[*at] == ',' && nesting.depth <= 0 && !nesting.in_string)
            break;
        qp_json_follow(&nesting, inside[*at]);
    }
    *n_piece = (size_t)(inside + *at - *piece);
    ++*at;
    return true;
}

void qp_json_compact(const char *text, size_t n_bytes, qp_str_t *out)
{
    rewrite_t r = {
        .at = text, .end = text + n_bytes, .out = *out, .nan_is_null = true, .compact = true};
    rewrite(&r);
    *out = r.out;
}

char *qp_json_line(const json_t *value)
{
    static const char mark[] = "\"\\u0000", number[] = "+-.0123456789eENaInfity";
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
    qp_str_t line = {0};
    const char *at = text != NULL ? text : "nothing";
    for (const char *found; (found = strstr(at, mark)) != NULL;) {
        const char *begin = found + sizeof mark - 1;
        const size_t n = strspn(begin, number);
        const bool is_number = n > 0 && begin[n] == '"' && (found == text || found[-1] != '\\');
        qp_str_append(&line, at, (size_t)((is_number ? found : begin) - at));
        if (is_number)
            qp_str_append(&line, begin, n);
        at = begin + (is_number ? n + 1 : 0);
    }
    qp_str_puts(&line, at);
    free(text);
    return line.data;
}

/* --- values ----------------------------------------------------------------------------------- */

qp_error_t qp_json_wrong(const char *key, const json_t *value, const char *expected)
{
    char *text = qp_json_line(value);
    qp_error_t error = QP_ERROR(QP_INPUT, "%s is %.60s%s, expected %s", key, text,
                                strlen(text) > 60 ? "..." : "", expected);
    qp_free(text);
    return error;
}

const json_t *qp_json_get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

bool qp_json_is_string(const json_t *value)
{
    return json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value);
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
    if (found != NULL && !qp_json_is_string(found))
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

json_t *qp_json_real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}
