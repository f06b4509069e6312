/* Statements of a rendering, and macros. */
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"
#include "base/utf8.h"

/* --- output ----------------------------------------------------------------------------------- */

void qp_jinja_add_span(qp_jinja_spans_t *spans, qp_jinja_span_t span)
{
    if (spans->n == spans->capacity) {
        spans->capacity = 2 * spans->capacity + 16;
        spans->span =
            qp_realloc("jinja", spans->span, qp_bytes(spans->capacity, sizeof(qp_jinja_span_t)));
    }
    QP_ASSERT(spans->span != NULL);
    spans->span[spans->n++] = span;
}

/* Notes who wrote the last n bytes of the output. */
static void add_item(qp_jinja_run_t *run, size_t n)
{
    qp_jinja_spans_t *items = &run->output->items;
    const size_t end = run->output->text.n;
    qp_jinja_span_t *last = items->n > 0 ? &items->span[items->n - 1] : NULL;
    if (n == 0 || run->item < 0)
        return;
    if (last != NULL && last->item == run->item && last->end == end - n)
        last->end = end;
    else
        qp_jinja_add_span(items,
                          (qp_jinja_span_t){.begin = end - n, .end = end, .item = run->item});
}

qp_error_t qp_jinja_write(qp_jinja_run_t *run, const char *bytes, size_t n)
{
    QP_TRY(qp_jinja_spend(run, n));
    if (run->sink != NULL) {
        qp_jinja_put(run->sink, bytes, n);
        return NULL;
    }
    if (run->output->text.n + n > QP_JINJA_MAX_BYTES)
        return QP_ERROR(QP_INPUT, "the template writes more than %d MiB", QP_JINJA_MAX_BYTES >> 20);
    qp_str_append(&run->output->text, bytes, n);
    add_item(run, n);
    return NULL;
}

qp_error_t qp_jinja_capture(qp_jinja_run_t *run, const qp_jinja_body_t *body, qp_jv_t *text)
{
    qp_jinja_text_t written = {.arena = &run->arena}, *const outer = run->sink;
    qp_jinja_flow_t flow = QP_JINJA_ON;
    run->sink = &written;
    QP_TRY(qp_jinja_exec(run, body, &flow));
    run->sink = outer;
    *text = qp_jv_string_of(&written);
    return NULL;
}

/* --- macros ----------------------------------------------------------------------------------- */

/* Value of the keyword of that name, which is then used up, or MISSING. */
static qp_jv_t take_keyword(const qp_jinja_given_t *given, bool *used, const qp_jv_string_t *name)
{
    for (int64_t i = 0; i < given->n_key; i++)
        if (!used[i] && qp_jv_equals_text(given->key[i], name->data, name->n)) {
            used[i] = true;
            return given->value[i];
        }
    return (qp_jv_t){.type = QP_JV_MISSING};
}

static qp_error_t rest_of_keywords(qp_jinja_run_t *run, const qp_jinja_function_t *function,
                                   const qp_jinja_given_t *given, const bool *used)
{
    qp_jv_t dict = qp_jv_dict(&run->arena);
    for (int64_t i = 0; i < given->n_key; i++) {
        if (used[i])
            continue;
        if (function->keywords < 0)
            return QP_ERROR(QP_INPUT, "the macro '%.60s' has no parameter '%.60s'",
                            function->name != NULL ? function->name->data : "caller",
                            given->key[i]->data);
        qp_jv_set_name(&run->arena, dict.as.dict, given->key[i], &given->value[i]);
    }
    if (function->keywords >= 0)
        run->top->slot[function->keywords] = dict;
    return NULL;
}

static qp_error_t rest_of_positionals(qp_jinja_run_t *run, const qp_jinja_function_t *function,
                                      const qp_jinja_given_t *given)
{
    const int64_t n = given->n > function->n ? given->n - function->n : 0;
    if (n > 0 && function->positionals < 0)
        return QP_ERROR(QP_INPUT, "the macro '%.60s' takes at most %lld arguments, %lld are given",
                        function->name != NULL ? function->name->data : "caller",
                        (long long)function->n, (long long)given->n);
    if (function->positionals >= 0)
        run->top->slot[function->positionals] =
            qp_jv_list(&run->arena, QP_JV_TUPLE, n > 0 ? given->arg + function->n : NULL, n);
    return NULL;
}

