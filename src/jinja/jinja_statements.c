/* Tags of a template. */
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "jinja/jinja_parse.h"

enum { MAX_NESTING = 100 };

static qp_error_t check_target(const qp_jinja_node_t *target)
{
    if (target->kind == QP_JN_TUPLE) {
        for (int64_t i = 0; i < target->n; i++)
            QP_TRY(check_target(target->item[i]));
        return NULL;
    }
    if (target->kind == QP_JN_NAMESPACE_REF || target->kind == QP_JN_NAME)
        return NULL;
    return QP_ERROR(QP_INPUT, "line %d: only names can be assigned to", target->line);
}

static qp_error_t parse_target(qp_jinja_parser_t *p, bool namespaces, const char *end,
                               qp_jinja_node_t **target)
{
    QP_TRY(qp_jinja_parse_tuple(
        p, (qp_jinja_tuple_t){.targets = true, .namespaces = namespaces, .end = end}, target));
    return check_target(*target);
}

/* A name that is assigned to, and nothing else. */
static qp_error_t parse_name_target(qp_jinja_parser_t *p, qp_jinja_node_t **target)
{
    *target = qp_jinja_node(p, QP_JN_NAME, p->now->line);
    static const char *const constants[] = {"true", "True", "false", "False", "none", "None"};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (qp_jinja_at_name(p, constants[i]))
            return QP_ERROR(QP_INPUT, "line %d: '%s' cannot be assigned to", p->now->line,
                            constants[i]);
    return qp_jinja_expect_name(p, &(*target)->value);
}

static qp_error_t skip_end(qp_jinja_parser_t *p, const char *const *ends, qp_jinja_body_t *body)
{
    QP_TRY(qp_jinja_parse_statements(p, ends, body));
    p->now++; /* the name of the end tag */
    return NULL;
}

/* --- loops, conditions, assignments ----------------------------------------------------------- */

static qp_error_t parse_for(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    static const char *const ends[] = {"endfor", "else", NULL}, *const end[] = {"endfor", NULL};
    node->kind = QP_JN_FOR;
    QP_TRY(parse_target(p, false, "in", &node->a));
    if (!qp_jinja_skip_name(p, "in"))
        return qp_jinja_wrong_token(p, "in");
    QP_TRY(qp_jinja_parse_tuple(p, (qp_jinja_tuple_t){.end = "recursive"}, &node->b));
    if (qp_jinja_skip_name(p, "if"))
        QP_TRY(qp_jinja_parse_expression(p, true, &node->c));
    if (qp_jinja_at_name(p, "recursive"))
        return QP_ERROR(QP_INPUT, "line %d: recursive loops are not supported", node->line);
    p->n_loop++;
    QP_TRY(qp_jinja_parse_statements(p, ends, &node->body));
    p->n_loop--;
    if (qp_jinja_skip_name(p, "else"))
        return skip_end(p, end, &node->orelse);
    p->now++;
    return NULL;
}

static qp_error_t parse_if(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const end[] = {"endif",
                                                                                       NULL};
    qp_jinja_node_t *branch = node;
    node->kind = QP_JN_IF;
    while (true) {
        QP_TRY(qp_jinja_parse_tuple(p, (qp_jinja_tuple_t){0}, &branch->a));
        QP_TRY(qp_jinja_parse_statements(p, ends, &branch->body));
        if (!qp_jinja_skip_name(p, "elif"))
            break;
        branch = qp_jinja_node(p, QP_JN_IF, p->now->line);
        qp_jinja_add(p, &node->item, &node->n, branch);
    }
    if (qp_jinja_skip_name(p, "else"))
        return skip_end(p, end, &node->orelse);
    p->now++;
    return NULL;
}

static qp_error_t parse_set(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    static const char *const end[] = {"endset", NULL};
    QP_TRY(parse_target(p, true, NULL, &node->a));
    node->kind = QP_JN_ASSIGN;
    if (qp_jinja_skip_op(p, "="))
        return qp_jinja_parse_tuple(p, (qp_jinja_tuple_t){.conditions = true}, &node->b);
    node->kind = QP_JN_ASSIGN_BLOCK;
    QP_TRY(qp_jinja_parse_filters(p, false, &node->b));
    return skip_end(p, end, &node->body);
}

