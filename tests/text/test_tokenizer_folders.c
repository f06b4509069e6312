/* Folders of tokenizer files give what transformers' AutoTokenizer makes of them
 * (tests/golden/make_tokenizer_folders.py), also after a base has stored and exported them;
 * normalisation of random texts of many scripts; one tokenizer keeps its identity. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "testing.h"
#include "text/tokenizer.h"

static json_t *load_golden(const char *name)
{
    json_error_t where;
    char *path = qp_format("tests/golden/tokenizers/%s", name);
    json_t *root = json_load_file(qp_test_source(path), 0, &where);
    CHECK_MSG(root != NULL, "%s: line %d: %s", name, where.line, where.text);
    qp_free(path);
    return root;
}

static void write_text(const char *folder, const char *name, const char *text, size_t n)
{
    char *path = qp_format("%s/%s", folder, name);
    CHECK_OK(qp_file_write(path, text, n));
    qp_free(path);
}

static void write_json(const char *folder, const char *name, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT);
    write_text(folder, name, text, strlen(text));
    free(text);
}

/* A fresh folder of this test; the caller frees the path. */
static char *make_folder(void)
{
    static int n;
    char *folder = qp_format("%s/%d", qp_test_folder(), n++);
    CHECK(mkdir(folder, 0755) == 0);
    return folder;
}

static void write_model(const char *folder, const char *model, const json_t *patch)
{
    if (qp_has_suffix(model, ".json")) {
        json_t *root = load_golden(model);
        json_object_update(root, (json_t *)patch);
        write_json(folder, "tokenizer.json", root);
        json_decref(root);
        return;
    }
    void *data;
    size_t n;
    char *path = qp_format("tests/golden/tokenizers/%s", model);
    if (CHECK_OK(qp_file_read(qp_test_source(path), &data, &n))) {
        write_text(folder, "tokenizer.model", data, n);
        qp_free(data);
    }
    qp_free(path);
}

/* The folder as the case describes it; the caller frees the path. */
static char *write_case(const json_t *item)
{
    char *folder = make_folder();
    json_t *content;
    const char *name;
    write_model(folder, json_string_value(json_object_get(item, "model")),
                json_object_get(item, "patch"));
    json_object_foreach(json_object_get(item, "files"), name, content)
    {
        if (strchr(name, '/') != NULL) {
            char *inner = qp_format("%s/%.*s", folder, (int)(strchr(name, '/') - name), name);
            CHECK(mkdir(inner, 0755) == 0);
            qp_free(inner);
        }
        if (json_is_string(content))
            write_text(folder, name, json_string_value(content), json_string_length(content));
        else
            write_json(folder, name, content);
    }
    return folder;
}

static qp_tokenizer_t *open_folder(const char *folder, qp_tokenizer_files_t *files)
{
    qp_tokenizer_t *tokenizer = NULL;
    if (CHECK_OK(qp_tokenizer_files_from_folder(folder, files)))
        CHECK_OK(qp_tokenizer_create(files, &tokenizer));
    return tokenizer;
}

static void check_ids(const qp_tokenizer_t *tokenizer, const char *name, const char *text,
                      unsigned flags, const json_t *expected)
{
    qp_tokens_t ids = {0};
    CHECK_OK(
        qp_tokenizer_encode(tokenizer, text, strlen(text), flags | QP_TEXT_PARSE_SPECIAL, &ids));
    bool same = ids.n == (int64_t)json_array_size(expected);
    for (int64_t i = 0; same && i < ids.n; i++)
        same = ids.id[i] == json_integer_value(json_array_get(expected, (size_t)i));
    if (!CHECK_MSG(same, "%s: '%s', flags %u", name, text, flags)) {
        for (int64_t i = 0; i < ids.n; i++)
            printf(" %d", (int)ids.id[i]);
        char *wanted = json_dumps(expected, JSON_COMPACT);
        printf("\nexpected %s\n", wanted);
        free(wanted);
    }
    qp_tokens_fini(&ids);
}

/* Null: transformers names none; a token that the post-processor puts there is named all the same.
 */
