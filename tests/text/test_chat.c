/* QP_TEST: labels=shared
 * Ids and answers of conversations are those of transformers' apply_chat_template
 * (tests/golden/make_chat.py) for every template, tokenizer and conversation; answers equal their
 * definition; thousands of turns take linear time; what cannot be told is refused. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "testing.h"
#include "text/chat.h"

enum { MAX_TOKENIZER = 8 };

typedef struct {
    const char *name[MAX_TOKENIZER];
    qp_tokenizer_t *tokenizer[MAX_TOKENIZER];
    int n;
} tokenizers_t;

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

static void write_model(const char *folder, const json_t *spec)
{
    const char *model = json_string_value(json_object_get(spec, "model"));
    char *path = qp_format("tests/golden/tokenizers/%s", model);
    void *data;
    size_t n;
    if (qp_has_suffix(model, ".json")) {
        json_error_t where;
        json_t *root = json_load_file(qp_test_source(path), 0, &where);
        json_object_update(root, json_object_get(spec, "patch"));
        write_json(folder, "tokenizer.json", root);
        json_decref(root);
    } else if (CHECK_OK(qp_file_read(qp_test_source(path), &data, &n))) {
        write_text(folder, "tokenizer.model", data, n);
        qp_free(data);
    }
    qp_free(path);
}

static qp_tokenizer_t *open_spec(const char *name, const json_t *spec)
{
    char *folder = qp_format("%s/%s", qp_test_folder(), name);
    qp_tokenizer_files_t files = {0};
    qp_tokenizer_t *tokenizer = NULL;
    const char *file;
    json_t *content;
    CHECK(mkdir(folder, 0755) == 0);
    write_model(folder, spec);
    json_object_foreach(json_object_get(spec, "files"), file, content)
        write_json(folder, file, content);
    if (CHECK_OK(qp_tokenizer_files_from_folder(folder, &files)))
        CHECK_OK(qp_tokenizer_create(&files, &tokenizer));
    qp_tokenizer_files_fini(&files);
    qp_free(folder);
    return tokenizer;
}

static void open_tokenizers(const json_t *golden, tokenizers_t *all)
{
    json_t *spec;
    const char *name;
    json_object_foreach(json_object_get(golden, "tokenizers"), name, spec)
    {
        all->name[all->n] = name;
        all->tokenizer[all->n++] = open_spec(name, spec);
    }
}

static const qp_tokenizer_t *find_tokenizer(const tokenizers_t *all, const char *name)
{
    for (int i = 0; i < all->n; i++)
        if (strcmp(all->name[i], name) == 0)
            return all->tokenizer[i];
    return NULL;
}

/* The text of a template of the goldens or of the data folder; NULL without that. */
static char *read_template(const char *name)
{
    const bool shared = qp_has_prefix(name, "shared/");
    char *path = qp_format(shared ? "data/chat-templates/%s.jinja" : "tests/golden/chat/%s.jinja",
                           shared ? name + strlen("shared/") : name);
    const char *found = shared ? qp_test_shared(path) : qp_test_source(path);
    void *text = NULL;
    size_t n;
    if (found != NULL)
        CHECK_OK(qp_file_read(found, &text, &n));
    qp_free(path);
    return text;
}

static bool same_ids(const json_t *item, const qp_tokens_t *ids)
{
    const json_t *expected = json_object_get(item, "ids");
    uint64_t hash = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < ids->n; i++) {
        if (expected != NULL &&
            json_integer_value(json_array_get(expected, (size_t)i)) != ids->id[i])
            return false;
        hash = (hash ^ (uint32_t)ids->id[i]) * 0x100000001b3u;
    }
    if (expected != NULL)
        return ids->n == (int64_t)json_array_size(expected);
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    return strcmp(text, json_string_value(json_object_get(item, "hash"))) == 0;
}

static void check_pieces(const qp_chat_t *chat)
{
    size_t end = 0;
    for (int64_t i = 0; i < chat->n_piece; i++) {
        CHECK(chat->piece[i].begin == end && chat->piece[i].end > end);
        end = chat->piece[i].end;
    }
    CHECK(end == chat->text.n);
}

