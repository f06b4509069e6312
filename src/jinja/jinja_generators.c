/* Filters that are generators in Python: what they make is made when it is asked for. */
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"

/* --- attributes of elements ------------------------------------------------------------------- */

/* A part of an attribute "a.0.b": a name, or an index if it is digits. */
static qp_error_t attribute_part(qp_jinja_run_t *run, const char *begin, size_t n, qp_jv_t *part)
{
    int64_t index = 0;
    bool number = false;
    *part = qp_jv_string(&run->arena, begin, n);
    if (n > 0 && strspn(part->as.s->data, "0123456789") == n)
        QP_TRY(qp_jinja_read_int(run, part->as.s, 10, &index, &number));
    if (number)
        *part = qp_jv_int(index);
    return NULL;
}

/* Jinja2's make_attrgetter: the element's attribute; \a otherwise (may be NULL) where undefined. */
qp_error_t qp_jinja_attribute_of(qp_jinja_run_t *run, const qp_jv_t *attribute,
                                 const qp_jv_t *otherwise, const qp_jv_t *element, qp_jv_t *value)
{
    *value = *element;
    if (attribute->type == QP_JV_MISSING || attribute->type == QP_JV_NONE)
        return NULL;
    const bool text = attribute->type == QP_JV_STRING;
    const char *at = text ? attribute->as.s->data : "", *end = at + (text ? attribute->as.s->n : 0);
    while (true) {
        const char *dot = text ? memchr(at, '.', (size_t)(end - at)) : NULL;
        const qp_jv_t owner = *value;
        qp_jv_t part = *attribute;
        if (text)
            QP_TRY(attribute_part(run, at, (size_t)((dot != NULL ? dot : end) - at), &part));
        QP_TRY(qp_jinja_getitem(run, &owner, &part, value));
        if (value->type == QP_JV_UNDEFINED && otherwise != NULL &&
            otherwise->type != QP_JV_MISSING && otherwise->type != QP_JV_NONE)
            *value = *otherwise;
        if (dot == NULL)
            return NULL;
        at = dot + 1;
    }
}

/* What sorting without case looks at. */
qp_error_t qp_jinja_without_case(qp_jinja_run_t *run, qp_jv_t *value)
{
    if (value->type != QP_JV_STRING)
        return NULL;
    const qp_jv_string_t *s = value->as.s;
    return qp_jinja_to_case(run, s, QP_JINJA_LOWER, value);
}

qp_error_t qp_jinja_key_of(qp_jinja_run_t *run, const qp_jinja_key_t *how, const qp_jv_t *element,
                           qp_jv_t *key)
{
    QP_TRY(qp_jinja_attribute_of(run, how->attribute, how->otherwise, element, key));
    return how->case_sensitive ? NULL : qp_jinja_without_case(run, key);
}

/* The next element of what a filter is applied to; made when the first one is asked for. */
qp_error_t qp_jinja_next_of_source(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value,
                                   bool *end)
{
    if (iter->source == NULL)
        QP_TRY(qp_jinja_iterate(run, &iter->over, &iter->source));
    return qp_jinja_next(run, iter->source, value, end);
}

/* --- map, select, reject ---------------------------------------------------------------------- */

static const qp_jv_t *keyword(const qp_jinja_given_t *given, const char *name)
{
    for (int64_t i = 0; i < given->n_key; i++)
        if (qp_jv_equals_text(given->key[i], name, strlen(name)))
            return &given->value[i];
    return NULL;
}

/* A filter or test that is named by a value. */
static qp_error_t named(const qp_jv_t *name, bool filter, const qp_jinja_builtin_t **builtin)
{
    if (name->type != QP_JV_STRING)
        return QP_ERROR(QP_INPUT, "the name of a %s is a %s", filter ? "filter" : "test",
                        qp_jv_type_name(name));
    *builtin = filter ? qp_jinja_find_filter(name->as.s->data, name->as.s->n)
                      : qp_jinja_find(qp_jinja_tests, name->as.s->data, name->as.s->n);
    if (*builtin == NULL)
        return QP_ERROR(QP_INPUT, "the %s '%.*s' is not known", filter ? "filter" : "test",
                        (int)(name->as.s->n < 60 ? name->as.s->n : 60), name->as.s->data);
    return NULL;
}

static qp_error_t next_mapped(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value, bool *end)
{
    const qp_jinja_given_t *given = &iter->given;
    const qp_jv_t *attribute = given->n == 0 ? keyword(given, "attribute") : NULL;
    qp_jv_t element;
    *end = iter->over.type != QP_JV_ITER && !qp_jv_truth(&iter->over);
    if (*end)
        return NULL;
    if (attribute == NULL && given->n == 0)
        return QP_ERROR(QP_INPUT, "map needs the name of a filter or an attribute");
    for (int64_t i = 0; i < given->n_key && attribute != NULL; i++)
        if (&given->value[i] != attribute && &given->value[i] != keyword(given, "default"))
            return QP_ERROR(QP_INPUT, "map: the argument '%.60s' is not known",
                            given->key[i]->data);
    QP_TRY(qp_jinja_next_of_source(run, iter, &element, end));
    if (*end)
        return NULL;
    if (attribute != NULL)
        return qp_jinja_attribute_of(run, attribute, keyword(given, "default"), &element, value);
    qp_jinja_given_t rest = *given;
    const qp_jinja_builtin_t *builtin = NULL;
    rest.arg++;
    rest.n--;
    QP_TRY(named(&given->arg[0], true, &builtin));
    return qp_jinja_invoke(run, builtin, &element, &rest, value);
}

