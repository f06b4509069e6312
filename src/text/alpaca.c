#include "text/alpaca.h"

#include <string.h>

#include "formats/json.h"
#include "text/messages.h"

typedef struct {
    const char *data;
    size_t n;
} text_t;

typedef struct {
    text_t instruction, input, system;
    const json_t *history; /* or NULL */
} alpaca_t;

static bool is_blank(text_t text)
{
    while (text.n > 0 && strchr(" \t\r\n", text.data[text.n - 1]) != NULL)
        text.n--;
    return text.n == 0;
}

/* A string; absent or null: none, where it is optional. */
static qp_error_t read_string(const json_t *row, const char *key, bool optional, text_t *text)
{
    const json_t *value = qp_json_get(row, key);
    *text = (text_t){"", 0};
    if (value == NULL && optional)
        return NULL;
    if (!json_is_string(value))
        return qp_json_wrong(key, value, "a string");
    *text = (text_t){json_string_value(value), json_string_length(value)};
    return NULL;
}

static qp_error_t read_row(const json_t *row, alpaca_t *a)
{
    QP_TRY(read_string(row, "instruction", false, &a->instruction));
    QP_TRY(read_string(row, "input", true, &a->input));
    QP_TRY(read_string(row, "system", true, &a->system));
    a->history = qp_json_get(row, "history");
    if (a->history != NULL && !json_is_array(a->history))
        return qp_json_wrong("history", a->history, "a list of pairs");
    return NULL;
}

static qp_error_t push_history(const json_t *history, json_t *messages)
{
    static const char *const roles[] = {"user", "assistant"};
    const json_t *pair;
    size_t i;
    json_array_foreach(history, i, pair) for (size_t k = 0; k < 2; k++)
    {
        const json_t *said = json_array_get(pair, k);
        if (!json_is_string(said) || json_array_size(pair) != 2)
            return qp_json_wrong("history", pair, "pairs of instruction and output");
        qp_messages_push(messages, roles[k], json_string_value(said), json_string_length(said));
    }
    return NULL;
}

qp_error_t qp_alpaca_messages(const json_t *row, json_t *messages)
{
    alpaca_t a;
    qp_str_t asked = {0};
    QP_TRY(read_row(row, &a));
    if (!is_blank(a.system))
        qp_messages_push(messages, "system", a.system.data, a.system.n);
    QP_TRY(push_history(a.history, messages));
    qp_str_append(&asked, a.instruction.data, a.instruction.n);
    if (!is_blank(a.input)) {
        qp_str_puts(&asked, is_blank(a.instruction) ? "" : "\n\n");
        qp_str_append(&asked, a.input.data, a.input.n);
    }
    qp_messages_push(messages, "user", asked.data, asked.n);
    qp_str_fini(&asked);
    return NULL;
}

qp_error_t qp_alpaca_text(const json_t *row, qp_str_t *prompt, bool *has_more)
{
    alpaca_t a;
    *has_more = false;
    QP_TRY(read_row(row, &a));
    *has_more = json_array_size(a.history) > 0 || !is_blank(a.system);
    if (*has_more)
        return QP_ERROR(QP_INPUT, "history or system, and the model has no chat template");
    const bool has_input = !is_blank(a.input);
    qp_str_printf(prompt,
                  "Below is an instruction that describes a task%s. Write a response that "
                  "appropriately completes the request.\n\n### Instruction:\n",
                  has_input ? ", paired with an input that provides further context" : "");
    qp_str_append(prompt, a.instruction.data, a.instruction.n);
    if (has_input) {
        qp_str_puts(prompt, "\n\n### Input:\n");
        qp_str_append(prompt, a.input.data, a.input.n);
    }
    qp_str_puts(prompt, "\n\n### Response:\n");
    return NULL;
}