/* Parameters of the activation on top, as Jinja2's Macro.__call__ fills them. */
static qp_error_t set_parameters(qp_jinja_run_t *run, const qp_jinja_function_t *function,
                                 const qp_jinja_given_t *given)
{
    static const qp_jv_string_t caller = {.data = "caller", .n = 6, .n_chars = 6, .item = -1};
    bool *used = QP_JINJA_NEW(&run->arena, bool, given->n_key);
    qp_jv_t *slot = run->top->slot;
    for (int64_t i = 0; i < function->n; i++)
        slot[function->parameter[i]->ref.slot] =
            i < given->n ? given->arg[i]
                         : take_keyword(given, used, function->parameter[i]->value.as.s);
    if (function->takes_caller && function->caller >= 0) {
        qp_jv_t value = take_keyword(given, used, &caller);
        if (value.type == QP_JV_MISSING || value.type == QP_JV_NONE)
            value = qp_jv_undefined(&run->arena, "is undefined: no caller", "caller", NULL);
        slot[function->caller] = value;
    }
    QP_TRY(rest_of_keywords(run, function, given, used));
    return rest_of_positionals(run, function, given);
}

static qp_error_t set_defaults(qp_jinja_run_t *run, const qp_jinja_function_t *function)
{
    for (int64_t i = 0; i < function->n; i++) {
        const qp_jinja_node_t *parameter = function->parameter[i];
        const int64_t otherwise = i - (function->n - function->n_otherwise);
        qp_jv_t value;
        if (run->top->slot[parameter->ref.slot].type != QP_JV_MISSING)
            continue;
        if (otherwise >= 0)
            QP_TRY(qp_jinja_eval(run, function->otherwise[otherwise], &value));
        else
            value = qp_jv_undefined(&run->arena, "is undefined: a parameter that was not given",
                                    parameter->value.as.s->data, NULL);
        run->top->slot[parameter->ref.slot] = value;
    }
    return NULL;
}

qp_jinja_activation_t *qp_jinja_activate(qp_jinja_run_t *run, int n_slot,
                                         qp_jinja_activation_t *outer)
{
    qp_jinja_activation_t *activation = QP_JINJA_NEW(&run->arena, qp_jinja_activation_t, 1);
    activation->slot = QP_JINJA_NEW(&run->arena, qp_jv_t, n_slot);
    activation->outer = outer;
    return activation;
}

qp_error_t qp_jinja_call_macro(qp_jinja_run_t *run, const qp_jinja_macro_t *macro,
                               const qp_jinja_given_t *given, qp_jv_t *result)
{
    const qp_jinja_function_t *function = macro->node->function;
    qp_jinja_activation_t *const outer = run->top;
    QP_TRY(qp_jinja_enter(run));
    run->top = qp_jinja_activate(run, function->n_slot, macro->outer);
    QP_TRY(set_parameters(run, function, given));
    qp_jinja_enter_frame(run, &function->frame);
    QP_TRY(set_defaults(run, function));
    QP_TRY(qp_jinja_capture(run, &macro->node->body, result));
    run->top = outer;
    run->depth--;
    return NULL;
}

static qp_jv_t make_macro(qp_jinja_run_t *run, const qp_jinja_node_t *node)
{
    qp_jinja_macro_t *macro = QP_JINJA_NEW(&run->arena, qp_jinja_macro_t, 1);
    *macro = (qp_jinja_macro_t){.node = node, .outer = run->top};
    return (qp_jv_t){.type = QP_JV_MACRO, .as.macro = macro};
}

/* --- statements ------------------------------------------------------------------------------- */

static qp_error_t exec_data(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jinja_flow_t *flow)
{
    (void)flow;
    return qp_jinja_write(run, node->value.as.s->data, node->value.as.s->n);
}

static qp_error_t write_value(qp_jinja_run_t *run, const qp_jv_t *value)
{
    qp_jv_t string;
    QP_TRY(qp_jv_to_string(run, value, &string));
    return qp_jinja_write(run, string.as.s->data, string.as.s->n);
}

