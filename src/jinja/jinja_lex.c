/* Template text to tokens: where data ends, what is trimmed, what names, numbers and strings are.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_parse.h"
#include "base/utf8.h"

enum { MAX_BALANCE = 200, MAX_NUMBER = 400 };

typedef struct {
    qp_jinja_arena_t *arena;
    const char *begin, *at, *end;
    const char *counted; /* lines are counted up to here */
    int line;
    bool line_starting; /* what was read last ended a line */
    qp_jinja_tokens_t *tokens;
    int64_t capacity;
    char balance[MAX_BALANCE];
    int n_balance;
} lexer_t;

/* Line of a place that is not before the last one asked for. */
static int line_at(lexer_t *x, const char *place)
{
    for (; x->counted < place; x->counted++)
        x->line += *x->counted == '\n';
    return x->line;
}

#define WRONG(x, ...) wrong_at((x), qp_format(__VA_ARGS__))
static qp_error_t wrong_at(lexer_t *x, char *what)
{
    qp_error_t error = QP_ERROR(QP_INPUT, "line %d: %s", line_at(x, x->at), what);
    qp_free(what);
    return error;
}

static qp_jinja_token_t *add_token(lexer_t *x, qp_jinja_token_kind_t kind, const char *place)
{
    qp_jinja_tokens_t *tokens = x->tokens;
    if (tokens->n == x->capacity) {
        x->capacity = 2 * x->capacity + 64;
        qp_jinja_token_t *more = QP_JINJA_NEW(x->arena, qp_jinja_token_t, x->capacity);
        if (tokens->n > 0)
            memcpy(more, tokens->at, (size_t)tokens->n * sizeof *more);
        tokens->at = more;
    }
    qp_jinja_token_t *token = &tokens->at[tokens->n++];
    *token = (qp_jinja_token_t){.kind = kind, .line = line_at(x, place)};
    return token;
}

static bool at(const char *place, const char *end, const char *what)
{
    const size_t n = strlen(what);
    return (size_t)(end - place) >= n && memcmp(place, what, n) == 0;
}

static const char *skip_space(const char *place, const char *end)
{
    for (size_t n; place < end && (n = qp_jinja_space_at(place, end)) > 0;)
        place += n;
    return place;
}

/* --- data ------------------------------------------------------------------------------------- */

/* End of the tag at place if it is "{% raw %}", else NULL. */
static const char *raw_begin(const char *place, const char *end)
{
    place += 2;
    if (place < end && (*place == '-' || *place == '+'))
        place++;
    place = skip_space(place, end);
    if (!at(place, end, "raw"))
        return NULL;
    place = skip_space(place + 3, end);
    if (at(place, end, "-%}"))
        return skip_space(place + 3, end);
    return at(place, end, "%}") ? place + 2 : NULL;
}

/* End of a tag that may have a sign: "-": the space behind goes too; none: one line break goes. */
static const char *tag_end(const char *place, const char *end, const char *close, bool trim)
{
    if (at(place, end, "-") && at(place + 1, end, close))
        return skip_space(place + 1 + strlen(close), end);
    if (trim && at(place, end, "+") && at(place + 1, end, close))
        return place + 1 + strlen(close);
    if (!at(place, end, close))
        return NULL;
    place += strlen(close);
    return trim && place < end && *place == '\n' ? place + 1 : place;
}

/* Data in front of a tag at \a stop: what its sign and lstrip_blocks leave of it. */
static void add_data(lexer_t *x, const char *stop, bool variable)
{
    const char *begin = x->at, *end = stop;
    const char sign = stop + 2 < x->end ? stop[2] : '\0';
    if (sign == '-') {
        for (size_t n; end > begin && (n = qp_jinja_space_before(begin, end)) > 0;)
            end -= n;
    } else if (sign != '+' && !variable) {
        const char *line = memrchr(begin, '\n', (size_t)(end - begin));
        const char *from = line != NULL ? line + 1 : begin;
        if ((line != NULL || x->line_starting) && skip_space(from, end) == end)
            end = from;
    }
    if (end > begin)
        add_token(x, QP_JT_DATA, begin)->value =
            qp_jv_string(x->arena, begin, (size_t)(end - begin));
}

static void move_to(lexer_t *x, const char *place)
{
    x->line_starting = place > x->at ? place[-1] == '\n' : x->line_starting;
    x->at = place;
}

