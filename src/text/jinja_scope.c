/*
 * Names to slots, as Jinja2's idtracking.py and compiler.py bind them. Every frame has symbols. A
 * name that a frame only reads is the symbol of the nearest frame around it that has one, else it
 * is looked up among the variables when the frame is entered. A name that a frame sets is its own:
 * it begins as a copy of the one around it; without one it begins as the variable of that name if
 * it was read or set under a condition first, and as undefined otherwise.
 */
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "text/jinja_run.h"

/* Bounds that no template meant to be read comes near: names are searched one by one. */
enum { MAX_NAMES = 2000, MAX_CALLED = 200 };

typedef struct slots slots_t;
/* Slots of a function while it is compiled: frames of one level share a name's slot. */
struct slots {
    slots_t *outer;
    struct {
        int level;
        const qp_jv_string_t *name;
    } * at;
    int n, capacity;
};

typedef struct {
    const qp_jv_string_t *name;
    qp_jinja_load_t load;
    bool stored;
} symbol_t;

typedef struct frame frame_t;
struct frame {
    frame_t *parent;
    slots_t *function;
    int level;
    symbol_t *symbol;
    int n, capacity;
};

typedef struct {
    const qp_jv_string_t *name;
    int line;
} called_t;

typedef struct {
    qp_jinja_arena_t *arena;
    int n_for;                        /* loops around this place */
    const qp_jv_string_t **attribute; /* names that a namespace or dict may have */
    int64_t n_attribute;
    called_t *called; /* methods that no type has */
    int64_t n_called;
    bool crowded; /* MAX_NAMES were not enough */
} binder_t;

static bool same(const qp_jv_string_t *a, const qp_jv_string_t *b)
{
    return qp_jv_equals_text(a, b->data, b->n);
}

/* Room for one more in an array of the arena that doubles. */
static void *grow(binder_t *b, void *at, int64_t n, size_t size)
{
    if ((n & (n - 1)) != 0)
        return at;
    char *more = qp_jinja_take(b->arena, (size_t)(n > 0 ? 2 * n : 1) * size);
    if (n > 0)
        memcpy(more, at, (size_t)n * size);
    return more;
}

/* --- symbols ---------------------------------------------------------------------------------- */

static symbol_t *own(frame_t *frame, const qp_jv_string_t *name)
{
    for (int i = 0; i < frame->n; i++)
        if (same(frame->symbol[i].name, name))
            return &frame->symbol[i];
    return NULL;
}

static symbol_t *find(frame_t *frame, const qp_jv_string_t *name, frame_t **owner)
{
    for (; frame != NULL; frame = frame->parent) {
        symbol_t *symbol = own(frame, name);
        if (symbol != NULL) {
            *owner = frame;
            return symbol;
        }
    }
    return NULL;
}

static int slot_of(binder_t *b, slots_t *function, int level, const qp_jv_string_t *name)
{
    for (int i = 0; i < function->n; i++)
        if (function->at[i].level == level && same(function->at[i].name, name))
            return i;
    if (function->n == MAX_NAMES) {
        b->crowded = true;
        return 0;
    }
    function->at = grow(b, function->at, function->n, sizeof *function->at);
    function->at[function->n].level = level;
    function->at[function->n].name = name;
    return function->n++;
}

static int hops(const slots_t *from, const slots_t *to)
{
    int n = 0;
    for (; from != to; from = from->outer)
        n++;
    return n;
}

static symbol_t *define(binder_t *b, frame_t *frame, const qp_jv_string_t *name,
                        qp_jinja_load_kind_t kind)
{
    symbol_t *symbol = own(frame, name);
    if (symbol == NULL && frame->n == MAX_NAMES) {
        b->crowded = true;
        symbol = frame->symbol;
    } else if (symbol == NULL) {
        frame->symbol = grow(b, frame->symbol, frame->n, sizeof *frame->symbol);
        symbol = &frame->symbol[frame->n++];
    }
    *symbol = (symbol_t){.name = name,
                         .load = {.kind = kind,
                                  .slot = slot_of(b, frame->function, frame->level, name),
                                  .name = name}};
    return symbol;
}