/* What a filter or call wrote is a text, or Jinja2 cannot join it with the rest. */
static qp_error_t write_text(qp_jinja_run_t *run, const qp_jv_t *value)
{
    if (value->type != QP_JV_STRING)
        return QP_ERROR(QP_INPUT, "the block makes a %s, not a str", qp_jv_type_name(value));
    return qp_jinja_write(run, value->as.s->data, value->as.s->n);
}

static qp_error_t exec_output(qp_jinja_run_t *run, const qp_jinja_node_t *node,
                              qp_jinja_flow_t *flow)
{
    (void)flow;
    for (int64_t i = 0; i < node->n; i++) {
        qp_jv_t value;
        QP_TRY(qp_jinja_eval(run, node->item[i], &value));
        QP_TRY(write_value(run, &value));
    }
    return NULL;
}

/* Namespaces that a target sets must be some before the value is evaluated. */
static qp_error_t check_namespaces(qp_jinja_run_t *run, const qp_jinja_node_t *target)
{
    qp_jv_t value = {.type = QP_JV_NAMESPACE};
    if (target->kind == QP_JN_NAMESPACE_REF)
        QP_TRY(qp_jinja_eval(run, target->a, &value));
    if (value.type != QP_JV_NAMESPACE)
        return QP_ERROR(QP_INPUT, "'%.60s' is no namespace, so it has no attributes to set",
                        target->a->value.as.s->data);
    for (int64_t i = 0; i < target->n; i++)
        QP_TRY(check_namespaces(run, target->item[i]));
    return NULL;
}

static qp_error_t exec_assign(qp_jinja_run_t *run, const qp_jinja_node_t *node,
                              qp_jinja_flow_t *flow)
{
    (void)flow;
    qp_jv_t value;
    QP_TRY(check_namespaces(run, node->a));
    QP_TRY(qp_jinja_eval(run, node->b, &value));
    return qp_jinja_assign(run, node->a, &value);
}

/* The text of a body in a frame of its own; *flow tells if a break or continue ended it. */
static qp_error_t capture_frame(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *text,
                                qp_jinja_flow_t *flow)
{
    qp_jinja_text_t written = {.arena = &run->arena}, *const outer = run->sink;
    qp_jinja_enter_frame(run, &node->frame);
    run->sink = &written;
    QP_TRY(qp_jinja_exec(run, &node->body, flow));
    run->sink = outer;
    *text = qp_jv_string_of(&written);
    return NULL;
}

static qp_error_t exec_assign_block(qp_jinja_run_t *run, const qp_jinja_node_t *node,
                                    qp_jinja_flow_t *flow)
{
    qp_jv_t text;
    QP_TRY(capture_frame(run, node, &text, flow));
    if (*flow != QP_JINJA_ON)
        return NULL;
    if (node->b != NULL)
        QP_TRY(qp_jinja_eval_filters(run, node->b, &text, &text));
    QP_TRY(qp_jinja_assign(run, node->a, &text));
    qp_jinja_leave_frame(run, &node->frame);
    return NULL;
}

static qp_error_t exec_filter_block(qp_jinja_run_t *run, const qp_jinja_node_t *node,
                                    qp_jinja_flow_t *flow)
{
    qp_jv_t text;
    QP_TRY(capture_frame(run, node, &text, flow));
    if (*flow != QP_JINJA_ON)
        return NULL;
    QP_TRY(qp_jinja_eval_filters(run, node->a, &text, &text));
    QP_TRY(write_text(run, &text));
    qp_jinja_leave_frame(run, &node->frame);
    return NULL;
}

static qp_error_t exec_if(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jinja_flow_t *flow)
{
    qp_jv_t value;
    QP_TRY(qp_jinja_eval(run, node->a, &value));
    if (qp_jv_truth(&value))
        return qp_jinja_exec(run, &node->body, flow);
    for (int64_t i = 0; i < node->n; i++) {
        QP_TRY(qp_jinja_eval(run, node->item[i]->a, &value));
        if (qp_jv_truth(&value))
            return qp_jinja_exec(run, &node->item[i]->body, flow);
    }
    return qp_jinja_exec(run, &node->orelse, flow);
}

static qp_error_t exec_macro(qp_jinja_run_t *run, const qp_jinja_node_t *node,
                             qp_jinja_flow_t *flow)
{
    (void)flow;
    const qp_jv_t macro = make_macro(run, node);
    return qp_jinja_assign(run, node->a, &macro);
}

