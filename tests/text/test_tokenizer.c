/* Ids and decoded texts are those of HF tokenizers and SentencePiece
 * (tests/golden/make_tokenizers.py) on texts of the dumps and nasty ones; long words stay fast; bad
 * files are refused by name. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/timer.h"
#include "testing.h"
#include "text/tokenizer.h"

static json_t *load_json(const char *name)
{
    json_error_t where;
    char *path = qp_format("tests/golden/tokenizers/%s", name);
    json_t *root = json_load_file(qp_test_source(path), 0, &where);
    CHECK_MSG(root != NULL, "%s: line %d: %s", name, where.line, where.text);
    qp_free(path);
    return root;
}

static void load_bytes(const char *name, qp_str_t *bytes)
{
    char *path = qp_format("tests/golden/tokenizers/%s", name), block[65536];
    FILE *file = fopen(qp_test_source(path), "rb");
    qp_free(path);
    if (!CHECK_MSG(file != NULL, "%s", name))
        return;
    for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;)
        qp_str_append(bytes, block, n);
    fclose(file);
}

static qp_tokenizer_t *open_golden(const char *kind, const char *name)
{
    qp_tokenizer_t *tokenizer = NULL;
    qp_tokenizer_files_t files = {0};
    qp_str_t model = {0};
    load_bytes(name, &model);
    snprintf(files.kind, sizeof files.kind, "%s", kind);
    files.model = model.data;
    files.model_bytes = model.n;
    files.config = qp_strdup("{\"add_bos_token\": true}"); /* counts for tokenizer.model alone */
    files.config_bytes = strlen(files.config);
    CHECK_OK(qp_tokenizer_create(&files, &tokenizer));
    qp_tokenizer_files_fini(&files);
    return tokenizer;
}

/* Base64 of Python; the input is a golden, so it is well-formed. */
static void decode_base64(const char *text, qp_str_t *bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned value = 0;
    int n_bit = 0;
    for (; *text != '\0' && *text != '='; text++) {
        value = value << 6 | (unsigned)(strchr(digits, *text) - digits);
        n_bit += 6;
        if (n_bit >= 8) {
            n_bit -= 8;
            qp_str_putc(bytes, (char)(value >> n_bit & 0xff));
        }
    }
}

static void print_ids(const char *name, const qp_tokens_t *ids, const json_t *expected)
{
    qp_str_t line = {0};
    for (int64_t i = 0; i < ids->n && i < 40; i++)
        qp_str_printf(&line, " %d", (int)ids->id[i]);
    char *wanted = json_dumps(expected, JSON_COMPACT);
    printf("%s:%s\nexpected: %.300s\n", name, line.data != NULL ? line.data : "", wanted);
    free(wanted);
    qp_str_fini(&line);
}

static bool same_ids(const qp_tokens_t *ids, int64_t skip, const json_t *expected)
{
    bool same = ids->n - skip == (int64_t)json_array_size(expected);
    for (int64_t i = skip; same && i < ids->n; i++)
        same = ids->id[i] == json_integer_value(json_array_get(expected, (size_t)(i - skip)));
    return same;
}

/* Encodes with the flags and compares with prefix + expected. */
static void check_encode(const qp_tokenizer_t *tokenizer, const char *name, const qp_str_t *text,
                         unsigned flags, const json_t *prefix, const json_t *expected)
{
    qp_tokens_t ids = {0};
    const int64_t n_prefix =
        (flags & QP_TEXT_ADD_SPECIAL) != 0 ? (int64_t)json_array_size(prefix) : 0;
    CHECK_OK(qp_tokenizer_encode(tokenizer, text->n > 0 ? text->data : "", text->n, flags, &ids));
    bool same = ids.n >= n_prefix && same_ids(&ids, n_prefix, expected);
    for (int64_t i = 0; same && i < n_prefix; i++)
        same = ids.id[i] == json_integer_value(json_array_get(prefix, (size_t)i));
    if (!CHECK_MSG(same, "%s, flags %u: '%.100s'", name, flags, text->n > 0 ? text->data : ""))
        print_ids(name, &ids, expected);
    qp_tokens_fini(&ids);
}

