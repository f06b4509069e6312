/* Filters of single values. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/jinja_run.h"
#include "text/tokenizer_utf8.h"

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

/* --- case and space ------------------------------------------------------------------------------
 */

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
                 (n == 1 && strchr("-({[<", s->data[i]) != NULL && s->data[i] != '\0');
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
    if (call->arg[0].type == QP_JV_NONE)
        return QP_ERROR(QP_INPUT, "indent: the width is None");
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
    int64_t length = 255, leeway = 5;
    QP_TRY(must_be_text(call));
    QP_TRY(qp_jinja_want_int(call, 0, 255, &length));
    if (call->arg[2].type != QP_JV_MISSING)
        QP_TRY(qp_jinja_want_string(call, 2, &end));
    QP_TRY(qp_jinja_want_int(call, 3, 5, &leeway));
    if (length < qp_jv_length(end) || leeway < 0)
        return QP_ERROR(QP_INPUT, "truncate: to %lld characters with a leeway of %lld",
                        (long long)length, (long long)leeway);
    *result = call->self;
    QP_TRY(qp_jinja_spend(call->run, call->self.as.s->n));
    if (qp_jv_length(call->self.as.s) - leeway <= length)
        return NULL;
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

/* --- marking safe ------------------------------------------------------------------------------
 */

