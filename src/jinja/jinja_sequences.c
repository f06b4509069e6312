/* Filters of sequences: ends, order, groups, sums. */
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"

/* --- ends, order ------------------------------------------------------------------------------ */

static qp_error_t first(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jinja_iter_t *iter = NULL;
    bool end = false;
    QP_TRY(qp_jinja_iterate(call->run, &call->self, &iter));
    QP_TRY(qp_jinja_next(call->run, iter, result, &end));
    if (end)
        *result = qp_jv_undefined(&call->run->arena, "is undefined: the sequence is empty", "first",
                                  NULL);
    return NULL;
}

/* What reversed() takes; a generator has no end to begin from. */
static bool is_reversible(const qp_jv_t *value)
{
    return value->type == QP_JV_UNDEFINED || value->type == QP_JV_STRING ||
           value->type == QP_JV_LIST || value->type == QP_JV_TUPLE || value->type == QP_JV_DICT ||
           value->type == QP_JV_VIEW || value->type == QP_JV_RANGE;
}

static qp_error_t backwards(qp_jinja_run_t *run, const qp_jv_t *value, qp_jv_t *list)
{
    QP_TRY(qp_jinja_collect(run, value, list));
    const qp_jv_list_t *from = list->as.list;
    QP_TRY(qp_jinja_spend(run, (size_t)from->n * sizeof(qp_jv_t)));
    qp_jv_t *at = QP_JINJA_NEW(&run->arena, qp_jv_t, from->n);
    for (int64_t i = 0; i < from->n; i++)
        at[i] = from->at[from->n - 1 - i];
    *list = qp_jv_list(&run->arena, QP_JV_LIST, at, from->n);
    return NULL;
}

static qp_error_t last(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_t list;
    if (!is_reversible(&call->self))
        return QP_ERROR(QP_INPUT, "last of a %s", qp_jv_type_name(&call->self));
    QP_TRY(qp_jinja_collect(call->run, &call->self, &list));
    *result = list.as.list->n > 0
                  ? list.as.list->at[list.as.list->n - 1]
                  : qp_jv_undefined(&call->run->arena, "is undefined: the sequence is empty",
                                    "last", NULL);
    return NULL;
}

static qp_error_t next_reversed(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value,
                                bool *end)
{
    return qp_jinja_next_of_source(run, iter, value, end);
}

static qp_error_t reverse(const qp_jinja_call_t *call, qp_jv_t *result)
{
    static const qp_jinja_iter_kind_t kind = {next_reversed, "reversed"};
    const qp_jv_t back = qp_jv_int(-1);
    const qp_jv_t parts[3] = {{.type = QP_JV_MISSING}, {.type = QP_JV_MISSING}, back};
    qp_jv_t list;
    if (call->self.type == QP_JV_STRING)
        return qp_jinja_slice(call->run, &call->self, parts, result);
    QP_TRY(backwards(call->run, &call->self, &list));
    *result = list;
    if (!is_reversible(&call->self)) /* a list of its own in Python too */
        return NULL;
    *result = qp_jinja_generator(call, &kind);
    result->as.iter->over = list;
    return NULL;
}

static qp_error_t list_of(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return qp_jinja_collect(call->run, &call->self, result);
}

/* --- sorting ---------------------------------------------------------------------------------- */

/* Sorts by keys in place, stable; scratch holds as many. index: of elements, by key[index]. */
static qp_error_t merge_sort(qp_jinja_run_t *run, const qp_jv_t *key, int64_t *index,
                             int64_t *scratch, int64_t n, bool down)
{
    if (n < 2)
        return NULL;
    const int64_t half = n / 2;
    QP_TRY(merge_sort(run, key, index, scratch, half, down));
    QP_TRY(merge_sort(run, key, index + half, scratch, n - half, down));
    memcpy(scratch, index, (size_t)half * sizeof *scratch);
    for (int64_t i = 0, j = half, k = 0; i < half; k++) {
        int order = 0;
        if (j < n)
            QP_TRY(qp_jv_compare(run, &key[index[j]], &key[scratch[i]], &order));
        index[k] = j < n && (down ? order > 0 : order < 0) ? index[j++] : scratch[i++];
    }
    return NULL;
}

static qp_error_t sort_by(qp_jinja_run_t *run, const qp_jv_list_t *list, const qp_jv_t *key,
                          bool down, qp_jv_t *result)
{
    QP_TRY(qp_jinja_spend(run, (size_t)list->n * 2 * sizeof(qp_jv_t)));
    int64_t *index = QP_JINJA_NEW(&run->arena, int64_t, list->n),
            *scratch = QP_JINJA_NEW(&run->arena, int64_t, list->n);
    qp_jv_t *at = QP_JINJA_NEW(&run->arena, qp_jv_t, list->n);
    for (int64_t i = 0; i < list->n; i++)
        index[i] = i;
    QP_TRY(merge_sort(run, key, index, scratch, list->n, down));
    for (int64_t i = 0; i < list->n; i++)
        at[i] = list->at[index[i]];
    *result = qp_jv_list(&run->arena, QP_JV_LIST, at, list->n);
    return NULL;
}

