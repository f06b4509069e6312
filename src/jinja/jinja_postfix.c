/* What stands behind an operand: calls, subscripts, filters, tests. */
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_parse.h"

static qp_error_t add_keyword(qp_jinja_parser_t *p, qp_jinja_arguments_t *arguments,
                              qp_jinja_node_t *value, const qp_jv_string_t *key)
{
    for (int64_t i = 0; i < arguments->n_key; i++)
        if (qp_jv_equals_text(arguments->key[i], key->data, key->n))
            return QP_ERROR(QP_INPUT, "line %d: argument '%.60s' is given twice", value->line,
                            key->data);
    const qp_jv_string_t **more =
        QP_JINJA_NEW(p->arena, const qp_jv_string_t *, arguments->n_key + 1);
    if (arguments->n_key > 0)
        memcpy(more, arguments->key, (size_t)arguments->n_key * sizeof(const qp_jv_string_t *));
    more[arguments->n_key] = key;
    arguments->key = more;
    qp_jinja_add(p, &arguments->value, &arguments->n_key, value);
    return NULL;
}

static qp_error_t parse_argument(qp_jinja_parser_t *p, qp_jinja_arguments_t *arguments)
{
    const int line = p->now->line;
    qp_jinja_node_t *value = NULL;
    bool fits = true;
    if (qp_jinja_skip_op(p, "*")) {
        fits = arguments->more == NULL && arguments->more_keys == NULL;
        QP_TRY(qp_jinja_parse_expression(p, true, &arguments->more));
    } else if (qp_jinja_skip_op(p, "**")) {
        fits = arguments->more_keys == NULL;
        QP_TRY(qp_jinja_parse_expression(p, true, &arguments->more_keys));
    } else if (p->now->kind == QP_JT_NAME && p->now[1].kind == QP_JT_OPERATOR &&
               strcmp(p->now[1].op, "=") == 0) {
        const qp_jv_string_t *key = p->now->value.as.s;
        fits = arguments->more_keys == NULL;
        qp_jinja_advance(p);
        qp_jinja_advance(p);
        QP_TRY(qp_jinja_parse_expression(p, true, &value));
        QP_TRY(add_keyword(p, arguments, value, key));
    } else {
        fits = arguments->more == NULL && arguments->more_keys == NULL && arguments->n_key == 0;
        QP_TRY(qp_jinja_parse_expression(p, true, &value));
        qp_jinja_add(p, &arguments->arg, &arguments->n, value);
    }
    if (!fits)
        return QP_ERROR(QP_INPUT, "line %d: wrong order of arguments in a call", line);
    return NULL;
}

/* "(...)" into node->arguments. */
static qp_error_t parse_arguments(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    qp_jinja_arguments_t *arguments = QP_JINJA_NEW(p->arena, qp_jinja_arguments_t, 1);
    node->arguments = arguments;
    if (!qp_jinja_skip_op(p, "("))
        return qp_jinja_deepen(node);
    for (bool first = true; !qp_jinja_at_op(p, ")"); first = false) {
        if (!first) {
            QP_TRY(qp_jinja_expect_op(p, ","));
            if (qp_jinja_at_op(p, ")"))
                break;
        }
        QP_TRY(parse_argument(p, arguments));
    }
    qp_jinja_advance(p);
    for (int64_t i = 0; i < arguments->n; i++)
        qp_jinja_deepen_by(node, arguments->arg[i]);
    for (int64_t i = 0; i < arguments->n_key; i++)
        qp_jinja_deepen_by(node, arguments->value[i]);
    qp_jinja_deepen_by(node, arguments->more);
    qp_jinja_deepen_by(node, arguments->more_keys);
    return qp_jinja_deepen(node);
}

static qp_error_t parse_call(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    qp_jinja_node_t *call = qp_jinja_node(p, QP_JN_CALL, p->now->line);
    call->a = *node;
    *node = call;
    return parse_arguments(p, call);
}

/* Name of a filter or test, with dots. */
static qp_error_t parse_builtin_name(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    QP_TRY(qp_jinja_expect_name(p, &node->value));
    while (qp_jinja_skip_op(p, ".")) {
        qp_jinja_text_t text = {.arena = p->arena};
        qp_jinja_put(&text, node->value.as.s->data, node->value.as.s->n);
        QP_TRY(qp_jinja_expect_name(p, &node->value));
        qp_jinja_put(&text, ".", 1);
        qp_jinja_put(&text, node->value.as.s->data, node->value.as.s->n);
        node->value = qp_jv_string_of(&text);
    }
    return NULL;
}

qp_error_t qp_jinja_parse_filters(qp_jinja_parser_t *p, bool started, qp_jinja_node_t **node)
{
    while (started || qp_jinja_skip_op(p, "|")) {
        qp_jinja_node_t *filter = qp_jinja_node(p, QP_JN_FILTER, p->now->line);
        started = false;
        filter->a = *node;
        QP_TRY(parse_builtin_name(p, filter));
        QP_TRY(parse_arguments(p, filter));
        *node = filter;
    }
    return NULL;
}

