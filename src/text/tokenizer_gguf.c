/* Tokenizers embedded in GGUF files: JSON of the metadata keys "tokenizer.ggml.*". */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "text/tokenizer_gguf.h"
#include "text/tokenizer_parts.h"

/* Oniguruma patterns as the models' tokenizer.json has them. */
#define LLAMA3_PATTERN                                                       \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TEKKEN_PATTERN                                                                           \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"  \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" \
    "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define DIGIT_PATTERN "\\p{N}"

static const qp_gguf_pre_t PRES[] = {
    {"default", {QP_GPT2_PATTERN}, false, false},
    {"gpt-2", {QP_GPT2_PATTERN}, false, false},
    {"olmo", {QP_GPT2_PATTERN}, false, false},
    {"smollm", {DIGIT_PATTERN, QP_GPT2_PATTERN}, false, false},
    {"starcoder", {DIGIT_PATTERN, QP_GPT2_PATTERN}, false, false},
    {"refact", {DIGIT_PATTERN, QP_GPT2_PATTERN}, false, false},
    {"command-r", {DIGIT_PATTERN, QP_GPT2_PATTERN}, false, false},
    {"llama-bpe", {LLAMA3_PATTERN}, true, true},
    {"llama3", {LLAMA3_PATTERN}, true, true},
    {"llama-v3", {LLAMA3_PATTERN}, true, true},
    {"falcon3", {LLAMA3_PATTERN}, true, true},
    {"smaug-bpe", {LLAMA3_PATTERN}, false, false},
    {"dbrx", {LLAMA3_PATTERN}, false, false},
    {"tekken", {TEKKEN_PATTERN}, true, true},
};

qp_error_t qp_gguf_pre_find(const json_t *root, const qp_gguf_pre_t **found)
{
    enum { N_PRE = sizeof PRES / sizeof PRES[0] };
    const char *name = "", *names[N_PRE];
    QP_TRY(qp_json_string(root, "tokenizer.ggml.pre", "", &name));
    for (int i = 0; i < N_PRE; i++) {
        names[i] = PRES[i].name;
        if (strcmp(name, PRES[i].name) == 0) {
            *found = &PRES[i];
            return NULL;
        }
    }
    if (name[0] == '\0')
        return QP_ERROR(QP_INPUT, "tokenizer.ggml.pre is missing: how this model cuts its text is "
                                  "not known (convert it with a newer llama.cpp)");
    const char *near = qp_nearest(name, names, N_PRE);
    return QP_ERROR(QP_INPUT, "tokenizer.ggml.pre '%s' is not supported%s%s%s", name,
                    near != NULL ? " (nearest: " : "", near != NULL ? near : "",
                    near != NULL ? ")" : "");
}

const qp_gguf_special_t qp_gguf_specials[QP_GGUF_N_SPECIAL] = {
    {"bos", "bos_token"},     {"eos", "eos_token"},       {"unknown", "unk_token"},
    {"padding", "pad_token"}, {"seperator", "sep_token"}, {"cls", "cls_token"},
    {"mask", "mask_token"}};

qp_error_t qp_gguf_token_id(const json_t *root, const char *name, int64_t *id)
{
    char *key = qp_format("tokenizer.ggml.%s_token_id", name);
    qp_error_t error = qp_json_int(root, key, -1, -1, QP_MAX_VOCAB, id);
    qp_free(key);
    return error;
}

qp_error_t qp_gguf_around(const json_t *root, bool bos_otherwise, bool *bos, bool *eos)
{
    QP_TRY(qp_json_bool(root, "tokenizer.ggml.add_bos_token", bos_otherwise, bos));
    return qp_json_bool(root, "tokenizer.ggml.add_eos_token", false, eos);
}

/* Arrays that every kind has. */
typedef struct {
    json_t *token, *type;
    int64_t n;
} tokens_t;

static qp_error_t read_tokens(const json_t *root, tokens_t *tokens)
{
    QP_TRY(qp_json_want(root, "tokenizer.ggml.tokens", JSON_ARRAY, &tokens->token));
    QP_TRY(qp_json_want(root, "tokenizer.ggml.token_type", JSON_ARRAY, &tokens->type));
    tokens->n = (int64_t)json_array_size(tokens->token);
    if (tokens->n == 0 || json_array_size(tokens->type) != (size_t)tokens->n)
        return QP_ERROR(QP_INPUT, "tokenizer.ggml: %lld tokens but %zu token types",
                        (long long)tokens->n, json_array_size(tokens->type));
    for (int64_t i = 0; i < tokens->n; i++)
        if (!json_is_string(json_array_get(tokens->token, (size_t)i)) ||
            !json_is_integer(json_array_get(tokens->type, (size_t)i)))
            return QP_ERROR(QP_INPUT, "tokenizer.ggml: token %lld has no text or no type",
                            (long long)i);
    return NULL;
}

