/*
 * The forms of rows. Strings stay strings; where any part of a row is a list of messages, all of it
 * is a conversation: a prompt that is a string is then what the user says, an answer that is one
 * what the assistant says.
 */
#include "rows.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "formats/json.h"
#include "text/alpaca.h"
#include "text/messages.h"

void prep_row_fini(prep_row_t *row)
{
    prep_chat_fini(&row->chat);
    qp_str_fini(&row->built);
}

uint64_t prep_group(prep_text_t text)
{
    text = prep_trim(text);
    return qp_hash_bytes(text.data, text.n);
}

static bool is_blank(prep_text_t text)
{
    return prep_trim(text).n == 0;
}

/* A string that must be there; with otherwise one that may be absent. */
static qp_error_t read_string(const json_t *json, const char *key, const char *otherwise,
                              prep_text_t *text)
{
    const json_t *value = qp_json_get(json, key);
    if (value == NULL && otherwise != NULL) {
        *text = (prep_text_t){otherwise, strlen(otherwise)};
        return NULL;
    }
    if (!json_is_string(value))
        return qp_json_wrong(key, value, "a string");
    *text = (prep_text_t){json_string_value(value), json_string_length(value)};
    return NULL;
}

static bool has_list(const json_t *json, const char *key)
{
    return json_is_array(json_object_get(json, key));
}

/* --- strings ---------------------------------------------------------------------------------- */

static qp_error_t read_text(const json_t *json, prep_row_t *row)
{
    row->whole = true;
    return read_string(json, "text", NULL, &row->answer[0]);
}

/*
 * What two texts begin with in common, without the space before they part (as TRL has it), and
 * never one of them whole: then up to the last white space.
 */
static size_t common_beginning(prep_text_t a, prep_text_t b)
{
    size_t n = 0;
    while (n < a.n && n < b.n && a.data[n] == b.data[n])
        n++;
    if (n == a.n || n == b.n)
        while (n > 0 && strchr(" \t\r\n", a.data[n - 1]) == NULL)
            n--;
    while (n > 0 && ((a.data[n] & 0xc0) == 0x80 || (b.data[n] & 0xc0) == 0x80))
        n--; /* not within a character */
    return n > 0 && strchr(" \t\r\n", a.data[n - 1]) != NULL ? n - 1 : n;
}

/* A pair's prompt has two names. */
static const char *prompt_key(const json_t *json)
{
    return qp_json_get(json, "prompt") == NULL && qp_json_get(json, "question") != NULL ? "question"
                                                                                        : "prompt";
}

static const char *const sides[] = {"chosen", "rejected"};

static qp_error_t read_string_sides(const json_t *json, prep_row_t *row)
{
    prep_text_t *answer = row->answer;
    for (int i = 0; i < 2; i++)
        QP_TRY(read_string(json, sides[i], NULL, &answer[i]));
    if (answer[0].n == answer[1].n && memcmp(answer[0].data, answer[1].data, answer[0].n) == 0)
        row->why = PREP_EQUAL_ANSWERS;
    return NULL;
}

static qp_error_t read_string_pair(const json_t *json, prep_row_t *row)
{
    prep_text_t *answer = row->answer;
    QP_TRY(read_string(json, prompt_key(json), "", &row->prompt));
    QP_TRY(read_string_sides(json, row));
    if (row->why != PREP_EQUAL_ANSWERS && qp_json_get(json, prompt_key(json)) == NULL) {
        const size_t n = common_beginning(answer[0], answer[1]);
        row->prompt = (prep_text_t){answer[0].data, n};
        for (int i = 0; i < 2; i++)
            answer[i] = (prep_text_t){answer[i].data + n, answer[i].n - n};
    }
    return NULL;
}

/* --- conversations ---------------------------------------------------------------------------- */

static void push(json_t *messages, const char *role, prep_text_t content)
{
    qp_messages_push(messages, role, content.data, content.n);
}

/* Appends the turns of a list, which stands under this key. */
static qp_error_t append_list(const json_t *json, const char *key, prep_row_t *row,
                              json_t *messages)
{
    bool unknown_role = false;
    qp_error_t error = qp_messages_append(key, json_object_get(json, key), messages, &unknown_role);
    row->why = unknown_role ? PREP_BAD_ROLE : row->why;
    return error;
}

static qp_error_t begin_chat(const json_t *json, int n_answer, prep_row_t *row)
{
    row->is_chat = true;
    row->chat.prompt = json_array();
    for (int i = 0; i < n_answer; i++)
        row->chat.answer[i] = json_array();
    return qp_messages_context(json, &row->chat.tools, &row->chat.variables);
}

