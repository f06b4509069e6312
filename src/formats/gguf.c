/* GGUF reader: header, metadata, tensor table. Everything in the file is checked against its size
 * before it is used. */
#include "formats/gguf.h"

#include <string.h>

#include "base/mem.h"
#include "formats/gguf_value.h"
#include "formats/map.h"

enum { MAX_ALIGNMENT = 1 << 20, DEFAULT_ALIGNMENT = 32 };
/* Bounds that no honest file reaches; they keep arithmetic and allocations sane. */
static const uint64_t MAX_ENTRIES = 1u << 16;
static const uint64_t MAX_ELEMENTS = (uint64_t)1 << 40;

struct qp_gguf {
    qp_map_t map;
    int64_t n_value;
    qp_gguf_value_t *value;
    int64_t n_tensor;
    qp_gguf_tensor_t *tensor;
};

static qp_error_t read_values(qp_gguf_t *gguf, qp_gguf_cursor_t *cursor, uint64_t n)
{
    gguf->value = QP_NEW("gguf", qp_gguf_value_t, (int64_t)n);
    for (uint64_t i = 0; i < n; i++) {
        QP_TRY(qp_gguf_read_value(cursor, &gguf->value[i]));
        gguf->n_value++;
    }
    return NULL;
}

/* Checks the shape of a tensor and works out its bytes. */
static qp_error_t check_tensor(const char *path, qp_gguf_tensor_t *t, uint32_t type)
{
    t->type = qp_ggml_type(type);
    if (t->type == NULL)
        return QP_ERROR(
            QP_INPUT,
            "%s: tensor %s has type %s (%u), which Quipu cannot read; it reads F32, F16, "
            "BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K",
            path, t->name, qp_ggml_type_name(type), type);
    uint64_t n = 1;
    for (int d = 0; d < t->n_dim; d++) {
        uint64_t dim = (uint64_t)t->dim[d];
        if (dim == 0 || dim > MAX_ELEMENTS || n > MAX_ELEMENTS / dim)
            return QP_ERROR(QP_INPUT, "%s: tensor %s has an impossible size", path, t->name);
        n *= dim;
    }
    if (t->dim[0] % t->type->block_len != 0)
        return QP_ERROR(QP_INPUT,
                        "%s: tensor %s has rows of %ld elements, not a multiple of %ld (%s)", path,
                        t->name, (long)t->dim[0], (long)t->type->block_len, t->type->name);
    t->n_bytes = (size_t)(n / (uint64_t)t->type->block_len) * (size_t)t->type->block_bytes;
    return NULL;
}

/* One row of the tensor table; the offset stays relative to the data section for now. */
static qp_error_t read_tensor(qp_gguf_cursor_t *cursor, qp_gguf_tensor_t *t, uint64_t *offset)
{
    uint32_t n_dim = 0, type = 0;
    QP_TRY(qp_gguf_read_name(cursor, &t->name));
    QP_TRY(qp_gguf_read_u32(cursor, &n_dim));
    if (n_dim == 0 || n_dim > QP_GGUF_MAX_DIM)
        return QP_ERROR(QP_INPUT, "%s: tensor %s has %u dimensions, expected 1 to %d", cursor->path,
                        t->name, n_dim, QP_GGUF_MAX_DIM);
    t->n_dim = (int)n_dim;
    for (int d = 0; d < QP_GGUF_MAX_DIM; d++) {
        uint64_t dim = 1;
        if (d < t->n_dim)
            QP_TRY(qp_gguf_read_u64(cursor, &dim));
        if (dim > MAX_ELEMENTS)
            return QP_ERROR(QP_INPUT, "%s: tensor %s has an impossible size", cursor->path,
                            t->name);
        t->dim[d] = (int64_t)dim;
    }
    QP_TRY(qp_gguf_read_u32(cursor, &type));
    QP_TRY(qp_gguf_read_u64(cursor, offset));
    return check_tensor(cursor->path, t, type);
}

