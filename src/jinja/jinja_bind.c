/* Binding: names to slots, filters and tests to what is built in, frame by frame. */
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_scope.h"

static void note_attribute(qp_jinja_binder_t *b, const qp_jv_string_t *name)
{
    b->attribute = qp_jinja_grow(b, b->attribute, b->n_attribute, sizeof(void *));
    b->attribute[b->n_attribute++] = name;
}

static qp_error_t bind_name(qp_jinja_scope_t *frame, qp_jinja_node_t *node)
{
    qp_jinja_scope_t *owner = NULL;
    const qp_jinja_symbol_t *symbol = qp_jinja_find_symbol(frame, node->value.as.s, &owner);
    if (symbol == NULL)
        return QP_ERROR(QP_INPUT,
                        "line %d: '%s' is used nowhere but in the filter of a set block, "
                        "which Jinja2 cannot compile",
                        node->line, node->value.as.s->data);
    if (qp_jv_equals_text(node->value.as.s, "self", 4) && !symbol->stored)
        return QP_ERROR(QP_INPUT, "line %d: 'self' is not supported", node->line);
    node->ref = (qp_jinja_ref_t){.hops = qp_jinja_hops(frame->function, owner->function),
                                 .slot = symbol->load.slot};
    return NULL;
}

/* What is called must be known: a name that is set, a global, a method or attribute. */
static qp_error_t check_callee(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                               const qp_jinja_node_t *callee)
{
    const qp_jv_string_t *name = callee->value.as.s; /* of a name or attribute */
    if (callee->kind == QP_JN_NAME) {
        qp_jinja_scope_t *owner = NULL;
        const qp_jinja_symbol_t *symbol = qp_jinja_find_symbol(frame, name, &owner);
        const qp_jinja_builtin_t *global = qp_jinja_find(qp_jinja_globals, name->data, name->n);
        if (symbol == NULL || symbol->stored || (global != NULL && global->call != NULL))
            return NULL;
        return QP_ERROR(QP_INPUT, "line %d: the function '%.60s' is not %s", callee->line,
                        name->data, global != NULL ? "supported" : "known");
    }
    if (callee->kind == QP_JN_GETATTR && !qp_jinja_is_attribute(name->data, name->n)) {
        if (b->n_called == QP_JINJA_MAX_CALLED)
            return QP_ERROR(QP_INPUT, "line %d: more than %d methods are not known", callee->line,
                            QP_JINJA_MAX_CALLED);
        b->called = qp_jinja_grow(b, b->called, b->n_called, sizeof *b->called);
        b->called[b->n_called++] = (qp_jinja_called_t){.name = name, .line = callee->line};
    }
    return NULL;
}

static qp_error_t bind_builtin(qp_jinja_node_t *node)
{
    const qp_jv_string_t *name = node->value.as.s;
    const bool filter = node->kind == QP_JN_FILTER;
    node->builtin = filter ? qp_jinja_find_filter(name->data, name->n)
                           : qp_jinja_find(qp_jinja_tests, name->data, name->n);
    if (node->builtin == NULL || node->builtin->call == NULL)
        return QP_ERROR(QP_INPUT, "line %d: the %s '%.60s' is not %s", node->line,
                        filter ? "filter" : "test", name->data,
                        node->builtin == NULL ? "known" : "supported");
    return NULL;
}

static qp_error_t bind(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, qp_jinja_node_t *node);

static qp_error_t bind_arguments(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                                 qp_jinja_arguments_t *arguments)
{
    if (arguments == NULL)
        return NULL;
    for (int64_t i = 0; i < arguments->n; i++)
        QP_TRY(bind(b, frame, arguments->arg[i]));
    for (int64_t i = 0; i < arguments->n_key; i++) {
        note_attribute(b, arguments->key[i]);
        QP_TRY(bind(b, frame, arguments->value[i]));
    }
    QP_TRY(bind(b, frame, arguments->more));
    return bind(b, frame, arguments->more_keys);
}

