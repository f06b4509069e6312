/* Calling what is built in: tables, arguments to parameters, attributes of Python's objects. */
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "jinja/jinja_run.h"

const qp_jinja_builtin_t *qp_jinja_find(const qp_jinja_builtin_t *table, const char *name, size_t n)
{
    for (; table->name != NULL; table++)
        if (strncmp(table->name, name, n) == 0 && table->name[n] == '\0')
            return table;
    return NULL;
}

const qp_jinja_builtin_t *qp_jinja_find_filter(const char *name, size_t n)
{
    static const qp_jinja_builtin_t *const tables[] = {
        qp_jinja_text_filters, qp_jinja_value_filters, qp_jinja_generator_filters,
        qp_jinja_sequence_filters, NULL};
    const qp_jinja_builtin_t *filter = NULL;
    for (int i = 0; tables[i] != NULL && filter == NULL; i++)
        filter = qp_jinja_find(tables[i], name, n);
    return filter;
}

/* --- arguments -------------------------------------------------------------------------------- */

/* Index of a parameter in "a,b,c", or their number if there is none of that name (n 0: any). */
static int64_t parameter(const char *parameters, const char *name, size_t n)
{
    int64_t index = 0;
    for (const char *at = parameters; *at != '\0'; index++) {
        const size_t length = strcspn(at, ",");
        if (n > 0 && length == n && memcmp(at, name, n) == 0)
            return index;
        at += length + (at[length] == ',');
    }
    return index;
}

static qp_error_t bind(const qp_jinja_builtin_t *builtin, const qp_jinja_given_t *given,
                       qp_jv_t arg[QP_JINJA_MAX_PARAMETER])
{
    const bool positional = builtin->parameters[0] == '/';
    const char *parameters = builtin->parameters + positional;
    const int64_t n = parameter(parameters, "", 0);
    for (int64_t i = 0; i < QP_JINJA_MAX_PARAMETER; i++)
        arg[i].type = QP_JV_MISSING;
    if (given->n > n)
        return QP_ERROR(QP_INPUT, "%s: takes at most %lld arguments, %lld are given", builtin->name,
                        (long long)n, (long long)given->n);
    for (int64_t i = 0; i < given->n; i++)
        arg[i] = given->arg[i];
    for (int64_t i = 0; i < given->n_key; i++) {
        const qp_jv_string_t *key = given->key[i];
        const int64_t index = positional ? n : parameter(parameters, key->data, key->n);
        if (index == n || arg[index].type != QP_JV_MISSING)
            return QP_ERROR(QP_INPUT, "%s: the argument '%.60s' is %s", builtin->name, key->data,
                            index == n ? "not known" : "given twice");
        arg[index] = given->value[i];
    }
    for (int i = 0; i < builtin->n_required; i++)
        if (arg[i].type == QP_JV_MISSING)
            return QP_ERROR(QP_INPUT, "%s: needs %d arguments", builtin->name, builtin->n_required);
    return NULL;
}

qp_error_t qp_jinja_invoke(qp_jinja_run_t *run, const qp_jinja_builtin_t *builtin,
                           const qp_jv_t *self, const qp_jinja_given_t *given, qp_jv_t *result)
{
    qp_jv_t arg[QP_JINJA_MAX_PARAMETER];
    if (builtin->call == NULL)
        return QP_ERROR(QP_INPUT, "'%s' is not supported", builtin->name);
    if (self->type == QP_JV_STRING && self->as.s->markup && !builtin->takes_markup)
        return QP_ERROR(QP_INPUT, "%s of a string marked safe is not supported", builtin->name);
    if (builtin->parameters != NULL)
        QP_TRY(bind(builtin, given, arg));
    const qp_jinja_call_t call = {.run = run, .self = *self, .arg = arg, .given = *given};
    QP_TRY(qp_jinja_enter(run));
    QP_TRY(builtin->call(&call, result));
    run->depth--;
    return NULL;
}