static void print_chat(const qp_chat_t *chat)
{
    for (int64_t i = 0; i < chat->n_piece; i++) {
        const qp_chat_piece_t *piece = &chat->piece[i];
        printf(piece->completion ? "[[%.*s]]" : "%.*s", (int)(piece->end - piece->begin),
               chat->text.data + piece->begin);
    }
    printf("\n");
}

static void check_encoded(const char *name, const json_t *item, const qp_tokenizer_t *tokenizer,
                          const qp_chat_t *chat)
{
    qp_tokens_t ids = {0}, completion = {0};
    qp_str_t mask = {0};
    const char *expected = json_string_value(json_object_get(item, "mask"));
    CHECK_OK(qp_chat_encode(tokenizer, chat, &ids, &completion));
    CHECK(ids.n == completion.n);
    for (int64_t i = 0; i < completion.n; i++)
        qp_str_putc(&mask, completion.id[i] != 0 ? '1' : '0');
    if (!CHECK_MSG(same_ids(item, &ids), "%s: ids", name))
        print_chat(chat);
    else if (expected != NULL && !CHECK_MSG(strcmp(mask.n > 0 ? mask.data : "", expected) == 0,
                                            "%s: answers\n%s\n%s", name, mask.data, expected))
        print_chat(chat);
    qp_str_fini(&mask);
    qp_tokens_fini(&ids);
    qp_tokens_fini(&completion);
}

/* One case; false if its template is not there. */
static bool check_case(const json_t *item, const json_t *conversations, const tokenizers_t *all)
{
    const char *template = json_string_value(json_object_get(item, "template"));
    const json_int_t k = json_integer_value(json_object_get(item, "conversation"));
    const json_t *conversation = json_array_get(conversations, (size_t)k);
    const char *tokenizer_name = json_string_value(json_object_get(item, "tokenizer"));
    const qp_tokenizer_t *tokenizer = find_tokenizer(all, tokenizer_name);
    char *text = read_template(template);
    if (text == NULL || tokenizer == NULL) {
        qp_free(text);
        return false;
    }
    const qp_chat_input_t input = {.messages = json_object_get(conversation, "messages"),
                                   .tools = json_object_get(conversation, "tools"),
                                   .variables = json_object_get(conversation, "variables"),
                                   .add_generation_prompt =
                                       json_is_true(json_object_get(conversation, "generation"))};
    char *name = qp_format("%s, conversation %d, %s", template, (int)k, tokenizer_name);
    qp_chat_template_t *chat_template = NULL;
    qp_chat_t chat = {0};
    qp_error_t error = qp_chat_template_create(tokenizer, template, text, &chat_template);
    if (error == NULL)
        error = qp_chat_render(chat_template, &input, &chat);
    if (json_is_true(json_object_get(item, "refused"))) {
        CHECK_MSG(error != NULL && error->code == QP_INPUT, "%s: not refused", name);
        qp_error_destroy(&error);
    } else if (error != NULL && json_is_null(json_object_get(item, "mask"))) {
        qp_error_destroy(&error); /* answers that cannot be told */
    } else if (CHECK_MSG(error == NULL, "%s: %s", name, error != NULL ? error->message : "")) {
        check_pieces(&chat);
        check_encoded(name, item, tokenizer, &chat);
    }
    qp_error_destroy(&error);
    qp_chat_fini(&chat);
    qp_chat_template_destroy(&chat_template);
    qp_free(name);
    qp_free(text);
    return true;
}

static void test_conversations_are_those_of_transformers(const json_t *golden,
                                                         const tokenizers_t *all)
{
    const json_t *cases = json_object_get(golden, "cases");
    int n_checked = 0;
    for (size_t i = 0; i < json_array_size(cases); i++)
        n_checked +=
            check_case(json_array_get(cases, i), json_object_get(golden, "conversations"), all);
    printf("%d of %d cases\n", n_checked, (int)json_array_size(cases));
    CHECK(n_checked >= 400);
}

