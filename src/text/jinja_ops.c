/* Operators, subscripts, slices, attributes, as Python and Jinja2's sandbox define them. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "text/jinja_run.h"
#include "text/tokenizer_utf8.h"

static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "**"};

/* --- numbers ---------------------------------------------------------------------------------- */

static qp_error_t overflow(const char *sign)
{
    return QP_ERROR(QP_INPUT, "%s goes beyond 64-bit integers, which is not supported", sign);
}

static qp_error_t by_zero(void)
{
    return QP_ERROR(QP_INPUT, "division by zero");
}

static qp_error_t as_finite(double value, qp_jv_t *result)
{
    if (!isfinite(value))
        return QP_ERROR(QP_INPUT, "a number is infinite or not a number, which is not supported");
    *result = qp_jv_float(value);
    return NULL;
}

static qp_error_t integer_power(int64_t a, int64_t b, qp_jv_t *result)
{
    int64_t power = 1;
    if (b < 0)
        return a == 0 ? by_zero() : as_finite(pow((double)a, (double)b), result);
    for (; b > 0; b >>= 1) {
        if ((b & 1) != 0 && __builtin_mul_overflow(power, a, &power))
            return overflow("**");
        if (b > 1 && __builtin_mul_overflow(a, a, &a))
            return overflow("**");
    }
    *result = qp_jv_int(power);
    return NULL;
}

/* Python rounds the quotient once; two doubles do only while they hold the integers. */
static qp_error_t integer_quotient(int64_t a, int64_t b, qp_jv_t *result)
{
    const int64_t limit = (int64_t)1 << 53;
    if (b == 0)
        return by_zero();
    if (a > limit || a < -limit || b > limit || b < -limit)
        return QP_ERROR(QP_INPUT, "/ of integers beyond 2^53 is not supported");
    return as_finite((double)a / (double)b, result);
}

static qp_error_t integers(qp_jinja_op_t op, int64_t a, int64_t b, qp_jv_t *result)
{
    int64_t value = 0;
    bool over = false;
    switch (op) {
    case QP_JO_ADD:
        over = __builtin_add_overflow(a, b, &value);
        break;
    case QP_JO_SUB:
        over = __builtin_sub_overflow(a, b, &value);
        break;
    case QP_JO_MUL:
        over = __builtin_mul_overflow(a, b, &value);
        break;
    case QP_JO_DIV:
        return integer_quotient(a, b, result);
    case QP_JO_POW:
        return integer_power(a, b, result);
    default: /* // and % round to minus infinity */
        if (b == 0)
            return by_zero();
        if (a == INT64_MIN && b == -1)
            return op == QP_JO_MOD ? (*result = qp_jv_int(0), NULL) : overflow("//");
        value = a % b;
        const bool below = value != 0 && (value < 0) != (b < 0);
        value = op == QP_JO_MOD ? value + (below ? b : 0) : a / b - below;
    }
    *result = qp_jv_int(value);
    return over ? overflow(signs[op]) : NULL;
}

