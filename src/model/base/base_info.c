/* Precisions, the root of a base file, and its tokenizer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/base/base_file.h"

static const char *const precision_names[] = {
    [QP_WEIGHT_F32] = "fp32",
    [QP_WEIGHT_BF16] = "bf16",
    [QP_WEIGHT_INT8] = "int8",
    [QP_WEIGHT_LLM_INT8] = "llm_int8",
};

const char *qp_precision_name(qp_weight_kind_t precision)
{
    return precision_names[precision];
}

qp_error_t qp_precision_parse(const char *name, qp_weight_kind_t *precision)
{
    for (int i = 0; i <= QP_WEIGHT_LLM_INT8; i++)
        if (strcmp(name, precision_names[i]) == 0) {
            *precision = (qp_weight_kind_t)i;
            return NULL;
        }
    return QP_ERROR(QP_INPUT, "precision \"%s\": expected int8, llm_int8, bf16 or fp32", name);
}

qp_base_kinds_t qp_base_kinds(qp_weight_kind_t precision)
{
    return (qp_base_kinds_t){precision,
                             precision == QP_WEIGHT_F32 ? QP_WEIGHT_F32 : QP_WEIGHT_BF16};
}

qp_error_t qp_base_kinds_choose(qp_weight_kind_t precision, const char *lm_head,
                                qp_base_kinds_t *kinds)
{
    *kinds = qp_base_kinds(precision);
    const char *plain = precision_names[kinds->lm_head], *int8 = precision_names[QP_WEIGHT_INT8];
    if (lm_head == NULL)
        return NULL;
    if (strcmp(lm_head, int8) == 0)
        kinds->lm_head = QP_WEIGHT_INT8;
    else if (strcmp(lm_head, plain) != 0)
        return QP_ERROR(QP_INPUT, "LM head \"%s\": in a base of %s, expected int8 or %s", lm_head,
                        precision_names[precision], plain);
    return NULL;
}

void qp_base_tensors(const qp_llama_config_t *config, qp_base_kinds_t kinds,
                     qp_tensor_spec_t **specs, int64_t *n_spec)
{
    qp_llama_config_t stored = *config;
    stored.tie_word_embeddings = config->tie_word_embeddings && kinds.lm_head != QP_WEIGHT_INT8;
    qp_llama_tensors(&stored, specs, n_spec);
}

qp_weight_kind_t qp_base_kind(qp_base_kinds_t kinds, qp_tensor_class_t tensor_class)
{
    switch (tensor_class) {
    case QP_TENSOR_LINEAR:
        return kinds.linear;
    case QP_TENSOR_LM_HEAD:
        return kinds.lm_head;
    case QP_TENSOR_EMBEDDING:
        return qp_base_kinds(kinds.linear).lm_head;
    case QP_TENSOR_NORM:
    case QP_TENSOR_BIAS:
        break;
    }
    return QP_WEIGHT_F32;
}

static qp_error_t parse_kinds(const qp_h5_t *file, qp_base_kinds_t *kinds)
{
    char *name = NULL, *head = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_h5_attr_get_str(file, "/", "precision", &name));
    QP_TRY_DONE(qp_error_context(qp_precision_parse(name, &kinds->linear), "%s", qp_h5_path(file)));
    *kinds = qp_base_kinds(kinds->linear);
    if (!qp_h5_attr_exists(file, "/", "lm_head"))
        goto done;
    QP_TRY_DONE(qp_h5_attr_get_str(file, "/", "lm_head", &head));
    error =
        qp_error_context(qp_base_kinds_choose(kinds->linear, head, kinds), "%s", qp_h5_path(file));
done:
    qp_free(name);
    qp_free(head);
    return error;
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
    QP_TRY(parse_kinds(file, &info->kinds));
    QP_TRY(parse_config(file, &info->config));
    QP_TRY(parse_id(file, &info->base_id));
    info->has_weights = qp_h5_exists(file, "/tensors");
    return qp_h5_attr_get_str(file, "/", "source", &info->source);
}

void qp_base_info_fini(qp_base_info_t *info)
{
    qp_free(info->source);
    *info = (qp_base_info_t){0};
}

qp_error_t qp_base_check_weights(const qp_base_info_t *info, const char *path)
{
    if (info->has_weights)
        return NULL;
    return QP_ERROR(QP_INPUT, "%s: has no weights, it is for dry runs alone", path);
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

qp_error_t qp_base_header_read(const char *path, qp_base_info_t *info, qp_tokenizer_t **tokenizer)
{
    qp_tokenizer_files_t files = {0};
    qp_h5_t *file = NULL;
    qp_error_t error = NULL;
    *info = (qp_base_info_t){0};
    *tokenizer = NULL;
    QP_TRY(qp_h5_open(path, NULL, &file));
    QP_TRY_DONE(qp_base_info_read(file, info));
    QP_TRY_DONE(qp_base_tokenizer_read(file, &files));
    error = qp_error_context(qp_tokenizer_create(&files, tokenizer), "%s", path);
done:
    qp_tokenizer_files_fini(&files);
    return qp_error_first(error, qp_h5_close(&file));
}