static qp_error_t read_tensors(qp_gguf_t *gguf, qp_gguf_cursor_t *cursor, uint64_t n,
                               uint64_t **offset)
{
    gguf->tensor = QP_NEW("gguf", qp_gguf_tensor_t, (int64_t)n);
    *offset = QP_NEW("gguf", uint64_t, (int64_t)n);
    for (uint64_t i = 0; i < n; i++) {
        gguf->n_tensor++;
        QP_TRY(read_tensor(cursor, &gguf->tensor[i], *offset + i));
    }
    return NULL;
}

/* Turns offsets into pointers, now that the start of the data section is known. */
static qp_error_t place_tensors(qp_gguf_t *gguf, size_t position, const uint64_t *offset)
{
    const char *path = gguf->map.path;
    int64_t alignment = DEFAULT_ALIGNMENT;
    if (qp_gguf_has(gguf, "general.alignment"))
        QP_TRY(qp_gguf_get_i64(gguf, "general.alignment", &alignment));
    if (alignment <= 0 || alignment > MAX_ALIGNMENT || alignment % 8 != 0)
        return QP_ERROR(QP_INPUT, "%s: general.alignment is %ld", path, (long)alignment);
    size_t start = (position + (size_t)alignment - 1) / (size_t)alignment * (size_t)alignment;
    for (int64_t i = 0; i < gguf->n_tensor; i++) {
        qp_gguf_tensor_t *t = &gguf->tensor[i];
        size_t available = start < gguf->map.n_bytes ? gguf->map.n_bytes - start : 0;
        if (offset[i] > available || t->n_bytes > available - offset[i])
            return QP_ERROR(
                QP_INPUT, "%s: the file is truncated: tensor %s ends at byte %zu, the file has %zu",
                path, t->name, start + (size_t)offset[i] + t->n_bytes, gguf->map.n_bytes);
        if (offset[i] % (uint64_t)alignment != 0)
            return QP_ERROR(QP_INPUT, "%s: tensor %s starts at offset %lu, not a multiple of %ld",
                            path, t->name, (unsigned long)offset[i], (long)alignment);
        t->data = gguf->map.data + start + offset[i];
        for (int64_t j = 0; j < i; j++)
            if (strcmp(gguf->tensor[j].name, t->name) == 0)
                return QP_ERROR(QP_INPUT, "%s: tensor %s stands there twice", path, t->name);
    }
    return NULL;
}

static qp_error_t parse(qp_gguf_t *gguf)
{
    const char *path = gguf->map.path;
    qp_gguf_cursor_t cursor = {path, gguf->map.data, gguf->map.n_bytes, 0};
    if (gguf->map.n_bytes < 4 || memcmp(gguf->map.data, "GGUF", 4) != 0)
        return QP_ERROR(QP_INPUT, "%s: is not a GGUF file", path);
    cursor.position = 4;
    uint32_t version = 0;
    uint64_t n_tensor = 0, n_value = 0, *offset = NULL;
    QP_TRY(qp_gguf_read_u32(&cursor, &version));
    if (version != 2 && version != 3)
        return QP_ERROR(QP_INPUT, "%s: GGUF version %u%s; Quipu reads versions 2 and 3", path,
                        version, version != 0 && (version & 0xffffu) == 0 ? " (big endian?)" : "");
    QP_TRY(qp_gguf_read_u64(&cursor, &n_tensor));
    QP_TRY(qp_gguf_read_u64(&cursor, &n_value));
    if (n_tensor > MAX_ENTRIES || n_value > MAX_ENTRIES)
        return QP_ERROR(QP_INPUT, "%s: damaged header: %lu tensors and %lu keys", path,
                        (unsigned long)n_tensor, (unsigned long)n_value);
    QP_TRY(read_values(gguf, &cursor, n_value));
    qp_error_t error = read_tensors(gguf, &cursor, n_tensor, &offset);
    if (error == NULL)
        error = place_tensors(gguf, cursor.position, offset);
    qp_free(offset);
    return error;
}

qp_error_t qp_gguf_open(const char *path, qp_gguf_t **gguf)
{
    qp_gguf_t *g = QP_NEW("gguf", qp_gguf_t, 1);
    qp_error_t error = qp_map_open(path, &g->map);
    if (error == NULL)
        error = parse(g);
    *gguf = g;
    if (error != NULL)
        qp_gguf_close(gguf);
    return error;
}

