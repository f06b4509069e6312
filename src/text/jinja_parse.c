/* Expressions of a template, in the order of precedence of Jinja2's parser. */
#include <string.h>

#include "base/mem.h"
#include "text/jinja_run.h"

/* Deeper expressions cannot be compiled by Python either ("too many nested parentheses"). */
enum { MAX_DEPTH = 200 };

/* --- tokens ----------------------------------------------------------------------------------- */

bool qp_jinja_at_op(const qp_jinja_parser_t *p, const char *op)
{
    return p->now->kind == QP_JT_OPERATOR && strcmp(p->now->op, op) == 0;
}

bool qp_jinja_at_name(const qp_jinja_parser_t *p, const char *name)
{
    return p->now->kind == QP_JT_NAME && qp_jv_equals_text(p->now->value.as.s, name, strlen(name));
}

static void next(qp_jinja_parser_t *p)
{
    if (p->now->kind != QP_JT_EOF)
        p->now++;
}

bool qp_jinja_skip_op(qp_jinja_parser_t *p, const char *op)
{
    const bool here = qp_jinja_at_op(p, op);
    if (here)
        next(p);
    return here;
}

bool qp_jinja_skip_name(qp_jinja_parser_t *p, const char *name)
{
    const bool here = qp_jinja_at_name(p, name);
    if (here)
        next(p);
    return here;
}

qp_error_t qp_jinja_wrong_token(const qp_jinja_parser_t *p, const char *expected)
{
    static const char *const names[] = {[QP_JT_EOF] = "the end of the template",
                                        [QP_JT_DATA] = "text",
                                        [QP_JT_VARIABLE_BEGIN] = "{{",
                                        [QP_JT_VARIABLE_END] = "}}",
                                        [QP_JT_BLOCK_BEGIN] = "{%",
                                        [QP_JT_BLOCK_END] = "%}",
                                        [QP_JT_STRING] = "a string",
                                        [QP_JT_INTEGER] = "a number",
                                        [QP_JT_FLOAT] = "a number"};
    const qp_jinja_token_t *token = p->now;
    if (token->kind == QP_JT_NAME)
        return QP_ERROR(QP_INPUT, "line %d: found '%.60s', expected %s", token->line,
                        token->value.as.s->data, expected);
    return QP_ERROR(QP_INPUT, "line %d: found %s, expected %s", token->line,
                    token->kind == QP_JT_OPERATOR ? token->op : names[token->kind], expected);
}

qp_error_t qp_jinja_expect_op(qp_jinja_parser_t *p, const char *op)
{
    return qp_jinja_skip_op(p, op) ? NULL : qp_jinja_wrong_token(p, op);
}

qp_error_t qp_jinja_expect_name(qp_jinja_parser_t *p, const qp_jv_string_t **name)
{
    if (p->now->kind != QP_JT_NAME)
        return qp_jinja_wrong_token(p, "a name");
    *name = p->now->value.as.s;
    next(p);
    return NULL;
}

qp_error_t qp_jinja_expect(qp_jinja_parser_t *p, qp_jinja_token_kind_t kind)
{
    if (p->now->kind != kind)
        return qp_jinja_wrong_token(p, kind == QP_JT_BLOCK_END ? "%}" : "}}");
    next(p);
    return NULL;
}

/* --- nodes ------------------------------------------------------------------------------------ */

qp_jinja_node_t *qp_jinja_node(qp_jinja_parser_t *p, qp_jinja_kind_t kind, int line)
{
    qp_jinja_node_t *node = QP_JINJA_NEW(p->arena, qp_jinja_node_t, 1);
    node->kind = kind;
    node->line = line;
    node->loop = -1;
    return node;
}

void qp_jinja_add(qp_jinja_parser_t *p, qp_jinja_node_t ***list, int64_t *n, qp_jinja_node_t *node)
{
    if ((*n & (*n - 1)) == 0) { /* full: room for a power of two */
        qp_jinja_node_t **more = QP_JINJA_NEW(p->arena, qp_jinja_node_t *, *n > 0 ? 2 * *n : 1);
        if (*n > 0)
            memcpy(more, *list, (size_t)*n * sizeof *more);
        *list = more;
    }
    (*list)[(*n)++] = node;
}

