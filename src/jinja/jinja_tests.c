/* Tests ("x is defined") and global functions. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"

/* --- tests ------------------------------------------------------------------------------------ */

static qp_error_t is_type(const qp_jinja_call_t *call, unsigned types, qp_jv_t *result)
{
    *result = qp_jv_bool((types >> call->self.type & 1) != 0);
    return NULL;
}

static qp_error_t defined(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_type(call, ~(1U << QP_JV_UNDEFINED), result);
}

static qp_error_t undefined(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_type(call, 1U << QP_JV_UNDEFINED, result);
}

static qp_error_t none(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_type(call, 1U << QP_JV_NONE, result);
}

static qp_error_t boolean(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_type(call, 1U << QP_JV_BOOL, result);
}

static qp_error_t integer(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_type(call, 1U << QP_JV_INT, result);
}

static qp_error_t floating(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_type(call, 1U << QP_JV_FLOAT, result);
}

static qp_error_t number(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_type(call, 1U << QP_JV_BOOL | 1U << QP_JV_INT | 1U << QP_JV_FLOAT, result);
}

static qp_error_t string(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_type(call, 1U << QP_JV_STRING, result);
}

static qp_error_t mapping(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_type(call, 1U << QP_JV_DICT, result);
}

/* What has a length and items; Jinja2's undefined has both. */
static qp_error_t sequence(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_type(call,
                   1U << QP_JV_STRING | 1U << QP_JV_LIST | 1U << QP_JV_TUPLE | 1U << QP_JV_DICT |
                       1U << QP_JV_RANGE | 1U << QP_JV_UNDEFINED,
                   result);
}

static qp_error_t iterable(const qp_jinja_call_t *call, qp_jv_t *result)
{
    *result = qp_jv_bool(qp_jv_is_iterable(&call->self));
    return NULL;
}

static qp_error_t callable(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_type(call,
                   1U << QP_JV_MACRO | 1U << QP_JV_METHOD | 1U << QP_JV_FUNCTION |
                       1U << QP_JV_LOOP | 1U << QP_JV_JOINER | 1U << QP_JV_UNDEFINED,
                   result);
}

static qp_error_t is_bool(const qp_jinja_call_t *call, bool value, qp_jv_t *result)
{
    *result = qp_jv_bool(call->self.type == QP_JV_BOOL && (call->self.as.i != 0) == value);
    return NULL;
}

static qp_error_t is_true(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_bool(call, true, result);
}

static qp_error_t is_false(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_bool(call, false, result);
}

/* value % divisor == rest */
static qp_error_t leaves(const qp_jinja_call_t *call, const qp_jv_t *divisor, int64_t rest,
                         qp_jv_t *result)
{
    const qp_jv_t expected = qp_jv_int(rest);
    qp_jv_t found;
    bool equal = false;
    QP_TRY(qp_jinja_binary(call->run, QP_JO_MOD, &call->self, divisor, &found));
    QP_TRY(qp_jv_equal(call->run, &found, &expected, &equal));
    *result = qp_jv_bool(equal);
    return NULL;
}

static qp_error_t odd(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const qp_jv_t two = qp_jv_int(2);
    return leaves(call, &two, 1, result);
}

static qp_error_t even(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const qp_jv_t two = qp_jv_int(2);
    return leaves(call, &two, 0, result);
}

static qp_error_t divisibleby(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return leaves(call, &call->arg[0], 0, result);
}

static qp_error_t in_case(const qp_jinja_call_t *call, bool upper, qp_jv_t *result)
{
    qp_jv_t text;
    bool holds = false;
    QP_TRY(qp_jv_to_string(call->run, &call->self, &text));
    QP_TRY(qp_jinja_in_case(call->run, text.as.s, upper, &holds));
    *result = qp_jv_bool(holds);
    return NULL;
}

static qp_error_t upper(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return in_case(call, true, result);
}