static int parameter(binder_t *b, frame_t *frame, const qp_jv_string_t *name)
{
    symbol_t *symbol = define(b, frame, name, QP_JL_PARAMETER);
    symbol->stored = true;
    return symbol->load.slot;
}

static void load(binder_t *b, frame_t *frame, const qp_jv_string_t *name)
{
    frame_t *owner = NULL;
    if (find(frame, name, &owner) == NULL)
        define(b, frame, name, QP_JL_RESOLVE);
}

static void store(binder_t *b, frame_t *frame, const qp_jv_string_t *name, bool condition)
{
    symbol_t *symbol = own(frame, name);
    if (symbol == NULL) {
        frame_t *owner = NULL;
        const symbol_t *outer = find(frame->parent, name, &owner);
        symbol = define(b, frame, name,
                        outer != NULL ? QP_JL_ALIAS
                        : condition   ? QP_JL_RESOLVE
                                      : QP_JL_UNDEFINED);
        if (outer != NULL)
            symbol->load.from = (qp_jinja_ref_t){.hops = hops(frame->function, owner->function),
                                                 .slot = outer->load.slot};
    }
    symbol->stored = true;
}

/* --- what a frame reads and sets ----------------------------------------------------------------
 */

static void analyse(binder_t *b, frame_t *frame, const qp_jinja_node_t *node);

static void analyse_arguments(binder_t *b, frame_t *frame, const qp_jinja_arguments_t *arguments)
{
    if (arguments == NULL)
        return;
    for (int64_t i = 0; i < arguments->n; i++)
        analyse(b, frame, arguments->arg[i]);
    for (int64_t i = 0; i < arguments->n_key; i++)
        analyse(b, frame, arguments->value[i]);
    analyse(b, frame, arguments->more);
    analyse(b, frame, arguments->more_keys);
}

/* Names that an expression reads. */
static void analyse(binder_t *b, frame_t *frame, const qp_jinja_node_t *node)
{
    if (node == NULL)
        return;
    if (node->kind == QP_JN_NAME)
        load(b, frame, node->value.as.s);
    analyse(b, frame, node->a);
    analyse(b, frame, node->b);
    analyse(b, frame, node->c);
    for (int64_t i = 0; i < node->n; i++)
        analyse(b, frame, node->item[i]);
    analyse_arguments(b, frame, node->arguments);
}

typedef enum { SET, SET_IF, PARAMETER } target_use_t;

static void analyse_target(binder_t *b, frame_t *frame, const qp_jinja_node_t *target,
                           target_use_t use)
{
    for (int64_t i = 0; i < target->n; i++)
        analyse_target(b, frame, target->item[i], use);
    if (target->kind == QP_JN_NAMESPACE_REF)
        load(b, frame, target->a->value.as.s);
    else if (target->kind == QP_JN_NAME && use == PARAMETER)
        parameter(b, frame, target->value.as.s);
    else if (target->kind == QP_JN_NAME)
        store(b, frame, target->value.as.s, use == SET_IF);
}

static void analyse_body(binder_t *b, frame_t *frame, const qp_jinja_body_t *body, bool condition);

static void analyse_if(binder_t *b, frame_t *frame, const qp_jinja_node_t *node)
{
    analyse(b, frame, node->a);
    analyse_body(b, frame, &node->body, true);
    for (int64_t i = 0; i < node->n; i++)
        analyse_if(b, frame, node->item[i]);
    analyse_body(b, frame, &node->orelse, true);
}

