/* Life of a tokenizer: its files, its parts put together, its simple questions. */
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "text/tokenizer_parts.h"

/* --- token lists ------------------------------------------------------------------------------ */

void qp_tokens_fini(qp_tokens_t *tokens)
{
    qp_free(tokens->id);
    *tokens = (qp_tokens_t){0};
}

void qp_tokens_reserve(qp_tokens_t *tokens, int64_t n)
{
    if (tokens->n + n <= tokens->capacity)
        return;
    tokens->capacity = 2 * (tokens->n + n) + 32;
    tokens->id = qp_realloc("tokens", tokens->id, qp_bytes(tokens->capacity, sizeof(int32_t)));
}

void qp_tokens_push(qp_tokens_t *tokens, int32_t id)
{
    if (tokens->n == tokens->capacity)
        qp_tokens_reserve(tokens, 1);
    tokens->id[tokens->n++] = id;
}

/* --- files ------------------------------------------------------------------------------------ */

void qp_tokenizer_files_fini(qp_tokenizer_files_t *files)
{
    qp_free(files->model);
    qp_free(files->config);
    *files = (qp_tokenizer_files_t){0};
}

/* Reads folder/name; *data stays NULL if there is no such file. */
static qp_error_t read_file(const char *folder, const char *name, void **data, size_t *n_bytes)
{
    char *path = qp_format("%s/%s", folder, name);
    qp_error_t error = NULL;
    if (access(path, F_OK) == 0)
        error = qp_file_read(path, data, n_bytes);
    qp_free(path);
    return error;
}

static qp_error_t parse_object(const void *data, size_t n_bytes, const char *name, json_t **object)
{
    json_error_t where = {0};
    *object = data != NULL ? json_loadb(data, n_bytes, 0, &where) : json_object();
    if (*object == NULL)
        return QP_ERROR(QP_INPUT, "%s: line %d: %s", name, where.line, where.text);
    if (json_is_object(*object))
        return NULL;
    json_decref(*object);
    *object = NULL;
    return QP_ERROR(QP_INPUT, "%s: not a JSON object", name);
}

/* Newer folders keep the chat template, older ones the names of BOS and EOS in a file of their own:
 * what tokenizer_config.json lacks of them is put into it. */
static qp_error_t complete_config(const char *folder, qp_tokenizer_files_t *files)
{
    void *map = NULL, *template = NULL;
    size_t map_bytes = 0, template_bytes = 0;
    json_t *config = NULL, *extra = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(read_file(folder, "special_tokens_map.json", &map, &map_bytes));
    QP_TRY_DONE(read_file(folder, "chat_template.jinja", &template, &template_bytes));
    QP_TRY_DONE(parse_object(files->config, files->config_bytes, "tokenizer_config.json", &config));
    QP_TRY_DONE(parse_object(map, map_bytes, "special_tokens_map.json", &extra));
    if (template != NULL)
        json_object_set_new(extra, "chat_template", json_stringn(template, template_bytes));
    const size_t n_before = json_object_size(config);
    json_object_update_missing(config, extra);
    if (json_object_size(config) > n_before) {
        char *text = json_dumps(config, JSON_COMPACT);
        QP_ASSERT(text != NULL);
        qp_free(files->config);
        files->config = qp_strdup(text);
        files->config_bytes = strlen(text);
        free(text);
    }
done:
    json_decref(config);
    json_decref(extra);
    qp_free(map);
    qp_free(template);
    return error;
}

qp_error_t qp_tokenizer_files_from_folder(const char *folder, qp_tokenizer_files_t *files)
{
    static const char *const kinds[] = {"tokenizer.json", "tokenizer.model"};
    qp_error_t error = NULL;
    *files = (qp_tokenizer_files_t){0};
    for (size_t i = 0; i < 2 && files->model == NULL; i++) {
        snprintf(files->kind, sizeof files->kind, "%s", kinds[i]);
        QP_TRY_DONE(read_file(folder, kinds[i], &files->model, &files->model_bytes));
    }
    if (files->model == NULL) {
        error = QP_ERROR(QP_INPUT, "%s: neither tokenizer.json nor tokenizer.model", folder);
        goto done;
    }
    QP_TRY_DONE(read_file(folder, "tokenizer_config.json", &files->config, &files->config_bytes));
    error = qp_error_context(complete_config(folder, files), "%s", folder);
done:
    if (error != NULL)
        qp_tokenizer_files_fini(files);
    return error;
}