static qp_error_t parse_with(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    static const char *const end[] = {"endwith", NULL};
    node->kind = QP_JN_WITH;
    while (p->now->kind != QP_JT_BLOCK_END) {
        qp_jinja_node_t *target = NULL, *value = NULL;
        if (node->n > 0)
            QP_TRY(qp_jinja_expect_op(p, ","));
        QP_TRY(parse_target(p, false, NULL, &target));
        QP_TRY(qp_jinja_expect_op(p, "="));
        QP_TRY(qp_jinja_parse_expression(p, true, &value));
        qp_jinja_add(p, &node->item, &node->n, target);
        qp_jinja_add(p, &node->item, &node->n, value);
    }
    return skip_end(p, end, &node->body);
}

static qp_error_t parse_print(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    node->kind = QP_JN_OUTPUT;
    while (p->now->kind != QP_JT_BLOCK_END) {
        qp_jinja_node_t *value = NULL;
        if (node->n > 0)
            QP_TRY(qp_jinja_expect_op(p, ","));
        QP_TRY(qp_jinja_parse_expression(p, true, &value));
        qp_jinja_add(p, &node->item, &node->n, value);
    }
    return NULL;
}

static qp_error_t parse_flow(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    const qp_jv_string_t *name = p->now[-1].value.as.s;
    node->kind = name->data[0] == 'b' ? QP_JN_BREAK : QP_JN_CONTINUE;
    if (p->n_loop == 0)
        return QP_ERROR(QP_INPUT, "line %d: '%s' outside of a loop", node->line, name->data);
    return NULL;
}

/* --- macros, calls, filters, generation ------------------------------------------------------- */

static qp_jinja_function_t *make_function(qp_jinja_parser_t *p)
{
    qp_jinja_function_t *function = QP_JINJA_NEW(p->arena, qp_jinja_function_t, 1);
    function->caller = function->keywords = function->positionals = -1;
    return function;
}

/* The body of a function: its loops are its own. */
static qp_error_t parse_function_body(qp_jinja_parser_t *p, const char *const *end,
                                      qp_jinja_body_t *body)
{
    const int n_loop = p->n_loop;
    p->n_loop = 0;
    QP_TRY(skip_end(p, end, body));
    p->n_loop = n_loop;
    return NULL;
}

static qp_error_t parse_signature(qp_jinja_parser_t *p, qp_jinja_function_t *function)
{
    QP_TRY(qp_jinja_expect_op(p, "("));
    while (!qp_jinja_at_op(p, ")")) {
        qp_jinja_node_t *parameter = NULL, *otherwise = NULL;
        if (function->n > 0)
            QP_TRY(qp_jinja_expect_op(p, ","));
        QP_TRY(parse_name_target(p, &parameter));
        for (int64_t i = 0; i < function->n; i++)
            if (strcmp(function->parameter[i]->value.as.s->data, parameter->value.as.s->data) == 0)
                return QP_ERROR(QP_INPUT, "line %d: two parameters are called '%s'",
                                parameter->line, parameter->value.as.s->data);
        if (qp_jinja_skip_op(p, "=")) {
            QP_TRY(qp_jinja_parse_expression(p, true, &otherwise));
            qp_jinja_add(p, &function->otherwise, &function->n_otherwise, otherwise);
        } else if (function->n_otherwise > 0) {
            return QP_ERROR(QP_INPUT, "line %d: a parameter without default follows one with it",
                            parameter->line);
        }
        qp_jinja_add(p, &function->parameter, &function->n, parameter);
    }
    p->now++;
    return NULL;
}

static qp_error_t parse_macro(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    static const char *const end[] = {"endmacro", NULL};
    node->kind = QP_JN_MACRO;
    node->function = make_function(p);
    QP_TRY(parse_name_target(p, &node->a));
    node->function->name = node->a->value.as.s;
    QP_TRY(parse_signature(p, node->function));
    return parse_function_body(p, end, &node->body);
}

static qp_error_t parse_call_block(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    static const char *const end[] = {"endcall", NULL};
    node->kind = QP_JN_CALL_BLOCK;
    node->function = make_function(p);
    if (qp_jinja_at_op(p, "("))
        QP_TRY(parse_signature(p, node->function));
    QP_TRY(qp_jinja_parse_expression(p, true, &node->a));
    if (node->a->kind != QP_JN_CALL)
        return QP_ERROR(QP_INPUT, "line %d: {%% call %%} without a call", node->line);
    return parse_function_body(p, end, &node->body);
}

