/* Filters of texts. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"
#include "base/utf8.h"

/* The text that is filtered, as Jinja2's soft_str makes it. */
static qp_error_t text_of(const qp_jinja_call_t *call, qp_jv_string_t **s)
{
    qp_jv_t string;
    QP_TRY(qp_jv_to_string(call->run, &call->self, &string));
    *s = string.as.s;
    return NULL;
}

/* An argument as str() writes it. */
static qp_error_t argument_text(const qp_jinja_call_t *call, int at, qp_jv_string_t **s)
{
    qp_jv_t string;
    QP_TRY(qp_jv_to_string(call->run, &call->arg[at], &string));
    *s = string.as.s;
    return NULL;
}

static qp_error_t must_be_text(const qp_jinja_call_t *call)
{
    if (call->self.type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(&call->self);
    if (call->self.type != QP_JV_STRING)
        return QP_ERROR(QP_INPUT, "the filter needs a str, not a %s", qp_jv_type_name(&call->self));
    return NULL;
}

/* --- case and space --------------------------------------------------------------------------- */

static qp_error_t to_case(const qp_jinja_call_t *call, qp_jinja_case_t how, qp_jv_t *result)
{
    qp_jv_string_t *s = NULL;
    QP_TRY(text_of(call, &s));
    return qp_jinja_to_case(call->run, s, how, result);
}

static qp_error_t upper(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return to_case(call, QP_JINJA_UPPER, result);
}

static qp_error_t lower(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return to_case(call, QP_JINJA_LOWER, result);
}

static qp_error_t capitalize(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return to_case(call, QP_JINJA_CAPITALIZE, result);
}

/* Unlike str.title, words begin behind space, - and opening brackets only. */
static qp_error_t title(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_string_t *s = NULL;
    qp_jinja_text_t text = {.arena = &call->run->arena};
    QP_TRY(text_of(call, &s));
    QP_TRY(qp_jinja_spend(call->run, 2 * s->n));
    bool begins = true;
    for (size_t i = 0, n; i < s->n; i += n) {
        n = qp_utf8_length(s->data[i]);
        qp_jv_string_t one = {.data = s->data + i, .n = n, .n_chars = 1};
        qp_jv_t mapped;
        QP_TRY(
            qp_jinja_to_case(call->run, &one, begins ? QP_JINJA_UPPER : QP_JINJA_LOWER, &mapped));
        qp_jinja_put(&text, mapped.as.s->data, mapped.as.s->n);
        begins = qp_jinja_space_at(one.data, one.data + n) > 0 ||
                 (n == 1 && s->data[i] != '\0' && strchr("-({[<", s->data[i]) != NULL);
    }
    *result = qp_jv_string_of(&text);
    return NULL;
}

static qp_error_t trim(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_string_t *s = NULL, *chars = NULL;
    QP_TRY(text_of(call, &s));
    if (qp_jinja_given(call, 0))
        QP_TRY(qp_jinja_want_string(call, 0, &chars));
    return qp_jinja_strip(call->run, s, chars, QP_JINJA_LEFT | QP_JINJA_RIGHT, result);
}

static qp_error_t center(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const qp_jv_string_t space = {.data = " ", .n = 1, .n_chars = 1};
    qp_jv_string_t *s = NULL;
    int64_t width = 0;
    QP_TRY(text_of(call, &s));
    QP_TRY(qp_jinja_want_int(call, 0, 80, &width));
    return qp_jinja_pad(call->run, s, width, &space, 0, result);
}

/* --- parts ------------------------------------------------------------------------------------ */

static qp_error_t replace(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_string_t *s = NULL, *old = NULL, *with = NULL;
    int64_t count = -1;
    QP_TRY(text_of(call, &s));
    QP_TRY(argument_text(call, 0, &old));
    QP_TRY(argument_text(call, 1, &with));
    if (qp_jinja_given(call, 2))
        QP_TRY(qp_jinja_want_int(call, 2, -1, &count));
    return qp_jinja_replace(call->run, s, old, with, count, result);
}

/* Indention of lines: a number of spaces, or the text itself. */
static qp_error_t indention(const qp_jinja_call_t *call, qp_jv_string_t **s)
{
    const qp_jv_t space = qp_jv_name(&call->run->arena, " ");
    int64_t width = 4;
    qp_jv_t made;
    if (call->arg[0].type == QP_JV_STRING)
        return qp_jinja_want_string(call, 0, s);
    QP_TRY(qp_jinja_want_int(call, 0, 4, &width));
    const qp_jv_t times = qp_jv_int(width);
    QP_TRY(qp_jinja_binary(call->run, QP_JO_MUL, &space, &times, &made));
    *s = made.as.s;
    return NULL;
}

static qp_error_t indent(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jinja_run_t *run = call->run;
    qp_jinja_text_t text = {.arena = &run->arena};
    const bool first = qp_jinja_flag(call, 1), blank = qp_jinja_flag(call, 2);
    const qp_jv_t line_break = qp_jv_name(&run->arena, "\n");
    qp_jv_t ended, lines;
    qp_jv_string_t *in = NULL;
    QP_TRY(must_be_text(call));
    QP_TRY(indention(call, &in));
    QP_TRY(qp_jinja_binary(run, QP_JO_ADD, &call->self, &line_break, &ended));
    QP_TRY(qp_jinja_split_lines(run, ended.as.s, false, &lines));
    for (int64_t i = 0; i < lines.as.list->n; i++) {
        const qp_jv_string_t *line = lines.as.list->at[i].as.s;
        QP_TRY(qp_jinja_spend(run, in->n + line->n));
        if (i > 0)
            qp_jinja_put(&text, "\n", 1);
        if (i == 0 ? first : blank || line->n > 0)
            qp_jinja_put(&text, in->data, in->n);
        qp_jinja_put(&text, line->data, line->n);
    }
    *result = qp_jv_string_of(&text);
    return NULL;
}

static qp_error_t cut(const qp_jinja_call_t *call, int64_t n, bool words, const qp_jv_string_t *end,
                      qp_jv_t *result)
{
    qp_jinja_text_t text = {.arena = &call->run->arena};
    const qp_jv_string_t *s = call->self.as.s;
    size_t stop = qp_jv_offset(call->self.as.s, n);
    const char *space = words ? memrchr(s->data, ' ', stop) : NULL;
    if (space != NULL)
        stop = (size_t)(space - s->data);
    qp_jinja_put(&text, s->data, stop);
    qp_jinja_put(&text, end->data, end->n);
    *result = qp_jv_string_of(&text);
    return NULL;
}

static qp_error_t truncate_text(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_string_t dots = {.data = "...", .n = 3, .n_chars = 3}, *end = &dots;
    int64_t length = 255, leeway = 5, n = 0;
    QP_TRY(qp_jinja_want_int(call, 0, 255, &length));
    if (call->arg[2].type != QP_JV_MISSING)
        QP_TRY(qp_jinja_want_string(call, 2, &end));
    if (qp_jinja_given(call, 3))
        QP_TRY(qp_jinja_want_int(call, 3, 5, &leeway));
    if (length < qp_jv_length(end) || leeway < 0)
        return QP_ERROR(QP_INPUT, "truncate: to %lld characters with a leeway of %lld",
                        (long long)length, (long long)leeway);
    *result = call->self;
    QP_TRY(qp_jinja_len(call->run, &call->self, &n));
    if (n - leeway <= length) /* whatever has a length */
        return NULL;
    QP_TRY(must_be_text(call));
    QP_TRY(qp_jinja_spend(call->run, call->self.as.s->n));
    return cut(call, length - qp_jv_length(end), !qp_jinja_flag(call, 1), end, result);
}

static qp_error_t wordcount(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_string_t *s = NULL;
    int64_t n_word = 0;
    bool inside = false;
    QP_TRY(text_of(call, &s));
    QP_TRY(qp_jinja_spend(call->run, s->n));
    for (size_t i = 0, n; i < s->n; i += n) {
        const uint32_t code = qp_utf8_decode(s->data + i, &n);
        const bool word = code == '_' || qp_jinja_is_alpha(code) || qp_jinja_is_numeric(code);
        n_word += word && !inside;
        inside = word;
    }
    *result = qp_jv_int(n_word);
    return NULL;
}

static void put_quoted(qp_jinja_text_t *text, const qp_jv_string_t *s, bool query)
{
    for (size_t i = 0; i < s->n; i++) {
        const char c = s->data[i];
        char buffer[8];
        if (isalnum((unsigned char)c) || (c != '\0' && strchr("_.-~", c) != NULL) ||
            (c == '/' && !query))
            qp_jinja_put(text, &c, 1);
        else if (c == ' ' && query)
            qp_jinja_put(text, "+", 1);
        else {
            snprintf(buffer, sizeof buffer, "%%%02X", (unsigned char)c);
            qp_jinja_puts(text, buffer);
        }
    }
}

static qp_error_t urlencode(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jinja_text_t text = {.arena = &call->run->arena};
    const qp_jv_dict_t *dict = call->self.as.dict;
    qp_jv_t string;
    if (call->self.type == QP_JV_DICT) {
        for (int64_t i = 0; i < 2 * dict->n; i++) {
            QP_TRY(qp_jv_to_string(call->run, i % 2 == 0 ? &dict->key[i / 2] : &dict->value[i / 2],
                                   &string));
            if (i > 0)
                qp_jinja_puts(&text, i % 2 == 0 ? "&" : "=");
            QP_TRY(qp_jinja_spend(call->run, 3 * string.as.s->n));
            put_quoted(&text, string.as.s, true);
        }
    } else if (call->self.type == QP_JV_STRING || !qp_jv_is_iterable(&call->self)) {
        QP_TRY(qp_jv_to_string(call->run, &call->self, &string));
        QP_TRY(qp_jinja_spend(call->run, 3 * string.as.s->n));
        put_quoted(&text, string.as.s, false);
    } else {
        return QP_ERROR(QP_INPUT, "urlencode of a %s is not supported",
                        qp_jv_type_name(&call->self));
    }
    *result = qp_jv_string_of(&text);
    return NULL;
}

static qp_error_t format(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const qp_jinja_given_t *given = &call->given;
    qp_jv_string_t *s = NULL;
    qp_jv_t values = qp_jv_list(&call->run->arena, QP_JV_TUPLE, given->arg, given->n);
    if (given->n > 0 && given->n_key > 0)
        return QP_ERROR(QP_INPUT, "format takes positional arguments or keywords, not both");
    QP_TRY(text_of(call, &s));
    if (given->n_key > 0)
        values = qp_jv_dict(&call->run->arena);
    for (int64_t i = 0; i < given->n_key; i++)
        qp_jv_set_name(&call->run->arena, values.as.dict, given->key[i], &given->value[i]);
    return qp_jinja_percent(call->run, s, &values, result);
}

const qp_jinja_builtin_t qp_jinja_text_filters[] = {
    {"capitalize", "", 0, capitalize, false},
    {"center", "width", 0, center, false},
    {"filesizeformat", NULL, 0, NULL, false},
    {"format", NULL, 0, format, false},
    {"indent", "width,first,blank", 0, indent, false},
    {"lower", "", 0, lower, false},
    {"pprint", NULL, 0, NULL, false},
    {"replace", "old,new,count", 2, replace, true},
    {"striptags", NULL, 0, NULL, false},
    {"title", "", 0, title, false},
    {"trim", "chars", 0, trim, false},
    {"truncate", "length,killwords,end,leeway", 0, truncate_text, false},
    {"upper", "", 0, upper, false},
    {"urlencode", "", 0, urlencode, false},
    {"urlize", NULL, 0, NULL, false},
    {"wordcount", "", 0, wordcount, true},
    {"wordwrap", NULL, 0, NULL, false},
    {"xmlattr", NULL, 0, NULL, false},
    {.name = NULL},
};