/* --- parts ------------------------------------------------------------------------------------ */

qp_error_t qp_tokenizer_add(qp_tokenizer_t *tokenizer, const char *text, bool normalized,
                            qp_added_t token)
{
    if (text[0] == '\0')
        return QP_ERROR(QP_INPUT, "added token %d has no text", (int)token.id);
    QP_TRY(qp_vocab_put(&tokenizer->vocab, token.id, text, strlen(text)));
    if (token.special)
        tokenizer->vocab.entry[token.id].special = true;
    if (!normalized) {
        qp_added_put(&tokenizer->added, text, strlen(text), token);
        return NULL;
    }
    qp_str_t form = {0};
    qp_tokenizer_normalize(tokenizer, text, strlen(text), &form);
    if (form.n > 0)
        qp_added_put(&tokenizer->added_normalized, form.data, form.n, token);
    qp_str_fini(&form);
    return NULL;
}

static qp_error_t put_merge(qp_tokenizer_t *tokenizer, const qp_merge_t *merge, int64_t rank,
                            qp_str_t *joined)
{
    const qp_textmap_t *id_of = &tokenizer->vocab.id_of;
    qp_str_clear(joined);
    qp_str_append(joined, merge->left, merge->n_left);
    qp_str_append(joined, merge->right, merge->n_right);
    const int32_t left = qp_textmap_get(id_of, merge->left, merge->n_left);
    const int32_t right = qp_textmap_get(id_of, merge->right, merge->n_right);
    const int32_t id = qp_textmap_get(id_of, joined->data, joined->n);
    if (left < 0 || right < 0 || id < 0)
        return QP_ERROR(QP_INPUT, "'%.*s' + '%s': %s is not in the vocabulary", (int)merge->n_left,
                        merge->left, merge->right,
                        left < 0    ? "the left part"
                        : right < 0 ? "the right part"
                                    : "the result");
    qp_pairmap_put(&tokenizer->bpe.merge, left, right, (uint32_t)rank, id);
    return NULL;
}

/* What every token looks like in a text, and the words that become one token. */
static void build_words(qp_tokenizer_t *tokenizer)
{
    qp_vocab_t *vocab = &tokenizer->vocab;
    qp_str_t bytes = {0};
    const char **text = QP_NEW("tokenizer", const char *, vocab->n);
    size_t *n_bytes = QP_NEW("tokenizer", size_t, vocab->n);
    bool *known = QP_NEW("tokenizer", bool, vocab->n);
    for (int64_t i = 0; i < vocab->n; i++) {
        const qp_vocab_entry_t *entry = qp_vocab_get(vocab, i);
        known[i] = entry != NULL && !tokenizer->bpe.byte_level;
        if (entry == NULL || !tokenizer->bpe.byte_level)
            continue;
        qp_str_clear(&bytes);
        known[i] = qp_gpt2_bytes(qp_vocab_text(vocab, entry), entry->n_text, &bytes);
        if (known[i])
            qp_vocab_set_surface(vocab, i, bytes.n > 0 ? bytes.data : "", bytes.n);
    }
    for (int64_t i = 0; i < vocab->n; i++) {
        if (!known[i])
            continue;
        text[i] = qp_vocab_surface(vocab, &vocab->entry[i]);
        n_bytes[i] = vocab->entry[i].n_surface;
    }
    qp_bpe_init_words(&tokenizer->bpe, text, n_bytes, vocab->n);
    qp_free(text);
    qp_free(n_bytes);
    qp_free(known);
    qp_str_fini(&bytes);
}

