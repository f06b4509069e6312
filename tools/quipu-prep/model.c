/* What the samples must fit: tokenizer, size of the vocabulary, ids that end a sequence, template.
 */
#include "prep.h"

#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "formats/json.h"
#include "model/base/base_file.h"

static qp_error_t read_base(const char *path, qp_tokenizer_t **tokenizer, qp_llama_config_t *config)
{
    qp_base_info_t info;
    qp_error_t error = qp_base_header_read(path, &info, tokenizer);
    *config = info.config;
    qp_base_info_fini(&info);
    return error;
}

/* The text of a folder's file; NULL where there is none. The caller's (qp_free). */
static qp_error_t read_beside(const char *folder, const char *name, char **path, void **text,
                              size_t *n_bytes)
{
    *path = qp_format("%s/%s", folder, name);
    return access(*path, F_OK) == 0 ? qp_file_read(*path, text, n_bytes) : NULL;
}

/* Where no config.json says how many ids the model has, the tokenizer does. */
enum { UNKNOWN = INT32_MAX };

/* Of a config.json only the vocabulary: the model that a tokenizer comes with need not be ours. */
static qp_error_t read_n_vocab(const char *folder, qp_llama_config_t *config)
{
    char *path = NULL;
    void *text = NULL;
    size_t n = 0;
    json_t *json = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(read_beside(folder, "config.json", &path, &text, &n));
    if (text != NULL) {
        QP_TRY_DONE(qp_json_parse_object(path, text, n, 0, &json));
        error = qp_json_int(json, "vocab_size", UNKNOWN, 1, INT32_MAX, &config->n_vocab);
        if (error == NULL) /* its key is of the same form in both files */
            error = qp_llama_config_add_generation(path, text, config);
        else
            error = qp_error_context(error, "%s", path);
    }
done:
    json_decref(json);
    qp_free(text);
    qp_free(path);
    return error;
}

static qp_error_t read_folder(const char *folder, qp_tokenizer_t **tokenizer,
                              qp_llama_config_t *config)
{
    qp_tokenizer_files_t files = {0};
    char *path = NULL;
    void *text = NULL;
    size_t n = 0;
    qp_error_t error = NULL;
    *config = (qp_llama_config_t){.n_vocab = UNKNOWN, .bos_token_id = -1, .pad_token_id = -1};
    QP_TRY_DONE(qp_tokenizer_files_from_folder(folder, &files));
    QP_TRY_DONE(read_n_vocab(folder, config));
    QP_TRY_DONE(read_beside(folder, "generation_config.json", &path, &text, &n));
    if (text != NULL)
        QP_TRY_DONE(qp_llama_config_add_generation(path, text, config));
    error = qp_tokenizer_create(&files, tokenizer);
done:
    qp_tokenizer_files_fini(&files);
    qp_free(text);
    qp_free(path);
    return error;
}

static qp_error_t load_template(const char *path, prep_model_t *model)
{
    void *text = NULL;
    size_t n = 0;
    if (path != NULL) {
        QP_TRY(qp_file_read(path, &text, &n));
        qp_error_t error =
            qp_chat_template_create(model->tokenizer, path, text, &model->chat_template);
        qp_free(text);
        return error;
    }
    /* Whether the model's own can be used matters only where a conversation comes. */
    qp_error_t error = qp_chat_template_create(model->tokenizer, "the tokenizer's chat template",
                                               NULL, &model->chat_template);
    if (error != NULL)
        model->no_chat = qp_format("%s; see --chat-template", error->message);
    qp_error_destroy(&error);
    return NULL;
}

qp_error_t prep_model_load(const prep_options_t *options, prep_model_t *model)
{
    const char *path = options->base != NULL ? options->base : options->tokenizer;
    qp_llama_config_t config = {0};
    if (options->base != NULL)
        QP_TRY(read_base(path, &model->tokenizer, &config));
    else
        QP_TRY(read_folder(path, &model->tokenizer, &config));
    if (config.n_vocab == UNKNOWN)
        config.n_vocab = qp_tokenizer_n_vocab(model->tokenizer);
    model->n_vocab = config.n_vocab;
    QP_TRY(qp_error_context(qp_llama_eos(&config, model->tokenizer, &model->eos), "%s", path));
    if (model->eos.n == 0)
        qp_log_warn("%s: the tokenizer has no end-of-sequence token: samples do not end with one, "
                    "and a model that learns from them does not learn to stop",
                    path);
    return load_template(options->chat_template, model);
}

void prep_model_fini(prep_model_t *model)
{
    qp_chat_template_destroy(&model->chat_template);
    qp_tokenizer_destroy(&model->tokenizer);
    qp_free(model->no_chat);
}
