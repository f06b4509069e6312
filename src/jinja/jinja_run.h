/** \file jinja_run.h  A rendering under way, and what the parts of the interpreter call of each
 * other. */
#ifndef QP_JINJA_RUN_H
#define QP_JINJA_RUN_H

#include "jinja/jinja.h"
#include "jinja/jinja_node.h"

/** Slots of a function that was called. */
typedef struct qp_jinja_activation qp_jinja_activation_t;
struct qp_jinja_activation {
    qp_jv_t *slot;
    qp_jinja_activation_t *outer;
};

struct qp_jinja_macro {
    const qp_jinja_node_t *node;
    qp_jinja_activation_t *outer;
};

typedef struct {
    size_t begin; /* byte of the whole text */
    int64_t n_chars;
} qp_jinja_generated_t;

struct qp_jinja_run {
    const qp_jinja_t *jinja;
    qp_jinja_arena_t arena;
    const qp_jv_dict_t *variables;
    qp_jinja_activation_t *top; /* of the function that runs */
    qp_jinja_text_t *sink;      /* NULL: the output */
    qp_jinja_output_t *output;
    int64_t item; /* of the innermost loop over the tracked list, or -1 */
    int64_t n_step;
    int depth;
    int line;
    qp_jinja_generated_t *generated; /* in the arena */
    int64_t n_generated, generated_capacity;
};

enum {
    QP_JINJA_MAX_STEPS = 20000000,
    QP_JINJA_MAX_DEPTH =
        1000, /* of expressions and statements inside one another, macros included */
    QP_JINJA_MAX_BYTES = 512 << 20
};

/** Counts work of \a n_bytes bytes that are read or made; beyond the bounds: QP_INPUT. */
qp_error_t qp_jinja_spend(qp_jinja_run_t *run, size_t n_bytes);
/** One level deeper; the caller takes it back (run->depth--) unless this fails. */
qp_error_t qp_jinja_enter(qp_jinja_run_t *run);

/* --- calls ------------------------------------------------------------------------------------ */

/** Arguments as values. */
typedef struct {
    const qp_jv_t *arg; /* [n] */
    int64_t n;
    const qp_jv_string_t **key; /* [n_key] */
    const qp_jv_t *value;       /* [n_key] */
    int64_t n_key;
} qp_jinja_given_t;

/** What a builtin is called with. */
typedef struct {
    qp_jinja_run_t *run;
    qp_jv_t self;       /* what is filtered, tested, or has the method */
    const qp_jv_t *arg; /* by parameter; MISSING where not given; none for those that take any */
    qp_jinja_given_t given;
} qp_jinja_call_t;

enum { QP_JINJA_MAX_PARAMETER = 6 };

struct qp_jinja_builtin {
    const char *name;
    /** "old,new,count": names of the parameters, NULL: any arguments; a leading "/" ends keywords.
     */
    const char *parameters;
    int n_required;
    /** NULL: known to Jinja2 and not built here, refused by name. */
    qp_error_t (*call)(const qp_jinja_call_t *call, qp_jv_t *result);
    bool takes_markup; /**< does the same with a string marked safe; else that is refused */
};

/** Tables end with a NULL name. */
const qp_jinja_builtin_t *qp_jinja_find(const qp_jinja_builtin_t *table, const char *name,
                                        size_t n);
extern const qp_jinja_builtin_t qp_jinja_text_filters[], qp_jinja_value_filters[],
    qp_jinja_generator_filters[], qp_jinja_sequence_filters[], qp_jinja_tests[], qp_jinja_globals[],
    qp_jinja_string_methods[], qp_jinja_search_methods[];
const qp_jinja_builtin_t *qp_jinja_find_filter(const char *name, size_t n);
/** Some type has a method or attribute of this name. */
bool qp_jinja_is_attribute(const char *name, size_t n);

qp_error_t qp_jinja_invoke(qp_jinja_run_t *run, const qp_jinja_builtin_t *builtin,
                           const qp_jv_t *self, const qp_jinja_given_t *given, qp_jv_t *result);
qp_error_t qp_jinja_call(qp_jinja_run_t *run, const qp_jv_t *callee, const qp_jinja_given_t *given,
                         qp_jv_t *result);
qp_error_t qp_jinja_call_macro(qp_jinja_run_t *run, const qp_jinja_macro_t *macro,
                               const qp_jinja_given_t *given, qp_jv_t *result);

/* --- operations ------------------------------------------------------------------------------- */

qp_error_t qp_jinja_binary(qp_jinja_run_t *run, qp_jinja_op_t op, const qp_jv_t *a,
                           const qp_jv_t *b, qp_jv_t *result);
qp_error_t qp_jinja_relation(qp_jinja_run_t *run, qp_jinja_op_t op, const qp_jv_t *a,
                             const qp_jv_t *b, bool *holds);
qp_error_t qp_jinja_contains(qp_jinja_run_t *run, const qp_jv_t *container, const qp_jv_t *value,
                             bool *found);