/* Takes the operands of an expression into account. */
static qp_error_t deepen(qp_jinja_node_t *node)
{
    const qp_jinja_node_t *part[] = {node->a, node->b, node->c};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        if (part[i] != NULL && part[i]->depth >= node->depth)
            node->depth = part[i]->depth + 1;
    for (int64_t i = 0; i < node->n; i++)
        if (node->item[i]->depth >= node->depth)
            node->depth = node->item[i]->depth + 1;
    if (node->depth > MAX_DEPTH)
        return QP_ERROR(QP_INPUT, "line %d: an expression is nested more than %d deep", node->line,
                        MAX_DEPTH);
    return NULL;
}

static qp_error_t pair(qp_jinja_parser_t *p, qp_jinja_kind_t kind, int line,
                       qp_jinja_node_t *const ab[2], qp_jinja_node_t **node)
{
    *node = qp_jinja_node(p, kind, line);
    (*node)->a = ab[0];
    (*node)->b = ab[1];
    return deepen(*node);
}

/* --- literals --------------------------------------------------------------------------------- */

static qp_error_t parse_list(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    *node = qp_jinja_node(p, QP_JN_LIST, p->now->line);
    next(p);
    while (!qp_jinja_at_op(p, "]")) {
        qp_jinja_node_t *item = NULL;
        if ((*node)->n > 0) {
            QP_TRY(qp_jinja_expect_op(p, ","));
            if (qp_jinja_at_op(p, "]"))
                break;
        }
        QP_TRY(qp_jinja_parse_expression(p, true, &item));
        qp_jinja_add(p, &(*node)->item, &(*node)->n, item);
    }
    next(p);
    return deepen(*node);
}

static qp_error_t parse_dict(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    *node = qp_jinja_node(p, QP_JN_DICT, p->now->line);
    next(p);
    while (!qp_jinja_at_op(p, "}")) {
        qp_jinja_node_t *key = NULL, *value = NULL;
        if ((*node)->n > 0) {
            QP_TRY(qp_jinja_expect_op(p, ","));
            if (qp_jinja_at_op(p, "}"))
                break;
        }
        QP_TRY(qp_jinja_parse_expression(p, true, &key));
        QP_TRY(qp_jinja_expect_op(p, ":"));
        QP_TRY(qp_jinja_parse_expression(p, true, &value));
        qp_jinja_add(p, &(*node)->item, &(*node)->n, key);
        qp_jinja_add(p, &(*node)->item, &(*node)->n, value);
    }
    next(p);
    return deepen(*node);
}

/* A constant that looks like a name; false if it is none. */
static bool named_constant(const qp_jinja_parser_t *p, qp_jv_t *value)
{
    static const struct {
        const char *name;
        qp_jv_type_t type;
        int64_t i;
    } constants[] = {{"true", QP_JV_BOOL, 1},  {"True", QP_JV_BOOL, 1}, {"false", QP_JV_BOOL, 0},
                     {"False", QP_JV_BOOL, 0}, {"none", QP_JV_NONE, 0}, {"None", QP_JV_NONE, 0}};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (qp_jinja_at_name(p, constants[i].name)) {
            *value = (qp_jv_t){.type = constants[i].type, .as.i = constants[i].i};
            return true;
        }
    return false;
}

static qp_error_t parse_name(qp_jinja_parser_t *p, bool namespaces, qp_jinja_node_t **node)
{
    const qp_jinja_token_t *token = p->now;
    *node = qp_jinja_node(p, QP_JN_NAME, token->line);
    const bool constant = named_constant(p, &(*node)->value);
    next(p);
    if (constant) {
        (*node)->kind = QP_JN_CONST;
    } else if (namespaces && qp_jinja_skip_op(p, ".")) {
        const qp_jv_string_t *attribute = NULL;
        QP_TRY(qp_jinja_expect_name(p, &attribute));
        (*node)->kind = QP_JN_NAMESPACE_REF;
        (*node)->a = qp_jinja_node(p, QP_JN_NAME, token->line);
        (*node)->a->value = token->value;
        (*node)->value = p->now[-1].value;
    } else {
        (*node)->value = token->value;
    }
    return NULL;
}

static qp_error_t parse_constant(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    *node = qp_jinja_node(p, QP_JN_CONST, p->now->line);
    (*node)->value = p->now->value;
    const bool string = p->now->kind == QP_JT_STRING;
    next(p);
    if (string && p->now->kind == QP_JT_STRING) { /* neighbours are one string */
        qp_jinja_text_t text = {.arena = p->arena};
        qp_jinja_put(&text, (*node)->value.as.s->data, (*node)->value.as.s->n);
        for (; p->now->kind == QP_JT_STRING; next(p))
            qp_jinja_put(&text, p->now->value.as.s->data, p->now->value.as.s->n);
        (*node)->value = qp_jv_string_of(&text);
    }
    return NULL;
}

