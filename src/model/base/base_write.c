/* The streaming writer of a base file. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/convert.h"
#include "model/base/base_file.h"

/* The checksum of a finished data set, for base_id. */
typedef struct {
    char name[128];
    uint64_t xxh3;
} sum_t;

struct qp_base_writer {
    char *path, *temporary;
    qp_h5_t *file;
    qp_base_kinds_t kinds;
    qp_tensor_spec_t *spec;
    int64_t n_spec;
    int64_t current, next_row; /* the tensor being written, and its next row */
    qp_hash_t *hash;           /* of the rows so far */
    float *scale;              /* [rows of the longest linear] of the current one */
    uint8_t *stored;           /* a piece in its stored type; grows */
    size_t stored_capacity;
    float *rotated; /* [n_thread, columns of the widest linear] */
    int64_t max_col;
    sum_t *sum;
    int64_t n_sum, sum_capacity;
};

static void dataset_name(const char *tensor, const char *suffix, char *name, size_t n_bytes)
{
    snprintf(name, n_bytes, "/tensors/%s%s", tensor, suffix);
}

/* Records the checksum of a data set in the file and for base_id. */
static qp_error_t note_sum(qp_base_writer_t *w, const char *name, uint64_t xxh3)
{
    if (w->n_sum == w->sum_capacity) {
        w->sum_capacity = 2 * w->sum_capacity + 64;
        w->sum = qp_realloc("base writer", w->sum, qp_bytes(w->sum_capacity, sizeof *w->sum));
    }
    sum_t *sum = &w->sum[w->n_sum++];
    snprintf(sum->name, sizeof sum->name, "%s", name);
    sum->xxh3 = xxh3;
    return qp_h5_checksum_set(w->file, name, xxh3);
}

/* --- create ----------------------------------------------------------------------------------- */

static qp_weight_kind_t stored_kind(const qp_base_writer_t *w, int64_t spec)
{
    return qp_base_kind(w->kinds, (qp_tensor_class_t)w->spec[spec].tensor_class);
}

static qp_dtype_t stored_dtype(const qp_base_writer_t *w, int64_t spec)
{
    return qp_weight_dtype(stored_kind(w, spec));
}

static void make_scratch(qp_base_writer_t *w)
{
    int64_t max_row = 0;
    for (int64_t i = 0; i < w->n_spec; i++)
        if (stored_dtype(w, i) == QP_I8) {
            max_row = w->spec[i].n_row > max_row ? w->spec[i].n_row : max_row;
            w->max_col = w->spec[i].n_col > w->max_col ? w->spec[i].n_col : w->max_col;
        }
    w->scale = QP_NEW("base writer", float, max_row);
    w->rotated = QP_NEW("base writer", float, omp_get_max_threads() * w->max_col);
}

static qp_error_t write_root(qp_base_writer_t *w, const qp_llama_config_t *config,
                             const char *source)
{
    char *json = qp_llama_config_to_json(config);
    const bool int8_head = w->kinds.lm_head == QP_WEIGHT_INT8;
    qp_error_t error = qp_h5_format_set(w->file, "base", int8_head ? QP_BASE_VERSION : 1);
    if (error == NULL)
        error = qp_h5_attr_set_str(w->file, "/", "precision", qp_precision_name(w->kinds.linear));
    if (error == NULL && int8_head)
        error = qp_h5_attr_set_str(w->file, "/", "lm_head", qp_precision_name(w->kinds.lm_head));
    if (error == NULL)
        error = qp_h5_attr_set_str(w->file, "/", "config", json);
    if (error == NULL)
        error = qp_h5_attr_set_str(w->file, "/", "source", source);
    qp_free(json);
    return error;
}

