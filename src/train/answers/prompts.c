#include "train/answers/prompts.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "formats/json.h"
#include "formats/reader.h"
#include "text/alpaca.h"
#include "text/chat.h"
#include "text/messages.h"

/* A reader of prompts. */
typedef struct {
    const qp_prompts_model_t *model;
    const char *template_text;         /* of the file; NULL: the tokenizer's own */
    qp_chat_template_t *chat_template; /* NULL until a conversation comes */
    qp_prompts_t *prompts;
} reader_t;

/* --- one prompt ------------------------------------------------------------------------------- */

static qp_error_t render(const reader_t *reader, const qp_chat_input_t *input, qp_tokens_t *tokens)
{
    qp_chat_t chat = {0};
    qp_error_t error = qp_chat_render(reader->chat_template, input, &chat);
    if (error == NULL)
        error = qp_chat_encode(reader->model->tokenizer, &chat, tokens, NULL);
    qp_chat_fini(&chat);
    return error;
}

/* The conversation up to the opening of an answer, as the template writes it. */
static qp_error_t encode_messages(reader_t *reader, const json_t *row, const json_t *messages,
                                  qp_tokens_t *tokens)
{
    const char *file = reader->model->chat_template;
    json_t *tools = NULL, *variables = NULL;
    qp_error_t error = NULL;
    if (reader->chat_template == NULL)
        QP_TRY_DONE(qp_chat_template_create(reader->model->tokenizer,
                                            file != NULL ? file : "the tokenizer's chat template",
                                            reader->template_text, &reader->chat_template));
    QP_TRY_DONE(qp_messages_context(row, &tools, &variables));
    const qp_chat_input_t input = {.messages = messages,
                                   .tools = tools,
                                   .variables = variables,
                                   .add_generation_prompt = true};
    QP_TRY_DONE(render(reader, &input, tokens));
done:
    json_decref(tools);
    json_decref(variables);
    return error;
}

static qp_error_t encode_text(const reader_t *reader, const char *text, size_t n_bytes,
                              qp_tokens_t *tokens)
{
    return qp_tokenizer_encode_opening(reader->model->tokenizer, text, n_bytes,
                                       QP_TEXT_PARSE_SPECIAL, tokens);
}

/* --- the forms of rows ------------------------------------------------------------------------ */

/* Takes off what the assistant says last: others answered so, and it is answered anew. */
static bool drop_answer(json_t *messages)
{
    const size_t n_before = json_array_size(messages);
    size_t n = n_before;
    while (n > 0 && qp_message_has_role(json_array_get(messages, n - 1), "assistant"))
        json_array_remove(messages, --n);
    return n < n_before;
}

/* A whole conversation may end with an answer, and have its system prompt beside it. */
static qp_error_t encode_list(reader_t *reader, const json_t *row, const char *key, bool whole,
                              qp_tokens_t *tokens)
{
    json_t *messages = json_array();
    bool unknown_role = false;
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_messages_append(key, json_object_get(row, key), messages, &unknown_role));
    if (drop_answer(messages) && !whole)
        error = QP_ERROR(QP_INPUT, "%s ends with a turn of the assistant", key);
    else if (json_array_size(messages) == 0)
        error = QP_ERROR(QP_INPUT, "%s: there is nothing to answer", key);
    else if (whole)
        error = qp_messages_insert_system(row, messages);
    if (error == NULL)
        error = encode_messages(reader, row, messages, tokens);
done:
    json_decref(messages);
    return error;
}

static qp_error_t encode_turns(reader_t *reader, const json_t *row, const char *key,
                               qp_tokens_t *tokens)
{
    return encode_list(reader, row, key, true, tokens);
}

static qp_error_t encode_prompt(reader_t *reader, const json_t *row, const char *key,
                                qp_tokens_t *tokens)
{
    const json_t *prompt = json_object_get(row, key);
    if (json_is_array(prompt))
        return encode_list(reader, row, key, false, tokens);
    if (!json_is_string(prompt))
        return qp_json_wrong(key, prompt, "text or a list of messages");
    return encode_text(reader, json_string_value(prompt), json_string_length(prompt), tokens);
}