static void check_decode(const qp_tokenizer_t *tokenizer, const char *name, const json_t *ids,
                         bool skip_special, const char *expected, size_t n_expected)
{
    qp_str_t text = {0};
    qp_tokens_t list = {0};
    size_t i;
    json_t *id;
    json_array_foreach(ids, i, id) qp_tokens_push(&list, (int32_t)json_integer_value(id));
    CHECK_OK(qp_tokenizer_decode(tokenizer, list.id, list.n, skip_special, &text));
    CHECK_MSG(text.n == n_expected && (text.n == 0 || memcmp(text.data, expected, text.n) == 0),
              "%s: decoded '%.200s' (%zu bytes), expected '%.200s' (%zu)", name,
              text.n > 0 ? text.data : "", text.n, expected, n_expected);
    qp_str_fini(&text);
    qp_tokens_fini(&list);
}

/* One text of the goldens; what the row leaves out equals what it follows from (see the maker). */
static void check_row(const qp_tokenizer_t *tokenizer, const char *name, const qp_str_t *bytes,
                      const json_t *prefix, const json_t *row)
{
    const json_t *parsed = json_object_get(row, "parsed"),
                 *literal = json_object_get(row, "literal");
    const json_t *decoded = json_object_get(row, "decoded"),
                 *skipped = json_object_get(row, "skipped");
    if (literal == NULL)
        literal = parsed;
    check_encode(tokenizer, name, bytes, 0, prefix, literal);
    check_encode(tokenizer, name, bytes, QP_TEXT_ADD_SPECIAL, prefix, literal);
    if (parsed != NULL) {
        check_encode(tokenizer, name, bytes, QP_TEXT_PARSE_SPECIAL, prefix, parsed);
        check_encode(tokenizer, name, bytes, QP_TEXT_ADD_SPECIAL | QP_TEXT_PARSE_SPECIAL, prefix,
                     parsed);
    }
    const char *text = decoded != NULL ? json_string_value(decoded)
                       : bytes->n > 0  ? bytes->data
                                       : "";
    const size_t n = decoded != NULL ? json_string_length(decoded) : bytes->n;
    const json_t *ids = parsed != NULL ? parsed : literal;
    check_decode(tokenizer, name, ids, false, text, n);
    if (skipped != NULL)
        check_decode(tokenizer, name, ids, true, json_string_value(skipped),
                     json_string_length(skipped));
    else
        check_decode(tokenizer, name, ids, true, text, n);
}

/* Ids of model NAME, kind KIND, are those of GOLDEN.ids.json. */
static void check_model(const char *kind, const char *name, const char *golden, const json_t *texts)
{
    char *ids_name = qp_format("%s.ids.json", golden);
    json_t *ids = load_json(ids_name), *row;
    qp_free(ids_name);
    qp_tokenizer_t *tokenizer = open_golden(kind, name);
    if (tokenizer == NULL || ids == NULL)
        return;
    const json_t *prefix = json_object_get(ids, "prefix"), *rows = json_object_get(ids, "rows");
    size_t i;
    CHECK(json_array_size(rows) >= 50 && json_array_size(rows) <= json_array_size(texts));
    json_array_foreach(rows, i, row)
    {
        qp_str_t bytes = {0};
        decode_base64(json_string_value(json_array_get(texts, i)), &bytes);
        check_row(tokenizer, name, &bytes, prefix, row);
        qp_str_fini(&bytes);
    }
    qp_tokenizer_destroy(&tokenizer);
    json_decref(ids);
}

static void test_ids_and_texts_are_those_of_the_peers(void)
{
    json_t *texts = load_json("texts.json");
    check_model("tokenizer.json", "gpt2.json", "gpt2", texts);
    check_model("tokenizer.json", "llama3.json", "llama3", texts);
    check_model("tokenizer.json", "smollm.json", "smollm", texts);
    check_model("tokenizer.json", "llama2.json", "llama2", texts);
    check_model("tokenizer.json", "metaspace.json", "metaspace", texts);
    check_model("tokenizer.json", "odd.json", "odd", texts);
    check_model("tokenizer.json", "unfused.json", "unfused", texts);
    check_model("tokenizer.model", "spm.model", "spm", texts);
    check_model("gguf", "spm.gguf.json", "spm", texts);
    json_decref(texts);
}

