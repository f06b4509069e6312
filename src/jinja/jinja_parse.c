/* Expressions of a template, in the order of precedence of Jinja2's parser. */
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_parse.h"

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

void qp_jinja_advance(qp_jinja_parser_t *p)
{
    if (p->now->kind != QP_JT_EOF)
        p->now++;
}

bool qp_jinja_skip_op(qp_jinja_parser_t *p, const char *op)
{
    const bool here = qp_jinja_at_op(p, op);
    if (here)
        qp_jinja_advance(p);
    return here;
}

bool qp_jinja_skip_name(qp_jinja_parser_t *p, const char *name)
{
    const bool here = qp_jinja_at_name(p, name);
    if (here)
        qp_jinja_advance(p);
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

qp_error_t qp_jinja_expect_name(qp_jinja_parser_t *p, qp_jv_t *name)
{
    if (p->now->kind != QP_JT_NAME)
        return qp_jinja_wrong_token(p, "a name");
    *name = p->now->value;
    qp_jinja_advance(p);
    return NULL;
}

qp_error_t qp_jinja_expect(qp_jinja_parser_t *p, qp_jinja_token_kind_t kind)
{
    if (p->now->kind != kind)
        return qp_jinja_wrong_token(p, kind == QP_JT_BLOCK_END ? "%}" : "}}");
    qp_jinja_advance(p);
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
            memcpy(more, *list, (size_t)*n * sizeof(qp_jinja_node_t *));
        *list = more;
    }
    (*list)[(*n)++] = node;
}