/* An expression, or a target. */
static qp_error_t bind(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, qp_jinja_node_t *node)
{
    if (node == NULL)
        return NULL;
    if (node->kind == QP_JN_NAME)
        return bind_name(frame, node);
    if (node->kind == QP_JN_NAMESPACE_REF)
        note_attribute(b, node->value.as.s);
    if (node->kind == QP_JN_FILTER || node->kind == QP_JN_TEST)
        QP_TRY(bind_builtin(node));
    if (node->kind == QP_JN_CALL)
        QP_TRY(check_callee(b, frame, node->a));
    if (node->kind == QP_JN_DICT)
        for (int64_t i = 0; i < node->n; i += 2)
            if (node->item[i]->value.type == QP_JV_STRING)
                note_attribute(b, node->item[i]->value.as.s);
    QP_TRY(bind(b, frame, node->a));
    QP_TRY(bind(b, frame, node->b));
    QP_TRY(bind(b, frame, node->c));
    for (int64_t i = 0; i < node->n; i++)
        QP_TRY(bind(b, frame, node->item[i]));
    return bind_arguments(b, frame, node->arguments);
}

/* --- binding statements ----------------------------------------------------------------------- */

static qp_error_t bind_body(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                            const qp_jinja_body_t *body);

static qp_jinja_scope_t inner(qp_jinja_scope_t *frame)
{
    return (qp_jinja_scope_t){
        .parent = frame, .function = frame->function, .level = frame->level + 1};
}

static qp_jinja_frame_t finished(qp_jinja_binder_t *b, const qp_jinja_scope_t *frame)
{
    qp_jinja_frame_t done = {.load = QP_JINJA_NEW(b->arena, qp_jinja_load_t, frame->n),
                             .n = frame->n};
    for (int i = 0; i < frame->n; i++)
        done.load[i] = frame->symbol[i].load;
    return done;
}

static bool sets(const qp_jinja_node_t *target, const char *name)
{
    for (int64_t i = 0; i < target->n; i++)
        if (sets(target->item[i], name))
            return true;
    return target->kind == QP_JN_NAME && qp_jv_equals_text(target->value.as.s, name, strlen(name));
}

static qp_error_t bind_target(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                              qp_jinja_node_t *target)
{
    if (b->n_for > 0 && sets(target, "loop"))
        return QP_ERROR(QP_INPUT, "line %d: 'loop' cannot be set inside a loop", target->line);
    return bind(b, frame, target);
}

static qp_jinja_node_t *copy_target(qp_jinja_binder_t *b, const qp_jinja_node_t *target)
{
    qp_jinja_node_t *copy = QP_JINJA_NEW(b->arena, qp_jinja_node_t, 1);
    *copy = *target;
    copy->item = QP_JINJA_NEW(b->arena, qp_jinja_node_t *, target->n);
    for (int64_t i = 0; i < target->n; i++)
        copy->item[i] = copy_target(b, target->item[i]);
    return copy;
}

/* The filter of a loop is a function: it has a target of its own and sees what is around the loop.
 */
static qp_error_t bind_loop_test(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                                 qp_jinja_node_t *node)
{
    qp_jinja_slots_t slots = {.outer = frame->function};
    qp_jinja_scope_t test = inner(frame);
    test.function = &slots;
    node->test = QP_JINJA_NEW(b->arena, qp_jinja_function_t, 1);
    node->test_target = copy_target(b, node->a);
    qp_jinja_analyse_target(b, &test, node->a, QP_JB_PARAMETER);
    qp_jinja_analyse(b, &test, node->c);
    QP_TRY(bind(b, &test, node->test_target));
    QP_TRY(bind(b, &test, node->c));
    node->test->frame = finished(b, &test);
    node->test->n_slot = slots.n;
    return NULL;
}

