/* Tokenizer files as an HF folder has them; those of a GGUF file are made anew from its metadata.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "text/tokenizer.h"
#include "text/tokenizer_gguf.h"
#include "text/tokenizer_parts.h"

static qp_error_t write_file(const char *folder, const char *name, const void *data, size_t n_bytes)
{
    char *path = qp_format("%s/%s", folder, name);
    qp_error_t error = qp_file_write(path, data, n_bytes);
    qp_free(path);
    return error;
}

static qp_error_t write_json(const char *folder, const char *name, const json_t *json)
{
    char *text = json_dumps(json, JSON_INDENT(1));
    QP_ASSERT(text != NULL);
    qp_error_t error = write_file(folder, name, text, strlen(text));
    free(text);
    return error;
}

/* --- tokenizer.json of GGUF's byte-level BPE -------------------------------------------------- */

static const char *token_text(const json_t *root, int64_t id)
{
    const json_t *tokens = json_object_get(root, "tokenizer.ggml.tokens");
    return id >= 0 ? json_string_value(json_array_get(tokens, (size_t)id)) : NULL;
}

/* {"text": id} of all tokens, and the list of those that are found before the text is cut. */
static void make_vocabulary(const json_t *root, json_t *vocab, json_t *added)
{
    const json_t *tokens = json_object_get(root, "tokenizer.ggml.tokens"), *token;
    const json_t *types = json_object_get(root, "tokenizer.ggml.token_type");
    size_t id;
    json_array_foreach(tokens, id, token)
    {
        const char *text = json_string_value(token);
        json_int_t type = json_integer_value(json_array_get(types, id));
        if (text == NULL)
            continue;
        json_object_set_new(vocab, text, json_integer((json_int_t)id));
        if (type == QP_SP_CONTROL || type == QP_SP_USER_DEFINED)
            json_array_append_new(added, json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id",
                                                   (json_int_t)id, "content", text, "single_word",
                                                   0, "lstrip", 0, "rstrip", 0, "normalized", 0,
                                                   "special", type == QP_SP_CONTROL));
    }
}

static json_t *make_byte_level(void)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", 0);
}

static json_t *make_pre_tokenizer(const qp_gguf_pre_t *pre)
{
    json_t *steps = json_array();
    for (int i = 0; i < 2 && pre->pattern[i] != NULL; i++)
        json_array_append_new(steps, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split",
                                               "pattern", "Regex", pre->pattern[i], "behavior",
                                               "Isolated", "invert", 0));
    json_array_append_new(steps, make_byte_level());
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", steps);
}

/* Puts BOS in front. */
static json_t *make_post_processor(const char *bos, int64_t id)
{
    if (bos == NULL)
        return json_null();
    return json_pack("{s:s, s:[{s:{s:s,s:i}}, {s:{s:s,s:i}}], s:[{s:{s:s,s:i}}, {s:{s:s,s:i}}, "
                     "{s:{s:s,s:i}}], s:{s:{s:s, s:[I], s:[s]}}}",
                     "type", "TemplateProcessing", "single", "SpecialToken", "id", bos, "type_id",
                     0, "Sequence", "id", "A", "type_id", 0, "pair", "SpecialToken", "id", bos,
                     "type_id", 0, "Sequence", "id", "A", "type_id", 0, "Sequence", "id", "B",
                     "type_id", 1, "special_tokens", bos, "id", bos, "ids", (json_int_t)id,
                     "tokens", bos);
}

static qp_error_t write_bpe(const json_t *root, const char *folder)
{
    const qp_gguf_pre_t *pre = NULL;
    json_t *merges = NULL;
    QP_TRY(qp_gguf_pre_find(root, &pre));
    QP_TRY(qp_json_want(root, "tokenizer.ggml.merges", JSON_ARRAY, &merges));
    bool add_bos, add_eos;
    int64_t bos;
    QP_TRY(qp_gguf_around(root, pre->add_bos, &add_bos, &add_eos));
    QP_TRY(qp_gguf_token_id(root, "bos", &bos));
    json_t *vocab = json_object(), *added = json_array();
    make_vocabulary(root, vocab, added);
    json_t *model = json_pack(
        "{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:O}", "type", "BPE", "dropout", "unk_token",
        "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
        "ignore_merges", pre->ignore_merges, "vocab", vocab, "merges", merges);
    json_t *json = json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:o, s:o, s:o}", "version", "1.0",
                             "truncation", "padding", "added_tokens", added, "normalizer",
                             "pre_tokenizer", make_pre_tokenizer(pre), "post_processor",
                             make_post_processor(add_bos ? token_text(root, bos) : NULL, bos),
                             "decoder", make_byte_level(), "model", model);
    QP_ASSERT(json != NULL);
    qp_error_t error = write_json(folder, "tokenizer.json", json);
    json_decref(json);
    return error;
}