static qp_error_t read_comment(lexer_t *x)
{
    const char *place = x->at + 2;
    if (place < x->end && (*place == '-' || *place == '+'))
        place++;
    for (; place < x->end; place++) {
        const char *stop = tag_end(place, x->end, "#}", true);
        if (stop != NULL) {
            move_to(x, stop);
            return NULL;
        }
    }
    return WRONG(x, "a comment {# has no end");
}

static qp_error_t read_raw(lexer_t *x, const char *behind)
{
    const char *tag = x->at;
    x->at = behind;
    x->line_starting = behind[-1] == '\n';
    for (const char *place = behind; place < x->end; place++) {
        if (!at(place, x->end, "{%"))
            continue;
        const char *stop = place + 2;
        if (stop < x->end && (*stop == '-' || *stop == '+'))
            stop++;
        stop = skip_space(stop, x->end);
        if (!at(stop, x->end, "endraw"))
            continue;
        stop = tag_end(skip_space(stop + 6, x->end), x->end, "%}", true);
        if (stop == NULL)
            continue;
        add_data(x, place, false);
        move_to(x, stop);
        return NULL;
    }
    x->at = tag;
    return WRONG(x, "{%% raw %%} has no end");
}

/* --- strings ---------------------------------------------------------------------------------- */

static bool hex(const char *text, int n, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < n; i++) {
        if (!isxdigit((unsigned char)text[i]))
            return false;
        *code = *code * 16 + (uint32_t)(text[i] <= '9' ? text[i] - '0' : (text[i] | 32) - 'a' + 10);
    }
    return true;
}

/* \x, \u, \U with their digits at place; *n is the length. */
static qp_error_t read_hex(lexer_t *x, const char *place, const char *end, qp_jinja_text_t *text,
                           size_t *n)
{
    const int n_digit = *place == 'x' ? 2 : *place == 'u' ? 4 : 8;
    uint32_t code = 0;
    if (end - place <= n_digit || !hex(place + 1, n_digit, &code) || code > 0x10ffff)
        return WRONG(x, "a string holds a wrong \\%c escape", *place);
    if (code >= 0xd800 && code <= 0xdfff)
        return WRONG(x, "a string holds half of a surrogate pair (\\%.5s)", place);
    qp_jinja_put_code(text, code);
    *n = (size_t)n_digit + 1;
    return NULL;
}

static void read_octal(const char *place, const char *end, qp_jinja_text_t *text, size_t *n)
{
    uint32_t code = 0;
    for (*n = 0; *n < 3 && place + *n < end && place[*n] >= '0' && place[*n] <= '7'; (*n)++)
        code = code * 8 + (uint32_t)(place[*n] - '0');
    qp_jinja_put_code(text, code);
}

/* What stands behind a backslash. Python writes what is not ASCII as an escape before it reads the
 * escapes, so behind a backslash it stays that text. */
static qp_error_t read_escape(lexer_t *x, const char *place, const char *end, qp_jinja_text_t *text,
                              size_t *n)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *known = memchr(from, *place, sizeof from - 1);
    *n = 1;
    if (known != NULL) {
        qp_jinja_put(text, &to[known - from], 1);
    } else if (*place >= '0' && *place <= '7') {
        read_octal(place, end, text, n);
    } else if (*place == 'x' || *place == 'u' || *place == 'U') {
        QP_TRY(read_hex(x, place, end, text, n));
    } else if (*place == 'N') {
        return WRONG(x, "a string holds \\N{...}, which is not supported");
    } else if ((unsigned char)*place >= 0x80) {
        const uint32_t code = qp_utf8_decode(place, n);
        char *escape = code < 0x100     ? qp_format("\\x%02x", code)
                       : code < 0x10000 ? qp_format("\\u%04x", code)
                                        : qp_format("\\U%08x", code);
        qp_jinja_puts(text, escape);
        qp_free(escape);
    } else if (*place != '\n') {
        qp_jinja_put(text, "\\", 1);
        qp_jinja_put(text, place, 1);
    }
    return NULL;
}