/* spm.gguf.json with many equal scores, with or without byte fallback; \a user_defined adds a piece
 * of that type, which no text holds, so that the library encodes. */
static qp_tokenizer_t *open_changed(bool byte_fallback, bool user_defined)
{
    json_t *root = load_json("spm.gguf.json"), *score, *type;
    json_t *scores = json_object_get(root, "tokenizer.ggml.scores");
    json_t *types = json_object_get(root, "tokenizer.ggml.token_type");
    size_t i;
    json_array_foreach(scores, i, score)
        json_array_set_new(scores, i, json_integer((json_int_t)json_number_value(score) / 50));
    json_array_foreach(types, i, type) if (!byte_fallback && json_integer_value(type) == 6)
        json_array_set_new(types, i, json_integer(3));
    if (user_defined) {
        json_array_append_new(json_object_get(root, "tokenizer.ggml.tokens"),
                              json_string("never here"));
        json_array_append_new(scores, json_integer(0));
        json_array_append_new(types, json_integer(4));
    }
    char *text = json_dumps(root, 0);
    qp_tokenizer_t *tokenizer = NULL;
    qp_tokenizer_files_t files = {.kind = "gguf", .model = text, .model_bytes = strlen(text)};
    CHECK_OK(qp_tokenizer_create(&files, &tokenizer));
    free(text);
    json_decref(root);
    return tokenizer;
}

static void test_own_merging_agrees_with_sentencepiece(void)
{
    json_t *texts = load_json("texts.json"), *text;
    for (int byte_fallback = 0; byte_fallback < 2; byte_fallback++) {
        qp_tokenizer_t *own = open_changed(byte_fallback, false);
        qp_tokenizer_t *library = open_changed(byte_fallback, true);
        size_t i;
        json_array_foreach(texts, i, text)
        {
            qp_str_t bytes = {0};
            qp_tokens_t a = {0}, b = {0};
            decode_base64(json_string_value(text), &bytes);
            const char *data = bytes.n > 0 ? bytes.data : "";
            CHECK_OK(qp_tokenizer_encode(own, data, bytes.n, 0, &a));
            CHECK_OK(qp_tokenizer_encode(library, data, bytes.n, 0, &b));
            CHECK_MSG(a.n == b.n &&
                          (a.n == 0 || memcmp(a.id, b.id, (size_t)a.n * sizeof *a.id) == 0),
                      "byte fallback %d: '%.200s'", byte_fallback, data);
            qp_tokens_fini(&a);
            qp_tokens_fini(&b);
            qp_str_fini(&bytes);
        }
        qp_tokenizer_destroy(&own);
        qp_tokenizer_destroy(&library);
    }
    json_decref(texts);
}

/* The GGUF of a byte-level model gives the ids of its tokenizer.json on plain text. */
static void test_gguf_agrees_with_json(void)
{
    static const char text[] = "It's 1234 caf\xc3\xa9s,\n\n  isn't <|im_end|>?\n";
    qp_tokenizer_t *json = open_golden("tokenizer.json", "smollm.json");
    qp_tokenizer_t *gguf = open_golden("gguf", "smollm.gguf.json");
    qp_tokens_t a = {0}, b = {0};
    for (unsigned flags = 0; flags < 4 && json != NULL && gguf != NULL; flags++) {
        CHECK_OK(qp_tokenizer_encode(json, text, strlen(text), flags, &a));
        CHECK_OK(qp_tokenizer_encode(gguf, text, strlen(text), flags, &b));
    }
    CHECK(a.n > 0 && a.n == b.n && memcmp(a.id, b.id, (size_t)a.n * sizeof(int32_t)) == 0);
    qp_tokens_fini(&a);
    qp_tokens_fini(&b);
    qp_tokenizer_destroy(&json);
    qp_tokenizer_destroy(&gguf);
}

