/* Dicts; equality, order and identity of values. */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "jinja/jinja_run.h"

enum { SMALL_DICT = 8 }; /* up to here keys are compared one by one */

/* --- dicts ------------------------------------------------------------------------------------ */

/* Equal keys have equal hashes: 1, 1.0 and True are one key. */
static uint64_t hash(const qp_jv_t *key)
{
    switch (key->type) {
    case QP_JV_STRING:
        return qp_hash_bytes(key->as.s->data, key->as.s->n);
    case QP_JV_BOOL:
    case QP_JV_INT:
    case QP_JV_FLOAT: {
        const double value = qp_jv_as_double(key) + 0.0; /* -0.0 is 0.0 */
        return qp_hash_bytes(&value, sizeof value);
    }
    case QP_JV_TUPLE: {
        uint64_t sum = (uint64_t)key->as.list->n;
        for (int64_t i = 0; i < key->as.list->n; i++)
            sum = sum * 0x9e3779b97f4a7c15ULL + hash(&key->as.list->at[i]);
        return sum;
    }
    case QP_JV_NONE:
    case QP_JV_UNDEFINED:
        return (uint64_t)key->type;
    default:
        return (uint64_t)(uintptr_t)key->as.object;
    }
}

qp_error_t qp_jv_check_key(const qp_jv_t *key)
{
    if (key->type == QP_JV_LIST || key->type == QP_JV_DICT || key->type == QP_JV_VIEW)
        return QP_ERROR(QP_INPUT, "a %s is not hashable, so it cannot be a key",
                        qp_jv_type_name(key));
    for (int64_t i = 0; key->type == QP_JV_TUPLE && i < key->as.list->n; i++)
        QP_TRY(qp_jv_check_key(&key->as.list->at[i]));
    return NULL;
}

/* Equality of keys, which holds neither lists nor dicts. */
static bool same_key(const qp_jv_t *a, const qp_jv_t *b)
{
    if (a->type == QP_JV_STRING && b->type == QP_JV_STRING)
        return qp_jv_equals_text(a->as.s, b->as.s->data, b->as.s->n);
    if (qp_jv_is_integer(a) && qp_jv_is_integer(b))
        return a->as.i == b->as.i;
    if (qp_jv_is_number(a) && qp_jv_is_number(b)) {
        const long double x = a->type == QP_JV_FLOAT ? (long double)a->as.f : (long double)a->as.i,
                          y = b->type == QP_JV_FLOAT ? (long double)b->as.f : (long double)b->as.i;
        return x == y;
    }
    if (a->type != b->type)
        return false;
    if (a->type == QP_JV_TUPLE) {
        bool equal = a->as.list->n == b->as.list->n;
        for (int64_t i = 0; equal && i < a->as.list->n; i++)
            equal = same_key(&a->as.list->at[i], &b->as.list->at[i]);
        return equal;
    }
    return a->type == QP_JV_NONE || a->type == QP_JV_UNDEFINED || a->as.object == b->as.object;
}

/* Index of a key, or -1; *place is where its slot is or would be. */
static int64_t find_key(const qp_jv_dict_t *dict, const qp_jv_t *key, int64_t *place)
{
    *place = -1;
    if (dict->slot == NULL) {
        for (int64_t i = 0; i < dict->n; i++)
            if (same_key(&dict->key[i], key))
                return i;
        return -1;
    }
    for (uint64_t at = hash(key);; at++) {
        *place = (int64_t)(at & (uint64_t)(dict->n_slot - 1));
        const int64_t index = dict->slot[*place] - 1;
        if (index < 0 || same_key(&dict->key[index], key))
            return index;
    }
}

const qp_jv_t *qp_jv_get(const qp_jv_dict_t *dict, const qp_jv_t *key)
{
    int64_t place;
    const int64_t index = find_key(dict, key, &place);
    return index < 0 ? NULL : &dict->value[index];
}

const qp_jv_t *qp_jv_get_text(const qp_jv_dict_t *dict, const char *key, size_t n)
{
    qp_jv_string_t s = {.data = key, .n = n, .n_chars = -1};
    return qp_jv_get(dict, &(qp_jv_t){.type = QP_JV_STRING, .as.s = &s});
}

static void grow_dict(qp_jinja_arena_t *arena, qp_jv_dict_t *dict)
{
    const size_t used = (size_t)dict->n * sizeof(qp_jv_t);
    dict->capacity = dict->capacity > 0 ? 2 * dict->capacity : 4;
    qp_jv_t *key = QP_JINJA_NEW(arena, qp_jv_t, dict->capacity),
            *value = QP_JINJA_NEW(arena, qp_jv_t, dict->capacity);
    if (used > 0) {
        memcpy(key, dict->key, used);
        memcpy(value, dict->value, used);
    }
    dict->key = key;
    dict->value = value;
    if (dict->capacity <= SMALL_DICT)
        return;
    dict->n_slot = 2 * dict->capacity;
    dict->slot = QP_JINJA_NEW(arena, int32_t, dict->n_slot);
    for (int64_t i = 0, place; i < dict->n; i++) {
        (void)find_key(dict, &dict->key[i], &place);
        dict->slot[place] = (int32_t)i + 1;
    }
}

