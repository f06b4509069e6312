/* Expressions of a rendering. */
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"

qp_error_t qp_jinja_spend(qp_jinja_run_t *run, size_t n_bytes)
{
    run->n_step += 1 + (int64_t)(n_bytes / 64);
    if (run->n_step > QP_JINJA_MAX_STEPS)
        return QP_ERROR(QP_INPUT, "the template takes more than %d steps", QP_JINJA_MAX_STEPS);
    if (n_bytes > QP_JINJA_MAX_BYTES || run->arena.n_bytes + n_bytes > QP_JINJA_MAX_BYTES)
        return QP_ERROR(QP_INPUT, "the template takes more than %d MiB of memory",
                        QP_JINJA_MAX_BYTES >> 20);
    return NULL;
}

qp_error_t qp_jinja_enter(qp_jinja_run_t *run)
{
    if (run->depth >= QP_JINJA_MAX_DEPTH)
        return QP_ERROR(QP_INPUT, "calls and values are nested more than %d deep",
                        QP_JINJA_MAX_DEPTH);
    run->depth++;
    return NULL;
}

static qp_jv_t *slot(qp_jinja_run_t *run, qp_jinja_ref_t ref)
{
    qp_jinja_activation_t *activation = run->top;
    for (int i = 0; i < ref.hops; i++)
        activation = activation->outer;
    return &activation->slot[ref.slot];
}

/* --- names ------------------------------------------------------------------------------------ */

/* The variable, else the global of a name, else MISSING. */
static qp_jv_t resolve(qp_jinja_run_t *run, const qp_jv_string_t *name)
{
    const qp_jv_t *value = qp_jv_get_text(run->variables, name->data, name->n);
    if (value != NULL)
        return *value;
    const qp_jinja_builtin_t *global = qp_jinja_find(qp_jinja_globals, name->data, name->n);
    if (global != NULL)
        return (qp_jv_t){.type = QP_JV_FUNCTION, .as.function = global};
    return (qp_jv_t){.type = QP_JV_MISSING};
}

void qp_jinja_enter_frame(qp_jinja_run_t *run, const qp_jinja_frame_t *frame)
{
    for (int64_t i = 0; i < frame->n; i++) {
        const qp_jinja_load_t *load = &frame->load[i];
        qp_jv_t *value = &run->top->slot[load->slot];
        if (load->kind == QP_JL_RESOLVE)
            *value = resolve(run, load->name);
        else if (load->kind == QP_JL_ALIAS)
            *value = *slot(run, load->from);
        else if (load->kind == QP_JL_UNDEFINED)
            value->type = QP_JV_MISSING;
    }
    run->n_step += frame->n;
}

void qp_jinja_leave_frame(qp_jinja_run_t *run, const qp_jinja_frame_t *frame)
{
    for (int64_t i = 0; i < frame->n; i++)
        run->top->slot[frame->load[i].slot].type = QP_JV_MISSING;
}

static qp_error_t eval_const(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    (void)run;
    *result = node->value;
    return NULL;
}

static qp_error_t eval_name(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    *result = *slot(run, node->ref);
    if (result->type == QP_JV_MISSING)
        *result = qp_jv_undefined(&run->arena, "is undefined", node->value.as.s->data, NULL);
    return NULL;
}

/* A value for every element of a target; Python's unpacking. */
static qp_error_t unpack(qp_jinja_run_t *run, const qp_jinja_node_t *target, const qp_jv_t *value)
{
    qp_jinja_iter_t *iter = NULL;
    bool end = false;
    qp_jv_t *at = QP_JINJA_NEW(&run->arena, qp_jv_t, target->n + 1);
    QP_TRY(qp_jinja_iterate(run, value, &iter));
    for (int64_t i = 0; i <= target->n; i++) {
        QP_TRY(qp_jinja_next(run, iter, &at[i], &end));
        if (end != (i == target->n))
            return QP_ERROR(QP_INPUT, "too %s values to unpack, expected %lld",
                            end ? "few" : "many", (long long)target->n);
    }
    for (int64_t i = 0; i < target->n; i++)
        QP_TRY(qp_jinja_assign(run, target->item[i], &at[i]));
    return NULL;
}

