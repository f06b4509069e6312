/*
 * JSON lines, or one JSON array of rows. Empty lines are skipped. A row that cannot be read, or
 * gives nothing to learn, is counted and left out.
 */
#include "rows.h"

#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "formats/json.h"
#include "formats/reader.h"

/* One walk over the rows of all files. */
typedef struct {
    const prep_options_t *options;
    int rank, n_rank;
    int64_t n_row; /* over all files */
    bool has_template;
    bool cut_array; /* the file at hand begins with an array and does not end with it */
    prep_sink_t *sink;
} walk_t;

static qp_error_t emit(const prep_row_t *row, const prep_origin_t *origin, prep_sink_t *sink)
{
    if (row->is_chat)
        return prep_sink_chat(sink, origin, row->kind, &row->chat);
    if (row->whole)
        return prep_sink_text(sink, origin, row->answer[0]);
    if (row->kind == PREP_PROMPT)
        return prep_sink_prompt(sink, origin, row->prompt);
    if (row->kind == PREP_REWARD)
        return prep_sink_pair(sink, origin, 1.0f, row->prompt, row->answer);
    return prep_sink_completion(sink, origin, row->prompt, row->answer[0]);
}

static qp_error_t take_row(walk_t *walk, const json_t *json, prep_origin_t *origin)
{
    prep_row_t row = {0};
    qp_error_t error = prep_row_read(json, walk->options->kind, walk->has_template, &row);
    origin->group = row.group;
    if (row.why != PREP_N_SKIP) {
        prep_tally_skip(prep_sink_tally(walk->sink), row.why, origin,
                        error != NULL ? error->message : NULL);
        qp_error_destroy(&error);
    } else {
        error = emit(&row, origin, walk->sink);
    }
    prep_row_fini(&row);
    return error;
}

/* Counts the next row; true if it is this rank's. */
static bool next_row(walk_t *walk, prep_origin_t *origin)
{
    origin->id = walk->n_row++;
    if (origin->id % walk->n_rank != walk->rank)
        return false;
    prep_sink_tally(walk->sink)->count[PREP_ROWS]++;
    return true;
}

enum { ROW_FLAGS = QP_JSON_REFUSE_SURROGATES | QP_JSON_NAN_IS_NULL };

/* What a row begins and does not end, or the other way round: the file is written in another way.
 * NULL: nothing. */
static const char *what_is_open(const walk_t *walk, prep_text_t text, bool is_line)
{
    const qp_json_nesting_t end = qp_json_nesting(text.data, text.n);
    const prep_text_t row = prep_trim(text);
    const char first = row.n > 0 ? row.data[0] : '\0';
    if (end.in_string || (first != '{' && first != '['))
        return NULL;
    if (end.lowest < 0)
        return "something ends in this row that does not begin in it";
    if (!is_line || end.depth == 0)
        return NULL;
    if (first == '{')
        return "an object begins in this line and does not end in it";
    return walk->cut_array ? "the array that begins here does not end with the file"
                           : "an array begins in this line and does not end in it";
}

/* A text that cannot be parsed. */
static void skip_text(walk_t *walk, prep_text_t text, const prep_origin_t *origin, qp_error_t error)
{
    const bool too_deep = qp_json_nesting(text.data, text.n).deepest > QP_JSON_MAX_DEPTH;
    const char *open = too_deep ? NULL : what_is_open(walk, text, origin->unit == NULL);
    char *detail = open == NULL
                       ? qp_strdup(error->message)
                       : qp_format("%s: expected JSON lines, a row a line, or one JSON array that "
                                   "is the whole file",
                                   open);
    prep_tally_skip(prep_sink_tally(walk->sink), too_deep ? PREP_TOO_DEEP : PREP_NOT_JSON, origin,
                    detail);
    qp_free(detail);
    qp_error_destroy(&error);
}

static qp_error_t take_row_text(walk_t *walk, prep_text_t text, prep_origin_t *origin)
{
    json_t *json = NULL;
    qp_error_t error = qp_json_parse(NULL, text.data, text.n, ROW_FLAGS, &json);
    if (error != NULL) {
        skip_text(walk, text, origin, error);
        return NULL;
    }
    error = take_row(walk, json, origin);
    json_decref(json);
    return error;
}

static qp_error_t read_lines(walk_t *walk, const char *path)
{
    prep_origin_t origin = {.path = path, .parse_special = true};
    qp_reader_t *reader = NULL;
    prep_text_t line;
    qp_error_t error = NULL;
    QP_TRY(qp_reader_open(path, &reader));
    for (;;) {
        QP_TRY_DONE(qp_reader_line(reader, &line.data, &line.n));
        if (line.data == NULL)
            break;
        origin.number++;
        if (prep_trim(line).n > 0 && next_row(walk, &origin))
            QP_TRY_DONE(take_row_text(walk, line, &origin));
        QP_TRY_DONE(prep_check_interrupt());
    }
done:
    qp_reader_close(&reader);
    return error;
}