static void check_id(const char *name, const json_t *expected, int32_t id, int32_t otherwise)
{
    if (json_is_null(expected))
        CHECK_MSG(id == -1 || id == otherwise, "%s: %d, expected none", name, (int)id);
    else
        CHECK_MSG(id == json_integer_value(expected), "%s: %d, expected %d", name, (int)id,
                  (int)json_integer_value(expected));
}

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static void check_tokenizer(const qp_tokenizer_t *tokenizer, const char *name, const json_t *item,
                            const json_t *texts)
{
    const json_t *ids = json_object_get(item, "ids");
    const json_t *around = json_array_get(json_array_get(ids, 2), 0); /* of the empty text */
    const size_t n = json_array_size(around);
    const int32_t first = n > 0 ? (int32_t)json_integer_value(json_array_get(around, 0)) : -1;
    const int32_t last = n > 0 ? (int32_t)json_integer_value(json_array_get(around, n - 1)) : -1;
    const char *tool = qp_tokenizer_named_template(tokenizer, "tool_use");
    check_id(name, json_object_get(item, "bos"), qp_tokenizer_bos(tokenizer), first);
    check_id(name, json_object_get(item, "eos"), qp_tokenizer_eos(tokenizer), last);
    check_id(name, json_object_get(item, "pad"), qp_tokenizer_pad(tokenizer), -1);
    CHECK_MSG(qp_tokenizer_n_vocab(tokenizer) ==
                  json_integer_value(json_object_get(item, "n_vocab")),
              "%s: n_vocab %d", name, (int)qp_tokenizer_n_vocab(tokenizer));
    CHECK_MSG(same_text(qp_tokenizer_chat_template(tokenizer),
                        json_string_value(json_object_get(item, "template"))),
              "%s: template", name);
    CHECK_MSG(same_text(tool != NULL ? tool : qp_tokenizer_chat_template(tokenizer),
                        json_string_value(json_object_get(item, "tool_template"))),
              "%s: template with tools", name);
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const char *text = json_string_value(json_array_get(texts, i));
        check_ids(tokenizer, name, text, QP_TEXT_ADD_SPECIAL,
                  json_array_get(json_array_get(ids, i), 0));
        check_ids(tokenizer, name, text, 0, json_array_get(json_array_get(ids, i), 1));
    }
}

static void check_case(const json_t *item, const json_t *texts)
{
    qp_tokenizer_files_t files = {0}, again = {0};
    char *folder = write_case(item), *copy = make_folder();
    char *name = json_dumps(json_object_get(item, "files"), JSON_COMPACT);
    qp_tokenizer_t *tokenizer = open_folder(folder, &files);
    if (tokenizer != NULL) {
        check_tokenizer(tokenizer, name, item, texts);
        CHECK_OK(qp_tokenizer_files_to_folder(&files, copy));
        qp_tokenizer_t *exported = open_folder(copy, &again);
        if (exported != NULL) {
            check_tokenizer(exported, name, item, texts);
            CHECK_MSG(qp_tokenizer_id(exported) == qp_tokenizer_id(tokenizer), "%s: identity",
                      name);
        }
        qp_tokenizer_destroy(&exported);
    }
    qp_tokenizer_destroy(&tokenizer);
    qp_tokenizer_files_fini(&files);
    qp_tokenizer_files_fini(&again);
    free(name);
    qp_free(folder);
    qp_free(copy);
}

static void test_folders_are_read_as_transformers_does(const json_t *golden)
{
    const json_t *cases = json_object_get(golden, "cases"),
                 *texts = json_object_get(golden, "texts");
    CHECK(json_array_size(cases) >= 30);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_case(json_array_get(cases, i), texts);
}

/* The case that failed: 28 tokens, not 69. */
static void test_shared_case(void)
{
    const char *folder = qp_test_shared("cases/added-tokens/hf_sp");
    static const char text[] = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nworld"
                               "<|im_end|>\n";
    qp_tokenizer_files_t files = {0};
    qp_tokens_t ids = {0};
    qp_tokenizer_t *tokenizer = folder != NULL ? open_folder(folder, &files) : NULL;
    if (tokenizer == NULL)
        return;
    CHECK_OK(qp_tokenizer_encode(tokenizer, text, strlen(text), QP_TEXT_PARSE_SPECIAL, &ids));
    CHECK_MSG(ids.n == 28 && ids.id[0] == 300 && ids.id[26] == 301, "%d tokens", (int)ids.n);
    CHECK(qp_tokenizer_n_vocab(tokenizer) == 303);
    qp_tokens_fini(&ids);
    qp_tokenizer_destroy(&tokenizer);
    qp_tokenizer_files_fini(&files);
}

/* --- random texts ----------------------------------------------------------------------------- */

static uint32_t draw(uint32_t *state, uint32_t n)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state % n;
}

static void put_character(qp_str_t *text, uint32_t code)
{
    const char three[] = {(char)(0xe0 | code >> 12), (char)(0x80 | (code >> 6 & 0x3f)),
                          (char)(0x80 | (code & 0x3f))};
    const char four[] = {(char)(0xf0 | code >> 18), (char)(0x80 | (code >> 12 & 0x3f)), three[1],
                         three[2]};
    if (code < 0x80)
        qp_str_putc(text, (char)code);
    else if (code < 0x800) {
        qp_str_putc(text, (char)(0xc0 | code >> 6));
        qp_str_putc(text, three[2]);
    } else {
        qp_str_append(text, code < 0x10000 ? three : four, code < 0x10000 ? 3 : 4);
    }
}

