/* A GGUF model: one file, or the parts of a split one in their order. */
#include "formats/gguf.h"

#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "formats/gguf_file.h"

enum { MAX_PART = 99999 }; /* five digits in a name */

/* What a part of a split model says of itself; n is 1 for a whole model. */
typedef struct {
    int64_t no, n, n_tensor;
} split_t;

struct qp_gguf {
    int64_t n_part;
    qp_gguf_file_t *part; /* metadata stand in the first */
    int64_t n_tensor;
    qp_gguf_tensor_t *tensor; /* of all parts; names and data are theirs */
};

/* --- split models ----------------------------------------------------------------------------- */

/* llama.cpp's tool that joins parts leaves the keys, with a count of 0. */
static qp_error_t read_split(const qp_gguf_file_t *file, split_t *split)
{
    *split = (split_t){0, 1, file->n_tensor};
    if (qp_gguf_file_value(file, "split.count") == NULL)
        return NULL;
    int64_t n;
    QP_TRY(qp_gguf_file_i64(file, "split.count", &n));
    if (n == 0 || n == 1)
        return NULL;
    split->n = n;
    QP_TRY(qp_gguf_file_i64(file, "split.no", &split->no));
    QP_TRY(qp_gguf_file_i64(file, "split.tensors.count", &split->n_tensor));
    if (split->n < 0 || split->n > MAX_PART || split->no < 0 || split->no >= split->n)
        return QP_ERROR(QP_INPUT, "%s: split.no is %ld and split.count %ld", file->map.path,
                        (long)split->no, (long)split->n);
    return NULL;
}

/* llama.cpp's names of parts end like this; they count from 1, split.no from 0. */
static char *part_ending(int64_t no, int64_t n)
{
    return qp_format("-%05ld-of-%05ld.gguf", (long)no + 1, (long)n);
}

/* Part i of the model of which path is part split->no. */
static char *part_path(const char *path, const split_t *split, int64_t i)
{
    char *ending = part_ending(i, split->n);
    char *part = qp_format("%.*s%s", (int)(strlen(path) - strlen(ending)), path, ending);
    qp_free(ending);
    return part;
}

static qp_error_t check_name(const char *path, const split_t *split)
{
    char *ending = part_ending(split->no, split->n);
    qp_error_t error = NULL;
    if (!qp_has_suffix(path, ending))
        error = QP_ERROR(QP_INPUT,
                         "%s: is part %ld of %ld of a split model; the other parts are found only "
                         "if its name ends in %s",
                         path, (long)split->no + 1, (long)split->n, ending);
    qp_free(ending);
    return error;
}

/* The part must say what the others say, and come from the same model as far as can be seen. */
static qp_error_t check_part(const qp_gguf_file_t *file, const char *opened, int64_t i,
                             const split_t *wanted)
{
    split_t found;
    QP_TRY(read_split(file, &found));
    if (found.no == i && found.n == wanted->n && found.n_tensor == wanted->n_tensor)
        return NULL;
    return QP_ERROR(QP_INPUT,
                    "%s: says that it is part %ld of %ld of a model of %ld tensors; by %s it is "
                    "part %ld of %ld of one of %ld",
                    file->map.path, (long)found.no + 1, (long)found.n, (long)found.n_tensor, opened,
                    (long)i + 1, (long)wanted->n, (long)wanted->n_tensor);
}

static qp_error_t open_part(qp_gguf_t *gguf, const char *path, const split_t *split, int64_t i)
{
    char *part = part_path(path, split, i);
    qp_error_t error = NULL;
    if (access(part, F_OK) != 0)
        error = QP_ERROR(QP_INPUT,
                         "%s: is part %ld of %ld of a split model, and part %ld is "
                         "missing: %s",
                         path, (long)split->no + 1, (long)split->n, (long)i + 1, part);
    if (error == NULL)
        error = qp_gguf_file_open(part, &gguf->part[i]);
    if (error == NULL)
        error = check_part(&gguf->part[i], path, i, split);
    qp_free(part);
    return error;
}

