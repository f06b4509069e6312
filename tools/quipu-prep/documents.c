/*
 * Plain text: documents separated by blank lines. HTML: every heading that ends with a question
 * mark and the text up to the next heading or rule are a question and its answer (as in FAQs).
 * Nobody rates these answers: in the pairs, another question's answer is the rejected one.
 */
#include "prep.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "base/utf8.h"
#include "formats/reader.h"
#include "markdown/markdown.h"

/* A question of which a pair is made. */
typedef struct {
    prep_origin_t origin;
    char *prompt; /* NULL: the question is another rank's */
    char *answer; /* [n_answer] */
    size_t n_answer;
} kept_t;

/* Calls emit for this rank's share of numbered documents. */
typedef struct {
    int rank, n_rank;
    int64_t n_document; /* over all files */
    const char *path;   /* of the file at hand */
    prep_sink_t *sink;

    /* For pairs: the questions with answers of all ranks, by id. */
    int64_t n_kept, capacity;
    prep_answered_t *answered; /* [n_kept] */
    kept_t *kept;              /* [n_kept] their texts */
} share_t;

static bool is_mine(const share_t *share, int64_t id)
{
    return id % share->n_rank == share->rank;
}

/* The next document, which is about this text. */
static prep_origin_t next_document(share_t *share, prep_text_t about)
{
    const int64_t id = share->n_document++;
    if (is_mine(share, id))
        prep_sink_tally(share->sink)->count[PREP_DOCUMENTS]++;
    return (prep_origin_t){.id = id,
                           .path = share->path,
                           .unit = "document",
                           .number = id + 1,
                           .group = prep_group(about)};
}

/* The line at *at without its end; *at moves behind it. False at the end of the text. */
static bool next_line(prep_text_t text, size_t *at, prep_text_t *line)
{
    if (*at >= text.n)
        return false;
    const char *start = text.data + *at;
    const char *end = memchr(start, '\n', text.n - *at);
    *line = (prep_text_t){start, end != NULL ? (size_t)(end - start) : text.n - *at};
    *at += line->n + 1;
    return true;
}

/* --- text ------------------------------------------------------------------------------------- */

static qp_error_t emit_document(share_t *share, const char *start, const char *end)
{
    prep_text_t text = prep_trim((prep_text_t){start, (size_t)(end - start)});
    if (text.n == 0)
        return NULL;
    const prep_origin_t origin = next_document(share, text);
    if (!is_mine(share, origin.id) || !prep_sink_wants(share->sink, PREP_SFT))
        return NULL;
    if (qp_utf8_valid_prefix(text.data, text.n) < text.n) {
        prep_tally_skip(prep_sink_tally(share->sink), PREP_NOT_UTF8, &origin, NULL);
        return NULL;
    }
    return prep_sink_text(share->sink, &origin, text);
}

static qp_error_t split_text(share_t *share, prep_text_t text)
{
    const char *start = text.data;
    prep_text_t line;
    for (size_t at = 0; next_line(text, &at, &line);)
        if (prep_trim(line).n == 0) {
            QP_TRY(emit_document(share, start, line.data));
            start = line.data;
        }
    return emit_document(share, start, text.data + text.n);
}

/* --- HTML ------------------------------------------------------------------------------------- */

/* A heading's own text: without "##" and a section number like "1.2.". */
static prep_text_t heading_text(prep_text_t line)
{
    size_t skip = strspn(line.data, "# ");
    size_t number = strspn(line.data + skip, "0123456789.");
    if (number > 0 && line.data[skip + number] == ' ')
        skip += number;
    return prep_trim((prep_text_t){line.data + skip, line.n - skip});
}

static void keep_texts(share_t *share, const prep_origin_t *origin, prep_text_t question,
                       prep_text_t answer)
{
    if (share->n_kept == share->capacity) {
        share->capacity = 2 * share->capacity + 256;
        share->answered =
            qp_realloc("prep", share->answered, qp_bytes(share->capacity, sizeof(prep_answered_t)));
        share->kept = qp_realloc("prep", share->kept, qp_bytes(share->capacity, sizeof(kept_t)));
    }
    share->answered[share->n_kept] = prep_answered(origin->id, question, answer);
    kept_t *kept = &share->kept[share->n_kept++];
    *kept = (kept_t){.origin = *origin,
                     .prompt = is_mine(share, origin->id) ? prep_question(question) : NULL,
                     .answer = QP_NEW("prep", char, (int64_t)answer.n),
                     .n_answer = answer.n};
    memcpy(kept->answer, answer.data, answer.n);
}

static void forget_texts(share_t *share)
{
    for (int64_t i = 0; i < share->n_kept; i++) {
        qp_free(share->kept[i].prompt);
        qp_free(share->kept[i].answer);
    }
    qp_free(share->answered);
    qp_free(share->kept);
}

