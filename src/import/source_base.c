/* A base.h5 as a source: the weights that the program really computes with, dequantised and
 * un-rotated. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "formats/convert.h"
#include "import/source_impl.h"

typedef struct {
    qp_h5_t *file;
    qp_base_kinds_t kinds;
} base_t;

static qp_weight_kind_t kind_of(const base_t *base, const qp_tensor_spec_t *spec)
{
    return qp_base_kind(base->kinds, (qp_tensor_class_t)spec->tensor_class);
}

static qp_error_t check_dataset(const qp_h5_t *file, const char *name, qp_dtype_t dtype,
                                int64_t n_row, int64_t n_col)
{
    qp_h5_shape_t shape;
    QP_TRY(qp_h5_dataset_shape(file, name, &shape));
    int n_dim = n_col > 1 ? 2 : 1;
    if (shape.dtype != dtype || shape.n_dim != n_dim || shape.dim[0] != n_row ||
        (n_dim == 2 && shape.dim[1] != n_col))
        return QP_ERROR(QP_INPUT, "%s: %s has another type or shape than %s [%ld, %ld]",
                        qp_h5_path(file), name, qp_dtype_name(dtype), (long)n_row, (long)n_col);
    return NULL;
}

static void dataset_name(const qp_tensor_spec_t *spec, const char *suffix, char *name,
                         size_t n_bytes)
{
    snprintf(name, n_bytes, "/tensors/%s%s", spec->name, suffix);
}

static qp_error_t check_tensor(const base_t *base, const qp_tensor_spec_t *spec)
{
    char name[128];
    const qp_dtype_t dtype = qp_weight_dtype(kind_of(base, spec));
    dataset_name(spec, "", name, sizeof name);
    QP_TRY(check_dataset(base->file, name, dtype, spec->n_row, spec->n_col));
    if (dtype != QP_I8)
        return NULL;
    dataset_name(spec, "_scale", name, sizeof name);
    return check_dataset(base->file, name, QP_F32, spec->n_row, 1);
}

static qp_error_t read_score(const base_t *base, qp_source_t *source)
{
    static const char name[] = "/score/weight";
    if (!qp_h5_exists(base->file, name))
        return NULL;
    qp_h5_shape_t shape;
    QP_TRY(qp_h5_dataset_shape(base->file, name, &shape));
    QP_TRY(check_dataset(base->file, name, QP_F32, shape.dim[0], source->config.d_model));
    source->n_score = shape.dim[0];
    source->score = QP_NEW("source", float, shape.dim[0] * source->config.d_model);
    return qp_h5_read(base->file, name, QP_F32, 0, shape.dim[0], source->score);
}

qp_error_t qp_source_open_base(const char *path, qp_source_t *source)
{
    base_t *base = QP_NEW("source", base_t, 1);
    source->self = base;
    QP_TRY(qp_h5_open(path, NULL, &base->file));
    qp_base_info_t info;
    qp_error_t error = qp_base_info_read(base->file, &info);
    if (error == NULL)
        error = qp_base_check_weights(&info, path);
    source->config = info.config;
    base->kinds = info.kinds;
    qp_base_info_fini(&info);
    QP_TRY(error);
    qp_llama_tensors(&source->config, &source->spec, &source->n_spec);
    for (int64_t i = 0; i < source->n_spec; i++)
        QP_TRY(check_tensor(base, &source->spec[i]));
    QP_TRY(read_score(base, source));
    QP_TRY(qp_base_generation_read(base->file, &source->generation));
    if (!qp_h5_exists(base->file, "/tokenizer"))
        return NULL;
    return qp_base_tokenizer_read(base->file, &source->tokenizer);
}

/* int8 rows and their scales to fp32, back in the basis of the model. */
static void dequantise(bool rotated, const int8_t *q, const float *scale, int64_t n_row,
                       int64_t n_col, float *rows)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_row; i++) {
        for (int64_t j = 0; j < n_col; j++)
            rows[i * n_col + j] = (float)q[i * n_col + j] * scale[i];
        if (rotated)
            qp_hadamard_row(rows + i * n_col, n_col);
    }
}

static qp_error_t read_int8(const base_t *base, const qp_tensor_spec_t *spec, int64_t first,
                            int64_t n_row, const int8_t *q, float *rows)
{
    char name[128];
    dataset_name(spec, "_scale", name, sizeof name);
    float *scale = QP_NEW("source", float, n_row);
    qp_error_t error = qp_h5_read(base->file, name, QP_F32, first, n_row, scale);
    if (error == NULL)
        dequantise(kind_of(base, spec) == QP_WEIGHT_INT8, q, scale, n_row, spec->n_col, rows);
    qp_free(scale);
    return error;
}

/* Damage is not passed on with new checksums: who streams a tensor reads its first row once. */
static qp_error_t verify_tensor(const base_t *base, const qp_tensor_spec_t *spec)
{
    char name[128];
    dataset_name(spec, "", name, sizeof name);
    QP_TRY(qp_h5_checksum_verify(base->file, name));
    dataset_name(spec, "_scale", name, sizeof name);
    return qp_h5_exists(base->file, name) ? qp_h5_checksum_verify(base->file, name) : NULL;
}

static qp_error_t base_rows(qp_source_t *source, int64_t index, int64_t first, int64_t n_row,
                            float *rows)
{
    const base_t *base = source->self;
    const qp_tensor_spec_t *spec = &source->spec[index];
    const qp_dtype_t dtype = qp_weight_dtype(kind_of(base, spec));
    int64_t n = n_row * spec->n_col;
    char name[128];
    if (first == 0)
        QP_TRY(verify_tensor(base, spec));
    dataset_name(spec, "", name, sizeof name);
    void *stored = qp_alloc("source", qp_bytes(n, qp_dtype_bytes(dtype)));
    qp_error_t error = qp_h5_read(base->file, name, dtype, first, n_row, stored);
    if (error == NULL && dtype == QP_I8)
        error = read_int8(base, spec, first, n_row, stored, rows);
    else if (error == NULL)
        qp_convert_to_f32(dtype, stored, n, rows);
    qp_free(stored);
    return error;
}

static const char *base_file(const qp_source_t *source, int64_t spec)
{
    (void)spec;
    return source->name;
}

static void base_close(qp_source_t *source)
{
    base_t *base = source->self;
    if (base->file != NULL) {
        qp_error_t error = qp_h5_close(&base->file); /* read only: nothing to lose */
        qp_error_destroy(&error);
    }
    qp_free(base);
}

const qp_source_kind_t qp_source_base = {.rows = base_rows, .file = base_file, .close = base_close};
