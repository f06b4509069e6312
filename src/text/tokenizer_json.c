/* tokenizer.json of HF tokenizers: the model, its vocabulary and the added tokens. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "text/tokenizer_parts.h"

qp_error_t qp_merge_parse(const char *text, qp_merge_t *merge)
{
    const char *space = strchr(text, ' ');
    if (space == NULL || strchr(space + 1, ' ') != NULL)
        return QP_ERROR(QP_INPUT, "'%s' is not two tokens with a space between", text);
    *merge = (qp_merge_t){.left = text,
                          .right = space + 1,
                          .n_left = (size_t)(space - text),
                          .n_right = strlen(space + 1)};
    return NULL;
}

/* Merge i of the array model.merges: "a b" (old) or ["a", "b"] (new). */
static qp_error_t json_merge(const void *owner, int64_t i, qp_merge_t *merge)
{
    const json_t *item = json_array_get(owner, (size_t)i);
    if (json_is_string(item))
        return qp_merge_parse(json_string_value(item), merge);
    const json_t *left = json_array_get(item, 0), *right = json_array_get(item, 1);
    if (json_array_size(item) != 2 || !json_is_string(left) || !json_is_string(right))
        return QP_ERROR(QP_INPUT, "neither a string nor a pair of strings");
    *merge = (qp_merge_t){.left = json_string_value(left),
                          .right = json_string_value(right),
                          .n_left = json_string_length(left),
                          .n_right = json_string_length(right)};
    return NULL;
}

/* Options of a BPE model that change its ids and are not built here. */
static qp_error_t refuse_options(const json_t *model)
{
    static const char *const keys[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    double dropout;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *text = "";
        QP_TRY(qp_json_string(model, keys[i], "", &text));
        if (text[0] != '\0')
            return QP_ERROR(QP_INPUT, "%s '%s' is not supported", keys[i], text);
    }
    QP_TRY(qp_json_number(model, "dropout", 0.0, &dropout));
    return dropout != 0.0 ? QP_ERROR(QP_INPUT, "dropout is not supported") : NULL;
}

static qp_error_t read_flags(qp_tokenizer_t *tokenizer, const json_t *model, bool llama)
{
    qp_bpe_t *bpe = &tokenizer->bpe;
    const char *unk = "";
    QP_TRY(qp_json_bool(model, "byte_fallback", false, &bpe->byte_fallback));
    QP_TRY(qp_json_bool(model, "fuse_unk", false, &bpe->fuse_unk));
    QP_TRY(qp_json_bool(model, "ignore_merges", false, &bpe->ignore_merges));
    QP_TRY(qp_json_string(model, "unk_token", "", &unk));
    if (llama) {
        bpe->byte_fallback = bpe->fuse_unk = true;
        bpe->ignore_merges = false;
    } else if (unk[0] != '\0') {
        bpe->unk = qp_textmap_get(&tokenizer->vocab.id_of, unk, strlen(unk));
        if (bpe->unk < 0)
            return QP_ERROR(QP_INPUT, "unk_token '%s' is not in the vocabulary", unk);
    }
    return NULL;
}

static qp_error_t read_bpe(qp_tokenizer_t *tokenizer, const json_t *model, bool llama)
{
    json_t *vocab, *merges, *id;
    const char *text, *type = "";
    QP_TRY(qp_json_string(model, "type", "", &type)); /* files of the first versions have none */
    if (type[0] != '\0' && strcmp(type, "BPE") != 0)
        return QP_ERROR(QP_INPUT, "type '%s' is not supported (BPE is)", type);
    QP_TRY(refuse_options(model));
    QP_TRY(qp_json_want(model, "vocab", JSON_OBJECT, &vocab));
    QP_TRY(qp_json_want(model, "merges", JSON_ARRAY, &merges));
    json_object_foreach(vocab, text, id)
    {
        if (!json_is_integer(id))
            return QP_ERROR(QP_INPUT, "vocab: id of '%s' is no integer", text);
        QP_TRY(qp_vocab_put(&tokenizer->vocab, json_integer_value(id), text, strlen(text)));
    }
    QP_TRY(read_flags(tokenizer, model, llama));
    return qp_tokenizer_build_bpe(tokenizer, (int64_t)json_array_size(merges), json_merge, merges);
}

