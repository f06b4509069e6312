/* text % values and text.format(...) of Python. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "jinja/jinja_run.h"
#include "base/utf8.h"

/* How one value is written. */
typedef struct {
    qp_jv_string_t fill;
    char align; /* '<', '>', '^', '=' */
    char sign;  /* '-', '+', ' ' */
    bool alternate, zero, comma;
    int64_t width, precision; /* -1: not given */
    char type;                /* '\0': not given */
} spec_t;

enum { MAX_WIDTH = 100000, MAX_PRECISION = 300 };

static bool one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

static qp_error_t padded(qp_jinja_run_t *run, const spec_t *spec, const qp_jv_t *value,
                         qp_jinja_text_t *text)
{
    qp_jv_t string = *value;
    qp_jv_string_t *s = value->as.s;
    const int side = spec->align == '<' ? -1 : spec->align == '^' ? 0 : 1;
    const int64_t room = spec->width - qp_jv_length(s), left = room / 2;
    if (room > 0 && side == 0) { /* unlike str.center, the odd one goes to the right */
        QP_TRY(qp_jinja_pad(run, s, qp_jv_length(s) + left, &spec->fill, 1, &string));
        QP_TRY(qp_jinja_pad(run, string.as.s, spec->width, &spec->fill, -1, &string));
    } else {
        QP_TRY(qp_jinja_pad(run, s, spec->width, &spec->fill, side, &string));
    }
    return qp_jv_str(run, text, &string);
}

/* --- numbers ---------------------------------------------------------------------------------- */

/* Commas between groups of three of the digits before the point. */
static void put_grouped(qp_jinja_text_t *text, const char *digits, bool comma)
{
    const size_t whole = strspn(digits, "0123456789");
    for (size_t i = 0; digits[i] != '\0'; i++) {
        if (comma && i > 0 && i < whole && (whole - i) % 3 == 0)
            qp_jinja_puts(text, ",");
        qp_jinja_put(text, &digits[i], 1);
    }
}

/* A sign, a prefix (0x) and digits, filled up to the width. */
static qp_error_t put_number(qp_jinja_run_t *run, const spec_t *spec, bool negative,
                             const char *prefix, const char *digits, qp_jinja_text_t *text)
{
    qp_jinja_text_t body = {.arena = &run->arena}, all = {.arena = &run->arena};
    const char *sign = negative ? "-" : spec->sign == '+' ? "+" : spec->sign == ' ' ? " " : "";
    put_grouped(&body, digits, spec->comma);
    const bool inside = spec->align == '=' || (spec->zero && spec->align == '\0');
    if (inside && spec->comma && spec->width > 0)
        return QP_ERROR(QP_INPUT, "format: commas with zeros in front are not supported");
    qp_jinja_puts(&all, sign);
    qp_jinja_puts(&all, prefix);
    for (int64_t n = (int64_t)(all.n + body.n); inside && n < spec->width; n++)
        qp_jinja_put(&all, spec->fill.data, spec->fill.n);
    qp_jinja_put(&all, body.data, body.n);
    const qp_jv_t value = qp_jv_string_of(&all);
    spec_t rest = *spec;
    rest.align = inside || spec->align == '\0' ? '>' : spec->align;
    return padded(run, &rest, &value, text);
}

static qp_error_t put_integer(qp_jinja_run_t *run, const spec_t *spec, int64_t value,
                              qp_jinja_text_t *text)
{
    char digits[72];
    size_t at = sizeof digits - 1;
    const unsigned base = spec->type == 'x' || spec->type == 'X' ? 16
                          : spec->type == 'o'                    ? 8
                          : spec->type == 'b'                    ? 2
                                                                 : 10;
    const char *letters = spec->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    char prefix[3] = {'0', spec->type, '\0'};
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    digits[at] = '\0';
    do {
        digits[--at] = letters[rest % base];
        rest /= base;
    } while (rest > 0);
    return put_number(run, spec, value < 0, spec->alternate && base != 10 ? prefix : "",
                      digits + at, text);
}