/* A value that is a list of turns, or a string: what this role says. */
static qp_error_t append_turns(const json_t *json, const char *key, const char *role,
                               prep_row_t *row, json_t *messages)
{
    prep_text_t text = {0};
    if (has_list(json, key))
        return append_list(json, key, row, messages);
    QP_TRY(read_string(json, key, NULL, &text));
    push(messages, role, text);
    return NULL;
}

static void drop_first(json_t *list, size_t n)
{
    while (n-- > 0)
        json_array_remove(list, 0);
}

/* Others than the assistant and its tools speak before the first answer. */
static bool begins_with_prompt(const json_t *answer)
{
    const json_t *first = json_array_get(answer, 0);
    return first != NULL && !qp_message_has_role(first, "assistant") &&
           !qp_message_has_role(first, "tool");
}

/* Each answer may repeat the prompt. All may bring one of their own, which a prompt that is text
 * only tells again; one alone cannot. */
static qp_error_t settle_prompt(prep_chat_t *chat, const char *const *key, int n_answer,
                                bool is_list)
{
    const size_t n_prompt = json_array_size(chat->prompt);
    int n_own = 0, own = 0;
    for (int i = 0; i < n_answer; i++) {
        if (n_prompt > 0 && qp_messages_shared(chat->prompt, chat->answer[i]) == n_prompt) {
            drop_first(chat->answer[i], n_prompt);
        } else if (begins_with_prompt(chat->answer[i])) {
            n_own++;
            own = i;
        }
    }
    if (n_prompt > 0 && n_own > 0 && n_own < n_answer)
        return QP_ERROR(QP_INPUT, "%s begins with another prompt than the row's, which %s does not",
                        key[own], key[1 - own]);
    if (n_own > 0 && !is_list)
        json_array_clear(chat->prompt);
    return NULL;
}

/* What two answers begin with in common is said before them. */
static void move_common(prep_chat_t *chat)
{
    const size_t n = qp_messages_shared(chat->answer[0], chat->answer[1]);
    for (size_t k = 0; k < n; k++)
        json_array_append(chat->prompt, json_array_get(chat->answer[0], k));
    drop_first(chat->answer[0], n);
    drop_first(chat->answer[1], n);
}

/* The answers to a prompt (a list, or what was text) by their keys. */
static qp_error_t take_answers(const json_t *json, const char *const *key, int n_answer,
                               bool is_list, prep_row_t *row)
{
    prep_chat_t *chat = &row->chat;
    for (int i = 0; i < n_answer; i++)
        QP_TRY(append_turns(json, key[i], "assistant", row, chat->answer[i]));
    if (n_answer == 2 && json_array_size(chat->prompt) == 0 &&
        has_list(json, key[0]) != has_list(json, key[1]))
        return QP_ERROR(QP_INPUT, "%s is text beside a list of messages in %s, without a prompt",
                        key[has_list(json, key[0])], key[has_list(json, key[1])]);
    QP_TRY(settle_prompt(chat, key, n_answer, is_list));
    if (n_answer == 2 && json_equal(chat->answer[0], chat->answer[1])) {
        row->why = PREP_EQUAL_ANSWERS;
        return NULL;
    }
    if (n_answer == 2)
        move_common(chat);
    for (int i = 0; i < n_answer; i++)
        if (!qp_messages_answered(chat->answer[i]))
            row->why = PREP_NO_ANSWER;
    return NULL;
}

/* A prompt, if there is one, and its answers. */
static qp_error_t read_answers(const json_t *json, const char *const *key, int n_answer,
                               prep_row_t *row)
{
    const char *prompt = prompt_key(json);
    QP_TRY(begin_chat(json, n_answer, row));
    if (qp_json_get(json, prompt) != NULL)
        QP_TRY(append_turns(json, prompt, "user", row, row->chat.prompt));
    return take_answers(json, key, n_answer, has_list(json, prompt), row);
}

static bool is_list_pair(const json_t *json)
{
    return has_list(json, prompt_key(json)) || has_list(json, sides[0]) || has_list(json, sides[1]);
}

/* A system prompt beside it makes a conversation of a pair. */
static qp_error_t read_pair(const json_t *json, prep_row_t *row)
{
    const bool has_system =
        qp_json_get(json, "system") != NULL && qp_json_get(json, prompt_key(json)) != NULL;
    if (!has_system && !is_list_pair(json))
        return read_string_pair(json, row);
    QP_TRY(read_answers(json, sides, 2, row));
    return qp_messages_insert_system(json, row->chat.prompt);
}

