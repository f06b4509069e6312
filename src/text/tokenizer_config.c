/* What tokenizer_config.json says, applied as transformers 5 does it. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"

/* --- one token -------------------------------------------------------------------------------- */

/* A token that a key names, as a text or an object of AddedToken's fields. */
typedef struct {
    const char *text; /* NULL: none */
    bool normalized;
    qp_added_t token;
} named_t;

static qp_error_t read_fields(const json_t *value, bool special, named_t *named)
{
    bool single_word;
    QP_TRY(qp_json_string(value, "content", NULL, &named->text));
    if (named->text == NULL)
        return QP_ERROR(QP_INPUT, "content is missing");
    QP_TRY(qp_json_bool(value, "special", special, &named->token.special));
    named->token.special = named->token.special || special;
    QP_TRY(qp_json_bool(value, "normalized", !named->token.special, &named->normalized));
    QP_TRY(qp_json_bool(value, "lstrip", false, &named->token.lstrip));
    QP_TRY(qp_json_bool(value, "rstrip", false, &named->token.rstrip));
    QP_TRY(qp_json_bool(value, "single_word", false, &single_word));
    return single_word ? QP_ERROR(QP_INPUT, "'%s': single_word is not supported", named->text)
                       : NULL;
}

static qp_error_t read_named(const json_t *value, const char *key, bool special, named_t *named)
{
    *named = (named_t){.token = {.id = -1, .special = special}};
    if (json_is_null(value))
        return NULL;
    if (json_is_object(value))
        return qp_error_context(read_fields(value, special, named), "%s", key);
    if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
        return qp_json_wrong(key, value, "a token");
    named->text = json_string_value(value);
    return NULL;
}

/* Enters a token under the id that it has, or behind all others. */
static qp_error_t enter(qp_tokenizer_t *tokenizer, named_t *named)
{
    named->token.id = qp_tokenizer_find(tokenizer, named->text);
    if (named->token.id < 0)
        named->token.id = (int32_t)tokenizer->vocab.n;
    return qp_tokenizer_add(tokenizer, named->text, named->normalized, named->token);
}

/* --- added_tokens_decoder: {"id": token} ------------------------------------------------------ */

typedef struct {
    int64_t id;
    const json_t *value;
} entry_t;

static int by_id(const void *a, const void *b)
{
    const int64_t x = ((const entry_t *)a)->id, y = ((const entry_t *)b)->id;
    return (x > y) - (x < y);
}

static qp_error_t add_entry(qp_tokenizer_t *tokenizer, const entry_t *entry)
{
    named_t named;
    char key[32];
    snprintf(key, sizeof key, "%lld", (long long)entry->id);
    QP_TRY(read_named(entry->value, key, false, &named));
    if (named.text == NULL || !json_is_object(entry->value))
        return qp_json_wrong(key, entry->value, "an object");
    QP_TRY(enter(tokenizer, &named));
    if (named.token.id != entry->id)
        return QP_ERROR(QP_INPUT, "%s is '%s', which the vocabulary puts at %d", key, named.text,
                        (int)named.token.id);
    return NULL;
}

static qp_error_t read_decoder(qp_tokenizer_t *tokenizer, const json_t *config)
{
    json_t *decoder = (json_t *)qp_json_get(config, "added_tokens_decoder"), *value;
    const char *key;
    if (decoder == NULL)
        return NULL;
    if (!json_is_object(decoder))
        return qp_json_wrong("added_tokens_decoder", decoder, "an object");
    const size_t n = json_object_size(decoder);
    entry_t *entry = QP_NEW("tokenizer", entry_t, (int64_t)n + 1);
    qp_error_t error = NULL;
    size_t i = 0;
    json_object_foreach(decoder, key, value)
    {
        char *end;
        const int64_t id = strtoll(key, &end, 10);
        if (end == key || *end != '\0' || id < 0 || id >= QP_MAX_VOCAB) {
            error = QP_ERROR(QP_INPUT, "'%s' is no id", key);
            goto done;
        }
        entry[i++] = (entry_t){.id = id, .value = value};
    }
    qsort(entry, n, sizeof *entry, by_id);
    for (i = 0; i < n; i++)
        QP_TRY_DONE(add_entry(tokenizer, &entry[i]));
done:
    qp_free(entry);
    return qp_error_context(error, "added_tokens_decoder");
}

/* --- named special tokens --------------------------------------------------------------------- */

/* transformers' own, and where each goes; the others serve the chat template. */
static const struct {
    const char *key;
    size_t id; /* offset in qp_tokenizer_t, or 0 */
} NAMES[] = {
    {"bos_token", offsetof(qp_tokenizer_t, bos)},
    {"eos_token", offsetof(qp_tokenizer_t, eos)},
    {"unk_token", 0},
    {"sep_token", 0},
    {"pad_token", offsetof(qp_tokenizer_t, pad)},
    {"cls_token", 0},
    {"mask_token", 0},
};
enum { N_NAME = sizeof NAMES / sizeof NAMES[0] };

static int32_t *id_of_name(qp_tokenizer_t *tokenizer, const char *key)
{
    for (size_t i = 0; i < N_NAME; i++)
        if (NAMES[i].id != 0 && strcmp(key, NAMES[i].key) == 0)
            return (int32_t *)(void *)((char *)tokenizer + NAMES[i].id);
    return NULL;
}