/* What a statement means for the frame it stands in; inner frames are looked at on their own. */
static void analyse_statement(binder_t *b, frame_t *frame, const qp_jinja_node_t *node,
                              bool condition)
{
    const target_use_t use = condition ? SET_IF : SET;
    switch (node->kind) {
    case QP_JN_OUTPUT:
        for (int64_t i = 0; i < node->n; i++)
            analyse(b, frame, node->item[i]);
        break;
    case QP_JN_ASSIGN:
        analyse(b, frame, node->b);
        analyse_target(b, frame, node->a, use);
        break;
    case QP_JN_ASSIGN_BLOCK:
        analyse_target(b, frame, node->a, use);
        break;
    case QP_JN_FOR:
        analyse(b, frame, node->b);
        break;
    case QP_JN_IF:
        analyse_if(b, frame, node);
        break;
    case QP_JN_MACRO:
        store(b, frame, node->function->name, condition);
        break;
    case QP_JN_CALL_BLOCK:
    case QP_JN_FILTER_BLOCK:
        analyse(b, frame, node->a);
        break;
    case QP_JN_WITH:
        for (int64_t i = 1; i < node->n; i += 2)
            analyse(b, frame, node->item[i]);
        break;
    default:
        break;
    }
}

static void analyse_body(binder_t *b, frame_t *frame, const qp_jinja_body_t *body, bool condition)
{
    for (int64_t i = 0; i < body->n; i++)
        analyse_statement(b, frame, body->at[i], condition);
}

/* --- which special names are read before they are set --------------------------------------------
 */

enum { N_SPECIAL = 4 };
static const char *const specials[N_SPECIAL] = {"caller", "kwargs", "varargs", "loop"};
enum { CALLER = 1, KWARGS = 2, VARARGS = 4, LOOP = 8 };

typedef struct {
    unsigned open, found; /* bits of specials */
} search_t;

static void search_body(search_t *s, const qp_jinja_body_t *body);

static void search_name(search_t *s, const qp_jv_string_t *name, bool read)
{
    for (unsigned i = 0; i < N_SPECIAL; i++)
        if (qp_jv_equals_text(name, specials[i], strlen(specials[i]))) {
            if (read)
                s->found |= s->open & (1U << i);
            else
                s->open &= ~(1U << i);
        }
}

static void search_target(search_t *s, const qp_jinja_node_t *target)
{
    if (target->kind == QP_JN_NAME)
        search_name(s, target->value.as.s, false);
    for (int64_t i = 0; i < target->n; i++)
        search_target(s, target->item[i]);
}

static void search(search_t *s, const qp_jinja_node_t *node)
{
    if (node == NULL)
        return;
    if (node->kind == QP_JN_NAME)
        search_name(s, node->value.as.s, true);
    search(s, node->a);
    search(s, node->b);
    search(s, node->c);
    for (int64_t i = 0; i < node->n; i++)
        search(s, node->item[i]);
    const qp_jinja_arguments_t *arguments = node->arguments;
    for (int64_t i = 0; arguments != NULL && i < arguments->n; i++)
        search(s, arguments->arg[i]);
    for (int64_t i = 0; arguments != NULL && i < arguments->n_key; i++)
        search(s, arguments->value[i]);
    if (arguments != NULL) {
        search(s, arguments->more);
        search(s, arguments->more_keys);
    }
}

static void search_function(search_t *s, const qp_jinja_node_t *node)
{
    const qp_jinja_function_t *function = node->function;
    for (int64_t i = 0; i < function->n; i++)
        search_target(s, function->parameter[i]);
    for (int64_t i = 0; i < function->n_otherwise; i++)
        search(s, function->otherwise[i]);
    search_body(s, &node->body);
}