static qp_error_t read_pair_text(const json_t *json, prep_row_t *row)
{
    prep_text_t system = {0};
    QP_TRY(read_string(json, "system", "", &system));
    return is_blank(system) && !is_list_pair(json) ? read_string_pair(json, row)
                                                   : read_pair(json, row);
}

static qp_error_t read_answer(const json_t *json, const char *key, prep_row_t *row)
{
    if (has_list(json, "prompt") || has_list(json, key))
        return read_answers(json, &key, 1, row);
    QP_TRY(read_string(json, "prompt", NULL, &row->prompt));
    return read_string(json, key, NULL, &row->answer[0]);
}

static qp_error_t read_completion(const json_t *json, prep_row_t *row)
{
    return read_answer(json, "completion", row);
}

static qp_error_t read_response(const json_t *json, prep_row_t *row)
{
    return read_answer(json, "response", row);
}

static qp_error_t read_prompt(const json_t *json, prep_row_t *row)
{
    row->kind = PREP_PROMPT;
    if (!has_list(json, "prompt"))
        return read_string(json, "prompt", NULL, &row->prompt);
    QP_TRY(begin_chat(json, 0, row));
    json_t *messages = row->chat.prompt;
    QP_TRY(append_turns(json, "prompt", "user", row, messages));
    const size_t n = json_array_size(messages);
    if (n == 0)
        row->why = PREP_EMPTY_ROWS;
    else if (qp_message_has_role(json_array_get(messages, n - 1), "assistant"))
        return QP_ERROR(QP_INPUT, "prompt ends with a turn of the assistant");
    return NULL;
}

/* A conversation of which every answer is learnt; a system prompt may stand beside it. */
static qp_error_t read_turns(const json_t *json, const char *key, prep_row_t *row)
{
    QP_TRY(begin_chat(json, 1, row));
    QP_TRY(append_list(json, key, row, row->chat.answer[0]));
    json_t *messages = row->chat.answer[0];
    if (json_array_size(messages) == 0)
        row->why = PREP_EMPTY_ROWS;
    else if (!qp_messages_answered(messages))
        row->why = PREP_NO_ANSWER;
    return qp_messages_insert_system(json, messages);
}

static qp_error_t read_messages(const json_t *json, prep_row_t *row)
{
    return read_turns(json, "messages", row);
}

static qp_error_t read_sharegpt(const json_t *json, prep_row_t *row)
{
    return read_turns(json, "conversations", row);
}

/* --- Alpaca ----------------------------------------------------------------------------------- */

static qp_error_t build_alpaca_prompt(const json_t *json, prep_row_t *row)
{
    bool has_more = false;
    qp_error_t error = qp_alpaca_text(json, &row->built, &has_more);
    if (has_more)
        row->why = PREP_NO_TEMPLATE;
    row->prompt = (prep_text_t){row->built.data, row->built.n};
    return error;
}

static qp_error_t read_alpaca_text(const json_t *json, prep_row_t *row)
{
    QP_TRY(read_string(json, "output", NULL, &row->answer[0]));
    return build_alpaca_prompt(json, row);
}

static qp_error_t read_alpaca_chat(const json_t *json, prep_row_t *row)
{
    prep_text_t output = {0};
    QP_TRY(begin_chat(json, 1, row));
    json_t *messages = row->chat.answer[0];
    QP_TRY(qp_alpaca_messages(json, messages));
    QP_TRY(read_string(json, "output", NULL, &output));
    push(messages, "assistant", output);
    if (!qp_messages_answered(messages))
        row->why = PREP_NO_ANSWER;
    return NULL;
}

static qp_error_t read_alpaca_pair(const json_t *json, prep_row_t *row)
{
    QP_TRY(begin_chat(json, 2, row));
    QP_TRY(qp_alpaca_messages(json, row->chat.prompt));
    return take_answers(json, sides, 2, false, row);
}

static qp_error_t read_alpaca_pair_text(const json_t *json, prep_row_t *row)
{
    if (is_list_pair(json))
        return read_alpaca_pair(json, row);
    QP_TRY(read_string_sides(json, row));
    return build_alpaca_prompt(json, row);
}

/* --- the form of a row ------------------------------------------------------------------------ */

enum { MAX_KEY = 3 };

