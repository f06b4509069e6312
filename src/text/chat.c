#include "text/chat.h"

#include <string.h>

#include "base/mem.h"

/* --- the known templates ---------------------------------------------------------------------- */

/* A turn is open + content + close + after. {bos} and {eos} stand for the tokens' texts. Of an
 * assistant's turn, content and close are the completion. */
typedef struct {
    const char *open, *close, *after;
} turn_t;

typedef struct {
    const char *name;
    const char *marker[2]; /* texts a template of this kind holds */
    const char *refuse;    /* a text that means more than is written out here, or NULL */
    const char *start;     /* before the first turn */
    const char *generation;
    turn_t system, user, assistant;
    bool trim;           /* contents lose white space at both ends */
    bool own_system;     /* the template may hold a system turn for when there is none */
    bool system_in_user; /* the system turn stands inside the first user's */
    bool alternates;     /* user and assistant take turns, the user first */
} format_t;

/* A template matches the first row whose markers it holds. */
static const format_t FORMATS[] = {
    {.name = "ChatML",
     .marker = {"<|im_start|>", "<|im_end|>"},
     .refuse = "tools",
     .start = "",
     .generation = "<|im_start|>assistant\n",
     .system = {"<|im_start|>system\n", "<|im_end|>", "\n"},
     .user = {"<|im_start|>user\n", "<|im_end|>", "\n"},
     .assistant = {"<|im_start|>assistant\n", "<|im_end|>", "\n"},
     .own_system = true},
    {.name = "Llama 3",
     .marker = {"<|start_header_id|>", "<|eot_id|>"},
     .refuse = "Cutting Knowledge Date", /* 3.1 and later: puts today's date in */
     .start = "{bos}",
     .generation = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>", ""},
     .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>", ""},
     .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", ""},
     .trim = true},
    {.name = "Llama 2",
     .marker = {"<<SYS>>", "[INST]"},
     .start = "",
     .generation = "",
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n", ""},
     .user = {"{bos}[INST] ", " [/INST]", ""},
     .assistant = {" ", " {eos}", ""},
     .trim = true,
     .system_in_user = true,
     .alternates = true},
    {.name = "Mistral 0.1",
     .marker = {"'[INST] ' + message['content'] + ' [/INST]'",
                "message['content'] + eos_token + ' '"},
     .refuse = "system_message",
     .start = "{bos}",
     .generation = "",
     .user = {"[INST] ", " [/INST]", ""},
     .assistant = {"", "{eos}", " "},
     .alternates = true},
    {.name = "Mistral 0.2",
     .marker = {"'[INST] ' + message['content'] + ' [/INST]'", "message['content'] + eos_token"},
     .refuse = "system_message",
     .start = "{bos}",
     .generation = "",
     .user = {"[INST] ", " [/INST]", ""},
     .assistant = {"", "{eos}", ""},
     .alternates = true},
    {.name = "Zephyr",
     .marker = {"'<|user|>", "message['content'] + eos_token"},
     .start = "",
     .generation = "<|assistant|>\n",
     .system = {"<|system|>\n", "{eos}", "\n"},
     .user = {"<|user|>\n", "{eos}", "\n"},
     .assistant = {"<|assistant|>\n", "{eos}", "\n"}},
};

enum { N_FORMAT = sizeof FORMATS / sizeof FORMATS[0] };

static qp_error_t find_format(const char *template, const format_t **format)
{
    if (template == NULL)
        return QP_ERROR(QP_INPUT, "chat: the model has no chat template");
    qp_str_t names = {0};
    for (int i = 0; i < N_FORMAT; i++) {
        const format_t *f = &FORMATS[i];
        qp_str_printf(&names, "%s%s", i > 0 ? ", " : "", f->name);
        if (strstr(template, f->marker[0]) == NULL || strstr(template, f->marker[1]) == NULL)
            continue;
        qp_str_fini(&names);
        if (f->refuse != NULL && strstr(template, f->refuse) != NULL)
            return QP_ERROR(QP_INPUT,
                            "chat: the model's %s template uses '%s', which is not supported",
                            f->name, f->refuse);
        *format = f;
        return NULL;
    }
    qp_error_t error = QP_ERROR(QP_INPUT,
                                "chat: the model's chat template is none of the known ones "
                                "(%s); it begins '%.60s'",
                                names.data, template);
    qp_str_fini(&names);
    return error;
}

