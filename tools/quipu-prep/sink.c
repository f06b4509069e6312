#include "prep.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "data/data.h"

enum { N_SPLIT = 2, TRAIN = 0, EVAL = 1 };
enum { N_LENGTH = 1 << 16 }; /* longer sequences share the last bin of the length statistics */

static const char *const kind_name[PREP_N_KIND] = {"sft", "reward", "prompt"};
static const int64_t kind_sequences[PREP_N_KIND] = {1, 2, 1};
static const char *const split_name[N_SPLIT] = {"train", "eval"};

struct prep_sink {
    qp_comm_t *comm;
    const prep_options_t *options;
    const prep_model_t *model;
    char *source;
    prep_tally_t tally;
    qp_shard_writer_t *writer[PREP_N_KIND][N_SPLIT]; /* NULL until a sample comes */
    int64_t n_sample[PREP_N_KIND][N_SPLIT];
    int64_t *n_of_length[PREP_N_KIND]; /* [N_LENGTH] sequences of so many tokens */
    int64_t n_token[PREP_N_KIND], longest[PREP_N_KIND];
    prep_sequence_t prompt, sequence[2]; /* of the sample at hand */
};

/* --- names and writers ------------------------------------------------------------------------ */

static char *shard_name(const prep_sink_t *s, int kind, int split)
{
    const char *prefix = s->options->out;
    if (qp_comm_size(s->comm) == 1)
        return qp_format("%s-%s-%s.h5", prefix, kind_name[kind], split_name[split]);
    return qp_format("%s-%s-%s-%05d-of-%05d.h5", prefix, kind_name[kind], split_name[split],
                     qp_comm_rank(s->comm) + 1, qp_comm_size(s->comm));
}

/* A name as a pattern that only it matches (qp_free). */
static char *literal_pattern(const char *name)
{
    qp_str_t pattern = {0};
    for (; *name != '\0'; name++) {
        if (strchr("*?[\\", *name) != NULL)
            qp_str_putc(&pattern, '\\');
        qp_str_putc(&pattern, *name);
    }
    return pattern.data;
}

/*
 * Shards that another rank count left under this prefix would be read together with the new ones by
 * a pattern. Those of the same rank count are replaced.
 */
static qp_error_t refuse_leftovers(const prep_sink_t *s)
{
    char *ours = qp_format("-of-%05d.h5", qp_comm_size(s->comm));
    char *prefix = literal_pattern(s->options->out);
    bool alone = qp_comm_size(s->comm) == 1;
    qp_error_t error = NULL;
    for (int i = 0; i < PREP_N_KIND * N_SPLIT && error == NULL; i++) {
        glob_t found = {0};
        const char *kind = kind_name[i / N_SPLIT], *split = split_name[i % N_SPLIT];
        const size_t n_name = strlen(s->options->out) + strlen(kind) + strlen(split) + 2;
        char *pattern = qp_format("%s-%s-%s*.h5", prefix, kind, split);
        if (glob(pattern, 0, NULL, &found) == 0)
            for (size_t f = 0; f < found.gl_pathc && error == NULL; f++) {
                const char *rest = found.gl_pathv[f] + n_name;
                if ((rest[0] == '-' && !qp_has_suffix(rest, ours)) ||
                    (strcmp(rest, ".h5") == 0 && !alone))
                    error = QP_ERROR(QP_INPUT,
                                     "%s is there from a run on another number of ranks: remove it "
                                     "or choose another --out",
                                     found.gl_pathv[f]);
            }
        globfree(&found);
        qp_free(pattern);
    }
    qp_free(prefix);
    qp_free(ours);
    return error;
}

/* What is known of the places of this rank's shards before anything is read. */
static qp_error_t check_places(const prep_sink_t *s)
{
    qp_error_t error = NULL;
    for (int i = 0; i < PREP_N_KIND * N_SPLIT && error == NULL; i++) {
        if (!s->options->kind[i / N_SPLIT])
            continue;
        char *name = shard_name(s, i / N_SPLIT, i % N_SPLIT);
        error = qp_shard_writer_check(name);
        qp_free(name);
    }
    return error;
}