qp_error_t qp_jinja_want_string(const qp_jinja_call_t *call, int at, qp_jv_string_t **s)
{
    const qp_jv_t *value = &call->arg[at];
    if (value->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(value);
    if (value->type != QP_JV_STRING)
        return QP_ERROR(QP_INPUT, "argument %d must be a str, not a %s", at + 1,
                        qp_jv_type_name(value));
    if (value->as.s->markup)
        return QP_ERROR(QP_INPUT, "argument %d is marked safe, which is not supported", at + 1);
    *s = value->as.s;
    return NULL;
}

qp_error_t qp_jinja_want_int(const qp_jinja_call_t *call, int at, int64_t otherwise, int64_t *value)
{
    *value = otherwise;
    if (call->arg[at].type == QP_JV_MISSING)
        return NULL;
    if (call->arg[at].type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(&call->arg[at]);
    if (!qp_jv_is_integer(&call->arg[at]))
        return QP_ERROR(QP_INPUT, "argument %d must be an int, not a %s", at + 1,
                        qp_jv_type_name(&call->arg[at]));
    *value = call->arg[at].as.i;
    return NULL;
}

qp_error_t qp_jinja_call(qp_jinja_run_t *run, const qp_jv_t *callee, const qp_jinja_given_t *given,
                         qp_jv_t *result)
{
    switch (callee->type) {
    case QP_JV_MACRO:
        return qp_jinja_call_macro(run, callee->as.macro, given, result);
    case QP_JV_METHOD:
        return qp_jinja_invoke(run, callee->as.method->builtin, &callee->as.method->self, given,
                               result);
    case QP_JV_FUNCTION: {
        const qp_jv_t none = {.type = QP_JV_NONE};
        return qp_jinja_invoke(run, callee->as.function, &none, given, result);
    }
    case QP_JV_JOINER:
        if (given->n > 0 || given->n_key > 0)
            return QP_ERROR(QP_INPUT, "a joiner takes no arguments");
        *result = callee->as.joiner->used
                      ? (qp_jv_t){.type = QP_JV_STRING,
                                  .as.s = (qp_jv_string_t *)callee->as.joiner->separator}
                      : qp_jv_name(&run->arena, "");
        callee->as.joiner->used = true;
        return NULL;
    case QP_JV_UNDEFINED:
        return qp_jv_undefined_error(callee);
    default:
        return QP_ERROR(QP_INPUT, "a %s cannot be called", qp_jv_type_name(callee));
    }
}

/* --- methods ---------------------------------------------------------------------------------- */

static qp_error_t view(const qp_jinja_call_t *call, qp_jv_view_kind_t kind, qp_jv_t *result)
{
    qp_jv_view_t *made = QP_JINJA_NEW(&call->run->arena, qp_jv_view_t, 1);
    *made = (qp_jv_view_t){.kind = kind, .dict = call->self.as.dict};
    *result = (qp_jv_t){.type = QP_JV_VIEW, .as.view = made};
    return NULL;
}

static qp_error_t dict_keys(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return view(call, QP_JV_KEYS, result);
}

static qp_error_t dict_values(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return view(call, QP_JV_VALUES, result);
}

static qp_error_t dict_items(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return view(call, QP_JV_ITEMS, result);
}

static qp_error_t dict_get(const qp_jinja_call_t *call, qp_jv_t *result)
{
    QP_TRY(qp_jv_check_key(&call->arg[0]));
    const qp_jv_t *value = qp_jv_get(call->self.as.dict, &call->arg[0]);
    *result = value != NULL                        ? *value
              : call->arg[1].type != QP_JV_MISSING ? call->arg[1]
                                                   : qp_jv_none();
    return NULL;
}

static qp_error_t dict_copy(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const qp_jv_dict_t *dict = call->self.as.dict;
    *result = qp_jv_dict(&call->run->arena);
    QP_TRY(qp_jinja_spend(call->run, (size_t)dict->n * 4 * sizeof(qp_jv_t)));
    for (int64_t i = 0; i < dict->n; i++)
        qp_jv_set(&call->run->arena, result->as.dict, &dict->key[i], &dict->value[i]);
    return NULL;
}

static qp_error_t sequence_count(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jinja_iter_t *iter = NULL;
    int64_t n = 0;
    QP_TRY(qp_jinja_iterate(call->run, &call->self, &iter));
    for (bool end = false;;) {
        qp_jv_t value;
        bool equal = false;
        QP_TRY(qp_jinja_next(call->run, iter, &value, &end));
        if (end)
            break;
        QP_TRY(qp_jv_equal(call->run, &value, &call->arg[0], &equal));
        n += equal;
    }
    *result = qp_jv_int(n);
    return NULL;
}

static qp_error_t sequence_index(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const qp_jv_list_t *list = call->self.as.list;
    for (int64_t i = 0; i < list->n; i++) {
        bool equal = false;
        QP_TRY(qp_jv_equal(call->run, &list->at[i], &call->arg[0], &equal));
        if (equal) {
            *result = qp_jv_int(i);
            return NULL;
        }
    }
    return QP_ERROR(QP_INPUT, "index: the value is not in the %s", qp_jv_type_name(&call->self));
}

static qp_error_t list_copy(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return qp_jinja_collect(call->run, &call->self, result);
}

static qp_error_t loop_cycle(const qp_jinja_call_t *call, qp_jv_t *result)
{
    if (call->given.n == 0 || call->given.n_key > 0)
        return QP_ERROR(QP_INPUT, "loop.cycle needs values");
    *result = call->given.arg[call->self.as.loop->index0 % call->given.n];
    return NULL;
}

static qp_error_t loop_changed(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jinja_loop_t *loop = call->self.as.loop;
    const qp_jv_t now = qp_jv_list(&call->run->arena, QP_JV_TUPLE, call->given.arg, call->given.n);
    bool same = false;
    if (call->given.n_key > 0)
        return QP_ERROR(QP_INPUT, "loop.changed takes no keywords");
    if (loop->changed.type != QP_JV_MISSING)
        QP_TRY(qp_jv_equal(call->run, &loop->changed, &now, &same));
    loop->changed = now;
    *result = qp_jv_bool(!same);
    return NULL;
}

static qp_error_t cycler_next(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_cycler_t *cycler = call->self.as.cycler;
    *result = cycler->items->at[cycler->at];
    cycler->at = (cycler->at + 1) % cycler->items->n;
    return NULL;
}

static qp_error_t cycler_reset(const qp_jinja_call_t *call, qp_jv_t *result)
{
    call->self.as.cycler->at = 0;
    *result = qp_jv_none();
    return NULL;
}

static const qp_jinja_builtin_t dict_methods[] = {
    {"get", "/key,default", 1, dict_get, false},
    {"items", "", 0, dict_items, false},
    {"keys", "", 0, dict_keys, false},
    {"values", "", 0, dict_values, false},
    {"copy", "", 0, dict_copy, false},
    {"fromkeys", NULL, 0, NULL, false},
    {.name = NULL},
};
static const qp_jinja_builtin_t list_methods[] = {
    {"count", "/value", 1, sequence_count, false},
    {"index", "/value", 1, sequence_index, false},
    {"copy", "", 0, list_copy, false},
    {.name = NULL},
};
static const qp_jinja_builtin_t tuple_methods[] = {
    {"count", "/value", 1, sequence_count, false},
    {"index", "/value", 1, sequence_index, false},
    {.name = NULL},
};
static const qp_jinja_builtin_t loop_methods[] = {
    {"cycle", NULL, 0, loop_cycle, false},
    {"changed", NULL, 0, loop_changed, false},
    {.name = NULL},
};
static const qp_jinja_builtin_t cycler_methods[] = {
    {"next", "", 0, cycler_next, false},
    {"reset", "", 0, cycler_reset, false},
    {.name = NULL},
};

/* Python's attributes that the sandbox hides (undefined), or that are not built here (an error). */
static const struct {
    qp_jv_type_t type;
    bool hidden;
    const char *names; /* between spaces */
} others[] = {
    {QP_JV_DICT, true, " clear pop popitem setdefault update "},
    {QP_JV_LIST, true, " append clear pop reverse insert sort extend remove "},
    {QP_JV_BOOL, false,
     " real imag numerator denominator bit_length bit_count conjugate to_bytes from_bytes "
     "as_integer_ratio "},
    {QP_JV_INT, false,
     " real imag numerator denominator bit_length bit_count conjugate to_bytes from_bytes "
     "as_integer_ratio is_integer "},
    {QP_JV_FLOAT, false, " real imag conjugate hex fromhex is_integer as_integer_ratio "},
    {QP_JV_RANGE, false, " start stop step count index "},
    {QP_JV_VIEW, false, " isdisjoint mapping "},
    {QP_JV_ITER, false, " send throw close gi_frame gi_code gi_running gi_yieldfrom gi_suspended "},
    {QP_JV_FUNCTION, false, " fromkeys mro sep used items pos current next reset "},
    {QP_JV_MACRO, false, " name arguments catch_kwargs catch_varargs caller explicit_caller "},
    {QP_JV_JOINER, false, " sep used "},
    {QP_JV_CYCLER, false, " items pos "},
};

static const qp_jinja_builtin_t *find_method(qp_jv_type_t type, const char *name, size_t n)
{
    static const struct {
        qp_jv_type_t type;
        const qp_jinja_builtin_t *table;
    } tables[] = {{QP_JV_STRING, qp_jinja_string_methods},
                  {QP_JV_STRING, qp_jinja_search_methods},
                  {QP_JV_DICT, dict_methods},
                  {QP_JV_LIST, list_methods},
                  {QP_JV_TUPLE, tuple_methods},
                  {QP_JV_LOOP, loop_methods},
                  {QP_JV_CYCLER, cycler_methods}};
    const qp_jinja_builtin_t *method = NULL;
    for (size_t i = 0; i < sizeof tables / sizeof *tables && method == NULL; i++)
        if (tables[i].type == type)
            method = qp_jinja_find(tables[i].table, name, n);
    return method;
}

/* --- attributes ------------------------------------------------------------------------------- */

static bool loop_items(qp_jinja_run_t *run, const qp_jinja_loop_t *loop, const char *name,
                       qp_jv_t *result)
{
    if (strcmp(name, "previtem") == 0)
        *result = loop->index0 == 0 ? qp_jv_undefined(&run->arena, "is undefined in the first turn",
                                                      "loop.previtem", NULL)
                                    : loop->before;
    else if (strcmp(name, "nextitem") == 0)
        *result = loop->after.type == QP_JV_MISSING
                      ? qp_jv_undefined(&run->arena, "is undefined in the last turn",
                                        "loop.nextitem", NULL)
                      : loop->after;
    else if (strcmp(name, "last") == 0)
        *result = qp_jv_bool(loop->after.type == QP_JV_MISSING);
    else
        return false;
    return true;
}

/* Numbers of a loop; those that need its length only where asked for. */
static qp_error_t loop_numbers(qp_jinja_run_t *run, qp_jinja_loop_t *loop, const char *name,
                               qp_jv_t *result, bool *found)
{
    static const struct {
        const char *name;
        int of_length, of_index, plus;
    } numbers[] = {{"index", 0, 1, 1},     {"index0", 0, 1, 0},      {"length", 1, 0, 0},
                   {"revindex", 1, -1, 0}, {"revindex0", 1, -1, -1}, {"depth", 0, 0, 1},
                   {"depth0", 0, 0, 0}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(name, numbers[i].name) != 0)
            continue;
        int64_t n = 0;
        if (numbers[i].of_length != 0)
            QP_TRY(qp_jinja_loop_length(run, loop, &n));
        *result = qp_jv_int(n * numbers[i].of_length + loop->index0 * numbers[i].of_index +
                            numbers[i].plus);
        *found = true;
    }
    return NULL;
}

static qp_error_t loop_attribute(qp_jinja_run_t *run, qp_jinja_loop_t *loop, const char *name,
                                 qp_jv_t *result, bool *found)
{
    const bool ahead = strcmp(name, "last") == 0 || strcmp(name, "nextitem") == 0;
    if (ahead && loop->after.type == QP_JV_MISSING)
        QP_TRY(qp_jinja_loop_peek(run, loop));
    *found = loop_items(run, loop, name, result);
    if (strcmp(name, "first") == 0) {
        *result = qp_jv_bool(loop->index0 == 0);
        *found = true;
    }
    return *found ? NULL : loop_numbers(run, loop, name, result, found);
}

static bool in_names(const char *names, const char *name, size_t n)
{
    const char *at = names;
    if (n == 0 || strchr(name, ' ') != NULL)
        return false;
    while ((at = strstr(at, name)) != NULL) {
        if (at[-1] == ' ' && at[n] == ' ')
            return true;
        at++;
    }
    return false;
}

static qp_error_t other_attribute(qp_jinja_run_t *run, const qp_jv_t *a, const char *name, size_t n,
                                  qp_jv_t *result, bool *found)
{
    if (n > 4 && qp_has_prefix(name, "__") && qp_has_suffix(name, "__")) {
        if (a->type == QP_JV_DICT && qp_jv_get_text(a->as.dict, name, n) != NULL)
            return QP_ERROR(QP_INPUT, "the key '%.60s' is not supported", name);
        *result = qp_jv_undefined(&run->arena, "is undefined: not safe", name, NULL);
        *found = true;
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (others[i].type != a->type || !in_names(others[i].names, name, n))
            continue;
        if (!others[i].hidden)
            return QP_ERROR(QP_INPUT, "the attribute '%.60s' of a %s is not supported", name,
                            qp_jv_type_name(a));
        *result = qp_jv_undefined(&run->arena, "is undefined: not safe", name, NULL);
        *found = true;
    }
    return NULL;
}

/* Attributes that are values. */
static qp_error_t value_attribute(qp_jinja_run_t *run, const qp_jv_t *a, const char *name, size_t n,
                                  qp_jv_t *result, bool *found)
{
    if (a->type == QP_JV_NAMESPACE) {
        const qp_jv_t *value = qp_jv_get_text(a->as.dict, name, n);
        *found = value != NULL;
        if (value != NULL)
            *result = *value;
    } else if (a->type == QP_JV_LOOP) {
        return loop_attribute(run, a->as.loop, name, result, found);
    } else if (a->type == QP_JV_CYCLER && strcmp(name, "current") == 0) {
        *result = a->as.cycler->items->at[a->as.cycler->at];
        *found = true;
    } else if (a->type == QP_JV_TUPLE && a->as.list->group) {
        const bool grouper = strcmp(name, "grouper") == 0;
        *found = grouper || strcmp(name, "list") == 0;
        if (*found)
            *result = a->as.list->at[grouper ? 0 : 1];
    }
    return NULL;
}

qp_error_t qp_jinja_attribute(qp_jinja_run_t *run, const qp_jv_t *a, const char *name, size_t n,
                              qp_jv_t *result, bool *found)
{
    *found = false;
    if (a->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(a);
    if (strlen(name) != n)
        return NULL;
    QP_TRY(value_attribute(run, a, name, n, result, found));
    const qp_jinja_builtin_t *method = *found ? NULL : find_method(a->type, name, n);
    if (method == NULL)
        return *found ? NULL : other_attribute(run, a, name, n, result, found);
    if (method->call == NULL)
        return QP_ERROR(QP_INPUT, "the method '%s' of a %s is not supported", method->name,
                        qp_jv_type_name(a));
    qp_jv_method_t *bound = QP_JINJA_NEW(&run->arena, qp_jv_method_t, 1);
    *bound = (qp_jv_method_t){.self = *a, .builtin = method};
    *result = (qp_jv_t){.type = QP_JV_METHOD, .as.method = bound};
    *found = true;
    return NULL;
}

bool qp_jinja_is_attribute(const char *name, size_t n)
{
    for (int type = 0; type < QP_JV_N_TYPE; type++)
        if (find_method((qp_jv_type_t)type, name, n) != NULL)
            return true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (in_names(others[i].names, name, n))
            return true;
    return false;
}