static qp_error_t set_named(qp_tokenizer_t *tokenizer, const char *key, const json_t *value)
{
    named_t named;
    QP_TRY(read_named(value, key, true, &named));
    if (named.text == NULL)
        return NULL;
    int32_t *id = id_of_name(tokenizer, key);
    const bool end = id == &tokenizer->bos || id == &tokenizer->eos;
    if (end && qp_tokenizer_find(tokenizer, named.text) < 0)
        return QP_ERROR(QP_INPUT, "%s '%s' is not in the vocabulary", key, named.text);
    if (qp_tokenizer_added(tokenizer, named.text) == NULL)
        QP_TRY(enter(tokenizer, &named));
    if (id != NULL)
        *id = qp_tokenizer_find(tokenizer, named.text);
    json_object_set_new(tokenizer->special, key, json_string(named.text));
    return NULL;
}

qp_error_t qp_tokenizer_name(qp_tokenizer_t *tokenizer, const char *key, const char *text)
{
    json_t *value = json_string(text);
    qp_error_t error = set_named(tokenizer, key, value);
    json_decref(value);
    return error;
}

static bool is_name(const char *key)
{
    for (size_t i = 0; i < N_NAME; i++)
        if (strcmp(key, NAMES[i].key) == 0)
            return true;
    return false;
}

/* "image_token": text, and extra_special_tokens as an object: further names. */
static qp_error_t read_model_names(qp_tokenizer_t *tokenizer, const json_t *config)
{
    const json_t *extra = qp_json_get(config, "extra_special_tokens");
    const json_t *const objects[] = {config, json_is_object(extra) ? extra : NULL};
    const char *key;
    json_t *value;
    for (size_t k = 0; k < 2; k++)
        json_object_foreach((json_t *)objects[k], key, value)
        {
            const bool other = qp_has_suffix(key, "_token") && !is_name(key);
            if (k == 1 || (other && (json_is_string(value) || json_is_object(value))))
                QP_TRY(set_named(tokenizer, key, value));
        }
    return NULL;
}

static qp_error_t read_names(qp_tokenizer_t *tokenizer, const json_t *config)
{
    for (size_t i = 0; i < N_NAME; i++) {
        const json_t *value = qp_json_get(config, NAMES[i].key);
        if (value != NULL)
            QP_TRY(set_named(tokenizer, NAMES[i].key, value));
    }
    return read_model_names(tokenizer, config);
}

/* extra_special_tokens or, as it was called before, additional_special_tokens: a list. */
static qp_error_t read_list(qp_tokenizer_t *tokenizer, const json_t *config)
{
    const char *key = "extra_special_tokens";
    const json_t *list = qp_json_get(config, key);
    if (json_is_object(list))
        return NULL;
    if (list == NULL)
        list = qp_json_get(config, key = "additional_special_tokens");
    if (list != NULL && !json_is_array(list))
        return qp_json_wrong(key, list, "a list of tokens");
    for (size_t i = 0; i < json_array_size(list); i++) {
        named_t named;
        QP_TRY(read_named(json_array_get(list, i), key, true, &named));
        if (named.text != NULL && qp_tokenizer_added(tokenizer, named.text) == NULL)
            QP_TRY(enter(tokenizer, &named));
    }
    return NULL;
}

/* --- chat templates --------------------------------------------------------------------------- */

static qp_error_t read_templates(qp_tokenizer_t *tokenizer, const json_t *config)
{
    const json_t *value = qp_json_get(config, "chat_template");
    if (value == NULL)
        return NULL;
    json_object_clear(tokenizer->chat_template);
    if (json_is_string(value))
        return json_object_set(tokenizer->chat_template, "default", (json_t *)value) == 0
                   ? NULL
                   : QP_ERROR(QP_INTERNAL, "chat_template: not kept");
    if (!json_is_array(value))
        return qp_json_wrong("chat_template", value, "a text or a list of named ones");
    for (size_t i = 0; i < json_array_size(value); i++) {
        json_t *name = NULL, *text = NULL;
        const json_t *item = json_array_get(value, i);
        qp_error_t error = qp_json_want(item, "name", JSON_STRING, &name);
        if (error == NULL)
            error = qp_json_want(item, "template", JSON_STRING, &text);
        QP_TRY(qp_error_context(error, "chat_template[%zu]", i));
        json_object_set(tokenizer->chat_template, json_string_value(name), text);
    }
    return NULL;
}

/* --- the whole -------------------------------------------------------------------------------- */

qp_error_t qp_tokenizer_configure(qp_tokenizer_t *tokenizer, const json_t *config)
{
    bool split;
    QP_TRY(qp_json_bool(config, "split_special_tokens", false, &split));
    if (split)
        return QP_ERROR(QP_INPUT, "split_special_tokens is true, which is not supported");
    QP_TRY(read_decoder(tokenizer, config));
    QP_TRY(read_names(tokenizer, config));
    QP_TRY(read_list(tokenizer, config));
    QP_TRY(read_templates(tokenizer, config));
    if (tokenizer->add_bos && tokenizer->bos >= 0)
        qp_tokens_push(&tokenizer->prefix, tokenizer->bos);
    if (tokenizer->add_eos && tokenizer->eos >= 0)
        qp_tokens_push(&tokenizer->suffix, tokenizer->eos);
    /* A post-processor that puts one token around the text names it too. */
    if (tokenizer->bos < 0 && tokenizer->prefix.n == 1)
        tokenizer->bos = tokenizer->prefix.id[0];
    if (tokenizer->eos < 0 && tokenizer->suffix.n == 1)
        tokenizer->eos = tokenizer->suffix.id[0];
    return NULL;
}
