#include "text/tokenizer_split.h"

#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_regex.h"
#include "base/utf8.h"

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
        qp_traced_fini(&scratch->buffer[i]);
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

/* A character that is put in front comes from the first one, as HF tokenizers has it. */
static qp_slice_t first_character(qp_slice_t text)
{
    return qp_slice_part(text, 0, text.n > 0 ? qp_utf8_length(text.text[0]) : 0);
}

/* Puts the text with ' ' replaced and the prefix of a metaspace step into out. */
static void put_metaspace(const qp_split_step_t *step, qp_slice_t text, bool first,
                          qp_traced_t *out)
{
    const size_t n_replacement = strlen(step->replacement);
    const bool wanted =
        step->prepend == QP_PREPEND_ALWAYS || (step->prepend == QP_PREPEND_FIRST && first);
    const bool present =
        text.n > 0 &&
        (text.text[0] == ' ' ||
         (text.n >= n_replacement && memcmp(text.text, step->replacement, n_replacement) == 0));
    if (wanted && !present)
        qp_traced_put(out, step->replacement, n_replacement, first_character(text));
    while (text.n > 0) {
        const char *space = memchr(text.text, ' ', text.n);
        const size_t n = space != NULL ? (size_t)(space - text.text) : text.n;
        qp_traced_copy(out, qp_slice_part(text, 0, n));
        if (space == NULL)
            break;
        qp_traced_put(out, step->replacement, n_replacement, qp_slice_part(text, n, n + 1));
        text = qp_slice_part(text, n + 1, text.n);
    }
}

/* One run through the chain. */
typedef struct {
    const qp_split_t *split;
    qp_split_scratch_t *scratch;
    qp_split_visit_t visit;
    void *owner;
} walk_t;

static qp_error_t walk(const walk_t *w, int i, qp_slice_t text, bool first);

static qp_error_t walk_regex(const walk_t *w, int i, qp_slice_t text, bool first)
{
    const qp_split_step_t *step = &w->split->step[i];
    void **match = &w->scratch->match[i];
    size_t done = 0, from = 0, begin, end;
    while (from <= text.n) {
        bool found;
        QP_TRY(qp_regex_find(step->regex, match, text.text, text.n, from, &found, &begin, &end));
        if (!found)
            break;
        if (begin > done && !step->drop_gap)
            QP_TRY(walk(w, i + 1, qp_slice_part(text, done, begin), first && done == 0));
        if (end > begin && !step->drop_match)
            QP_TRY(walk(w, i + 1, qp_slice_part(text, begin, end), first && begin == 0));
        done = end;
        from = end > begin ? end : end < text.n ? end + qp_utf8_length(text.text[end]) : end + 1;
    }
    if (text.n > done && !step->drop_gap)
        QP_TRY(walk(w, i + 1, qp_slice_part(text, done, text.n), first && done == 0));
    return NULL;
}

static qp_error_t walk(const walk_t *w, int i, qp_slice_t text, bool first)
{
    if (i == w->split->n_step) {
        w->visit(w->owner, text);
        return NULL;
    }
    const qp_split_step_t *step = &w->split->step[i];
    if (step->kind == QP_SPLIT_REGEX)
        return walk_regex(w, i, text, first);
    if (step->kind == QP_SPLIT_PREFIX && text.text[0] == ' ')
        return walk(w, i + 1, text, first);
    qp_traced_t *buffer = &w->scratch->buffer[i];
    qp_traced_clear(buffer);
    if (step->kind == QP_SPLIT_PREFIX) {
        qp_traced_put(buffer, " ", 1, first_character(text));
        qp_traced_copy(buffer, text);
    } else {
        put_metaspace(step, text, first, buffer);
    }
    return walk(w, i + 1, qp_traced_slice(buffer), first);
}

qp_error_t qp_split_run(const qp_split_t *split, qp_slice_t text, bool first,
                        qp_split_scratch_t *scratch, qp_split_visit_t visit, void *owner)
{
    const walk_t w = {.split = split, .scratch = scratch, .visit = visit, .owner = owner};
    return text.n > 0 ? walk(&w, 0, text, first) : NULL;
}
