/* Memory, values, strings of code points. */
#include "jinja/jinja_value.h"

#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"
#include "base/utf8.h"

/* --- memory ----------------------------------------------------------------------------------- */

enum { FIRST_CHUNK = 4096, LARGEST_CHUNK = 4 << 20 };

struct qp_jinja_chunk {
    qp_jinja_chunk_t *before;
    size_t used, capacity;
    char *data;
};

void *qp_jinja_take(qp_jinja_arena_t *arena, size_t n_bytes)
{
    qp_jinja_chunk_t *chunk = arena->last;
    n_bytes = (n_bytes + 15) & ~(size_t)15;
    if (chunk == NULL || chunk->capacity - chunk->used < n_bytes) {
        size_t capacity = chunk == NULL ? FIRST_CHUNK : 2 * chunk->capacity;
        capacity = capacity > LARGEST_CHUNK ? LARGEST_CHUNK : capacity;
        chunk = QP_NEW("jinja", qp_jinja_chunk_t, 1);
        chunk->capacity = capacity > n_bytes ? capacity : n_bytes;
        chunk->data = qp_alloc("jinja", chunk->capacity);
        chunk->before = arena->last;
        arena->last = chunk;
    }
    void *taken = chunk->data + chunk->used;
    chunk->used += n_bytes;
    arena->n_bytes += n_bytes;
    return taken;
}

/* Makes a piece that was taken last larger in place; false if it cannot. */
static bool extend(qp_jinja_arena_t *arena, const char *data, size_t from, size_t to)
{
    qp_jinja_chunk_t *chunk = arena->last;
    if (data == NULL || chunk == NULL || data + from != chunk->data + chunk->used ||
        chunk->capacity - chunk->used < to - from)
        return false;
    chunk->used += to - from;
    arena->n_bytes += to - from;
    return true;
}

void qp_jinja_arena_fini(qp_jinja_arena_t *arena)
{
    while (arena->last != NULL) {
        qp_jinja_chunk_t *chunk = arena->last;
        arena->last = chunk->before;
        qp_free(chunk->data);
        qp_free(chunk);
    }
    *arena = (qp_jinja_arena_t){0};
}

void qp_jinja_put(qp_jinja_text_t *text, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    if (text->capacity - text->n < n) {
        const size_t capacity = (2 * (text->n + n) + 63) & ~(size_t)15;
        if (!extend(text->arena, text->data, text->capacity, capacity)) {
            char *more = qp_jinja_take(text->arena, capacity);
            if (text->n > 0)
                memcpy(more, text->data, text->n);
            text->data = more;
        }
        text->capacity = capacity;
    }
    memcpy(text->data + text->n, bytes, n);
    text->n += n;
}

void qp_jinja_puts(qp_jinja_text_t *text, const char *bytes)
{
    qp_jinja_put(text, bytes, strlen(bytes));
}

void qp_jinja_put_code(qp_jinja_text_t *text, uint32_t code)
{
    qp_str_t bytes = {0};
    qp_utf8_put(&bytes, code);
    qp_jinja_put(text, bytes.data, bytes.n);
    qp_str_fini(&bytes);
}

/* --- making values ---------------------------------------------------------------------------- */

qp_jv_t qp_jv_string_at(qp_jinja_arena_t *arena, const char *data, size_t n)
{
    qp_jv_string_t *s = QP_JINJA_NEW(arena, qp_jv_string_t, 1);
    *s = (qp_jv_string_t){.data = n > 0 ? data : "", .n = n, .n_chars = -1, .item = -1};
    return (qp_jv_t){.type = QP_JV_STRING, .as.s = s};
}

qp_jv_t qp_jv_string(qp_jinja_arena_t *arena, const char *data, size_t n)
{
    char *copy = qp_jinja_take(arena, n + 1);
    if (n > 0)
        memcpy(copy, data, n);
    qp_jv_t value = qp_jv_string_at(arena, copy, n);
    (void)qp_jv_length(
        value.as.s); /* constants are shared between threads: nothing is left to do */
    return value;
}

qp_jv_t qp_jv_string_of(const qp_jinja_text_t *text)
{
    qp_jinja_text_t ended = *text;
    qp_jinja_put(&ended, "", 1);
    qp_jv_t value = qp_jv_string_at(text->arena, ended.data, text->n);
    (void)qp_jv_length(value.as.s);
    return value;
}

qp_jv_t qp_jv_name(qp_jinja_arena_t *arena, const char *name)
{
    return qp_jv_string(arena, name, strlen(name));
}