static qp_error_t put_real(qp_jinja_run_t *run, const spec_t *spec, double value,
                           qp_jinja_text_t *text)
{
    const int precision = spec->precision < 0 ? 6 : (int)spec->precision;
    char how[8], digits[MAX_PRECISION + 400];
    const char type = spec->type == '%' ? 'f' : spec->type == 'n' ? 'g' : spec->type;
    if (spec->type == '%')
        value *= 100;
    snprintf(how, sizeof how, "%%%s.*%c", spec->alternate ? "#" : "", type);
    const bool negative = value < 0 || (value == 0 && 1 / value < 0);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int n = snprintf(digits, sizeof digits - 1, how, precision, negative ? -value : value);
#pragma GCC diagnostic pop
    if (spec->type == '%') {
        digits[n++] = '%';
        digits[n] = '\0';
    }
    return put_number(run, spec, negative, "", digits, text);
}

/* --- % ---------------------------------------------------------------------------------------- */

typedef struct {
    qp_jinja_run_t *run;
    const char *at, *end;
    const qp_jv_t *values;
    int64_t used;
    bool named;
} percent_t;

static qp_error_t cut_short(void)
{
    return QP_ERROR(QP_INPUT, "%%: the format ends too early");
}

static qp_error_t next_value(percent_t *p, qp_jv_t *value)
{
    const bool tuple = p->values->type == QP_JV_TUPLE;
    if (p->used >= (tuple ? p->values->as.list->n : 1))
        return QP_ERROR(QP_INPUT, "%%: more values are needed than given");
    *value = tuple ? p->values->as.list->at[p->used] : *p->values;
    p->used++;
    return NULL;
}

/* The value of "(name)", if it stands here. */
static qp_error_t named_value(percent_t *p, qp_jv_t *value, bool *found)
{
    *found = p->at < p->end && *p->at == '(';
    if (!*found)
        return NULL;
    const char *close = memchr(p->at, ')', (size_t)(p->end - p->at));
    if (close == NULL || memchr(p->at + 1, '(', (size_t)(close - p->at - 1)) != NULL)
        return QP_ERROR(QP_INPUT, "%%: a name in parentheses has no simple end");
    if (p->values->type != QP_JV_DICT)
        return QP_ERROR(QP_INPUT, "%%: a name needs a dict");
    const qp_jv_t *of = qp_jv_get_text(p->values->as.dict, p->at + 1, (size_t)(close - p->at - 1));
    if (of == NULL)
        return QP_ERROR(QP_INPUT, "%%: no value is called '%.*s'", (int)(close - p->at - 1),
                        p->at + 1);
    *value = *of;
    p->at = close + 1;
    p->named = true;
    return NULL;
}

static qp_error_t read_count(percent_t *p, int64_t limit, int64_t *count)
{
    if (p->at < p->end && *p->at == '*')
        return QP_ERROR(QP_INPUT, "%%: a width of * is not supported");
    for (*count = 0; p->at < p->end && isdigit((unsigned char)*p->at); p->at++)
        if (*count <= limit)
            *count = *count * 10 + *p->at - '0';
    if (*count > limit)
        return QP_ERROR(QP_INPUT, "a width or precision beyond %lld is not supported",
                        (long long)limit);
    return NULL;
}

static qp_error_t read_percent_spec(percent_t *p, spec_t *spec)
{
    bool left = false;
    *spec = (spec_t){.fill = {.data = " ", .n = 1, .n_chars = 1}, .sign = '-', .precision = -1};
    for (; p->at < p->end && one_of(*p->at, "-+ 0#"); p->at++) {
        left = left || *p->at == '-';
        spec->zero = spec->zero || *p->at == '0';
        spec->alternate = spec->alternate || *p->at == '#';
        if (*p->at == '+' || (*p->at == ' ' && spec->sign != '+'))
            spec->sign = *p->at;
    }
    QP_TRY(read_count(p, MAX_WIDTH, &spec->width));
    if (p->at < p->end && *p->at == '.') {
        p->at++;
        QP_TRY(read_count(p, MAX_PRECISION, &spec->precision));
    }
    while (p->at < p->end && one_of(*p->at, "hlL"))
        p->at++;
    if (p->at == p->end)
        return cut_short();
    spec->type = *p->at++;
    spec->align = left ? '<' : '\0';
    if (spec->zero && !left)
        spec->fill.data = "0";
    return NULL;
}