static const char *token_text(const tokens_t *tokens, int64_t i)
{
    return json_string_value(json_array_get(tokens->token, (size_t)i));
}

static int token_type(const tokens_t *tokens, int64_t i)
{
    return (int)json_integer_value(json_array_get(tokens->type, (size_t)i));
}

/* --- model "gpt2": byte-level BPE ------------------------------------------------------------- */

static qp_error_t gguf_merge(const void *owner, int64_t i, qp_merge_t *merge)
{
    const char *text = json_string_value(json_array_get(owner, (size_t)i));
    return qp_merge_parse(text != NULL ? text : "", merge);
}

static qp_error_t build_gpt2(qp_tokenizer_t *tokenizer, const json_t *root, const tokens_t *tokens)
{
    const qp_gguf_pre_t *pre = NULL;
    json_t *merges;
    QP_TRY(qp_gguf_pre_find(root, &pre));
    QP_TRY(qp_json_want(root, "tokenizer.ggml.merges", JSON_ARRAY, &merges));
    for (int i = 0; i < 2 && pre->pattern[i] != NULL; i++) {
        qp_split_step_t step = {.kind = QP_SPLIT_REGEX};
        QP_TRY(qp_regex_create(pre->pattern[i], false, &step.regex));
        QP_TRY(qp_split_add(&tokenizer->split, step));
    }
    tokenizer->bpe.byte_level = tokenizer->decoder.byte_level = true;
    tokenizer->bpe.ignore_merges = pre->ignore_merges;
    for (int64_t i = 0; i < tokens->n; i++)
        QP_TRY(qp_vocab_put(&tokenizer->vocab, i, token_text(tokens, i),
                            strlen(token_text(tokens, i))));
    QP_TRY(qp_error_context(
        qp_tokenizer_build_bpe(tokenizer, (int64_t)json_array_size(merges), gguf_merge, merges),
        "tokenizer.ggml"));
    for (int64_t i = 0; i < tokens->n; i++) {
        const int type = token_type(tokens, i);
        if (type == QP_SP_CONTROL || type == QP_SP_USER_DEFINED)
            QP_TRY(
                qp_tokenizer_add(tokenizer, token_text(tokens, i), false,
                                 (qp_added_t){.id = (int32_t)i, .special = type == QP_SP_CONTROL}));
    }
    return qp_gguf_around(root, pre->add_bos, &tokenizer->add_bos, &tokenizer->add_eos);
}

/* --- model "llama": SentencePiece BPE, as a serialised ModelProto ----------------------------- */

static qp_error_t write_model_proto(const json_t *root, const tokens_t *tokens,
                                    const json_t *scores, qp_str_t *model)
{
    qp_sp_proto_t proto = {.model_type = QP_SP_MODEL_BPE, .escape_whitespaces = true};
    QP_TRY(qp_gguf_token_id(root, "unknown", &proto.unk_id));
    QP_TRY(qp_gguf_token_id(root, "bos", &proto.bos_id));
    QP_TRY(qp_gguf_token_id(root, "eos", &proto.eos_id));
    QP_TRY(qp_json_bool(root, "tokenizer.ggml.add_space_prefix", true, &proto.dummy_prefix));
    QP_TRY(qp_json_bool(root, "tokenizer.ggml.remove_extra_whitespaces", false,
                        &proto.remove_extra_whitespaces));
    for (int64_t i = 0; i < tokens->n; i++) {
        const int type = token_type(tokens, i);
        qp_sp_proto_push(&proto, (qp_sp_piece_t){.text = token_text(tokens, i),
                                                 .n_text = strlen(token_text(tokens, i)),
                                                 .score = (float)json_number_value(
                                                     json_array_get(scores, (size_t)i)),
                                                 .type = type});
        proto.byte_fallback = proto.byte_fallback || type == QP_SP_BYTE;
    }
    qp_sp_proto_write(&proto, model);
    qp_sp_proto_fini(&proto);
    return NULL;
}

qp_error_t qp_gguf_model_proto(const json_t *root, qp_str_t *proto)
{
    tokens_t tokens;
    json_t *scores;
    QP_TRY(read_tokens(root, &tokens));
    QP_TRY(qp_json_want(root, "tokenizer.ggml.scores", JSON_ARRAY, &scores));
    if (json_array_size(scores) != (size_t)tokens.n)
        return QP_ERROR(QP_INPUT, "tokenizer.ggml: %lld tokens but %zu scores", (long long)tokens.n,
                        json_array_size(scores));
    return write_model_proto(root, &tokens, scores, proto);
}

