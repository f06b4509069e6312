/* Chat rows rendered as Jinja renders the models' templates (tests/golden/make_chat.py),
 * completions marked, unknown templates refused. */
#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "testing.h"
#include "text/chat.h"

/* The SentencePiece golden ("<s>", "</s>") with a chat template. */
static bool open_tokenizer(const char *template, qp_tokenizer_t **tokenizer)
{
    static const char path[] = "tests/golden/tokenizers/spm.gguf.json";
    json_error_t where;
    json_t *metadata = json_load_file(qp_test_source(path), 0, &where);
    if (!CHECK_MSG(metadata != NULL, "%s: %s", path, where.text))
        return false;
    if (template != NULL)
        json_object_set_new(metadata, "tokenizer.chat_template", json_string(template));
    char *text = json_dumps(metadata, 0);
    qp_tokenizer_files_t files = {.kind = "gguf", .model = text, .model_bytes = strlen(text)};
    bool ok = CHECK_OK(qp_tokenizer_create(&files, tokenizer));
    free(text);
    json_decref(metadata);
    return ok;
}

enum { MAX_MESSAGE = 8 };

static int64_t read_messages(const json_t *array, qp_chat_message_t *message)
{
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item)
    {
        message[i].role = json_string_value(json_object_get(item, "role"));
        message[i].content = json_string_value(json_object_get(item, "content"));
    }
    return (int64_t)json_array_size(array);
}

/* Pieces cover the text, and exactly the assistant's contents lie in completions. */
static void check_pieces(const qp_chat_t *chat, const qp_chat_message_t *message, int64_t n)
{
    size_t end = 0;
    int64_t n_completion = 0, n_assistant = 0;
    for (int64_t i = 0; i < n; i++)
        n_assistant += strcmp(message[i].role, "assistant") == 0;
    for (int64_t i = 0; i < chat->n_piece; i++) {
        CHECK(chat->piece[i].begin == end && chat->piece[i].end > end);
        end = chat->piece[i].end;
        if (!chat->piece[i].completion)
            continue;
        n_completion++;
        char *piece = qp_format("%.*s", (int)(end - chat->piece[i].begin),
                                chat->text.data + chat->piece[i].begin);
        CHECK_MSG(strstr(piece, n_completion == 1 ? "A beer." : "Yes, ") != NULL, "'%s'", piece);
        CHECK_MSG(strstr(piece, "ale?") == NULL && strstr(piece, "Warm") == NULL, "'%s'", piece);
        qp_free(piece);
    }
    CHECK(end == chat->text.n && n_completion == n_assistant);
}

static void test_templates_render_as_jinja(void)
{
    json_error_t where;
    json_t *golden = json_load_file(qp_test_source("tests/golden/chat.json"), 0, &where), *item;
    const json_t *cases = json_object_get(golden, "cases");
    size_t i;
    CHECK(json_array_size(cases) == 40);
    json_array_foreach(cases, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "template"));
        const char *expected = json_string_value(json_object_get(item, "text"));
        qp_tokenizer_t *tokenizer = NULL;
        qp_chat_message_t message[MAX_MESSAGE];
        qp_chat_t chat = {0};
        const int64_t n = read_messages(json_object_get(item, "messages"), message);
        if (open_tokenizer(
                json_string_value(json_object_get(json_object_get(golden, "templates"), name)),
                &tokenizer) &&
            CHECK_OK(qp_chat_render(tokenizer, message, n,
                                    json_is_true(json_object_get(item, "generation")), &chat))) {
            CHECK_MSG(strcmp(chat.text.data, expected) == 0, "%s:\n[%s]\nexpected\n[%s]", name,
                      chat.text.data, expected);
            check_pieces(&chat, message, n);
        }
        qp_chat_fini(&chat);
        qp_tokenizer_destroy(&tokenizer);
    }
    json_decref(golden);
}

static const char CHATML[] =
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}";

static void test_completion_mask(void)
{
    const qp_chat_message_t message[] = {{"user", "ale"}, {"assistant", "beer"}};
    qp_tokenizer_t *tokenizer = NULL;
    qp_chat_t chat = {0};
    qp_tokens_t tokens = {0}, mask = {0};
    qp_str_t completion = {0};
    if (open_tokenizer(CHATML, &tokenizer) &&
        CHECK_OK(qp_chat_render(tokenizer, message, 2, false, &chat)) &&
        CHECK_OK(qp_chat_encode(tokenizer, &chat, &tokens, &mask)) && CHECK(tokens.n == mask.n)) {
        qp_tokens_t chosen = {0};
        for (int64_t i = 0; i < tokens.n; i++)
            if (mask.id[i] != 0)
                qp_tokens_push(&chosen, tokens.id[i]);
        CHECK_OK(qp_tokenizer_decode(tokenizer, chosen.id, chosen.n, false, &completion));
        CHECK_MSG(strcmp(completion.data, "beer<|im_end|>") == 0, "'%s'", completion.data);
        qp_tokens_fini(&chosen);
    }
    qp_str_fini(&completion);
    qp_tokens_fini(&tokens);
    qp_tokens_fini(&mask);
    qp_chat_fini(&chat);
    qp_tokenizer_destroy(&tokenizer);
}

static void check_refused(const char *template, const char *role, const char *text)
{
    qp_tokenizer_t *tokenizer = NULL;
    qp_chat_t chat = {0};
    const qp_chat_message_t message[] = {{role, "x"}};
    if (open_tokenizer(template, &tokenizer))
        CHECK_FAILS(qp_chat_render(tokenizer, message, 1, false, &chat), QP_INPUT, text);
    qp_chat_fini(&chat);
    qp_tokenizer_destroy(&tokenizer);
}

static void test_refusals(void)
{
    check_refused(NULL, "user", "no chat template");
    check_refused("{{ messages }}", "user", "none of the known ones (ChatML, Llama 3, ");
    check_refused(CHATML, "tool", "role 'tool' is none of system, user, assistant");
    check_refused("<|im_start|> <|im_end|> tools", "user", "uses 'tools'");
    check_refused("[INST] <<SYS>>", "assistant", "want user and assistant in turn");
    check_refused("<|im_start|>system\\n{{ x }}<|im_end|>", "user", "own system message");
}

int main(void)
{
    test_templates_render_as_jinja();
    test_completion_mask();
    test_refusals();
    return qp_test_end();
}