void qp_jv_set(qp_jinja_arena_t *arena, qp_jv_dict_t *dict, const qp_jv_t *key,
               const qp_jv_t *value)
{
    int64_t place;
    int64_t index = find_key(dict, key, &place);
    if (index < 0) {
        if (dict->n == dict->capacity) {
            grow_dict(arena, dict);
            (void)find_key(dict, key, &place);
        }
        index = dict->n++;
        dict->key[index] = *key;
        if (dict->slot != NULL)
            dict->slot[place] = (int32_t)index + 1;
    }
    dict->value[index] = *value;
}

void qp_jv_set_name(qp_jinja_arena_t *arena, qp_jv_dict_t *dict, const qp_jv_string_t *key,
                    const qp_jv_t *value)
{
    const qp_jv_t name = {.type = QP_JV_STRING, .as.s = (qp_jv_string_t *)key};
    qp_jv_set(arena, dict, &name, value);
}

/* --- comparing -------------------------------------------------------------------------------- */

const char *qp_jv_type_name(const qp_jv_t *value)
{
    static const char *const names[QP_JV_N_TYPE] = {
        [QP_JV_MISSING] = "missing value",
        [QP_JV_UNDEFINED] = "undefined value",
        [QP_JV_NONE] = "None",
        [QP_JV_BOOL] = "bool",
        [QP_JV_INT] = "int",
        [QP_JV_FLOAT] = "float",
        [QP_JV_STRING] = "str",
        [QP_JV_LIST] = "list",
        [QP_JV_TUPLE] = "tuple",
        [QP_JV_DICT] = "dict",
        [QP_JV_RANGE] = "range",
        [QP_JV_VIEW] = "dict view",
        [QP_JV_ITER] = "generator",
        [QP_JV_NAMESPACE] = "namespace",
        [QP_JV_MACRO] = "macro",
        [QP_JV_METHOD] = "method",
        [QP_JV_FUNCTION] = "function",
        [QP_JV_LOOP] = "loop",
        [QP_JV_JOINER] = "joiner",
        [QP_JV_CYCLER] = "cycler",
    };
    return names[value->type];
}

bool qp_jv_truth(const qp_jv_t *value)
{
    switch (value->type) {
    case QP_JV_MISSING:
    case QP_JV_UNDEFINED:
    case QP_JV_NONE:
        return false;
    case QP_JV_BOOL:
    case QP_JV_INT:
        return value->as.i != 0;
    case QP_JV_FLOAT:
        return value->as.f != 0;
    case QP_JV_STRING:
        return value->as.s->n > 0;
    case QP_JV_LIST:
    case QP_JV_TUPLE:
        return value->as.list->n > 0;
    case QP_JV_DICT:
        return value->as.dict->n > 0;
    case QP_JV_RANGE:
        return value->as.range->n > 0;
    case QP_JV_VIEW:
        return value->as.view->dict->n > 0;
    default:
        return true;
    }
}

static int numbers(const qp_jv_t *a, const qp_jv_t *b)
{
    if (qp_jv_is_integer(a) && qp_jv_is_integer(b))
        return (a->as.i > b->as.i) - (a->as.i < b->as.i);
    const long double x = a->type == QP_JV_FLOAT ? (long double)a->as.f : (long double)a->as.i,
                      y = b->type == QP_JV_FLOAT ? (long double)b->as.f : (long double)b->as.i;
    return (x > y) - (x < y);
}

static qp_error_t equal_lists(qp_jinja_run_t *run, const qp_jv_list_t *a, const qp_jv_list_t *b,
                              bool *equal)
{
    *equal = a->n == b->n;
    for (int64_t i = 0; *equal && i < a->n; i++)
        QP_TRY(qp_jv_equal(run, &a->at[i], &b->at[i], equal));
    return NULL;
}

static qp_error_t equal_dicts(qp_jinja_run_t *run, const qp_jv_dict_t *a, const qp_jv_dict_t *b,
                              bool *equal)
{
    *equal = a->n == b->n;
    for (int64_t i = 0; *equal && i < a->n; i++) {
        const qp_jv_t *other = qp_jv_get(b, &a->key[i]);
        *equal = other != NULL;
        if (other != NULL)
            QP_TRY(qp_jv_equal(run, &a->value[i], other, equal));
    }
    return NULL;
}