void qp_gguf_close(qp_gguf_t **gguf)
{
    qp_gguf_t *g = *gguf;
    if (g == NULL)
        return;
    for (int64_t i = 0; i < g->n_value; i++)
        qp_free(g->value[i].key);
    for (int64_t i = 0; i < g->n_tensor; i++)
        qp_free(g->tensor[i].name);
    qp_free(g->value);
    qp_free(g->tensor);
    qp_map_close(&g->map);
    QP_FREE(*gguf);
}

const char *qp_gguf_path(const qp_gguf_t *gguf)
{
    return gguf->map.path;
}

int64_t qp_gguf_n_tensor(const qp_gguf_t *gguf)
{
    return gguf->n_tensor;
}

const qp_gguf_tensor_t *qp_gguf_tensor(const qp_gguf_t *gguf, int64_t i)
{
    QP_ASSERT(i >= 0 && i < gguf->n_tensor);
    return &gguf->tensor[i];
}

const qp_gguf_tensor_t *qp_gguf_find(const qp_gguf_t *gguf, const char *name)
{
    for (int64_t i = 0; i < gguf->n_tensor; i++)
        if (strcmp(gguf->tensor[i].name, name) == 0)
            return &gguf->tensor[i];
    return NULL;
}

void qp_gguf_row(const qp_gguf_tensor_t *tensor, int64_t i, float *row)
{
    int64_t n_block = tensor->dim[0] / tensor->type->block_len;
    const uint8_t *blocks = tensor->data + i * n_block * tensor->type->block_bytes;
    tensor->type->dequantise(blocks, n_block, row);
}

/* --- metadata --------------------------------------------------------------------------------- */

static const qp_gguf_value_t *find_value(const qp_gguf_t *gguf, const char *key)
{
    for (int64_t i = 0; i < gguf->n_value; i++)
        if (strcmp(gguf->value[i].key, key) == 0)
            return &gguf->value[i];
    return NULL;
}

bool qp_gguf_has(const qp_gguf_t *gguf, const char *key)
{
    return find_value(gguf, key) != NULL;
}

static qp_error_t require(const qp_gguf_t *gguf, const char *key, const qp_gguf_value_t **value)
{
    *value = find_value(gguf, key);
    if (*value == NULL)
        return QP_ERROR(QP_INPUT, "%s: metadata key %s is missing", gguf->map.path, key);
    return NULL;
}

qp_error_t qp_gguf_get_i64(const qp_gguf_t *gguf, const char *key, int64_t *value)
{
    const qp_gguf_value_t *found = NULL;
    QP_TRY(require(gguf, key, &found));
    if (!qp_gguf_value_i64(found, value))
        return QP_ERROR(QP_INPUT, "%s: metadata key %s is no integer", gguf->map.path, key);
    return NULL;
}

qp_error_t qp_gguf_get_f64(const qp_gguf_t *gguf, const char *key, double *value)
{
    const qp_gguf_value_t *found = NULL;
    QP_TRY(require(gguf, key, &found));
    if (!qp_gguf_value_f64(found, value))
        return QP_ERROR(QP_INPUT, "%s: metadata key %s is no number", gguf->map.path, key);
    return NULL;
}

qp_error_t qp_gguf_get_str(const qp_gguf_t *gguf, const char *key, char **value)
{
    const qp_gguf_value_t *found = NULL;
    QP_TRY(require(gguf, key, &found));
    *value = qp_gguf_value_str(found);
    if (*value == NULL)
        return QP_ERROR(QP_INPUT, "%s: metadata key %s is no string", gguf->map.path, key);
    return NULL;
}

qp_error_t qp_gguf_metadata_json(const qp_gguf_t *gguf, const char *prefix, qp_str_t *json)
{
    qp_str_putc(json, '{');
    const char *separator = "";
    for (int64_t i = 0; i < gguf->n_value; i++) {
        const qp_gguf_value_t *value = &gguf->value[i];
        if (!qp_has_prefix(value->key, prefix))
            continue;
        qp_str_puts(json, separator);
        qp_error_t error = qp_gguf_value_json(value, json);
        if (error != NULL)
            return qp_error_context(error, "%s: metadata key %s", gguf->map.path, value->key);
        separator = ",\n";
    }
    qp_str_putc(json, '}');
    return NULL;
}