static qp_error_t lower(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return in_case(call, false, result);
}

static qp_error_t sameas(const qp_jinja_call_t *call, qp_jv_t *result)
{
    bool same = false;
    QP_TRY(qp_jv_same(&call->self, &call->arg[0], &same));
    *result = qp_jv_bool(same);
    return NULL;
}

static qp_error_t escaped(const qp_jinja_call_t *call, qp_jv_t *result)
{
    *result = qp_jv_bool(call->self.type == QP_JV_STRING && call->self.as.s->markup);
    return NULL;
}

static qp_error_t relation(const qp_jinja_call_t *call, qp_jinja_op_t op, qp_jv_t *result)
{
    bool holds = false;
    QP_TRY(qp_jinja_relation(call->run, op, &call->self, &call->arg[0], &holds));
    *result = qp_jv_bool(holds);
    return NULL;
}

static qp_error_t in(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return relation(call, QP_JO_IN, result);
}

static qp_error_t eq(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return relation(call, QP_JO_EQ, result);
}

static qp_error_t ne(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return relation(call, QP_JO_NE, result);
}

static qp_error_t gt(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return relation(call, QP_JO_GT, result);
}

static qp_error_t ge(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return relation(call, QP_JO_GE, result);
}

static qp_error_t lt(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return relation(call, QP_JO_LT, result);
}

static qp_error_t le(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return relation(call, QP_JO_LE, result);
}

/* Whether a table knows a name, built here or not: "is filter", "is test". */
static qp_error_t is_named(const qp_jinja_call_t *call, bool filter, qp_jv_t *result)
{
    const qp_jv_t *name = &call->self;
    QP_TRY(qp_jv_check_key(name));
    *result = qp_jv_bool(false);
    if (name->type == QP_JV_STRING)
        *result = qp_jv_bool(
            (filter ? qp_jinja_find_filter(name->as.s->data, name->as.s->n)
                    : qp_jinja_find(qp_jinja_tests, name->as.s->data, name->as.s->n)) != NULL);
    return NULL;
}

static qp_error_t filter(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_named(call, true, result);
}

static qp_error_t test(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return is_named(call, false, result);
}

const qp_jinja_builtin_t qp_jinja_tests[] = {
    {"!=", "/b", 1, ne, true},
    {"<", "/b", 1, lt, true},
    {"<=", "/b", 1, le, true},
    {"==", "/b", 1, eq, true},
    {">", "/b", 1, gt, true},
    {">=", "/b", 1, ge, true},
    {"boolean", "", 0, boolean, true},
    {"callable", "", 0, callable, true},
    {"defined", "", 0, defined, true},
    {"divisibleby", "num", 1, divisibleby, false},
    {"eq", "/b", 1, eq, true},
    {"equalto", "/b", 1, eq, true},
    {"escaped", "", 0, escaped, true},
    {"even", "", 0, even, false},
    {"false", "", 0, is_false, true},
    {"filter", "", 0, filter, true},
    {"float", "", 0, floating, true},
    {"ge", "/b", 1, ge, true},
    {"greaterthan", "/b", 1, gt, true},
    {"gt", "/b", 1, gt, true},
    {"in", "seq", 1, in, true},
    {"integer", "", 0, integer, true},
    {"iterable", "", 0, iterable, true},
    {"le", "/b", 1, le, true},
    {"lessthan", "/b", 1, lt, true},
    {"lower", "", 0, lower, true},
    {"lt", "/b", 1, lt, true},
    {"mapping", "", 0, mapping, true},
    {"ne", "/b", 1, ne, true},
    {"none", "", 0, none, true},
    {"number", "", 0, number, true},
    {"odd", "", 0, odd, false},
    {"sameas", "other", 1, sameas, true},
    {"sequence", "", 0, sequence, true},
    {"string", "", 0, string, true},
    {"test", "", 0, test, true},
    {"true", "", 0, is_true, true},
    {"undefined", "", 0, undefined, true},
    {"upper", "", 0, upper, true},
    {.name = NULL},
};