qp_error_t qp_base_writer_create(const char *path, const qp_llama_config_t *config,
                                 qp_base_kinds_t kinds, const char *source,
                                 qp_base_writer_t **writer)
{
    qp_base_writer_t *w = QP_NEW("base writer", qp_base_writer_t, 1);
    *writer = w;
    w->path = qp_strdup(path);
    w->temporary = qp_format("%s.part", path);
    w->kinds = kinds;
    w->hash = qp_hash_create();
    qp_base_tensors(config, kinds, &w->spec, &w->n_spec);
    make_scratch(w);
    qp_error_t error = qp_h5_create(w->temporary, NULL, &w->file);
    if (error == NULL)
        error = write_root(w, config, source);
    if (error != NULL)
        qp_base_writer_abandon(writer);
    return error;
}

/* --- rows ------------------------------------------------------------------------------------- */

static qp_error_t begin_tensor(qp_base_writer_t *w, const char *name)
{
    const qp_tensor_spec_t *s = &w->spec[w->current];
    qp_h5_shape_t shape = {.dtype = stored_dtype(w, w->current),
                           .n_dim = s->n_col > 1 ? 2 : 1,
                           .dim = {s->n_row, s->n_col}};
    qp_hash_destroy(&w->hash);
    w->hash = qp_hash_create();
    return qp_h5_dataset_create(w->file, name, &shape);
}

static qp_error_t write_scales(qp_base_writer_t *w)
{
    const qp_tensor_spec_t *s = &w->spec[w->current];
    char name[128];
    dataset_name(s->name, "_scale", name, sizeof name);
    qp_h5_shape_t shape = {.dtype = QP_F32, .n_dim = 1, .dim = {s->n_row}};
    QP_TRY(qp_h5_dataset_create(w->file, name, &shape));
    QP_TRY(qp_h5_write(w->file, name, QP_F32, 0, s->n_row, w->scale));
    return note_sum(w, name, qp_hash_bytes(w->scale, qp_bytes(s->n_row, sizeof(float))));
}

static qp_error_t end_tensor(qp_base_writer_t *w, const char *name)
{
    QP_TRY(note_sum(w, name, qp_hash_value(w->hash)));
    if (stored_dtype(w, w->current) == QP_I8)
        QP_TRY(write_scales(w));
    w->current++;
    w->next_row = 0;
    return NULL;
}

/* Rows to int8, rotated first if the precision says so; scales go to their place in w->scale. */
static void quantise_rows(qp_base_writer_t *w, const float *rows, int64_t n_row, int64_t n_col)
{
    const bool rotate = stored_kind(w, w->current) == QP_WEIGHT_INT8;
    float *scale = w->scale + w->next_row;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_row; i++) {
        const float *row = rows + i * n_col;
        if (rotate) {
            float *own = w->rotated + omp_get_thread_num() * w->max_col;
            memcpy(own, row, (size_t)n_col * sizeof *own);
            qp_hadamard_row(own, n_col);
            row = own;
        }
        scale[i] = qp_quantise_row(row, n_col, (int8_t *)w->stored + i * n_col);
    }
}

/* Rows to their stored type, in w->stored. */
static void store_rows(qp_base_writer_t *w, qp_dtype_t dtype, const float *rows, int64_t n_row,
                       int64_t n_col)
{
    if (dtype == QP_I8) {
        quantise_rows(w, rows, n_row, n_col);
        return;
    }
    size_t row_bytes = (size_t)n_col * qp_dtype_bytes(dtype);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_row; i++)
        qp_convert_from_f32(dtype, rows + i * n_col, n_col, w->stored + (size_t)i * row_bytes);
}

qp_error_t qp_base_writer_rows(qp_base_writer_t *w, int64_t spec, int64_t first, int64_t n_row,
                               const float *rows)
{
    QP_ASSERT(spec == w->current && spec < w->n_spec && first == w->next_row);
    const qp_tensor_spec_t *s = &w->spec[spec];
    const qp_dtype_t dtype = stored_dtype(w, spec);
    size_t bytes = qp_bytes(n_row * s->n_col, qp_dtype_bytes(dtype));
    char name[128];
    dataset_name(s->name, "", name, sizeof name);
    QP_ASSERT(n_row > 0 && first + n_row <= s->n_row);
    if (first == 0)
        QP_TRY(begin_tensor(w, name));
    if (bytes > w->stored_capacity) {
        qp_free(w->stored);
        w->stored = qp_alloc("base writer", bytes);
        w->stored_capacity = bytes;
    }
    store_rows(w, dtype, rows, n_row, s->n_col);
    qp_hash_update(w->hash, w->stored, bytes);
    QP_TRY(qp_h5_write(w->file, name, dtype, first, n_row, w->stored));
    w->next_row += n_row;
    return w->next_row == s->n_row ? end_tensor(w, name) : NULL;
}

