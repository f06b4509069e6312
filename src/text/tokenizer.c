/* Life of a tokenizer: its files, its parts put together, its simple questions. */
#include "text/tokenizer.h"

#include <string.h>

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

/* --- parts ------------------------------------------------------------------------------------ */

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

/* --- life ------------------------------------------------------------------------------------- */

/* Every id that encoding can put by itself, or that ends a sequence, is a token. */
static qp_error_t check_ids(const qp_tokenizer_t *tokenizer)
{
    const qp_tokens_t named = {.id = (int32_t[]){tokenizer->bos, tokenizer->eos, tokenizer->pad},
                               .n = 3};
    const qp_tokens_t *const lists[] = {&tokenizer->prefix, &tokenizer->suffix, &named,
                                        &tokenizer->more_eos};
    for (size_t k = 0; k < sizeof lists / sizeof lists[0]; k++)
        for (int64_t i = 0; i < lists[k]->n; i++)
            if (lists[k]->id[i] >= 0 && qp_vocab_get(&tokenizer->vocab, lists[k]->id[i]) == NULL)
                return QP_ERROR(QP_INPUT, "special token %d is not in the vocabulary",
                                (int)lists[k]->id[i]);
    return NULL;
}

/* From what the kind's own file gave to what the tokenizer is: see qp_tokenizer_id(). */
static uint64_t identity(const qp_tokenizer_t *tokenizer)
{
    qp_hash_t *hash = qp_hash_create();
    qp_hash_update(hash, &tokenizer->id, sizeof tokenizer->id);
    for (int64_t i = 0; i < tokenizer->n_added; i++) {
        const qp_added_text_t *added = &tokenizer->added_text[i];
        const int32_t parts[] = {added->token.id, added->token.special, added->token.lstrip,
                                 added->token.rstrip, added->normalized};
        qp_hash_update(hash, parts, sizeof parts);
        qp_hash_update(hash, added->text, strlen(added->text) + 1);
    }
    const qp_tokens_t *const around[] = {&tokenizer->prefix, &tokenizer->suffix};
    for (size_t k = 0; k < 2; k++) {
        qp_hash_update(hash, &around[k]->n, sizeof around[k]->n);
        if (around[k]->n > 0)
            qp_hash_update(hash, around[k]->id, (size_t)around[k]->n * sizeof *around[k]->id);
    }
    /* BOS, EOS, and the one rule that the config can set: see qp_tokenizer_set_llama(). */
    const int32_t rules[] = {
        tokenizer->bos, tokenizer->eos, tokenizer->normal.n_rule, tokenizer->split.n_step,
        tokenizer->split.n_step > 0 ? (int)tokenizer->split.step[0].prepend : 0};
    qp_hash_update(hash, rules, sizeof rules);
    uint64_t value = qp_hash_value(hash);
    qp_hash_destroy(&hash);
    return value;
}

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
        QP_TRY(KINDS[i].build(tokenizer, files, config));
        QP_TRY(qp_error_context(qp_tokenizer_configure(tokenizer, config), "%s",
                                "tokenizer_config.json"));
        qp_tokenizer_index_added(tokenizer);
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
    made->bos = made->eos = made->pad = made->bpe.unk = -1;
    made->special = json_object();
    made->chat_template = json_object();
    const char *text = files->config != NULL ? files->config : "{}";
    QP_TRY_DONE(qp_json_parse_object("tokenizer_config.json", text,
                                     files->config != NULL ? files->config_bytes : strlen(text), 0,
                                     &config));
    QP_TRY_DONE(build(made, files, config));
    made->id = identity(made);
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
    for (int64_t i = 0; i < t->n_added; i++)
        qp_free(t->added_text[i].text);
    qp_free(t->added_text);
    qp_normal_fini(&t->normal);
    qp_vocab_fini(&t->vocab);
    qp_added_fini(&t->added);
    qp_added_fini(&t->added_normalized);
    qp_split_fini(&t->split);
    qp_bpe_fini(&t->bpe);
    qp_free(t->decoder.drop_in_first);
    qp_sp_destroy(t->sp);
    qp_tokens_fini(&t->prefix);
    qp_tokens_fini(&t->suffix);
    qp_tokens_fini(&t->more_eos);
    json_decref(t->special);
    json_decref(t->chat_template);
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

int32_t qp_tokenizer_pad(const qp_tokenizer_t *tokenizer)
{
    return tokenizer->pad;
}

static void push_new(qp_tokens_t *ids, int32_t id)
{
    for (int64_t i = 0; i < ids->n; i++)
        if (ids->id[i] == id)
            return;
    if (id >= 0)
        qp_tokens_push(ids, id);
}

void qp_tokenizer_eos_ids(const qp_tokenizer_t *tokenizer, qp_tokens_t *ids)
{
    push_new(ids, tokenizer->eos);
    for (int64_t i = 0; i < tokenizer->more_eos.n; i++)
        push_new(ids, tokenizer->more_eos.id[i]);
}

bool qp_tokenizer_adds_bos(const qp_tokenizer_t *tokenizer)
{
    return tokenizer->bos >= 0 && tokenizer->prefix.n > 0 &&
           tokenizer->prefix.id[0] == tokenizer->bos;
}

const qp_tokens_t *qp_tokenizer_suffix(const qp_tokenizer_t *tokenizer)
{
    return &tokenizer->suffix;
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
    return qp_tokenizer_named_template(tokenizer, "default");
}

const char *qp_tokenizer_named_template(const qp_tokenizer_t *tokenizer, const char *name)
{
    return json_string_value(json_object_get(tokenizer->chat_template, name));
}

uint64_t qp_tokenizer_id(const qp_tokenizer_t *tokenizer)
{
    return tokenizer->id;
}
