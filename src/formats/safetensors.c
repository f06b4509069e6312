/* safetensors reader: u64 header length, JSON header {name: {dtype, shape, data_offsets}}, data. */
#include "formats/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/json.h"
#include "formats/map.h"
#include "formats/safetensors_dtype.h"

static const uint64_t MAX_HEADER = 100u << 20; /* the format's own bound */

struct qp_safetensors {
    int64_t n_map;
    qp_map_t *map;
    int64_t n_tensor, capacity;
    qp_tensor_t *tensor; /* names owned here */
};

qp_tensor_t qp_tensor_matrix(const char *name, const float *data, int64_t n_row, int64_t n_col)
{
    return (qp_tensor_t){.name = name,
                         .dtype = QP_F32,
                         .n_dim = 2,
                         .dim = {n_row, n_col},
                         .data = data,
                         .n_bytes = qp_bytes(n_row * n_col, sizeof *data)};
}

int64_t qp_tensor_n(const qp_tensor_t *tensor)
{
    int64_t n = 1;
    for (int d = 0; d < tensor->n_dim; d++)
        n *= tensor->dim[d];
    return n;
}

/* --- one tensor ------------------------------------------------------------------------------- */

static qp_error_t parse_shape(const json_t *shape, qp_tensor_t *t)
{
    if (!json_is_array(shape) || json_array_size(shape) > QP_TENSOR_MAX_DIM)
        return QP_ERROR(QP_INPUT, "%s: tensor %s: shape must be a list of at most %d sizes",
                        t->path, t->name, QP_TENSOR_MAX_DIM);
    t->n_dim = (int)json_array_size(shape);
    int64_t n = 1;
    for (int d = 0; d < t->n_dim; d++) {
        const json_t *size = json_array_get(shape, (size_t)d);
        t->dim[d] = (int64_t)json_integer_value(size);
        if (!json_is_integer(size) || t->dim[d] < 0 || __builtin_mul_overflow(n, t->dim[d], &n))
            return QP_ERROR(QP_INPUT, "%s: tensor %s: impossible shape", t->path, t->name);
    }
    size_t bytes;
    if (__builtin_mul_overflow((size_t)n, qp_dtype_bytes(t->dtype), &bytes) || bytes != t->n_bytes)
        return QP_ERROR(QP_INPUT,
                        "%s: tensor %s: its shape takes %ld x %zu bytes, the file gives it %zu",
                        t->path, t->name, (long)n, qp_dtype_bytes(t->dtype), t->n_bytes);
    return NULL;
}

/* t->name and t->path are set already. */
static qp_error_t parse_tensor(const json_t *entry, const uint8_t *data, size_t data_bytes,
                               qp_tensor_t *t)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (dtype == NULL || json_array_size(offsets) != 2 || !json_is_integer(first) ||
        !json_is_integer(end))
        return QP_ERROR(QP_INPUT, "%s: tensor %s: damaged header entry", t->path, t->name);
    if (!qp_safetensors_dtype(dtype, &t->dtype))
        return QP_ERROR(QP_INPUT, "%s: tensor %s: unsupported dtype %s", t->path, t->name, dtype);
    json_int_t a = json_integer_value(first), b = json_integer_value(end);
    if (a < 0 || b < a)
        return QP_ERROR(QP_INPUT, "%s: tensor %s: damaged data_offsets", t->path, t->name);
    if ((uint64_t)b > data_bytes)
        return QP_ERROR(
            QP_INPUT, "%s: the file is truncated: tensor %s ends at data byte %lld, there are %zu",
            t->path, t->name, (long long)b, data_bytes);
    t->data = data + a;
    t->n_bytes = (size_t)(b - a);
    return parse_shape(json_object_get(entry, "shape"), t);
}

/* --- one file --------------------------------------------------------------------------------- */

static qp_tensor_t *push_tensor(qp_safetensors_t *st, const char *name, const char *path)
{
    if (st->n_tensor == st->capacity) {
        st->capacity = 2 * st->capacity + 64;
        st->tensor =
            qp_realloc("safetensors", st->tensor, qp_bytes(st->capacity, sizeof *st->tensor));
    }
    qp_tensor_t *t = &st->tensor[st->n_tensor++];
    *t = (qp_tensor_t){.name = qp_strdup(name), .path = path};
    return t;
}

static int by_address(const void *a, const void *b)
{
    const qp_tensor_t *s = a, *t = b;
    if (s->data != t->data)
        return (const uint8_t *)s->data < (const uint8_t *)t->data ? -1 : 1;
    return s->n_bytes < t->n_bytes ? -1 : s->n_bytes > t->n_bytes; /* empty ones first */
}

