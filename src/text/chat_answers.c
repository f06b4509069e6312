/*
 * What the assistant writes, for templates that do not mark it. By definition an answer begins
 * where the text of the messages before it, with the generation prompt, ends (or stops to agree),
 * and ends with its turn. Rendering every beginning of a conversation would take quadratic time, so
 * the turns come from one rendering that knows which message each byte was written for, and the
 * generation prompt from a few more. Where a template does not write message by message, the
 * definition itself is followed.
 */
#include <string.h>

#include "base/mem.h"
#include "text/chat_impl.h"
#include "text/tokenizer_parts.h"
#include "base/utf8.h"

enum {
    MAX_BY_DEFINITION = 256, /* messages of a conversation that is rendered again and again */
    MAX_PROMPT = 8           /* different generation prompts, by the role before the answer */
};

static const char *role_of(const qp_chat_job_t *job, size_t i)
{
    const char *role = json_string_value(json_object_get(json_array_get(job->messages, i), "role"));
    return role != NULL ? role : "";
}

static bool is_answer(const qp_chat_job_t *job, size_t i)
{
    return strcmp(role_of(job, i), "assistant") == 0;
}

/* Bytes that two texts have in common at their beginning, in whole characters. */
static size_t in_common(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t n = 0;
    if (n_a == 0 || n_b == 0) /* an empty text has no bytes to look at */
        return 0;
    while (n < n_a && n < n_b && a[n] == b[n])
        n++;
    while (n > 0 && n < n_a && ((unsigned char)a[n] & 0xc0) == 0x80)
        n--;
    while (n > 0 && n < n_b && ((unsigned char)b[n] & 0xc0) == 0x80)
        n--;
    return n;
}

/* --- the end of a turn ------------------------------------------------------------------------ */

/* End of the text in [begin, end) without white space behind it. */
static size_t strip_end(const char *text, size_t begin, size_t end)
{
    while (end > begin) {
        size_t at = end - 1, n;
        while (at > begin && ((unsigned char)text[at] & 0xc0) == 0x80)
            at--;
        if (!qp_utf8_is_space(qp_utf8_decode(text + at, &n)))
            break;
        end = at;
    }
    return end;
}

/* End of the message's own text where it stands last in [begin, end), or end. */
static size_t content_end(const json_t *message, const char *text, size_t begin, size_t end)
{
    const char *content = json_string_value(json_object_get(message, "content"));
    const size_t n = content != NULL ? strip_end(content, 0, strlen(content)) : 0;
    size_t found = end;
    const char *hit = text + begin;
    while (n > 0 && (hit = memmem(hit, (size_t)(text + end - hit), content, n)) != NULL) {
        found = (size_t)(hit - text) + n;
        hit++;
    }
    return found;
}

/* Where the answer ends: with the last special token behind its content, else with the last
 * character of the turn that is no white space. */
static size_t end_of_answer(const qp_chat_job_t *job, size_t i, const char *text,
                            qp_chat_run_t turn)
{
    const qp_added_set_t *added = &job->chat_template->tokenizer->added;
    size_t from = content_end(json_array_get(job->messages, i), text, turn.begin, turn.end);
    size_t end = strip_end(text, turn.begin, turn.end);
    qp_added_match_t match;
    while (qp_added_find(added, text, turn.end, from, true, &match)) {
        if (match.token.special)
            end = strip_end(text, turn.begin, match.end);
        from = match.end;
    }
    return end;
}

/* --- by provenance ---------------------------------------------------------------------------- */

/* What each message was written as; n_run counts the runs of bytes. */
typedef struct {
    qp_chat_run_t run;
    int64_t n_run;
} turn_t;

static turn_t *find_turns(const qp_chat_job_t *job, const qp_jinja_output_t *whole)
{
    const size_t n_message = json_array_size(job->messages);
    turn_t *turn = QP_NEW("chat", turn_t, (int64_t)n_message);
    for (int64_t i = 0; i < whole->items.n; i++) {
        const qp_jinja_span_t *span = &whole->items.span[i];
        if (span->end <= span->begin || span->item < 0 || span->item >= (int64_t)n_message)
            continue;
        turn_t *t = &turn[span->item];
        if (t->n_run++ == 0)
            t->run.begin = span->begin;
        t->run.end = span->end;
    }
    if (!job->generation_prompt && turn[n_message - 1].n_run > 0) /* an EOS behind all messages */
        turn[n_message - 1].run.end = whole->text.n;
    return turn;
}

/* Whether every message was written at one place, in their order, and every answer was. */
static bool turns_tell(const qp_chat_job_t *job, const turn_t *turn, size_t n_message)
{
    size_t end = 0;
    for (size_t i = 0; i < n_message; i++) {
        if (turn[i].n_run == 0 && is_answer(job, i))
            return false;
        if (turn[i].n_run == 0)
            continue;
        if (turn[i].n_run > 1 || turn[i].run.begin < end)
            return false;
        end = turn[i].run.end;
    }
    return true;
}

/* Generation prompts by the role of the message before, and the last answer's beginning as the
 * definition has it. */
typedef struct {
    const char *role;
    qp_str_t text;
} prompt_t;

typedef struct {
    prompt_t prompt[MAX_PROMPT];
    int n;
    qp_jinja_output_t with, without;
} prompts_t;

static void fini_prompts(prompts_t *prompts)
{
    for (int i = 0; i < prompts->n; i++)
        qp_str_fini(&prompts->prompt[i].text);
    qp_jinja_output_fini(&prompts->with);
    qp_jinja_output_fini(&prompts->without);
}

/* Renders the first n messages with and without a generation prompt; false if the template refuses
 * them. */
