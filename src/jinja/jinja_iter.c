/* Iterating: everything that Python iterates, lazily where Python is lazy; the variable loop. */
#include <string.h>

#include "jinja/jinja_run.h"
#include "base/utf8.h"

/* --- what can be iterated --------------------------------------------------------------------- */

static qp_error_t next_of_list(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value,
                               bool *end)
{
    (void)run;
    const qp_jv_list_t *list = iter->over.as.list;
    *end = iter->at >= list->n;
    if (!*end)
        *value = list->at[iter->at++];
    return NULL;
}

static qp_error_t next_of_string(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value,
                                 bool *end)
{
    const qp_jv_string_t *s = iter->over.as.s; /* at counts bytes */
    *end = iter->at >= (int64_t)s->n;
    if (*end)
        return NULL;
    const size_t n = qp_utf8_length(s->data[iter->at]);
    *value = qp_jv_string_at(&run->arena, s->data + iter->at, n);
    iter->at += (int64_t)n;
    return NULL;
}

static qp_error_t next_of_dict(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value,
                               bool *end)
{
    (void)run;
    const qp_jv_dict_t *dict = iter->over.as.dict;
    *end = iter->at >= dict->n;
    if (!*end)
        *value = dict->key[iter->at++];
    return NULL;
}

static qp_jv_t pair(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t *b)
{
    qp_jv_t *at = QP_JINJA_NEW(&run->arena, qp_jv_t, 2);
    at[0] = *a;
    at[1] = *b;
    return qp_jv_list(&run->arena, QP_JV_TUPLE, at, 2);
}

static qp_error_t next_of_view(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value,
                               bool *end)
{
    const qp_jv_view_t *view = iter->over.as.view;
    const int64_t at = iter->at++;
    *end = at >= view->dict->n;
    if (*end)
        return NULL;
    const qp_jv_t *key = &view->dict->key[at], *of = &view->dict->value[at];
    *value = view->kind == QP_JV_KEYS     ? *key
             : view->kind == QP_JV_VALUES ? *of
                                          : pair(run, key, of);
    return NULL;
}

static qp_error_t next_of_range(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value,
                                bool *end)
{
    (void)run;
    const qp_jv_range_t *range = iter->over.as.range;
    *end = iter->at >= range->n;
    if (!*end)
        *value = qp_jv_int(range->start + range->step * iter->at++);
    return NULL;
}

static qp_error_t next_of_nothing(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value,
                                  bool *end)
{
    (void)run;
    (void)iter;
    (void)value;
    *end = true;
    return NULL;
}

static const qp_jinja_iter_kind_t kinds[QP_JV_N_TYPE] = {
    [QP_JV_UNDEFINED] = {next_of_nothing, "undefined"},
    [QP_JV_STRING] = {next_of_string, "str"},
    [QP_JV_LIST] = {next_of_list, "list"},
    [QP_JV_TUPLE] = {next_of_list, "tuple"},
    [QP_JV_DICT] = {next_of_dict, "dict"},
    [QP_JV_RANGE] = {next_of_range, "range"},
    [QP_JV_VIEW] = {next_of_view, "view"},
};

bool qp_jv_is_iterable(const qp_jv_t *value)
{
    return value->type == QP_JV_ITER || value->type == QP_JV_LOOP ||
           kinds[value->type].next != NULL;
}

qp_error_t qp_jinja_iterate(qp_jinja_run_t *run, const qp_jv_t *over, qp_jinja_iter_t **iter)
{
    if (over->type == QP_JV_ITER) {
        *iter = over->as.iter;
        return NULL;
    }
    if (over->type == QP_JV_LOOP)
        return QP_ERROR(QP_INPUT, "iterating over loop is not supported");
    if (!qp_jv_is_iterable(over))
        return QP_ERROR(QP_INPUT, "a %s cannot be iterated", qp_jv_type_name(over));
    *iter = QP_JINJA_NEW(&run->arena, qp_jinja_iter_t, 1);
    (*iter)->kind = &kinds[over->type];
    (*iter)->over = *over;
    return NULL;
}

qp_error_t qp_jinja_next(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value, bool *end)
{
    QP_TRY(qp_jinja_enter(run));
    QP_TRY(qp_jinja_spend(run, 0));
    QP_TRY(iter->kind->next(run, iter, value, end));
    run->depth--;
    return NULL;
}