static qp_error_t exec_call_block(qp_jinja_run_t *run, const qp_jinja_node_t *node,
                                  qp_jinja_flow_t *flow)
{
    (void)flow;
    const qp_jv_t caller = make_macro(run, node);
    qp_jv_t callee, value;
    qp_jinja_given_t given;
    QP_TRY(qp_jinja_eval(run, node->a->a, &callee));
    QP_TRY(qp_jinja_eval_arguments(run, node->a->arguments, &caller, &given));
    run->line = node->line;
    QP_TRY(qp_jinja_call(run, &callee, &given, &value));
    return write_text(run, &value);
}

/* transformers measures what was written to the output so far, wherever the block stands. */
static qp_error_t exec_generation(qp_jinja_run_t *run, const qp_jinja_node_t *node,
                                  qp_jinja_flow_t *flow)
{
    (void)flow;
    const qp_jv_t body = make_macro(run, node);
    const qp_jinja_given_t none = {0};
    qp_jv_t text;
    QP_TRY(qp_jinja_call_macro(run, body.as.macro, &none, &text));
    if (run->n_generated == run->generated_capacity) {
        run->generated_capacity = 2 * run->generated_capacity + 16;
        qp_jinja_generated_t *more =
            QP_JINJA_NEW(&run->arena, qp_jinja_generated_t, run->generated_capacity);
        if (run->n_generated > 0)
            memcpy(more, run->generated, (size_t)run->n_generated * sizeof *more);
        run->generated = more;
    }
    run->generated[run->n_generated++] =
        (qp_jinja_generated_t){.begin = run->output->text.n, .n_chars = qp_jv_length(text.as.s)};
    return write_text(run, &text);
}

static qp_error_t exec_with(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jinja_flow_t *flow)
{
    qp_jinja_enter_frame(run, &node->frame);
    for (int64_t i = 0; i < node->n; i += 2) {
        qp_jv_t value;
        QP_TRY(qp_jinja_eval(run, node->item[i + 1], &value));
        QP_TRY(qp_jinja_assign(run, node->item[i], &value));
    }
    QP_TRY(qp_jinja_exec(run, &node->body, flow));
    if (*flow == QP_JINJA_ON)
        qp_jinja_leave_frame(run, &node->frame);
    return NULL;
}

static qp_error_t exec_flow(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jinja_flow_t *flow)
{
    (void)run;
    *flow = node->kind == QP_JN_BREAK ? QP_JINJA_BREAK : QP_JINJA_CONTINUE;
    return NULL;
}

/* --- loops ------------------------------------------------------------------------------------ */

/* State of the filter of a loop: a generator with an activation of its own. */
typedef struct {
    const qp_jinja_node_t *node;
    qp_jinja_activation_t *activation;
    bool entered;
} loop_test_t;

static qp_error_t test_element(qp_jinja_run_t *run, loop_test_t *test, const qp_jv_t *value,
                               bool *passes)
{
    qp_jv_t verdict;
    if (!test->entered)
        qp_jinja_enter_frame(run, &test->node->test->frame);
    test->entered = true;
    QP_TRY(qp_jinja_assign(run, test->node->test_target, value));
    QP_TRY(qp_jinja_eval(run, test->node->c, &verdict));
    *passes = qp_jv_truth(&verdict);
    return NULL;
}

/* What a generator with a tuple as target hands on is a new tuple of the same elements. */
static qp_error_t next_that_passes(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value,
                                   bool *end)
{
    loop_test_t *test = iter->state;
    qp_jinja_activation_t *const outer = run->top;
    bool passes = false;
    run->top = test->activation;
    while (!passes) {
        QP_TRY(qp_jinja_next(run, iter->source, value, end));
        if (*end)
            break;
        QP_TRY(test_element(run, test, value, &passes));
    }
    run->top = outer;
    return NULL;
}