/* --- rendering -------------------------------------------------------------------------------- */

typedef struct {
    const qp_tokenizer_t *tokenizer;
    const format_t *format;
    qp_chat_t *chat;
} writer_t;

void qp_chat_fini(qp_chat_t *chat)
{
    qp_str_fini(&chat->text);
    qp_free(chat->piece);
    *chat = (qp_chat_t){0};
}

/* Appends text with {bos} and {eos} filled in. */
static void put_fixed(writer_t *w, const char *text)
{
    const char *brace;
    while ((brace = strchr(text, '{')) != NULL) {
        qp_str_append(&w->chat->text, text, (size_t)(brace - text));
        const bool bos = qp_has_prefix(brace, "{bos}");
        const int32_t id = bos ? qp_tokenizer_bos(w->tokenizer) : qp_tokenizer_eos(w->tokenizer);
        if (id >= 0)
            qp_str_puts(&w->chat->text, qp_tokenizer_token(w->tokenizer, id));
        text = brace + strlen("{bos}");
    }
    qp_str_puts(&w->chat->text, text);
}

static void put_content(writer_t *w, const char *content)
{
    static const char space[] = " \t\n\v\f\r";
    size_t n = strlen(content);
    if (w->format->trim) {
        const size_t skip = strspn(content, space);
        content += skip;
        n -= skip;
        while (n > 0 && strchr(space, content[n - 1]) != NULL)
            n--;
    }
    qp_str_append(&w->chat->text, content, n);
}

/* Ends a piece at the end of the text so far; it joins the one before if that is of its kind. */
static void end_piece(qp_chat_t *chat, bool completion)
{
    const size_t begin = chat->n_piece > 0 ? chat->piece[chat->n_piece - 1].end : 0;
    if (chat->text.n == begin)
        return;
    if (chat->n_piece > 0 && chat->piece[chat->n_piece - 1].completion == completion) {
        chat->piece[chat->n_piece - 1].end = chat->text.n;
        return;
    }
    if (chat->n_piece == chat->capacity) {
        chat->capacity = 2 * chat->capacity + 8;
        chat->piece =
            qp_realloc("chat", chat->piece, qp_bytes(chat->capacity, sizeof *chat->piece));
    }
    chat->piece[chat->n_piece++] =
        (qp_chat_piece_t){.begin = begin, .end = chat->text.n, .completion = completion};
}

static void put_turn(writer_t *w, const turn_t *turn, const char *system, const char *content,
                     bool completion)
{
    put_fixed(w, turn->open);
    if (system != NULL) {
        put_fixed(w, w->format->system.open);
        put_content(w, system);
        put_fixed(w, w->format->system.close);
    }
    end_piece(w->chat, false);
    put_content(w, content);
    put_fixed(w, turn->close);
    end_piece(w->chat, completion);
    put_fixed(w, turn->after);
    end_piece(w->chat, false);
}

/* The turn of a role, or why it cannot stand at this place. */
static qp_error_t turn_of(const format_t *format, const qp_chat_message_t *message, int64_t i,
                          int64_t n_system, const turn_t **turn)
{
    const char *role = message[i].role;
    const bool system = strcmp(role, "system") == 0, user = strcmp(role, "user") == 0;
    if (!system && !user && strcmp(role, "assistant") != 0)
        return QP_ERROR(QP_INPUT,
                        "chat: message %lld: role '%s' is none of system, user, assistant",
                        (long long)i, role);
    *turn = system ? &format->system : user ? &format->user : &format->assistant;
    if ((*turn)->open == NULL)
        return QP_ERROR(QP_INPUT, "chat: message %lld: %s templates have no %s turn", (long long)i,
                        format->name, role);
    const bool even = (i - n_system) % 2 == 0;
    if (format->alternates && (system ? i != 0 : user != even))
        return QP_ERROR(QP_INPUT,
                        "chat: message %lld: %s templates want user and assistant in turn, "
                        "found %s",
                        (long long)i, format->name, role);
    return NULL;
}

