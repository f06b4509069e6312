/* tokenizer.json of HF tokenizers: the model, its vocabulary and the added tokens. */
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"

bool qp_json_flag(const json_t *object, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

const char *qp_json_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

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
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (qp_json_text(model, keys[i])[0] != '\0')
            return QP_ERROR(QP_INPUT, "%s '%s' is not supported", keys[i],
                            qp_json_text(model, keys[i]));
    if (json_number_value(json_object_get(model, "dropout")) > 0.0)
        return QP_ERROR(QP_INPUT, "dropout is not supported");
    return NULL;
}

static qp_error_t read_bpe(qp_tokenizer_t *tokenizer, const json_t *model)
{
    json_t *vocab, *merges, *id;
    const char *text;
    const char *type = qp_json_text(model, "type"); /* files of the first versions have none */
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
    qp_bpe_t *bpe = &tokenizer->bpe;
    bpe->byte_fallback = qp_json_flag(model, "byte_fallback", false);
    bpe->fuse_unk = qp_json_flag(model, "fuse_unk", false);
    bpe->ignore_merges = qp_json_flag(model, "ignore_merges", false);
    const char *unk = qp_json_text(model, "unk_token");
    if (unk[0] != '\0') {
        bpe->unk = qp_textmap_get(&tokenizer->vocab.id_of, unk, strlen(unk));
        if (bpe->unk < 0)
            return QP_ERROR(QP_INPUT, "unk_token '%s' is not in the vocabulary", unk);
    }
    return qp_tokenizer_build_bpe(tokenizer, (int64_t)json_array_size(merges), json_merge, merges);
}

static qp_error_t read_added_token(qp_tokenizer_t *tokenizer, const json_t *item)
{
    json_t *content, *id;
    QP_TRY(qp_json_want(item, "content", JSON_STRING, &content));
    QP_TRY(qp_json_want(item, "id", JSON_INTEGER, &id));
    const char *text = json_string_value(content);
    if (qp_json_flag(item, "single_word", false))
        return QP_ERROR(QP_INPUT, "'%s': single_word is not supported", text);
    QP_TRY(qp_vocab_put(&tokenizer->vocab, json_integer_value(id), text, strlen(text)));
    return qp_tokenizer_add(tokenizer, text, qp_json_flag(item, "normalized", false),
                            (qp_added_t){.id = (int32_t)json_integer_value(id),
                                         .special = qp_json_flag(item, "special", false),
                                         .lstrip = qp_json_flag(item, "lstrip", false),
                                         .rstrip = qp_json_flag(item, "rstrip", false)});
}

static qp_error_t read_added_tokens(qp_tokenizer_t *tokenizer, const json_t *array)
{
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item)
        QP_TRY(qp_error_context(read_added_token(tokenizer, item), "added_tokens[%zu]", i));
    return NULL;
}

qp_error_t qp_tokenizer_build_json(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                   const json_t *config)
{
    (void)config; /* names BOS and EOS only, which tokenizer.c reads for every kind */
    json_error_t where;
    qp_error_t error = NULL;
    json_t *root = json_loadb(files->model, files->model_bytes, 0, &where), *model;
    if (!json_is_object(root)) {
        error = root == NULL ? QP_ERROR(QP_INPUT, "line %d: %s", where.line, where.text)
                             : QP_ERROR(QP_INPUT, "not a JSON object");
        goto done;
    }
    QP_TRY_DONE(qp_json_want(root, "model", JSON_OBJECT, &model));
    /* The pre-tokeniser and the decoder say what the bytes of a token are, so they come first. */
    QP_TRY_DONE(qp_tokenizer_read_normalizer(tokenizer, json_object_get(root, "normalizer")));
    QP_TRY_DONE(qp_tokenizer_read_pre_tokenizer(tokenizer, json_object_get(root, "pre_tokenizer")));
    QP_TRY_DONE(qp_error_context(read_bpe(tokenizer, model), "model"));
    QP_TRY_DONE(read_added_tokens(tokenizer, json_object_get(root, "added_tokens")));
    QP_TRY_DONE(
        qp_tokenizer_read_post_processor(tokenizer, json_object_get(root, "post_processor")));
    QP_TRY_DONE(qp_tokenizer_read_decoder(tokenizer, json_object_get(root, "decoder")));
done:
    json_decref(root);
    return error;
}
