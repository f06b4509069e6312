/* Values to text: str() and repr() of Python, json.dumps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"
#include "base/utf8.h"

/* --- numbers ---------------------------------------------------------------------------------- */

static void put_int(qp_jinja_text_t *text, int64_t value)
{
    char buffer[32];
    snprintf(buffer, sizeof buffer, "%lld", (long long)value);
    qp_jinja_puts(text, buffer);
}

/* Digits without point and the exponent of the first one, as few digits as read back the same. */
static int shortest(double value, char digits[20])
{
    char buffer[40];
    for (int n = 0; n < 17; n++) {
        snprintf(buffer, sizeof buffer, "%.*e", n, value);
        if (strtod(buffer, NULL) == value)
            break;
    }
    char *exponent = strchr(buffer, 'e');
    size_t n = 0;
    for (const char *c = buffer; c < exponent; c++)
        if (*c != '.')
            digits[n++] = *c;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
    return (int)strtol(exponent + 1, NULL, 10);
}

void qp_jv_put_float(qp_jinja_text_t *text, double value)
{
    char digits[20], buffer[80];
    if (signbit(value))
        qp_jinja_puts(text, "-");
    const int exponent = shortest(fabs(value), digits), n = (int)strlen(digits);
    if (exponent < -4 || exponent >= 16) {
        snprintf(buffer, sizeof buffer, "%c%s%se%c%02d", digits[0], n > 1 ? "." : "", digits + 1,
                 exponent < 0 ? '-' : '+', abs(exponent));
    } else if (exponent < 0) {
        snprintf(buffer, sizeof buffer, "0.%.*s%s", -exponent - 1, "0000", digits);
    } else if (n <= exponent + 1) {
        snprintf(buffer, sizeof buffer, "%s%.*s.0", digits, exponent + 1 - n, "0000000000000000");
    } else {
        snprintf(buffer, sizeof buffer, "%.*s.%s", exponent + 1, digits, digits + exponent + 1);
    }
    qp_jinja_puts(text, buffer);
}

/* --- repr() ----------------------------------------------------------------------------------- */

static bool is_printable(uint32_t code)
{
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return code == ' ';
    default:
        return true;
    }
}

static void put_quoted_char(qp_jinja_text_t *text, const char *at, size_t n, char quote)
{
    static const char from[] = "\t\n\r\\", to[] = "tnr\\";
    const char *known = n == 1 && *at != '\0' ? strchr(from, *at) : NULL;
    char buffer[16] = "";
    size_t length = 0;
    const uint32_t code = n == 1 ? (unsigned char)*at : qp_utf8_decode(at, &length);
    if (known != NULL)
        snprintf(buffer, sizeof buffer, "\\%c", to[known - from]);
    else if (n == 1 && *at == quote)
        snprintf(buffer, sizeof buffer, "\\%c", quote);
    else if (is_printable(code))
        qp_jinja_put(text, at, n);
    else
        snprintf(buffer, sizeof buffer,
                 code < 0x100     ? "\\x%02x"
                 : code < 0x10000 ? "\\u%04x"
                                  : "\\U%08x",
                 code);
    qp_jinja_puts(text, buffer);
}

static void put_quoted(qp_jinja_text_t *text, const qp_jv_string_t *s)
{
    const char quote =
        memchr(s->data, '\'', s->n) != NULL && memchr(s->data, '"', s->n) == NULL ? '"' : '\'';
    qp_jinja_put(text, &quote, 1);
    for (size_t i = 0, n; i < s->n; i += n) {
        n = qp_utf8_length(s->data[i]);
        put_quoted_char(text, s->data + i, n, quote);
    }
    qp_jinja_put(text, &quote, 1);
}

static qp_error_t put_elements(qp_jinja_run_t *run, qp_jinja_text_t *text, const qp_jv_t *at,
                               int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (i > 0)
            qp_jinja_puts(text, ", ");
        QP_TRY(qp_jv_repr(run, text, &at[i]));
    }
    return NULL;
}

static qp_error_t put_list(qp_jinja_run_t *run, qp_jinja_text_t *text, const qp_jv_t *value)
{
    const qp_jv_list_t *list = value->as.list;
    const bool tuple = value->type == QP_JV_TUPLE;
    qp_jinja_puts(text, tuple ? "(" : "[");
    QP_TRY(put_elements(run, text, list->at, list->n));
    qp_jinja_puts(text, !tuple ? "]" : list->n == 1 ? ",)" : ")");
    return NULL;
}

