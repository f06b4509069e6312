/*
 * Posts.xml of a Stack Exchange dump. One pass over the XML turns this rank's share of the posts
 * (questions and their answers, by question id) into Markdown, which waits in an unlinked file
 * beside the output; memory holds one small record per post. Then question after question is put
 * together: an answer may stand anywhere in the dump.
 *
 * Score (Askell et al. 2021, as the StackLLaMA data): round(log2(1 + upvotes)), -1 if the votes are
 * negative, plus 1 for the accepted answer. A pair is two answers of different score; at most
 * max_pairs of a question are taken, chosen by a keyed hash. For mismatched pairs (a question's
 * best answer and that of another question) every rank keeps all posts.
 */
#include "prep.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libxml/SAX2.h>
#include <libxml/parser.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "text/markdown.h"

typedef struct {
    int64_t question, id; /* a question has question == id */
    int64_t accepted;     /* of a question: id of the accepted answer, 0: none */
    int64_t offset;       /* of its text in the spool */
    int64_t n_bytes;
    int64_t votes;
} post_t;

typedef struct {
    const prep_options_t *options;
    int rank, n_rank;
    prep_sink_t *sink;
    FILE *spool;
    int64_t spool_bytes;
    post_t *post;
    int64_t n_post, capacity;
    qp_str_t markdown;

    /* For mismatched pairs: all questions with answers, by id. */
    int64_t n_answered, at;    /* at: the one that is put together */
    prep_answered_t *answered; /* [n_answered] */
    const post_t **best;       /* [n_answered] their best answers */
} dump_t;

static bool is_mine(const dump_t *dump, int64_t question)
{
    return (uint64_t)question % (uint64_t)dump->n_rank == (uint64_t)dump->rank;
}

/* --- first pass: XML to Markdown -------------------------------------------------------------- */

/* One walk through the XML. Its callbacks cannot fail, so the first error is kept and the parser
 * stopped. */
typedef struct {
    dump_t *dump;
    const char *path;
    int64_t n_row;
    qp_error_t error;
} walk_t;

/* A start tag: five pointers of libxml2 for each attribute (name, prefix, URI, value, its end). */
typedef struct {
    const char *path;
    int line;
    const xmlChar **attribute;
    int n_attribute;
} row_t;

static prep_text_t find_attribute(const row_t *row, const char *name)
{
    for (int i = 0; i < row->n_attribute; i++) {
        const xmlChar **a = &row->attribute[5 * i];
        if (strcmp((const char *)a[0], name) == 0)
            return (prep_text_t){(const char *)a[3], (size_t)(a[4] - a[3])};
    }
    return (prep_text_t){NULL, 0};
}

/* An integer attribute; absent: the fallback; not a number: QP_INPUT. */
static qp_error_t read_integer(const row_t *row, const char *name, const int64_t *fallback,
                               int64_t *value)
{
    prep_text_t text = find_attribute(row, name);
    if (text.data == NULL) {
        if (fallback == NULL)
            return QP_ERROR(QP_INPUT, "%s:%d: a row has no %s", row->path, row->line, name);
        *value = *fallback;
        return NULL;
    }
    char digits[32], *end = digits;
    snprintf(digits, sizeof digits, "%.*s", (int)(text.n < 31 ? text.n : 31), text.data);
    errno = 0;
    *value = strtoll(digits, &end, 10);
    if (end == digits || *end != '\0' || errno != 0)
        return QP_ERROR(QP_INPUT, "%s:%d: %s=\"%s\" is not an integer", row->path, row->line, name,
                        digits);
    return NULL;
}

static qp_error_t read_text(const dump_t *dump, const row_t *row, bool is_question,
                            qp_str_t *markdown)
{
    prep_text_t title = find_attribute(row, "Title"), body = find_attribute(row, "Body");
    qp_str_clear(markdown);
    if (is_question && dump->options->with_title && title.n > 0) {
        qp_str_append(markdown, title.data, title.n);
        qp_str_puts(markdown, "\n\n");
    }
    return qp_markdown_from_html(body.data, body.n, markdown);
}