/* Rows that were taught wrong, with their models' own templates. */
static void test_shared_cases(const json_t *golden)
{
    const json_t *folders = json_object_get(golden, "folders");
    for (size_t i = 0; i < json_array_size(folders); i++) {
        const json_t *item = json_array_get(folders, i);
        const char *name = json_string_value(json_object_get(item, "folder"));
        const char *folder = qp_test_shared(name);
        const qp_chat_input_t input = {.messages = json_object_get(item, "messages")};
        qp_tokenizer_files_t files = {0};
        qp_tokenizer_t *tokenizer = NULL;
        qp_chat_template_t *chat_template = NULL;
        qp_chat_t chat = {0};
        if (folder != NULL && CHECK_OK(qp_tokenizer_files_from_folder(folder, &files)) &&
            CHECK_OK(qp_tokenizer_create(&files, &tokenizer)) &&
            CHECK_OK(qp_chat_template_create(tokenizer, name, NULL, &chat_template)) &&
            CHECK_OK(qp_chat_render(chat_template, &input, &chat)))
            check_encoded(name, item, tokenizer, &chat);
        qp_chat_fini(&chat);
        qp_chat_template_destroy(&chat_template);
        qp_tokenizer_destroy(&tokenizer);
        qp_tokenizer_files_fini(&files);
    }
    CHECK(json_array_size(folders) == 6);
}

/* --- long conversations ----------------------------------------------------------------------- */

static json_t *long_conversation(int n)
{
    json_t *messages = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(messages,
                              json_pack("{s:s, s:s}", "role", i % 2 == 0 ? "user" : "assistant",
                                        "content", i % 2 == 0 ? "What is an ale?" : "A beer."));
    return messages;
}

/* Seconds of this thread on a core: what others do on it counts little. */
static double thread_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double time_of(const qp_tokenizer_t *tokenizer, const qp_chat_template_t *chat_template,
                      int n_turn)
{
    json_t *messages = long_conversation(n_turn);
    qp_chat_t chat = {0};
    qp_tokens_t ids = {0}, completion = {0};
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        const double start = thread_time();
        ids.n = completion.n = 0;
        CHECK_OK(qp_chat_render(chat_template, &(qp_chat_input_t){.messages = messages}, &chat));
        CHECK_OK(qp_chat_encode(tokenizer, &chat, &ids, &completion));
        const double seconds = thread_time() - start;
        best = seconds < best ? seconds : best;
    }
    CHECK(chat.n_piece >= n_turn - 1);
    qp_chat_fini(&chat);
    qp_tokens_fini(&ids);
    qp_tokens_fini(&completion);
    json_decref(messages);
    return best;
}

/* Quadratic time would be 16 times as much for 4 times the turns. */
static void test_thousands_of_turns_are_linear(const tokenizers_t *all)
{
    static const char *const names[] = {"chatml", "headers_blocks", "thinking"};
    for (int i = 0; i < 3; i++) {
        const qp_tokenizer_t *tokenizer = all->tokenizer[i];
        qp_chat_template_t *chat_template = NULL;
        char *text = read_template(names[i]);
        if (tokenizer != NULL &&
            CHECK_OK(qp_chat_template_create(tokenizer, names[i], text, &chat_template))) {
            const double few = time_of(tokenizer, chat_template, 500);
            const double many = time_of(tokenizer, chat_template, 2000);
            CHECK_MSG(many < 9 * few + 0.05, "%s: %g s for 500, %g s for 2000", names[i], few,
                      many);
        }
        qp_chat_template_destroy(&chat_template);
        qp_free(text);
    }
}

/* --- refusals --------------------------------------------------------------------------------- */

static void check_refused(const qp_tokenizer_t *tokenizer, const char *template,
                          const char *messages, const char *expected)
{
    json_error_t where;
    json_t *list = json_loads(messages, JSON_DECODE_ANY, &where);
    qp_chat_template_t *chat_template = NULL;
    qp_chat_t chat = {0};
    qp_error_t error = qp_chat_template_create(tokenizer, "t.jinja", template, &chat_template);
    if (error == NULL)
        error = qp_chat_render(chat_template, &(qp_chat_input_t){.messages = list}, &chat);
    CHECK_FAILS(error, QP_INPUT, expected);
    qp_chat_fini(&chat);
    qp_chat_template_destroy(&chat_template);
    json_decref(list);
}