/* --- globals ---------------------------------------------------------------------------------- */

static qp_error_t raise_exception(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_t text;
    QP_TRY(qp_jv_to_string(call->run, &call->arg[0], &text));
    *result = qp_jv_none();
    const qp_jv_string_t *s = text.as.s;
    return QP_ERROR(QP_INPUT, "%.*s", (int)(s->n < 1000 ? s->n : 1000), s->data);
}

/* datetime.now(), or the time that SOURCE_DATE_EPOCH gives to whoever must get the same twice. */
static qp_error_t strftime_now(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const char *fixed = getenv("SOURCE_DATE_EPOCH");
    time_t now = fixed != NULL ? (time_t)strtoll(fixed, NULL, 10) : time(NULL);
    qp_jv_string_t *format = NULL;
    struct tm local;
    char buffer[1024];
    QP_TRY(qp_jinja_want_string(call, 0, &format));
    if (format->n > sizeof buffer / 4 || memchr(format->data, '\0', format->n) != NULL)
        return QP_ERROR(QP_INPUT, "strftime_now: the format is not supported");
    const qp_jv_t copy = qp_jv_string(&call->run->arena, format->data, format->n);
    for (const char *at = copy.as.s->data; (at = strchr(at, '%')) != NULL; at += 1 + (at[1] != 0))
        if (at[1] == '\0' || strchr("aAbBcdHIjmMpSUwWxXyY%DeFhnrRtTuV", at[1]) == NULL)
            return QP_ERROR(QP_INPUT, "strftime_now: %%%c is not supported", at[1]);
    if (localtime_r(&now, &local) == NULL)
        return QP_ERROR(QP_INPUT, "strftime_now: SOURCE_DATE_EPOCH is out of range");
    const size_t n = strftime(buffer, sizeof buffer, copy.as.s->data, &local);
    *result = qp_jv_string(&call->run->arena, buffer, n);
    return NULL;
}

/* Elements of a range; its length is at most what the sandbox allows. */
static qp_error_t range(const qp_jinja_call_t *call, qp_jv_t *result)
{
    enum { MAX_RANGE = 100000 };
    int64_t part[3] = {0, 0, 1};
    int n = 0;
    while (n < 3 && call->arg[n].type != QP_JV_MISSING) {
        QP_TRY(qp_jinja_want_int(call, n, 0, &part[n]));
        n++;
    }
    if (n == 1) {
        part[1] = part[0];
        part[0] = 0;
    }
    if (part[2] == 0)
        return QP_ERROR(QP_INPUT, "range: the step is 0");
    const bool down = part[2] < 0, some = down ? part[0] > part[1] : part[0] < part[1];
    const uint64_t span =
                       (uint64_t)(down ? part[0] : part[1]) - (uint64_t)(down ? part[1] : part[0]),
                   step = down ? 0 - (uint64_t)part[2] : (uint64_t)part[2],
                   length = some ? (span - 1) / step + 1 : 0;
    if (length > MAX_RANGE)
        return QP_ERROR(QP_INPUT, "range: more than %d elements", MAX_RANGE);
    qp_jv_range_t *made = QP_JINJA_NEW(&call->run->arena, qp_jv_range_t, 1);
    *made = (qp_jv_range_t){part[0], part[1], part[2], (int64_t)length};
    *result = (qp_jv_t){.type = QP_JV_RANGE, .as.range = made};
    return NULL;
}

/* One pair of what dict() is given a sequence of. */
static qp_error_t add_pair(qp_jinja_run_t *run, const qp_jv_t *pair, qp_jv_dict_t *dict)
{
    qp_jv_t list;
    QP_TRY(qp_jinja_collect(run, pair, &list));
    if (list.as.list->n != 2)
        return QP_ERROR(QP_INPUT, "dict: an element is not a pair");
    QP_TRY(qp_jv_check_key(&list.as.list->at[0]));
    qp_jv_set(&run->arena, dict, &list.as.list->at[0], &list.as.list->at[1]);
    return NULL;
}

