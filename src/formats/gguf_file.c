/* One GGUF file: header, metadata, tensor table. Everything in the file is checked against its size
 * before it is used. */
#include "formats/gguf_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { MAX_ALIGNMENT = 1 << 20, DEFAULT_ALIGNMENT = 32 };
/* Bounds that no honest file reaches; they keep arithmetic and allocations sane. */
static const uint64_t MAX_ENTRIES = 1u << 16;
static const uint64_t MAX_ELEMENTS = (uint64_t)1 << 40;

static qp_error_t read_values(qp_gguf_file_t *file, qp_gguf_cursor_t *cursor, uint64_t n)
{
    file->value = QP_NEW("gguf", qp_gguf_value_t, (int64_t)n);
    for (uint64_t i = 0; i < n; i++) {
        QP_TRY(qp_gguf_read_value(cursor, &file->value[i]));
        file->n_value++;
    }
    return NULL;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const char *qp_gguf_repeated(const char **name, int64_t n)
{
    if (n > 0)
        qsort(name, (size_t)n, sizeof *name, by_text);
    for (int64_t i = 1; i < n; i++)
        if (strcmp(name[i - 1], name[i]) == 0)
            return name[i];
    return NULL;
}

static qp_error_t check_keys(const qp_gguf_file_t *file)
{
    const char **key = QP_NEW("gguf", const char *, file->n_value);
    for (int64_t i = 0; i < file->n_value; i++)
        key[i] = file->value[i].key;
    const char *repeated = qp_gguf_repeated(key, file->n_value);
    qp_free(key);
    return repeated == NULL ? NULL
                            : QP_ERROR(QP_INPUT, "%s: metadata key %s stands there twice",
                                       file->map.path, repeated);
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

static qp_error_t read_tensors(qp_gguf_file_t *file, qp_gguf_cursor_t *cursor, uint64_t n,
                               uint64_t **offset)
{
    file->tensor = QP_NEW("gguf", qp_gguf_tensor_t, (int64_t)n);
    *offset = QP_NEW("gguf", uint64_t, (int64_t)n);
    for (uint64_t i = 0; i < n; i++) {
        file->n_tensor++;
        QP_TRY(read_tensor(cursor, &file->tensor[i], *offset + i));
    }
    return NULL;
}

/* Turns offsets into pointers, now that the start of the data section is known. */
static qp_error_t place_tensors(qp_gguf_file_t *file, size_t position, const uint64_t *offset)
{
    const char *path = file->map.path;
    int64_t alignment = DEFAULT_ALIGNMENT;
    if (qp_gguf_file_value(file, "general.alignment") != NULL)
        QP_TRY(qp_gguf_file_i64(file, "general.alignment", &alignment));
    if (alignment <= 0 || alignment > MAX_ALIGNMENT || alignment % 8 != 0)
        return QP_ERROR(QP_INPUT, "%s: general.alignment is %ld", path, (long)alignment);
    size_t start = (position + (size_t)alignment - 1) / (size_t)alignment * (size_t)alignment;
    for (int64_t i = 0; i < file->n_tensor; i++) {
        qp_gguf_tensor_t *t = &file->tensor[i];
        size_t available = start < file->map.n_bytes ? file->map.n_bytes - start : 0;
        if (offset[i] > available || t->n_bytes > available - offset[i])
            return QP_ERROR(
                QP_INPUT, "%s: the file is truncated: tensor %s ends at byte %zu, the file has %zu",
                path, t->name, start + (size_t)offset[i] + t->n_bytes, file->map.n_bytes);
        if (offset[i] % (uint64_t)alignment != 0)
            return QP_ERROR(QP_INPUT, "%s: tensor %s starts at offset %lu, not a multiple of %ld",
                            path, t->name, (unsigned long)offset[i], (long)alignment);
        t->data = file->map.data + start + offset[i];
    }
    return NULL;
}

static qp_error_t parse(qp_gguf_file_t *file)
{
    const char *path = file->map.path;
    qp_gguf_cursor_t cursor = {path, file->map.data, file->map.n_bytes, 0};
    if (file->map.n_bytes < 4 || memcmp(file->map.data, "GGUF", 4) != 0)
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
    QP_TRY(read_values(file, &cursor, n_value));
    QP_TRY(check_keys(file));
    qp_error_t error = read_tensors(file, &cursor, n_tensor, &offset);
    if (error == NULL)
        error = place_tensors(file, cursor.position, offset);
    qp_free(offset);
    return error;
}

qp_error_t qp_gguf_file_open(const char *path, qp_gguf_file_t *file)
{
    *file = (qp_gguf_file_t){0};
    QP_TRY(qp_map_open(path, &file->map));
    return parse(file);
}

void qp_gguf_file_close(qp_gguf_file_t *file)
{
    for (int64_t i = 0; i < file->n_value; i++)
        qp_free(file->value[i].key);
    for (int64_t i = 0; i < file->n_tensor; i++)
        qp_free(file->tensor[i].name);
    qp_free(file->value);
    qp_free(file->tensor);
    qp_map_close(&file->map);
    *file = (qp_gguf_file_t){0};
}

/* --- metadata --------------------------------------------------------------------------------- */

const qp_gguf_value_t *qp_gguf_file_value(const qp_gguf_file_t *file, const char *key)
{
    for (int64_t i = 0; i < file->n_value; i++)
        if (strcmp(file->value[i].key, key) == 0)
            return &file->value[i];
    return NULL;
}

static qp_error_t require(const qp_gguf_file_t *file, const char *key,
                          const qp_gguf_value_t **value)
{
    *value = qp_gguf_file_value(file, key);
    if (*value == NULL)
        return QP_ERROR(QP_INPUT, "%s: metadata key %s is missing", file->map.path, key);
    return NULL;
}

static qp_error_t wrong_kind(const qp_gguf_file_t *file, const qp_gguf_value_t *value,
                             const char *expected)
{
    return QP_ERROR(QP_INPUT, "%s: metadata key %s is %s, expected %s", file->map.path, value->key,
                    qp_gguf_value_kind(value), expected);
}

qp_error_t qp_gguf_file_i64(const qp_gguf_file_t *file, const char *key, int64_t *value)
{
    const qp_gguf_value_t *found = NULL;
    QP_TRY(require(file, key, &found));
    return qp_gguf_value_i64(found, value) ? NULL : wrong_kind(file, found, "an integer");
}

qp_error_t qp_gguf_file_f64(const qp_gguf_file_t *file, const char *key, double *value)
{
    const qp_gguf_value_t *found = NULL;
    QP_TRY(require(file, key, &found));
    return qp_gguf_value_f64(found, value) ? NULL : wrong_kind(file, found, "a float");
}

qp_error_t qp_gguf_file_str(const qp_gguf_file_t *file, const char *key, char **value)
{
    const qp_gguf_value_t *found = NULL;
    QP_TRY(require(file, key, &found));
    *value = qp_gguf_value_str(found);
    return *value != NULL ? NULL : wrong_kind(file, found, "a string");
}