qp_error_t qp_jinja_assign(qp_jinja_run_t *run, const qp_jinja_node_t *target, const qp_jv_t *value)
{
    if (target->kind == QP_JN_NAME) {
        *slot(run, target->ref) = *value;
        return NULL;
    }
    if (target->kind == QP_JN_TUPLE)
        return unpack(run, target, value);
    const qp_jv_t *namespace = slot(run, target->a->ref);
    const qp_jv_string_t *name = target->value.as.s;
    if (namespace->type != QP_JV_NAMESPACE)
        return QP_ERROR(QP_INPUT, "'%.60s' is no namespace, so it has no attributes to set",
                        target->a->value.as.s->data);
    if (name->data[0] == '_')
        return QP_ERROR(QP_INPUT, "a namespace has no attribute that begins with _ ('%.60s')",
                        name->data);
    qp_jv_set_name(&run->arena, namespace->as.dict, name, value);
    return NULL;
}

/* --- literals and operators ------------------------------------------------------------------- */

static qp_error_t eval_sequence(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    qp_jv_t *at = QP_JINJA_NEW(&run->arena, qp_jv_t, node->n);
    for (int64_t i = 0; i < node->n; i++)
        QP_TRY(qp_jinja_eval(run, node->item[i], &at[i]));
    *result =
        qp_jv_list(&run->arena, node->kind == QP_JN_LIST ? QP_JV_LIST : QP_JV_TUPLE, at, node->n);
    return NULL;
}

static qp_error_t eval_dict(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    *result = qp_jv_dict(&run->arena);
    for (int64_t i = 0; i < node->n; i += 2) {
        qp_jv_t key, value;
        QP_TRY(qp_jinja_eval(run, node->item[i], &key));
        QP_TRY(qp_jinja_eval(run, node->item[i + 1], &value));
        QP_TRY(qp_jv_check_key(&key));
        qp_jv_set(&run->arena, result->as.dict, &key, &value);
    }
    return NULL;
}

static qp_error_t eval_binary(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    qp_jv_t a, b;
    QP_TRY(qp_jinja_eval(run, node->a, &a));
    QP_TRY(qp_jinja_eval(run, node->b, &b));
    return qp_jinja_binary(run, node->op, &a, &b, result);
}

static qp_error_t eval_logic(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    QP_TRY(qp_jinja_eval(run, node->a, result));
    if (qp_jv_truth(result) == (node->kind == QP_JN_AND))
        return qp_jinja_eval(run, node->b, result);
    return NULL;
}

static qp_error_t eval_not(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    QP_TRY(qp_jinja_eval(run, node->a, result));
    *result = qp_jv_bool(!qp_jv_truth(result));
    return NULL;
}