qp_error_t qp_tokenizer_build_bpe(qp_tokenizer_t *tokenizer, int64_t n_merge,
                                  qp_error_t (*merge)(const void *owner, int64_t i,
                                                      qp_merge_t *out),
                                  const void *owner)
{
    qp_error_t error = NULL;
    qp_str_t joined = {0};
    qp_bpe_find_bytes(&tokenizer->bpe, &tokenizer->vocab.id_of);
    qp_pairmap_init(&tokenizer->bpe.merge, n_merge);
    for (int64_t i = 0; i < n_merge && error == NULL; i++) {
        qp_merge_t item;
        error = merge(owner, i, &item);
        if (error == NULL)
            error = put_merge(tokenizer, &item, i, &joined);
        error = qp_error_context(error, "merges[%lld]", (long long)i);
    }
    qp_str_fini(&joined);
    if (error == NULL)
        build_words(tokenizer);
    return error;
}

/* --- configuration ---------------------------------------------------------------------------- */

/* A token named in tokenizer_config.json, as text or as {"content": text}; -1 if it is not. */
static qp_error_t read_named_token(const qp_tokenizer_t *tokenizer, const json_t *config,
                                   const char *key, int32_t *id)
{
    const json_t *value = json_object_get(config, key);
    if (json_is_object(value))
        value = json_object_get(value, "content");
    if (!json_is_string(value))
        return NULL;
    *id = qp_tokenizer_find(tokenizer, json_string_value(value));
    return *id >= 0 ? NULL
                    : QP_ERROR(QP_INPUT, "tokenizer_config.json: %s '%s' is not in the vocabulary",
                               key, json_string_value(value));
}

/* "chat_template" is a text, or a list of {name, template} of which "default" counts. */
static const char *template_in(const json_t *config)
{
    const json_t *value = json_object_get(config, "chat_template"), *item;
    size_t i;
    json_array_foreach(value, i,
                       item) if (strcmp(qp_json_text(item, "name"), "default") ==
                                 0) return json_string_value(json_object_get(item, "template"));
    return json_string_value(value);
}

static qp_error_t read_config(qp_tokenizer_t *tokenizer, const json_t *config)
{
    QP_TRY(read_named_token(tokenizer, config, "bos_token", &tokenizer->bos));
    QP_TRY(read_named_token(tokenizer, config, "eos_token", &tokenizer->eos));
    if (template_in(config) != NULL) {
        qp_free(tokenizer->chat_template);
        tokenizer->chat_template = qp_strdup(template_in(config));
    }
    /* A post-processor that puts one token around the text names it too. */
    if (tokenizer->bos < 0 && tokenizer->prefix.n == 1)
        tokenizer->bos = tokenizer->prefix.id[0];
    if (tokenizer->eos < 0 && tokenizer->suffix.n == 1)
        tokenizer->eos = tokenizer->suffix.id[0];
    return NULL;
}

/* Every id that encoding can put by itself is a token. */
static qp_error_t check_ids(const qp_tokenizer_t *tokenizer)
{
    const qp_tokens_t named = {.id = (int32_t[]){tokenizer->bos, tokenizer->eos}, .n = 2};
    const qp_tokens_t *const lists[] = {&tokenizer->prefix, &tokenizer->suffix, &named};
    for (size_t k = 0; k < 3; k++)
        for (int64_t i = 0; i < lists[k]->n; i++)
            if (lists[k]->id[i] >= 0 && qp_vocab_get(&tokenizer->vocab, lists[k]->id[i]) == NULL)
                return QP_ERROR(QP_INPUT, "special token %d is not in the vocabulary",
                                (int)lists[k]->id[i]);
    return NULL;
}

static uint64_t identity(const qp_tokenizer_files_t *files)
{
    qp_hash_t *hash = qp_hash_create();
    qp_hash_update(hash, files->kind, strlen(files->kind));
    qp_hash_update(hash, files->model, files->model_bytes);
    if (files->config != NULL)
        qp_hash_update(hash, files->config, files->config_bytes);
    uint64_t value = qp_hash_value(hash);
    qp_hash_destroy(&hash);
    return value;
}