/** a.name and a[key] of a template: Jinja2's order of attribute and item. */
qp_error_t qp_jinja_getattr(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_string_t *name,
                            qp_jv_t *result);
qp_error_t qp_jinja_getitem(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t *key,
                            qp_jv_t *result);
/** a[start:stop:step]; MISSING where left out. */
qp_error_t qp_jinja_slice(qp_jinja_run_t *run, const qp_jv_t *a, const qp_jv_t part[3],
                          qp_jv_t *result);
/** An attribute of Python's object: *found false where it has none. */
qp_error_t qp_jinja_attribute(qp_jinja_run_t *run, const qp_jv_t *a, const char *name, size_t n,
                              qp_jv_t *result, bool *found);
/** text % values, text.format(...). */
qp_error_t qp_jinja_percent(qp_jinja_run_t *run, const qp_jv_string_t *format,
                            const qp_jv_t *values, qp_jv_t *result);
qp_error_t qp_jinja_format(qp_jinja_run_t *run, const qp_jv_string_t *format,
                           const qp_jinja_given_t *given, qp_jv_t *result);
qp_error_t qp_jinja_escape(qp_jinja_run_t *run, const qp_jv_t *value, qp_jv_t *result);
/** len() of Python; QP_INPUT where it has none. */
qp_error_t qp_jinja_len(qp_jinja_run_t *run, const qp_jv_t *value, int64_t *n);

/* --- texts ------------------------------------------------------------------------------------ */

typedef enum {
    QP_JINJA_UPPER,
    QP_JINJA_LOWER,
    QP_JINJA_CAPITALIZE,
    QP_JINJA_TITLE,
    QP_JINJA_SWAPCASE
} qp_jinja_case_t;
/** Letters of another case; those whose mapping is not one to one are refused. */
qp_error_t qp_jinja_to_case(qp_jinja_run_t *run, const qp_jv_string_t *s, qp_jinja_case_t how,
                            qp_jv_t *result);
enum { QP_JINJA_LEFT = 1, QP_JINJA_RIGHT = 2 };
/** Without the \a chars (NULL: white space) at the ends that \a sides names. */
qp_error_t qp_jinja_strip(qp_jinja_run_t *run, qp_jv_string_t *s, const qp_jv_string_t *chars,
                          int sides, qp_jv_t *result);
/** \a count < 0: all. */
qp_error_t qp_jinja_replace(qp_jinja_run_t *run, const qp_jv_string_t *s, const qp_jv_string_t *old,
                            const qp_jv_string_t *with, int64_t count, qp_jv_t *result);
qp_error_t qp_jinja_split_lines(qp_jinja_run_t *run, const qp_jv_string_t *s, bool keep_ends,
                                qp_jv_t *list);
/** s centred (-1: to the left, 1: to the right) in \a width characters. */
qp_error_t qp_jinja_pad(qp_jinja_run_t *run, qp_jv_string_t *s, int64_t width,
                        const qp_jv_string_t *fill, int side, qp_jv_t *result);
/** The number in a text as int() and float() of Python read it; *is_number false if it is none. */
qp_error_t qp_jinja_read_int(qp_jinja_run_t *run, const qp_jv_string_t *s, int64_t base,
                             int64_t *value, bool *is_number);
qp_error_t qp_jinja_read_float(qp_jinja_run_t *run, const qp_jv_string_t *s, double *value,
                               bool *is_number);
/** Some letters are in this case and none in the other. */
qp_error_t qp_jinja_in_case(qp_jinja_run_t *run, const qp_jv_string_t *s, bool upper_case,
                            bool *holds);
/** Properties of a code point as Python's str methods see them. */
bool qp_jinja_is_alpha(uint32_t code);
bool qp_jinja_is_numeric(uint32_t code);

/* Arguments of builtins with their types checked; \a at is the index of the parameter. */
qp_error_t qp_jinja_want_string(const qp_jinja_call_t *call, int at, qp_jv_string_t **s);
/** \a otherwise where it is not given. */
qp_error_t qp_jinja_want_int(const qp_jinja_call_t *call, int at, int64_t otherwise,
                             int64_t *value);
static inline bool qp_jinja_given(const qp_jinja_call_t *call, int at)
{
    return call->arg[at].type != QP_JV_MISSING && call->arg[at].type != QP_JV_NONE;
}
static inline bool qp_jinja_flag(const qp_jinja_call_t *call, int at)
{
    return qp_jv_truth(&call->arg[at]);
}

/* --- iterating -------------------------------------------------------------------------------- */

typedef struct {
    /** The next element, or *end; \a self is what the iterator was made with. */
    qp_error_t (*next)(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value, bool *end);
    const char *name;
} qp_jinja_iter_kind_t;

struct qp_jinja_iter {
    const qp_jinja_iter_kind_t *kind;
    qp_jv_t over; /* what is iterated */
    int64_t at;
    qp_jinja_iter_t *source; /* of a generator */
    qp_jinja_given_t given;
    void *state;
    bool generator; /* a value of its own in Python: always true, no length */
};