static void test_special_tokens(void)
{
    qp_tokenizer_t *tokenizer = open_golden("tokenizer.json", "llama3.json");
    CHECK(qp_tokenizer_bos(tokenizer) == 0 && qp_tokenizer_adds_bos(tokenizer));
    CHECK(qp_tokenizer_eos(tokenizer) == -1 && qp_tokenizer_chat_template(tokenizer) == NULL);
    CHECK(qp_tokenizer_find(tokenizer, "<|eot_id|>") == 4 &&
          qp_tokenizer_find(tokenizer, "no!") == -1);
    CHECK(strcmp(qp_tokenizer_token(tokenizer, 4), "<|eot_id|>") == 0);
    CHECK(qp_tokenizer_token(tokenizer, -1) == NULL &&
          qp_tokenizer_token(tokenizer, 1 << 30) == NULL);
    CHECK(qp_tokenizer_n_vocab(tokenizer) == 1502);
    qp_tokenizer_destroy(&tokenizer);

    tokenizer = open_golden("gguf", "smollm.gguf.json");
    CHECK(qp_tokenizer_bos(tokenizer) == 1 && qp_tokenizer_eos(tokenizer) == 2);
    CHECK(!qp_tokenizer_adds_bos(tokenizer) && qp_tokenizer_pad(tokenizer) == -1);
    qp_tokenizer_destroy(&tokenizer);

    tokenizer = open_golden("tokenizer.model", "spm.model");
    CHECK(qp_tokenizer_bos(tokenizer) == 1 && qp_tokenizer_eos(tokenizer) == 2);
    CHECK(qp_tokenizer_adds_bos(tokenizer));
    qp_tokenizer_destroy(&tokenizer);
}

/* GGUF names several ends of a sequence, a pad and several templates. */
static void test_ends_and_templates_of_gguf(void)
{
    json_t *root = load_json("smollm.gguf.json");
    static const struct {
        const char *key;
        int id;
    } ids[] = {{"eos", 2}, {"eot", 0}, {"eom", 2}, {"padding", 0}};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        char *key = qp_format("tokenizer.ggml.%s_token_id", ids[i].key);
        json_object_set_new(root, key, json_integer(ids[i].id));
        qp_free(key);
    }
    json_object_set_new(root, "tokenizer.chat_template", json_string("A"));
    json_object_set_new(root, "tokenizer.chat_template.tool_use", json_string("T"));
    json_object_set_new(root, "tokenizer.chat_templates", json_pack("[s]", "tool_use"));
    char *text = json_dumps(root, 0);
    qp_tokenizer_t *tokenizer = NULL;
    qp_tokens_t ends = {0};
    qp_tokenizer_files_t files = {.kind = "gguf", .model = text, .model_bytes = strlen(text)};
    if (CHECK_OK(qp_tokenizer_create(&files, &tokenizer))) {
        qp_tokenizer_eos_ids(tokenizer, &ends);
        CHECK(ends.n == 2 && ends.id[0] == 2 && ends.id[1] == 0);
        CHECK(qp_tokenizer_pad(tokenizer) == 0);
        CHECK(strcmp(qp_tokenizer_chat_template(tokenizer), "A") == 0);
        CHECK(strcmp(qp_tokenizer_named_template(tokenizer, "tool_use"), "T") == 0);
    }
    qp_tokens_fini(&ends);
    qp_tokenizer_destroy(&tokenizer);
    free(text);
    json_decref(root);
}

static void write_file(const char *name, const char *text, size_t n)
{
    char *path = qp_format("%s/%s", qp_test_folder(), name);
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(text, 1, n, file) == n && fclose(file) == 0);
    qp_free(path);
}