static qp_error_t parse_primary(qp_jinja_parser_t *p, bool namespaces, qp_jinja_node_t **node)
{
    switch (p->now->kind) {
    case QP_JT_NAME:
        return parse_name(p, namespaces, node);
    case QP_JT_STRING:
    case QP_JT_INTEGER:
    case QP_JT_FLOAT:
        return parse_constant(p, node);
    default:
        break;
    }
    if (qp_jinja_at_op(p, "["))
        return parse_list(p, node);
    if (qp_jinja_at_op(p, "{"))
        return parse_dict(p, node);
    if (!qp_jinja_skip_op(p, "("))
        return qp_jinja_wrong_token(p, "an expression");
    QP_TRY(
        qp_jinja_parse_tuple(p, (qp_jinja_tuple_t){.conditions = true, .parentheses = true}, node));
    return qp_jinja_expect_op(p, ")");
}

static bool at_tuple_end(const qp_jinja_parser_t *p, const char *end)
{
    return p->now->kind == QP_JT_VARIABLE_END || p->now->kind == QP_JT_BLOCK_END ||
           qp_jinja_at_op(p, ")") || (end != NULL && qp_jinja_at_name(p, end));
}

qp_error_t qp_jinja_parse_tuple(qp_jinja_parser_t *p, qp_jinja_tuple_t how, qp_jinja_node_t **node)
{
    qp_jinja_node_t *tuple = qp_jinja_node(p, QP_JN_TUPLE, p->now->line);
    bool is_tuple = false;
    while (true) {
        qp_jinja_node_t *item = NULL;
        if (tuple->n > 0)
            QP_TRY(qp_jinja_expect_op(p, ","));
        if (at_tuple_end(p, how.end))
            break;
        QP_TRY(how.targets ? parse_primary(p, how.namespaces, &item)
                           : qp_jinja_parse_expression(p, how.conditions, &item));
        qp_jinja_add(p, &tuple->item, &tuple->n, item);
        if (!qp_jinja_at_op(p, ","))
            break;
        is_tuple = true;
    }
    if (!is_tuple && tuple->n == 0 && !how.parentheses)
        return qp_jinja_wrong_token(p, "an expression");
    *node = is_tuple || tuple->n == 0 ? tuple : tuple->item[0];
    return deepen(*node);
}

/* --- calls, filters, tests, subscripts ----------------------------------------------------------
 */

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
        memcpy(more, arguments->key, (size_t)arguments->n_key * sizeof *more);
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
        next(p);
        next(p);
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

static void deepen_by(qp_jinja_node_t *node, const qp_jinja_node_t *part)
{
    if (part != NULL && part->depth >= node->depth)
        node->depth = part->depth + 1;
}