static qp_error_t open_writer(prep_sink_t *s, int kind, int split)
{
    if (s->writer[kind][split] != NULL)
        return NULL;
    qp_shard_info_t info = {.kind = kind_name[kind],
                            .tokenizer_id = qp_tokenizer_id(s->model->tokenizer),
                            .n_vocab = s->model->n_vocab,
                            .sequences_per_sample = kind_sequences[kind]};
    char *name = shard_name(s, kind, split);
    qp_error_t error = qp_shard_writer_create(name, &info, s->source, &s->writer[kind][split]);
    qp_free(name);
    return error;
}

qp_error_t prep_sink_create(qp_comm_t *comm, const prep_options_t *options,
                            const prep_model_t *model, const char *source, prep_sink_t **sink)
{
    prep_sink_t *s = QP_NEW("prep", prep_sink_t, 1);
    s->comm = comm;
    s->options = options;
    s->model = model;
    s->source = qp_strdup(source);
    for (int kind = 0; kind < PREP_N_KIND; kind++)
        s->n_of_length[kind] = QP_NEW("prep", int64_t, N_LENGTH);
    qp_error_t error = check_places(s);
    if (error == NULL && qp_comm_rank(comm) == 0)
        error = refuse_leftovers(s);
    error = qp_comm_agree(comm, error);
    if (error != NULL)
        prep_sink_destroy(&s);
    *sink = s;
    return error;
}

void prep_sink_destroy(prep_sink_t **sink)
{
    prep_sink_t *s = *sink;
    if (s == NULL)
        return;
    for (int kind = 0; kind < PREP_N_KIND; kind++) {
        for (int split = 0; split < N_SPLIT; split++)
            qp_shard_writer_abandon(&s->writer[kind][split]);
        qp_free(s->n_of_length[kind]);
    }
    prep_sequence_fini(&s->prompt);
    prep_sequence_fini(&s->sequence[0]);
    prep_sequence_fini(&s->sequence[1]);
    prep_tally_fini(&s->tally);
    qp_free(s->source);
    QP_FREE(*sink);
}

bool prep_sink_wants(const prep_sink_t *s, prep_kind_t kind)
{
    return s->options->kind[kind];
}

bool prep_sink_has_template(const prep_sink_t *s)
{
    return s->options->chat_template != NULL ||
           qp_tokenizer_chat_template(s->model->tokenizer) != NULL;
}

prep_tally_t *prep_sink_tally(prep_sink_t *s)
{
    return &s->tally;
}

/* --- samples ---------------------------------------------------------------------------------- */

/* A keyed hash of the group: equal questions fall on the same side, with all that belongs to them.
 */
static int split_of(const prep_sink_t *s, uint64_t group)
{
    const uint64_t key[2] = {s->options->seed, group};
    double uniform = (double)(qp_hash_bytes(key, sizeof key) >> 11) * 0x1p-53;
    return uniform < s->options->eval_fraction ? EVAL : TRAIN;
}

static void count_length(prep_sink_t *s, int kind, int64_t n)
{
    s->n_of_length[kind][n < N_LENGTH ? n : N_LENGTH - 1]++;
    s->n_token[kind] += n;
    if (n > s->longest[kind])
        s->longest[kind] = n;
}

/* The first token that the model does not have, as text (qp_free); NULL: there is none. */
static char *beyond_model(const prep_sink_t *s, const prep_sequence_t *sequence)
{
    const qp_tokens_t *token = &sequence->token;
    for (int64_t i = 0; i < token->n; i++)
        if (token->id[i] >= s->model->n_vocab) {
            const char *text = qp_tokenizer_token(s->model->tokenizer, token->id[i]);
            return qp_format("%s has the id %d, the model has %lld ids",
                             text != NULL ? text : "one", (int)token->id[i],
                             (long long)s->model->n_vocab);
        }
    return NULL;
}