static qp_error_t make_loop(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jinja_loop_t *loop)
{
    static const qp_jinja_iter_kind_t kind = {next_that_passes, "filtered loop"};
    const qp_jv_t missing = {.type = QP_JV_MISSING};
    *loop = (qp_jinja_loop_t){.n = -1,
                              .index0 = -1,
                              .before = missing,
                              .current = missing,
                              .after = missing,
                              .changed = missing};
    QP_TRY(qp_jinja_eval(run, node->b, &loop->over));
    run->line = node->line;
    QP_TRY(qp_jinja_iterate(run, &loop->over, &loop->iter));
    if (node->c == NULL)
        return NULL;
    loop_test_t *test = QP_JINJA_NEW(&run->arena, loop_test_t, 1);
    *test = (loop_test_t){.node = node,
                          .activation = qp_jinja_activate(run, node->test->n_slot, run->top)};
    qp_jinja_iter_t *filtered = QP_JINJA_NEW(&run->arena, qp_jinja_iter_t, 1);
    *filtered = (qp_jinja_iter_t){.kind = &kind, .source = loop->iter, .state = test};
    loop->iter = filtered;
    loop->over = (qp_jv_t){.type = QP_JV_ITER, .as.iter = filtered};
    return NULL;
}

static qp_error_t exec_turn(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jinja_loop_t *loop,
                            const qp_jv_t *value, qp_jinja_flow_t *flow)
{
    const int64_t item = qp_jv_item(value);
    *flow = QP_JINJA_ON;
    if (item >= 0)
        run->item = item;
    QP_TRY(qp_jinja_assign(run, node->a, value));
    if (node->loop >= 0)
        run->top->slot[node->loop] = (qp_jv_t){.type = QP_JV_LOOP, .as.loop = loop};
    qp_jinja_enter_frame(run, &node->frame);
    return qp_jinja_exec(run, &node->body, flow);
}

static qp_error_t exec_for(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jinja_flow_t *flow)
{
    qp_jinja_loop_t *loop = QP_JINJA_NEW(&run->arena, qp_jinja_loop_t, 1);
    const int64_t item = run->item;
    bool completed = false; /* some turn came to its end: what Jinja2 takes for "not empty" */
    QP_TRY(make_loop(run, node, loop));
    for (bool end = false;;) {
        qp_jinja_flow_t turn;
        qp_jv_t value;
        QP_TRY(qp_jinja_loop_next(run, loop, &value, &end));
        if (end)
            break;
        QP_TRY(exec_turn(run, node, loop, &value, &turn));
        run->item = item;
        completed = completed || turn == QP_JINJA_ON;
        if (turn == QP_JINJA_BREAK)
            break;
    }
    qp_jinja_leave_frame(run, &node->frame);
    if (completed || node->orelse.n == 0)
        return NULL;
    qp_jinja_enter_frame(run, &node->else_frame);
    QP_TRY(qp_jinja_exec(run, &node->orelse, flow));
    qp_jinja_leave_frame(run, &node->else_frame);
    return NULL;
}

qp_error_t qp_jinja_exec(qp_jinja_run_t *run, const qp_jinja_body_t *body, qp_jinja_flow_t *flow)
{
    static qp_error_t (*const table[QP_JN_N_KIND])(qp_jinja_run_t *, const qp_jinja_node_t *,
                                                   qp_jinja_flow_t *) = {
        [QP_JN_DATA] = exec_data,
        [QP_JN_OUTPUT] = exec_output,
        [QP_JN_ASSIGN] = exec_assign,
        [QP_JN_ASSIGN_BLOCK] = exec_assign_block,
        [QP_JN_FOR] = exec_for,
        [QP_JN_IF] = exec_if,
        [QP_JN_MACRO] = exec_macro,
        [QP_JN_CALL_BLOCK] = exec_call_block,
        [QP_JN_GENERATION] = exec_generation,
        [QP_JN_FILTER_BLOCK] = exec_filter_block,
        [QP_JN_WITH] = exec_with,
        [QP_JN_BREAK] = exec_flow,
        [QP_JN_CONTINUE] = exec_flow,
    };
    QP_TRY(qp_jinja_enter(run));
    for (int64_t i = 0; i < body->n && *flow == QP_JINJA_ON; i++) {
        QP_TRY(qp_jinja_spend(run, 0));
        run->line = body->at[i]->line;
        QP_TRY(table[body->at[i]->kind](run, body->at[i], flow));
    }
    run->depth--;
    return NULL;
}