static void draw_text(uint32_t *state, const json_t *ranges, qp_str_t *text)
{
    const json_t *range[3];
    qp_str_clear(text);
    for (int i = 0; i < 3; i++)
        range[i] = json_array_get(ranges, draw(state, (uint32_t)json_array_size(ranges)));
    for (uint32_t n = 1 + draw(state, 24); n > 0; n--) {
        const json_t *one = range[draw(state, 3)];
        const uint32_t low = (uint32_t)json_integer_value(json_array_get(one, 0));
        const uint32_t high = (uint32_t)json_integer_value(json_array_get(one, 1));
        put_character(text, low + draw(state, high - low + 1));
    }
}

static void hash_ids(uint64_t *hash, const qp_tokens_t *ids)
{
    for (int64_t i = 0; i <= ids->n; i++)
        *hash = (*hash ^ (i < ids->n ? (uint32_t)ids->id[i] : UINT32_MAX)) * 0x100000001b3u;
}

static void check_form(const char *form, const json_t *groups, const json_t *ranges)
{
    enum { N_TEXT = 4000 };
    json_t *patch = json_pack("{s:{s:s}}", "normalizer", "type", form);
    char *folder = make_folder();
    qp_tokenizer_files_t files = {0};
    qp_tokens_t ids = {0};
    qp_str_t text = {0};
    uint32_t state = 2463534242u;
    uint64_t hash = 0xcbf29ce484222325u;
    write_model(folder, "gpt2.json", patch);
    qp_tokenizer_t *tokenizer = open_folder(folder, &files);
    const int n_each = N_TEXT / (int)json_array_size(groups);
    for (int i = 0; i < N_TEXT && tokenizer != NULL; i++) {
        draw_text(&state, ranges, &text);
        ids.n = 0;
        CHECK_OK(qp_tokenizer_encode(tokenizer, text.data, text.n, QP_TEXT_PARSE_SPECIAL, &ids));
        hash_ids(&hash, &ids);
        if ((i + 1) % n_each != 0)
            continue;
        char *found = qp_format("%016llx", (unsigned long long)hash);
        const char *expected = json_string_value(json_array_get(groups, (size_t)(i / n_each)));
        const bool same = CHECK_MSG(strcmp(found, expected) == 0, "%s: texts up to %d", form, i);
        qp_free(found);
        if (!same)
            break;
    }
    qp_tokenizer_destroy(&tokenizer);
    qp_tokenizer_files_fini(&files);
    qp_tokens_fini(&ids);
    qp_str_fini(&text);
    qp_free(folder);
    json_decref(patch);
}

static void test_normalisation_of_random_texts(const json_t *golden)
{
    const char *form;
    json_t *groups;
    json_object_foreach(json_object_get(golden, "unicode"), form, groups)
        check_form(form, groups, json_object_get(golden, "ranges"));
}

/* --- identity --------------------------------------------------------------------------------- */

static uint64_t identity(const char *config, const json_t *patch)
{
    qp_tokenizer_files_t files = {0};
    char *folder = make_folder();
    write_model(folder, "smollm.json", patch);
    write_text(folder, "tokenizer_config.json", config, strlen(config));
    qp_tokenizer_t *tokenizer = open_folder(folder, &files);
    const uint64_t id = tokenizer != NULL ? qp_tokenizer_id(tokenizer) : 0;
    qp_tokenizer_destroy(&tokenizer);
    qp_tokenizer_files_fini(&files);
    qp_free(folder);
    return id;
}

