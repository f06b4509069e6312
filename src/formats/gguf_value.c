#include "formats/gguf_value.h"

#include <jansson.h>
#include <string.h>

#include "base/mem.h"

enum { MAX_NAME = 65536 };

/* The value types of the format, by their number. */
typedef enum { KIND_UNSIGNED, KIND_SIGNED, KIND_FLOAT, KIND_BOOL, KIND_STRING, KIND_ARRAY } kind_t;
static const struct {
    kind_t kind;
    size_t bytes; /* 0: variable */
} types[] = {
    {KIND_UNSIGNED, 1}, {KIND_SIGNED, 1}, {KIND_UNSIGNED, 2}, {KIND_SIGNED, 2}, {KIND_UNSIGNED, 4},
    {KIND_SIGNED, 4},   {KIND_FLOAT, 4},  {KIND_BOOL, 1},     {KIND_STRING, 0}, {KIND_ARRAY, 0},
    {KIND_UNSIGNED, 8}, {KIND_SIGNED, 8}, {KIND_FLOAT, 8},
};
enum { N_TYPE = sizeof types / sizeof types[0] };

/* --- reading ---------------------------------------------------------------------------------- */

static qp_error_t read_bytes(qp_gguf_cursor_t *cursor, size_t n, const uint8_t **bytes)
{
    *bytes = cursor->data + cursor->position;
    if (n > cursor->n_bytes - cursor->position)
        return QP_ERROR(QP_INPUT,
                        "%s: the file is truncated or damaged: its header runs past byte %zu",
                        cursor->path, cursor->n_bytes);
    cursor->position += n;
    return NULL;
}

qp_error_t qp_gguf_read_u32(qp_gguf_cursor_t *cursor, uint32_t *value)
{
    const uint8_t *bytes = NULL;
    QP_TRY(read_bytes(cursor, sizeof *value, &bytes));
    memcpy(value, bytes, sizeof *value);
    return NULL;
}

qp_error_t qp_gguf_read_u64(qp_gguf_cursor_t *cursor, uint64_t *value)
{
    const uint8_t *bytes = NULL;
    QP_TRY(read_bytes(cursor, sizeof *value, &bytes));
    memcpy(value, bytes, sizeof *value);
    return NULL;
}

qp_error_t qp_gguf_read_name(qp_gguf_cursor_t *cursor, char **name)
{
    uint64_t n = 0;
    const uint8_t *bytes = NULL;
    QP_TRY(qp_gguf_read_u64(cursor, &n));
    if (n == 0 || n > MAX_NAME)
        return QP_ERROR(QP_INPUT, "%s: damaged header: a name of %lu bytes", cursor->path,
                        (unsigned long)n);
    QP_TRY(read_bytes(cursor, (size_t)n, &bytes));
    if (memchr(bytes, '\0', (size_t)n) != NULL)
        return QP_ERROR(QP_INPUT, "%s: damaged header: a name holds a NUL byte", cursor->path);
    *name = memcpy(qp_alloc("gguf", (size_t)n + 1), bytes, (size_t)n);
    return NULL;
}

/* Steps over the items of a value. */
static qp_error_t skip_items(qp_gguf_cursor_t *cursor, const qp_gguf_value_t *value)
{
    const uint8_t *bytes = NULL;
    size_t item = types[value->type].bytes;
    if (item != 0) {
        if (value->n > cursor->n_bytes / item)
            return QP_ERROR(QP_INPUT, "%s: damaged header: %lu items in one array", cursor->path,
                            (unsigned long)value->n);
        return read_bytes(cursor, (size_t)value->n * item, &bytes);
    }
    for (uint64_t i = 0; i < value->n; i++) {
        uint64_t n = 0;
        QP_TRY(qp_gguf_read_u64(cursor, &n));
        QP_TRY(read_bytes(cursor, (size_t)n, &bytes));
    }
    return NULL;
}

static qp_error_t read_items(qp_gguf_cursor_t *cursor, qp_gguf_value_t *value)
{
    QP_TRY(qp_gguf_read_u32(cursor, &value->type));
    value->n = 1;
    value->is_array = value->type < N_TYPE && types[value->type].kind == KIND_ARRAY;
    if (value->is_array) {
        QP_TRY(qp_gguf_read_u32(cursor, &value->type));
        QP_TRY(qp_gguf_read_u64(cursor, &value->n));
    }
    if (value->type >= N_TYPE || types[value->type].kind == KIND_ARRAY)
        return QP_ERROR(QP_INPUT, "%s: metadata key %s has the unknown type %u", cursor->path,
                        value->key, value->type);
    value->data = cursor->data + cursor->position;
    return skip_items(cursor, value);
}

qp_error_t qp_gguf_read_value(qp_gguf_cursor_t *cursor, qp_gguf_value_t *value)
{
    QP_TRY(qp_gguf_read_name(cursor, &value->key));
    qp_error_t error = read_items(cursor, value);
    if (error != NULL)
        QP_FREE(value->key);
    return error;
}