/* Keys of "a,b": lists of the attributes, which are compared one after the other. */
static qp_error_t multi_key(qp_jinja_run_t *run, const qp_jv_t *attribute, bool case_sensitive,
                            const qp_jv_t *element, qp_jv_t *key)
{
    qp_jinja_vector_t keys = {0};
    const bool text = attribute->type == QP_JV_STRING;
    const char *at = text ? attribute->as.s->data : "", *end = at + (text ? attribute->as.s->n : 0);
    while (true) {
        const char *comma = text ? memchr(at, ',', (size_t)(end - at)) : NULL;
        qp_jv_t one = *attribute, value;
        if (text)
            one = qp_jv_string(&run->arena, at, (size_t)((comma != NULL ? comma : end) - at));
        const qp_jinja_key_t how = {.attribute = &one, .case_sensitive = case_sensitive};
        QP_TRY(qp_jinja_key_of(run, &how, element, &value));
        QP_TRY(qp_jinja_push(run, &keys, &value));
        if (comma == NULL)
            break;
        at = comma + 1;
    }
    *key = qp_jv_list(&run->arena, QP_JV_LIST, keys.at, keys.n);
    return NULL;
}

static qp_error_t want_flag(const qp_jinja_call_t *call, int at, const char *name)
{
    if (call->arg[at].type != QP_JV_MISSING && !qp_jv_is_integer(&call->arg[at]))
        return QP_ERROR(QP_INPUT, "%s must be true or false, not a %s", name,
                        qp_jv_type_name(&call->arg[at]));
    return NULL;
}

static qp_error_t sort(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_t list;
    QP_TRY(want_flag(call, 0, "reverse"));
    QP_TRY(qp_jinja_collect(call->run, &call->self, &list));
    qp_jv_t *key = QP_JINJA_NEW(&call->run->arena, qp_jv_t, list.as.list->n);
    for (int64_t i = 0; i < list.as.list->n; i++)
        QP_TRY(multi_key(call->run, &call->arg[2], qp_jinja_flag(call, 1), &list.as.list->at[i],
                         &key[i]));
    return sort_by(call->run, list.as.list, key, qp_jinja_flag(call, 0), result);
}