static qp_error_t read_added_token(qp_tokenizer_t *tokenizer, const json_t *item)
{
    json_t *content, *id;
    qp_added_t token = {0};
    bool normalized, single_word;
    QP_TRY(qp_json_want(item, "content", JSON_STRING, &content));
    QP_TRY(qp_json_want(item, "id", JSON_INTEGER, &id));
    const char *text = json_string_value(content);
    QP_TRY(qp_json_bool(item, "single_word", false, &single_word));
    QP_TRY(qp_json_bool(item, "normalized", false, &normalized));
    QP_TRY(qp_json_bool(item, "special", false, &token.special));
    QP_TRY(qp_json_bool(item, "lstrip", false, &token.lstrip));
    QP_TRY(qp_json_bool(item, "rstrip", false, &token.rstrip));
    if (single_word)
        return QP_ERROR(QP_INPUT, "'%s': single_word is not supported", text);
    /* HF tokenizers takes the id that a text has already, else the next one, whatever stands here.
     */
    const int32_t known = qp_tokenizer_find(tokenizer, text);
    const int64_t given = json_integer_value(id), n_vocab = tokenizer->vocab.n;
    if (known >= 0 ? known != given : given > n_vocab)
        return QP_ERROR(QP_INPUT, "'%s' has the id %lld, but is token %lld of the vocabulary", text,
                        (long long)given, known >= 0 ? (long long)known : (long long)n_vocab);
    QP_TRY(qp_vocab_put(&tokenizer->vocab, given, text, strlen(text)));
    token.id = (int32_t)given;
    return qp_tokenizer_add(tokenizer, text, normalized, token);
}

static qp_error_t read_added_tokens(qp_tokenizer_t *tokenizer, const json_t *root)
{
    const json_t *array = qp_json_get(root, "added_tokens");
    size_t i;
    json_t *item;
    if (array != NULL && !json_is_array(array))
        return qp_json_wrong("added_tokens", array, "an array");
    json_array_foreach(array, i, item)
        QP_TRY(qp_error_context(read_added_token(tokenizer, item), "added_tokens[%zu]", i));
    return NULL;
}

/* All of it but what does not decide ids, whatever the order of its keys. */
static uint64_t hash_of(const json_t *root)
{
    static const char *const others[] = {"version", "truncation", "padding", "decoder",
                                         "added_tokens"};
    json_t *copy = json_copy((json_t *)root);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        json_object_del(copy, others[i]);
    char *text = json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS);
    QP_ASSERT(text != NULL);
    const uint64_t value = qp_hash_bytes(text, strlen(text));
    free(text);
    json_decref(copy);
    return value;
}

static qp_error_t build(qp_tokenizer_t *tokenizer, json_t *root, const json_t *config)
{
    json_t *model;
    bool llama, byte_level;
    QP_TRY(qp_json_want(root, "model", JSON_OBJECT, &model));
    QP_TRY(qp_tokenizer_class(config, &llama, &byte_level));
    if (byte_level)
        QP_TRY(qp_tokenizer_rebuild(root, config));
    /* The pre-tokeniser and the decoder say what the bytes of a token are, so they come first. */
    QP_TRY(qp_tokenizer_read_normalizer(tokenizer, json_object_get(root, "normalizer")));
    QP_TRY(qp_tokenizer_read_pre_tokenizer(tokenizer, json_object_get(root, "pre_tokenizer")));
    llama = llama && !tokenizer->bpe.byte_level;
    if (llama)
        QP_TRY(qp_tokenizer_set_llama(tokenizer, config));
    QP_TRY(qp_error_context(read_bpe(tokenizer, model, llama), "model"));
    QP_TRY(read_added_tokens(tokenizer, root));
    QP_TRY(qp_tokenizer_read_post_processor(tokenizer, json_object_get(root, "post_processor")));
    if (byte_level)
        QP_TRY(qp_tokenizer_name_by_class(tokenizer, config));
    tokenizer->id = hash_of(root);
    return llama ? qp_tokenizer_finish_llama(tokenizer, config)
                 : qp_tokenizer_read_decoder(tokenizer, json_object_get(root, "decoder"));
}

qp_error_t qp_tokenizer_build_json(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                   const json_t *config)
{
    json_t *root;
    QP_TRY(qp_json_parse_object(files->kind, files->model, files->model_bytes, 0, &root));
    qp_error_t error = qp_error_context(build(tokenizer, root, config), "%s", files->kind);
    json_decref(root);
    return error;
}
