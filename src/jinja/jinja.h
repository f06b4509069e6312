/**
 * \file jinja.h
 * Chat templates: the part of Jinja2 that they are written in, with the settings of transformers'
 * apply_chat_template (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, extensions
 * loopcontrols and {% generation %}; globals raise_exception and strftime_now, filter tojson
 * without HTML escapes). What is written is what Jinja2 3.1 writes, byte for byte; what is not
 * built here is refused by name, when the template is compiled wherever that can be seen then.
 */
#ifndef QP_JINJA_H
#define QP_JINJA_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

typedef struct qp_jinja qp_jinja_t;

/**
 * Compiles a template (valid UTF-8). Wrong syntax, or a tag, filter, test, method or global that is
 * not known: QP_INPUT "<name>: line N: ...". Not collective.
 */
qp_error_t qp_jinja_compile(const char *name, const char *text, size_t n_bytes, qp_jinja_t **jinja);
void qp_jinja_destroy(qp_jinja_t **jinja);
/** True if the template has {% generation %} blocks. */
int qp_jinja_has_generation(const qp_jinja_t *jinja);

/** A run of bytes of what was written, text.data[begin, end). */
typedef struct {
    size_t begin, end;
    int64_t item; /**< element of the tracked list; generation: -1 */
} qp_jinja_span_t;

typedef struct {
    qp_jinja_span_t *span; /**< owned, in order, without overlaps */
    int64_t n, capacity;
} qp_jinja_spans_t;

/** What a template wrote; zero-initialise, may be used again. */
typedef struct {
    qp_str_t text;
    /** What stood in {% generation %} blocks, as transformers' generation_indices (there in
     * characters, here in bytes, joined where they touch or overlap). Like there, a block whose
     * text does not go straight to the output (in a macro, {% set %}, ...) counts from where the
     * output was. */
    qp_jinja_spans_t generation;
    /** What was written in a turn of a loop whose variable was element \a item of the tracked list
     * (the innermost such loop counts, also through slices and copies of the list). Neighbouring
     * runs of one item are joined. Bytes that belong to no element are in no span. */
    qp_jinja_spans_t items;
    int64_t n_step; /**< work that it took, in steps and in 64 bytes that were read or made */
} qp_jinja_output_t;
void qp_jinja_output_fini(qp_jinja_output_t *output);

/**
 * Renders with the variables of a JSON object, replacing what \a output held. \a tracked names the
 * variable (a list) whose elements are told apart in output->items, or is NULL. raise_exception():
 * QP_INPUT with its words; so are undefined values where Jinja2 refuses them and wrong types, with
 * the line. Work is bounded: a template that runs away ends with QP_INPUT. Thread-safe on one
 * compiled template. Not collective.
 */
qp_error_t qp_jinja_render(const qp_jinja_t *jinja, const json_t *variables, const char *tracked,
                           qp_jinja_output_t *output);

#endif
