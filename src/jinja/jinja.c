/* The interface: compiling and rendering of templates. */
#include "jinja/jinja.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "jinja/jinja_parse.h"
#include "base/utf8.h"

qp_error_t qp_jinja_compile(const char *name, const char *text, size_t n_bytes, qp_jinja_t **jinja)
{
    qp_jinja_t *made = QP_NEW("jinja", qp_jinja_t, 1);
    qp_jinja_parser_t p = {.jinja = made, .arena = &made->arena};
    qp_jinja_tokens_t tokens = {0};
    qp_error_t error = NULL;
    *jinja = NULL;
    made->name = qp_strdup(name);
    QP_TRY_DONE(qp_jinja_lex(&made->arena, text, n_bytes, &tokens));
    p.now = tokens.at;
    QP_TRY_DONE(qp_jinja_parse_body(&p, NULL, &made->body));
    QP_TRY_DONE(qp_jinja_bind(made));
done:
    if (error != NULL)
        qp_jinja_destroy(&made);
    *jinja = made;
    return qp_error_context(error, "%s", name);
}

void qp_jinja_destroy(qp_jinja_t **jinja)
{
    if (*jinja == NULL)
        return;
    qp_jinja_arena_fini(&(*jinja)->arena);
    qp_free((*jinja)->name);
    QP_FREE(*jinja);
}

int qp_jinja_has_generation(const qp_jinja_t *jinja)
{
    return jinja->has_generation;
}

void qp_jinja_output_fini(qp_jinja_output_t *output)
{
    qp_str_fini(&output->text);
    qp_free(output->generation.span);
    qp_free(output->items.span);
    *output = (qp_jinja_output_t){0};
}

/* Elements of the tracked list are objects of their own that know their place. */
static void track(const qp_jv_dict_t *variables, const char *tracked)
{
    const qp_jv_t *list =
        tracked != NULL ? qp_jv_get_text(variables, tracked, strlen(tracked)) : NULL;
    for (int64_t i = 0; list != NULL && list->type == QP_JV_LIST && i < list->as.list->n; i++) {
        const qp_jv_t *element = &list->as.list->at[i];
        if (element->type == QP_JV_STRING)
            element->as.s->item = i;
        else if (element->type == QP_JV_LIST)
            element->as.list->item = i;
        else if (element->type == QP_JV_DICT)
            element->as.dict->item = i;
    }
}

/* Generated runs in characters as one set of bytes: in order, joined where they touch or overlap.
 */
static void finish_generation(qp_jinja_run_t *run)
{
    const qp_str_t *text = &run->output->text;
    qp_jinja_spans_t *spans = &run->output->generation;
    for (int64_t i = 0; i < run->n_generated; i++) {
        const qp_jinja_generated_t *one = &run->generated[i];
        size_t end = one->begin;
        for (int64_t n = one->n_chars; n > 0 && end < text->n; n--)
            end += qp_utf8_length(text->data[end]);
        qp_jinja_span_t *last = spans->n > 0 ? &spans->span[spans->n - 1] : NULL;
        if (end == one->begin)
            continue;
        if (last == NULL || last->end < one->begin)
            qp_jinja_add_span(spans,
                              (qp_jinja_span_t){.begin = one->begin, .end = end, .item = -1});
        else if (last->end < end)
            last->end = end;
    }
}

qp_error_t qp_jinja_render(const qp_jinja_t *jinja, const json_t *variables, const char *tracked,
                           qp_jinja_output_t *output)
{
    qp_jinja_run_t run = {.jinja = jinja, .output = output, .item = -1};
    qp_jinja_flow_t flow = QP_JINJA_ON;
    qp_str_clear(&output->text);
    output->generation.n = output->items.n = 0;
    run.variables = qp_jv_of_json(&run.arena, variables).as.dict;
    run.arena.n_bytes = 0; /* what was given does not count */
    track(run.variables, tracked);
    run.top = qp_jinja_activate(&run, jinja->root.n_slot, NULL);
    qp_jinja_enter_frame(&run, &jinja->root.frame);
    qp_error_t error = qp_jinja_exec(&run, &jinja->body, &flow);
    if (error == NULL)
        finish_generation(&run);
    output->n_step = run.n_step;
    qp_jinja_arena_fini(&run.arena);
    return qp_error_context(error, "%s: line %d", jinja->name, run.line);
}
