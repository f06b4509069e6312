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
#include "dump.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "markdown/markdown.h"

typedef struct {
    int64_t question, id; /* a question has question == id */
    int64_t row;          /* where it stands in the dump */
    int64_t accepted;     /* of a question: id of the accepted answer, 0: none */
    int64_t offset;       /* of its text in the spool */
    int64_t n_bytes;
    int64_t votes;
} post_t;

typedef struct {
    const prep_options_t *options;
    int rank, n_rank;
    prep_sink_t *sink;
    prep_tally_t *tally; /* of the sink */
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
    return question % dump->n_rank == dump->rank;
}

static void skip_post(const dump_t *dump, prep_skip_t why, int64_t id, const char *detail)
{
    const prep_origin_t origin = {
        .id = id, .path = dump->options->file[0], .unit = "post", .number = id};
    prep_tally_skip(dump->tally, why, &origin, detail);
}

/* --- first pass: XML to Markdown -------------------------------------------------------------- */

/* An integer attribute of at least min; absent: otherwise, or (-1) an error. */
static qp_error_t read_integer(const dump_row_t *row, const char *name, int64_t otherwise,
                               int64_t min, int64_t *value)
{
    prep_text_t text = prep_dump_attribute(row, name);
    *value = otherwise;
    if (text.data == NULL)
        return otherwise >= 0 ? NULL : QP_ERROR(QP_INPUT, "no %s", name);
    char digits[32], *end = digits;
    snprintf(digits, sizeof digits, "%.*s", (int)(text.n < 31 ? text.n : 31), text.data);
    errno = 0;
    *value = strtoll(digits, &end, 10);
    if (end == digits || *end != '\0' || errno != 0)
        return QP_ERROR(QP_INPUT, "%s=\"%s\" is not an integer", name, digits);
    if (*value < min)
        return QP_ERROR(QP_INPUT, "%s=\"%s\" is below %lld", name, digits, (long long)min);
    return NULL;
}