static double float_mod(double a, double b)
{
    const double rest = fmod(a, b);
    if (rest == 0)
        return copysign(0.0, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
}

static double float_floordiv(double a, double b)
{
    double rest = fmod(a, b), quotient = (a - rest) / b;
    if (rest != 0 && (rest < 0) != (b < 0))
        quotient -= 1;
    if (quotient == 0)
        return copysign(0.0, a / b);
    const double whole = floor(quotient);
    return quotient - whole > 0.5 ? whole + 1 : whole;
}

static qp_error_t floats(qp_jinja_op_t op, double a, double b, qp_jv_t *result)
{
    if (b == 0 && (op == QP_JO_DIV || op == QP_JO_FLOORDIV || op == QP_JO_MOD))
        return by_zero();
    switch (op) {
    case QP_JO_ADD:
        return as_finite(a + b, result);
    case QP_JO_SUB:
        return as_finite(a - b, result);
    case QP_JO_MUL:
        return as_finite(a * b, result);
    case QP_JO_DIV:
        return as_finite(a / b, result);
    case QP_JO_FLOORDIV:
        return as_finite(float_floordiv(a, b), result);
    case QP_JO_MOD:
        return as_finite(float_mod(a, b), result);
    default:
        return as_finite(pow(a, b), result);
    }
}

/* --- strings and lists
 * ---------------------------------------------------------------------------- */

/* a and b one behind the other, in the room behind a if there is some: then only b is copied. */
static qp_error_t join_bytes(qp_jinja_run_t *run, qp_jv_room_t *room, const void *const data[2],
                             const size_t n[2], qp_jv_room_t **joined)
{
    const bool fits = room != NULL && (const char *)data[0] + n[0] == room->data + room->used &&
                      room->capacity - room->used >= n[1];
    QP_TRY(qp_jinja_spend(run, n[1] + (fits ? 0 : n[0])));
    if (!fits) {
        /* the first sum takes what it needs, the second one expects more */
        const size_t capacity = (room != NULL ? 2 : 1) * (n[0] + n[1]);
        QP_TRY(qp_jinja_spend(run, capacity));
        room = QP_JINJA_NEW(&run->arena, qp_jv_room_t, 1);
        *room = (qp_jv_room_t){.data = qp_jinja_take(&run->arena, capacity), .capacity = capacity};
        if (n[0] > 0)
            memcpy(room->data, data[0], n[0]);
        room->used = n[0];
    }
    if (n[1] > 0)
        memcpy(room->data + room->used, data[1], n[1]);
    room->used += n[1];
    *joined = room;
    return NULL;
}

static qp_error_t join_strings(qp_jinja_run_t *run, qp_jv_string_t *a, qp_jv_string_t *b,
                               qp_jv_t *result)
{
    const void *const data[2] = {a->data, b->data};
    const size_t n[2] = {a->n, b->n};
    qp_jv_room_t *room = NULL;
    QP_TRY(join_bytes(run, a->room, data, n, &room));
    *result = qp_jv_string_at(&run->arena, room->data + room->used - a->n - b->n, a->n + b->n);
    result->as.s->room = room;
    if (a->n_chars >= 0 && b->n_chars >= 0)
        result->as.s->n_chars = a->n_chars + b->n_chars;
    return NULL;
}

static qp_error_t join_lists(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t *b,
                             qp_jv_t *result)
{
    const qp_jv_list_t *x = a->as.list, *y = b->as.list;
    const void *const data[2] = {x->at, y->at};
    const size_t n[2] = {(size_t)x->n * sizeof(qp_jv_t), (size_t)y->n * sizeof(qp_jv_t)};
    qp_jv_room_t *room = NULL;
    QP_TRY(join_bytes(run, x->room, data, n, &room));
    *result = qp_jv_list(&run->arena, a->type,
                         (qp_jv_t *)(void *)(room->data + room->used - n[0] - n[1]), x->n + y->n);
    result->as.list->room = room;
    return NULL;
}

static qp_error_t repeat(qp_jinja_run_t *run, const qp_jv_t *a, int64_t times, qp_jv_t *result)
{
    const bool string = a->type == QP_JV_STRING;
    const size_t n = string ? a->as.s->n : (size_t)a->as.list->n * sizeof(qp_jv_t);
    size_t total = 0;
    if (times < 0)
        times = 0;
    if (__builtin_mul_overflow(n, (size_t)times, &total))
        return QP_ERROR(QP_INPUT, "* makes too large a %s", qp_jv_type_name(a));
    QP_TRY(qp_jinja_spend(run, total));
    char *data = qp_jinja_take(&run->arena, total);
    for (size_t at = 0; at < total; at += n)
        memcpy(data + at, string ? (const void *)a->as.s->data : a->as.list->at, n);
    *result = string ? qp_jv_string_at(&run->arena, data, total)
                     : qp_jv_list(&run->arena, a->type, (qp_jv_t *)(void *)data,
                                  (int64_t)(total / sizeof(qp_jv_t)));
    return NULL;
}

static bool is_sequence(const qp_jv_t *v)
{
    return v->type == QP_JV_STRING || v->type == QP_JV_LIST || v->type == QP_JV_TUPLE;
}

static qp_error_t no_operator(const char *sign, const qp_jv_t *a, const qp_jv_t *b)
{
    if (a->type == QP_JV_UNDEFINED || b->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(a->type == QP_JV_UNDEFINED ? a : b);
    return QP_ERROR(QP_INPUT, "%s of a %s and a %s", sign, qp_jv_type_name(a), qp_jv_type_name(b));
}

/* A string marked safe escapes the other operand of +; its other operators are not built. */
static qp_error_t markup(qp_jinja_run_t *run, qp_jinja_op_t op, const qp_jv_t *a, const qp_jv_t *b,
                         qp_jv_t *result)
{
    qp_jv_t x, y;
    if (op != QP_JO_ADD || a->type != QP_JV_STRING || b->type != QP_JV_STRING)
        return QP_ERROR(QP_INPUT, "%s of a string marked safe is not supported", signs[op]);
    QP_TRY(qp_jinja_escape(run, a, &x));
    QP_TRY(qp_jinja_escape(run, b, &y));
    QP_TRY(join_strings(run, x.as.s, y.as.s, result));
    result->as.s->markup = true;
    return NULL;
}

qp_error_t qp_jinja_binary(qp_jinja_run_t *run, qp_jinja_op_t op, const qp_jv_t *a,
                           const qp_jv_t *b, qp_jv_t *result)
{
    if ((a->type == QP_JV_STRING && a->as.s->markup) ||
        (b->type == QP_JV_STRING && b->as.s->markup))
        return markup(run, op, a, b, result);
    if (qp_jv_is_integer(a) && qp_jv_is_integer(b))
        return integers(op, a->as.i, b->as.i, result);
    if (qp_jv_is_number(a) && qp_jv_is_number(b))
        return floats(op, qp_jv_as_double(a), qp_jv_as_double(b), result);
    if (op == QP_JO_ADD && a->type == b->type && a->type == QP_JV_STRING)
        return join_strings(run, a->as.s, b->as.s, result);
    if (op == QP_JO_ADD && a->type == b->type && is_sequence(a))
        return join_lists(run, a, b, result);
    if (op == QP_JO_MUL && is_sequence(a) && qp_jv_is_integer(b))
        return repeat(run, a, b->as.i, result);
    if (op == QP_JO_MUL && is_sequence(b) && qp_jv_is_integer(a))
        return repeat(run, b, a->as.i, result);
    if (op == QP_JO_MOD && a->type == QP_JV_STRING && b->type != QP_JV_UNDEFINED)
        return qp_jinja_percent(run, a->as.s, b, result);
    return no_operator(signs[op], a, b);
}

/* --- comparisons ------------------------------------------------------------------------------ */

static qp_error_t contains_text(qp_jinja_run_t *run, const qp_jv_string_t *s, const qp_jv_t *value,
                                bool *found)
{
    if (value->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(value);
    if (value->type != QP_JV_STRING)
        return QP_ERROR(QP_INPUT, "in a str needs a str, not a %s", qp_jv_type_name(value));
    *found = memmem(s->data, s->n, value->as.s->data, value->as.s->n) != NULL;
    return qp_jinja_spend(run, s->n);
}

qp_error_t qp_jinja_contains(qp_jinja_run_t *run, const qp_jv_t *container, const qp_jv_t *value,
                             bool *found)
{
    *found = false;
    if (container->type == QP_JV_STRING)
        return contains_text(run, container->as.s, value, found);
    const bool keys = container->type == QP_JV_DICT ||
                      (container->type == QP_JV_VIEW && container->as.view->kind == QP_JV_KEYS);
    if (keys) {
        QP_TRY(qp_jv_check_key(value));
        *found =
            qp_jv_get(container->type == QP_JV_DICT ? container->as.dict : container->as.view->dict,
                      value) != NULL;
        return NULL;
    }
    qp_jinja_iter_t *iter = NULL;
    QP_TRY(qp_jinja_iterate(run, container, &iter));
    for (bool end = false; !*found;) {
        qp_jv_t element;
        QP_TRY(qp_jinja_next(run, iter, &element, &end));
        if (end)
            break;
        QP_TRY(qp_jv_equal(run, &element, value, found));
    }
    return NULL;
}

qp_error_t qp_jinja_relation(qp_jinja_run_t *run, qp_jinja_op_t op, const qp_jv_t *a,
                             const qp_jv_t *b, bool *holds)
{
    int order = 0;
    switch (op) {
    case QP_JO_EQ:
        return qp_jv_equal(run, a, b, holds);
    case QP_JO_NE:
        QP_TRY(qp_jv_equal(run, a, b, holds));
        *holds = !*holds;
        return NULL;
    case QP_JO_IN:
        return qp_jinja_contains(run, b, a, holds);
    case QP_JO_NOT_IN:
        QP_TRY(qp_jinja_contains(run, b, a, holds));
        *holds = !*holds;
        return NULL;
    default:
        QP_TRY(qp_jv_compare(run, a, b, &order));
        *holds = op == QP_JO_LT   ? order < 0
                 : op == QP_JO_LE ? order <= 0
                 : op == QP_JO_GT ? order > 0
                                  : order >= 0;
        return NULL;
    }
}

qp_error_t qp_jinja_len(qp_jinja_run_t *run, const qp_jv_t *value, int64_t *n)
{
    switch (value->type) {
    case QP_JV_UNDEFINED:
        *n = 0;
        return NULL;
    case QP_JV_STRING:
        *n = qp_jv_length(value->as.s);
        return NULL;
    case QP_JV_LIST:
    case QP_JV_TUPLE:
        *n = value->as.list->n;
        return NULL;
    case QP_JV_DICT:
        *n = value->as.dict->n;
        return NULL;
    case QP_JV_RANGE:
        *n = value->as.range->n;
        return NULL;
    case QP_JV_VIEW:
        *n = value->as.view->dict->n;
        return NULL;
    case QP_JV_LOOP:
        return qp_jinja_loop_length(run, value->as.loop, n);
    default:
        return QP_ERROR(QP_INPUT, "a %s has no length", qp_jv_type_name(value));
    }
}

/* --- items and attributes
 * -------------------------------------------------------------------------- */

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
    if ((!is_sequence(a) && a->type != QP_JV_RANGE) || !qp_jv_is_integer(key))
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
    if (!is_sequence(a))
        return QP_ERROR(QP_INPUT, "a slice of a %s is not supported", qp_jv_type_name(a));
    int64_t n = 0;
    QP_TRY(qp_jinja_len(run, a, &n));
    QP_TRY(slice_range(part, n, &range));
    return a->type == QP_JV_STRING ? slice_string(run, a->as.s, &range, result)
                                   : slice_list(run, a, &range, result);
}