static qp_error_t eval_sign(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    const qp_jv_t zero = qp_jv_int(0);
    const bool minus = node->kind == QP_JN_NEGATE;
    QP_TRY(qp_jinja_eval(run, node->a, result));
    if (result->type == QP_JV_FLOAT)
        result->as.f = minus ? -result->as.f : result->as.f;
    else if (qp_jv_is_integer(result))
        return qp_jinja_binary(run, minus ? QP_JO_SUB : QP_JO_ADD, &zero, result, result);
    else if (result->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(result);
    else
        return QP_ERROR(QP_INPUT, "the sign of a %s", qp_jv_type_name(result));
    return NULL;
}

/* a < b < c: every operand is evaluated once, and not at all behind a relation that fails. */
static qp_error_t eval_compare(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    qp_jv_t left, right;
    bool holds = true;
    QP_TRY(qp_jinja_eval(run, node->a, &left));
    for (int64_t i = 0; i < node->n && holds; i++) {
        QP_TRY(qp_jinja_eval(run, node->item[i]->a, &right));
        QP_TRY(qp_jinja_relation(run, node->item[i]->op, &left, &right, &holds));
        left = right;
    }
    *result = qp_jv_bool(holds);
    return NULL;
}

static qp_error_t eval_concat(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    qp_jv_t *at = QP_JINJA_NEW(&run->arena, qp_jv_t, node->n);
    for (int64_t i = 0; i < node->n; i++)
        QP_TRY(qp_jinja_eval(run, node->item[i], &at[i]));
    QP_TRY(qp_jv_to_string(run, &at[0], result));
    for (int64_t i = 1; i < node->n; i++) {
        const qp_jv_t left = *result;
        qp_jv_t right;
        QP_TRY(qp_jv_to_string(run, &at[i], &right));
        QP_TRY(qp_jinja_binary(run, QP_JO_ADD, &left, &right, result));
    }
    return NULL;
}

static qp_error_t eval_condition(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    QP_TRY(qp_jinja_eval(run, node->a, result));
    if (qp_jv_truth(result))
        return qp_jinja_eval(run, node->b, result);
    if (node->c != NULL)
        return qp_jinja_eval(run, node->c, result);
    *result = qp_jv_undefined(&run->arena, "without else was false, so its value is undefined",
                              "if", NULL);
    return NULL;
}

static qp_error_t eval_getattr(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    qp_jv_t a;
    QP_TRY(qp_jinja_eval(run, node->a, &a));
    return qp_jinja_getattr(run, &a, node->value.as.s, result);
}

static qp_error_t eval_getitem(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    qp_jv_t a, key;
    QP_TRY(qp_jinja_eval(run, node->a, &a));
    if (node->b->kind != QP_JN_SLICE) {
        QP_TRY(qp_jinja_eval(run, node->b, &key));
        return qp_jinja_getitem(run, &a, &key, result);
    }
    const qp_jinja_node_t *const parts[3] = {node->b->a, node->b->b, node->b->c};
    qp_jv_t part[3] = {{.type = QP_JV_MISSING}, {.type = QP_JV_MISSING}, {.type = QP_JV_MISSING}};
    for (int i = 0; i < 3; i++)
        if (parts[i] != NULL)
            QP_TRY(qp_jinja_eval(run, parts[i], &part[i]));
    return qp_jinja_slice(run, &a, part, result);
}

/* --- calls ------------------------------------------------------------------------------------ */

/* *more behind the positional arguments. */
static qp_error_t add_positionals(qp_jinja_run_t *run, const qp_jinja_node_t *more, qp_jv_t **arg,
                                  int64_t *n)
{
    qp_jv_t value, list;
    QP_TRY(qp_jinja_eval(run, more, &value));
    QP_TRY(qp_jinja_collect(run, &value, &list));
    const int64_t n_more = list.as.list->n;
    QP_TRY(qp_jinja_spend(run, (size_t)(*n + n_more) * sizeof(qp_jv_t)));
    qp_jv_t *all = QP_JINJA_NEW(&run->arena, qp_jv_t, *n + n_more);
    if (*n > 0)
        memcpy(all, *arg, (size_t)*n * sizeof *all);
    if (n_more > 0)
        memcpy(all + *n, list.as.list->at, (size_t)n_more * sizeof *all);
    *arg = all;
    *n += n_more;
    return NULL;
}

/* **more_keys behind the keywords. */
static qp_error_t add_keywords(qp_jinja_run_t *run, const qp_jv_t *dict, qp_jinja_given_t *given)
{
    if (dict->type == QP_JV_UNDEFINED)
        return qp_jv_undefined_error(dict);
    if (dict->type != QP_JV_DICT)
        return QP_ERROR(QP_INPUT, "** needs a dict, not a %s", qp_jv_type_name(dict));
    const int64_t n = given->n_key + dict->as.dict->n;
    QP_TRY(qp_jinja_spend(run, (size_t)n * sizeof(qp_jv_t)));
    const qp_jv_string_t **key = QP_JINJA_NEW(&run->arena, const qp_jv_string_t *, n);
    qp_jv_t *value = QP_JINJA_NEW(&run->arena, qp_jv_t, n);
    for (int64_t i = 0; i < n; i++) {
        const int64_t j = i - given->n_key;
        if (j >= 0 && dict->as.dict->key[j].type != QP_JV_STRING)
            return QP_ERROR(QP_INPUT, "** needs a dict with strings as keys");
        key[i] = j < 0 ? given->key[i] : dict->as.dict->key[j].as.s;
        value[i] = j < 0 ? given->value[i] : dict->as.dict->value[j];
        for (int64_t k = 0; k < given->n_key && j >= 0; k++)
            if (qp_jv_equals_text(key[i], key[k]->data, key[k]->n))
                return QP_ERROR(QP_INPUT, "argument '%.60s' is given twice", key[i]->data);
    }
    given->key = key;
    given->value = value;
    given->n_key = n;
    return NULL;
}

qp_error_t qp_jinja_eval_arguments(qp_jinja_run_t *run, const qp_jinja_arguments_t *arguments,
                                   const qp_jv_t *caller, qp_jinja_given_t *given)
{
    static const qp_jv_string_t name = {.data = "caller", .n = 6, .n_chars = 6, .item = -1};
    const int64_t n_key = arguments->n_key + (caller != NULL);
    qp_jv_t *arg = QP_JINJA_NEW(&run->arena, qp_jv_t, arguments->n),
            *value = QP_JINJA_NEW(&run->arena, qp_jv_t, n_key);
    const qp_jv_string_t **key = QP_JINJA_NEW(&run->arena, const qp_jv_string_t *, n_key);
    int64_t n = arguments->n;
    for (int64_t i = 0; i < n; i++)
        QP_TRY(qp_jinja_eval(run, arguments->arg[i], &arg[i]));
    for (int64_t i = 0; i < arguments->n_key; i++) {
        key[i] = arguments->key[i];
        QP_TRY(qp_jinja_eval(run, arguments->value[i], &value[i]));
        if (caller != NULL && qp_jv_equals_text(key[i], name.data, name.n))
            return QP_ERROR(QP_INPUT, "argument 'caller' is given twice");
    }
    if (caller != NULL) {
        key[n_key - 1] = &name;
        value[n_key - 1] = *caller;
    }
    if (arguments->more != NULL)
        QP_TRY(add_positionals(run, arguments->more, &arg, &n));
    *given = (qp_jinja_given_t){.arg = arg, .n = n, .key = key, .value = value, .n_key = n_key};
    if (arguments->more_keys == NULL)
        return NULL;
    qp_jv_t dict;
    QP_TRY(qp_jinja_eval(run, arguments->more_keys, &dict));
    return add_keywords(run, &dict, given);
}

static qp_error_t eval_call(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    qp_jv_t callee;
    qp_jinja_given_t given;
    QP_TRY(qp_jinja_eval(run, node->a, &callee));
    QP_TRY(qp_jinja_eval_arguments(run, node->arguments, NULL, &given));
    run->line = node->line;
    return qp_jinja_call(run, &callee, &given, result);
}

static qp_error_t eval_builtin(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    qp_jv_t self;
    qp_jinja_given_t given;
    QP_TRY(qp_jinja_eval(run, node->a, &self));
    QP_TRY(qp_jinja_eval_arguments(run, node->arguments, NULL, &given));
    run->line = node->line;
    return qp_jinja_invoke(run, node->builtin, &self, &given, result);
}

qp_error_t qp_jinja_eval_filters(qp_jinja_run_t *run, const qp_jinja_node_t *node,
                                 const qp_jv_t *text, qp_jv_t *result)
{
    qp_jv_t self = *text;
    qp_jinja_given_t given;
    QP_TRY(qp_jinja_enter(run));
    if (node->a != NULL)
        QP_TRY(qp_jinja_eval_filters(run, node->a, text, &self));
    QP_TRY(qp_jinja_eval_arguments(run, node->arguments, NULL, &given));
    run->depth--;
    return qp_jinja_invoke(run, node->builtin, &self, &given, result);
}

qp_error_t qp_jinja_eval(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result)
{
    static qp_error_t (*const table[])(qp_jinja_run_t *, const qp_jinja_node_t *, qp_jv_t *) = {
        [QP_JN_CONST] = eval_const,     [QP_JN_NAME] = eval_name,
        [QP_JN_TUPLE] = eval_sequence,  [QP_JN_LIST] = eval_sequence,
        [QP_JN_DICT] = eval_dict,       [QP_JN_BINARY] = eval_binary,
        [QP_JN_AND] = eval_logic,       [QP_JN_OR] = eval_logic,
        [QP_JN_NOT] = eval_not,         [QP_JN_NEGATE] = eval_sign,
        [QP_JN_PLUS] = eval_sign,       [QP_JN_COMPARE] = eval_compare,
        [QP_JN_CONCAT] = eval_concat,   [QP_JN_CONDITION] = eval_condition,
        [QP_JN_GETATTR] = eval_getattr, [QP_JN_GETITEM] = eval_getitem,
        [QP_JN_FILTER] = eval_builtin,  [QP_JN_TEST] = eval_builtin,
        [QP_JN_CALL] = eval_call,
    };
    QP_TRY(qp_jinja_enter(run));
    QP_TRY(qp_jinja_spend(run, 0));
    run->line = node->line;
    QP_TRY(table[node->kind](run, node, result));
    run->depth--;
    return NULL;
}