static qp_error_t read_text(const dump_t *dump, const dump_row_t *row, bool is_question,
                            qp_str_t *markdown)
{
    prep_text_t title = prep_dump_attribute(row, "Title"), body = prep_dump_attribute(row, "Body");
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

enum { QUESTION = 1, ANSWER = 2 };

/* Answers are compared by their scores, unless all pairs are mismatched. */
static bool needs_scores(const prep_options_t *options)
{
    return options->pairs == PREP_PAIRS_SCORES &&
           (options->kind[PREP_SFT] || options->kind[PREP_REWARD]);
}

/* What a row says of its post, but for the text. */
static qp_error_t read_post(const dump_t *dump, const dump_row_t *row, post_t *post, int64_t *type)
{
    if (row->attributes == NULL)
        return QP_ERROR(QP_INPUT, "%s", row->damage);
    QP_TRY(read_integer(row, "Id", -1, 1, &post->id));
    QP_TRY(read_integer(row, "PostTypeId", -1, 1, type));
    post->question = post->id;
    if (*type == ANSWER)
        QP_TRY(read_integer(row, "ParentId", -1, 1, &post->question));
    if (*type == ANSWER && post->question == post->id)
        return QP_ERROR(QP_INPUT, "an answer to itself");
    if (*type != QUESTION && *type != ANSWER)
        return NULL;
    const bool must = *type == ANSWER && needs_scores(dump->options);
    QP_TRY(read_integer(row, "Score", must ? -1 : 0, INT64_MIN, &post->votes));
    return read_integer(row, "AcceptedAnswerId", 0, INT64_MIN, &post->accepted);
}

/* A row that is no post: its share is decided by where it stands. */
static void skip_row(const dump_t *dump, const dump_row_t *row, const char *message)
{
    const prep_origin_t origin = {.id = row->number, .path = row->path, .number = row->line};
    if (!is_mine(dump, row->number))
        return;
    dump->tally->count[PREP_POSTS]++;
    dump->tally->count[PREP_DROPPED] += row->n_dropped;
    prep_tally_skip(dump->tally, row->attributes == NULL ? PREP_NOT_XML : PREP_BAD_POST, &origin,
                    message);
}

static qp_error_t take_row(void *owner, const dump_row_t *row)
{
    dump_t *dump = owner;
    int64_t type = 0;
    post_t post = {.row = row->number};
    qp_error_t error = read_post(dump, row, &post, &type);
    if (error != NULL) {
        skip_row(dump, row, error->message);
        qp_error_destroy(&error);
        return NULL;
    }
    const bool mine = is_mine(dump, post.question);
    if (!mine && dump->options->pairs != PREP_PAIRS_MISMATCHED)
        return NULL;
    dump->tally->count[PREP_POSTS] += mine;
    dump->tally->count[PREP_DROPPED] += mine ? row->n_dropped : 0;
    if (type != QUESTION && type != ANSWER) {
        if (mine)
            skip_post(dump, PREP_OTHER_POSTS, post.id, NULL);
        return NULL;
    }
    error = read_text(dump, row, type == QUESTION, &dump->markdown);
    if (error == NULL)
        return keep_post(dump, post);
    if (mine)
        skip_post(dump, PREP_BAD_HTML, post.id, error->message);
    qp_error_destroy(&error);
    return NULL;
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
    if (p->id != q->id)
        return p->id < q->id ? -1 : 1;
    return (p->row > q->row) - (p->row < q->row);
}

/* Sorts the posts, questions before their answers; of several with one id the first stays. */
static void sort_posts(dump_t *dump)
{
    int64_t n = 0;
    if (dump->n_post > 0) /* a rank may own no question */
        qsort(dump->post, (size_t)dump->n_post, sizeof(post_t), compare_posts);
    for (int64_t i = 0; i < dump->n_post; i++) {
        const post_t *post = &dump->post[i];
        if (n == 0 || dump->post[n - 1].id != post->id ||
            dump->post[n - 1].question != post->question)
            dump->post[n++] = *post;
        else if (is_mine(dump, post->question))
            skip_post(dump, PREP_REPEATED, post->id, NULL);
    }
    dump->n_post = n;
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
static qp_error_t emit_mismatched(dump_t *dump, const prep_origin_t *origin, prep_text_t prompt,
                                  answer_t *answer, int64_t n_answer)
{
    answer_t *best = answer;
    while (best < answer + n_answer && !best->best)
        best++;
    if (best == answer + n_answer)
        return NULL;
    while (dump->answered[dump->at].id < origin->id)
        dump->at++;
    int64_t other = prep_other(dump->options->seed, dump->answered, dump->n_answered, dump->at);
    dump->tally->count[other < 0 ? PREP_UNPAIRED : PREP_PAIRS]++;
    if (other < 0)
        return NULL;
    best->better = true;
    if (!prep_sink_wants(dump->sink, PREP_REWARD))
        return NULL;
    char *text = QP_NEW("posts", char, dump->best[other]->n_bytes);
    const prep_text_t texts[2] = {best->text, {text, (size_t)dump->best[other]->n_bytes}};
    qp_error_t error = read_spool(dump, dump->best[other], text);
    if (error == NULL)
        error = prep_sink_pair(dump->sink, origin, 1.0f, prompt, texts);
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

static qp_error_t emit_rated(dump_t *dump, const prep_origin_t *origin, prep_text_t prompt,
                             answer_t *answer, int64_t n_answer)
{
    if (dump->options->max_pairs == 0)
        return NULL;
    pair_t *pair = QP_NEW("posts", pair_t, dump->options->max_pairs);
    int64_t n_pair = choose_pairs(dump->options, answer, n_answer, pair);
    qp_error_t error = NULL;
    dump->tally->count[PREP_PAIRS] += n_pair;
    for (int64_t p = 0; p < n_pair; p++) {
        answer_t *better = &answer[pair[p].better], *worse = &answer[pair[p].worse];
        better->better = true;
        const prep_text_t texts[2] = {better->text, worse->text};
        if (prep_sink_wants(dump->sink, PREP_REWARD))
            QP_TRY_DONE(prep_sink_pair(dump->sink, origin, (float)(better->score - worse->score),
                                       prompt, texts));
    }
done:
    qp_free(pair);
    return error;
}

static qp_error_t (*const emit_pairs[])(dump_t *dump, const prep_origin_t *origin,
                                        prep_text_t prompt, answer_t *answer, int64_t n_answer) = {
    [PREP_PAIRS_SCORES] = emit_rated,
    [PREP_PAIRS_MISMATCHED] = emit_mismatched,
};

static qp_error_t emit_sft(dump_t *dump, const prep_origin_t *origin, prep_text_t prompt,
                           const answer_t *answer, int64_t n_answer)
{
    for (int64_t i = 0; i < n_answer; i++) {
        const bool taken[] = {[PREP_ANSWERS_BETTER] = answer[i].better,
                              [PREP_ANSWERS_BEST] = answer[i].best,
                              [PREP_ANSWERS_ALL] = !answer[i].negative};
        if (taken[dump->options->answers])
            QP_TRY(prep_sink_completion(dump->sink, origin, prompt, answer[i].text));
    }
    return NULL;
}

/* A question (post[0]) and its answers. */
static qp_error_t emit_question(dump_t *dump, const post_t *post, int64_t n_post)
{
    const post_t *question = &post[0];
    QP_ASSERT(n_post > 0);
    dump->tally->count[PREP_ANSWERS] += n_post - (question->id == question->question);
    if (question->id != question->question) {
        for (int64_t i = 0; i < n_post; i++)
            skip_post(dump, PREP_ORPHANS, post[i].id, NULL);
        return NULL;
    }
    dump->tally->count[PREP_QUESTIONS]++;
    if (question->n_bytes == 0) {
        skip_post(dump, PREP_EMPTY_QUESTIONS, question->id, NULL);
        return NULL;
    }
    prep_origin_t origin = {.id = question->id,
                            .path = dump->options->file[0],
                            .unit = "question",
                            .number = question->id};
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
        if (i == 0) {
            prompt = prep_question(text);
            origin.group = prep_group(text);
        } else if (text.n == 0)
            skip_post(dump, PREP_EMPTY_ANSWERS, post[i].id, NULL);
        else
            answer[n_answer++] = (answer_t){.text = text,
                                            .id = post[i].id,
                                            .score = score_of(&post[i], question),
                                            .negative = post[i].votes < 0,
                                            .best = &post[i] == best};
    }
    prep_text_t prompt_text = {prompt, strlen(prompt)};
    QP_TRY_DONE(emit_pairs[dump->options->pairs](dump, &origin, prompt_text, answer, n_answer));
    if (prep_sink_wants(dump->sink, PREP_SFT))
        QP_TRY_DONE(emit_sft(dump, &origin, prompt_text, answer, n_answer));
    if (prep_sink_wants(dump->sink, PREP_PROMPT))
        QP_TRY_DONE(prep_sink_prompt(dump->sink, &origin, prompt_text));
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
    sort_posts(dump);
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
    dump_t dump = {.options = options,
                   .rank = rank,
                   .n_rank = n_rank,
                   .sink = sink,
                   .tally = prep_sink_tally(sink)};
    qp_error_t error = NULL;
    if (options->n_file != 1)
        return QP_ERROR(QP_INPUT,
                        "stackexchange takes one dump at a time: question ids of two sites "
                        "overlap");
    QP_TRY(qp_file_scratch(options->out, &dump.spool));
    QP_TRY_DONE(prep_dump_read(options->file[0], take_row, &dump));
    QP_TRY_DONE(emit_all(&dump));
done:
    fclose(dump.spool);
    qp_str_fini(&dump.markdown);
    qp_free(dump.post);
    qp_free(dump.answered);
    qp_free(dump.best);
    return error;
}