static qp_error_t put_pairs(qp_jinja_run_t *run, qp_jinja_text_t *text, const qp_jv_dict_t *dict)
{
    qp_jinja_puts(text, "{");
    for (int64_t i = 0; i < dict->n; i++) {
        if (i > 0)
            qp_jinja_puts(text, ", ");
        QP_TRY(qp_jv_repr(run, text, &dict->key[i]));
        qp_jinja_puts(text, ": ");
        QP_TRY(qp_jv_repr(run, text, &dict->value[i]));
    }
    qp_jinja_puts(text, "}");
    return NULL;
}

static qp_error_t put_view(qp_jinja_run_t *run, qp_jinja_text_t *text, const qp_jv_view_t *view)
{
    static const char *const names[] = {"dict_keys([", "dict_values([", "dict_items(["};
    const qp_jv_dict_t *dict = view->dict;
    qp_jinja_puts(text, names[view->kind]);
    if (view->kind != QP_JV_ITEMS) {
        QP_TRY(
            put_elements(run, text, view->kind == QP_JV_KEYS ? dict->key : dict->value, dict->n));
    } else {
        for (int64_t i = 0; i < dict->n; i++) {
            qp_jinja_puts(text, i > 0 ? ", (" : "(");
            QP_TRY(qp_jv_repr(run, text, &dict->key[i]));
            qp_jinja_puts(text, ", ");
            QP_TRY(qp_jv_repr(run, text, &dict->value[i]));
            qp_jinja_puts(text, ")");
        }
    }
    qp_jinja_puts(text, "])");
    return NULL;
}

static void put_range(qp_jinja_text_t *text, const qp_jv_range_t *range)
{
    qp_jinja_puts(text, "range(");
    put_int(text, range->start);
    qp_jinja_puts(text, ", ");
    put_int(text, range->stop);
    if (range->step != 1) {
        qp_jinja_puts(text, ", ");
        put_int(text, range->step);
    }
    qp_jinja_puts(text, ")");
}

static qp_error_t put_loop(qp_jinja_run_t *run, qp_jinja_text_t *text, qp_jinja_loop_t *loop)
{
    int64_t n = 0;
    QP_TRY(qp_jinja_loop_length(run, loop, &n));
    qp_jinja_puts(text, "<LoopContext ");
    put_int(text, loop->index0 + 1);
    qp_jinja_puts(text, "/");
    put_int(text, n);
    qp_jinja_puts(text, ">");
    return NULL;
}

static void put_macro(qp_jinja_text_t *text, const qp_jinja_macro_t *macro)
{
    const qp_jv_string_t *name = macro->node->function->name;
    qp_jinja_puts(text, name != NULL ? "<Macro '" : "<Macro anonymous");
    qp_jinja_puts(text, name != NULL ? name->data : "");
    qp_jinja_puts(text, name != NULL ? "'>" : ">");
}

static qp_error_t repr_inside(qp_jinja_run_t *run, qp_jinja_text_t *text, const qp_jv_t *value)
{
    switch (value->type) {
    case QP_JV_UNDEFINED:
        qp_jinja_puts(text, "Undefined");
        return NULL;
    case QP_JV_NONE:
        qp_jinja_puts(text, "None");
        return NULL;
    case QP_JV_BOOL:
        qp_jinja_puts(text, value->as.i ? "True" : "False");
        return NULL;
    case QP_JV_INT:
        put_int(text, value->as.i);
        return NULL;
    case QP_JV_FLOAT:
        qp_jv_put_float(text, value->as.f);
        return NULL;
    case QP_JV_STRING:
        if (value->as.s->markup)
            qp_jinja_puts(text, "Markup(");
        put_quoted(text, value->as.s);
        if (value->as.s->markup)
            qp_jinja_puts(text, ")");
        return NULL;
    case QP_JV_LIST:
    case QP_JV_TUPLE:
        return put_list(run, text, value);
    case QP_JV_DICT:
        return put_pairs(run, text, value->as.dict);
    case QP_JV_RANGE:
        put_range(text, value->as.range);
        return NULL;
    case QP_JV_VIEW:
        return put_view(run, text, value->as.view);
    case QP_JV_NAMESPACE:
        qp_jinja_puts(text, "<Namespace ");
        QP_TRY(put_pairs(run, text, value->as.dict));
        qp_jinja_puts(text, ">");
        return NULL;
    case QP_JV_LOOP:
        return put_loop(run, text, value->as.loop);
    case QP_JV_MACRO:
        put_macro(text, value->as.macro);
        return NULL;
    default:
        return QP_ERROR(QP_INPUT, "writing a %s is not supported", qp_jv_type_name(value));
    }
}