/* Takes the operands of an expression into account. */
qp_error_t qp_jinja_deepen(qp_jinja_node_t *node)
{
    const qp_jinja_node_t *part[] = {node->a, node->b, node->c};
    for (int i = 0; i < 3; i++)
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

void qp_jinja_deepen_by(qp_jinja_node_t *node, const qp_jinja_node_t *part)
{
    if (part != NULL && part->depth >= node->depth)
        node->depth = part->depth + 1;
}

qp_error_t qp_jinja_pair(qp_jinja_parser_t *p, qp_jinja_kind_t kind, int line,
                         qp_jinja_node_t *const ab[2], qp_jinja_node_t **node)
{
    *node = qp_jinja_node(p, kind, line);
    (*node)->a = ab[0];
    (*node)->b = ab[1];
    return qp_jinja_deepen(*node);
}

/* --- literals --------------------------------------------------------------------------------- */

static qp_error_t parse_list(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    *node = qp_jinja_node(p, QP_JN_LIST, p->now->line);
    qp_jinja_advance(p);
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
    qp_jinja_advance(p);
    return qp_jinja_deepen(*node);
}

static qp_error_t parse_dict(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    *node = qp_jinja_node(p, QP_JN_DICT, p->now->line);
    qp_jinja_advance(p);
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
    qp_jinja_advance(p);
    return qp_jinja_deepen(*node);
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
    qp_jinja_advance(p);
    if (constant) {
        (*node)->kind = QP_JN_CONST;
    } else if (namespaces && qp_jinja_skip_op(p, ".")) {
        QP_TRY(qp_jinja_expect_name(p, &(*node)->value));
        (*node)->kind = QP_JN_NAMESPACE_REF;
        (*node)->a = qp_jinja_node(p, QP_JN_NAME, token->line);
        (*node)->a->value = token->value;
    } else {
        (*node)->value = token->value;
    }
    return NULL;
}

qp_error_t qp_jinja_parse_constant(qp_jinja_parser_t *p, qp_jinja_node_t **node)
{
    *node = qp_jinja_node(p, QP_JN_CONST, p->now->line);
    (*node)->value = p->now->value;
    const bool string = p->now->kind == QP_JT_STRING;
    qp_jinja_advance(p);
    if (string && p->now->kind == QP_JT_STRING) { /* neighbours are one string */
        qp_jinja_text_t text = {.arena = p->arena};
        qp_jinja_put(&text, (*node)->value.as.s->data, (*node)->value.as.s->n);
        for (; p->now->kind == QP_JT_STRING; qp_jinja_advance(p))
            qp_jinja_put(&text, p->now->value.as.s->data, p->now->value.as.s->n);
        (*node)->value = qp_jv_string_of(&text);
    }
    return NULL;
}

qp_error_t qp_jinja_parse_primary(qp_jinja_parser_t *p, bool namespaces, qp_jinja_node_t **node)
{
    switch (p->now->kind) {
    case QP_JT_NAME:
        return parse_name(p, namespaces, node);
    case QP_JT_STRING:
    case QP_JT_INTEGER:
    case QP_JT_FLOAT:
        return qp_jinja_parse_constant(p, node);
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
        QP_TRY(how.targets ? qp_jinja_parse_primary(p, how.namespaces, &item)
                           : qp_jinja_parse_expression(p, how.conditions, &item));
        qp_jinja_add(p, &tuple->item, &tuple->n, item);
        if (!qp_jinja_at_op(p, ","))
            break;
        is_tuple = true;
    }
    if (!is_tuple && tuple->n == 0 && !how.parentheses)
        return qp_jinja_wrong_token(p, "an expression");
    *node = is_tuple || tuple->n == 0 ? tuple : tuple->item[0];
    return qp_jinja_deepen(*node);
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
        qp_jinja_advance(p);
        QP_TRY(parse_unary(p, false, &parts[0]));
        QP_TRY(qp_jinja_pair(p, minus ? QP_JN_NEGATE : QP_JN_PLUS, line, parts, node));
    } else {
        QP_TRY(qp_jinja_parse_primary(p, false, node));
    }
    QP_TRY(qp_jinja_parse_postfix(p, node));
    if (filters)
        QP_TRY(qp_jinja_parse_tests(p, node));
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
        qp_jinja_advance(p);
        QP_TRY(parse_level(p, level + 1, &parts[1]));
        if (level == CONCAT_LEVEL) {
            if ((*node)->kind != QP_JN_CONCAT) {
                *node = qp_jinja_node(p, QP_JN_CONCAT, line);
                qp_jinja_add(p, &(*node)->item, &(*node)->n, parts[0]);
            }
            qp_jinja_add(p, &(*node)->item, &(*node)->n, parts[1]);
            QP_TRY(qp_jinja_deepen(*node));
        } else {
            QP_TRY(qp_jinja_pair(p, QP_JN_BINARY, line, parts, node));
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
        qp_jinja_advance(p);
        return true;
    }
    *op = QP_JO_IN;
    if (qp_jinja_skip_name(p, "in"))
        return true;
    *op = QP_JO_NOT_IN;
    if (!qp_jinja_at_name(p, "not") || p->now[1].kind != QP_JT_NAME ||
        !qp_jv_equals_text(p->now[1].value.as.s, "in", 2))
        return false;
    qp_jinja_advance(p);
    qp_jinja_advance(p);
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
        QP_TRY(qp_jinja_deepen(operand));
        qp_jinja_add(p, &chain->item, &chain->n, operand);
    } while (comparison(p, &op));
    *node = chain;
    return qp_jinja_deepen(chain);
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
        QP_TRY(qp_jinja_pair(p, QP_JN_NOT, line, parts, node));
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
        QP_TRY(qp_jinja_pair(p, QP_JN_AND, line, parts, node));
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
        QP_TRY(qp_jinja_pair(p, QP_JN_OR, line, parts, node));
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
        qp_jinja_advance(p);
        choice->b = *node;
        QP_TRY(parse_or(p, &choice->a));
        if (qp_jinja_skip_name(p, "else"))
            QP_TRY(qp_jinja_parse_expression(p, true, &choice->c));
        *node = choice;
        QP_TRY(qp_jinja_deepen(choice));
    }
    p->depth--;
    return NULL;
}