static qp_error_t bind_for(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, qp_jinja_node_t *node)
{
    qp_jinja_scope_t body = inner(frame), orelse = inner(frame);
    b->n_for++;
    if (qp_jinja_undeclared(&node->body, QP_JB_LOOP) != 0) {
        static const qp_jv_string_t loop = {.data = "loop", .n = 4, .n_chars = 4, .item = -1};
        node->loop = qp_jinja_parameter(b, &body, &loop);
    }
    qp_jinja_analyse_target(b, &body, node->a, QP_JB_PARAMETER);
    qp_jinja_analyse_body(b, &body, &node->body, false);
    qp_jinja_analyse_body(b, &orelse, &node->orelse, false);
    if (node->c != NULL)
        QP_TRY(bind_loop_test(b, frame, node));
    QP_TRY(bind_target(b, &body, node->a));
    QP_TRY(bind(b, frame, node->b));
    QP_TRY(bind_body(b, &body, &node->body));
    QP_TRY(bind_body(b, &orelse, &node->orelse));
    node->frame = finished(b, &body);
    node->else_frame = finished(b, &orelse);
    b->n_for--;
    return NULL;
}

/* A parameter called caller needs a default where the body uses it. */
static qp_error_t bind_caller(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                              const qp_jinja_node_t *node)
{
    static const qp_jv_string_t caller = {.data = "caller", .n = 6, .n_chars = 6, .item = -1};
    qp_jinja_function_t *function = node->function;
    function->takes_caller = true;
    for (int64_t i = 0; i < function->n; i++) {
        if (!qp_jv_same_text(function->parameter[i]->value.as.s, &caller))
            continue;
        if (i < function->n - function->n_otherwise)
            return QP_ERROR(QP_INPUT, "line %d: the parameter 'caller' needs a default",
                            node->line);
        return NULL;
    }
    function->caller = qp_jinja_parameter(b, frame, &caller);
    return NULL;
}

static bool has_parameter(const qp_jinja_function_t *function, const qp_jv_string_t *name)
{
    for (int64_t i = 0; i < function->n; i++)
        if (qp_jv_same_text(function->parameter[i]->value.as.s, name))
            return true;
    return false;
}

static qp_error_t bind_function(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                                qp_jinja_node_t *node)
{
    static const qp_jv_string_t kwargs = {.data = "kwargs", .n = 6, .n_chars = 6, .item = -1},
                                varargs = {.data = "varargs", .n = 7, .n_chars = 7, .item = -1},
                                caller = {.data = "caller", .n = 6, .n_chars = 6, .item = -1};
    qp_jinja_function_t *function = node->function;
    qp_jinja_slots_t slots = {.outer = frame->function};
    qp_jinja_scope_t body = inner(frame);
    body.function = &slots;
    for (int64_t i = 0; i < function->n; i++)
        qp_jinja_parameter(b, &body, function->parameter[i]->value.as.s);
    for (int64_t i = 0; i < function->n_otherwise; i++)
        qp_jinja_analyse(b, &body, function->otherwise[i]);
    qp_jinja_analyse_body(b, &body, &node->body, false);
    const unsigned used =
        qp_jinja_undeclared(&node->body, QP_JB_CALLER | QP_JB_KWARGS | QP_JB_VARARGS);
    function->explicit_caller = has_parameter(function, &caller);
    if ((used & QP_JB_CALLER) != 0)
        QP_TRY(bind_caller(b, &body, node));
    if ((used & QP_JB_KWARGS) != 0 && !has_parameter(function, &kwargs))
        function->keywords = qp_jinja_parameter(b, &body, &kwargs);
    if ((used & QP_JB_VARARGS) != 0 && !has_parameter(function, &varargs))
        function->positionals = qp_jinja_parameter(b, &body, &varargs);
    for (int64_t i = 0; i < function->n; i++)
        QP_TRY(bind(b, &body, function->parameter[i]));
    for (int64_t i = 0; i < function->n_otherwise; i++)
        QP_TRY(bind(b, &body, function->otherwise[i]));
    QP_TRY(bind_body(b, &body, &node->body));
    function->frame = finished(b, &body);
    function->n_slot = slots.n;
    return NULL;
}