/* A folder as HF writes it: names of BOS and EOS and the chat template in files of their own. */
static void test_files_of_a_folder(void)
{
    static const char config[] = "{\"eos_token\": {\"content\": \"<|im_end|>\"}}";
    static const char map[] = "{\"bos_token\": \"<|im_start|>\", \"eos_token\": null}";
    qp_tokenizer_files_t files;
    qp_tokenizer_t *tokenizer = NULL;
    qp_str_t model = {0};
    CHECK_FAILS(qp_tokenizer_files_from_folder(qp_test_folder(), &files), QP_INPUT,
                "neither tokenizer.json nor tokenizer.model");
    load_bytes("smollm.json", &model);
    write_file("tokenizer.json", model.data, model.n);
    write_file("tokenizer_config.json", config, strlen(config));
    write_file("special_tokens_map.json", map, strlen(map));
    write_file("chat_template.jinja", "{{ x }}", 7);
    CHECK_OK(qp_tokenizer_files_from_folder(qp_test_folder(), &files));
    CHECK(strcmp(files.kind, "tokenizer.json") == 0 && files.model_bytes == model.n);
    if (CHECK_OK(qp_tokenizer_create(&files, &tokenizer))) {
        CHECK(qp_tokenizer_bos(tokenizer) == 1 && qp_tokenizer_eos(tokenizer) == 2);
        CHECK(!qp_tokenizer_adds_bos(tokenizer));
        CHECK(strcmp(qp_tokenizer_chat_template(tokenizer), "{{ x }}") == 0);
    }
    qp_tokenizer_destroy(&tokenizer);
    qp_tokenizer_files_fini(&files);
    write_file("tokenizer_config.json", "{\"eos_token\": \"</x>\"}", 21);
    CHECK_OK(qp_tokenizer_files_from_folder(qp_test_folder(), &files));
    CHECK_FAILS(qp_tokenizer_create(&files, &tokenizer), QP_INPUT,
                "eos_token '</x>' is not in the vocabulary");
    qp_tokenizer_files_fini(&files);
    write_file("tokenizer_config.json", "{\"eos", 5);
    CHECK_FAILS(qp_tokenizer_files_from_folder(qp_test_folder(), &files), QP_INPUT,
                "tokenizer_config.json:1: ");
    qp_str_fini(&model);
}

/* A quarter of a megabyte without a place to cut: quadratic time would be minutes. */
static void test_long_words_are_not_quadratic(void)
{
    enum { N = 1 << 18 };
    static const char *const names[] = {"gpt2.json", "llama2.json", "spm.model"};
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    for (int k = 0; k < 3; k++) {
        qp_tokenizer_t *tokenizer =
            open_golden(k < 2 ? "tokenizer.json" : "tokenizer.model", names[k]);
        for (int kind = 0; kind < 3 && tokenizer != NULL; kind++) {
            char *text = qp_alloc("text", N);
            qp_tokens_t ids = {0};
            qp_str_t back = {0};
            for (int i = 0; i < N; i++)
                text[i] = kind == 0 ? 'a' : kind == 1 ? ' ' : letters[(int64_t)i * i / 7 % 26];
            const double start = qp_time();
            CHECK_OK(qp_tokenizer_encode(tokenizer, text, N, 0, &ids));
            CHECK_MSG(qp_time() - start < 200.0, "%s: %g s", names[k], qp_time() - start);
            CHECK_OK(qp_tokenizer_decode(tokenizer, ids.id, ids.n, true, &back));
            CHECK_MSG(back.n == N && memcmp(back.data, text, N) == 0, "%s, kind %d", names[k],
                      kind);
            qp_str_fini(&back);
            qp_tokens_fini(&ids);
            qp_free(text);
        }
        qp_tokenizer_destroy(&tokenizer);
    }
}

