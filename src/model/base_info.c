/* The root of a base file, and its tokenizer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/base_file.h"

qp_dtype_t qp_base_dtype(qp_precision_t precision, qp_tensor_class_t tensor_class)
{
    if (tensor_class == QP_TENSOR_NORM || tensor_class == QP_TENSOR_BIAS ||
        precision == QP_PRECISION_FP32)
        return QP_F32;
    return qp_base_has_scale(precision, tensor_class) ? QP_I8 : QP_BF16;
}

bool qp_base_has_scale(qp_precision_t precision, qp_tensor_class_t tensor_class)
{
    return tensor_class == QP_TENSOR_LINEAR &&
           (precision == QP_PRECISION_INT8 || precision == QP_PRECISION_LLM_INT8);
}

static qp_error_t parse_precision(const qp_h5_t *file, qp_precision_t *precision)
{
    char *name = NULL;
    QP_TRY(qp_h5_attr_get_str(file, "/", "precision", &name));
    qp_error_t error = qp_precision_parse(name, precision);
    qp_free(name);
    return qp_error_context(error, "%s", qp_h5_path(file));
}

static qp_error_t parse_config(const qp_h5_t *file, qp_llama_config_t *config)
{
    char *text = NULL;
    QP_TRY(qp_h5_attr_get_str(file, "/", "config", &text));
    qp_error_t error = qp_llama_config_from_json(qp_h5_path(file), text, config);
    qp_free(text);
    return error;
}

static qp_error_t parse_id(const qp_h5_t *file, uint64_t *id)
{
    char *text = NULL, *end = NULL;
    QP_TRY(qp_h5_attr_get_str(file, "/", "base_id", &text));
    *id = strtoull(text, &end, 16);
    qp_error_t error = NULL;
    if (end == text || *end != '\0')
        error = QP_ERROR(QP_INPUT, "%s: base_id is \"%s\"", qp_h5_path(file), text);
    qp_free(text);
    return error;
}

qp_error_t qp_base_info_read(const qp_h5_t *file, qp_base_info_t *info)
{
    *info = (qp_base_info_t){0};
    QP_TRY(qp_h5_format_check(file, "base", QP_BASE_VERSION));
    QP_TRY(parse_precision(file, &info->precision));
    QP_TRY(parse_config(file, &info->config));
    QP_TRY(parse_id(file, &info->base_id));
    return qp_h5_attr_get_str(file, "/", "source", &info->source);
}

void qp_base_info_fini(qp_base_info_t *info)
{
    qp_free(info->source);
    *info = (qp_base_info_t){0};
}

static qp_error_t read_tokenizer(const qp_h5_t *file, qp_tokenizer_files_t *files)
{
    void *kind = NULL;
    size_t n_kind = 0;
    QP_TRY(qp_h5_blob_read(file, "/tokenizer/kind", &kind, &n_kind));
    if (n_kind >= sizeof files->kind)
        n_kind = sizeof files->kind - 1;
    memcpy(files->kind, kind, n_kind);
    qp_free(kind);
    QP_TRY(qp_h5_blob_read(file, "/tokenizer/model", &files->model, &files->model_bytes));
    if (!qp_h5_exists(file, "/tokenizer/config"))
        return NULL;
    return qp_h5_blob_read(file, "/tokenizer/config", &files->config, &files->config_bytes);
}

qp_error_t qp_base_generation_read(const qp_h5_t *file, char **text)
{
    void *blob = NULL;
    size_t n_bytes = 0;
    qp_error_t error = NULL;
    if (qp_h5_exists(file, "/generation_config"))
        error = qp_h5_blob_read(file, "/generation_config", &blob, &n_bytes);
    *text = blob;
    return error;
}

qp_error_t qp_base_tokenizer_read(const qp_h5_t *file, qp_tokenizer_files_t *files)
{
    *files = (qp_tokenizer_files_t){0};
    if (!qp_h5_exists(file, "/tokenizer"))
        return QP_ERROR(QP_INPUT, "%s: this base has no tokenizer", qp_h5_path(file));
    qp_error_t error = read_tokenizer(file, files);
    if (error != NULL)
        qp_tokenizer_files_fini(files);
    return error;
}