qp_error_t qp_jv_repr(qp_jinja_run_t *run, qp_jinja_text_t *text, const qp_jv_t *value)
{
    QP_TRY(qp_jinja_enter(run));
    QP_TRY(qp_jinja_spend(run, value->type == QP_JV_STRING ? 4 * value->as.s->n : 0));
    QP_TRY(repr_inside(run, text, value));
    run->depth--;
    return NULL;
}

qp_error_t qp_jv_str(qp_jinja_run_t *run, qp_jinja_text_t *text, const qp_jv_t *value)
{
    if (value->type == QP_JV_UNDEFINED)
        return NULL;
    if (value->type != QP_JV_STRING)
        return qp_jv_repr(run, text, value);
    QP_TRY(qp_jinja_spend(run, value->as.s->n));
    qp_jinja_put(text, value->as.s->data, value->as.s->n);
    return NULL;
}

qp_error_t qp_jv_to_string(qp_jinja_run_t *run, const qp_jv_t *value, qp_jv_t *string)
{
    qp_jinja_text_t text = {.arena = &run->arena};
    *string = *value;
    if (value->type == QP_JV_STRING && !value->as.s->markup)
        return NULL;
    QP_TRY(qp_jv_str(run, &text, value));
    *string = qp_jv_string_of(&text);
    return NULL;
}

/* --- json.dumps ------------------------------------------------------------------------------- */

static void put_json_string(const qp_jv_json_t *how, qp_jinja_text_t *text, const qp_jv_string_t *s)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    qp_jinja_puts(text, "\"");
    for (size_t i = 0, n; i < s->n; i += n) {
        const unsigned char c = (unsigned char)s->data[i];
        const char *known = c != '\0' ? strchr(from, c) : NULL;
        char buffer[16] = "";
        n = qp_utf8_length((char)c);
        if (known != NULL) {
            snprintf(buffer, sizeof buffer, "\\%c", to[known - from]);
        } else if (c < 0x20 || (how->ensure_ascii && c == 0x7f)) {
            snprintf(buffer, sizeof buffer, "\\u%04x", c);
        } else if (c < 0x80 || !how->ensure_ascii) {
            qp_jinja_put(text, s->data + i, n);
        } else {
            const uint32_t code = qp_utf8_decode(s->data + i, &n);
            if (code < 0x10000)
                snprintf(buffer, sizeof buffer, "\\u%04x", code);
            else
                snprintf(buffer, sizeof buffer, "\\u%04x\\u%04x", 0xd800 + ((code - 0x10000) >> 10),
                         0xdc00 + ((code - 0x10000) & 0x3ff));
        }
        qp_jinja_puts(text, buffer);
    }
    qp_jinja_puts(text, "\"");
}

static void put_string(qp_jinja_text_t *text, const qp_jv_string_t *s)
{
    qp_jinja_put(text, s->data, s->n);
}

static void new_line(const qp_jv_json_t *how, qp_jinja_text_t *text, int level)
{
    if (how->indent == NULL)
        return;
    qp_jinja_puts(text, "\n");
    for (int i = 0; i < level; i++)
        put_string(text, how->indent);
}

static qp_error_t dump(qp_jinja_run_t *run, const qp_jv_json_t *how, qp_jinja_text_t *text,
                       const qp_jv_t *value, int level);

static qp_error_t dump_list(qp_jinja_run_t *run, const qp_jv_json_t *how, qp_jinja_text_t *text,
                            const qp_jv_t *value, int level)
{
    const qp_jv_list_t *list = value->as.list;
    qp_jinja_puts(text, "[");
    for (int64_t i = 0; i < list->n; i++) {
        if (i > 0)
            put_string(text, how->between);
        new_line(how, text, level + 1);
        QP_TRY(dump(run, how, text, &list->at[i], level + 1));
    }
    if (list->n > 0)
        new_line(how, text, level);
    qp_jinja_puts(text, "]");
    return NULL;
}

