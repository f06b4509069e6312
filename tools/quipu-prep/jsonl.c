/*
 * JSON lines. A row is {"text"}, {"prompt", "completion"}, {"prompt", "chosen", "rejected"},
 * {"messages": [{"role", "content"}]} or {"prompt"}; other keys are ignored. Empty lines are
 * skipped. A row whose text, completion, chosen or rejected answer or lone prompt is blank is
 * counted and left out; a completion or a pair may stand without a prompt before it.
 */
#include "prep.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/mem.h"

/* A row and where it stands, for messages. */
typedef struct {
    const char *path;
    int64_t line;
    int64_t id; /* number of the row over all files */
    const json_t *json;
} row_t;

static qp_error_t read_string(const row_t *row, const json_t *object, const char *key,
                              prep_text_t *text)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value))
        return QP_ERROR(QP_INPUT, "%s:%lld: \"%s\" is %s, expected a string", row->path,
                        (long long)row->line, key, value == NULL ? "missing" : "something else");
    *text = (prep_text_t){json_string_value(value), json_string_length(value)};
    return NULL;
}

static bool is_blank(prep_text_t text)
{
    return prep_trim(text).n == 0;
}

static qp_error_t emit_text(const row_t *row, prep_sink_t *sink)
{
    prep_text_t text = {0};
    QP_TRY(read_string(row, row->json, "text", &text));
    if (is_blank(text)) {
        prep_sink_count(sink, PREP_EMPTY_ROWS, 1);
        return NULL;
    }
    return prep_sink_text(sink, row->id, text, true);
}

static qp_error_t emit_completion(const row_t *row, prep_sink_t *sink)
{
    prep_text_t prompt = {0}, completion = {0};
    QP_TRY(read_string(row, row->json, "prompt", &prompt));
    QP_TRY(read_string(row, row->json, "completion", &completion));
    if (is_blank(completion)) {
        prep_sink_count(sink, PREP_EMPTY_ROWS, 1);
        return NULL;
    }
    return prep_sink_completion(sink, row->id, prompt, completion, true);
}

static qp_error_t emit_pair(const row_t *row, prep_sink_t *sink)
{
    prep_text_t prompt = {0}, answer[2] = {{0}};
    QP_TRY(read_string(row, row->json, "prompt", &prompt));
    QP_TRY(read_string(row, row->json, "chosen", &answer[0]));
    QP_TRY(read_string(row, row->json, "rejected", &answer[1]));
    if (is_blank(answer[0]) || is_blank(answer[1])) {
        prep_sink_count(sink, PREP_EMPTY_ROWS, 1);
        return NULL;
    }
    return prep_sink_pair(sink, row->id, 1.0f, prompt, answer, true);
}

static qp_error_t emit_prompt(const row_t *row, prep_sink_t *sink)
{
    prep_text_t prompt = {0};
    QP_TRY(read_string(row, row->json, "prompt", &prompt));
    if (is_blank(prompt)) {
        prep_sink_count(sink, PREP_EMPTY_ROWS, 1);
        return NULL;
    }
    return prep_sink_prompt(sink, row->id, prompt, true);
}

static qp_error_t emit_messages(const row_t *row, prep_sink_t *sink)
{
    const json_t *list = json_object_get(row->json, "messages");
    size_t n = json_array_size(list);
    if (n == 0) {
        if (!json_is_array(list))
            return QP_ERROR(QP_INPUT, "%s:%lld: \"messages\" is not an array", row->path,
                            (long long)row->line);
        prep_sink_count(sink, PREP_EMPTY_ROWS, 1);
        return NULL;
    }
    qp_chat_message_t *message = QP_NEW("prep", qp_chat_message_t, (int64_t)n);
    qp_error_t error = NULL;
    for (size_t i = 0; i < n; i++) {
        prep_text_t role = {0}, content = {0};
        QP_TRY_DONE(read_string(row, json_array_get(list, i), "role", &role));
        QP_TRY_DONE(read_string(row, json_array_get(list, i), "content", &content));
        message[i] = (qp_chat_message_t){.role = role.data, .content = content.data};
    }
    error = qp_error_context(prep_sink_chat(sink, row->id, message, (int64_t)n), "%s:%lld",
                             row->path, (long long)row->line);
done:
    qp_free(message);
    return error;
}

/* The first form whose keys are there is the row's form. */
static const struct {
    const char *keys[3];
    prep_kind_t kind;
    qp_error_t (*emit)(const row_t *row, prep_sink_t *sink);
} forms[] = {
    {{"text"}, PREP_SFT, emit_text},
    {{"messages"}, PREP_SFT, emit_messages},
    {{"prompt", "completion"}, PREP_SFT, emit_completion},
    {{"prompt", "chosen", "rejected"}, PREP_REWARD, emit_pair},
    {{"prompt"}, PREP_PROMPT, emit_prompt},
};

static qp_error_t emit_row(const row_t *row, prep_sink_t *sink)
{
    for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
        bool has_all = true;
        for (int k = 0; k < 3 && forms[f].keys[k] != NULL; k++)
            has_all = has_all && json_object_get(row->json, forms[f].keys[k]) != NULL;
        if (!has_all)
            continue;
        if (prep_sink_wants(sink, forms[f].kind))
            return forms[f].emit(row, sink);
        prep_sink_count(sink, PREP_UNWANTED, 1);
        return NULL;
    }
    return QP_ERROR(QP_INPUT,
                    "%s:%lld: expected an object with \"text\", \"messages\", \"prompt\" and "
                    "\"completion\", \"prompt\" and \"chosen\" and \"rejected\", or \"prompt\"",
                    row->path, (long long)row->line);
}

static qp_error_t read_line(const char *text, size_t n, row_t *row, prep_sink_t *sink)
{
    json_error_t trouble;
    json_t *json = json_loadb(text, n, 0, &trouble);
    if (json == NULL)
        return QP_ERROR(QP_INPUT, "%s:%lld: column %d: %s", row->path, (long long)row->line,
                        trouble.column, trouble.text);
    row->json = json;
    prep_sink_count(sink, PREP_ROWS, 1);
    qp_error_t error = emit_row(row, sink);
    json_decref(json);
    return error;
}

static qp_error_t read_file(const char *path, int rank, int n_rank, int64_t *n_row,
                            prep_sink_t *sink)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return QP_ERROR(QP_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    row_t row = {.path = path};
    char *line = NULL; /* of getline(): free() */
    size_t capacity = 0;
    ssize_t n;
    qp_error_t error = NULL;
    while ((n = getline(&line, &capacity, file)) >= 0) {
        row.line++;
        if (is_blank((prep_text_t){line, (size_t)n}))
            continue;
        row.id = (*n_row)++;
        if (row.id % n_rank == rank)
            QP_TRY_DONE(read_line(line, (size_t)n, &row, sink));
        QP_TRY_DONE(prep_check_interrupt());
    }
    if (ferror(file))
        error = QP_ERROR(QP_IO, "%s: cannot be read: %s", path, strerror(errno));
done:
    free(line);
    fclose(file);
    return error;
}

qp_error_t prep_jsonl(const prep_options_t *options, int rank, int n_rank, prep_sink_t *sink)
{
    int64_t n_row = 0;
    for (int i = 0; i < options->n_file; i++)
        QP_TRY(read_file(options->file[i], rank, n_rank, &n_row, sink));
    return NULL;
}