/* tokenizer.json with one part replaced, and the message that must come. */
static void test_bad_files_are_refused(void)
{
    static const struct {
        const char *kind, *text, *message;
    } cases[] = {
        {"sentences", "x", "tokenizer kind 'sentences'"},
        {"tokenizer.json", "{", "tokenizer.json:1: "},
        {"tokenizer.json", "[]", "is no JSON object"},
        {"tokenizer.json", "{}", "model is missing"},
        {"tokenizer.json", "{\"model\": 3}", "model is 3, expected an object"},
        {"tokenizer.json", "{\"model\": {\"type\": \"Unigram\"}}",
         "type 'Unigram' is not supported"},
        {"tokenizer.json", "{\"normalizer\": {\"type\": \"Lowercase\"}, \"model\": {}}",
         "normalizer: type 'Lowercase' is not supported"},
        {"tokenizer.json",
         "{\"model\": {\"vocab\": {}, \"merges\": [], \"byte_fallback\": \"true\"}}",
         "model: byte_fallback is \"true\", expected true or false"},
        {"tokenizer.json",
         "{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"use_regex\": 0}, \"model\": {}}",
         "pre_tokenizer: ByteLevel: use_regex is 0, expected true or false"},
        {"tokenizer.json",
         "{\"post_processor\": {\"type\": \"BertProcessing\", \"cls\": [\"a\", \"0\"]}, \"model\": "
         "{\"vocab\": {}, \"merges\": []}}",
         "post_processor: BertProcessing: cls is [\"a\",\"0\"], expected a text and its id"},
        {"gguf", "{\"tokenizer.ggml.model\": 1}", "tokenizer.ggml.model is 1, expected a string"},
        {"tokenizer.json",
         "{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}, \"behavior\": "
         "\"Isolated\"}, \"model\": {}}",
         "pre_tokenizer: Split: split pattern '('"},
        {"tokenizer.json",
         "{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, "
         "\"behavior\": "
         "\"Contiguous\"}, \"model\": {}}",
         "behavior 'Contiguous' is not supported"},
        {"tokenizer.json", "{\"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}}",
         "id -1 is outside"},
        {"tokenizer.json", "{\"model\": {\"vocab\": {\"a\": 1, \"b\": 1}, \"merges\": []}}",
         "id 1 is both"},
        {"tokenizer.json", "{\"model\": {\"vocab\": {\"a\": 1}, \"merges\": [\"a b\"]}}",
         "merges[0]: 'a' + 'b': the right part is not in the vocabulary"},
        {"tokenizer.json", "{\"model\": {\"vocab\": {}, \"merges\": [\"ab\"]}}",
         "merges[0]: 'ab' is not two tokens"},
        {"tokenizer.json", "{\"model\": {\"vocab\": {}, \"merges\": []}}", "decoder: missing"},
        {"tokenizer.json", "{\"model\": {\"vocab\": {}, \"merges\": []}, \"added_tokens\": [{}]}",
         "added_tokens[0]: content is missing"},
        {"tokenizer.model", "no protobuf", "tokenizer.model: not a SentencePiece model"},
        {"gguf", "{\"tokenizer.ggml.model\": \"t5\"}",
         "tokenizer.ggml.model 't5' is not supported"},
        {"gguf",
         "{\"tokenizer.ggml.model\": \"gpt2\", \"tokenizer.ggml.pre\": \"smolm\", "
         "\"tokenizer.ggml.tokens\": [\"a\"], \"tokenizer.ggml.token_type\": [1]}",
         "'smolm' is not supported (nearest: smollm)"},
        {"gguf",
         "{\"tokenizer.ggml.model\": \"gpt2\", \"tokenizer.ggml.tokens\": [\"a\"], "
         "\"tokenizer.ggml.token_type\": []}",
         "1 tokens but 0 token types"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qp_tokenizer_t *tokenizer = NULL;
        qp_tokenizer_files_t files = {0};
        snprintf(files.kind, sizeof files.kind, "%s", cases[i].kind);
        files.model = qp_strdup(cases[i].text);
        files.model_bytes = strlen(cases[i].text);
        CHECK_FAILS(qp_tokenizer_create(&files, &tokenizer), QP_INPUT, cases[i].message);
        CHECK(tokenizer == NULL);
        qp_tokenizer_files_fini(&files);
    }
}

int main(void)
{
    test_ids_and_texts_are_those_of_the_peers();
    test_own_merging_agrees_with_sentencepiece();
    test_gguf_agrees_with_json();
    test_special_tokens();
    test_ends_and_templates_of_gguf();
    test_files_of_a_folder();
    test_long_words_are_not_quadratic();
    test_bad_files_are_refused();
    return qp_test_end();
}
