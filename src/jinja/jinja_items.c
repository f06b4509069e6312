/* Subscripts, attributes and slices, as Python and Jinja2's sandbox define them. */
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"
#include "base/utf8.h"

/* --- items and attributes --------------------------------------------------------------------- */

static qp_jv_t char_at(qp_jinja_run_t *run, qp_jv_string_t *s, int64_t index)
{
    const size_t at = qp_jv_offset(s, index);
    qp_jv_t value = qp_jv_string_at(&run->arena, s->data + at, qp_utf8_length(s->data[at]));
    value.as.s->markup = s->markup;
    return value;
}

/* a[key] of Python; *found false where it raises an error that Jinja2 answers with undefined. */
static qp_error_t python_item(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t *key,
                              qp_jv_t *result, bool *found)
{
    *found = false;
    if (a->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(a);
    if (a->type == QP_JV_DICT) {
        qp_error_t unhashable = qp_jv_check_key(key);
        const qp_jv_t *value = unhashable == NULL ? qp_jv_get(a->as.dict, key) : NULL;
        qp_error_destroy(&unhashable);
        *found = value != NULL;
        if (value != NULL)
            *result = *value;
        return NULL;
    }
    if ((!qp_jv_is_sequence(a) && a->type != QP_JV_RANGE) || !qp_jv_is_integer(key))
        return NULL;
    int64_t n = 0, index = key->as.i;
    QP_TRY(qp_jinja_len(run, a, &n));
    index += index < 0 ? n : 0;
    if (index < 0 || index >= n)
        return NULL;
    *found = true;
    if (a->type == QP_JV_STRING) {
        QP_TRY(qp_jinja_spend(run, n == (int64_t)a->as.s->n ? 0 : a->as.s->n));
        *result = char_at(run, a->as.s, index);
    } else if (a->type == QP_JV_RANGE) {
        *result = qp_jv_int(a->as.range->start + a->as.range->step * index);
    } else {
        *result = a->as.list->at[index];
    }
    return NULL;
}

static qp_jv_t no_attribute(qp_jinja_run_t *run, const qp_jv_t *a, const char *name)
{
    return qp_jv_undefined(&run->arena, "is undefined: no such attribute or item of a", name,
                           qp_jv_type_name(a));
}

qp_error_t qp_jinja_getattr(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_string_t *name,
                            qp_jv_t *result)
{
    bool found = false;
    const qp_jv_t key = {.type = QP_JV_STRING, .as.s = (qp_jv_string_t *)name};
    QP_TRY(qp_jinja_attribute(run, a, name->data, name->n, result, &found));
    if (!found)
        QP_TRY(python_item(run, a, &key, result, &found));
    if (!found)
        *result = no_attribute(run, a, name->data);
    return NULL;
}

qp_error_t qp_jinja_getitem(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t *key,
                            qp_jv_t *result)
{
    bool found = false;
    QP_TRY(python_item(run, a, key, result, &found));
    if (!found && key->type == QP_JV_STRING) {
        const qp_jv_t name = qp_jv_string(&run->arena, key->as.s->data, key->as.s->n);
        QP_TRY(qp_jinja_attribute(run, a, name.as.s->data, name.as.s->n, result, &found));
    }
    if (!found) {
        qp_jinja_text_t text = {.arena = &run->arena};
        if (key->type == QP_JV_STRING)
            QP_TRY(qp_jv_str(run, &text, key));
        else if (qp_jv_is_number(key))
            QP_TRY(qp_jv_repr(run, &text, key));
        else
            qp_jinja_puts(&text, qp_jv_type_name(key));
        *result = no_attribute(run, a, qp_jv_string(&run->arena, text.data, text.n).as.s->data);
    }
    return NULL;
}

/* --- slices ----------------------------------------------------------------------------------- */

static qp_error_t slice_part(const qp_jv_t *part, int64_t otherwise, int64_t *value)
{
    *value = otherwise;
    if (part->type == QP_JV_MISSING || part->type == QP_JV_NONE)
        return NULL;
    if (!qp_jv_is_integer(part))
        return QP_ERROR(QP_INPUT, "a slice needs integers or none, not a %s",
                        qp_jv_type_name(part));
    *value = part->as.i;
    return NULL;
}

static int64_t clamp(int64_t value, int64_t n, int64_t low, int64_t high)
{
    if (value < 0)
        value = value < -n ? low : value + n; /* no overflow for values near the ends of int64 */
    return value < low ? low : value > high ? high : value;
}

/* start, step and number of the elements of a slice of n, as Python's slice.indices. */
static qp_error_t slice_range(const qp_jv_t part[3], int64_t n, qp_jv_range_t *range)
{
    int64_t start, stop, step;
    QP_TRY(slice_part(&part[2], 1, &step));
    if (step == 0)
        return QP_ERROR(QP_INPUT, "the step of a slice is zero");
    const bool back = step < 0;
    QP_TRY(slice_part(&part[0], back ? INT64_MAX : 0, &start));
    QP_TRY(slice_part(&part[1], back ? INT64_MIN : INT64_MAX, &stop));
    if (step == INT64_MIN)
        step = -INT64_MAX;
    start = clamp(start, n, back ? -1 : 0, back ? n - 1 : n);
    stop = clamp(stop, n, back ? -1 : 0, back ? n - 1 : n);
    const int64_t span = back ? start - stop : stop - start;
    *range = (qp_jv_range_t){.start = start,
                             .stop = stop,
                             .step = step,
                             .n = span > 0 ? (span - 1) / (back ? -step : step) + 1 : 0};
    return NULL;
}

static qp_error_t slice_string(qp_jinja_run_t *run, qp_jv_string_t *s, const qp_jv_range_t *range,
                               qp_jv_t *result)
{
    QP_TRY(qp_jinja_spend(run, s->n));
    if (range->step == 1 && range->n > 0) {
        const size_t begin = qp_jv_offset(s, range->start),
                     end = qp_jv_offset(s, range->start + range->n);
        *result = qp_jv_string_at(&run->arena, s->data + begin, end - begin);
        result->as.s->room = s->room;
    } else {
        qp_jinja_text_t text = {.arena = &run->arena};
        size_t *at = QP_JINJA_NEW(&run->arena, size_t, qp_jv_length(s));
        QP_TRY(qp_jinja_spend(run, (size_t)qp_jv_length(s) * sizeof *at));
        for (size_t i = 0, byte = 0; byte < s->n; i++) {
            at[i] = byte;
            byte += qp_utf8_length(s->data[byte]);
        }
        for (int64_t i = 0; i < range->n; i++) {
            const size_t byte = at[range->start + i * range->step];
            qp_jinja_put(&text, s->data + byte, qp_utf8_length(s->data[byte]));
        }
        *result = qp_jv_string_of(&text);
    }
    result->as.s->markup = s->markup;
    return NULL;
}

static qp_error_t slice_list(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_range_t *range,
                             qp_jv_t *result)
{
    const qp_jv_list_t *list = a->as.list;
    if (range->step == 1 || range->n == 0) { /* elements are shared */
        *result = qp_jv_list(&run->arena, a->type, range->n > 0 ? list->at + range->start : NULL,
                             range->n);
        result->as.list->room = list->room;
        return NULL;
    }
    QP_TRY(qp_jinja_spend(run, (size_t)range->n * sizeof(qp_jv_t)));
    qp_jv_t *at = QP_JINJA_NEW(&run->arena, qp_jv_t, range->n);
    for (int64_t i = 0; i < range->n; i++)
        at[i] = list->at[range->start + i * range->step];
    *result = qp_jv_list(&run->arena, a->type, at, range->n);
    return NULL;
}

qp_error_t qp_jinja_slice(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t part[3],
                          qp_jv_t *result)
{
    qp_jv_range_t range;
    if (a->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(a);
    if (!qp_jv_is_sequence(a))
        return QP_ERROR(QP_INPUT, "a slice of a %s is not supported", qp_jv_type_name(a));
    int64_t n = 0;
    QP_TRY(qp_jinja_len(run, a, &n));
    QP_TRY(slice_range(part, n, &range));
    return a->type == QP_JV_STRING ? slice_string(run, a->as.s, &range, result)
                                   : slice_list(run, a, &range, result);
}