/* The data section must be covered by the tensors of this file, without holes and overlaps. */
static qp_error_t check_cover(qp_tensor_t *tensor, int64_t n, const qp_map_t *map,
                              const uint8_t *data)
{
    if (n > 0)
        qsort(tensor, (size_t)n, sizeof *tensor, by_address);
    const uint8_t *expected = data;
    for (int64_t i = 0; i < n; i++) {
        if (tensor[i].data != expected)
            return QP_ERROR(QP_INPUT, "%s: tensor %s starts at data byte %zu, expected %zu",
                            map->path, tensor[i].name,
                            (size_t)((const uint8_t *)tensor[i].data - data),
                            (size_t)(expected - data));
        expected += tensor[i].n_bytes;
    }
    if (expected != map->data + map->n_bytes)
        return QP_ERROR(QP_INPUT, "%s: %zu bytes after the last tensor", map->path,
                        (size_t)(map->data + map->n_bytes - expected));
    return NULL;
}

/* Texts of any meaning, or nothing; as the format has it. */
static qp_error_t check_metadata(const json_t *metadata)
{
    const char *key;
    json_t *value;
    if (json_is_null(metadata))
        return NULL;
    if (!json_is_object(metadata))
        return qp_json_wrong("__metadata__", metadata, "an object of strings");
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return qp_error_context(qp_json_wrong(key, value, "a string"), "__metadata__");
    }
    return NULL;
}

static qp_error_t parse_entries(qp_safetensors_t *st, const qp_map_t *map, const json_t *header,
                                const uint8_t *data)
{
    const char *name;
    json_t *entry;
    int64_t first = st->n_tensor;
    size_t data_bytes = map->n_bytes - (size_t)(data - map->data);
    json_object_foreach((json_t *)header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            QP_TRY(qp_error_context(check_metadata(entry), "%s", map->path));
        else
            QP_TRY(parse_tensor(entry, data, data_bytes, push_tensor(st, name, map->path)));
    }
    qp_tensor_t *tensors = st->n_tensor > first ? st->tensor + first : NULL;
    return check_cover(tensors, st->n_tensor - first, map, data);
}

static qp_error_t parse_header(const qp_map_t *map, size_t n_header, json_t **header)
{
    char *name = qp_format("%s: damaged header", map->path);
    qp_error_t error =
        qp_json_parse_object(name, map->data + sizeof(uint64_t), n_header,
                             QP_JSON_REFUSE_DUPLICATES | QP_JSON_REFUSE_SURROGATES, header);
    qp_free(name);
    return error;
}

static qp_error_t parse_file(qp_safetensors_t *st, const qp_map_t *map)
{
    uint64_t n_header = 0;
    if (map->n_bytes >= sizeof n_header)
        memcpy(&n_header, map->data, sizeof n_header);
    if (map->n_bytes < sizeof n_header || n_header > map->n_bytes - sizeof n_header ||
        n_header > MAX_HEADER)
        return QP_ERROR(
            QP_INPUT,
            "%s: is no safetensors file or is truncated: its header length is %lu, the file "
            "has %zu bytes",
            map->path, (unsigned long)n_header, map->n_bytes);
    json_t *header = NULL;
    QP_TRY(parse_header(map, (size_t)n_header, &header));
    qp_error_t error =
        parse_entries(st, map, header, map->data + sizeof n_header + (size_t)n_header);
    json_decref(header);
    return error;
}

static qp_error_t open_file(qp_safetensors_t *st, const char *path)
{
    QP_TRY(qp_map_open(path, &st->map[st->n_map]));
    st->n_map++;
    return parse_file(st, &st->map[st->n_map - 1]);
}

/* --- a folder --------------------------------------------------------------------------------- */

static int64_t find_map(const qp_safetensors_t *st, const char *path)
{
    for (int64_t i = 0; i < st->n_map; i++)
        if (strcmp(st->map[i].path, path) == 0)
            return i;
    return -1;
}

/* Opens a file that the index names for a tensor, unless it is open. */
static qp_error_t open_shard(qp_safetensors_t *st, const char *folder, const char *tensor,
                             const char *base)
{
    char *path = qp_format("%s/%s", folder, base);
    qp_error_t error = NULL;
    if (find_map(st, path) < 0)
        error =
            access(path, F_OK) == 0
                ? open_file(st, path)
                : QP_ERROR(QP_INPUT, "%s is missing, which should hold tensor %s", path, tensor);
    qp_free(path);
    return error;
}

static qp_error_t open_shards(qp_safetensors_t *st, const char *folder, const char *index_path,
                              const json_t *weight_map)
{
    const char *name;
    json_t *file;
    st->map = QP_NEW("safetensors", qp_map_t, (int64_t)json_object_size(weight_map));
    json_object_foreach((json_t *)weight_map, name, file)
    {
        const char *base = json_string_value(file);
        if (base == NULL || *base == '\0' || strchr(base, '/') != NULL)
            return qp_error_context(qp_json_wrong(name, file, "the name of a file in this folder"),
                                    "%s: weight_map", index_path);
        QP_TRY(qp_error_context(open_shard(st, folder, name, base), "%s", index_path));
    }
    return NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const qp_tensor_t *)a)->name, ((const qp_tensor_t *)b)->name);
}

