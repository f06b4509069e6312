/* Filters of other single values: marking safe, numbers, JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"

/* --- marking safe ----------------------------------------------------------------------------- */

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
    if (precision < 0 || precision > 22)
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

const qp_jinja_builtin_t qp_jinja_value_filters[] = {
    {"abs", "", 0, absolute, false},
    {"attr", "name", 1, attribute, false},
    {"count", "", 0, length, true},
    {"d", "default_value,boolean", 0, otherwise, true},
    {"default", "default_value,boolean", 0, otherwise, true},
    {"e", "", 0, escape, true},
    {"escape", "", 0, escape, true},
    {"float", "default", 0, to_float, true},
    {"forceescape", "", 0, forceescape, true},
    {"int", "default,base", 0, to_int, true},
    {"length", "", 0, length, true},
    {"round", "precision,method", 0, round_number, false},
    {"safe", "", 0, safe, true},
    {"string", "", 0, string, true},
    {"tojson", "ensure_ascii,indent,separators,sort_keys", 0, tojson, true},
    {.name = NULL},
};
