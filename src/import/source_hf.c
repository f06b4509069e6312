/* An HF folder: config.json, safetensors, tokenizer files. */
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/convert.h"
#include "formats/map.h"
#include "formats/safetensors.h"
#include "import/source_impl.h"

static const qp_tensor_t *tensor_of(const qp_source_t *source, int64_t spec)
{
    return qp_safetensors_find(source->self, source->spec[spec].name);
}

static qp_error_t read_config_json(const char *folder, qp_llama_config_t *config)
{
    void *text = NULL;
    size_t n_bytes;
    char *path = qp_format("%s/config.json", folder);
    qp_error_t error = qp_file_read(path, &text, &n_bytes);
    if (error == NULL)
        error = qp_llama_config_from_json(path, text, config);
    qp_free(text);
    qp_free(path);
    return error;
}

/* generation_config.json, which a folder need not have. */
static qp_error_t read_generation(const char *folder, qp_source_t *source)
{
    void *text = NULL;
    size_t n_bytes;
    char *path = qp_format("%s/generation_config.json", folder);
    qp_error_t error = NULL;
    if (access(path, F_OK) == 0)
        error = qp_file_read(path, &text, &n_bytes);
    source->generation = text;
    if (error == NULL && text != NULL)
        error = qp_llama_config_add_generation(path, text, &source->config);
    qp_free(path);
    return error;
}

static qp_error_t check_tensor(const qp_source_t *source, const qp_tensor_spec_t *spec)
{
    const qp_tensor_t *t = qp_safetensors_find(source->self, spec->name);
    if (t == NULL)
        return QP_ERROR(QP_INPUT, "%s: tensor %s is missing%s", source->name, spec->name,
                        strcmp(spec->name, "lm_head.weight") == 0
                            ? ", and config.json does not set tie_word_embeddings"
                            : "");
    bool vector = spec->tensor_class == QP_TENSOR_NORM || spec->tensor_class == QP_TENSOR_BIAS;
    if (t->n_dim != (vector ? 1 : 2) || t->dim[0] != spec->n_row ||
        (!vector && t->dim[1] != spec->n_col)) {
        qp_str_t shape = {0};
        for (int i = 0; i < t->n_dim; i++)
            qp_str_printf(&shape, "%s%ld", i > 0 ? ", " : "", (long)t->dim[i]);
        qp_error_t error =
            QP_ERROR(QP_INPUT, "%s: tensor %s has shape [%s], expected [%ld%s%.0ld]", t->path,
                     t->name, t->n_dim > 0 ? shape.data : "", (long)spec->n_row, vector ? "" : ", ",
                     vector ? 0 : (long)spec->n_col);
        qp_str_fini(&shape);
        return error;
    }
    if (!qp_convert_knows(t->dtype))
        return QP_ERROR(QP_INPUT, "%s: tensor %s has type %s; Quipu reads F32, F16 and BF16",
                        t->path, t->name, qp_dtype_name(t->dtype));
    return NULL;
}

/* A tied model may carry its embedding a second time as lm_head; anything but a copy is a
 * contradiction. */
static qp_error_t check_tied_head(const qp_source_t *source, const qp_tensor_t *head)
{
    const qp_tensor_t *embedding = qp_safetensors_find(source->self, "model.embed_tokens.weight");
    bool same = embedding != NULL && embedding->dtype == head->dtype &&
                embedding->n_bytes == head->n_bytes &&
                memcmp(embedding->data, head->data, head->n_bytes) == 0;
    qp_map_drop(head->data, head->n_bytes);
    if (embedding != NULL)
        qp_map_drop(embedding->data, embedding->n_bytes);
    if (!same)
        return QP_ERROR(QP_INPUT,
                        "%s: tensor %s differs from the embedding although config.json says "
                        "tie_word_embeddings",
                        head->path, head->name);
    return NULL;
}

static bool in_table(const qp_source_t *source, const char *name)
{
    for (int64_t i = 0; i < source->n_spec; i++)
        if (strcmp(source->spec[i].name, name) == 0)
            return true;
    return false;
}

static qp_error_t check_extra(const qp_source_t *source)
{
    for (int64_t i = 0; i < qp_safetensors_n(source->self); i++) {
        const qp_tensor_t *t = qp_safetensors_at(source->self, i);
        if (in_table(source, t->name) || qp_has_suffix(t->name, ".rotary_emb.inv_freq"))
            continue; /* old checkpoints carry the rope table, which follows from the config */
        if (strcmp(t->name, "lm_head.weight") != 0)
            return QP_ERROR(QP_INPUT, "%s: unexpected tensor %s", t->path, t->name);
        QP_TRY(check_tied_head(source, t));
    }
    return NULL;
}

qp_error_t qp_source_open_hf(const char *path, qp_source_t *source)
{
    qp_safetensors_t *weights = NULL;
    QP_TRY(read_config_json(path, &source->config));
    qp_llama_tensors(&source->config, &source->spec, &source->n_spec);
    QP_TRY(qp_safetensors_open(path, &weights));
    source->self = weights;
    for (int64_t i = 0; i < source->n_spec; i++)
        QP_TRY(check_tensor(source, &source->spec[i]));
    QP_TRY(check_extra(source));
    QP_TRY(read_generation(path, source));
    return qp_tokenizer_files_from_folder(path, &source->tokenizer);
}

static qp_error_t hf_rows(qp_source_t *source, int64_t spec, int64_t first, int64_t n_row,
                          float *rows)
{
    const qp_tensor_t *t = tensor_of(source, spec);
    int64_t n_col = source->spec[spec].n_col;
    int64_t row_bytes = n_col * (int64_t)qp_dtype_bytes(t->dtype);
    const uint8_t *from = (const uint8_t *)t->data + first * row_bytes;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_row; i++)
        qp_convert_to_f32(t->dtype, from + i * row_bytes, n_col, rows + i * n_col);
    qp_map_drop(from, (size_t)(n_row * row_bytes));
    return NULL;
}

static const char *hf_file(const qp_source_t *source, int64_t spec)
{
    return tensor_of(source, spec)->path;
}

static void hf_close(qp_source_t *source)
{
    qp_safetensors_t *weights = source->self;
    qp_safetensors_close(&weights);
}

const qp_source_kind_t qp_source_hf = {.rows = hf_rows, .file = hf_file, .close = hf_close};