/* Something of its own is learnt (a silent answer has only its end), and something has a token
 * before it. */
static bool has_target(const prep_sink_t *s, const prep_sequence_t *sequence, bool may_be_silent)
{
    bool own = may_be_silent, target = false;
    for (int64_t i = 0; i < sequence->token.n; i++)
        if (sequence->learnt.id[i] != 0) {
            own = own || !qp_eos_has(&s->model->eos, sequence->token.id[i]);
            target = target || i > 0;
        }
    return own && target;
}

static bool same_tokens(const prep_sequence_t *a, const prep_sequence_t *b)
{
    const int64_t n = a->token.n;
    return n == b->token.n &&
           (n == 0 || memcmp(a->token.id, b->token.id, qp_bytes(n, sizeof *a->token.id)) == 0);
}

/* Why sequences make no sample; PREP_N_SKIP: they make one. *detail is the caller's (qp_free). */
static prep_skip_t judge(const prep_sink_t *s, int kind, const prep_sequence_t *sequence,
                         char **detail)
{
    const int64_t max = s->options->max_tokens, n = kind_sequences[kind];
    for (int64_t i = 0; i < n && *detail == NULL; i++)
        *detail = beyond_model(s, &sequence[i]);
    if (*detail != NULL)
        return PREP_BEYOND_MODEL;
    if (kind == PREP_REWARD && same_tokens(&sequence[0], &sequence[1]))
        return PREP_EQUAL_ANSWERS;
    for (int64_t i = 0; i < n; i++) {
        if (sequence[i].token.n == 0 ||
            (kind == PREP_PROMPT && prep_sequence_is_empty(s->model, &sequence[i])))
            return PREP_EMPTY_ROWS;
        if (kind != PREP_PROMPT && !has_target(s, &sequence[i], i == 1)) /* 1: the worse answer */
            return PREP_NO_TARGET;
        if (max > 0 && sequence[i].token.n > max)
            return PREP_TOO_LONG;
    }
    return PREP_N_SKIP;
}

static qp_error_t write_sample(prep_sink_t *s, int kind, const prep_origin_t *origin, float margin)
{
    const int split = split_of(s, origin->group);
    const int32_t *token[2] = {0};
    uint8_t *loss[2] = {0};
    int64_t n[2] = {0};
    QP_TRY(open_writer(s, kind, split));
    for (int64_t i = 0; i < kind_sequences[kind]; i++) {
        const prep_sequence_t *sequence = &s->sequence[i];
        token[i] = sequence->token.id;
        n[i] = sequence->token.n;
        loss[i] = QP_NEW("prep", uint8_t, n[i]);
        for (int64_t t = 0; t < n[i]; t++)
            loss[i][t] = kind != PREP_PROMPT && sequence->learnt.id[t] != 0;
        count_length(s, kind, n[i]);
    }
    qp_error_t error = qp_shard_writer_add(s->writer[kind][split], origin->id, margin, token,
                                           (const uint8_t *const *)loss, n);
    s->n_sample[kind][split]++;
    qp_free(loss[0]);
    qp_free(loss[1]);
    return error;
}

/* The sequences of the sink as a sample, or counted as none. */
static qp_error_t add_sample(prep_sink_t *s, int kind, const prep_origin_t *origin, float margin)
{
    char *detail = NULL;
    const prep_skip_t why = judge(s, kind, s->sequence, &detail);
    if (why != PREP_N_SKIP)
        prep_tally_skip(&s->tally, why, origin, detail);
    qp_free(detail);
    return why != PREP_N_SKIP ? NULL : write_sample(s, kind, origin, margin);
}

