/* Conversations as transformers' apply_chat_template renders and tokenises them. */
#include "text/chat.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "text/chat_impl.h"
#include "text/tokenizer_parts.h"

/* --- templates -------------------------------------------------------------------------------- */

static qp_error_t compile(const char *name, const char *text, qp_jinja_t **jinja)
{
    const size_t n = strlen(text);
    if (qp_utf8_valid_prefix(text, n) != n)
        return QP_ERROR(QP_INPUT, "%s: is not UTF-8", name);
    return qp_jinja_compile(name, text, n, jinja);
}

static const char no_default[] =
    "the model has several chat templates, none of them named \"default\"";

static qp_error_t compile_own(qp_chat_template_t *made)
{
    const char *text = qp_tokenizer_chat_template(made->tokenizer);
    const char *tool_use = qp_tokenizer_named_template(made->tokenizer, "tool_use");
    if (text == NULL && tool_use == NULL)
        return QP_ERROR(QP_INPUT, "%s",
                        json_object_size(made->tokenizer->chat_template) > 0
                            ? no_default
                            : "the model has no chat template");
    if (text != NULL)
        QP_TRY(compile("chat template", text, &made->jinja));
    return tool_use != NULL ? compile("chat template tool_use", tool_use, &made->tool_use) : NULL;
}

qp_error_t qp_chat_template_create(const qp_tokenizer_t *tokenizer, const char *name,
                                   const char *text, qp_chat_template_t **chat_template)
{
    qp_chat_template_t *made = QP_NEW("chat", qp_chat_template_t, 1);
    made->tokenizer = tokenizer;
    qp_error_t error = text != NULL ? compile(name, text, &made->jinja) : compile_own(made);
    if (error != NULL)
        qp_chat_template_destroy(&made);
    *chat_template = made;
    return error;
}

void qp_chat_template_destroy(qp_chat_template_t **chat_template)
{
    qp_chat_template_t *t = *chat_template;
    if (t == NULL)
        return;
    if (t->jinja != NULL)
        qp_jinja_destroy(&t->jinja);
    if (t->tool_use != NULL)
        qp_jinja_destroy(&t->tool_use);
    QP_FREE(*chat_template);
}

/* --- what a template sees --------------------------------------------------------------------- */

/* The names that reasoning goes under, the standard one first. */
static const json_t *reasoning_of(const json_t *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (qp_json_get(message, names[i]) != NULL)
            return qp_json_get(message, names[i]);
    return NULL;
}

/* A message as transformers hands it on: keys that are null are dropped, reasoning stands under
 * "thinking" (in front, if it was not there) and "reasoning_content". */
static json_t *copy_message(const json_t *message)
{
    json_t *copy = json_object(), *value;
    const json_t *reasoning = reasoning_of(message);
    const char *key;
    if (reasoning != NULL)
        json_object_set(copy, "thinking", (json_t *)reasoning);
    json_object_foreach((json_t *)message, key, value)
    {
        if (!json_is_null(value))
            json_object_set(copy, key, value);
    }
    if (reasoning != NULL)
        json_object_set(copy, "reasoning_content", (json_t *)reasoning);
    return copy;
}

static qp_error_t copy_messages(const json_t *messages, json_t *copies)
{
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return QP_ERROR(QP_INPUT, "messages is no list of messages, or an empty one");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message))
            return QP_ERROR(QP_INPUT, "messages[%zu] is no object", i);
        json_array_append_new(copies, copy_message(message));
    }
    return NULL;
}

static qp_error_t check_tools(const json_t *tools)
{
    if (tools == NULL || json_is_null(tools))
        return NULL;
    if (!json_is_array(tools))
        return QP_ERROR(QP_INPUT, "tools is no list of schemas");
    for (size_t i = 0; i < json_array_size(tools); i++)
        if (!json_is_object(json_array_get(tools, i)))
            return QP_ERROR(QP_INPUT, "tools[%zu] is no object", i);
    return NULL;
}

/* What formats/json.h made of an integer beyond 64 bits: a template would print other digits. */
static bool has_large_number(const json_t *value)
{
    const char *key;
    const json_t *item;
    size_t i;
    bool has = json_is_real(value) && fabs(json_real_value(value)) >= 0x1p63;
    json_array_foreach(value, i, item) has = has || has_large_number(item);
    json_object_foreach((json_t *)value, key, item) has = has || has_large_number(item);
    return has;
}

static qp_error_t begin_job(const qp_chat_template_t *chat_template, const qp_chat_input_t *input,
                            qp_chat_job_t *job)
{
    const bool tools = input->tools != NULL && !json_is_null(input->tools);
    job->chat_template = chat_template;
    job->generation_prompt = input->add_generation_prompt;
    job->jinja =
        tools && chat_template->tool_use != NULL ? chat_template->tool_use : chat_template->jinja;
    job->messages = json_array();
    job->variables = json_copy(chat_template->tokenizer->special);
    json_object_set_new(job->variables, "documents", json_null());
    if (input->variables != NULL)
        json_object_update(job->variables, (json_t *)input->variables);
    json_object_set_new(job->variables, "tools",
                        tools ? json_incref((json_t *)input->tools) : json_null());
    QP_TRY(check_tools(input->tools));
    if (job->jinja == NULL)
        return QP_ERROR(QP_INPUT, "%s", no_default);
    if (has_large_number(input->messages) || has_large_number(input->tools) ||
        has_large_number(input->variables))
        return QP_ERROR(QP_INPUT, "a number beyond 64 bits cannot be rendered");
    return copy_messages(input->messages, job->messages);
}