static qp_error_t build_llama(qp_tokenizer_t *tokenizer, const json_t *root)
{
    qp_str_t proto = {0};
    qp_error_t error = qp_gguf_model_proto(root, &proto);
    if (error == NULL)
        error = qp_tokenizer_load_sp(tokenizer, proto.data, proto.n);
    qp_str_fini(&proto);
    QP_TRY(error);
    return qp_gguf_around(root, true, &tokenizer->add_bos, &tokenizer->add_eos);
}

/* Texts by the names that transformers gives the tokens; ids that end a sequence. */
static qp_error_t read_specials(qp_tokenizer_t *tokenizer, const json_t *root,
                                const tokens_t *tokens)
{
    static const char *const ends[] = {"eos", "eot", "eom"};
    for (size_t i = 0; i < QP_GGUF_N_SPECIAL; i++) {
        int64_t id;
        QP_TRY(qp_gguf_token_id(root, qp_gguf_specials[i].gguf, &id));
        const char *text = id >= 0 && id < tokens->n ? token_text(tokens, id) : NULL;
        if (text != NULL)
            json_object_set_new(tokenizer->special, qp_gguf_specials[i].hf, json_string(text));
    }
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        int64_t id;
        QP_TRY(qp_gguf_token_id(root, ends[i], &id));
        if (id >= 0)
            qp_tokens_push(&tokenizer->more_eos, (int32_t)id);
    }
    return NULL;
}

/* "tokenizer.chat_template" and "tokenizer.chat_template.<name>". */
static qp_error_t read_templates(qp_tokenizer_t *tokenizer, const json_t *root)
{
    static const char whole[] = "tokenizer.chat_template";
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value)
    {
        if (!qp_has_prefix(key, whole) || json_is_null(value))
            continue;
        const char *rest = key + strlen(whole);
        if (rest[0] != '\0' && rest[0] != '.')
            continue;
        if (!json_is_string(value))
            return qp_json_wrong(key, value, "a text");
        json_object_set(tokenizer->chat_template, rest[0] == '.' ? rest + 1 : "default", value);
    }
    return NULL;
}

/* All metadata but the templates. */
static uint64_t hash_of(const json_t *root)
{
    json_t *copy = json_copy((json_t *)root), *value;
    const char *key;
    void *next;
    json_object_foreach_safe(copy, next, key, value)
    {
        if (qp_has_prefix(key, "tokenizer.chat_template"))
            json_object_del(copy, key);
    }
    char *text = json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS);
    QP_ASSERT(text != NULL);
    const uint64_t hash = qp_hash_bytes(text, strlen(text));
    free(text);
    json_decref(copy);
    return hash;
}

static qp_error_t build(qp_tokenizer_t *tokenizer, const json_t *root)
{
    tokens_t tokens;
    const char *model = "";
    int64_t bos, eos, pad;
    QP_TRY(qp_json_string(root, "tokenizer.ggml.model", "", &model));
    const bool gpt2 = strcmp(model, "gpt2") == 0;
    if (!gpt2 && strcmp(model, "llama") != 0)
        return QP_ERROR(QP_INPUT, "tokenizer.ggml.model '%s' is not supported (gpt2 and llama are)",
                        model);
    QP_TRY(read_tokens(root, &tokens));
    QP_TRY(read_specials(tokenizer, root, &tokens));
    QP_TRY(read_templates(tokenizer, root));
    QP_TRY(gpt2 ? build_gpt2(tokenizer, root, &tokens) : build_llama(tokenizer, root));
    QP_TRY(qp_gguf_token_id(root, "bos", &bos));
    QP_TRY(qp_gguf_token_id(root, "eos", &eos));
    QP_TRY(qp_gguf_token_id(root, "padding", &pad));
    tokenizer->bos = (int32_t)bos;
    tokenizer->eos = (int32_t)eos;
    tokenizer->pad = (int32_t)pad;
    tokenizer->id = hash_of(root);
    return NULL;
}

qp_error_t qp_tokenizer_build_gguf(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                   const json_t *config)
{
    (void)config;
    json_t *root;
    QP_TRY(qp_json_parse_object(files->kind, files->model, files->model_bytes, 0, &root));
    qp_error_t error = qp_error_context(build(tokenizer, root), "%s", files->kind);
    json_decref(root);
    return error;
}