/* --- life ------------------------------------------------------------------------------------- */

static const struct {
    const char *kind;
    qp_error_t (*build)(qp_tokenizer_t *, const qp_tokenizer_files_t *, const json_t *);
} KINDS[] = {
    {"tokenizer.json", qp_tokenizer_build_json},
    {"tokenizer.model", qp_tokenizer_build_sp},
    {"gguf", qp_tokenizer_build_gguf},
};

static qp_error_t build(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                        const json_t *config)
{
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        if (strcmp(files->kind, KINDS[i].kind) != 0)
            continue;
        QP_TRY(qp_error_context(KINDS[i].build(tokenizer, files, config), "%s", files->kind));
        QP_TRY(read_config(tokenizer, config));
        return qp_error_context(check_ids(tokenizer), "%s", files->kind);
    }
    return QP_ERROR(QP_INPUT,
                    "tokenizer kind '%s' is none of tokenizer.json, tokenizer.model, gguf",
                    files->kind);
}

qp_error_t qp_tokenizer_create(const qp_tokenizer_files_t *files, qp_tokenizer_t **tokenizer)
{
    json_t *config = NULL;
    qp_error_t error = NULL;
    *tokenizer = NULL;
    qp_tokenizer_t *made = QP_NEW("tokenizer", qp_tokenizer_t, 1);
    made->bos = made->eos = made->bpe.unk = -1;
    QP_TRY_DONE(parse_object(files->config, files->config_bytes, "tokenizer_config.json", &config));
    QP_TRY_DONE(build(made, files, config));
    made->id = identity(files);
    *tokenizer = made;
    made = NULL;
done:
    json_decref(config);
    qp_tokenizer_destroy(&made);
    return error;
}

void qp_tokenizer_destroy(qp_tokenizer_t **tokenizer)
{
    qp_tokenizer_t *t = *tokenizer;
    if (t == NULL)
        return;
    for (int i = 0; i < t->n_rule; i++) {
        qp_free(t->rule[i].from);
        qp_free(t->rule[i].to);
    }
    qp_vocab_fini(&t->vocab);
    qp_added_fini(&t->added);
    qp_added_fini(&t->added_normalized);
    qp_split_fini(&t->split);
    qp_bpe_fini(&t->bpe);
    qp_free(t->decoder.drop_in_first);
    qp_sp_destroy(t->sp);
    qp_tokens_fini(&t->prefix);
    qp_tokens_fini(&t->suffix);
    qp_free(t->chat_template);
    QP_FREE(*tokenizer);
}

int64_t qp_tokenizer_n_vocab(const qp_tokenizer_t *tokenizer)
{
    return tokenizer->vocab.n;
}

int32_t qp_tokenizer_bos(const qp_tokenizer_t *tokenizer)
{
    return tokenizer->bos;
}

int32_t qp_tokenizer_eos(const qp_tokenizer_t *tokenizer)
{
    return tokenizer->eos;
}

bool qp_tokenizer_adds_bos(const qp_tokenizer_t *tokenizer)
{
    return tokenizer->bos >= 0 && tokenizer->prefix.n > 0 &&
           tokenizer->prefix.id[0] == tokenizer->bos;
}

int32_t qp_tokenizer_find(const qp_tokenizer_t *tokenizer, const char *text)
{
    return qp_textmap_get(&tokenizer->vocab.id_of, text, strlen(text));
}

const char *qp_tokenizer_token(const qp_tokenizer_t *tokenizer, int32_t id)
{
    const qp_vocab_entry_t *entry = qp_vocab_get(&tokenizer->vocab, id);
    return entry != NULL ? qp_vocab_text(&tokenizer->vocab, entry) : NULL;
}

const char *qp_tokenizer_chat_template(const qp_tokenizer_t *tokenizer)
{
    return tokenizer->chat_template;
}

uint64_t qp_tokenizer_id(const qp_tokenizer_t *tokenizer)
{
    return tokenizer->id;
}