qp_error_t prep_sink_text(prep_sink_t *s, const prep_origin_t *origin, prep_text_t text)
{
    prep_sequence_t *sequence = &s->sequence[0];
    QP_TRY(prep_encode_text(s->model, text, origin->parse_special, sequence));
    /* A normalizer may take away all that there is. */
    if (prep_sequence_is_empty(s->model, sequence)) {
        prep_tally_skip(&s->tally, PREP_EMPTY_ROWS, origin, NULL);
        return NULL;
    }
    prep_sequence_end(s->model, sequence);
    return add_sample(s, PREP_SFT, origin, 0.0f);
}

qp_error_t prep_sink_prompt(prep_sink_t *s, const prep_origin_t *origin, prep_text_t prompt)
{
    QP_TRY(prep_encode_text(s->model, prompt, origin->parse_special, &s->sequence[0]));
    return add_sample(s, PREP_PROMPT, origin, 0.0f);
}

/* One prompt with one or two completions. */
static qp_error_t add_completions(prep_sink_t *s, int kind, const prep_origin_t *origin,
                                  float margin, prep_text_t prompt, const prep_text_t *completion)
{
    const int n = (int)kind_sequences[kind];
    QP_TRY(prep_encode_text(s->model, prompt, origin->parse_special, &s->prompt));
    for (int i = 0; i < n; i++)
        QP_TRY(prep_encode_whole(s->model, prompt, completion[i], origin->parse_special,
                                 &s->sequence[i]));
    prep_sequence_split(&s->prompt, s->sequence, n);
    for (int i = 0; i < n; i++)
        prep_sequence_end(s->model, &s->sequence[i]);
    return add_sample(s, kind, origin, margin);
}

qp_error_t prep_sink_completion(prep_sink_t *s, const prep_origin_t *origin, prep_text_t prompt,
                                prep_text_t completion)
{
    return add_completions(s, PREP_SFT, origin, 0.0f, prompt, &completion);
}

qp_error_t prep_sink_pair(prep_sink_t *s, const prep_origin_t *origin, float margin,
                          prep_text_t prompt, const prep_text_t answer[2])
{
    return add_completions(s, PREP_REWARD, origin, margin, prompt, answer);
}

static bool learns(const prep_sequence_t *sequence)
{
    for (int64_t i = 0; i < sequence->learnt.n; i++)
        if (sequence->learnt.id[i] != 0)
            return true;
    return false;
}

/* Fills the sequences; *marked: in each the template marks what the assistant writes. */
static qp_error_t encode_conversation(prep_sink_t *s, int kind, const prep_chat_t *chat,
                                      bool *marked)
{
    *marked = true;
    if (kind == PREP_PROMPT)
        return prep_encode_chat_prompt(s->model, chat, &s->sequence[0]);
    const int n = (int)kind_sequences[kind];
    for (int i = 0; i < n; i++) {
        QP_TRY(prep_encode_chat(s->model, chat, i, &s->sequence[i]));
        *marked = *marked && learns(&s->sequence[i]);
    }
    if (!*marked)
        return NULL;
    if (json_array_size(chat->prompt) > 0) {
        QP_TRY(prep_encode_chat_prompt(s->model, chat, &s->prompt));
        prep_sequence_split(&s->prompt, s->sequence, n);
    }
    for (int i = 0; i < n; i++) {
        s->tally.count[PREP_NO_EOS] += !prep_sequence_has_end(s->model, &s->sequence[i]);
        if (kind == PREP_REWARD)
            prep_sequence_cut(s->model, &s->sequence[i]);
    }
    return NULL;
}

qp_error_t prep_sink_chat(prep_sink_t *s, const prep_origin_t *origin, prep_kind_t kind,
                          const prep_chat_t *chat)
{
    if (s->model->chat_template == NULL) {
        prep_tally_skip(&s->tally, PREP_NO_TEMPLATE, origin, s->model->no_chat);
        return NULL;
    }
    bool marked;
    qp_error_t error = encode_conversation(s, kind, chat, &marked);
    if (error == NULL && marked)
        return add_sample(s, kind, origin, kind == PREP_REWARD ? 1.0f : 0.0f);
    if (error == NULL) {
        prep_tally_skip(&s->tally, PREP_NOT_MARKED, origin, NULL);
        return NULL;
    }
    if (error->code != QP_INPUT)
        return error;
    prep_tally_skip(&s->tally, PREP_NO_TEMPLATE, origin, error->message);
    qp_error_destroy(&error);
    return NULL;
}