static bool equal_ranges(const qp_jv_range_t *a, const qp_jv_range_t *b)
{
    return a->n == b->n &&
           (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

static qp_error_t equal_inside(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t *b, bool *equal)
{
    if (a->type == QP_JV_STRING && b->type == QP_JV_STRING) {
        *equal = qp_jv_equals_text(a->as.s, b->as.s->data, b->as.s->n);
        return qp_jinja_spend(run, *equal ? a->as.s->n : 0);
    }
    *equal = qp_jv_is_number(a) && qp_jv_is_number(b) && numbers(a, b) == 0;
    if (a->type != b->type || *equal)
        return NULL;
    switch (a->type) {
    case QP_JV_BOOL:
    case QP_JV_INT:
    case QP_JV_FLOAT:
        return NULL;
    case QP_JV_NONE:
    case QP_JV_UNDEFINED:
        *equal = true;
        return NULL;
    case QP_JV_LIST:
    case QP_JV_TUPLE:
        return equal_lists(run, a->as.list, b->as.list, equal);
    case QP_JV_DICT:
        return equal_dicts(run, a->as.dict, b->as.dict, equal);
    case QP_JV_RANGE:
        *equal = equal_ranges(a->as.range, b->as.range);
        return NULL;
    case QP_JV_VIEW:
        if (a->as.view->kind != QP_JV_VALUES)
            return QP_ERROR(QP_INPUT, "comparing views of dicts is not supported");
        *equal = a->as.object == b->as.object;
        return NULL;
    case QP_JV_METHOD:
        return QP_ERROR(QP_INPUT, "comparing methods is not supported");
    default:
        *equal = a->as.object == b->as.object;
        return NULL;
    }
}

qp_error_t qp_jv_equal(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t *b, bool *equal)
{
    QP_TRY(qp_jinja_enter(run));
    QP_TRY(equal_inside(run, a, b, equal));
    run->depth--;
    return NULL;
}

static qp_error_t compare_lists(qp_jinja_run_t *run, const qp_jv_list_t *a, const qp_jv_list_t *b,
                                int *order)
{
    for (int64_t i = 0; i < a->n && i < b->n; i++) {
        bool equal = false;
        QP_TRY(qp_jv_equal(run, &a->at[i], &b->at[i], &equal));
        if (!equal)
            return qp_jv_compare(run, &a->at[i], &b->at[i], order);
    }
    *order = (a->n > b->n) - (a->n < b->n);
    return NULL;
}

static qp_error_t compare_inside(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t *b,
                                 int *order)
{
    if (a->type == QP_JV_UNDEFINED || b->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(a->type == QP_JV_UNDEFINED ? a : b);
    if (qp_jv_is_number(a) && qp_jv_is_number(b)) {
        *order = numbers(a, b);
        return NULL;
    }
    if (a->type == b->type && a->type == QP_JV_STRING) {
        const size_t n = a->as.s->n < b->as.s->n ? a->as.s->n : b->as.s->n;
        *order = memcmp(a->as.s->data, b->as.s->data, n);
        if (*order == 0)
            *order = (a->as.s->n > b->as.s->n) - (a->as.s->n < b->as.s->n);
        return qp_jinja_spend(run, n);
    }
    if (a->type == b->type && (a->type == QP_JV_LIST || a->type == QP_JV_TUPLE))
        return compare_lists(run, a->as.list, b->as.list, order);
    if (a->type == b->type && a->type == QP_JV_VIEW)
        return QP_ERROR(QP_INPUT, "comparing views of dicts is not supported");
    return QP_ERROR(QP_INPUT, "%s and %s have no order", qp_jv_type_name(a), qp_jv_type_name(b));
}

qp_error_t qp_jv_compare(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t *b, int *order)
{
    QP_TRY(qp_jinja_enter(run));
    QP_TRY(compare_inside(run, a, b, order));
    run->depth--;
    return NULL;
}

qp_error_t qp_jv_same(const qp_jv_t *a, const qp_jv_t *b, bool *same)
{
    *same = false;
    if (a->type != b->type)
        return NULL;
    switch (a->type) {
    case QP_JV_NONE:
        *same = true;
        return NULL;
    case QP_JV_BOOL:
        *same = a->as.i == b->as.i;
        return NULL;
    case QP_JV_INT:
    case QP_JV_FLOAT:
    case QP_JV_STRING:
    case QP_JV_TUPLE:
    case QP_JV_METHOD:
    case QP_JV_RANGE:
    case QP_JV_UNDEFINED:
        return QP_ERROR(QP_INPUT, "sameas of a %s is not supported", qp_jv_type_name(a));
    default:
        *same = a->as.object == b->as.object;
        return NULL;
    }
}