static void end_job(qp_chat_job_t *job)
{
    json_decref(job->messages);
    json_decref(job->variables);
}

qp_error_t qp_chat_render_part(const qp_chat_job_t *job, size_t n_message, bool generation_prompt,
                               qp_jinja_output_t *output)
{
    json_t *variables = json_copy(job->variables);
    json_t *messages = json_copy(job->messages);
    while (json_array_size(messages) > n_message)
        json_array_remove(messages, json_array_size(messages) - 1);
    json_object_set_new(variables, "messages", messages);
    json_object_set_new(variables, "add_generation_prompt", json_boolean(generation_prompt));
    qp_error_t error = qp_jinja_render(job->jinja, variables, "messages", output);
    json_decref(variables);
    return error;
}

/* --- pieces ----------------------------------------------------------------------------------- */

void qp_chat_fini(qp_chat_t *chat)
{
    qp_str_fini(&chat->text);
    qp_free(chat->piece);
    *chat = (qp_chat_t){0};
}

static void push_piece(qp_chat_t *chat, size_t end, bool completion)
{
    const size_t begin = chat->n_piece > 0 ? chat->piece[chat->n_piece - 1].end : 0;
    if (end <= begin)
        return;
    if (chat->n_piece == chat->capacity) {
        chat->capacity = 2 * chat->capacity + 16;
        chat->piece =
            qp_realloc("chat", chat->piece, qp_bytes(chat->capacity, sizeof *chat->piece));
    }
    chat->piece[chat->n_piece++] =
        (qp_chat_piece_t){.begin = begin, .end = end, .completion = completion};
}

void qp_chat_runs_push(qp_chat_runs_t *runs, size_t begin, size_t end)
{
    if (runs->n == runs->capacity) {
        runs->capacity = 2 * runs->capacity + 16;
        runs->run =
            qp_realloc("chat", runs->run, qp_bytes((int64_t)runs->capacity, sizeof *runs->run));
    }
    runs->run[runs->n++] = (qp_chat_run_t){begin, end};
}

/* What the assistant writes, by the template's own marks or by what it does. */
static qp_error_t find_completions(const qp_chat_job_t *job, const qp_jinja_output_t *whole,
                                   qp_chat_runs_t *runs)
{
    if (!qp_jinja_has_generation(job->jinja))
        return qp_chat_find_answers(job, whole, runs);
    for (int64_t i = 0; i < whole->generation.n; i++)
        qp_chat_runs_push(runs, whole->generation.span[i].begin, whole->generation.span[i].end);
    return NULL;
}

qp_error_t qp_chat_render(const qp_chat_template_t *chat_template, const qp_chat_input_t *input,
                          qp_chat_t *chat)
{
    qp_chat_job_t job = {0};
    qp_jinja_output_t whole = {0};
    qp_chat_runs_t runs = {0};
    qp_error_t error = NULL;
    chat->n_piece = 0;
    qp_str_clear(&chat->text);
    QP_TRY_DONE(begin_job(chat_template, input, &job));
    QP_TRY_DONE(
        qp_chat_render_part(&job, json_array_size(job.messages), job.generation_prompt, &whole));
    QP_TRY_DONE(find_completions(&job, &whole, &runs));
    qp_str_append(&chat->text, whole.text.data, whole.text.n);
    for (size_t i = 0; i < runs.n; i++) {
        push_piece(chat, runs.run[i].begin, false);
        push_piece(chat, runs.run[i].end, true);
    }
    push_piece(chat, chat->text.n, false);
done:
    qp_free(runs.run);
    qp_jinja_output_fini(&whole);
    end_job(&job);
    return error;
}

/* --- tokens ----------------------------------------------------------------------------------- */

qp_error_t qp_chat_encode(const qp_tokenizer_t *tokenizer, const qp_chat_t *chat,
                          qp_tokens_t *tokens, qp_tokens_t *completion)
{
    qp_spans_t spans = {0};
    int64_t piece = 0;
    qp_error_t error =
        qp_tokenizer_encode_spans(tokenizer, chat->text.n > 0 ? chat->text.data : "", chat->text.n,
                                  QP_TEXT_PARSE_SPECIAL, tokens, &spans);
    /* Tokens and pieces are both in order; a token is marked if it overlaps a completion. */
    for (int64_t i = 0; i < spans.n && error == NULL && completion != NULL; i++) {
        while (piece < chat->n_piece &&
               (!chat->piece[piece].completion || spans.span[i].begin >= chat->piece[piece].end))
            piece++;
        qp_tokens_push(completion,
                       piece < chat->n_piece && spans.span[i].end > chat->piece[piece].begin);
    }
    qp_spans_fini(&spans);
    return error;
}
