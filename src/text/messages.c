#include "text/messages.h"

#include <string.h>

#include "base/str.h"
#include "formats/json.h"

static const char ASSISTANT[] = "assistant";

/* Who speaks in ShareGPT's "from"; the field's names for it. */
static const struct {
    const char *from, *role;
} speakers[] = {
    {"human", "user"},          {"user", "user"},
    {"gpt", "assistant"},       {"chatgpt", "assistant"},
    {"assistant", "assistant"}, {"bot", "assistant"},
    {"model", "assistant"},     {"bard", "assistant"},
    {"bing", "assistant"},      {"system", "system"},
    {"tool", "tool"},           {"function", "tool"},
    {"observation", "tool"},    {"function_response", "tool"},
    {"tool_response", "tool"},
};

/* The texts of a list of parts, one after another, as templates that take lists write them. */
static qp_error_t join_parts(const json_t *parts, qp_str_t *text)
{
    const json_t *part;
    size_t i;
    json_array_foreach(parts, i, part)
    {
        const json_t *type = qp_json_get(part, "type"), *own = qp_json_get(part, "text");
        if (json_is_string(part))
            own = part;
        else if (type != NULL &&
                 (!json_is_string(type) || strcmp(json_string_value(type), "text") != 0))
            return qp_json_wrong("type of a part of content", type, "\"text\"");
        if (!json_is_string(own))
            return qp_json_wrong("a part of content", part, "text");
        qp_str_append(text, json_string_value(own), json_string_length(own));
    }
    return NULL;
}

/* A content as a template takes it: a string, or null beside calls of tools. */
static qp_error_t read_content(const char *key, const json_t *turn, json_t **content)
{
    const json_t *found = json_object_get(turn, key);
    *content = NULL;
    if (json_is_string(found) || (json_is_null(found) && qp_message_has_role(turn, ASSISTANT))) {
        *content = json_incref((json_t *)found);
    } else if (json_is_array(found)) {
        qp_str_t text = {0};
        qp_str_puts(&text, "");
        qp_error_t error = join_parts(found, &text);
        if (error == NULL)
            *content = json_stringn(text.data, text.n);
        qp_str_fini(&text);
        return error;
    } else if (found == NULL && qp_message_has_role(turn, ASSISTANT) &&
               qp_json_get(turn, "tool_calls") != NULL) {
        return NULL;
    } else if (found == NULL) {
        return QP_ERROR(QP_INPUT, "%s of a turn is missing", key);
    } else {
        return qp_json_wrong(key, found, "text or a list of text parts");
    }
    return NULL;
}

static qp_error_t append_message(const json_t *turn, json_t *messages)
{
    json_t *role = NULL, *content = NULL;
    QP_TRY(qp_json_want(turn, "role", JSON_STRING, &role));
    QP_TRY(read_content("content", turn, &content));
    json_t *message = json_copy((json_t *)turn);
    if (content != NULL)
        json_object_set_new(message, "content", content);
    json_array_append_new(messages, message);
    return NULL;
}

static qp_error_t append_speech(const json_t *turn, json_t *messages, bool *unknown_role)
{
    json_t *from = NULL, *content = NULL;
    QP_TRY(qp_json_want(turn, "from", JSON_STRING, &from));
    for (size_t i = 0; i < sizeof speakers / sizeof *speakers; i++) {
        if (strcmp(json_string_value(from), speakers[i].from) != 0)
            continue;
        QP_TRY(read_content("value", turn, &content));
        json_array_append_new(messages, json_pack("{s:s, s:o}", "role", speakers[i].role, "content",
                                                  content != NULL ? content : json_string("")));
        return NULL;
    }
    *unknown_role = true;
    return qp_json_wrong("from", from, "human, gpt, system or tool");
}

qp_error_t qp_messages_append(const char *key, const json_t *list, json_t *messages,
                              bool *unknown_role)
{
    const json_t *turn;
    size_t i;
    if (!json_is_array(list))
        return qp_json_wrong(key, list, "a list of messages");
    json_array_foreach(list, i, turn)
    {
        if (!json_is_object(turn))
            return qp_json_wrong("a turn", turn, "an object");
        if (qp_json_get(turn, "from") != NULL && qp_json_get(turn, "role") == NULL)
            QP_TRY(append_speech(turn, messages, unknown_role));
        else
            QP_TRY(append_message(turn, messages));
    }
    return NULL;
}

qp_error_t qp_messages_context(const json_t *row, json_t **tools, json_t **variables)
{
    const json_t *own = qp_json_get(row, "tools");
    const json_t *more = qp_json_get(row, "chat_template_kwargs");
    const char *text = json_string_value(own);
    *tools = *variables = NULL;
    if (text != NULL && text[strspn(text, " \t\r\n")] != '\0')
        QP_TRY(qp_json_parse("tools", text, json_string_length(own), 0, tools));
    else if (text == NULL)
        *tools = json_incref((json_t *)own);
    if (*tools != NULL && !json_is_array(*tools))
        return qp_json_wrong("tools", *tools, "a list");
    if (more != NULL && !json_is_object(more))
        return qp_json_wrong("chat_template_kwargs", more, "an object");
    *variables = json_incref((json_t *)more);
    return NULL;
}

qp_error_t qp_messages_insert_system(const json_t *row, json_t *messages)
{
    const json_t *system = qp_json_get(row, "system");
    if (system == NULL)
        return NULL;
    if (!json_is_string(system))
        return qp_json_wrong("system", system, "a string");
    json_t *first = json_pack("{s:s, s:O}", "role", "system", "content", system);
    if (qp_message_is_empty(first))
        json_decref(first);
    else
        json_array_insert_new(messages, 0, first);
    return NULL;
}

void qp_messages_push(json_t *messages, const char *role, const char *content, size_t n_bytes)
{
    json_array_append_new(messages,
                          json_pack("{s:s, s:s%}", "role", role, "content", content, n_bytes));
}

/* --- what is in messages ---------------------------------------------------------------------- */

bool qp_message_has_role(const json_t *message, const char *role)
{
    const char *own = json_string_value(json_object_get(message, "role"));
    return own != NULL && strcmp(own, role) == 0;
}

bool qp_message_is_empty(const json_t *message)
{
    const char *content = json_string_value(json_object_get(message, "content"));
    return json_array_size(json_object_get(message, "tool_calls")) == 0 &&
           (content == NULL || content[strspn(content, " \t\r\n\f\v")] == '\0');
}

bool qp_messages_answered(const json_t *messages)
{
    const json_t *message;
    size_t i;
    bool answered = false;
    json_array_foreach(messages, i, message) if (qp_message_has_role(message, ASSISTANT))
    {
        if (qp_message_is_empty(message))
            return false;
        answered = true;
    }
    return answered;
}

size_t qp_messages_shared(const json_t *a, const json_t *b)
{
    size_t n = 0;
    while (n < json_array_size(a) && n < json_array_size(b) &&
           json_equal(json_array_get(a, n), json_array_get(b, n)))
        n++;
    return n;
}