/* Sorts all tensors by name and refuses a name that stands in two files. */
static qp_error_t sort_tensors(qp_safetensors_t *st)
{
    if (st->n_tensor > 0)
        qsort(st->tensor, (size_t)st->n_tensor, sizeof *st->tensor, by_name);
    for (int64_t i = 1; i < st->n_tensor; i++)
        if (strcmp(st->tensor[i - 1].name, st->tensor[i].name) == 0)
            return QP_ERROR(QP_INPUT, "%s: tensor %s also stands in %s", st->tensor[i].path,
                            st->tensor[i].name, st->tensor[i - 1].path);
    return NULL;
}

static qp_error_t check_index(const qp_safetensors_t *st, const char *index_path,
                              const json_t *weight_map)
{
    const char *name;
    json_t *file;
    json_object_foreach((json_t *)weight_map, name, file)
    {
        if (qp_safetensors_find(st, name) == NULL)
            return QP_ERROR(QP_INPUT, "%s: tensor %s is not in %s", index_path, name,
                            json_string_value(file));
    }
    return NULL;
}

static qp_error_t read_index(const char *path, json_t **index, json_t **weight_map)
{
    void *text = NULL;
    size_t n;
    QP_TRY(qp_file_read(path, &text, &n));
    qp_error_t error = qp_json_parse_object(path, text, n, QP_JSON_REFUSE_DUPLICATES, index);
    qp_free(text);
    if (error == NULL)
        error = qp_error_context(qp_json_want(*index, "weight_map", JSON_OBJECT, weight_map), "%s",
                                 path);
    return error;
}

static qp_error_t open_index(qp_safetensors_t *st, const char *folder, const char *index_path)
{
    json_t *index = NULL, *weight_map = NULL;
    qp_error_t error = read_index(index_path, &index, &weight_map);
    if (error == NULL)
        error = open_shards(st, folder, index_path, weight_map);
    if (error == NULL)
        error = sort_tensors(st);
    if (error == NULL)
        error = check_index(st, index_path, weight_map);
    json_decref(index);
    return error;
}

static qp_error_t open_single(qp_safetensors_t *st, const char *path)
{
    st->map = QP_NEW("safetensors", qp_map_t, 1);
    QP_TRY(open_file(st, path));
    return sort_tensors(st);
}

static qp_error_t open_folder(qp_safetensors_t *st, const char *folder)
{
    char *single = qp_format("%s/model.safetensors", folder);
    char *index = qp_format("%s/model.safetensors.index.json", folder);
    char *pickle = qp_format("%s/pytorch_model.bin", folder);
    char *pickle_index = qp_format("%s/pytorch_model.bin.index.json", folder);
    qp_error_t error;
    if (access(single, F_OK) == 0)
        error = open_single(st, single);
    else if (access(index, F_OK) == 0)
        error = open_index(st, folder, index);
    else if (access(pickle, F_OK) == 0 || access(pickle_index, F_OK) == 0)
        error = QP_ERROR(QP_INPUT,
                         "%s: has only PyTorch pickles (pytorch_model*.bin); save the model as "
                         "safetensors first",
                         folder);
    else
        error = QP_ERROR(
            QP_INPUT, "%s: has neither model.safetensors nor model.safetensors.index.json", folder);
    qp_free(single);
    qp_free(index);
    qp_free(pickle);
    qp_free(pickle_index);
    return error;
}

/* --- the interface ---------------------------------------------------------------------------- */

qp_error_t qp_safetensors_open(const char *path, qp_safetensors_t **st)
{
    *st = QP_NEW("safetensors", qp_safetensors_t, 1);
    bool is_file = qp_has_suffix(path, ".safetensors");
    qp_error_t error = is_file ? open_single(*st, path) : open_folder(*st, path);
    if (error != NULL)
        qp_safetensors_close(st);
    return error;
}

void qp_safetensors_close(qp_safetensors_t **st)
{
    if (*st == NULL)
        return;
    for (int64_t i = 0; i < (*st)->n_tensor; i++)
        qp_free((void *)(*st)->tensor[i].name);
    for (int64_t i = 0; i < (*st)->n_map; i++)
        qp_map_close(&(*st)->map[i]);
    qp_free((*st)->tensor);
    qp_free((*st)->map);
    QP_FREE(*st);
}

int64_t qp_safetensors_n(const qp_safetensors_t *st)
{
    return st->n_tensor;
}

const qp_tensor_t *qp_safetensors_at(const qp_safetensors_t *st, int64_t i)
{
    QP_ASSERT(i >= 0 && i < st->n_tensor);
    return &st->tensor[i];
}

const qp_tensor_t *qp_safetensors_find(const qp_safetensors_t *st, const char *name)
{
    qp_tensor_t key = {.name = name};
    if (st->n_tensor == 0)
        return NULL;
    return bsearch(&key, st->tensor, (size_t)st->n_tensor, sizeof key, by_name);
}