/* The argument of a test without parentheses, if there is one: "is divisibleby 3". */
static qp_error_t parse_bare_argument(qp_jinja_parser_t *p, qp_jinja_node_t *test)
{
    const qp_jinja_token_kind_t kind = p->now->kind;
    const bool starts = kind == QP_JT_NAME || kind == QP_JT_STRING || kind == QP_JT_INTEGER ||
                        kind == QP_JT_FLOAT || qp_jinja_at_op(p, "[") || qp_jinja_at_op(p, "{");
    test->arguments = QP_JINJA_NEW(p->arena, qp_jinja_arguments_t, 1);
    if (!starts || qp_jinja_at_name(p, "else") || qp_jinja_at_name(p, "or") ||
        qp_jinja_at_name(p, "and"))
        return NULL;
    if (qp_jinja_at_name(p, "is"))
        return QP_ERROR(QP_INPUT, "line %d: tests cannot be chained with is", test->line);
    qp_jinja_node_t *argument = NULL;
    QP_TRY(qp_jinja_parse_primary(p, false, &argument));
    QP_TRY(qp_jinja_parse_postfix(p, &argument));
    qp_jinja_add(p, &test->arguments->arg, &test->arguments->n, argument);
    qp_jinja_deepen_by(test, argument);
    return NULL;
}

static qp_error_t parse_test(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    qp_jinja_node_t *test = qp_jinja_node(p, QP_JN_TEST, p->now->line);
    qp_jinja_advance(p);
    const bool negated = qp_jinja_skip_name(p, "not");
    test->a = *node;
    QP_TRY(parse_builtin_name(p, test));
    QP_TRY(qp_jinja_at_op(p, "(") ? parse_arguments(p, test) : parse_bare_argument(p, test));
    QP_TRY(qp_jinja_deepen(test));
    *node = test;
    if (!negated)
        return NULL;
    qp_jinja_node_t *const parts[2] = {test, NULL};
    return qp_jinja_pair(p, QP_JN_NOT, test->line, parts, node);
}

static qp_error_t parse_slice_part(qp_jinja_parser_t *p, qp_jinja_node_t **part)
{
    if (qp_jinja_at_op(p, ":") || qp_jinja_at_op(p, "]") || qp_jinja_at_op(p, ","))
        return NULL;
    return qp_jinja_parse_expression(p, true, part);
}

/* What stands between brackets: an expression or start:stop:step. */
static qp_error_t parse_subscript(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    qp_jinja_node_t *slice = qp_jinja_node(p, QP_JN_SLICE, p->now->line);
    if (!qp_jinja_at_op(p, ":"))
        QP_TRY(qp_jinja_parse_expression(p, true, &slice->a));
    if (!qp_jinja_skip_op(p, ":")) {
        *node = slice->a;
        return NULL;
    }
    QP_TRY(parse_slice_part(p, &slice->b));
    if (qp_jinja_skip_op(p, ":"))
        QP_TRY(parse_slice_part(p, &slice->c));
    *node = slice;
    return qp_jinja_deepen(slice);
}

static qp_error_t parse_bracket(qp_jinja_parser_t *p, qp_jinja_node_t *item)
{
    qp_jinja_node_t *tuple = qp_jinja_node(p, QP_JN_TUPLE, item->line);
    while (!qp_jinja_at_op(p, "]")) {
        qp_jinja_node_t *part = NULL;
        if (tuple->n > 0)
            QP_TRY(qp_jinja_expect_op(p, ","));
        QP_TRY(parse_subscript(p, &part));
        qp_jinja_add(p, &tuple->item, &tuple->n, part);
    }
    qp_jinja_advance(p);
    for (int64_t i = 0; i < tuple->n && tuple->n > 1; i++)
        if (tuple->item[i]->kind == QP_JN_SLICE)
            return QP_ERROR(QP_INPUT, "line %d: a slice in a tuple is not supported", item->line);
    item->b = tuple->n == 1 ? tuple->item[0] : tuple;
    return qp_jinja_deepen(tuple);
}

static qp_error_t parse_item(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    const bool dot = qp_jinja_at_op(p, ".");
    qp_jinja_node_t *item = qp_jinja_node(p, QP_JN_GETITEM, p->now->line);
    qp_jinja_advance(p);
    item->a = *node;
    *node = item;
    if (!dot) {
        QP_TRY(parse_bracket(p, item));
    } else if (p->now->kind == QP_JT_NAME) {
        item->kind = QP_JN_GETATTR;
        item->value = p->now->value;
        qp_jinja_advance(p);
    } else if (p->now->kind == QP_JT_INTEGER) {
        QP_TRY(qp_jinja_parse_constant(p, &item->b));
    } else {
        return qp_jinja_wrong_token(p, "a name or number");
    }
    return qp_jinja_deepen(item);
}

qp_error_t qp_jinja_parse_postfix(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    while (true) {
        if (qp_jinja_at_op(p, ".") || qp_jinja_at_op(p, "["))
            QP_TRY(parse_item(p, node));
        else if (qp_jinja_at_op(p, "("))
            QP_TRY(parse_call(p, node));
        else
            return NULL;
    }
}

qp_error_t qp_jinja_parse_tests(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    while (true) {
        if (qp_jinja_at_op(p, "|"))
            QP_TRY(qp_jinja_parse_filters(p, false, node));
        else if (qp_jinja_at_name(p, "is"))
            QP_TRY(parse_test(p, node));
        else if (qp_jinja_at_op(p, "("))
            QP_TRY(parse_call(p, node));
        else
            return NULL;
    }
}