static qp_error_t add_pairs(qp_jinja_run_t *run, const qp_jv_t *from, qp_jv_dict_t *dict)
{
    qp_jinja_iter_t *iter = NULL;
    QP_TRY(qp_jinja_iterate(run, from, &iter));
    for (bool end = false;;) {
        qp_jv_t value, pair;
        QP_TRY(qp_jinja_next(run, iter, &value, &end));
        if (end)
            return NULL;
        if (from->type == QP_JV_DICT) {
            const qp_jv_t *of = qp_jv_get(from->as.dict, &value);
            qp_jv_set(&run->arena, dict, &value, of);
            continue;
        }
        pair = value;
        QP_TRY(add_pair(run, &pair, dict));
    }
}

static qp_error_t make_dict(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const qp_jinja_given_t *given = &call->given;
    *result = qp_jv_dict(&call->run->arena);
    if (given->n > 1)
        return QP_ERROR(QP_INPUT, "dict takes one argument and keywords");
    if (given->n == 1 && given->arg[0].type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(&given->arg[0]); /* its attribute keys is asked for */
    if (given->n == 1)
        QP_TRY(add_pairs(call->run, &given->arg[0], result->as.dict));
    for (int64_t i = 0; i < given->n_key; i++)
        qp_jv_set_name(&call->run->arena, result->as.dict, given->key[i], &given->value[i]);
    return NULL;
}

static qp_error_t make_namespace(const qp_jinja_call_t *call, qp_jv_t *result)
{
    QP_TRY(make_dict(call, result));
    result->type = QP_JV_NAMESPACE;
    for (int64_t i = 0; i < result->as.dict->n; i++) {
        const qp_jv_t *key = &result->as.dict->key[i];
        if (key->type == QP_JV_STRING && key->as.s->n > 0 && key->as.s->data[0] == '_')
            return QP_ERROR(QP_INPUT, "a namespace has no attribute that begins with _ ('%.60s')",
                            key->as.s->data);
    }
    return NULL;
}

static qp_error_t make_joiner(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_joiner_t *joiner = QP_JINJA_NEW(&call->run->arena, qp_jv_joiner_t, 1);
    qp_jv_string_t *separator = qp_jv_name(&call->run->arena, ", ").as.s;
    if (call->arg[0].type != QP_JV_MISSING)
        QP_TRY(qp_jinja_want_string(call, 0, &separator));
    *joiner = (qp_jv_joiner_t){.separator = separator};
    *result = (qp_jv_t){.type = QP_JV_JOINER, .as.joiner = joiner};
    return NULL;
}

static qp_error_t make_cycler(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_cycler_t *cycler = QP_JINJA_NEW(&call->run->arena, qp_jv_cycler_t, 1);
    if (call->given.n == 0 || call->given.n_key > 0)
        return QP_ERROR(QP_INPUT, "cycler needs values");
    cycler->items =
        qp_jv_list(&call->run->arena, QP_JV_TUPLE, call->given.arg, call->given.n).as.list;
    *result = (qp_jv_t){.type = QP_JV_CYCLER, .as.cycler = cycler};
    return NULL;
}

const qp_jinja_builtin_t qp_jinja_globals[] = {
    {"cycler", NULL, 0, make_cycler, true},
    {"dict", NULL, 0, make_dict, true},
    {"joiner", "sep", 0, make_joiner, true},
    {"lipsum", NULL, 0, NULL, true},
    {"namespace", NULL, 0, make_namespace, true},
    {"raise_exception", "message", 1, raise_exception, true},
    {"range", "/start,stop,step", 1, range, true},
    {"strftime_now", "format", 1, strftime_now, true},
    {.name = NULL},
};