static void test_refusals(const qp_tokenizer_t *tokenizer)
{
    static const char one[] = "[{\"role\": \"user\", \"content\": \"a\"}]";
    static const char two[] = "[{\"role\": \"user\", \"content\": \"a\"},"
                              " {\"role\": \"assistant\", \"content\": \"b\"}]";
    static const char four[] = "[{\"role\": \"user\", \"content\": \"a\"},"
                               " {\"role\": \"assistant\", \"content\": \"b\"},"
                               " {\"role\": \"user\", \"content\": \"c\"},"
                               " {\"role\": \"assistant\", \"content\": \"d\"}]";
    check_refused(tokenizer, NULL, one, "no chat template");
    check_refused(tokenizer, "{% if %}", one, "t.jinja");
    check_refused(tokenizer, "caf\xe9{{ messages }}", one, "t.jinja: is not UTF-8");
    check_refused(tokenizer, "{{ raise_exception('not so') }}", one, "not so");
    check_refused(tokenizer, "{{ messages }}", "[]", "no list of messages, or an empty one");
    check_refused(tokenizer, "{{ messages }}", "[1]", "messages[0] is no object");
    check_refused(tokenizer,
                  "{% if messages | length > 1 %}{{ messages[-1].content }}{% else %}"
                  "{{ raise_exception('too short') }}{% endif %}",
                  two, "messages[1]: the chat template does not tell where this answer stands");
    check_refused(tokenizer, "{{ messages | length }}{{ messages[-1].content }}", four,
                  "messages[1]: the chat template does not tell where this answer stands");
    json_t *many = long_conversation(400);
    char *text = json_dumps(many, 0), *template = read_template("by_index");
    check_refused(tokenizer, template, text, "does not write message by message");
    free(text);
    qp_free(template);
    json_decref(many);
}

/* A model with no other template than that for tools: conversations without any are refused. */
static void test_tool_use_alone(const json_t *golden)
{
    json_t *specs = json_object_get(golden, "tokenizers");
    json_t *spec = json_deep_copy(json_object_iter_value(json_object_iter(specs)));
    json_object_set_new(json_object_get(json_object_get(spec, "files"), "tokenizer_config.json"),
                        "chat_template",
                        json_pack("[{s:s, s:s}]", "name", "tool_use", "template",
                                  "{{ tools | length }} {{ messages[0].content }}"));
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "a");
    json_t *tools = json_pack("[{}, {}]");
    qp_tokenizer_t *tokenizer = open_spec("tool_use", spec);
    qp_chat_template_t *own = NULL;
    qp_chat_t chat = {0};
    qp_chat_input_t input = {.messages = messages, .tools = tools, .add_generation_prompt = true};
    if (tokenizer != NULL && CHECK_OK(qp_chat_template_create(tokenizer, "own", NULL, &own))) {
        if (CHECK_OK(qp_chat_render(own, &input, &chat)))
            CHECK(chat.text.n == 3 && memcmp(chat.text.data, "2 a", 3) == 0);
        input.tools = NULL;
        CHECK_FAILS(qp_chat_render(own, &input, &chat), QP_INPUT, "none of them named \"default\"");
    }
    qp_chat_fini(&chat);
    qp_chat_template_destroy(&own);
    qp_tokenizer_destroy(&tokenizer);
    json_decref(messages);
    json_decref(tools);
    json_decref(spec);
}

int main(void)
{
    json_error_t where;
    tokenizers_t all = {0};
    json_t *golden = json_load_file(qp_test_source("tests/golden/chat.json"), 0, &where);
    if (CHECK_MSG(golden != NULL, "chat.json: line %d: %s", where.line, where.text)) {
        open_tokenizers(golden, &all);
        test_conversations_are_those_of_transformers(golden, &all);
        test_shared_cases(golden);
        test_thousands_of_turns_are_linear(&all);
        test_refusals(all.tokenizer[0]);
        test_tool_use_alone(golden);
    }
    for (int i = 0; i < all.n; i++)
        qp_tokenizer_destroy(&all.tokenizer[i]);
    json_decref(golden);
    return qp_test_end();
}