static qp_error_t dictsort(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const qp_jv_dict_t *dict = call->self.as.dict;
    const qp_jv_t *by = &call->arg[1];
    const bool named_by = by->type == QP_JV_STRING,
               value = named_by && qp_jv_equals_text(by->as.s, "value", 5);
    if (by->type != QP_JV_MISSING && !value && !(named_by && qp_jv_equals_text(by->as.s, "key", 3)))
        return QP_ERROR(QP_INPUT, "dictsort sorts by \"key\" or \"value\"");
    if (call->self.type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(&call->self);
    if (call->self.type != QP_JV_DICT)
        return QP_ERROR(QP_INPUT, "dictsort of a %s", qp_jv_type_name(&call->self));
    QP_TRY(want_flag(call, 2, "reverse"));
    qp_jv_view_t view = {.kind = QP_JV_ITEMS, .dict = dict};
    const qp_jv_t pairs = {.type = QP_JV_VIEW, .as.view = &view};
    qp_jv_t list;
    QP_TRY(qp_jinja_collect(call->run, &pairs, &list));
    qp_jv_t *key = QP_JINJA_NEW(&call->run->arena, qp_jv_t, dict->n);
    for (int64_t i = 0; i < dict->n; i++) {
        key[i] = value ? dict->value[i] : dict->key[i];
        if (!qp_jinja_flag(call, 0))
            QP_TRY(qp_jinja_without_case(call->run, &key[i]));
    }
    return sort_by(call->run, list.as.list, key, qp_jinja_flag(call, 2), result);
}

static qp_jv_t group_of(qp_jinja_run_t *run, const qp_jv_t *grouper, const qp_jv_t *at, int64_t n)
{
    qp_jv_t *pair = QP_JINJA_NEW(&run->arena, qp_jv_t, 2);
    pair[0] = *grouper;
    pair[1] = qp_jv_list(&run->arena, QP_JV_LIST, at, n);
    qp_jv_t group = qp_jv_list(&run->arena, QP_JV_TUPLE, pair, 2);
    group.as.list->group = true;
    return group;
}

static qp_error_t groupby(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jinja_run_t *run = call->run;
    const bool case_sensitive = qp_jinja_flag(call, 2);
    const qp_jinja_key_t how = {&call->arg[0], &call->arg[1], case_sensitive},
                         shown = {&call->arg[0], &call->arg[1], true};
    qp_jv_t list, sorted;
    qp_jinja_vector_t groups = {0};
    QP_TRY(qp_jinja_collect(run, &call->self, &list));
    const int64_t n = list.as.list->n;
    qp_jv_t *key = QP_JINJA_NEW(&run->arena, qp_jv_t, n);
    for (int64_t i = 0; i < n; i++)
        QP_TRY(qp_jinja_key_of(run, &how, &list.as.list->at[i], &key[i]));
    QP_TRY(sort_by(run, list.as.list, key, false, &sorted));
    const qp_jv_t *at = sorted.as.list->at;
    for (int64_t begin = 0, end = 0; begin < n; begin = end) {
        qp_jv_t grouper, other;
        bool same = true;
        QP_TRY(qp_jinja_key_of(run, &how, &at[begin], &grouper));
        while (same && ++end < n) {
            QP_TRY(qp_jinja_key_of(run, &how, &at[end], &other));
            QP_TRY(qp_jv_equal(run, &grouper, &other, &same));
        }
        QP_TRY(qp_jinja_key_of(run, &shown, &at[begin], &grouper));
        const qp_jv_t group = group_of(run, &grouper, at + begin, end - begin);
        QP_TRY(qp_jinja_push(run, &groups, &group));
    }
    *result = qp_jv_list(&run->arena, QP_JV_LIST, groups.at, groups.n);
    return NULL;
}

/* --- one value of many ------------------------------------------------------------------------ */

static qp_error_t extreme(const qp_jinja_call_t *call, bool largest, qp_jv_t *result)
{
    const qp_jinja_key_t how = {.attribute = &call->arg[1],
                                .case_sensitive = qp_jinja_flag(call, 0)};
    qp_jinja_iter_t *iter = NULL;
    qp_jv_t best = {.type = QP_JV_MISSING};
    *result = qp_jv_undefined(&call->run->arena, "is undefined: the sequence is empty",
                              largest ? "max" : "min", NULL);
    QP_TRY(qp_jinja_iterate(call->run, &call->self, &iter));
    for (bool end = false;;) {
        qp_jv_t value, key;
        int order = 0;
        QP_TRY(qp_jinja_next(call->run, iter, &value, &end));
        if (end)
            return NULL;
        QP_TRY(qp_jinja_key_of(call->run, &how, &value, &key));
        if (best.type != QP_JV_MISSING)
            QP_TRY(qp_jv_compare(call->run, &key, &best, &order));
        if (best.type != QP_JV_MISSING && (largest ? order <= 0 : order >= 0))
            continue;
        best = key;
        *result = value;
    }
}

static qp_error_t min(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return extreme(call, false, result);
}

static qp_error_t max(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return extreme(call, true, result);
}

static qp_error_t sum(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jinja_iter_t *iter = NULL;
    *result = call->arg[1].type == QP_JV_MISSING ? qp_jv_int(0) : call->arg[1];
    if (result->type == QP_JV_STRING)
        return QP_ERROR(QP_INPUT, "sum cannot start with a str");
    QP_TRY(qp_jinja_iterate(call->run, &call->self, &iter));
    for (bool end = false;;) {
        const qp_jv_t left = *result;
        qp_jv_t value, right;
        QP_TRY(qp_jinja_next(call->run, iter, &value, &end));
        if (end)
            return NULL;
        QP_TRY(qp_jinja_attribute_of(call->run, &call->arg[0], NULL, &value, &right));
        QP_TRY(qp_jinja_binary(call->run, QP_JO_ADD, &left, &right, result));
    }
}

static qp_error_t join(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jinja_text_t text = {.arena = &call->run->arena};
    qp_jinja_iter_t *iter = NULL;
    qp_jv_t separator = qp_jv_name(&call->run->arena, "");
    if (call->arg[0].type != QP_JV_MISSING)
        QP_TRY(qp_jv_to_string(call->run, &call->arg[0], &separator));
    QP_TRY(qp_jinja_iterate(call->run, &call->self, &iter));
    for (int64_t i = 0;; i++) {
        qp_jv_t element, value;
        bool end = false;
        QP_TRY(qp_jinja_next(call->run, iter, &element, &end));
        if (end)
            break;
        QP_TRY(qp_jinja_attribute_of(call->run, &call->arg[1], NULL, &element, &value));
        QP_TRY(qp_jinja_spend(call->run, separator.as.s->n));
        if (i > 0)
            qp_jinja_put(&text, separator.as.s->data, separator.as.s->n);
        QP_TRY(qp_jv_str(call->run, &text, &value));
    }
    *result = qp_jv_string_of(&text);
    return NULL;
}

const qp_jinja_builtin_t qp_jinja_sequence_filters[] = {
    {"dictsort", "case_sensitive,by,reverse", 0, dictsort, false},
    {"first", "", 0, first, false},
    {"groupby", "attribute,default,case_sensitive", 1, groupby, false},
    {"join", "d,attribute", 0, join, false},
    {"last", "", 0, last, false},
    {"list", "", 0, list_of, false},
    {"max", "case_sensitive,attribute", 0, max, false},
    {"min", "case_sensitive,attribute", 0, min, false},
    {"random", NULL, 0, NULL, false},
    {"reverse", "", 0, reverse, false},
    {"sort", "reverse,case_sensitive,attribute", 0, sort, false},
    {"sum", "attribute,start", 0, sum, false},
    {.name = NULL},
};