/* --- conversion ------------------------------------------------------------------------------- */

/* Little-endian integer of 1 to 8 bytes, sign-extended when asked. */
static int64_t integer_at(const uint8_t *p, size_t bytes, bool is_signed)
{
    uint64_t x = 0;
    QP_ASSERT(bytes >= 1 && bytes <= 8);
    for (size_t i = 0; i < bytes; i++)
        x |= (uint64_t)p[i] << 8 * i;
    if (is_signed && bytes < 8 && (x >> (8 * bytes - 1) & 1) != 0)
        x |= ~(uint64_t)0 << 8 * bytes;
    return (int64_t)x;
}

static double float_at(const uint8_t *p, size_t bytes)
{
    float single;
    double wide;
    memcpy(&single, p, sizeof single);
    if (bytes == sizeof single)
        return (double)single;
    memcpy(&wide, p, sizeof wide);
    return wide;
}

const char *qp_gguf_value_kind(const qp_gguf_value_t *value)
{
    static const char *const names[] = {
        [KIND_UNSIGNED] = "an integer", [KIND_SIGNED] = "an integer", [KIND_FLOAT] = "a float",
        [KIND_BOOL] = "a bool",         [KIND_STRING] = "a string",   [KIND_ARRAY] = "an array"};
    return names[value->is_array ? KIND_ARRAY : types[value->type].kind];
}

bool qp_gguf_value_i64(const qp_gguf_value_t *value, int64_t *out)
{
    kind_t kind = types[value->type].kind;
    if (value->is_array || (kind != KIND_UNSIGNED && kind != KIND_SIGNED && kind != KIND_BOOL))
        return false;
    *out = integer_at(value->data, types[value->type].bytes, kind == KIND_SIGNED);
    return kind != KIND_UNSIGNED || *out >= 0;
}

bool qp_gguf_value_f64(const qp_gguf_value_t *value, double *out)
{
    if (value->is_array || types[value->type].kind != KIND_FLOAT)
        return false;
    *out = float_at(value->data, types[value->type].bytes);
    return true;
}

/* Length and bytes of the string at p; returns the place behind it. */
static const uint8_t *string_at(const uint8_t *p, const char **text, size_t *n)
{
    uint64_t length;
    memcpy(&length, p, sizeof length);
    *n = (size_t)length;
    *text = (const char *)(p + sizeof length);
    return p + sizeof length + *n;
}

char *qp_gguf_value_str(const qp_gguf_value_t *value)
{
    const char *text;
    size_t n;
    if (value->is_array || types[value->type].kind != KIND_STRING)
        return NULL;
    string_at(value->data, &text, &n);
    return memcpy(qp_alloc("string", n + 1), text, n);
}

static int append_to(const char *bytes, size_t n, void *json)
{
    qp_str_append(json, bytes, n);
    return 0;
}

/* Appends a JSON scalar made by jansson and frees it; NULL means that the text was not UTF-8. */
static qp_error_t put_scalar(json_t *scalar, qp_str_t *json)
{
    if (scalar == NULL)
        return QP_ERROR(QP_INPUT, "a string is not valid UTF-8");
    int failed = json_dump_callback(scalar, append_to, json, JSON_ENCODE_ANY | JSON_COMPACT);
    json_decref(scalar);
    return failed ? QP_ERROR(QP_INPUT, "cannot be written as JSON") : NULL;
}

static qp_error_t put_item(kind_t kind, size_t bytes, const uint8_t **p, qp_str_t *json)
{
    if (kind == KIND_STRING) {
        const char *text;
        size_t n;
        *p = string_at(*p, &text, &n);
        return put_scalar(json_stringn(text, n), json);
    }
    const uint8_t *item = *p;
    *p += bytes;
    if (kind == KIND_BOOL) {
        qp_str_puts(json, *item ? "true" : "false");
        return NULL;
    }
    if (kind != KIND_FLOAT) {
        qp_str_printf(json, "%lld", (long long)integer_at(item, bytes, kind == KIND_SIGNED));
        return NULL;
    }
    json_t *real = json_real(float_at(item, bytes));
    return real != NULL ? put_scalar(real, json) : QP_ERROR(QP_INPUT, "a number is not finite");
}

qp_error_t qp_gguf_value_json(const qp_gguf_value_t *value, qp_str_t *json)
{
    QP_TRY(put_scalar(json_string(value->key), json));
    qp_str_puts(json, value->is_array ? ": [" : ": ");
    const uint8_t *p = value->data;
    for (uint64_t i = 0; i < value->n; i++) {
        if (i > 0)
            qp_str_putc(json, ',');
        QP_TRY(put_item(types[value->type].kind, types[value->type].bytes, &p, json));
    }
    if (value->is_array)
        qp_str_putc(json, ']');
    return NULL;
}
