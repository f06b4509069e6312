/* The ids of special tokens: what config.json, generation_config.json and the tokenizer say. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/llama/llama_json.h"

/* --- read ------------------------------------------------------------------------------------- */

static qp_error_t take_id(const char *key, const json_t *value, int64_t n_vocab, int64_t *id)
{
    *id = (int64_t)json_integer_value(value);
    if (!json_is_integer(value))
        return qp_json_wrong(key, value, "a token id");
    if (*id < 0 || *id >= n_vocab)
        return QP_ERROR(QP_INPUT, "%s is %lld, the model has tokens 0 to %lld", key, (long long)*id,
                        (long long)n_vocab - 1);
    return NULL;
}

static qp_error_t add_eos(const json_t *value, qp_llama_config_t *c)
{
    int64_t id;
    QP_TRY(take_id("eos_token_id", value, c->n_vocab, &id));
    if (!qp_eos_add(&c->eos, (int32_t)id))
        return QP_ERROR(QP_INPUT, "eos_token_id: more than %d tokens end an answer", QP_MAX_EOS);
    return NULL;
}

static qp_error_t read_eos(const json_t *root, qp_llama_config_t *c)
{
    const json_t *value = qp_json_get(root, "eos_token_id");
    if (value != NULL && !json_is_array(value))
        return add_eos(value, c);
    for (size_t i = 0; i < json_array_size(value); i++)
        QP_TRY(add_eos(json_array_get(value, i), c));
    return NULL;
}

qp_error_t qp_llama_tokens_from_json(const json_t *root, qp_llama_config_t *c)
{
    const struct {
        const char *key;
        int64_t *id;
    } single[] = {{"bos_token_id", &c->bos_token_id}, {"pad_token_id", &c->pad_token_id}};
    QP_TRY(read_eos(root, c));
    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++) {
        const json_t *value = qp_json_get(root, single[i].key);
        const bool none = json_is_integer(value) && json_integer_value(value) == -1 &&
                          single[i].id == &c->pad_token_id; /* as old configs write "none" */
        int64_t id = -1;
        if (value != NULL && !none)
            QP_TRY(take_id(single[i].key, value, c->n_vocab, &id));
        if (*single[i].id < 0)
            *single[i].id = id;
    }
    return NULL;
}

qp_error_t qp_llama_config_add_generation(const char *path, const char *text,
                                          qp_llama_config_t *config)
{
    json_t *root;
    QP_TRY(qp_json_parse_object(path, text, strlen(text), 0, &root));
    qp_error_t error = qp_error_context(qp_llama_tokens_from_json(root, config), "%s", path);
    json_decref(root);
    return error;
}

qp_error_t qp_llama_eos(const qp_llama_config_t *config, const qp_tokenizer_t *tokenizer,
                        qp_eos_t *eos)
{
    qp_tokens_t ids = {0};
    qp_error_t error = NULL;
    if (tokenizer != NULL)
        qp_tokenizer_eos_ids(tokenizer, &ids);
    for (int i = 0; i < config->eos.n; i++)
        qp_tokens_push(&ids, config->eos.id[i]);
    *eos = (qp_eos_t){0};
    for (int64_t i = 0; i < ids.n && error == NULL; i++)
        if (ids.id[i] < 0 || ids.id[i] >= config->n_vocab)
            error = QP_ERROR(QP_INPUT,
                             "the tokenizer's EOS is token %d, the model has tokens 0 to %lld",
                             (int)ids.id[i], (long long)config->n_vocab - 1);
        else if (!qp_eos_add(eos, ids.id[i]))
            error = QP_ERROR(QP_INPUT, "more than %d tokens end an answer", QP_MAX_EOS);
    qp_tokens_fini(&ids);
    return error;
}

/* --- write ------------------------------------------------------------------------------------ */

void qp_llama_tokens_to_json(const qp_llama_config_t *c, json_t *root)
{
    json_t *list = json_array();
    for (int i = 0; i < c->eos.n; i++)
        json_array_append_new(list, json_integer(c->eos.id[i]));
    if (c->eos.n > 0)
        json_object_set(root, "eos_token_id", c->eos.n == 1 ? json_array_get(list, 0) : list);
    json_decref(list);
    if (c->bos_token_id >= 0)
        json_object_set_new(root, "bos_token_id", json_integer(c->bos_token_id));
    if (c->pad_token_id >= 0)
        json_object_set_new(root, "pad_token_id", json_integer(c->pad_token_id));
}

/* A text that was read before. */
static json_t *parsed(const char *text)
{
    json_t *root = NULL;
    qp_error_t error = qp_json_parse_object("", text, strlen(text), 0, &root);
    QP_ASSERT(error == NULL);
    return root;
}

/* True if the file names every id that ends an answer. */
static bool names_all(const char *text, const qp_llama_config_t *config)
{
    qp_llama_config_t c = {.n_vocab = config->n_vocab, .bos_token_id = -1, .pad_token_id = -1};
    qp_error_t error = qp_llama_config_add_generation("", text, &c);
    bool all = error == NULL;
    qp_error_destroy(&error);
    for (int i = 0; i < config->eos.n; i++)
        all &= qp_eos_has(&c.eos, config->eos.id[i]);
    return all;
}

char *qp_llama_generation_to_json(const qp_llama_config_t *config, const char *text)
{
    if (text != NULL && names_all(text, config))
        return qp_strdup(text);
    json_t *root = text != NULL ? parsed(text) : json_object();
    qp_llama_tokens_to_json(config, root);
    char *made = NULL;
    if (json_object_size(root) > 0) {
        char *dumped = json_dumps(root, JSON_INDENT(2));
        made = qp_format("%s\n", dumped);
        free(dumped);
    }
    json_decref(root);
    return made;
}
