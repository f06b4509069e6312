/*
 * Names to slots, as Jinja2's idtracking.py and compiler.py bind them. Every frame has symbols. A
 * name that a frame only reads is the symbol of the nearest frame around it that has one, else it
 * is looked up among the variables when the frame is entered. A name that a frame sets is its own:
 * it begins as a copy of the one around it; without one it begins as the variable of that name if
 * it was read or set under a condition first, and as undefined otherwise.
 */
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_scope.h"

/* Room for one more in an array of the arena that doubles. */
void *qp_jinja_grow(qp_jinja_binder_t *b, void *at, int64_t n, size_t size)
{
    if ((n & (n - 1)) != 0)
        return at;
    char *more = qp_jinja_take(b->arena, (size_t)(n > 0 ? 2 * n : 1) * size);
    if (n > 0)
        memcpy(more, at, (size_t)n * size);
    return more;
}

/* --- symbols ---------------------------------------------------------------------------------- */

static qp_jinja_symbol_t *own(qp_jinja_scope_t *frame, const qp_jv_string_t *name)
{
    for (int i = 0; i < frame->n; i++)
        if (qp_jv_same_text(frame->symbol[i].name, name))
            return &frame->symbol[i];
    return NULL;
}

qp_jinja_symbol_t *qp_jinja_find_symbol(qp_jinja_scope_t *frame, const qp_jv_string_t *name,
                                        qp_jinja_scope_t **owner)
{
    for (; frame != NULL; frame = frame->parent) {
        qp_jinja_symbol_t *symbol = own(frame, name);
        if (symbol != NULL) {
            *owner = frame;
            return symbol;
        }
    }
    return NULL;
}

static int slot_of(qp_jinja_binder_t *b, qp_jinja_slots_t *function, int level,
                   const qp_jv_string_t *name)
{
    for (int i = 0; i < function->n; i++)
        if (function->at[i].level == level && qp_jv_same_text(function->at[i].name, name))
            return i;
    if (function->n == QP_JINJA_MAX_NAMES) {
        b->crowded = true;
        return 0;
    }
    function->at = qp_jinja_grow(b, function->at, function->n, sizeof *function->at);
    function->at[function->n].level = level;
    function->at[function->n].name = name;
    return function->n++;
}

int qp_jinja_hops(const qp_jinja_slots_t *from, const qp_jinja_slots_t *to)
{
    int n = 0;
    for (; from != to; from = from->outer)
        n++;
    return n;
}

static qp_jinja_symbol_t *define(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                                 const qp_jv_string_t *name, qp_jinja_load_kind_t kind)
{
    qp_jinja_symbol_t *symbol = own(frame, name);
    if (symbol == NULL && frame->n == QP_JINJA_MAX_NAMES) {
        b->crowded = true;
        symbol = frame->symbol;
    } else if (symbol == NULL) {
        frame->symbol = qp_jinja_grow(b, frame->symbol, frame->n, sizeof *frame->symbol);
        symbol = &frame->symbol[frame->n++];
    }
    *symbol = (qp_jinja_symbol_t){.name = name,
                                  .load = {.kind = kind,
                                           .slot = slot_of(b, frame->function, frame->level, name),
                                           .name = name}};
    return symbol;
}

int qp_jinja_parameter(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, const qp_jv_string_t *name)
{
    qp_jinja_symbol_t *symbol = define(b, frame, name, QP_JL_PARAMETER);
    symbol->stored = true;
    return symbol->load.slot;
}

static void load(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, const qp_jv_string_t *name)
{
    qp_jinja_scope_t *owner = NULL;
    if (qp_jinja_find_symbol(frame, name, &owner) == NULL)
        define(b, frame, name, QP_JL_RESOLVE);
}

static void store(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, const qp_jv_string_t *name,
                  bool condition)
{
    qp_jinja_symbol_t *symbol = own(frame, name);
    if (symbol == NULL) {
        qp_jinja_scope_t *owner = NULL;
        const qp_jinja_symbol_t *outer = qp_jinja_find_symbol(frame->parent, name, &owner);
        symbol = define(b, frame, name,
                        outer != NULL ? QP_JL_ALIAS
                        : condition   ? QP_JL_RESOLVE
                                      : QP_JL_UNDEFINED);
        if (outer != NULL)
            symbol->load.from = (qp_jinja_ref_t){
                .hops = qp_jinja_hops(frame->function, owner->function), .slot = outer->load.slot};
    }
    symbol->stored = true;
}