qp_error_t qp_jinja_push(qp_jinja_run_t *run, qp_jinja_vector_t *vector, const qp_jv_t *value)
{
    if (vector->n == vector->capacity) {
        const int64_t capacity = vector->capacity > 0 ? 2 * vector->capacity : 8;
        QP_TRY(qp_jinja_spend(run, (size_t)capacity * sizeof(qp_jv_t)));
        qp_jv_t *more = QP_JINJA_NEW(&run->arena, qp_jv_t, capacity);
        if (vector->n > 0)
            memcpy(more, vector->at, (size_t)vector->n * sizeof *more);
        vector->at = more;
        vector->capacity = capacity;
    }
    vector->at[vector->n++] = *value;
    return NULL;
}

qp_error_t qp_jinja_collect(qp_jinja_run_t *run, const qp_jv_t *over, qp_jv_t *list)
{
    qp_jinja_iter_t *iter = NULL;
    qp_jinja_vector_t vector = {0};
    qp_jv_t value;
    bool end = false;
    if (over->type == QP_JV_LIST || over->type == QP_JV_TUPLE) { /* elements are shared */
        *list = qp_jv_list(&run->arena, QP_JV_LIST, over->as.list->at, over->as.list->n);
        return NULL;
    }
    QP_TRY(qp_jinja_iterate(run, over, &iter));
    while (true) {
        QP_TRY(qp_jinja_next(run, iter, &value, &end));
        if (end)
            break;
        QP_TRY(qp_jinja_push(run, &vector, &value));
    }
    *list = qp_jv_list(&run->arena, QP_JV_LIST, vector.at, vector.n);
    return NULL;
}

qp_jv_t qp_jinja_generator(const qp_jinja_call_t *call, const qp_jinja_iter_kind_t *kind)
{
    qp_jinja_iter_t *iter = QP_JINJA_NEW(&call->run->arena, qp_jinja_iter_t, 1);
    iter->kind = kind;
    iter->over = call->self;
    iter->given = call->given;
    return (qp_jv_t){.type = QP_JV_ITER, .as.iter = iter};
}

/* --- loop ------------------------------------------------------------------------------------- */

/* The next element, from what was read ahead or from the iterator. */
static qp_error_t read_on(qp_jinja_run_t *run, qp_jinja_loop_t *loop, qp_jv_t *value, bool *end)
{
    if (loop->rest == NULL)
        return qp_jinja_next(run, loop->iter, value, end);
    *end = loop->at_rest >= loop->n_rest;
    if (!*end)
        *value = loop->rest[loop->at_rest++];
    return NULL;
}

qp_error_t qp_jinja_loop_next(qp_jinja_run_t *run, qp_jinja_loop_t *loop, qp_jv_t *value, bool *end)
{
    *end = false;
    if (loop->after.type != QP_JV_MISSING) {
        *value = loop->after;
        loop->after.type = QP_JV_MISSING;
    } else {
        QP_TRY(read_on(run, loop, value, end));
    }
    if (*end)
        return NULL;
    loop->index0++;
    loop->before = loop->current;
    loop->current = *value;
    return NULL;
}

qp_error_t qp_jinja_loop_peek(qp_jinja_run_t *run, qp_jinja_loop_t *loop)
{
    qp_jv_t value;
    bool end = false;
    QP_TRY(read_on(run, loop, &value, &end));
    if (!end)
        loop->after = value;
    return NULL;
}

qp_error_t qp_jinja_loop_length(qp_jinja_run_t *run, qp_jinja_loop_t *loop, int64_t *n)
{
    qp_jinja_vector_t rest = {0};
    if (loop->n < 0 && loop->over.type == QP_JV_ITER) {
        qp_jv_t value;
        for (bool end = false;;) {
            QP_TRY(qp_jinja_next(run, loop->iter, &value, &end));
            if (end)
                break;
            QP_TRY(qp_jinja_push(run, &rest, &value));
        }
        static const qp_jv_t none = {.type = QP_JV_MISSING};
        loop->rest = rest.n > 0 ? rest.at : &none;
        loop->n_rest = rest.n;
        loop->n = rest.n + loop->index0 + 1 + (loop->after.type != QP_JV_MISSING);
    } else if (loop->n < 0) {
        QP_TRY(qp_jinja_len(run, &loop->over, &loop->n));
    }
    *n = loop->n;
    return NULL;
}
