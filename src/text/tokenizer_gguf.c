/* Tokenizers embedded in GGUF files: JSON of the metadata keys "tokenizer.ggml.*". */
#include <string.h>

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
    const char *name = qp_json_text(root, "tokenizer.ggml.pre"), *names[N_PRE];
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
    qp_tokenizer_set_bos_eos(tokenizer,
                             qp_json_flag(root, "tokenizer.ggml.add_bos_token", pre->add_bos),
                             qp_json_flag(root, "tokenizer.ggml.add_eos_token", false));
    return NULL;
}

/* --- model "llama": SentencePiece BPE, as a serialised ModelProto ----------------------------- */

/* Id of a metadata key, -1 if absent (SentencePiece: no such token). */
static int64_t id_of(const json_t *root, const char *key)
{
    const json_t *value = json_object_get(root, key);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

static void write_model_proto(const json_t *root, const tokens_t *tokens, const json_t *scores,
                              qp_str_t *model)
{
    qp_sp_proto_t proto = {
        .model_type = QP_SP_MODEL_BPE,
        .unk_id = id_of(root, "tokenizer.ggml.unknown_token_id"),
        .bos_id = id_of(root, "tokenizer.ggml.bos_token_id"),
        .eos_id = id_of(root, "tokenizer.ggml.eos_token_id"),
        .dummy_prefix = qp_json_flag(root, "tokenizer.ggml.add_space_prefix", true),
        .remove_extra_whitespaces =
            qp_json_flag(root, "tokenizer.ggml.remove_extra_whitespaces", false),
        .escape_whitespaces = true,
    };
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
    write_model_proto(root, &tokens, scores, proto);
    return NULL;
}

static qp_error_t build_llama(qp_tokenizer_t *tokenizer, const json_t *root)
{
    qp_str_t proto = {0};
    qp_error_t error = qp_gguf_model_proto(root, &proto);
    if (error == NULL)
        error = qp_tokenizer_load_sp(tokenizer, proto.data, proto.n);
    qp_str_fini(&proto);
    QP_TRY(error);
    qp_tokenizer_set_bos_eos(tokenizer, qp_json_flag(root, "tokenizer.ggml.add_bos_token", true),
                             qp_json_flag(root, "tokenizer.ggml.add_eos_token", false));
    return NULL;
}

static qp_error_t build(qp_tokenizer_t *tokenizer, const json_t *root)
{
    tokens_t tokens;
    const char *model = qp_json_text(root, "tokenizer.ggml.model");
    const bool gpt2 = strcmp(model, "gpt2") == 0;
    if (!gpt2 && strcmp(model, "llama") != 0)
        return QP_ERROR(QP_INPUT, "tokenizer.ggml.model '%s' is not supported (gpt2 and llama are)",
                        model);
    QP_TRY(read_tokens(root, &tokens));
    tokenizer->bos = (int32_t)id_of(root, "tokenizer.ggml.bos_token_id");
    tokenizer->eos = (int32_t)id_of(root, "tokenizer.ggml.eos_token_id");
    tokenizer->chat_template =
        qp_strdup(json_string_value(json_object_get(root, "tokenizer.chat_template")));
    return gpt2 ? build_gpt2(tokenizer, root, &tokens) : build_llama(tokenizer, root);
}

qp_error_t qp_tokenizer_build_gguf(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                   const json_t *config)
{
    (void)config;
    json_error_t where;
    json_t *root = json_loadb(files->model, files->model_bytes, 0, &where);
    if (root == NULL)
        return QP_ERROR(QP_INPUT, "line %d: %s", where.line, where.text);
    qp_error_t error = build(tokenizer, root);
    json_decref(root);
    return error;
}