/* Alpaca's: a conversation, or without a template the text that its models know. */
static qp_error_t encode_instruction(reader_t *reader, const json_t *row, const char *key,
                                     qp_tokens_t *tokens)
{
    (void)key;
    const bool has_template = reader->template_text != NULL ||
                              qp_tokenizer_chat_template(reader->model->tokenizer) != NULL;
    json_t *messages = json_array();
    qp_str_t text = {0};
    bool has_more;
    qp_error_t error =
        has_template ? qp_alpaca_messages(row, messages) : qp_alpaca_text(row, &text, &has_more);
    if (error == NULL)
        error = has_template ? encode_messages(reader, row, messages, tokens)
                             : encode_text(reader, text.data, text.n, tokens);
    qp_str_fini(&text);
    json_decref(messages);
    return error;
}

/* By the first of these keys that has a value. */
static const struct {
    const char *key;
    qp_error_t (*encode)(reader_t *reader, const json_t *row, const char *key, qp_tokens_t *tokens);
} forms[] = {
    {"prompt", encode_prompt},
    {"messages", encode_turns},
    {"conversations", encode_turns},
    {"instruction", encode_instruction},
};

static qp_error_t encode(reader_t *reader, const json_t *row, qp_tokens_t *tokens)
{
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (qp_json_get(row, forms[i].key) != NULL)
            return forms[i].encode(reader, row, forms[i].key, tokens);
    return QP_ERROR(QP_INPUT, "expected an object with a value for \"prompt\" (text or a list of "
                              "messages), \"messages\", \"conversations\" or \"instruction\"");
}

static qp_error_t check(const qp_prompts_model_t *model, const qp_tokens_t *tokens)
{
    if (tokens->n == 0)
        return QP_ERROR(QP_INPUT, "the prompt is empty");
    for (int64_t i = 0; i < tokens->n; i++)
        if (tokens->id[i] >= model->n_vocab)
            return QP_ERROR(QP_INPUT, "%s has the id %d, the model has %lld ids",
                            qp_tokenizer_token(model->tokenizer, tokens->id[i]), (int)tokens->id[i],
                            (long long)model->n_vocab);
    return NULL;
}

enum { ROW_FLAGS = QP_JSON_REFUSE_SURROGATES | QP_JSON_NAN_IS_NULL };

/* Adds the prompt of one row, a text of JSON. */
static qp_error_t add_row(reader_t *reader, const char *text, size_t n_bytes)
{
    qp_prompts_t *prompts = reader->prompts;
    const int64_t i = prompts->n++;
    json_t *row = NULL;
    prompts->row = qp_realloc("prompts", prompts->row, qp_bytes(prompts->n, sizeof(qp_str_t)));
    prompts->tokens =
        qp_realloc("prompts", prompts->tokens, qp_bytes(prompts->n, sizeof(qp_tokens_t)));
    prompts->row[i] = (qp_str_t){0};
    prompts->tokens[i] = (qp_tokens_t){0};
    QP_TRY(qp_error_context(qp_json_parse(NULL, text, n_bytes, ROW_FLAGS, &row), "not JSON"));
    qp_json_compact(text, n_bytes, &prompts->row[i]);
    qp_error_t error = encode(reader, row, &prompts->tokens[i]);
    json_decref(row);
    QP_TRY(error);
    QP_TRY(check(reader->model, &prompts->tokens[i]));
    if (prompts->tokens[i].n > prompts->longest)
        prompts->longest = prompts->tokens[i].n;
    return NULL;
}

/* --- many ------------------------------------------------------------------------------------- */