static bool render_both(const qp_chat_job_t *job, size_t n, prompts_t *prompts)
{
    qp_error_t error = qp_chat_render_part(job, n, true, &prompts->with);
    if (error == NULL)
        error = qp_chat_render_part(job, n, false, &prompts->without);
    const bool ok = error == NULL;
    qp_error_destroy(&error);
    return ok;
}

/* Bytes that the messages took in both: to the end of the last one, or as far as both agree. */
static size_t end_of_messages(const prompts_t *prompts)
{
    const qp_str_t *with = &prompts->with.text, *without = &prompts->without.text;
    const qp_jinja_spans_t *items = &prompts->without.items;
    const size_t both = in_common(with->data, with->n, without->data, without->n);
    const size_t end = items->n > 0 ? items->span[items->n - 1].end : both;
    return end < both ? end : both;
}

/* The generation prompt in front of answer i, or NULL if the template does not show it. */
static const qp_str_t *prompt_of(const qp_chat_job_t *job, size_t i, prompts_t *prompts)
{
    const char *role = i > 0 ? role_of(job, i - 1) : "";
    for (int k = 0; k < prompts->n; k++)
        if (strcmp(prompts->prompt[k].role, role) == 0)
            return &prompts->prompt[k].text;
    /* A conversation may begin with an answer, and the template refuse an empty one: then what
     * follows all messages. */
    if (prompts->n == MAX_PROMPT || (!(i > 0 && render_both(job, i, prompts)) &&
                                     !render_both(job, json_array_size(job->messages), prompts)))
        return NULL;
    const qp_str_t *with = &prompts->with.text;
    const size_t n = end_of_messages(prompts);
    prompt_t *prompt = &prompts->prompt[prompts->n++];
    prompt->role = role;
    qp_str_append(&prompt->text, with->n > 0 ? with->data + n : "", with->n - n);
    return &prompt->text;
}

/* False if the definition, where it applies, puts the beginning of answer i elsewhere. */
static bool agrees(const qp_chat_job_t *job, size_t i, const qp_str_t *text, size_t begin,
                   prompts_t *prompts)
{
    if (i == 0 || !render_both(job, i, prompts))
        return true;
    const qp_str_t *with = &prompts->with.text;
    const size_t end = end_of_messages(prompts);
    if (in_common(with->data, end, text->data, text->n) < end)
        return true;
    return in_common(with->data, with->n, text->data, text->n) == begin;
}

/* Pushes the answers that provenance tells; false if it does not. */
static bool by_provenance(const qp_chat_job_t *job, const qp_jinja_output_t *whole,
                          const turn_t *turn, qp_chat_runs_t *answers)
{
    const size_t n_message = json_array_size(job->messages);
    const qp_str_t *text = &whole->text;
    prompts_t prompts = {0};
    size_t last = n_message, last_begin = 0;
    bool ok = turns_tell(job, turn, n_message);
    for (size_t i = 0; i < n_message && ok; i++) {
        if (!is_answer(job, i))
            continue;
        const qp_str_t *prompt = prompt_of(job, i, &prompts);
        ok = prompt != NULL;
        if (!ok)
            break;
        qp_chat_run_t run = turn[i].run;
        run.begin +=
            in_common(prompt->data, prompt->n, text->data + run.begin, run.end - run.begin);
        last = i;
        last_begin = run.begin;
        qp_chat_runs_push(answers, run.begin, end_of_answer(job, i, text->data, run));
    }
    ok = ok && (last == n_message || agrees(job, last, text, last_begin, &prompts));
    fini_prompts(&prompts);
    return ok;
}

/* --- by the definition ------------------------------------------------------------------------ */

static qp_error_t find_by_definition(const qp_chat_job_t *job, size_t i, const qp_str_t *text,
                                     qp_chat_run_t *run)
{
    qp_jinja_output_t before = {0}, after = {0};
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_chat_render_part(job, i, true, &before));
    QP_TRY_DONE(qp_chat_render_part(job, i + 1, false, &after));
    run->begin = in_common(before.text.data, before.text.n, after.text.data, after.text.n);
    run->end = after.text.n;
    run->end = end_of_answer(job, i, after.text.data != NULL ? after.text.data : "", *run);
    if (in_common(after.text.data, after.text.n, text->data, text->n) < run->end)
        error = QP_ERROR(QP_INPUT, "the text of the messages up to it is not how all begin");
done:
    qp_jinja_output_fini(&before);
    qp_jinja_output_fini(&after);
    return qp_error_context(error,
                            "messages[%zu]: the chat template does not tell where this answer "
                            "stands",
                            i);
}

static qp_error_t by_definition(const qp_chat_job_t *job, const qp_jinja_output_t *whole,
                                qp_chat_runs_t *answers)
{
    const size_t n_message = json_array_size(job->messages);
    if (n_message > MAX_BY_DEFINITION)
        return QP_ERROR(QP_INPUT,
                        "%zu messages, but the chat template does not write message by message: "
                        "more than %d of them cannot be told apart",
                        n_message, MAX_BY_DEFINITION);
    for (size_t i = 0; i < n_message; i++) {
        qp_chat_run_t run = {0};
        if (!is_answer(job, i))
            continue;
        QP_TRY(find_by_definition(job, i, &whole->text, &run));
        qp_chat_runs_push(answers, run.begin, run.end);
    }
    return NULL;
}

qp_error_t qp_chat_find_answers(const qp_chat_job_t *job, const qp_jinja_output_t *whole,
                                qp_chat_runs_t *answers)
{
    turn_t *turn = find_turns(job, whole);
    const bool told = by_provenance(job, whole, turn, answers);
    qp_free(turn);
    if (told)
        return NULL;
    answers->n = 0;
    return by_definition(job, whole, answers);
}