static qp_error_t keep_post(dump_t *dump, post_t post)
{
    if (dump->n_post == dump->capacity) {
        dump->capacity = 2 * dump->capacity + 4096;
        dump->post = qp_realloc("posts", dump->post, qp_bytes(dump->capacity, sizeof(post_t)));
    }
    prep_text_t text = prep_trim((prep_text_t){dump->markdown.data, dump->markdown.n});
    if (text.n > 0 && fwrite(text.data, 1, text.n, dump->spool) != text.n)
        return QP_ERROR(QP_IO, "%s: cannot write beside it: %s", dump->options->out,
                        strerror(errno));
    post.offset = dump->spool_bytes;
    post.n_bytes = (int64_t)text.n;
    dump->spool_bytes += post.n_bytes;
    dump->post[dump->n_post++] = post;
    return NULL;
}

static qp_error_t read_row(dump_t *dump, const row_t *row)
{
    enum { QUESTION = 1, ANSWER = 2 };
    static const int64_t zero = 0;
    int64_t type = 0;
    post_t post = {0};
    QP_TRY(read_integer(row, "Id", NULL, &post.id));
    QP_TRY(read_integer(row, "PostTypeId", NULL, &type));
    if (type == QUESTION)
        post.question = post.id;
    else if (type == ANSWER)
        QP_TRY(read_integer(row, "ParentId", NULL, &post.question));
    bool mine = is_mine(dump, post.question != 0 ? post.question : post.id);
    if (!mine && dump->options->pairs != PREP_PAIRS_MISMATCHED)
        return NULL;
    prep_sink_count(dump->sink, PREP_POSTS, mine);
    if (type != QUESTION && type != ANSWER) {
        prep_sink_count(dump->sink, PREP_OTHER_POSTS, mine);
        return NULL;
    }
    QP_TRY(read_integer(row, "Score", &zero, &post.votes));
    QP_TRY(read_integer(row, "AcceptedAnswerId", &zero, &post.accepted));
    QP_TRY(read_text(dump, row, type == QUESTION, &dump->markdown));
    return keep_post(dump, post);
}

static void on_element(void *owner, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri,
                       int n_namespace, const xmlChar **namespaces, int n_attribute, int n_default,
                       const xmlChar **attributes)
{
    (void)prefix, (void)uri, (void)n_namespace, (void)namespaces, (void)n_default;
    xmlParserCtxtPtr parser = owner;
    walk_t *walk = parser->_private;
    if (walk->error != NULL || strcmp((const char *)name, "row") != 0)
        return;
    row_t row = {walk->path, xmlSAX2GetLineNumber(parser), attributes, n_attribute};
    walk->n_row++;
    walk->error = read_row(walk->dump, &row);
    if (walk->error == NULL)
        walk->error = prep_check_interrupt();
    if (walk->error != NULL)
        xmlStopParser(parser);
}

static void on_trouble(void *owner, xmlErrorPtr found)
{
    walk_t *walk = ((xmlParserCtxtPtr)owner)->_private;
    if (walk->error != NULL || found->level < XML_ERR_ERROR)
        return;
    const char *message = found->message != NULL ? found->message : "malformed XML";
    walk->error = QP_ERROR(QP_INPUT, "%s:%d: %.*s", walk->path, found->line,
                           (int)strcspn(message, "\r\n"), message);
}

/*
 * The parser pulls the file through itself and builds no tree: memory is that of the longest row.
 * (The text reader of libxml2 would push it in pieces and look at a long row again with each of
 * them.)
 */