qp_error_t qp_jinja_escape(qp_jinja_run_t *run, const qp_jv_t *value, qp_jv_t *result)
{
    static const struct {
        char c;
        const char *escape;
    } escapes[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
    qp_jinja_text_t text = {.arena = &run->arena};
    qp_jv_t string;
    *result = *value;
    if (value->type == QP_JV_STRING && value->as.s->markup)
        return NULL;
    QP_TRY(qp_jv_to_string(run, value, &string));
    QP_TRY(qp_jinja_spend(run, 5 * string.as.s->n));
    for (size_t i = 0; i < string.as.s->n; i++) {
        const char *c = string.as.s->data + i, *escape = NULL;
        for (size_t j = 0; j < sizeof escapes / sizeof *escapes; j++)
            if (escapes[j].c == *c)
                escape = escapes[j].escape;
        qp_jinja_put(&text, escape != NULL ? escape : c, escape != NULL ? strlen(escape) : 1);
    }
    *result = qp_jv_string_of(&text);
    result->as.s->markup = true;
    return NULL;
}

static qp_error_t escape(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return qp_jinja_escape(call->run, &call->self, result);
}

static qp_error_t forceescape(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_t string;
    QP_TRY(qp_jv_to_string(call->run, &call->self, &string));
    return qp_jinja_escape(call->run, &string, result);
}

static qp_error_t safe(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_t string;
    QP_TRY(qp_jv_to_string(call->run, &call->self, &string));
    *result = qp_jv_string_at(&call->run->arena, string.as.s->data, string.as.s->n);
    result->as.s->markup = true;
    return NULL;
}

static qp_error_t string(const qp_jinja_call_t *call, qp_jv_t *result)
{
    *result = call->self;
    return call->self.type == QP_JV_STRING ? NULL : qp_jv_to_string(call->run, &call->self, result);
}

/* --- numbers ---------------------------------------------------------------------------------- */

static qp_error_t integer_of(double value, qp_jv_t *result)
{
    if (!(value > -9.2e18 && value < 9.2e18))
        return QP_ERROR(QP_INPUT, "int: beyond 64-bit integers, which is not supported");
    *result = qp_jv_int((int64_t)value);
    return NULL;
}

static qp_error_t to_int(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const qp_jv_t *self = &call->self;
    int64_t base = 10, value = 0;
    double real = 0;
    bool is_number = false;
    *result = call->arg[0].type == QP_JV_MISSING ? qp_jv_int(0) : call->arg[0];
    if (self->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(self);
    if (self->type == QP_JV_FLOAT)
        return integer_of(self->as.f, result);
    if (qp_jv_is_integer(self))
        *result = qp_jv_int(self->as.i);
    if (self->type != QP_JV_STRING)
        return NULL;
    if (call->arg[1].type == QP_JV_NONE)
        return QP_ERROR(QP_INPUT, "int: the base is None");
    QP_TRY(qp_jinja_want_int(call, 1, 10, &base));
    QP_TRY(qp_jinja_read_int(call->run, self->as.s, base, &value, &is_number));
    if (is_number) {
        *result = qp_jv_int(value);
        return NULL;
    }
    QP_TRY(qp_jinja_read_float(call->run, self->as.s, &real, &is_number));
    return is_number ? integer_of(real, result) : NULL;
}

static qp_error_t to_float(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const qp_jv_t *self = &call->self;
    double real = 0;
    bool is_number = false;
    *result = call->arg[0].type == QP_JV_MISSING ? qp_jv_float(0) : call->arg[0];
    if (self->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(self);
    if (qp_jv_is_number(self))
        *result = qp_jv_float(qp_jv_as_double(self));
    if (self->type == QP_JV_STRING)
        QP_TRY(qp_jinja_read_float(call->run, self->as.s, &real, &is_number));
    if (is_number)
        *result = qp_jv_float(real);
    return NULL;
}

static qp_error_t must_be_number(const qp_jinja_call_t *call)
{
    if (call->self.type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(&call->self);
    if (!qp_jv_is_number(&call->self))
        return QP_ERROR(QP_INPUT, "the filter needs a number, not a %s",
                        qp_jv_type_name(&call->self));
    return NULL;
}

static qp_error_t absolute(const qp_jinja_call_t *call, qp_jv_t *result)
{
    QP_TRY(must_be_number(call));
    const qp_jv_t zero = qp_jv_int(0);
    if (call->self.type == QP_JV_FLOAT)
        *result = qp_jv_float(fabs(call->self.as.f));
    else
        return qp_jinja_binary(call->run, call->self.as.i < 0 ? QP_JO_SUB : QP_JO_ADD, &zero,
                               &call->self, result);
    return NULL;
}

/* ceil or floor of value * 10^precision, divided again, as Jinja2 computes it. */
static qp_error_t round_towards(const qp_jinja_call_t *call, int64_t precision, bool up,
                                qp_jv_t *result)
{
    const qp_jv_t ten = qp_jv_int(10), exponent = qp_jv_int(precision);
    qp_jv_t scale, scaled;
    QP_TRY(qp_jinja_binary(call->run, QP_JO_POW, &ten, &exponent, &scale));
    QP_TRY(qp_jinja_binary(call->run, QP_JO_MUL, &call->self, &scale, &scaled));
    if (scaled.type == QP_JV_FLOAT)
        QP_TRY(integer_of(up ? ceil(scaled.as.f) : floor(scaled.as.f), &scaled));
    return qp_jinja_binary(call->run, QP_JO_DIV, &scaled, &scale, result);
}

static qp_error_t round_number(const qp_jinja_call_t *call, qp_jv_t *result)
{
    int64_t precision = 0;
    char buffer[400];
    const qp_jv_t *method = &call->arg[1];
    const bool named = method->type == QP_JV_STRING,
               up = named && qp_jv_equals_text(method->as.s, "ceil", 4),
               down = named && qp_jv_equals_text(method->as.s, "floor", 5);
    if (method->type != QP_JV_MISSING && !up && !down &&
        !(named && qp_jv_equals_text(method->as.s, "common", 6)))
        return QP_ERROR(QP_INPUT, "round: the method must be common, ceil or floor");
    QP_TRY(must_be_number(call));
    QP_TRY(qp_jinja_want_int(call, 0, 0, &precision));
    if (call->arg[0].type == QP_JV_NONE || precision < 0 || precision > 22)
        return QP_ERROR(QP_INPUT, "round: the precision must be from 0 to 22 to be supported");
    if (up || down)
        return round_towards(call, precision, up, result);
    *result = qp_jv_int(call->self.as.i);
    if (call->self.type != QP_JV_FLOAT)
        return NULL;
    snprintf(buffer, sizeof buffer, "%.*f", (int)precision, call->self.as.f); /* half to even */
    *result = qp_jv_float(strtod(buffer, NULL));
    return NULL;
}

/* --- the rest --------------------------------------------------------------------------------- */

static qp_error_t otherwise(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const bool missing =
        call->self.type == QP_JV_UNDEFINED || (qp_jinja_flag(call, 1) && !qp_jv_truth(&call->self));
    *result = !missing                             ? call->self
              : call->arg[0].type != QP_JV_MISSING ? call->arg[0]
                                                   : qp_jv_name(&call->run->arena, "");
    return NULL;
}

static qp_error_t length(const qp_jinja_call_t *call, qp_jv_t *result)
{
    int64_t n = 0;
    QP_TRY(qp_jinja_len(call->run, &call->self, &n));
    *result = qp_jv_int(n);
    return NULL;
}

static qp_error_t attribute(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_string_t *name = NULL;
    bool found = false;
    QP_TRY(qp_jinja_want_string(call, 0, &name));
    const qp_jv_t copy = qp_jv_string(&call->run->arena, name->data, name->n);
    QP_TRY(qp_jinja_attribute(call->run, &call->self, copy.as.s->data, name->n, result, &found));
    if (!found)
        *result = qp_jv_undefined(&call->run->arena, "is undefined: no such attribute",
                                  copy.as.s->data, NULL);
    return NULL;
}

static qp_error_t json_indent(const qp_jinja_call_t *call, const qp_jv_string_t **in)
{
    const qp_jv_t space = qp_jv_name(&call->run->arena, " ");
    int64_t width = 0;
    qp_jv_t made;
    if (call->arg[1].type == QP_JV_STRING) {
        *in = call->arg[1].as.s;
        return NULL;
    }
    QP_TRY(qp_jinja_want_int(call, 1, 0, &width));
    const qp_jv_t times = qp_jv_int(width);
    QP_TRY(qp_jinja_binary(call->run, QP_JO_MUL, &space, &times, &made));
    *in = made.as.s;
    return NULL;
}

/* transformers' tojson: json.dumps(x, ensure_ascii=False, indent=, separators=, sort_keys=). */
static qp_error_t tojson(const qp_jinja_call_t *call, qp_jv_t *result)
{
    static const qp_jv_string_t comma = {.data = ",", .n = 1}, comma_space = {.data = ", ", .n = 2},
                                colon = {.data = ": ", .n = 2};
    qp_jinja_text_t text = {.arena = &call->run->arena};
    qp_jv_json_t how = {.ensure_ascii = qp_jinja_flag(call, 0),
                        .sort_keys = qp_jinja_flag(call, 3),
                        .between = &comma_space,
                        .behind_key = &colon};
    if (qp_jinja_given(call, 1)) {
        QP_TRY(json_indent(call, &how.indent));
        how.between = &comma;
    }
    if (qp_jinja_given(call, 2)) {
        qp_jv_t pair;
        QP_TRY(qp_jinja_collect(call->run, &call->arg[2], &pair));
        const qp_jv_list_t *list = pair.as.list;
        if (list->n != 2 || list->at[0].type != QP_JV_STRING || list->at[1].type != QP_JV_STRING)
            return QP_ERROR(QP_INPUT, "tojson: separators must be two str");
        how.between = list->at[0].as.s;
        how.behind_key = list->at[1].as.s;
    }
    QP_TRY(qp_jv_dump(call->run, &how, &text, &call->self));
    *result = qp_jv_string_of(&text);
    return NULL;
}

const qp_jinja_builtin_t qp_jinja_filters[] = {
    {"abs", "", 0, absolute, false},
    {"attr", "name", 1, attribute, false},
    {"capitalize", "", 0, capitalize, false},
    {"center", "width", 0, center, false},
    {"count", "", 0, length, true},
    {"d", "default_value,boolean", 0, otherwise, true},
    {"default", "default_value,boolean", 0, otherwise, true},
    {"e", "", 0, escape, true},
    {"escape", "", 0, escape, true},
    {"filesizeformat", NULL, 0, NULL, false},
    {"float", "default", 0, to_float, true},
    {"forceescape", "", 0, forceescape, true},
    {"format", NULL, 0, format, false},
    {"indent", "width,first,blank", 0, indent, false},
    {"int", "default,base", 0, to_int, true},
    {"length", "", 0, length, true},
    {"lower", "", 0, lower, false},
    {"pprint", NULL, 0, NULL, false},
    {"replace", "old,new,count", 2, replace, true},
    {"round", "precision,method", 0, round_number, false},
    {"safe", "", 0, safe, true},
    {"string", "", 0, string, true},
    {"striptags", NULL, 0, NULL, false},
    {"title", "", 0, title, false},
    {"tojson", "ensure_ascii,indent,separators,sort_keys", 0, tojson, true},
    {"trim", "chars", 0, trim, false},
    {"truncate", "length,killwords,end,leeway", 0, truncate_text, false},
    {"upper", "", 0, upper, false},
    {"urlencode", "", 0, urlencode, false},
    {"urlize", NULL, 0, NULL, false},
    {"wordcount", "", 0, wordcount, true},
    {"wordwrap", NULL, 0, NULL, false},
    {"xmlattr", NULL, 0, NULL, false},
    {NULL},
};