/* --- the end ---------------------------------------------------------------------------------- */

/* Smallest length that at least this share of the sequences does not exceed. */
static int64_t percentile(const prep_sink_t *s, int kind, int64_t n_sequence, double share)
{
    int64_t seen = 0;
    for (int64_t length = 0; length < N_LENGTH - 1; length++) {
        seen += s->n_of_length[kind][length];
        if ((double)seen >= share * (double)n_sequence)
            return length;
    }
    return s->longest[kind];
}

static void report(prep_sink_t *s)
{
    prep_tally_log(&s->tally);
    qp_comm_sum_i64(s->comm, s->n_token, PREP_N_KIND);
    qp_comm_max_i64(s->comm, s->longest, PREP_N_KIND);
    for (int kind = 0; kind < PREP_N_KIND; kind++) {
        const int64_t *n_sample = s->n_sample[kind];
        int64_t n_sequence = (n_sample[TRAIN] + n_sample[EVAL]) * kind_sequences[kind];
        if (n_sequence == 0)
            continue;
        qp_comm_sum_i64(s->comm, s->n_of_length[kind], N_LENGTH);
        qp_log_info("%s: %lld train and %lld eval samples, %lld tokens; tokens per sequence: "
                    "mean %.1f, p50 %lld, p95 %lld, max %lld",
                    kind_name[kind], (long long)n_sample[TRAIN], (long long)n_sample[EVAL],
                    (long long)s->n_token[kind], (double)s->n_token[kind] / (double)n_sequence,
                    (long long)percentile(s, kind, n_sequence, 0.5),
                    (long long)percentile(s, kind, n_sequence, 0.95), (long long)s->longest[kind]);
    }
}

/* Every rank writes a shard of what any rank has samples of. */
static qp_error_t finish_shards(prep_sink_t *s)
{
    for (int kind = 0; kind < PREP_N_KIND; kind++)
        for (int split = 0; split < N_SPLIT; split++)
            if (s->n_sample[kind][split] > 0) {
                QP_TRY(open_writer(s, kind, split));
                QP_TRY(qp_shard_writer_finish(s->writer[kind][split]));
                QP_TRY(prep_check_interrupt());
            }
    return NULL;
}

static qp_error_t nothing(const prep_sink_t *s)
{
    qp_str_t reasons = {0};
    qp_str_puts(&reasons, "");
    prep_tally_describe(&s->tally, &reasons);
    qp_error_t error =
        QP_ERROR(QP_INPUT, "%s: nothing in it makes a sample%s", s->source, reasons.data);
    qp_str_fini(&reasons);
    return error;
}

qp_error_t prep_sink_commit(prep_sink_t *s)
{
    qp_error_t error = NULL;
    int64_t n_all = 0;
    qp_comm_sum_i64(s->comm, &s->n_sample[0][0], (int64_t)PREP_N_KIND * N_SPLIT);
    prep_tally_reduce(s->comm, &s->tally);
    QP_TRY(prep_tally_judge(&s->tally, s->source, s->options->max_bad));
    for (int i = 0; i < PREP_N_KIND * N_SPLIT; i++)
        n_all += s->n_sample[i / N_SPLIT][i % N_SPLIT];
    error = n_all > 0 ? finish_shards(s) : nothing(s);
    QP_TRY(qp_comm_agree(s->comm, error));
    for (int kind = 0; kind < PREP_N_KIND && error == NULL; kind++)
        for (int split = 0; split < N_SPLIT && error == NULL; split++)
            if (s->writer[kind][split] != NULL)
                error = qp_shard_writer_commit(&s->writer[kind][split]);
    QP_TRY(qp_comm_agree(s->comm, error));
    report(s);
    return NULL;
}