qp_jv_t qp_jv_list(qp_jinja_arena_t *arena, qp_jv_type_t type, const qp_jv_t *at, int64_t n)
{
    qp_jv_list_t *list = QP_JINJA_NEW(arena, qp_jv_list_t, 1);
    *list = (qp_jv_list_t){.at = at, .n = n, .item = -1};
    return (qp_jv_t){.type = type, .as.list = list};
}

qp_jv_t qp_jv_dict(qp_jinja_arena_t *arena)
{
    qp_jv_dict_t *dict = QP_JINJA_NEW(arena, qp_jv_dict_t, 1);
    dict->item = -1;
    return (qp_jv_t){.type = QP_JV_DICT, .as.dict = dict};
}

qp_jv_t qp_jv_undefined(qp_jinja_arena_t *arena, const char *format, const char *name,
                        const char *what)
{
    qp_jv_undefined_t *why = QP_JINJA_NEW(arena, qp_jv_undefined_t, 1);
    *why = (qp_jv_undefined_t){.format = format, .name = name, .what = what};
    return (qp_jv_t){.type = QP_JV_UNDEFINED, .as.undefined = why};
}

qp_error_t qp_jv_undefined_error(const qp_jv_t *value)
{
    const qp_jv_undefined_t *why = value->as.undefined;
    return QP_ERROR(QP_INPUT, "'%.60s' %s%s%s", why->name, why->format,
                    why->what != NULL ? " " : "", why->what != NULL ? why->what : "");
}

static qp_jv_t object_of_json(qp_jinja_arena_t *arena, const json_t *json)
{
    qp_jv_t dict = qp_jv_dict(arena);
    json_t *object = (json_t *)json; /* jansson's iterators do not take const */
    for (void *at = json_object_iter(object); at != NULL; at = json_object_iter_next(object, at)) {
        const char *name = json_object_iter_key(at);
        const qp_jv_t key = qp_jv_string(arena, name, json_object_iter_key_len(at));
        const qp_jv_t value = qp_jv_of_json(arena, json_object_iter_value(at));
        qp_jv_set(arena, dict.as.dict, &key, &value);
    }
    return dict;
}

qp_jv_t qp_jv_of_json(qp_jinja_arena_t *arena, const json_t *json)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return object_of_json(arena, json);
    case JSON_ARRAY: {
        const size_t n = json_array_size(json);
        qp_jv_t *at = QP_JINJA_NEW(arena, qp_jv_t, n);
        for (size_t i = 0; i < n; i++)
            at[i] = qp_jv_of_json(arena, json_array_get(json, i));
        return qp_jv_list(arena, QP_JV_LIST, at, (int64_t)n);
    }
    case JSON_STRING:
        return qp_jv_string(arena, json_string_value(json), json_string_length(json));
    case JSON_INTEGER:
        return qp_jv_int(json_integer_value(json));
    case JSON_REAL:
        return qp_jv_float(json_real_value(json));
    case JSON_TRUE:
    case JSON_FALSE:
        return qp_jv_bool(json_is_true(json));
    default:
        return qp_jv_none();
    }
}

int64_t qp_jv_item(const qp_jv_t *value)
{
    switch (value->type) {
    case QP_JV_STRING:
        return value->as.s->item;
    case QP_JV_LIST:
        return value->as.list->item;
    case QP_JV_DICT:
        return value->as.dict->item;
    default:
        return -1;
    }
}

/* --- strings ---------------------------------------------------------------------------------- */

int64_t qp_jv_length(qp_jv_string_t *s)
{
    if (s->n_chars < 0) {
        int64_t n = 0;
        for (size_t i = 0; i < s->n; i++)
            n += ((unsigned char)s->data[i] & 0xc0) != 0x80;
        s->n_chars = n;
    }
    return s->n_chars;
}

size_t qp_jv_offset(qp_jv_string_t *s, int64_t index)
{
    if (qp_jv_length(s) == (int64_t)s->n)
        return (size_t)index;
    size_t at = 0;
    for (; index > 0; index--)
        at += qp_utf8_length(s->data[at]);
    return at;
}

bool qp_jinja_is_space(uint32_t code)
{
    return qp_utf8_is_space(code) || (code >= 0x1c && code <= 0x1f);
}

size_t qp_jinja_space_at(const char *text, const char *end)
{
    if (text >= end)
        return 0;
    if ((unsigned char)*text < 0x80)
        return qp_jinja_is_space((unsigned char)*text);
    size_t n = 0;
    return qp_jinja_is_space(qp_utf8_decode(text, &n)) ? n : 0;
}

size_t qp_jinja_space_before(const char *text, const char *end)
{
    if (text >= end)
        return 0;
    const char *at = end - 1;
    while (at > text && ((unsigned char)*at & 0xc0) == 0x80)
        at--;
    return qp_jinja_space_at(at, end) > 0 ? (size_t)(end - at) : 0;
}
