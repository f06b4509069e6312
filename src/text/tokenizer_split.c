#include "text/tokenizer_split.h"

#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_regex.h"
#include "text/tokenizer_utf8.h"

void qp_split_fini(qp_split_t *split)
{
    for (int i = 0; i < split->n_step; i++)
        qp_regex_destroy(&split->step[i].regex);
    split->n_step = 0;
}

void qp_split_scratch_fini(qp_split_scratch_t *scratch)
{
    for (int i = 0; i < QP_MAX_SPLIT; i++) {
        qp_regex_match_destroy(scratch->match[i]);
        qp_str_fini(&scratch->buffer[i]);
    }
    *scratch = (qp_split_scratch_t){0};
}

qp_error_t qp_split_add(qp_split_t *split, qp_split_step_t step)
{
    if (split->n_step == QP_MAX_SPLIT) {
        qp_regex_destroy(&step.regex);
        return QP_ERROR(QP_INPUT, "pre_tokenizer: more than %d steps", QP_MAX_SPLIT);
    }
    split->step[split->n_step++] = step;
    return NULL;
}

void qp_split_metaspace(const qp_split_step_t *step, const char *text, size_t n_bytes, bool first,
                        qp_str_t *out)
{
    const size_t n_replacement = strlen(step->replacement);
    const bool wanted =
        step->prepend == QP_PREPEND_ALWAYS || (step->prepend == QP_PREPEND_FIRST && first);
    const bool present =
        n_bytes > 0 && (text[0] == ' ' || (n_bytes >= n_replacement &&
                                           memcmp(text, step->replacement, n_replacement) == 0));
    if (wanted && !present)
        qp_str_append(out, step->replacement, n_replacement);
    while (n_bytes > 0) {
        const char *space = memchr(text, ' ', n_bytes);
        size_t n = space != NULL ? (size_t)(space - text) : n_bytes;
        qp_str_append(out, text, n);
        if (space == NULL)
            break;
        qp_str_append(out, step->replacement, n_replacement);
        text += n + 1;
        n_bytes -= n + 1;
    }
}

/* One run through the chain. */
typedef struct {
    const qp_split_t *split;
    qp_split_scratch_t *scratch;
    qp_split_visit_t visit;
    void *owner;
} walk_t;

static qp_error_t walk(const walk_t *w, int i, const char *text, size_t n_bytes, bool first);

static qp_error_t walk_regex(const walk_t *w, int i, const char *text, size_t n_bytes, bool first)
{
    const qp_split_step_t *step = &w->split->step[i];
    void **match = &w->scratch->match[i];
    size_t done = 0, from = 0, begin, end;
    while (from <= n_bytes) {
        bool found;
        QP_TRY(qp_regex_find(step->regex, match, text, n_bytes, from, &found, &begin, &end));
        if (!found)
            break;
        if (begin > done && !step->drop_gap)
            QP_TRY(walk(w, i + 1, text + done, begin - done, first && done == 0));
        if (end > begin && !step->drop_match)
            QP_TRY(walk(w, i + 1, text + begin, end - begin, first && begin == 0));
        done = end;
        from = end > begin ? end : end < n_bytes ? end + qp_utf8_length(text[end]) : end + 1;
    }
    if (n_bytes > done && !step->drop_gap)
        QP_TRY(walk(w, i + 1, text + done, n_bytes - done, first && done == 0));
    return NULL;
}

static qp_error_t walk(const walk_t *w, int i, const char *text, size_t n_bytes, bool first)
{
    if (i == w->split->n_step) {
        w->visit(w->owner, text, n_bytes);
        return NULL;
    }
    const qp_split_step_t *step = &w->split->step[i];
    if (step->kind == QP_SPLIT_REGEX)
        return walk_regex(w, i, text, n_bytes, first);
    if (step->kind == QP_SPLIT_PREFIX && text[0] == ' ')
        return walk(w, i + 1, text, n_bytes, first);
    qp_str_t *buffer = &w->scratch->buffer[i];
    qp_str_clear(buffer);
    if (step->kind == QP_SPLIT_PREFIX) {
        qp_str_putc(buffer, ' ');
        qp_str_append(buffer, text, n_bytes);
    } else {
        qp_split_metaspace(step, text, n_bytes, first, buffer);
    }
    return walk(w, i + 1, buffer->data, buffer->n, first);
}

qp_error_t qp_split_run(const qp_split_t *split, const char *text, size_t n_bytes, bool first,
                        qp_split_scratch_t *scratch, qp_split_visit_t visit, void *owner)
{
    const walk_t w = {.split = split, .scratch = scratch, .visit = visit, .owner = owner};
    return n_bytes > 0 ? walk(&w, 0, text, n_bytes, first) : NULL;
}
