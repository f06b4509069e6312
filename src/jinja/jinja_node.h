/**
 * \file jinja_node.h
 * A template as a tree. Names are bound to slots when the template is compiled, by the rules of
 * Jinja2 (jinja_scope.c): a function (the template, a macro, the body of a call, the filter of a
 * loop) has slots; a frame (a function, the body of a loop, ...) says what its slots hold when it
 * is entered.
 */
#ifndef QP_JINJA_NODE_H
#define QP_JINJA_NODE_H

#include "jinja/jinja_value.h"

typedef enum {
    /* expressions */
    QP_JN_CONST,
    QP_JN_NAME,
    QP_JN_TUPLE,
    QP_JN_LIST,
    QP_JN_DICT, /* item: key, value, key, value, ... */
    QP_JN_BINARY,
    QP_JN_AND,
    QP_JN_OR,
    QP_JN_NOT,
    QP_JN_NEGATE,
    QP_JN_PLUS,
    QP_JN_COMPARE, /* a, then item[i] with item[i]->op */
    QP_JN_OPERAND,
    QP_JN_CONCAT,
    QP_JN_CONDITION,     /* b if a else c */
    QP_JN_GETATTR,       /* a.value */
    QP_JN_GETITEM,       /* a[b] */
    QP_JN_SLICE,         /* a:b:c, each may be NULL; only as b of GETITEM */
    QP_JN_FILTER,        /* a (NULL: the text of the block) | builtin(args) */
    QP_JN_TEST,          /* a is builtin(args) */
    QP_JN_CALL,          /* a(args) */
    QP_JN_NAMESPACE_REF, /* target a.value of a namespace */
    /* statements */
    QP_JN_DATA,
    QP_JN_OUTPUT,       /* item */
    QP_JN_ASSIGN,       /* a = b */
    QP_JN_ASSIGN_BLOCK, /* a = body, filtered by b if there is one */
    QP_JN_FOR,          /* a in b if c: body, orelse */
    QP_JN_IF,           /* a: body, item: the elifs (as IF without item), orelse */
    QP_JN_MACRO,
    QP_JN_CALL_BLOCK, /* call a with body as caller */
    QP_JN_GENERATION,
    QP_JN_FILTER_BLOCK, /* body filtered by a */
    QP_JN_WITH,         /* item: target, value, target, value, ...; body */
    QP_JN_BREAK,
    QP_JN_CONTINUE,
    QP_JN_N_KIND
} qp_jinja_kind_t;

typedef enum {
    QP_JO_ADD,
    QP_JO_SUB,
    QP_JO_MUL,
    QP_JO_DIV,
    QP_JO_FLOORDIV,
    QP_JO_MOD,
    QP_JO_POW,
    QP_JO_EQ,
    QP_JO_NE,
    QP_JO_LT,
    QP_JO_LE,
    QP_JO_GT,
    QP_JO_GE,
    QP_JO_IN,
    QP_JO_NOT_IN
} qp_jinja_op_t;

typedef struct qp_jinja_node qp_jinja_node_t;

/** Arguments as written. */
typedef struct {
    qp_jinja_node_t **arg; /* [n] */
    int64_t n;
    const qp_jv_string_t **key; /* [n_key] */
    qp_jinja_node_t **value;    /* [n_key] */
    int64_t n_key;
    qp_jinja_node_t *more, *more_keys; /* *more, **more_keys; may be NULL */
} qp_jinja_arguments_t;

typedef struct {
    qp_jinja_node_t **at; /* [n] */
    int64_t n;
} qp_jinja_body_t;

/** A slot as seen from a function: of itself (hops 0) or of one that encloses it. */
typedef struct {
    int hops, slot;
} qp_jinja_ref_t;

typedef enum {
    QP_JL_PARAMETER, /* set by who enters the frame */
    QP_JL_UNDEFINED,
    QP_JL_RESOLVE, /* the variable or global of that name */
    QP_JL_ALIAS    /* what \a from holds */
} qp_jinja_load_kind_t;

typedef struct {
    qp_jinja_load_kind_t kind;
    int slot;
    qp_jinja_ref_t from;
    const qp_jv_string_t *name;
} qp_jinja_load_t;

typedef struct {
    qp_jinja_load_t *load; /* [n] */
    int64_t n;
} qp_jinja_frame_t;

/** A macro, the body of a call or of a generation block. */
typedef struct {
    const qp_jv_string_t *name;  /* NULL: a body */
    qp_jinja_node_t **parameter; /* [n] names */
    int64_t n;
    qp_jinja_node_t **otherwise; /* [n_otherwise] defaults of the last parameters */
    int64_t n_otherwise;
    bool takes_caller, explicit_caller;
    int caller, keywords, positionals; /* slots, -1: not used in the body, or a parameter */
    int n_slot;
    qp_jinja_frame_t frame;
} qp_jinja_function_t;

struct qp_jinja_node {
    qp_jinja_kind_t kind;
    int line;
    int depth; /* of the expression */
    qp_jinja_op_t op;
    qp_jv_t value; /* constant, name, text */
    qp_jinja_ref_t ref;
    qp_jinja_node_t *a, *b, *c;
    qp_jinja_node_t **item; /* [n] */
    int64_t n;
    const qp_jinja_builtin_t *builtin;
    qp_jinja_arguments_t *arguments;
    qp_jinja_body_t body, orelse;
    qp_jinja_frame_t frame, else_frame;
    qp_jinja_function_t *function;
    /* FOR with a test: the test is a function of its own with a target of its own */
    qp_jinja_node_t *test_target;
    qp_jinja_function_t *test;
    int loop; /* slot of the variable loop, -1: not used */
};

struct qp_jinja {
    char *name;
    qp_jinja_arena_t arena;
    qp_jinja_body_t body;
    qp_jinja_function_t root;
    bool has_generation;
};

#endif
