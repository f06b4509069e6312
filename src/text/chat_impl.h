/** \file chat_impl.h  Inside of chat.c and chat_answers.c. */
#ifndef QP_TEXT_CHAT_IMPL_H
#define QP_TEXT_CHAT_IMPL_H

#include "text/chat.h"
#include "jinja/jinja.h"

struct qp_chat_template {
    const qp_tokenizer_t *tokenizer;
    qp_jinja_t *jinja;    /* NULL: the model has one for tools alone */
    qp_jinja_t *tool_use; /* in its place where there are tools; may be NULL */
};

/** One conversation on its way. */
typedef struct {
    const qp_chat_template_t *chat_template;
    const qp_jinja_t *jinja;
    json_t *variables;      /* owned: all but messages and add_generation_prompt */
    json_t *messages;       /* owned: as transformers hands them to the template */
    bool generation_prompt; /* the whole ends with one */
} qp_chat_job_t;

/** Renders the first n_message messages, replacing what \a output held. */
qp_error_t qp_chat_render_part(const qp_chat_job_t *job, size_t n_message, bool generation_prompt,
                               qp_jinja_output_t *output);

/** A run of bytes: [begin, end). */
typedef struct {
    size_t begin, end;
} qp_chat_run_t;

/** Runs in order; zero-initialise. */
typedef struct {
    qp_chat_run_t *run; /* owned */
    size_t n, capacity;
} qp_chat_runs_t;
void qp_chat_runs_push(qp_chat_runs_t *runs, size_t begin, size_t end);

/**
 * Finds what the assistant writes in \a whole, all messages rendered by a template without
 * generation blocks. Answers whose place cannot be told: QP_INPUT.
 */
qp_error_t qp_chat_find_answers(const qp_chat_job_t *job, const qp_jinja_output_t *whole,
                                qp_chat_runs_t *answers);

#endif