static qp_error_t parse_generation(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    static const char *const end[] = {"endgeneration", NULL};
    node->kind = QP_JN_GENERATION;
    node->function = make_function(p);
    p->jinja->has_generation = true;
    return parse_function_body(p, end, &node->body);
}

static qp_error_t parse_filter_block(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    static const char *const end[] = {"endfilter", NULL};
    node->kind = QP_JN_FILTER_BLOCK;
    QP_TRY(qp_jinja_parse_filters(p, true, &node->a));
    return skip_end(p, end, &node->body);
}

static qp_error_t refuse(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    return QP_ERROR(QP_INPUT, "line %d: the tag '%s' is not supported", node->line,
                    p->now[-1].value.as.s->data);
}

/* --- bodies ----------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    qp_error_t (*parse)(qp_jinja_parser_t *p, qp_jinja_node_t *node);
} tags[] = {
    {"for", parse_for},
    {"if", parse_if},
    {"set", parse_set},
    {"with", parse_with},
    {"print", parse_print},
    {"break", parse_flow},
    {"continue", parse_flow},
    {"macro", parse_macro},
    {"call", parse_call_block},
    {"generation", parse_generation},
    {"filter", parse_filter_block},
    {"block", refuse},
    {"extends", refuse},
    {"include", refuse},
    {"import", refuse},
    {"from", refuse},
    {"autoescape", refuse},
};

static qp_error_t parse_statement(qp_jinja_parser_t *p, const char *const *ends,
                                  qp_jinja_node_t **node)
{
    *node = qp_jinja_node(p, QP_JN_OUTPUT, p->now->line);
    if (p->now->kind != QP_JT_NAME)
        return qp_jinja_wrong_token(p, "the name of a tag");
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (qp_jinja_skip_name(p, tags[i].name))
            return tags[i].parse(p, *node);
    return QP_ERROR(QP_INPUT, "line %d: unknown tag '%.60s'%s%s", p->now->line,
                    p->now->value.as.s->data, ends != NULL ? ", expected " : "",
                    ends != NULL ? ends[0] : "");
}

static bool at_end(const qp_jinja_parser_t *p, const char *const *ends)
{
    for (; ends != NULL && *ends != NULL; ends++)
        if (qp_jinja_at_name(p, *ends))
            return true;
    return false;
}

qp_error_t qp_jinja_parse_body(qp_jinja_parser_t *p, const char *const *ends, qp_jinja_body_t *body)
{
    while (p->now->kind != QP_JT_EOF) {
        qp_jinja_node_t *node = qp_jinja_node(p, QP_JN_DATA, p->now->line);
        const qp_jinja_token_t *token = p->now++;
        if (token->kind == QP_JT_DATA) {
            node->value = token->value;
        } else if (token->kind == QP_JT_VARIABLE_BEGIN) {
            qp_jinja_node_t *value = NULL;
            node->kind = QP_JN_OUTPUT;
            QP_TRY(qp_jinja_parse_tuple(p, (qp_jinja_tuple_t){.conditions = true}, &value));
            qp_jinja_add(p, &node->item, &node->n, value);
            QP_TRY(qp_jinja_expect(p, QP_JT_VARIABLE_END));
        } else {
            if (at_end(p, ends))
                return NULL;
            QP_TRY(parse_statement(p, ends, &node));
            QP_TRY(qp_jinja_expect(p, QP_JT_BLOCK_END));
        }
        qp_jinja_add(p, &body->at, &body->n, node);
    }
    return NULL;
}

qp_error_t qp_jinja_parse_statements(qp_jinja_parser_t *p, const char *const *ends,
                                     qp_jinja_body_t *body)
{
    const int line = p->now->line;
    if (++p->nesting > MAX_NESTING)
        return QP_ERROR(QP_INPUT, "line %d: tags are nested more than %d deep", line, MAX_NESTING);
    (void)qp_jinja_skip_op(p, ":");
    QP_TRY(qp_jinja_expect(p, QP_JT_BLOCK_END));
    QP_TRY(qp_jinja_parse_body(p, ends, body));
    if (p->now->kind == QP_JT_EOF)
        return QP_ERROR(QP_INPUT, "line %d: the tag that begins here has no %s", line, ends[0]);
    p->nesting--;
    return NULL;
}