static qp_error_t read_string(lexer_t *x)
{
    const char *place = x->at + 1;
    qp_jinja_text_t text = {.arena = x->arena};
    while (place < x->end && *place != *x->at) {
        const char *stop = place;
        while (stop < x->end && *stop != '\\' && *stop != *x->at)
            stop++;
        qp_jinja_put(&text, place, (size_t)(stop - place));
        place = stop;
        if (place == x->end || *place != '\\')
            continue;
        if (place + 1 == x->end)
            break;
        size_t n = 0;
        QP_TRY(read_escape(x, place + 1, x->end, &text, &n));
        place += n + 1;
    }
    if (place == x->end || *place != *x->at)
        return WRONG(x, "a string has no end");
    add_token(x, QP_JT_STRING, x->at)->value = qp_jv_string_of(&text);
    x->at = place + 1;
    return NULL;
}

/* --- numbers ---------------------------------------------------------------------------------- */

static bool is_digit(const char *place, const char *end, int base)
{
    if (place >= end)
        return false;
    const char c = (char)(*place | 32);
    return (*place >= '0' && *place <= '9' && *place < '0' + base) ||
           (base == 16 && *place > '9' && c >= 'a' && c <= 'f');
}

/* Digits with single underscores between them; the place itself if there are none. */
static const char *skip_digits(const char *place, const char *end, int base)
{
    if (!is_digit(place, end, base))
        return place;
    while (is_digit(place, end, base) ||
           (place < end && *place == '_' && is_digit(place + 1, end, base)))
        place++;
    return place;
}

/* End of a float at place, or NULL. */
static const char *float_end(const lexer_t *x)
{
    const char *end = x->end, *whole = skip_digits(x->at, end, 10);
    if (whole == x->at || (x->at > x->begin && x->at[-1] == '.'))
        return NULL;
    const char *stop = whole;
    if (whole < end && *whole == '.' && is_digit(whole + 1, end, 10))
        stop = skip_digits(whole + 1, end, 10);
    if (stop < end && (*stop | 32) == 'e') {
        const char *exponent = stop + 1;
        if (exponent < end && (*exponent == '+' || *exponent == '-'))
            exponent++;
        if (is_digit(exponent, end, 10))
            return skip_digits(exponent, end, 10);
    }
    return stop > whole ? stop : NULL;
}

static const char *integer_end(const lexer_t *x, int *base)
{
    static const struct {
        char letter;
        int base;
    } bases[] = {{'b', 2}, {'o', 8}, {'x', 16}};
    const char *end = x->end;
    *base = 10;
    if (*x->at != '0')
        return skip_digits(x->at, end, 10);
    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
        if (x->at + 1 >= end || (x->at[1] | 32) != bases[i].letter)
            continue;
        const char *first = x->at + 2;
        if (first < end && *first == '_')
            first++;
        if (is_digit(first, end, bases[i].base)) {
            *base = bases[i].base;
            return skip_digits(first, end, *base);
        }
    }
    const char *stop = x->at + 1;
    while (stop < end && (*stop == '0' || (*stop == '_' && stop + 1 < end && stop[1] == '0')))
        stop++;
    return stop;
}

static qp_error_t read_number(lexer_t *x)
{
    int base = 10;
    const char *stop = float_end(x);
    const bool real = stop != NULL;
    if (!real)
        stop = integer_end(x, &base);
    char text[MAX_NUMBER];
    size_t n = 0;
    for (const char *c = x->at + (base != 10 ? 2 : 0); c < stop && n + 1 < sizeof text; c++)
        if (*c != '_')
            text[n++] = *c;
    text[n] = '\0';
    errno = 0;
    const double value = strtod(text, NULL);
    const int64_t integer = strtoll(text, NULL, base);
    if (n + 1 == sizeof text ||
        (real ? value > 1.7976931348623157e308 : errno == ERANGE && integer == INT64_MAX))
        return WRONG(x, "the number %.20s is too large", text);
    add_token(x, real ? QP_JT_FLOAT : QP_JT_INTEGER, x->at)->value =
        real ? qp_jv_float(value) : qp_jv_int(integer);
    x->at = stop;
    return NULL;
}

/* --- tags ------------------------------------------------------------------------------------- */

static qp_error_t balance(lexer_t *x, char op)
{
    static const char open[] = "([{", close[] = ")]}";
    const char *opens = strchr(open, op), *closes = strchr(close, op);
    if (opens != NULL) {
        if (x->n_balance == MAX_BALANCE)
            return WRONG(x, "more than %d brackets inside one another", MAX_BALANCE);
        x->balance[x->n_balance++] = close[opens - open];
    } else if (closes != NULL) {
        if (x->n_balance == 0 || x->balance[x->n_balance - 1] != op)
            return WRONG(x, "unexpected '%c'", op);
        x->n_balance--;
    }
    return NULL;
}