/* "(...)" into node->arguments. */
static qp_error_t parse_arguments(qp_jinja_parser_t *p, qp_jinja_node_t *node)
{
    qp_jinja_arguments_t *arguments = QP_JINJA_NEW(p->arena, qp_jinja_arguments_t, 1);
    node->arguments = arguments;
    if (!qp_jinja_skip_op(p, "("))
        return deepen(node);
    for (bool first = true; !qp_jinja_at_op(p, ")"); first = false) {
        if (!first) {
            QP_TRY(qp_jinja_expect_op(p, ","));
            if (qp_jinja_at_op(p, ")"))
                break;
        }
        QP_TRY(parse_argument(p, arguments));
    }
    next(p);
    for (int64_t i = 0; i < arguments->n; i++)
        deepen_by(node, arguments->arg[i]);
    for (int64_t i = 0; i < arguments->n_key; i++)
        deepen_by(node, arguments->value[i]);
    deepen_by(node, arguments->more);
    deepen_by(node, arguments->more_keys);
    return deepen(node);
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
    const qp_jv_string_t *name = NULL;
    QP_TRY(qp_jinja_expect_name(p, &name));
    node->value = p->now[-1].value;
    while (qp_jinja_skip_op(p, ".")) {
        qp_jinja_text_t text = {.arena = p->arena};
        qp_jinja_put(&text, node->value.as.s->data, node->value.as.s->n);
        QP_TRY(qp_jinja_expect_name(p, &name));
        qp_jinja_put(&text, ".", 1);
        qp_jinja_put(&text, name->data, name->n);
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

static qp_error_t parse_postfix(qp_jinja_parser_t *p, qp_jinja_node_t **node);

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
    QP_TRY(parse_primary(p, false, &argument));
    QP_TRY(parse_postfix(p, &argument));
    qp_jinja_add(p, &test->arguments->arg, &test->arguments->n, argument);
    deepen_by(test, argument);
    return NULL;
}

static qp_error_t parse_test(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    qp_jinja_node_t *test = qp_jinja_node(p, QP_JN_TEST, p->now->line);
    next(p);
    const bool negated = qp_jinja_skip_name(p, "not");
    test->a = *node;
    QP_TRY(parse_builtin_name(p, test));
    QP_TRY(qp_jinja_at_op(p, "(") ? parse_arguments(p, test) : parse_bare_argument(p, test));
    QP_TRY(deepen(test));
    *node = test;
    if (!negated)
        return NULL;
    qp_jinja_node_t *const parts[2] = {test, NULL};
    return pair(p, QP_JN_NOT, test->line, parts, node);
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
    return deepen(slice);
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
    next(p);
    for (int64_t i = 0; i < tuple->n && tuple->n > 1; i++)
        if (tuple->item[i]->kind == QP_JN_SLICE)
            return QP_ERROR(QP_INPUT, "line %d: a slice in a tuple is not supported", item->line);
    item->b = tuple->n == 1 ? tuple->item[0] : tuple;
    return deepen(tuple);
}

static qp_error_t parse_item(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    const bool dot = qp_jinja_at_op(p, ".");
    qp_jinja_node_t *item = qp_jinja_node(p, QP_JN_GETITEM, p->now->line);
    next(p);
    item->a = *node;
    *node = item;
    if (!dot) {
        QP_TRY(parse_bracket(p, item));
    } else if (p->now->kind == QP_JT_NAME) {
        item->kind = QP_JN_GETATTR;
        item->value = p->now->value;
        next(p);
    } else if (p->now->kind == QP_JT_INTEGER) {
        QP_TRY(parse_constant(p, &item->b));
    } else {
        return qp_jinja_wrong_token(p, "a name or number");
    }
    return deepen(item);
}

static qp_error_t parse_postfix(qp_jinja_parser_t *p, qp_jinja_node_t **node)
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

static qp_error_t parse_filters_and_tests(qp_jinja_parser_t *p, qp_jinja_node_t **node)
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

/* --- operators -------------------------------------------------------------------------------- */

static qp_error_t parse_unary(qp_jinja_parser_t *p, bool filters, qp_jinja_node_t **node)
{
    const int line = p->now->line;
    const bool minus = qp_jinja_at_op(p, "-");
    if (++p->depth > MAX_DEPTH)
        return QP_ERROR(QP_INPUT, "line %d: an expression is nested more than %d deep", line,
                        MAX_DEPTH);
    if (minus || qp_jinja_at_op(p, "+")) {
        qp_jinja_node_t *parts[2] = {NULL, NULL};
        next(p);
        QP_TRY(parse_unary(p, false, &parts[0]));
        QP_TRY(pair(p, minus ? QP_JN_NEGATE : QP_JN_PLUS, line, parts, node));
    } else {
        QP_TRY(parse_primary(p, false, node));
    }
    QP_TRY(parse_postfix(p, node));
    if (filters)
        QP_TRY(parse_filters_and_tests(p, node));
    p->depth--;
    return NULL;
}

typedef struct {
    const char *text;
    qp_jinja_op_t op;
} operator_t;

static const operator_t *find_operator(const qp_jinja_parser_t *p, const operator_t *table)
{
    for (; table->text != NULL; table++)
        if (qp_jinja_at_op(p, table->text))
            return table;
    return NULL;
}

/* Levels of binary operators, from the weakest; "~" stands between + and *. */
static const operator_t levels[][5] = {
    {{"+", QP_JO_ADD}, {"-", QP_JO_SUB}},
    {{"~", QP_JO_ADD}},
    {{"*", QP_JO_MUL}, {"/", QP_JO_DIV}, {"//", QP_JO_FLOORDIV}, {"%", QP_JO_MOD}},
    {{"**", QP_JO_POW}},
};
enum { N_LEVEL = sizeof levels / sizeof *levels, CONCAT_LEVEL = 1 };

static qp_error_t parse_level(qp_jinja_parser_t *p, int level, qp_jinja_node_t **node)
{
    if (level == N_LEVEL)
        return parse_unary(p, true, node);
    int line = p->now->line;
    QP_TRY(parse_level(p, level + 1, node));
    for (const operator_t *op; (op = find_operator(p, levels[level])) != NULL;) {
        qp_jinja_node_t *parts[2] = {*node, NULL};
        next(p);
        QP_TRY(parse_level(p, level + 1, &parts[1]));
        if (level == CONCAT_LEVEL) {
            if ((*node)->kind != QP_JN_CONCAT) {
                *node = qp_jinja_node(p, QP_JN_CONCAT, line);
                qp_jinja_add(p, &(*node)->item, &(*node)->n, parts[0]);
            }
            qp_jinja_add(p, &(*node)->item, &(*node)->n, parts[1]);
            QP_TRY(deepen(*node));
        } else {
            QP_TRY(pair(p, QP_JN_BINARY, line, parts, node));
            (*node)->op = op->op;
        }
        line = p->now->line;
    }
    return NULL;
}

static bool comparison(qp_jinja_parser_t *p, qp_jinja_op_t *op)
{
    static const operator_t table[] = {{"==", QP_JO_EQ}, {"!=", QP_JO_NE}, {"<", QP_JO_LT},
                                       {"<=", QP_JO_LE}, {">", QP_JO_GT},  {">=", QP_JO_GE},
                                       {NULL, QP_JO_EQ}};
    const operator_t *found = find_operator(p, table);
    if (found != NULL) {
        *op = found->op;
        next(p);
        return true;
    }
    *op = QP_JO_IN;
    if (qp_jinja_skip_name(p, "in"))
        return true;
    *op = QP_JO_NOT_IN;
    if (!qp_jinja_at_name(p, "not") || p->now[1].kind != QP_JT_NAME ||
        !qp_jv_equals_text(p->now[1].value.as.s, "in", 2))
        return false;
    next(p);
    next(p);
    return true;
}

static qp_error_t parse_comparison(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    const int line = p->now->line;
    qp_jinja_op_t op;
    QP_TRY(parse_level(p, 0, node));
    if (!comparison(p, &op))
        return NULL;
    qp_jinja_node_t *chain = qp_jinja_node(p, QP_JN_COMPARE, line);
    chain->a = *node;
    do {
        qp_jinja_node_t *operand = qp_jinja_node(p, QP_JN_OPERAND, p->now->line);
        operand->op = op;
        QP_TRY(parse_level(p, 0, &operand->a));
        QP_TRY(deepen(operand));
        qp_jinja_add(p, &chain->item, &chain->n, operand);
    } while (comparison(p, &op));
    *node = chain;
    return deepen(chain);
}

static qp_error_t parse_not(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    const int line = p->now->line;
    int n_not = 0;
    while (qp_jinja_skip_name(p, "not"))
        n_not++;
    QP_TRY(parse_comparison(p, node));
    for (; n_not > 0; n_not--) {
        qp_jinja_node_t *const parts[2] = {*node, NULL};
        QP_TRY(pair(p, QP_JN_NOT, line, parts, node));
    }
    return NULL;
}

/* a and b and c: chains of one operator lean to the left. */
static qp_error_t parse_and(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    const int line = p->now->line;
    QP_TRY(parse_not(p, node));
    while (qp_jinja_skip_name(p, "and")) {
        qp_jinja_node_t *parts[2] = {*node, NULL};
        QP_TRY(parse_not(p, &parts[1]));
        QP_TRY(pair(p, QP_JN_AND, line, parts, node));
    }
    return NULL;
}

static qp_error_t parse_or(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    const int line = p->now->line;
    QP_TRY(parse_and(p, node));
    while (qp_jinja_skip_name(p, "or")) {
        qp_jinja_node_t *parts[2] = {*node, NULL};
        QP_TRY(parse_and(p, &parts[1]));
        QP_TRY(pair(p, QP_JN_OR, line, parts, node));
    }
    return NULL;
}

qp_error_t qp_jinja_parse_expression(qp_jinja_parser_t *p, bool conditions, qp_jinja_node_t **node)
{
    if (++p->depth > MAX_DEPTH)
        return QP_ERROR(QP_INPUT, "line %d: an expression is nested more than %d deep",
                        p->now->line, MAX_DEPTH);
    QP_TRY(parse_or(p, node));
    while (conditions && qp_jinja_at_name(p, "if")) {
        qp_jinja_node_t *choice = qp_jinja_node(p, QP_JN_CONDITION, p->now->line);
        next(p);
        choice->b = *node;
        QP_TRY(parse_or(p, &choice->a));
        if (qp_jinja_skip_name(p, "else"))
            QP_TRY(qp_jinja_parse_expression(p, true, &choice->c));
        *node = choice;
        QP_TRY(deepen(choice));
    }
    p->depth--;
    return NULL;
}