static qp_error_t read_dump(dump_t *dump, const char *path)
{
    if (access(path, R_OK) != 0)
        return QP_ERROR(QP_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    walk_t walk = {.dump = dump, .path = path};
    xmlParserCtxtPtr parser = xmlNewParserCtxt();
    QP_ASSERT(parser != NULL);
    *parser->sax = (xmlSAXHandler){
        .initialized = XML_SAX2_MAGIC, .startElementNs = on_element, .serror = on_trouble};
    parser->_private = &walk;
    xmlDocPtr document =
        xmlCtxtReadFile(parser, path, NULL, XML_PARSE_HUGE | XML_PARSE_NONET | XML_PARSE_NOENT);
    bool whole = parser->wellFormed != 0;
    xmlFreeDoc(document); /* NULL: no handler made one */
    xmlFreeParserCtxt(parser);
    if (walk.error == NULL && walk.n_row == 0)
        walk.error = QP_ERROR(QP_INPUT,
                              "%s: no <row> in it; expected Posts.xml of a Stack Exchange dump, as "
                              "it is or gzipped",
                              path);
    if (walk.error == NULL && !whole)
        walk.error = QP_ERROR(QP_INPUT, "%s: the XML ends early", path);
    return walk.error;
}

/* --- second pass: question by question -------------------------------------------------------- */

typedef struct {
    prep_text_t text;
    int64_t id;
    int64_t score;
    bool negative; /* voted below zero */
    bool best;     /* of its question */
    bool better;   /* won one of the pairs taken */
} answer_t;

typedef struct {
    uint64_t hash;
    int32_t better, worse; /* into the answers */
} pair_t;

static int compare_posts(const void *a, const void *b)
{
    const post_t *p = a, *q = b;
    if (p->question != q->question)
        return p->question < q->question ? -1 : 1;
    bool p_answer = p->id != p->question, q_answer = q->id != q->question;
    if (p_answer != q_answer)
        return p_answer ? 1 : -1;
    return (p->id > q->id) - (p->id < q->id);
}

static int64_t score_of(const post_t *answer, const post_t *question)
{
    int64_t score = answer->votes < 0 ? -1 : (int64_t)lround(log2(1.0 + (double)answer->votes));
    return score + (answer->id == question->accepted);
}

/* How many posts, from the first on, belong to its question. */
static int64_t posts_of_question(const dump_t *dump, int64_t first)
{
    int64_t end = first + 1;
    while (end < dump->n_post && dump->post[end].question == dump->post[first].question)
        end++;
    return end - first;
}

/* The answer with the highest score among those with text, the first of several; or NULL. */
static const post_t *best_answer(const post_t *post, int64_t n_post)
{
    const post_t *best = NULL;
    for (int64_t i = 1; i < n_post; i++)
        if (post[i].n_bytes > 0 &&
            (best == NULL || score_of(&post[i], post) > score_of(best, post)))
            best = &post[i];
    return best;
}

/* Keeps the max pairs with the smallest hash, sorted. */
static void keep_pair(pair_t *pair, int64_t *n_pair, int64_t max, pair_t new)
{
    int64_t at = *n_pair;
    if (at < max)
        (*n_pair)++;
    else if (pair[--at].hash <= new.hash)
        return;
    for (; at > 0 && pair[at - 1].hash > new.hash; at--)
        pair[at] = pair[at - 1];
    pair[at] = new;
}

/* Fills pair [max_pairs]; returns how many there are. */
static int64_t choose_pairs(const prep_options_t *options, const answer_t *answer, int64_t n_answer,
                            pair_t *pair)
{
    int64_t n_pair = 0;
    for (int64_t i = 0; i < n_answer; i++)
        for (int64_t j = 0; j < n_answer; j++)
            if (answer[i].score > answer[j].score) {
                const uint64_t key[3] = {options->seed, (uint64_t)answer[i].id,
                                         (uint64_t)answer[j].id};
                pair_t new = {qp_hash_bytes(key, sizeof key), (int32_t)i, (int32_t)j};
                keep_pair(pair, &n_pair, options->max_pairs, new);
            }
    return n_pair;
}

static qp_error_t read_spool(const dump_t *dump, const post_t *post, char *text)
{
    for (int64_t done = 0; done < post->n_bytes;) {
        ssize_t n = pread(fileno(dump->spool), text + done, (size_t)(post->n_bytes - done),
                          (off_t)(post->offset + done));
        if (n <= 0)
            return QP_ERROR(QP_IO, "%s: cannot read back what was written beside it",
                            dump->options->out);
        done += n;
    }
    return NULL;
}

/* The best answer against that of another question. */
static qp_error_t emit_mismatched(dump_t *dump, int64_t id, prep_text_t prompt, answer_t *answer,
                                  int64_t n_answer)
{
    answer_t *best = answer;
    while (best < answer + n_answer && !best->best)
        best++;
    if (best == answer + n_answer)
        return NULL;
    while (dump->answered[dump->at].id < id)
        dump->at++;
    int64_t other = prep_other(dump->options->seed, dump->answered, dump->n_answered, dump->at);
    prep_sink_count(dump->sink, other < 0 ? PREP_UNPAIRED : PREP_PAIRS, 1);
    if (other < 0)
        return NULL;
    best->better = true;
    if (!prep_sink_wants(dump->sink, PREP_REWARD))
        return NULL;
    char *text = QP_NEW("posts", char, dump->best[other]->n_bytes);
    const prep_text_t texts[2] = {best->text, {text, (size_t)dump->best[other]->n_bytes}};
    qp_error_t error = read_spool(dump, dump->best[other], text);
    if (error == NULL)
        error = prep_sink_pair(dump->sink, id, 1.0f, prompt, texts, false);
    qp_free(text);
    return error;
}

/* Makes the list of all questions that have a text and an answer. */
static qp_error_t list_answered(dump_t *dump)
{
    dump->answered = QP_NEW("posts", prep_answered_t, dump->n_post);
    dump->best = QP_NEW("posts", const post_t *, dump->n_post);
    for (int64_t first = 0, n; first < dump->n_post; first += n) {
        n = posts_of_question(dump, first);
        const post_t *question = &dump->post[first], *best = best_answer(question, n);
        if (question->id != question->question || question->n_bytes == 0 || best == NULL)
            continue;
        char *text = QP_NEW("posts", char, question->n_bytes + best->n_bytes);
        char *answer = text + question->n_bytes;
        qp_error_t error = read_spool(dump, question, text);
        if (error == NULL)
            error = read_spool(dump, best, answer);
        dump->answered[dump->n_answered] =
            prep_answered(question->id, (prep_text_t){text, (size_t)question->n_bytes},
                          (prep_text_t){answer, (size_t)best->n_bytes});
        dump->best[dump->n_answered++] = best;
        qp_free(text);
        QP_TRY(error);
        QP_TRY(prep_check_interrupt());
    }
    return NULL;
}

static qp_error_t emit_rated(dump_t *dump, int64_t id, prep_text_t prompt, answer_t *answer,
                             int64_t n_answer)
{
    if (dump->options->max_pairs == 0)
        return NULL;
    pair_t *pair = QP_NEW("posts", pair_t, dump->options->max_pairs);
    int64_t n_pair = choose_pairs(dump->options, answer, n_answer, pair);
    qp_error_t error = NULL;
    prep_sink_count(dump->sink, PREP_PAIRS, n_pair);
    for (int64_t p = 0; p < n_pair; p++) {
        answer_t *better = &answer[pair[p].better], *worse = &answer[pair[p].worse];
        better->better = true;
        const prep_text_t texts[2] = {better->text, worse->text};
        if (prep_sink_wants(dump->sink, PREP_REWARD))
            QP_TRY_DONE(prep_sink_pair(dump->sink, id, (float)(better->score - worse->score),
                                       prompt, texts, false));
    }
done:
    qp_free(pair);
    return error;
}

static qp_error_t (*const emit_pairs[])(dump_t *dump, int64_t id, prep_text_t prompt,
                                        answer_t *answer, int64_t n_answer) = {
    [PREP_PAIRS_SCORES] = emit_rated,
    [PREP_PAIRS_MISMATCHED] = emit_mismatched,
};

static qp_error_t emit_sft(dump_t *dump, int64_t id, prep_text_t prompt, const answer_t *answer,
                           int64_t n_answer)
{
    for (int64_t i = 0; i < n_answer; i++) {
        const bool taken[] = {[PREP_ANSWERS_BETTER] = answer[i].better,
                              [PREP_ANSWERS_BEST] = answer[i].best,
                              [PREP_ANSWERS_ALL] = !answer[i].negative};
        if (taken[dump->options->answers])
            QP_TRY(prep_sink_completion(dump->sink, id, prompt, answer[i].text, false));
    }
    return NULL;
}

/* A question (post[0]) and its answers. */
static qp_error_t emit_question(dump_t *dump, const post_t *post, int64_t n_post)
{
    const post_t *question = &post[0];
    QP_ASSERT(n_post > 0);
    prep_sink_count(dump->sink, PREP_ANSWERS, n_post - (question->id == question->question));
    if (question->id != question->question) {
        prep_sink_count(dump->sink, PREP_ORPHANS, n_post);
        return NULL;
    }
    prep_sink_count(dump->sink, PREP_QUESTIONS, 1);
    if (question->n_bytes == 0) {
        prep_sink_count(dump->sink, PREP_EMPTY_QUESTIONS, 1);
        return NULL;
    }
    int64_t n_bytes = 0, n_answer = 0, at = 0;
    for (int64_t i = 0; i < n_post; i++)
        n_bytes += post[i].n_bytes;
    char *texts = QP_NEW("posts", char, n_bytes);
    answer_t *answer = QP_NEW("posts", answer_t, n_post);
    const post_t *best = best_answer(post, n_post);
    char *prompt = NULL;
    qp_error_t error = NULL;
    for (int64_t i = 0; i < n_post; i++) {
        QP_TRY_DONE(read_spool(dump, &post[i], texts + at));
        prep_text_t text = {texts + at, (size_t)post[i].n_bytes};
        at += post[i].n_bytes;
        if (i == 0)
            prompt = prep_question(text);
        else if (text.n == 0)
            prep_sink_count(dump->sink, PREP_EMPTY_ANSWERS, 1);
        else
            answer[n_answer++] = (answer_t){.text = text,
                                            .id = post[i].id,
                                            .score = score_of(&post[i], question),
                                            .negative = post[i].votes < 0,
                                            .best = &post[i] == best};
    }
    prep_text_t prompt_text = {prompt, strlen(prompt)};
    QP_TRY_DONE(
        emit_pairs[dump->options->pairs](dump, question->id, prompt_text, answer, n_answer));
    if (prep_sink_wants(dump->sink, PREP_SFT))
        QP_TRY_DONE(emit_sft(dump, question->id, prompt_text, answer, n_answer));
    if (prep_sink_wants(dump->sink, PREP_PROMPT))
        QP_TRY_DONE(prep_sink_prompt(dump->sink, question->id, prompt_text, false));
done:
    qp_free(texts);
    qp_free(answer);
    qp_free(prompt);
    return error;
}

static qp_error_t emit_all(dump_t *dump)
{
    if (fflush(dump->spool) != 0)
        return QP_ERROR(QP_IO, "%s: cannot write beside it: %s", dump->options->out,
                        strerror(errno));
    if (dump->n_post > 0) /* a rank may own no question */
        qsort(dump->post, (size_t)dump->n_post, sizeof(post_t), compare_posts);
    if (dump->options->pairs == PREP_PAIRS_MISMATCHED)
        QP_TRY(list_answered(dump));
    for (int64_t first = 0, n; first < dump->n_post; first += n) {
        n = posts_of_question(dump, first);
        if (is_mine(dump, dump->post[first].question))
            QP_TRY(emit_question(dump, &dump->post[first], n));
        QP_TRY(prep_check_interrupt());
    }
    return NULL;
}

qp_error_t prep_stackexchange(const prep_options_t *options, int rank, int n_rank,
                              prep_sink_t *sink)
{
    dump_t dump = {.options = options, .rank = rank, .n_rank = n_rank, .sink = sink};
    qp_error_t error = NULL;
    if (options->n_file != 1)
        return QP_ERROR(QP_INPUT,
                        "stackexchange takes one dump at a time: question ids of two sites "
                        "overlap");
    QP_TRY(qp_file_scratch(options->out, &dump.spool));
    QP_TRY_DONE(read_dump(&dump, options->file[0]));
    QP_TRY_DONE(emit_all(&dump));
done:
    fclose(dump.spool);
    qp_str_fini(&dump.markdown);
    qp_free(dump.post);
    qp_free(dump.answered);
    qp_free(dump.best);
    return error;
}