static qp_error_t percent_text(percent_t *p, spec_t *spec, const qp_jv_t *value,
                               qp_jinja_text_t *text)
{
    qp_jinja_text_t written = {.arena = &p->run->arena};
    QP_TRY(spec->type == 'r' ? qp_jv_repr(p->run, &written, value)
                             : qp_jv_str(p->run, &written, value));
    qp_jv_t string = qp_jv_string_of(&written);
    if (spec->precision >= 0 && qp_jv_length(string.as.s) > spec->precision)
        string = qp_jv_string_at(&p->run->arena, string.as.s->data,
                                 qp_jv_offset(string.as.s, spec->precision));
    spec->fill.data = " ";
    spec->align = spec->align == '<' ? '<' : '>';
    return padded(p->run, spec, &string, text);
}

static qp_error_t percent_value(percent_t *p, spec_t *spec, const qp_jv_t *value,
                                qp_jinja_text_t *text)
{
    if (spec->type == 's' || spec->type == 'r')
        return percent_text(p, spec, value, text);
    if (value->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(value);
    if (!qp_jv_is_number(value))
        return QP_ERROR(QP_INPUT, "%%%c needs a number, not a %s", spec->type,
                        qp_jv_type_name(value));
    if (one_of(spec->type, "fFeEgG"))
        return put_real(p->run, spec, qp_jv_as_double(value), text);
    const bool decimal = one_of(spec->type, "diu");
    if (value->type == QP_JV_FLOAT && (!decimal || value->as.f < -9.2e18 || value->as.f > 9.2e18))
        return QP_ERROR(QP_INPUT, "%%%c of a float is not supported", spec->type);
    if (spec->precision >= 0)
        return QP_ERROR(QP_INPUT, "%%%c with a precision is not supported", spec->type);
    return put_integer(p->run, spec,
                       value->type == QP_JV_FLOAT ? (int64_t)value->as.f : value->as.i, text);
}

static qp_error_t percent_one(percent_t *p, qp_jinja_text_t *text)
{
    spec_t spec;
    qp_jv_t value;
    bool named = false;
    QP_TRY(named_value(p, &value, &named));
    QP_TRY(read_percent_spec(p, &spec));
    if (spec.type == '%') {
        qp_jinja_puts(text, "%");
        return NULL;
    }
    if (!one_of(spec.type, "srdiufFeEgGxXo"))
        return QP_ERROR(QP_INPUT, "%%%c is not supported", spec.type);
    if (!named)
        QP_TRY(next_value(p, &value));
    return percent_value(p, &spec, &value, text);
}

qp_error_t qp_jinja_percent(qp_jinja_run_t *run, const qp_jv_string_t *format,
                            const qp_jv_t *values, qp_jv_t *result)
{
    percent_t p = {
        .run = run, .at = format->data, .end = format->data + format->n, .values = values};
    qp_jinja_text_t text = {.arena = &run->arena};
    QP_TRY(qp_jinja_spend(run, format->n));
    while (p.at < p.end) {
        const char *sign = memchr(p.at, '%', (size_t)(p.end - p.at));
        const char *stop = sign != NULL ? sign : p.end;
        qp_jinja_put(&text, p.at, (size_t)(stop - p.at));
        p.at = stop;
        if (sign == NULL)
            break;
        p.at++;
        QP_TRY(percent_one(&p, &text));
    }
    /* a mapping or a sequence with subscripts may stay unused, as Python has it */
    const bool tuple = values->type == QP_JV_TUPLE,
               may_stay = values->type == QP_JV_DICT || values->type == QP_JV_LIST ||
                          values->type == QP_JV_RANGE || values->type == QP_JV_UNDEFINED;
    if (!p.named && !may_stay && p.used < (tuple ? values->as.list->n : 1))
        return QP_ERROR(QP_INPUT, "%%: not all values are used");
    *result = qp_jv_string_of(&text);
    return NULL;
}

/* --- str.format ------------------------------------------------------------------------------- */

typedef struct {
    qp_jinja_run_t *run;
    const qp_jinja_given_t *given;
    int64_t automatic; /* number of the next {} */
    bool manual;       /* {0} was used */
} format_t;

/* An argument by number or name. */
static qp_error_t field_base(format_t *f, const char *name, size_t n, qp_jv_t *value)
{
    char *end = NULL;
    char *copy = qp_format("%.*s", (int)n, name);
    const bool digits = n > 0 && strspn(copy, "0123456789") == n;
    int64_t index = digits ? strtoll(copy, &end, 10) : -1;
    qp_free(copy);
    if (n == 0 ? f->manual : digits && f->automatic > 0)
        return QP_ERROR(QP_INPUT, "format: {} and numbers do not mix");
    if (n == 0)
        index = f->automatic++;
    f->manual = f->manual || digits;
    if (index >= 0 && index < f->given->n) {
        *value = f->given->arg[index];
        return NULL;
    }
    for (int64_t i = 0; index < 0 && i < f->given->n_key; i++)
        if (qp_jv_equals_text(f->given->key[i], name, n)) {
            *value = f->given->value[i];
            return NULL;
        }
    return QP_ERROR(QP_INPUT, "format: there is no argument '%.*s'", (int)n, name);
}

/* .name and [key] behind an argument. */
static qp_error_t field_path(format_t *f, const char *at, const char *end, qp_jv_t *value)
{
    while (at < end) {
        const bool item = *at++ == '[';
        const char *stop = at;
        while (stop < end && (item ? *stop != ']' : *stop != '.' && *stop != '['))
            stop++;
        if (stop == at || (item && stop == end))
            return QP_ERROR(QP_INPUT, "format: a field has a wrong path");
        const qp_jv_t owner = *value;
        qp_jv_t key = qp_jv_string(&f->run->arena, at, (size_t)(stop - at));
        int64_t index = 0;
        bool number = false;
        if (item && strspn(key.as.s->data, "0123456789") == key.as.s->n)
            QP_TRY(qp_jinja_read_int(f->run, key.as.s, 10, &index, &number));
        if (number)
            key = qp_jv_int(index);
        QP_TRY(item ? qp_jinja_getitem(f->run, &owner, &key, value)
                    : qp_jinja_getattr(f->run, &owner, key.as.s, value));
        at = stop + item;
        if (item && at < end && *at != '.' && *at != '[')
            return QP_ERROR(QP_INPUT, "format: a field has a wrong path");
    }
    return NULL;
}

static int64_t read_digits(const char **at, const char *end)
{
    int64_t value = 0;
    for (; *at < end && isdigit((unsigned char)**at); (*at)++)
        value = value > MAX_WIDTH ? value : value * 10 + **at - '0';
    return value;
}

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static qp_error_t read_spec(const char *at, const char *end, spec_t *spec)
{
    static const char aligns[] = "<>=^";
    *spec = (spec_t){.fill = {.data = " ", .n = 1, .n_chars = 1}, .sign = '-', .precision = -1};
    const size_t first = at < end ? qp_utf8_length(*at) : 0;
    if (at + first < end && first > 0 && one_of(at[first], aligns)) {
        spec->fill = (qp_jv_string_t){.data = at, .n = first, .n_chars = 1};
        spec->align = at[first];
        at += first + 1;
    } else if (at < end && one_of(*at, aligns)) {
        spec->align = *at++;
    }
    if (at < end && one_of(*at, "+- "))
        spec->sign = *at++;
    if (at < end && *at == '#')
        spec->alternate = *at++ != '\0';
    if (at < end && *at == '0') {
        spec->zero = true;
        if (spec->align == '\0')
            spec->fill.data = "0";
        at++;
    }
    spec->width = read_digits(&at, end);
    if (at < end && *at == ',')
        spec->comma = *at++ != '\0';
    if (at < end && *at == '.') {
        at++;
        if (at == end || !isdigit((unsigned char)*at))
            return QP_ERROR(QP_INPUT, "format: a precision is missing");
        spec->precision = read_digits(&at, end);
    }
    if (at < end)
        spec->type = *at++;
    if (at < end || spec->width > MAX_WIDTH || spec->precision > MAX_PRECISION)
        return QP_ERROR(QP_INPUT, "format: a format of a field is not supported");
    return NULL;
}

static qp_error_t format_text(format_t *f, spec_t *spec, const qp_jv_t *value,
                              qp_jinja_text_t *text)
{
    qp_jv_t string = *value;
    if ((spec->type != '\0' && spec->type != 's') || spec->sign != '-' || spec->alternate ||
        spec->comma || spec->zero || spec->align == '=')
        return QP_ERROR(QP_INPUT, "format: a format of a str is not supported");
    if (spec->precision >= 0 && qp_jv_length(string.as.s) > spec->precision)
        string = qp_jv_string_at(&f->run->arena, string.as.s->data,
                                 qp_jv_offset(string.as.s, spec->precision));
    spec->align = spec->align == '\0' ? '<' : spec->align;
    return padded(f->run, spec, &string, text);
}

static qp_error_t format_number(format_t *f, const spec_t *spec, const qp_jv_t *value,
                                qp_jinja_text_t *text)
{
    const bool real = value->type == QP_JV_FLOAT;
    if (value->type == QP_JV_BOOL && spec->type == '\0')
        return QP_ERROR(QP_INPUT, "format: a format of a bool is not supported");
    if (one_of(spec->type, "fFeEgG%")) {
        if (spec->alternate && spec->type == '%')
            return QP_ERROR(QP_INPUT, "format: # with %% is not supported");
        return put_real(f->run, spec, qp_jv_as_double(value), text);
    }
    if (real || (spec->type != '\0' && !one_of(spec->type, "dxXob")) || spec->precision >= 0 ||
        (spec->comma && spec->type != '\0' && spec->type != 'd'))
        return QP_ERROR(QP_INPUT, "format: a format of a %s is not supported",
                        qp_jv_type_name(value));
    return put_integer(f->run, spec, value->as.i, text);
}

/* A replacement field without its braces: name!conversion:spec. */
static qp_error_t format_field(format_t *f, const char *at, const char *end, qp_jinja_text_t *text)
{
    const char *stop = at, *path = at;
    spec_t spec;
    qp_jv_t value;
    bool bracket = false;
    for (; stop < end && (bracket || (*stop != '!' && *stop != ':')); stop++)
        bracket = bracket ? *stop != ']' : *stop == '[';
    while (path < stop && *path != '.' && *path != '[')
        path++;
    QP_TRY(field_base(f, at, (size_t)(path - at), &value));
    QP_TRY(field_path(f, path, stop, &value));
    if (stop < end && *stop == '!') {
        qp_jinja_text_t written = {.arena = &f->run->arena};
        if (end - stop < 2 || (stop[1] != 's' && stop[1] != 'r'))
            return QP_ERROR(QP_INPUT, "format: a conversion is not supported");
        QP_TRY(stop[1] == 'r' ? qp_jv_repr(f->run, &written, &value)
                              : qp_jv_str(f->run, &written, &value));
        value = qp_jv_string_of(&written);
        stop += 2;
    }
    if (stop < end && *stop++ != ':')
        return QP_ERROR(QP_INPUT, "format: a field has a wrong end");
    if (stop == end)
        return qp_jv_str(f->run, text, &value);
    QP_TRY(read_spec(stop, end, &spec));
    if (value.type == QP_JV_STRING)
        return format_text(f, &spec, &value, text);
    if (qp_jv_is_number(&value))
        return format_number(f, &spec, &value, text);
    return QP_ERROR(QP_INPUT, "format: a format of a %s is not supported", qp_jv_type_name(&value));
}

qp_error_t qp_jinja_format(qp_jinja_run_t *run, const qp_jv_string_t *format,
                           const qp_jinja_given_t *given, qp_jv_t *result)
{
    format_t f = {.run = run, .given = given};
    qp_jinja_text_t text = {.arena = &run->arena};
    const char *end = format->data + format->n;
    QP_TRY(qp_jinja_spend(run, format->n));
    for (const char *at = format->data; at < end; at++) {
        const bool twice = at + 1 < end && at[1] == *at;
        if (*at != '{' && *at != '}') {
            qp_jinja_put(&text, at, 1);
        } else if (twice) {
            qp_jinja_put(&text, at++, 1);
        } else {
            const char *close = *at == '{' ? memchr(at, '}', (size_t)(end - at)) : NULL;
            if (close == NULL)
                return QP_ERROR(QP_INPUT, "format: a single '%c'", *at);
            if (memchr(at + 1, '{', (size_t)(close - at - 1)) != NULL)
                return QP_ERROR(QP_INPUT, "format: fields in fields are not supported");
            QP_TRY(format_field(&f, at + 1, close, &text));
            at = close;
        }
    }
    *result = qp_jv_string_of(&text);
    return NULL;
}