static qp_error_t bind_if(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, qp_jinja_node_t *node)
{
    QP_TRY(bind(b, frame, node->a));
    QP_TRY(bind_body(b, frame, &node->body));
    for (int64_t i = 0; i < node->n; i++)
        QP_TRY(bind_if(b, frame, node->item[i]));
    return bind_body(b, frame, &node->orelse);
}

/* Bodies whose text is taken: {% set x | filter %} and {% filter %}. */
static qp_error_t bind_captured(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                                qp_jinja_node_t *node)
{
    qp_jinja_scope_t body = inner(frame);
    const bool set = node->kind == QP_JN_ASSIGN_BLOCK;
    qp_jinja_analyse_body(b, &body, &node->body, false);
    if (!set)
        qp_jinja_analyse(b, &body, node->a);
    QP_TRY(bind_body(b, &body, &node->body));
    QP_TRY(bind(b, &body, set ? node->b : node->a));
    if (set)
        QP_TRY(bind_target(b, frame, node->a));
    node->frame = finished(b, &body);
    return NULL;
}

static qp_error_t bind_with(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, qp_jinja_node_t *node)
{
    qp_jinja_scope_t body = inner(frame);
    for (int64_t i = 0; i < node->n; i += 2)
        qp_jinja_analyse_target(b, &body, node->item[i], QP_JB_PARAMETER);
    qp_jinja_analyse_body(b, &body, &node->body, false);
    for (int64_t i = 0; i < node->n; i++)
        QP_TRY(bind(b, i % 2 == 0 ? &body : frame, node->item[i]));
    QP_TRY(bind_body(b, &body, &node->body));
    node->frame = finished(b, &body);
    return NULL;
}

static qp_error_t bind_statement(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                                 qp_jinja_node_t *node)
{
    switch (node->kind) {
    case QP_JN_ASSIGN:
        QP_TRY(bind_target(b, frame, node->a));
        return bind(b, frame, node->b);
    case QP_JN_FOR:
        return bind_for(b, frame, node);
    case QP_JN_IF:
        return bind_if(b, frame, node);
    case QP_JN_MACRO:
        QP_TRY(bind_function(b, frame, node));
        return bind(b, frame, node->a);
    case QP_JN_CALL_BLOCK:
    case QP_JN_GENERATION:
        QP_TRY(bind_function(b, frame, node));
        return bind(b, frame, node->a);
    case QP_JN_ASSIGN_BLOCK:
    case QP_JN_FILTER_BLOCK:
        return bind_captured(b, frame, node);
    case QP_JN_WITH:
        return bind_with(b, frame, node);
    default:
        return bind(b, frame, node);
    }
}

static qp_error_t bind_body(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                            const qp_jinja_body_t *body)
{
    for (int64_t i = 0; i < body->n; i++)
        QP_TRY(bind_statement(b, frame, body->at[i]));
    return NULL;
}

qp_error_t qp_jinja_bind(qp_jinja_t *jinja)
{
    qp_jinja_binder_t b = {.arena = &jinja->arena};
    qp_jinja_slots_t slots = {0};
    qp_jinja_scope_t root = {.function = &slots};
    qp_jinja_analyse_body(&b, &root, &jinja->body, false);
    QP_TRY(bind_body(&b, &root, &jinja->body));
    if (b.crowded)
        return QP_ERROR(QP_INPUT, "line 1: more than %d names", QP_JINJA_MAX_NAMES);
    jinja->root.frame = finished(&b, &root);
    jinja->root.n_slot = slots.n;
    for (int64_t i = 0; i < b.n_called; i++) {
        bool known = false;
        for (int64_t j = 0; j < b.n_attribute && !known; j++)
            known = qp_jv_same_text(b.attribute[j], b.called[i].name);
        if (!known)
            return QP_ERROR(QP_INPUT, "line %d: the method '%.60s' is not known", b.called[i].line,
                            b.called[i].name->data);
    }
    return NULL;
}