static qp_error_t emit_answer(share_t *share, prep_text_t heading, const char *start,
                              const char *end)
{
    prep_text_t answer = prep_trim((prep_text_t){start, (size_t)(end - start)});
    if (heading.n == 0 || heading.data[heading.n - 1] != '?')
        return NULL;
    const prep_origin_t origin = next_document(share, heading);
    if (answer.n == 0) {
        if (is_mine(share, origin.id))
            prep_tally_skip(prep_sink_tally(share->sink), PREP_EMPTY_ROWS, &origin, NULL);
        return NULL;
    }
    if (prep_sink_wants(share->sink, PREP_REWARD))
        keep_texts(share, &origin, heading, answer);
    if (!is_mine(share, origin.id))
        return NULL;
    char *prompt = prep_question(heading);
    prep_text_t prompt_text = {prompt, strlen(prompt)};
    qp_error_t error = NULL;
    if (prep_sink_wants(share->sink, PREP_SFT))
        QP_TRY_DONE(prep_sink_completion(share->sink, &origin, prompt_text, answer));
    if (prep_sink_wants(share->sink, PREP_PROMPT))
        QP_TRY_DONE(prep_sink_prompt(share->sink, &origin, prompt_text));
done:
    qp_free(prompt);
    return error;
}

/* This rank's pairs, when the questions of all files are known. */
static qp_error_t emit_pairs(const share_t *share, uint32_t seed)
{
    for (int64_t i = 0; i < share->n_kept; i++) {
        const kept_t *own = &share->kept[i];
        if (own->prompt == NULL)
            continue;
        int64_t other = prep_other(seed, share->answered, share->n_kept, i);
        prep_sink_tally(share->sink)->count[other < 0 ? PREP_UNPAIRED : PREP_PAIRS]++;
        if (other < 0)
            continue;
        const kept_t *theirs = &share->kept[other];
        const prep_text_t prompt = {own->prompt, strlen(own->prompt)};
        const prep_text_t answer[2] = {{own->answer, own->n_answer},
                                       {theirs->answer, theirs->n_answer}};
        QP_TRY(prep_sink_pair(share->sink, &own->origin, 1.0f, prompt, answer));
        QP_TRY(prep_check_interrupt());
    }
    return NULL;
}

static qp_error_t split_markdown(share_t *share, prep_text_t text)
{
    prep_text_t heading = {0}, line;
    const char *start = text.data;
    bool in_code = false;
    for (size_t at = 0; next_line(text, &at, &line);) {
        if (line.n >= 3 && memcmp(line.data, "```", 3) == 0)
            in_code = !in_code;
        bool is_heading = !in_code && line.n > 0 && line.data[0] == '#';
        bool is_rule = !in_code && line.n == 3 && memcmp(line.data, "---", 3) == 0;
        if (!is_heading && !is_rule)
            continue;
        QP_TRY(emit_answer(share, heading, start, line.data));
        heading = is_heading ? heading_text(line) : (prep_text_t){0};
        start = line.data + line.n;
    }
    return emit_answer(share, heading, start, text.data + text.n);
}

static qp_error_t split_html(share_t *share, prep_text_t html)
{
    qp_str_t markdown = {0};
    qp_error_t error = qp_markdown_from_html(html.data, html.n, &markdown);
    if (error != NULL) {
        const prep_origin_t page = next_document(share, html);
        if (is_mine(share, page.id))
            prep_tally_skip(prep_sink_tally(share->sink), PREP_BAD_HTML, &page, error->message);
        qp_error_destroy(&error);
    } else if (markdown.n > 0) {
        error = split_markdown(share, (prep_text_t){markdown.data, markdown.n});
    }
    qp_str_fini(&markdown);
    return error;
}

/* --- files ------------------------------------------------------------------------------------ */

static qp_error_t read_files(const prep_options_t *options, share_t *share,
                             qp_error_t (*split)(share_t *share, prep_text_t text))
{
    for (int i = 0; i < options->n_file; i++) {
        void *data = NULL;
        size_t n = 0;
        QP_TRY(prep_check_interrupt());
        share->path = options->file[i];
        QP_TRY(qp_reader_whole(options->file[i], &data, &n));
        qp_error_t error = split(share, (prep_text_t){data, n});
        qp_free(data);
        if (error != NULL)
            return qp_error_context(error, "%s", options->file[i]);
    }
    return NULL;
}

qp_error_t prep_text(const prep_options_t *options, int rank, int n_rank, prep_sink_t *sink)
{
    share_t share = {.rank = rank, .n_rank = n_rank, .sink = sink};
    return read_files(options, &share, split_text);
}

qp_error_t prep_html(const prep_options_t *options, int rank, int n_rank, prep_sink_t *sink)
{
    share_t share = {.rank = rank, .n_rank = n_rank, .sink = sink};
    qp_error_t error = read_files(options, &share, split_html);
    if (error == NULL)
        error = emit_pairs(&share, options->seed);
    forget_texts(&share);
    return error;
}