static void search_statement(search_t *s, const qp_jinja_node_t *node)
{
    switch (node->kind) {
    case QP_JN_FOR:
        search_target(s, node->a);
        search(s, node->b);
        search_body(s, &node->body);
        search_body(s, &node->orelse);
        search(s, node->c);
        break;
    case QP_JN_IF:
        search(s, node->a);
        search_body(s, &node->body);
        for (int64_t i = 0; i < node->n; i++)
            search_statement(s, node->item[i]);
        search_body(s, &node->orelse);
        break;
    case QP_JN_ASSIGN:
    case QP_JN_ASSIGN_BLOCK:
        search_target(s, node->a);
        search(s, node->b);
        search_body(s, &node->body);
        break;
    case QP_JN_MACRO:
        search_function(s, node);
        break;
    case QP_JN_CALL_BLOCK:
    case QP_JN_GENERATION:
        search(s, node->a);
        search_function(s, node);
        break;
    case QP_JN_FILTER_BLOCK:
        search_body(s, &node->body);
        search(s, node->a);
        break;
    case QP_JN_WITH:
        for (int64_t i = 0; i < node->n; i += 2)
            search_target(s, node->item[i]);
        for (int64_t i = 1; i < node->n; i += 2)
            search(s, node->item[i]);
        search_body(s, &node->body);
        break;
    default:
        search(s, node);
    }
}

static void search_body(search_t *s, const qp_jinja_body_t *body)
{
    for (int64_t i = 0; i < body->n; i++)
        search_statement(s, body->at[i]);
}

static unsigned undeclared(const qp_jinja_body_t *body, unsigned of)
{
    search_t s = {.open = of};
    search_body(&s, body);
    return s.found;
}

/* --- binding expressions ------------------------------------------------------------------------
 */

static void note_attribute(binder_t *b, const qp_jv_string_t *name)
{
    b->attribute = grow(b, b->attribute, b->n_attribute, sizeof(void *));
    b->attribute[b->n_attribute++] = name;
}

static qp_error_t bind_name(frame_t *frame, qp_jinja_node_t *node)
{
    frame_t *owner = NULL;
    const symbol_t *symbol = find(frame, node->value.as.s, &owner);
    if (symbol == NULL)
        return QP_ERROR(QP_INPUT,
                        "line %d: '%s' is used nowhere but in the filter of a set block, "
                        "which Jinja2 cannot compile",
                        node->line, node->value.as.s->data);
    if (qp_jv_equals_text(node->value.as.s, "self", 4) && !symbol->stored)
        return QP_ERROR(QP_INPUT, "line %d: 'self' is not supported", node->line);
    node->ref =
        (qp_jinja_ref_t){.hops = hops(frame->function, owner->function), .slot = symbol->load.slot};
    return NULL;
}