qp_error_t qp_prompts_from_texts(const qp_prompts_model_t *model, const qp_deck_strings_t *texts,
                                 qp_prompts_t *prompts)
{
    reader_t reader = {.model = model, .prompts = prompts};
    for (int i = 0; i < texts->n; i++) {
        json_t *object = json_pack("{s:s}", "prompt", texts->item[i]);
        char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
        qp_error_t error = text != NULL ? add_row(&reader, text, strlen(text))
                                        : QP_ERROR(QP_INPUT, "is not UTF-8");
        free(text);
        json_decref(object);
        QP_TRY(qp_error_context(error, "samples.prompts: number %d", i + 1));
    }
    return NULL;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Without the white space at both ends. */
static void trim(const char **text, size_t *n)
{
    for (; *n > 0 && is_space(**text); ++*text)
        --*n;
    while (*n > 0 && is_space((*text)[*n - 1]))
        --*n;
}

/* One array of rows. */
static qp_error_t read_array(reader_t *reader, const char *path, const char *inside, size_t n_bytes)
{
    const char *row;
    size_t n, at = 0;
    trim(&inside, &n_bytes);
    for (int64_t number = 1; qp_json_next_piece(inside, n_bytes, &at, &row, &n); number++)
        QP_TRY(qp_error_context(add_row(reader, row, n), "%s: row %lld", path, (long long)number));
    return NULL;
}

static qp_error_t read_lines(reader_t *reader, const char *path, const char *text, size_t n_bytes)
{
    int64_t number = 1;
    for (const char *line = text, *end = text + n_bytes; line < end; number++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const char *next = newline != NULL ? newline + 1 : end;
        size_t n = (size_t)(next - line);
        trim(&line, &n);
        if (n > 0)
            QP_TRY(qp_error_context(add_row(reader, line, n), "%s:%lld", path, (long long)number));
        line = next;
    }
    return NULL;
}

static qp_error_t read_rows(reader_t *reader, const char *path, const char *text, size_t n_bytes)
{
    const char *inner = text;
    size_t n = n_bytes;
    trim(&inner, &n);
    const bool is_array = n >= 2 && inner[0] == '[' && inner[n - 1] == ']';
    QP_TRY(is_array ? read_array(reader, path, inner + 1, n - 2)
                    : read_lines(reader, path, text, n_bytes));
    if (reader->prompts->n == 0)
        return QP_ERROR(QP_INPUT, "%s: holds no prompt", path);
    return NULL;
}

/* What rank 0 reads, on all ranks. Collective. */
static qp_error_t read_everywhere(qp_comm_t *comm, const char *path, void **text, size_t *n_bytes)
{
    qp_error_t error = NULL;
    if (qp_comm_rank(comm) == 0)
        error = qp_reader_whole(path, text, n_bytes);
    QP_TRY(qp_comm_agree(comm, error));
    *n_bytes += qp_comm_rank(comm) == 0; /* the NUL behind it */
    qp_comm_bcast_block(comm, text, n_bytes, 0);
    --*n_bytes;
    return NULL;
}

qp_error_t qp_prompts_from_file(qp_comm_t *comm, const qp_prompts_model_t *model, const char *path,
                                qp_prompts_t *prompts)
{
    void *text = NULL, *template_text = NULL;
    size_t n_bytes = 0, n_template = 0;
    reader_t reader = {.model = model, .prompts = prompts};
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_error_context(read_everywhere(comm, path, &text, &n_bytes), "prompts.input"));
    if (model->chat_template != NULL)
        QP_TRY_DONE(qp_error_context(
            read_everywhere(comm, model->chat_template, &template_text, &n_template),
            "prompts.chat_template"));
    reader.template_text = template_text;
    error = qp_comm_agree(comm, read_rows(&reader, path, text, n_bytes));
done:
    qp_chat_template_destroy(&reader.chat_template);
    qp_free(template_text);
    qp_free(text);
    return error;
}

void qp_prompts_fini(qp_prompts_t *prompts)
{
    for (int64_t i = 0; i < prompts->n; i++) {
        qp_str_fini(&prompts->row[i]);
        qp_tokens_fini(&prompts->tokens[i]);
    }
    qp_free(prompts->row);
    qp_free(prompts->tokens);
    *prompts = (qp_prompts_t){0};
}