/* ChatML templates may write a system turn of their own when there is none: its literal text stands
 * between "<|im_start|>system\n" and "<|im_end|>" (the newline as such or as \n). */
static qp_error_t put_default_system(writer_t *w, const char *template)
{
    static const char open[] = "<|im_start|>system", close[] = "<|im_end|>";
    const char *begin = strstr(template, open);
    if (!w->format->own_system || begin == NULL)
        return NULL;
    begin += strlen(open);
    if (*begin == '\n')
        begin += 1;
    else if (qp_has_prefix(begin, "\\n"))
        begin += 2;
    const char *end = strstr(begin, close);
    if (end == NULL || memchr(begin, '\'', (size_t)(end - begin)) != NULL ||
        memchr(begin, '{', (size_t)(end - begin)) != NULL)
        return QP_ERROR(QP_INPUT, "chat: the template's own system message cannot be read: '%.60s'",
                        begin);
    char *system = qp_format("%.*s", (int)(end - begin), begin);
    put_turn(w, &w->format->system, NULL, system, false);
    qp_free(system);
    return NULL;
}

qp_error_t qp_chat_render(const qp_tokenizer_t *tokenizer, const qp_chat_message_t *message,
                          int64_t n_message, bool add_generation_prompt, qp_chat_t *chat)
{
    const char *template = qp_tokenizer_chat_template(tokenizer), *system = NULL;
    writer_t w = {.tokenizer = tokenizer, .chat = chat};
    chat->n_piece = 0;
    qp_str_clear(&chat->text);
    QP_TRY(find_format(template, &w.format));
    const int64_t n_system = n_message > 0 && strcmp(message[0].role, "system") == 0;
    put_fixed(&w, w.format->start);
    if (n_system == 0)
        QP_TRY(put_default_system(&w, template));
    for (int64_t i = 0; i < n_message; i++) {
        const turn_t *turn = NULL;
        QP_TRY(turn_of(w.format, message, i, n_system, &turn));
        if (turn == &w.format->system && w.format->system_in_user) {
            system = message[i].content;
            continue;
        }
        put_turn(&w, turn, system, message[i].content, turn == &w.format->assistant);
        system = NULL;
    }
    if (add_generation_prompt)
        put_fixed(&w, w.format->generation);
    end_piece(chat, false);
    return NULL;
}

qp_error_t qp_chat_encode(const qp_tokenizer_t *tokenizer, const qp_chat_t *chat,
                          qp_tokens_t *tokens, qp_tokens_t *completion)
{
    qp_tokens_t head = {0};
    qp_error_t error = NULL;
    const int64_t first = tokens->n;
    QP_TRY(qp_tokenizer_encode(tokenizer, chat->text.data, chat->text.n, QP_TEXT_PARSE_SPECIAL,
                               tokens));
    const int64_t n = tokens->n - first;
    int64_t begin = 0;
    for (int64_t i = 0; completion != NULL && i < chat->n_piece; i++) {
        int64_t end = n;
        if (i + 1 < chat->n_piece) {
            head.n = 0;
            QP_TRY_DONE(qp_tokenizer_encode(tokenizer, chat->text.data, chat->piece[i].end,
                                            QP_TEXT_PARSE_SPECIAL, &head));
            end = head.n < n ? head.n : n;
        }
        for (; begin < end; begin++)
            qp_tokens_push(completion, chat->piece[i].completion);
    }
done:
    qp_tokens_fini(&head);
    return error;
}