/* What is called must be known: a name that is set, a global, a method or attribute. */
static qp_error_t check_callee(binder_t *b, frame_t *frame, const qp_jinja_node_t *callee)
{
    const qp_jv_string_t *name = callee->value.as.s; /* of a name or attribute */
    if (callee->kind == QP_JN_NAME) {
        frame_t *owner = NULL;
        const symbol_t *symbol = find(frame, name, &owner);
        const qp_jinja_builtin_t *global = qp_jinja_find(qp_jinja_globals, name->data, name->n);
        if (symbol == NULL || symbol->stored || (global != NULL && global->call != NULL))
            return NULL;
        return QP_ERROR(QP_INPUT, "line %d: the function '%.60s' is not %s", callee->line,
                        name->data, global != NULL ? "supported" : "known");
    }
    if (callee->kind == QP_JN_GETATTR && !qp_jinja_is_attribute(name->data, name->n)) {
        if (b->n_called == MAX_CALLED)
            return QP_ERROR(QP_INPUT, "line %d: more than %d methods are not known", callee->line,
                            MAX_CALLED);
        b->called = grow(b, b->called, b->n_called, sizeof *b->called);
        b->called[b->n_called++] = (called_t){.name = name, .line = callee->line};
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

static qp_error_t bind(binder_t *b, frame_t *frame, qp_jinja_node_t *node);

static qp_error_t bind_arguments(binder_t *b, frame_t *frame, qp_jinja_arguments_t *arguments)
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
static qp_error_t bind(binder_t *b, frame_t *frame, qp_jinja_node_t *node)
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

/* --- binding statements --------------------------------------------------------------------------
 */

static qp_error_t bind_body(binder_t *b, frame_t *frame, const qp_jinja_body_t *body);

static frame_t inner(frame_t *frame)
{
    return (frame_t){.parent = frame, .function = frame->function, .level = frame->level + 1};
}

static qp_jinja_frame_t finished(binder_t *b, const frame_t *frame)
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

static qp_error_t bind_target(binder_t *b, frame_t *frame, qp_jinja_node_t *target)
{
    if (b->n_for > 0 && sets(target, "loop"))
        return QP_ERROR(QP_INPUT, "line %d: 'loop' cannot be set inside a loop", target->line);
    return bind(b, frame, target);
}

static qp_jinja_node_t *copy_target(binder_t *b, const qp_jinja_node_t *target)
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
static qp_error_t bind_loop_test(binder_t *b, frame_t *frame, qp_jinja_node_t *node)
{
    slots_t slots = {.outer = frame->function};
    frame_t test = inner(frame);
    test.function = &slots;
    node->test = QP_JINJA_NEW(b->arena, qp_jinja_function_t, 1);
    node->test_target = copy_target(b, node->a);
    analyse_target(b, &test, node->a, PARAMETER);
    analyse(b, &test, node->c);
    QP_TRY(bind(b, &test, node->test_target));
    QP_TRY(bind(b, &test, node->c));
    node->test->frame = finished(b, &test);
    node->test->n_slot = slots.n;
    return NULL;
}

static qp_error_t bind_for(binder_t *b, frame_t *frame, qp_jinja_node_t *node)
{
    frame_t body = inner(frame), orelse = inner(frame);
    b->n_for++;
    if (undeclared(&node->body, LOOP) != 0) {
        static const qp_jv_string_t loop = {.data = "loop", .n = 4, .n_chars = 4, .item = -1};
        node->loop = parameter(b, &body, &loop);
    }
    analyse_target(b, &body, node->a, PARAMETER);
    analyse_body(b, &body, &node->body, false);
    analyse_body(b, &orelse, &node->orelse, false);
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
static qp_error_t bind_caller(binder_t *b, frame_t *frame, const qp_jinja_node_t *node)
{
    static const qp_jv_string_t caller = {.data = "caller", .n = 6, .n_chars = 6, .item = -1};
    qp_jinja_function_t *function = node->function;
    function->takes_caller = true;
    for (int64_t i = 0; i < function->n; i++) {
        if (!same(function->parameter[i]->value.as.s, &caller))
            continue;
        if (i < function->n - function->n_otherwise)
            return QP_ERROR(QP_INPUT, "line %d: the parameter 'caller' needs a default",
                            node->line);
        return NULL;
    }
    function->caller = parameter(b, frame, &caller);
    return NULL;
}

static bool has_parameter(const qp_jinja_function_t *function, const qp_jv_string_t *name)
{
    for (int64_t i = 0; i < function->n; i++)
        if (same(function->parameter[i]->value.as.s, name))
            return true;
    return false;
}

static qp_error_t bind_function(binder_t *b, frame_t *frame, qp_jinja_node_t *node)
{
    static const qp_jv_string_t kwargs = {.data = "kwargs", .n = 6, .n_chars = 6, .item = -1},
                                varargs = {.data = "varargs", .n = 7, .n_chars = 7, .item = -1},
                                caller = {.data = "caller", .n = 6, .n_chars = 6, .item = -1};
    qp_jinja_function_t *function = node->function;
    slots_t slots = {.outer = frame->function};
    frame_t body = inner(frame);
    body.function = &slots;
    for (int64_t i = 0; i < function->n; i++)
        parameter(b, &body, function->parameter[i]->value.as.s);
    for (int64_t i = 0; i < function->n_otherwise; i++)
        analyse(b, &body, function->otherwise[i]);
    analyse_body(b, &body, &node->body, false);
    const unsigned used = undeclared(&node->body, CALLER | KWARGS | VARARGS);
    function->explicit_caller = has_parameter(function, &caller);
    if ((used & CALLER) != 0)
        QP_TRY(bind_caller(b, &body, node));
    if ((used & KWARGS) != 0 && !has_parameter(function, &kwargs))
        function->keywords = parameter(b, &body, &kwargs);
    if ((used & VARARGS) != 0 && !has_parameter(function, &varargs))
        function->positionals = parameter(b, &body, &varargs);
    for (int64_t i = 0; i < function->n; i++)
        QP_TRY(bind(b, &body, function->parameter[i]));
    for (int64_t i = 0; i < function->n_otherwise; i++)
        QP_TRY(bind(b, &body, function->otherwise[i]));
    QP_TRY(bind_body(b, &body, &node->body));
    function->frame = finished(b, &body);
    function->n_slot = slots.n;
    return NULL;
}

static qp_error_t bind_if(binder_t *b, frame_t *frame, qp_jinja_node_t *node)
{
    QP_TRY(bind(b, frame, node->a));
    QP_TRY(bind_body(b, frame, &node->body));
    for (int64_t i = 0; i < node->n; i++)
        QP_TRY(bind_if(b, frame, node->item[i]));
    return bind_body(b, frame, &node->orelse);
}

/* Bodies whose text is taken: {% set x | filter %} and {% filter %}. */
static qp_error_t bind_captured(binder_t *b, frame_t *frame, qp_jinja_node_t *node)
{
    frame_t body = inner(frame);
    const bool set = node->kind == QP_JN_ASSIGN_BLOCK;
    analyse_body(b, &body, &node->body, false);
    if (!set)
        analyse(b, &body, node->a);
    QP_TRY(bind_body(b, &body, &node->body));
    QP_TRY(bind(b, &body, set ? node->b : node->a));
    if (set)
        QP_TRY(bind_target(b, frame, node->a));
    node->frame = finished(b, &body);
    return NULL;
}

static qp_error_t bind_with(binder_t *b, frame_t *frame, qp_jinja_node_t *node)
{
    frame_t body = inner(frame);
    for (int64_t i = 0; i < node->n; i += 2)
        analyse_target(b, &body, node->item[i], PARAMETER);
    analyse_body(b, &body, &node->body, false);
    for (int64_t i = 0; i < node->n; i++)
        QP_TRY(bind(b, i % 2 == 0 ? &body : frame, node->item[i]));
    QP_TRY(bind_body(b, &body, &node->body));
    node->frame = finished(b, &body);
    return NULL;
}

static qp_error_t bind_statement(binder_t *b, frame_t *frame, qp_jinja_node_t *node)
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

static qp_error_t bind_body(binder_t *b, frame_t *frame, const qp_jinja_body_t *body)
{
    for (int64_t i = 0; i < body->n; i++)
        QP_TRY(bind_statement(b, frame, body->at[i]));
    return NULL;
}

qp_error_t qp_jinja_bind(qp_jinja_t *jinja)
{
    binder_t b = {.arena = &jinja->arena};
    slots_t slots = {0};
    frame_t root = {.function = &slots};
    analyse_body(&b, &root, &jinja->body, false);
    QP_TRY(bind_body(&b, &root, &jinja->body));
    if (b.crowded)
        return QP_ERROR(QP_INPUT, "line 1: more than %d names", MAX_NAMES);
    jinja->root.frame = finished(&b, &root);
    jinja->root.n_slot = slots.n;
    for (int64_t i = 0; i < b.n_called; i++) {
        bool known = false;
        for (int64_t j = 0; j < b.n_attribute && !known; j++)
            known = same(b.attribute[j], b.called[i].name);
        if (!known)
            return QP_ERROR(QP_INPUT, "line %d: the method '%.60s' is not known", b.called[i].line,
                            b.called[i].name->data);
    }
    return NULL;
}