/* --- one array -------------------------------------------------------------------------------- */

/* The text of the next element of an array's inside; *at moves behind its comma. False at the end.
 */
static bool next_element(prep_text_t inside, size_t *at, prep_text_t *element)
{
    if (!qp_json_next_piece(inside.data, inside.n, at, &element->data, &element->n))
        return false;
    *element = prep_trim(*element);
    return true;
}

static bool is_json(prep_text_t text)
{
    json_t *json = NULL;
    qp_error_t error = qp_json_parse(NULL, text.data, text.n, ROW_FLAGS, &json);
    const bool is = error == NULL;
    qp_error_destroy(&error);
    json_decref(json);
    return is;
}

/* Where a line begins as the element's first one does, with as much indentation and a brace; the
 * element's end if none does. */
static size_t next_like_it(prep_text_t inside, prep_text_t element)
{
    const char *begin = element.data, *end = element.data + element.n;
    while (begin > inside.data && (begin[-1] == ' ' || begin[-1] == '\t'))
        begin--;
    const size_t indent = (size_t)(element.data - begin);
    for (const char *line = element.data;
         (line = memchr(line, '\n', (size_t)(end - line))) != NULL;) {
        line++;
        if ((size_t)(end - line) > indent && memcmp(line, begin, indent) == 0 &&
            line[indent] == '{')
            return (size_t)(line - element.data);
    }
    return element.n;
}

/* A row without its last quote or bracket takes those behind it along: it ends where the next one
 * begins. */
static void part_from_others(prep_text_t inside, size_t *at, prep_text_t *element)
{
    const size_t n = next_like_it(inside, *element);
    if (n == element->n || is_json(*element))
        return;
    *at = (size_t)(element->data - inside.data) + n;
    element->n = n;
    while (element->n > 0 && strchr(", \t\r\n", element->data[element->n - 1]) != NULL)
        element->n--;
}

/* Element by element, so that one that cannot be read is one row. */
static qp_error_t take_array(walk_t *walk, const char *path, prep_text_t inside)
{
    prep_origin_t origin = {.path = path, .unit = "row", .parse_special = true};
    prep_text_t element;
    for (size_t at = 0; next_element(inside, &at, &element);) {
        part_from_others(inside, &at, &element);
        origin.number++;
        if (next_row(walk, &origin))
            QP_TRY(take_row_text(walk, element, &origin));
        QP_TRY(prep_check_interrupt());
    }
    return NULL;
}

/* Whether the first character of a file (not of a pipe, which is read once) begins an array. */
static qp_error_t begins_array(const char *path, bool *begins)
{
    struct stat status;
    qp_reader_t *reader = NULL;
    prep_text_t line = {0};
    qp_error_t error = NULL;
    *begins = false;
    if (stat(path, &status) != 0 || !S_ISREG(status.st_mode))
        return NULL;
    QP_TRY(qp_reader_open(path, &reader));
    do
        QP_TRY_DONE(qp_reader_line(reader, &line.data, &line.n));
    while (line.data != NULL && prep_trim(line).n == 0);
    *begins = line.data != NULL && prep_trim(line).data[0] == '[';
done:
    qp_reader_close(&reader);
    return error;
}

static qp_error_t read_rows(walk_t *walk, const char *path)
{
    bool begins = false;
    void *data = NULL;
    size_t n = 0;
    QP_TRY(begins_array(path, &begins));
    walk->cut_array = false;
    if (!begins)
        return read_lines(walk, path);
    QP_TRY(qp_reader_whole(path, &data, &n));
    const prep_text_t text = prep_trim((prep_text_t){data, n});
    walk->cut_array = text.n < 2 || text.data[text.n - 1] != ']';
    qp_error_t error = walk->cut_array /* or a damaged line is the first */
                           ? read_lines(walk, path)
                           : take_array(walk, path, (prep_text_t){text.data + 1, text.n - 2});
    qp_free(data);
    return error;
}

qp_error_t prep_jsonl(const prep_options_t *options, int rank, int n_rank, prep_sink_t *sink)
{
    walk_t walk = {.options = options,
                   .rank = rank,
                   .n_rank = n_rank,
                   .has_template = prep_sink_has_template(sink),
                   .sink = sink};
    for (int i = 0; i < options->n_file; i++)
        QP_TRY(read_rows(&walk, options->file[i]));
    return NULL;
}