typedef struct {
    bool by_attribute, wanted;
} selection_t;

static qp_error_t selects(qp_jinja_run_t *run, const qp_jinja_given_t *given, bool by_attribute,
                          const qp_jv_t *element, bool *verdict)
{
    const int64_t test = by_attribute;
    const qp_jinja_builtin_t *builtin = NULL;
    qp_jv_t value = *element;
    if (by_attribute)
        QP_TRY(qp_jinja_attribute_of(run, &given->arg[0], NULL, element, &value));
    if (given->n > test) {
        qp_jinja_given_t rest = *given;
        const qp_jv_t tested = value;
        rest.arg += test + 1;
        rest.n -= test + 1;
        QP_TRY(named(&given->arg[test], false, &builtin));
        QP_TRY(qp_jinja_invoke(run, builtin, &tested, &rest, &value));
    }
    *verdict = qp_jv_truth(&value);
    return NULL;
}

static qp_error_t next_selected(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value,
                                bool *end)
{
    const selection_t *selection = iter->state;
    *end = iter->over.type != QP_JV_ITER && !qp_jv_truth(&iter->over);
    if (*end)
        return NULL;
    if (selection->by_attribute && iter->given.n == 0)
        return QP_ERROR(QP_INPUT, "selectattr and rejectattr need an attribute");
    while (true) {
        bool verdict = false;
        QP_TRY(qp_jinja_next_of_source(run, iter, value, end));
        if (*end)
            return NULL;
        QP_TRY(selects(run, &iter->given, selection->by_attribute, value, &verdict));
        if (verdict == selection->wanted)
            return NULL;
    }
}

static qp_error_t map(const qp_jinja_call_t *call, qp_jv_t *result)
{
    static const qp_jinja_iter_kind_t kind = {next_mapped, "map"};
    *result = qp_jinja_generator(call, &kind);
    return NULL;
}

static qp_error_t make_selection(const qp_jinja_call_t *call, const selection_t *selection,
                                 qp_jv_t *result)
{
    static const qp_jinja_iter_kind_t kind = {next_selected, "selection"};
    *result = qp_jinja_generator(call, &kind);
    result->as.iter->state = (void *)selection;
    return NULL;
}

static qp_error_t select_elements(const qp_jinja_call_t *call, qp_jv_t *result)
{
    static const selection_t selection = {false, true};
    return make_selection(call, &selection, result);
}

static qp_error_t reject(const qp_jinja_call_t *call, qp_jv_t *result)
{
    static const selection_t selection = {false, false};
    return make_selection(call, &selection, result);
}

static qp_error_t selectattr(const qp_jinja_call_t *call, qp_jv_t *result)
{
    static const selection_t selection = {true, true};
    return make_selection(call, &selection, result);
}

static qp_error_t rejectattr(const qp_jinja_call_t *call, qp_jv_t *result)
{
    static const selection_t selection = {true, false};
    return make_selection(call, &selection, result);
}

/* --- other generators ------------------------------------------------------------------------- */

static qp_jv_t *kept_arguments(const qp_jinja_call_t *call)
{
    qp_jv_t *arg = QP_JINJA_NEW(&call->run->arena, qp_jv_t, QP_JINJA_MAX_PARAMETER);
    memcpy(arg, call->arg, QP_JINJA_MAX_PARAMETER * sizeof *arg);
    return arg;
}

typedef struct {
    qp_jv_t seen; /* dict */
    const qp_jv_t *arg;
} unique_t;

static qp_error_t next_unique(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value, bool *end)
{
    unique_t *unique = iter->state;
    const qp_jinja_key_t how = {.attribute = &unique->arg[1],
                                .case_sensitive = qp_jv_truth(&unique->arg[0])};
    while (true) {
        qp_jv_t key;
        QP_TRY(qp_jinja_next_of_source(run, iter, value, end));
        if (*end)
            return NULL;
        QP_TRY(qp_jinja_key_of(run, &how, value, &key));
        QP_TRY(qp_jv_check_key(&key));
        if (qp_jv_get(unique->seen.as.dict, &key) != NULL)
            continue;
        qp_jv_set(&run->arena, unique->seen.as.dict, &key, &key);
        return NULL;
    }
}