struct qp_jinja_loop {
    qp_jinja_iter_t *iter;
    int64_t n, index0;                             /* n -1: not known yet */
    qp_jv_t over, before, current, after, changed; /* MISSING where there is none */
    const qp_jv_t *rest;                           /* elements read ahead for the length [n_rest] */
    int64_t n_rest, at_rest;
};

qp_error_t qp_jinja_iterate(qp_jinja_run_t *run, const qp_jv_t *over, qp_jinja_iter_t **iter);
qp_error_t qp_jinja_next(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value, bool *end);
bool qp_jv_is_iterable(const qp_jv_t *value);
/** list(value). */
qp_error_t qp_jinja_collect(qp_jinja_run_t *run, const qp_jv_t *over, qp_jv_t *list);
/** A generator of a kind; \a over is iterated when the first element is asked for. */
qp_jv_t qp_jinja_generator(const qp_jinja_call_t *call, const qp_jinja_iter_kind_t *kind);
qp_error_t qp_jinja_loop_length(qp_jinja_run_t *run, qp_jinja_loop_t *loop, int64_t *n);
/** Reads the element behind the present one into loop->after. */
qp_error_t qp_jinja_loop_peek(qp_jinja_run_t *run, qp_jinja_loop_t *loop);
qp_error_t qp_jinja_loop_next(qp_jinja_run_t *run, qp_jinja_loop_t *loop, qp_jv_t *value,
                              bool *end);
/** The next element of what a generator was made of; it is iterated when the first is asked for. */
qp_error_t qp_jinja_next_of_source(qp_jinja_run_t *run, qp_jinja_iter_t *iter, qp_jv_t *value,
                                   bool *end);
/** What elements are sorted by, told apart by, ... */
typedef struct {
    const qp_jv_t *attribute, *otherwise; /* otherwise may be NULL */
    bool case_sensitive;
} qp_jinja_key_t;
/** Jinja2's make_attrgetter: "a.0.b" of an element; \a otherwise (may be NULL) where undefined. */
qp_error_t qp_jinja_attribute_of(qp_jinja_run_t *run, const qp_jv_t *attribute,
                                 const qp_jv_t *otherwise, const qp_jv_t *element, qp_jv_t *value);
qp_error_t qp_jinja_key_of(qp_jinja_run_t *run, const qp_jinja_key_t *how, const qp_jv_t *element,
                           qp_jv_t *key);
/** A str in lower case; others as they are. */
qp_error_t qp_jinja_without_case(qp_jinja_run_t *run, qp_jv_t *value);
/** Elements that grow in the arena. */
typedef struct {
    qp_jv_t *at;
    int64_t n, capacity;
} qp_jinja_vector_t;
qp_error_t qp_jinja_push(qp_jinja_run_t *run, qp_jinja_vector_t *vector, const qp_jv_t *value);

/* --- running ---------------------------------------------------------------------------------- */

qp_error_t qp_jinja_eval(qp_jinja_run_t *run, const qp_jinja_node_t *node, qp_jv_t *result);
/** Arguments as values; \a caller (may be NULL) is added as the keyword of that name. */
qp_error_t qp_jinja_eval_arguments(qp_jinja_run_t *run, const qp_jinja_arguments_t *arguments,
                                   const qp_jv_t *caller, qp_jinja_given_t *given);
/** Applies a chain of filters whose innermost input is \a text. */
qp_error_t qp_jinja_eval_filters(qp_jinja_run_t *run, const qp_jinja_node_t *node,
                                 const qp_jv_t *text, qp_jv_t *result);
qp_error_t qp_jinja_assign(qp_jinja_run_t *run, const qp_jinja_node_t *target,
                           const qp_jv_t *value);
void qp_jinja_enter_frame(qp_jinja_run_t *run, const qp_jinja_frame_t *frame);
void qp_jinja_leave_frame(qp_jinja_run_t *run, const qp_jinja_frame_t *frame);
typedef enum { QP_JINJA_ON, QP_JINJA_BREAK, QP_JINJA_CONTINUE } qp_jinja_flow_t;
qp_error_t qp_jinja_exec(qp_jinja_run_t *run, const qp_jinja_body_t *body, qp_jinja_flow_t *flow);
void qp_jinja_add_span(qp_jinja_spans_t *spans, qp_jinja_span_t span);
/** Slots for a function that is called. */
qp_jinja_activation_t *qp_jinja_activate(qp_jinja_run_t *run, int n_slot,
                                         qp_jinja_activation_t *outer);
qp_error_t qp_jinja_write(qp_jinja_run_t *run, const char *bytes, size_t n);
/** Runs the body of a function in an activation whose parameters are set; what it wrote. */
qp_error_t qp_jinja_capture(qp_jinja_run_t *run, const qp_jinja_body_t *body, qp_jv_t *text);

#endif