/* --- the rest of GGUF ------------------------------------------------------------------------- */

static qp_error_t write_sentencepiece(const json_t *root, const char *folder)
{
    qp_str_t proto = {0};
    qp_error_t error = qp_gguf_model_proto(root, &proto);
    if (error == NULL)
        error = write_file(folder, "tokenizer.model", proto.data, proto.n);
    qp_str_fini(&proto);
    return error;
}

/* The chat templates as tokenizer_config.json has them: one text, or a list of named ones. */
static void put_templates(const json_t *root, json_t *config)
{
    static const char whole[] = "tokenizer.chat_template";
    json_t *list = json_array(), *value;
    const char *key;
    json_object_foreach((json_t *)root, key, value)
    {
        if (!qp_has_prefix(key, whole) || !json_is_string(value))
            continue;
        const char *name = key[strlen(whole)] == '.' ? key + strlen(whole) + 1 : "default";
        json_array_append_new(list, json_pack("{s:s, s:O}", "name", name, "template", value));
    }
    json_t *chat = json_object_get(root, whole);
    if (json_array_size(list) > (json_is_string(chat) ? 1u : 0u))
        json_object_set(config, "chat_template", list);
    else if (json_is_string(chat))
        json_object_set(config, "chat_template", chat);
    json_decref(list);
}

static qp_error_t put_names(const json_t *root, json_t *config)
{
    for (size_t i = 0; i < QP_GGUF_N_SPECIAL; i++) {
        int64_t id;
        QP_TRY(qp_gguf_token_id(root, qp_gguf_specials[i].gguf, &id));
        const char *text = token_text(root, id);
        if (text != NULL)
            json_object_set_new(config, qp_gguf_specials[i].hf, json_string(text));
    }
    return NULL;
}

static qp_error_t write_config(const json_t *root, bool bpe, const char *folder)
{
    bool bos, eos;
    QP_TRY(qp_gguf_around(root, true, &bos, &eos));
    json_t *config = json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                               "clean_up_tokenization_spaces", 0);
    qp_error_t error = put_names(root, config);
    put_templates(root, config);
    if (!bpe) {
        json_object_set_new(config, "add_bos_token", json_boolean(bos));
        json_object_set_new(config, "add_eos_token", json_boolean(eos));
    }
    if (error == NULL)
        error = write_json(folder, "tokenizer_config.json", config);
    json_decref(config);
    return error;
}

static qp_error_t write_parts(const json_t *root, const char *folder)
{
    const char *model = "";
    QP_TRY(qp_json_string(root, "tokenizer.ggml.model", "", &model));
    const bool bpe = strcmp(model, "gpt2") == 0;
    QP_TRY(bpe ? write_bpe(root, folder) : write_sentencepiece(root, folder));
    return write_config(root, bpe, folder);
}

static qp_error_t write_gguf(const qp_tokenizer_files_t *files, const char *folder)
{
    json_t *root;
    QP_TRY(qp_json_parse_object("tokenizer of the GGUF file", files->model, files->model_bytes, 0,
                                &root));
    qp_error_t error = write_parts(root, folder);
    json_decref(root);
    return error;
}

qp_error_t qp_tokenizer_files_to_folder(const qp_tokenizer_files_t *files, const char *folder)
{
    if (strcmp(files->kind, "gguf") == 0)
        return write_gguf(files, folder);
    QP_TRY(write_file(folder, files->kind, files->model, files->model_bytes));
    if (files->config == NULL)
        return NULL;
    return write_file(folder, "tokenizer_config.json", files->config, files->config_bytes);
}