static qp_error_t dump_key(qp_jinja_run_t *run, const qp_jv_json_t *how, qp_jinja_text_t *text,
                           const qp_jv_t *key)
{
    if (key->type == QP_JV_STRING) {
        put_json_string(how, text, key->as.s);
        return NULL;
    }
    if (key->type != QP_JV_NONE && !qp_jv_is_number(key))
        return QP_ERROR(QP_INPUT, "tojson: a key is a %s", qp_jv_type_name(key));
    qp_jinja_puts(text, "\"");
    QP_TRY(dump(run, how, text, key, 0));
    qp_jinja_puts(text, "\"");
    return NULL;
}

/* Order of the keys, sorted if asked for. */
static qp_error_t key_order(qp_jinja_run_t *run, const qp_jv_json_t *how, const qp_jv_dict_t *dict,
                            const int64_t **order)
{
    int64_t *index = QP_JINJA_NEW(&run->arena, int64_t, dict->n);
    for (int64_t i = 0; i < dict->n; i++) {
        int64_t place = i;
        for (int64_t j = i - 1; j >= 0 && how->sort_keys; j--) {
            int sign = 0;
            QP_TRY(qp_jv_compare(run, &dict->key[index[j]], &dict->key[i], &sign));
            if (sign <= 0)
                break;
            index[j + 1] = index[j];
            place = j;
        }
        index[place] = i;
    }
    *order = index;
    return NULL;
}

static qp_error_t dump_dict(qp_jinja_run_t *run, const qp_jv_json_t *how, qp_jinja_text_t *text,
                            const qp_jv_t *value, int level)
{
    const qp_jv_dict_t *dict = value->as.dict;
    const int64_t *order = NULL;
    QP_TRY(key_order(run, how, dict, &order));
    qp_jinja_puts(text, "{");
    for (int64_t i = 0; i < dict->n; i++) {
        if (i > 0)
            put_string(text, how->between);
        new_line(how, text, level + 1);
        QP_TRY(dump_key(run, how, text, &dict->key[order[i]]));
        put_string(text, how->behind_key);
        QP_TRY(dump(run, how, text, &dict->value[order[i]], level + 1));
    }
    if (dict->n > 0)
        new_line(how, text, level);
    qp_jinja_puts(text, "}");
    return NULL;
}

static qp_error_t dump_inside(qp_jinja_run_t *run, const qp_jv_json_t *how, qp_jinja_text_t *text,
                              const qp_jv_t *value, int level)
{
    switch (value->type) {
    case QP_JV_NONE:
        qp_jinja_puts(text, "null");
        return NULL;
    case QP_JV_BOOL:
        qp_jinja_puts(text, value->as.i ? "true" : "false");
        return NULL;
    case QP_JV_INT:
    case QP_JV_FLOAT:
        return qp_jv_repr(run, text, value);
    case QP_JV_STRING:
        put_json_string(how, text, value->as.s);
        return NULL;
    case QP_JV_LIST:
    case QP_JV_TUPLE:
        return dump_list(run, how, text, value, level);
    case QP_JV_DICT:
        return dump_dict(run, how, text, value, level);
    case QP_JV_UNDEFINED:
        return qp_jv_undefined_error(value);
    default:
        return QP_ERROR(QP_INPUT, "tojson: a %s cannot be written as JSON", qp_jv_type_name(value));
    }
}

static qp_error_t dump(qp_jinja_run_t *run, const qp_jv_json_t *how, qp_jinja_text_t *text,
                       const qp_jv_t *value, int level)
{
    const size_t indent = how->indent != NULL ? how->indent->n * (size_t)level : 0;
    QP_TRY(qp_jinja_enter(run));
    QP_TRY(qp_jinja_spend(run, indent + (value->type == QP_JV_STRING ? 6 * value->as.s->n : 0)));
    QP_TRY(dump_inside(run, how, text, value, level));
    run->depth--;
    return NULL;
}

qp_error_t qp_jv_dump(qp_jinja_run_t *run, const qp_jv_json_t *how, qp_jinja_text_t *text,
                      const qp_jv_t *value)
{
    return dump(run, how, text, value, 0);
}
