/* Operators as Python defines them. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"

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

/* --- strings and lists ------------------------------------------------------------------------ */

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
    if (op == QP_JO_ADD && a->type == b->type && qp_jv_is_sequence(a))
        return join_lists(run, a, b, result);
    if (op == QP_JO_MUL && qp_jv_is_sequence(a) && qp_jv_is_integer(b))
        return repeat(run, a, b->as.i, result);
    if (op == QP_JO_MUL && qp_jv_is_sequence(b) && qp_jv_is_integer(a))
        return repeat(run, b, a->as.i, result);
    if (op == QP_JO_MOD && a->type == QP_JV_STRING)
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