/* --- tokenizer and end ------------------------------------------------------------------------ */

static qp_error_t write_blob(qp_base_writer_t *w, const char *name, const void *data,
                             size_t n_bytes)
{
    QP_TRY(qp_h5_blob_write(w->file, name, data, n_bytes));
    return note_sum(w, name, qp_hash_bytes(data, n_bytes));
}

qp_error_t qp_base_writer_tokenizer(qp_base_writer_t *w, const qp_tokenizer_files_t *files)
{
    QP_TRY(write_blob(w, "/tokenizer/kind", files->kind, strlen(files->kind)));
    QP_TRY(write_blob(w, "/tokenizer/model", files->model, files->model_bytes));
    if (files->config == NULL)
        return NULL;
    return write_blob(w, "/tokenizer/config", files->config, files->config_bytes);
}

qp_error_t qp_base_writer_generation(qp_base_writer_t *w, const char *text)
{
    return write_blob(w, "/generation_config", text, strlen(text));
}

qp_error_t qp_base_writer_score(qp_base_writer_t *w, int64_t n_score, int64_t d_model,
                                const float *score)
{
    static const char name[] = "/score/weight";
    qp_h5_shape_t shape = {.dtype = QP_F32, .n_dim = 2, .dim = {n_score, d_model}};
    QP_TRY(qp_h5_dataset_create(w->file, name, &shape));
    QP_TRY(qp_h5_write(w->file, name, QP_F32, 0, n_score, score));
    return note_sum(w, name, qp_hash_bytes(score, qp_bytes(n_score * d_model, sizeof *score)));
}

void qp_base_writer_skip(qp_base_writer_t *w)
{
    QP_ASSERT(w->current == 0 && w->next_row == 0);
    w->current = w->n_spec;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const sum_t *)a)->name, ((const sum_t *)b)->name);
}

static qp_error_t write_id(qp_base_writer_t *w)
{
    qp_hash_t *hash = qp_hash_create();
    qsort(w->sum, (size_t)w->n_sum, sizeof *w->sum, by_name);
    for (int64_t i = 0; i < w->n_sum; i++)
        qp_hash_update(hash, &w->sum[i].xxh3, sizeof w->sum[i].xxh3);
    char id[17];
    snprintf(id, sizeof id, "%016lx", (unsigned long)qp_hash_value(hash));
    qp_hash_destroy(&hash);
    return qp_h5_attr_set_str(w->file, "/", "base_id", id);
}

qp_error_t qp_base_writer_commit(qp_base_writer_t **writer)
{
    qp_base_writer_t *w = *writer;
    QP_ASSERT(w->current == w->n_spec);
    qp_error_t error = write_id(w);
    if (error == NULL)
        error = qp_h5_close(&w->file);
    if (error == NULL)
        error = qp_file_commit(w->temporary, w->path);
    qp_base_writer_abandon(writer); /* the temporary name is gone when all went well */
    return error;
}

void qp_base_writer_abandon(qp_base_writer_t **writer)
{
    qp_base_writer_t *w = *writer;
    if (w == NULL)
        return;
    if (w->file != NULL) {
        qp_error_t error = qp_h5_close(&w->file); /* of a file that is thrown away */
        qp_error_destroy(&error);
    }
    unlink(w->temporary);
    qp_hash_destroy(&w->hash);
    qp_free(w->path);
    qp_free(w->temporary);
    qp_free(w->spec);
    qp_free(w->scale);
    qp_free(w->stored);
    qp_free(w->rotated);
    qp_free(w->sum);
    QP_FREE(*writer);
}
