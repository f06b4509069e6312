/*
 * Plain text: documents separated by blank lines. HTML: every heading that ends with a question
 * mark and the text up to the next heading or rule are a question and its answer (as in FAQs).
 */
#include "prep.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "text/markdown.h"

/* Calls emit for this rank's share of numbered documents. */
typedef struct {
    int rank, n_rank;
    int64_t n_document; /* over all files */
    prep_sink_t *sink;
} share_t;

static bool is_mine(share_t *share)
{
    bool mine = share->n_document % share->n_rank == share->rank;
    share->n_document++;
    if (mine)
        prep_sink_count(share->sink, PREP_DOCUMENTS, 1);
    return mine;
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
    if (text.n == 0 || !is_mine(share) || !prep_sink_wants(share->sink, PREP_SFT))
        return NULL;
    return prep_sink_text(share->sink, share->n_document - 1, text, false);
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

static qp_error_t emit_answer(share_t *share, prep_text_t heading, const char *start,
                              const char *end)
{
    prep_text_t answer = prep_trim((prep_text_t){start, (size_t)(end - start)});
    if (heading.n == 0 || heading.data[heading.n - 1] != '?' || !is_mine(share))
        return NULL;
    if (answer.n == 0) {
        prep_sink_count(share->sink, PREP_EMPTY_ROWS, 1);
        return NULL;
    }
    int64_t id = share->n_document - 1;
    char *prompt = prep_question(heading);
    prep_text_t prompt_text = {prompt, strlen(prompt)};
    qp_error_t error = NULL;
    if (prep_sink_wants(share->sink, PREP_SFT))
        QP_TRY_DONE(prep_sink_completion(share->sink, id, prompt_text, answer, false));
    if (prep_sink_wants(share->sink, PREP_PROMPT))
        QP_TRY_DONE(prep_sink_prompt(share->sink, id, prompt_text, false));
done:
    qp_free(prompt);
    return error;
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
    if (error == NULL && markdown.n > 0)
        error = split_markdown(share, (prep_text_t){markdown.data, markdown.n});
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
        QP_TRY(qp_file_read(options->file[i], &data, &n));
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
    return read_files(options, &share, split_html);
}