/* Opens the other parts beside the one that is open in part[0]. */
static qp_error_t open_others(qp_gguf_t *gguf, const char *path, const split_t *split)
{
    QP_TRY(check_name(path, split));
    const qp_gguf_file_t opened = gguf->part[0];
    gguf->part = qp_realloc("gguf", gguf->part, qp_bytes(split->n, sizeof *gguf->part));
    memset(gguf->part, 0, qp_bytes(split->n, sizeof *gguf->part));
    gguf->n_part = split->n;
    gguf->part[split->no] = opened;
    for (int64_t i = 0; i < split->n; i++)
        if (i != split->no)
            QP_TRY(open_part(gguf, path, split, i));
    return NULL;
}

static qp_error_t join_tensors(qp_gguf_t *gguf, const split_t *split)
{
    const char *path = gguf->part[0].map.path;
    for (int64_t i = 0; i < gguf->n_part; i++)
        gguf->n_tensor += gguf->part[i].n_tensor;
    if (gguf->n_tensor != split->n_tensor)
        return QP_ERROR(QP_INPUT, "%s: split.tensors.count is %ld, but its parts have %ld tensors",
                        path, (long)split->n_tensor, (long)gguf->n_tensor);
    const char **name = QP_NEW("gguf", const char *, gguf->n_tensor);
    gguf->tensor = QP_NEW("gguf", qp_gguf_tensor_t, gguf->n_tensor);
    for (int64_t i = 0, n = 0; i < gguf->n_part; i++)
        for (int64_t t = 0; t < gguf->part[i].n_tensor; t++, n++) {
            gguf->tensor[n] = gguf->part[i].tensor[t];
            name[n] = gguf->tensor[n].name;
        }
    const char *repeated = qp_gguf_repeated(name, gguf->n_tensor);
    qp_free(name);
    return repeated == NULL
               ? NULL
               : QP_ERROR(QP_INPUT, "%s: tensor %s stands there twice", path, repeated);
}

static qp_error_t open_parts(const char *path, qp_gguf_t *gguf)
{
    split_t split;
    gguf->n_part = 1;
    gguf->part = QP_NEW("gguf", qp_gguf_file_t, 1);
    QP_TRY(qp_gguf_file_open(path, &gguf->part[0]));
    QP_TRY(read_split(&gguf->part[0], &split));
    if (split.n > 1)
        QP_TRY(open_others(gguf, path, &split));
    return join_tensors(gguf, &split);
}

/* --- the interface ---------------------------------------------------------------------------- */

qp_error_t qp_gguf_open(const char *path, qp_gguf_t **gguf)
{
    *gguf = QP_NEW("gguf", qp_gguf_t, 1);
    qp_error_t error = open_parts(path, *gguf);
    if (error != NULL)
        qp_gguf_close(gguf);
    return error;
}

void qp_gguf_close(qp_gguf_t **gguf)
{
    qp_gguf_t *g = *gguf;
    if (g == NULL)
        return;
    for (int64_t i = 0; i < g->n_part; i++)
        qp_gguf_file_close(&g->part[i]);
    qp_free(g->part);
    qp_free(g->tensor);
    QP_FREE(*gguf);
}

const char *qp_gguf_path(const qp_gguf_t *gguf)
{
    return gguf->part[0].map.path;
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

bool qp_gguf_has(const qp_gguf_t *gguf, const char *key)
{
    return qp_gguf_file_value(gguf->part, key) != NULL;
}

qp_error_t qp_gguf_get_i64(const qp_gguf_t *gguf, const char *key, int64_t *value)
{
    return qp_gguf_file_i64(gguf->part, key, value);
}

qp_error_t qp_gguf_get_f64(const qp_gguf_t *gguf, const char *key, double *value)
{
    return qp_gguf_file_f64(gguf->part, key, value);
}

qp_error_t qp_gguf_get_str(const qp_gguf_t *gguf, const char *key, char **value)
{
    return qp_gguf_file_str(gguf->part, key, value);
}

qp_error_t qp_gguf_metadata_json(const qp_gguf_t *gguf, const char *prefix, qp_str_t *json)
{
    qp_str_putc(json, '{');
    const char *separator = "";
    for (int64_t i = 0; i < gguf->part->n_value; i++) {
        const qp_gguf_value_t *value = &gguf->part->value[i];
        if (!qp_has_prefix(value->key, prefix))
            continue;
        qp_str_puts(json, separator);
        qp_error_t error = qp_gguf_value_json(value, json);
        if (error != NULL)
            return qp_error_context(error, "%s: metadata key %s", qp_gguf_path(gguf), value->key);
        separator = ",\n";
    }
    qp_str_putc(json, '}');
    return NULL;
}
