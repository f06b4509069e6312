/** \file jinja_parse.h  A template on its way to a tree. */
#ifndef QP_JINJA_PARSE_H
#define QP_JINJA_PARSE_H

#include "jinja/jinja_run.h"

typedef enum {
    QP_JT_EOF,
    QP_JT_DATA,
    QP_JT_VARIABLE_BEGIN,
    QP_JT_VARIABLE_END,
    QP_JT_BLOCK_BEGIN,
    QP_JT_BLOCK_END,
    QP_JT_NAME,
    QP_JT_STRING,
    QP_JT_INTEGER,
    QP_JT_FLOAT,
    QP_JT_OPERATOR
} qp_jinja_token_kind_t;

typedef struct {
    qp_jinja_token_kind_t kind;
    int line;
    qp_jv_t value; /* DATA, NAME, STRING, INTEGER, FLOAT */
    char op[3];    /* OPERATOR */
} qp_jinja_token_t;

typedef struct {
    qp_jinja_token_t *at; /* [n], ends with EOF; in the arena */
    int64_t n;
} qp_jinja_tokens_t;

/** Errors say "line N: ...". */
qp_error_t qp_jinja_lex(qp_jinja_arena_t *arena, const char *text, size_t n_bytes,
                        qp_jinja_tokens_t *tokens);

typedef struct {
    qp_jinja_t *jinja;
    qp_jinja_arena_t *arena;
    const qp_jinja_token_t *now;
    int depth;
    int nesting; /* tags around this place */
    int n_loop;  /* loops around this place in its function */
} qp_jinja_parser_t;

qp_jinja_node_t *qp_jinja_node(qp_jinja_parser_t *p, qp_jinja_kind_t kind, int line);
bool qp_jinja_at_op(const qp_jinja_parser_t *p, const char *op);
bool qp_jinja_at_name(const qp_jinja_parser_t *p, const char *name);
bool qp_jinja_skip_op(qp_jinja_parser_t *p, const char *op);
bool qp_jinja_skip_name(qp_jinja_parser_t *p, const char *name);
qp_error_t qp_jinja_expect_op(qp_jinja_parser_t *p, const char *op);
qp_error_t qp_jinja_expect_name(qp_jinja_parser_t *p, qp_jv_t *name);
qp_error_t qp_jinja_expect(qp_jinja_parser_t *p, qp_jinja_token_kind_t kind);
qp_error_t qp_jinja_wrong_token(const qp_jinja_parser_t *p, const char *expected);
qp_error_t qp_jinja_parse_expression(qp_jinja_parser_t *p, bool conditions, qp_jinja_node_t **node);
/** How a tuple without parentheses is read. */
typedef struct {
    bool targets, conditions, parentheses, namespaces;
    const char *end; /* a name that ends it, may be NULL */
} qp_jinja_tuple_t;
qp_error_t qp_jinja_parse_tuple(qp_jinja_parser_t *p, qp_jinja_tuple_t how, qp_jinja_node_t **node);
/** filter(args) | filter(args) ...; \a started: the first one is not behind a "|". */
qp_error_t qp_jinja_parse_filters(qp_jinja_parser_t *p, bool started, qp_jinja_node_t **node);
/** Data and tags up to an end tag, whose name is then next, or (ends NULL) up to the end. */
qp_error_t qp_jinja_parse_body(qp_jinja_parser_t *p, const char *const *ends,
                               qp_jinja_body_t *body);
/** The same from the end of the opening tag; the end tag must be there. */
qp_error_t qp_jinja_parse_statements(qp_jinja_parser_t *p, const char *const *ends,
                                     qp_jinja_body_t *body);
void qp_jinja_add(qp_jinja_parser_t *p, qp_jinja_node_t ***list, int64_t *n, qp_jinja_node_t *node);
/** Binds all names to slots, builtins to filters and tests; what is not known is refused. */
qp_error_t qp_jinja_bind(qp_jinja_t *jinja);

/* --- shared by the files of the parser -------------------------------------------------------- */

void qp_jinja_advance(qp_jinja_parser_t *p);
/** Takes the depth of a node's operands into account; too deep: QP_INPUT. */
qp_error_t qp_jinja_deepen(qp_jinja_node_t *node);
/** The same for one operand (may be NULL), without the check. */
void qp_jinja_deepen_by(qp_jinja_node_t *node, const qp_jinja_node_t *part);
/** A node of two operands, the second may be NULL. */
qp_error_t qp_jinja_pair(qp_jinja_parser_t *p, qp_jinja_kind_t kind, int line,
                         qp_jinja_node_t *const ab[2], qp_jinja_node_t **node);
qp_error_t qp_jinja_parse_primary(qp_jinja_parser_t *p, bool namespaces, qp_jinja_node_t **node);
qp_error_t qp_jinja_parse_constant(qp_jinja_parser_t *p, qp_jinja_node_t **node);
/** .name, [key] and (arguments) behind *node, which they become. */
qp_error_t qp_jinja_parse_postfix(qp_jinja_parser_t *p, qp_jinja_node_t **node);
/** Filters, tests and calls behind *node. */
qp_error_t qp_jinja_parse_tests(qp_jinja_parser_t *p, qp_jinja_node_t **node);

#endif