static const struct {
    const char *keys[MAX_KEY]; /* all must have values */
    prep_kind_t kind;
    qp_error_t (*read)(const json_t *json, prep_row_t *row);
    qp_error_t (*read_without_template)(const json_t *json, prep_row_t *row); /* if another */
} forms[] = {
    {{"prompt", "chosen", "rejected"}, PREP_REWARD, read_pair, read_pair_text},
    {{"instruction", "chosen", "rejected"}, PREP_REWARD, read_alpaca_pair, read_alpaca_pair_text},
    {{"chosen", "rejected"}, PREP_REWARD, read_pair, read_pair_text},
    {{"messages"}, PREP_SFT, read_messages, NULL},
    {{"conversations"}, PREP_SFT, read_sharegpt, NULL},
    {{"prompt", "completion"}, PREP_SFT, read_completion, NULL},
    {{"prompt", "response"}, PREP_SFT, read_response, NULL},
    {{"instruction", "output"}, PREP_SFT, read_alpaca_chat, read_alpaca_text},
    {{"text"}, PREP_SFT, read_text, NULL},
    {{"prompt"}, PREP_PROMPT, read_prompt, NULL},
};
enum { N_FORM = sizeof forms / sizeof *forms, PROMPT_ALONE = N_FORM - 1 };

/* The form by the keys with values; N_FORM: none, or (*unwanted) none of a kind that is wanted. A
 * prompt is alone only where nothing else is there. */
static int find_form(const json_t *json, const bool wanted[PREP_N_KIND], bool *unwanted)
{
    *unwanted = false;
    for (int f = 0; f < N_FORM; f++) {
        bool has_all = !(f == PROMPT_ALONE && *unwanted);
        for (int k = 0; k < MAX_KEY && forms[f].keys[k] != NULL; k++)
            has_all = has_all && qp_json_get(json, forms[f].keys[k]) != NULL;
        if (has_all && wanted[forms[f].kind])
            return f;
        *unwanted = *unwanted || has_all;
    }
    return N_FORM;
}

/* Nothing to learn from, or to answer. The worse answer to a prompt may be none: a reward model is
 * to mind silence, too. */
static bool is_blank_row(const prep_row_t *row)
{
    if (row->kind == PREP_PROMPT)
        return is_blank(row->prompt);
    return is_blank(row->answer[0]) ||
           (row->kind == PREP_REWARD && is_blank(row->answer[1]) && is_blank(row->prompt));
}

static prep_text_t content_of(const json_t *message)
{
    const json_t *content = json_object_get(message, "content");
    return (prep_text_t){json_string_value(content), json_string_length(content)};
}

/* What users say before the first answer; where nobody asks, all that is said. */
static uint64_t group_of_messages(const json_t *messages)
{
    const json_t *message;
    size_t i;
    qp_str_t asked = {0};
    for (int all = 0; all < 2 && asked.n == 0; all++)
        json_array_foreach(messages, i, message)
        {
            const prep_text_t content = content_of(message);
            if (!all && asked.n > 0 && qp_message_has_role(message, "assistant"))
                break;
            if (all || qp_message_has_role(message, "user"))
                qp_str_append(&asked, content.data, content.n);
        }
    const uint64_t group = prep_group((prep_text_t){asked.data, asked.n});
    qp_str_fini(&asked);
    return group;
}

static uint64_t group_of(const prep_row_t *row)
{
    if (!row->is_chat)
        return prep_group(is_blank(row->prompt) ? row->answer[0] : row->prompt);
    json_t *all = json_copy(row->chat.prompt);
    json_array_extend(all, row->chat.answer[0]);
    const uint64_t group = group_of_messages(all);
    json_decref(all);
    return group;
}

qp_error_t prep_row_read(const json_t *json, const bool wanted[PREP_N_KIND], bool has_template,
                         prep_row_t *row)
{
    bool unwanted;
    const int f = find_form(json, wanted, &unwanted);
    row->why = unwanted ? PREP_UNWANTED : PREP_NO_FORM;
    if (f == N_FORM && unwanted)
        return NULL;
    if (f == N_FORM)
        return QP_ERROR(QP_INPUT,
                        "expected an object with values for \"text\", \"messages\", "
                        "\"conversations\", \"prompt\" and \"completion\" (or \"response\"), "
                        "\"chosen\" and \"rejected\", \"instruction\" and \"output\", or "
                        "\"prompt\"");
    row->kind = forms[f].kind;
    row->why = PREP_WRONG_TYPE;
    QP_TRY(!has_template && forms[f].read_without_template != NULL
               ? forms[f].read_without_template(json, row)
               : forms[f].read(json, row));
    if (row->why != PREP_WRONG_TYPE)
        return NULL;
    row->why = !row->is_chat && is_blank_row(row) ? PREP_EMPTY_ROWS : PREP_N_SKIP;
    row->group = group_of(row);
    return NULL;
}
