/** \file jinja_scope.h  Frames and their names while a template is compiled. */
#ifndef QP_JINJA_SCOPE_H
#define QP_JINJA_SCOPE_H

#include "jinja/jinja_parse.h"

/* Bounds that no template meant to be read comes near: names are searched one by one. */
enum { QP_JINJA_MAX_NAMES = 2000, QP_JINJA_MAX_CALLED = 200 };

typedef struct qp_jinja_slots qp_jinja_slots_t;
/* Slots of a function while it is compiled: frames of one level share a name's slot. */
struct qp_jinja_slots {
    qp_jinja_slots_t *outer;
    struct {
        int level;
        const qp_jv_string_t *name;
    } * at;
    int n;
};

typedef struct {
    const qp_jv_string_t *name;
    qp_jinja_load_t load;
    bool stored;
} qp_jinja_symbol_t;

typedef struct qp_jinja_scope qp_jinja_scope_t;
struct qp_jinja_scope {
    qp_jinja_scope_t *parent;
    qp_jinja_slots_t *function;
    int level;
    qp_jinja_symbol_t *symbol;
    int n;
};

typedef struct {
    const qp_jv_string_t *name;
    int line;
} qp_jinja_called_t;

typedef struct {
    qp_jinja_arena_t *arena;
    int n_for;                        /* loops around this place */
    const qp_jv_string_t **attribute; /* names that a namespace or dict may have */
    int64_t n_attribute;
    qp_jinja_called_t *called; /* methods that no type has */
    int64_t n_called;
    bool crowded; /* QP_JINJA_MAX_NAMES were not enough */
} qp_jinja_binder_t;

/** Room for one more than n elements of \a size bytes, in an array of the arena that doubles. */
void *qp_jinja_grow(qp_jinja_binder_t *b, void *at, int64_t n, size_t size);

/** The symbol of a name in a frame or around it, and whose it is; NULL if there is none. */
qp_jinja_symbol_t *qp_jinja_find_symbol(qp_jinja_scope_t *frame, const qp_jv_string_t *name,
                                        qp_jinja_scope_t **owner);
/** Functions from one to another that encloses it. */
int qp_jinja_hops(const qp_jinja_slots_t *from, const qp_jinja_slots_t *to);
/** A name that is set by whoever enters the frame; its slot. */
int qp_jinja_parameter(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, const qp_jv_string_t *name);

typedef enum { QP_JB_SET, QP_JB_SET_IF, QP_JB_PARAMETER } qp_jinja_target_use_t;

/** Notes what an expression reads, a target sets, a body reads and sets in this frame. */
void qp_jinja_analyse(qp_jinja_binder_t *b, qp_jinja_scope_t *frame, const qp_jinja_node_t *node);
void qp_jinja_analyse_target(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                             const qp_jinja_node_t *target, qp_jinja_target_use_t use);
void qp_jinja_analyse_body(qp_jinja_binder_t *b, qp_jinja_scope_t *frame,
                           const qp_jinja_body_t *body, bool condition);

enum { QP_JB_CALLER = 1, QP_JB_KWARGS = 2, QP_JB_VARARGS = 4, QP_JB_LOOP = 8 };
/** Which of the special names \a of (bits) a body reads before it sets them. */
unsigned qp_jinja_undeclared(const qp_jinja_body_t *body, unsigned of);

#endif