/* --- what a frame reads and sets -------------------------------------------------------------- */

static void analyse_arguments(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                              const qp_jinja_arguments_t *arguments)
{
    if (arguments == NULL)
        return;
    for (int64_t i = 0; i < arguments->n; i++)
        qp_jinja_analyse(b, frame, arguments->arg[i]);
    for (int64_t i = 0; i < arguments->n_key; i++)
        qp_jinja_analyse(b, frame, arguments->value[i]);
    qp_jinja_analyse(b, frame, arguments->more);
    qp_jinja_analyse(b, frame, arguments->more_keys);
}

/* Names that an expression reads. */
void qp_jinja_analyse(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, const qp_jinja_node_t *node)
{
    if (node == NULL)
        return;
    if (node->kind == QP_JN_NAME)
        load(b, frame, node->value.as.s);
    qp_jinja_analyse(b, frame, node->a);
    qp_jinja_analyse(b, frame, node->b);
    qp_jinja_analyse(b, frame, node->c);
    for (int64_t i = 0; i < node->n; i++)
        qp_jinja_analyse(b, frame, node->item[i]);
    analyse_arguments(b, frame, node->arguments);
}

void qp_jinja_analyse_target(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                             const qp_jinja_node_t *target, qp_jinja_target_use_t use)
{
    for (int64_t i = 0; i < target->n; i++)
        qp_jinja_analyse_target(b, frame, target->item[i], use);
    if (target->kind == QP_JN_NAMESPACE_REF)
        load(b, frame, target->a->value.as.s);
    else if (target->kind == QP_JN_NAME && use == QP_JB_PARAMETER)
        qp_jinja_parameter(b, frame, target->value.as.s);
    else if (target->kind == QP_JN_NAME)
        store(b, frame, target->value.as.s, use == QP_JB_SET_IF);
}

static void analyse_if(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, const qp_jinja_node_t *node)
{
    qp_jinja_analyse(b, frame, node->a);
    qp_jinja_analyse_body(b, frame, &node->body, true);
    for (int64_t i = 0; i < node->n; i++)
        analyse_if(b, frame, node->item[i]);
    qp_jinja_analyse_body(b, frame, &node->orelse, true);
}

/* What a statement means for the frame it stands in; inner frames are looked at on their own. */
static void analyse_statement(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                              const qp_jinja_node_t *node, bool condition)
{
    const qp_jinja_target_use_t use = condition ? QP_JB_SET_IF : QP_JB_SET;
    switch (node->kind) {
    case QP_JN_OUTPUT:
        for (int64_t i = 0; i < node->n; i++)
            qp_jinja_analyse(b, frame, node->item[i]);
        break;
    case QP_JN_ASSIGN:
        qp_jinja_analyse(b, frame, node->b);
        qp_jinja_analyse_target(b, frame, node->a, use);
        break;
    case QP_JN_ASSIGN_BLOCK:
        qp_jinja_analyse_target(b, frame, node->a, use);
        break;
    case QP_JN_FOR:
        qp_jinja_analyse(b, frame, node->b);
        break;
    case QP_JN_IF:
        analyse_if(b, frame, node);
        break;
    case QP_JN_MACRO:
        store(b, frame, node->function->name, condition);
        break;
    case QP_JN_CALL_BLOCK:
    case QP_JN_FILTER_BLOCK:
        qp_jinja_analyse(b, frame, node->a);
        break;
    case QP_JN_WITH:
        for (int64_t i = 1; i < node->n; i += 2)
            qp_jinja_analyse(b, frame, node->item[i]);
        break;
    default:
        break;
    }
}

void qp_jinja_analyse_body(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                           const qp_jinja_body_t *body, bool condition)
{
    for (int64_t i = 0; i < body->n; i++)
        analyse_statement(b, frame, body->at[i], condition);
}

/* --- which special names are read before they are set ----------------------------------------- */

enum { N_SPECIAL = 4 };
static const char *const specials[N_SPECIAL] = {"caller", "kwargs", "varargs", "loop"};

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

unsigned qp_jinja_undeclared(const qp_jinja_body_t *body, unsigned of)
{
    search_t s = {.open = of};
    search_body(&s, body);
    return s.found;
}