static void test_identity_is_what_decides_ids(void)
{
    static const char *const same[] = {
        "{\"eos_token\": \"<|im_end|>\", \"model_max_length\": 1000000000000000019884624838656}",
        "{\n \"model_max_length\": 512, \"eos_token\": \"<|im_end|>\"}",
        "{\"eos_token\": \"<|im_end|>\", \"chat_template\": \"x\", \"padding_side\": \"left\"}",
        "{\"eos_token\": {\"content\": \"<|im_end|>\"}, \"bos_token\": null}",
        "{\"eos_token\": \"<|im_end|>\", \"pad_token\": \"<|endoftext|>\"}",
    };
    static const char lstrip[] =
        "{\"eos_token\": \"<|im_end|>\", \"added_tokens_decoder\": {\"1\": {\"content\": "
        "\"<|im_start|>\", \"lstrip\": true, \"special\": true}}}";
    static const char *const other[] = {
        lstrip,
        "{}",
        "{\"eos_token\": \"<|endoftext|>\"}",
        "{\"eos_token\": \"<|im_end|>\", \"bos_token\": \"<|im_start|>\"}",
        "{\"eos_token\": \"<|im_end|>\", \"pad_token\": \"[PAD]\"}",
    };
    json_t *patch = json_pack("{s:{s:s}, s:n}", "normalizer", "type", "NFC", "padding");
    const uint64_t id = identity(same[0], NULL);
    for (size_t i = 1; i < sizeof same / sizeof same[0]; i++)
        CHECK_MSG(identity(same[i], NULL) == id, "%s", same[i]);
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
        CHECK_MSG(identity(other[i], NULL) != id, "%s", other[i]);
    CHECK(identity(same[0], patch) != id);
    json_object_del(patch, "normalizer");
    json_object_set_new(patch, "truncation", json_pack("{s:i}", "max_length", 12));
    CHECK(identity(same[0], patch) == id);
    json_decref(patch);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void test_contradictions_and_wrong_types_are_refused(void)
{
    static const struct {
        const char *file, *text, *message;
    } cases[] = {
        {"tokenizer_config.json", "{\"add_bos_token\": \"true\"}",
         "add_bos_token is \"true\", expected true or false"},
        {"tokenizer_config.json", "{\"eos_token\": 2}", "eos_token is 2, expected a token"},
        {"tokenizer_config.json", "{\"eos_token\": \"</x>\"}",
         "eos_token '</x>' is not in the vocabulary"},
        {"tokenizer_config.json", "{\"chat_template\": 1}", "chat_template is 1, expected a text"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": []}",
         "added_tokens_decoder is [], expected an object"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"x\": {\"content\": \"a\"}}}",
         "added_tokens_decoder: 'x' is no id"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"1600\": {\"content\": \"<a>\"}}}",
         "1600 is '<a>', which the vocabulary puts at 1500"},
        {"tokenizer_config.json",
         "{\"added_tokens_decoder\": {\"1500\": {\"content\": \"<a>\", "
         "\"normalized\": 1}}}",
         "1500: normalized is 1, expected true or false"},
        {"tokenizer_config.json",
         "{\"added_tokens_decoder\": {\"1500\": {\"content\": \"<a>\", "
         "\"single_word\": true}}}",
         "'<a>': single_word is not supported"},
        {"tokenizer_config.json", "{\"pad_token\": ", "tokenizer_config.json:1: "},
        {"tokenizer_config.json", "{\"tokenizer_class\": \"GPTNeoXTokenizer\"}",
         "tokenizer_class GPTNeoXTokenizer has rules of its own in transformers"},
        {"tokenizer_config.json", "{\"tokenizer_class\": \"GemmaTokenizerFast\"}",
         "tokenizer_class GemmaTokenizerFast has rules"},
        {"config.json", "{\"model_type\": \"llama\", \"tokenizer_class\": \"T5Tokenizer\"}",
         "tokenizer_class T5Tokenizer has rules"},
        {"tokenizer_config.json", "{\"tokenizer_class\": \"Qwen2Tokenizer\"}",
         "that of a byte-level vocabulary, which stands in tokenizer.json"},
        {"added_tokens.json", "{\"<a>\": \"1500\"}",
         "added_tokens.json: <a> is \"1500\", expected"},
        {"added_tokens.json", "{\"<a>\": 1600}",
         "1600 is '<a>', which the vocabulary puts at 1500"},
        {"special_tokens_map.json", "[]", "special_tokens_map.json: is no JSON object"},
        {"chat_template.jinja", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
         "chat_template.jinja: is a Git LFS pointer, not the file itself: run git lfs pull"},
        {"tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
         "tokenizer.json: is a Git LFS pointer"},
        {"tokenizer.model", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
         "tokenizer.model: is a Git LFS pointer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qp_tokenizer_files_t files = {0};
        qp_tokenizer_t *tokenizer = NULL;
        char *folder = make_folder();
        write_model(folder, "spm.model", NULL);
        write_text(folder, cases[i].file, cases[i].text, strlen(cases[i].text));
        qp_error_t error = qp_tokenizer_files_from_folder(folder, &files);
        if (error == NULL)
            error = qp_tokenizer_create(&files, &tokenizer);
        CHECK_FAILS(error, QP_INPUT, cases[i].message);
        qp_tokenizer_files_fini(&files);
        qp_free(folder);
    }
}

int main(void)
{
    json_t *golden = load_golden("folders.json");
    test_folders_are_read_as_transformers_does(golden);
    test_shared_case();
    test_normalisation_of_random_texts(golden);
    test_identity_is_what_decides_ids();
    test_contradictions_and_wrong_types_are_refused();
    json_decref(golden);
    return qp_test_end();
}
