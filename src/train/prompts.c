#include "train/prompts.h"

#include <string.h>

#include "base/mem.h"
#include "formats/json.h"
#include "formats/reader.h"
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

static qp_error_t render(const reader_t *reader, const json_t *object, const json_t *messages,
                         qp_tokens_t *tokens)
{
    const qp_chat_input_t input = {.messages = messages,
                                   .tools = qp_json_get(object, "tools"),
                                   .variables = qp_json_get(object, "chat_template_kwargs"),
                                   .add_generation_prompt = true};
    qp_chat_t chat = {0};
    qp_error_t error = qp_chat_render(reader->chat_template, &input, &chat);
    if (error == NULL)
        error = qp_chat_encode(reader->model->tokenizer, &chat, tokens, NULL);
    qp_chat_fini(&chat);
    return error;
}

static qp_error_t encode_messages(reader_t *reader, const json_t *object, const char *key,
                                  qp_tokens_t *tokens)
{
    const char *file = reader->model->chat_template;
    json_t *messages = json_array();
    bool unknown_role = false;
    qp_error_t error = NULL;
    if (reader->chat_template == NULL)
        QP_TRY_DONE(qp_chat_template_create(reader->model->tokenizer,
                                            file != NULL ? file : "the tokenizer's chat template",
                                            reader->template_text, &reader->chat_template));
    QP_TRY_DONE(qp_messages_append(key, json_object_get(object, key), messages, &unknown_role));
    if (json_array_size(messages) == 0)
        QP_TRY_DONE(QP_ERROR(QP_INPUT, "%s is empty", key));
    QP_TRY_DONE(render(reader, object, messages, tokens));
done:
    json_decref(messages);
    return error;
}

static qp_error_t encode(reader_t *reader, const json_t *object, qp_tokens_t *tokens)
{
    const json_t *prompt = qp_json_get(object, "prompt");
    if (json_is_array(prompt))
        return encode_messages(reader, object, "prompt", tokens);
    if (prompt == NULL && qp_json_get(object, "messages") != NULL)
        return encode_messages(reader, object, "messages", tokens);
    if (!json_is_string(prompt))
        return QP_ERROR(QP_INPUT, "an object with a \"prompt\" (text or a list of messages) or "
                                  "\"messages\" is expected");
    return qp_tokenizer_encode_opening(reader->model->tokenizer, json_string_value(prompt),
                                       json_string_length(prompt), QP_TEXT_PARSE_SPECIAL, tokens);
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

/* Adds one prompt; takes the object. */
static qp_error_t add_prompt(reader_t *reader, json_t *object)
{
    qp_prompts_t *prompts = reader->prompts;
    int64_t i = prompts->n++;
    prompts->object =
        qp_realloc("prompts", prompts->object, qp_bytes(prompts->n, sizeof(json_t *)));
    prompts->tokens =
        qp_realloc("prompts", prompts->tokens, qp_bytes(prompts->n, sizeof(qp_tokens_t)));
    prompts->object[i] = object;
    prompts->tokens[i] = (qp_tokens_t){0};
    QP_TRY(encode(reader, object, &prompts->tokens[i]));
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
        if (object == NULL)
            return QP_ERROR(QP_INPUT, "samples.prompts: number %d is not UTF-8", i + 1);
        QP_TRY(qp_error_context(add_prompt(&reader, object), "samples.prompts: number %d", i + 1));
    }
    return NULL;
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strchr(" \t\r", text[i]) == NULL)
            return false;
    return true;
}

static qp_error_t parse_lines(reader_t *reader, const char *path, const char *text, size_t n_bytes)
{
    int64_t number = 1;
    for (const char *line = text, *end = text + n_bytes; line < end; number++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((newline != NULL ? newline : end) - line);
        if (!is_blank(line, n)) {
            json_t *object = NULL;
            qp_error_t error = qp_json_parse_object(
                "not JSON", line, n, QP_JSON_REFUSE_SURROGATES | QP_JSON_NAN_IS_NULL, &object);
            if (error == NULL)
                error = add_prompt(reader, object);
            QP_TRY(qp_error_context(error, "%s:%lld", path, (long long)number));
        }
        line += n + 1;
    }
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
    QP_TRY_DONE(read_everywhere(comm, path, &text, &n_bytes));
    if (model->chat_template != NULL)
        QP_TRY_DONE(read_everywhere(comm, model->chat_template, &template_text, &n_template));
    reader.template_text = template_text;
    error = qp_comm_agree(comm, parse_lines(&reader, path, text, n_bytes));
done:
    qp_chat_template_destroy(&reader.chat_template);
    qp_free(template_text);
    qp_free(text);
    return error;
}

void qp_prompts_fini(qp_prompts_t *prompts)
{
    for (int64_t i = 0; i < prompts->n; i++) {
        json_decref(prompts->object[i]);
        qp_tokens_fini(&prompts->tokens[i]);
    }
    qp_free(prompts->object);
    qp_free(prompts->tokens);
    *prompts = (qp_prompts_t){0};
}