static qp_error_t unique_elements(const qp_jinja_call_t *call, qp_jv_t *result)
{
    static const qp_jinja_iter_kind_t kind = {next_unique, "unique"};
    unique_t *unique = QP_JINJA_NEW(&call->run->arena, unique_t, 1);
    *unique = (unique_t){.seen = qp_jv_dict(&call->run->arena), .arg = kept_arguments(call)};
    *result = qp_jinja_generator(call, &kind);
    result->as.iter->state = unique;
    return NULL;
}

static qp_error_t next_batch(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value, bool *end)
{
    const qp_jv_t *arg = iter->state;
    qp_jinja_vector_t batch = {0};
    qp_jv_t element;
    if (!qp_jv_is_integer(&arg[0]) || arg[0].as.i < 1)
        return QP_ERROR(QP_INPUT, "batch needs a number of elements of at least 1");
    const int64_t n = arg[0].as.i;
    *end = iter->at > 0;
    while (batch.n < n && !*end) {
        QP_TRY(qp_jinja_next_of_source(run, iter, &element, end));
        if (!*end)
            QP_TRY(qp_jinja_push(run, &batch, &element));
    }
    iter->at = *end; /* the source is not asked again */
    *end = batch.n == 0;
    const bool fill = arg[1].type != QP_JV_MISSING && arg[1].type != QP_JV_NONE;
    while (batch.n > 0 && batch.n < n && fill) {
        QP_TRY(qp_jinja_spend(run, 0));
        QP_TRY(qp_jinja_push(run, &batch, &arg[1]));
    }
    *value = qp_jv_list(&run->arena, QP_JV_LIST, batch.at, batch.n);
    return NULL;
}

static qp_error_t batch_elements(const qp_jinja_call_t *call, qp_jv_t *result)
{
    static const qp_jinja_iter_kind_t kind = {next_batch, "batch"};
    *result = qp_jinja_generator(call, &kind);
    result->as.iter->state = kept_arguments(call);
    return NULL;
}

static qp_error_t next_slice(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value, bool *end)
{
    const qp_jv_t *arg = iter->state;
    qp_jinja_vector_t slice = {0};
    if (!qp_jv_is_integer(&arg[0]) || arg[0].as.i == 0)
        return QP_ERROR(QP_INPUT, "slice needs a number of slices that is not 0");
    const int64_t n = arg[0].as.i, at = iter->at++;
    if (at == 0) {
        const qp_jv_t over = iter->over;
        QP_TRY(qp_jinja_collect(run, &over, &iter->over));
    }
    *end = at >= n;
    if (*end)
        return NULL;
    const qp_jv_list_t *list = iter->over.as.list;
    const int64_t each = list->n / n, extra = list->n % n,
                  begin = at * each + (at < extra ? at : extra), count = each + (at < extra);
    for (int64_t i = 0; i < count; i++)
        QP_TRY(qp_jinja_push(run, &slice, &list->at[begin + i]));
    if (arg[1].type != QP_JV_MISSING && arg[1].type != QP_JV_NONE && at >= extra)
        QP_TRY(qp_jinja_push(run, &slice, &arg[1]));
    *value = qp_jv_list(&run->arena, QP_JV_LIST, slice.at, slice.n);
    return NULL;
}

static qp_error_t slice_elements(const qp_jinja_call_t *call, qp_jv_t *result)
{
    static const qp_jinja_iter_kind_t kind = {next_slice, "slice"};
    *result = qp_jinja_generator(call, &kind);
    result->as.iter->state = kept_arguments(call);
    return NULL;
}

static qp_error_t next_item(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value, bool *end)
{
    if (iter->source == NULL && iter->over.type != QP_JV_DICT && iter->over.type != QP_JV_UNDEFINED)
        return QP_ERROR(QP_INPUT, "items needs a dict, not a %s", qp_jv_type_name(&iter->over));
    if (iter->source == NULL && iter->over.type == QP_JV_DICT) {
        qp_jv_view_t *view = QP_JINJA_NEW(&run->arena, qp_jv_view_t, 1);
        *view = (qp_jv_view_t){.kind = QP_JV_ITEMS, .dict = iter->over.as.dict};
        iter->over = (qp_jv_t){.type = QP_JV_VIEW, .as.view = view};
    }
    return qp_jinja_next_of_source(run, iter, value, end);
}

static qp_error_t items(const qp_jinja_call_t *call, qp_jv_t *result)
{
    static const qp_jinja_iter_kind_t kind = {next_item, "items"};
    *result = qp_jinja_generator(call, &kind);
    return NULL;
}

const qp_jinja_builtin_t qp_jinja_generator_filters[] = {
    {"batch", "linecount,fill_with", 1, batch_elements, false},
    {"items", "", 0, items, false},
    {"map", NULL, 0, map, false},
    {"reject", NULL, 0, reject, false},
    {"rejectattr", NULL, 0, rejectattr, false},
    {"select", NULL, 0, select_elements, false},
    {"selectattr", NULL, 0, selectattr, false},
    {"slice", "slices,fill_with", 1, slice_elements, false},
    {"unique", "case_sensitive,attribute", 0, unique_elements, false},
    {.name = NULL},
};