static qp_error_t read_operator(lexer_t *x)
{
    static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                            "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                            ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!at(x->at, x->end, operators[i]))
            continue;
        if (operators[i][1] == '\0')
            QP_TRY(balance(x, operators[i][0]));
        strcpy(add_token(x, QP_JT_OPERATOR, x->at)->op, operators[i]);
        x->at += strlen(operators[i]);
        return NULL;
    }
    size_t n = 1;
    if ((unsigned char)*x->at >= 0x80)
        (void)qp_utf8_decode(x->at, &n);
    return WRONG(x, "unexpected character '%.*s'", (int)n, x->at);
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* One token of a tag. */
static qp_error_t read_token(lexer_t *x)
{
    const char c = *x->at;
    if (c >= '0' && c <= '9')
        return read_number(x);
    if (c == '\'' || c == '"')
        return read_string(x);
    if (!is_name(c))
        return read_operator(x);
    const char *stop = x->at;
    while (stop < x->end && is_name(*stop))
        stop++;
    add_token(x, QP_JT_NAME, x->at)->value = qp_jv_string(x->arena, x->at, (size_t)(stop - x->at));
    x->at = stop;
    return NULL;
}

/* A tag from behind its opening to its end. */
static qp_error_t read_tag(lexer_t *x, bool variable)
{
    add_token(x, variable ? QP_JT_VARIABLE_BEGIN : QP_JT_BLOCK_BEGIN, x->at);
    x->at += 2;
    if (x->at < x->end && (*x->at == '-' || *x->at == '+'))
        x->at++;
    x->n_balance = 0;
    while (x->at < x->end) {
        const char *stop =
            x->n_balance > 0 ? NULL : tag_end(x->at, x->end, variable ? "}}" : "%}", !variable);
        if (stop != NULL) {
            add_token(x, variable ? QP_JT_VARIABLE_END : QP_JT_BLOCK_END, x->at);
            move_to(x, stop);
            return NULL;
        }
        const size_t n = qp_jinja_space_at(x->at, x->end);
        if (n > 0)
            x->at += n;
        else
            QP_TRY(read_token(x));
    }
    return NULL; /* the parser misses the end */
}

static qp_error_t read_all(lexer_t *x)
{
    while (x->at < x->end) {
        const char *tag = x->at;
        while (tag < x->end &&
               !(at(tag, x->end, "{%") || at(tag, x->end, "{{") || at(tag, x->end, "{#")))
            tag++;
        if (tag == x->end) {
            add_token(x, QP_JT_DATA, x->at)->value =
                qp_jv_string(x->arena, x->at, (size_t)(x->end - x->at));
            break;
        }
        add_data(x, tag, tag[1] == '{');
        x->at = tag;
        const char *raw = tag[1] == '%' ? raw_begin(tag, x->end) : NULL;
        if (raw != NULL)
            QP_TRY(read_raw(x, raw));
        else if (tag[1] == '#')
            QP_TRY(read_comment(x));
        else
            QP_TRY(read_tag(x, tag[1] == '{'));
    }
    add_token(x, QP_JT_EOF, x->end);
    return NULL;
}

/* Line breaks as "\n", without the last one. */
static void normalise(qp_jinja_text_t *source, const char *text, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        const char c = text[i] == '\r' ? '\n' : text[i];
        qp_jinja_put(source, &c, 1);
        if (text[i] == '\r' && i + 1 < n_bytes && text[i + 1] == '\n')
            i++;
    }
    if (source->n > 0 && source->data[source->n - 1] == '\n')
        source->n--;
}

qp_error_t qp_jinja_lex(qp_jinja_arena_t *arena, const char *text, size_t n_bytes,
                        qp_jinja_tokens_t *tokens)
{
    qp_jinja_text_t source = {.arena = arena};
    normalise(&source, text, n_bytes);
    const char *begin = source.n > 0 ? source.data : "";
    lexer_t x = {.arena = arena,
                 .begin = begin,
                 .at = begin,
                 .end = begin + source.n,
                 .counted = begin,
                 .line = 1,
                 .line_starting = true,
                 .tokens = tokens};
    return read_all(&x);
}
