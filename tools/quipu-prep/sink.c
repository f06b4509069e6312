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
    const qp_tokenizer_t *tokenizer;
    char *source;
    int64_t count[PREP_N_COUNT];
    qp_shard_writer_t *writer[PREP_N_KIND][N_SPLIT]; /* NULL until a sample comes */
    int64_t n_sample[PREP_N_KIND][N_SPLIT];
    int64_t *n_of_length[PREP_N_KIND]; /* [N_LENGTH] sequences of so many tokens */
    int64_t n_token[PREP_N_KIND], longest[PREP_N_KIND];
    qp_tokens_t scratch[3];
    qp_str_t whole;
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

/*
 * Shards that another rank count left under this prefix would be read together with the new ones by
 * a pattern. Those of the same rank count are replaced.
 */
static qp_error_t refuse_leftovers(const prep_sink_t *s)
{
    char *ours = qp_format("-of-%05d.h5", qp_comm_size(s->comm));
    bool alone = qp_comm_size(s->comm) == 1;
    qp_error_t error = NULL;
    for (int i = 0; i < PREP_N_KIND * N_SPLIT && error == NULL; i++) {
        glob_t found = {0};
        char *pattern = qp_format("%s-%s-%s*.h5", s->options->out, kind_name[i / N_SPLIT],
                                  split_name[i % N_SPLIT]);
        if (glob(pattern, 0, NULL, &found) == 0)
            for (size_t f = 0; f < found.gl_pathc && error == NULL; f++) {
                bool numbered = strstr(found.gl_pathv[f], "-of-") != NULL;
                if (alone ? numbered : !qp_has_suffix(found.gl_pathv[f], ours))
                    error = QP_ERROR(QP_INPUT,
                                     "%s is there from a run on another number of ranks: remove it "
                                     "or choose another --out",
                                     found.gl_pathv[f]);
            }
        globfree(&found);
        qp_free(pattern);
    }
    qp_free(ours);
    return error;
}

static qp_error_t open_writer(prep_sink_t *s, int kind, int split)
{
    if (s->writer[kind][split] != NULL)
        return NULL;
    qp_shard_info_t info = {.kind = kind_name[kind],
                            .tokenizer_id = qp_tokenizer_id(s->tokenizer),
                            .n_vocab = qp_tokenizer_n_vocab(s->tokenizer),
                            .sequences_per_sample = kind_sequences[kind]};
    char *name = shard_name(s, kind, split);
    qp_error_t error = qp_shard_writer_create(name, &info, s->source, &s->writer[kind][split]);
    qp_free(name);
    return error;
}

qp_error_t prep_sink_create(qp_comm_t *comm, const prep_options_t *options,
                            const qp_tokenizer_t *tokenizer, const char *source, prep_sink_t **sink)
{
    prep_sink_t *s = QP_NEW("prep", prep_sink_t, 1);
    s->comm = comm;
    s->options = options;
    s->tokenizer = tokenizer;
    s->source = qp_strdup(source);
    for (int kind = 0; kind < PREP_N_KIND; kind++)
        s->n_of_length[kind] = QP_NEW("prep", int64_t, N_LENGTH);
    qp_error_t error = qp_comm_rank(comm) == 0 ? refuse_leftovers(s) : NULL;
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
    for (int i = 0; i < 3; i++)
        qp_tokens_fini(&s->scratch[i]);
    qp_str_fini(&s->whole);
    qp_free(s->source);
    QP_FREE(*sink);
}

bool prep_sink_wants(const prep_sink_t *s, prep_kind_t kind)
{
    return s->options->kind[kind];
}

void prep_sink_count(prep_sink_t *s, prep_count_t what, int64_t n)
{
    s->count[what] += n;
}

/* --- tokens ----------------------------------------------------------------------------------- */

/* A keyed hash of the id: all samples of a question fall on the same side. */
static int split_of(const prep_sink_t *s, int64_t id)
{
    const uint64_t key[2] = {s->options->seed, (uint64_t)id};
    double uniform = (double)(qp_hash_bytes(key, sizeof key) >> 11) * 0x1p-53;
    return uniform < s->options->eval_fraction ? EVAL : TRAIN;
}

static qp_error_t encode(const prep_sink_t *s, prep_text_t text, bool parse_special,
                         qp_tokens_t *tokens)
{
    tokens->n = 0;
    if (qp_tokenizer_adds_bos(s->tokenizer))
        qp_tokens_push(tokens, qp_tokenizer_bos(s->tokenizer));
    return qp_tokenizer_encode(s->tokenizer, text.data, text.n,
                               parse_special ? QP_TEXT_PARSE_SPECIAL : 0, tokens);
}

static void end_with_eos(const prep_sink_t *s, qp_tokens_t *tokens)
{
    int32_t eos = qp_tokenizer_eos(s->tokenizer);
    if (eos >= 0 && (tokens->n == 0 || tokens->id[tokens->n - 1] != eos))
        qp_tokens_push(tokens, eos);
}

/*
 * Tokenises prompt and completion as one text, as the model is going to see it. A token that lies
 * across the boundary belongs to the completion: *n_prompt is what the ids share with those of the
 * prompt alone.
 */
static qp_error_t encode_completion(prep_sink_t *s, prep_text_t prompt,
                                    const qp_tokens_t *prompt_ids, prep_text_t completion,
                                    bool parse_special, qp_tokens_t *tokens, int64_t *n_prompt)
{
    qp_str_clear(&s->whole);
    qp_str_append(&s->whole, prompt.data, prompt.n);
    qp_str_append(&s->whole, completion.data, completion.n);
    QP_TRY(encode(s, (prep_text_t){s->whole.data, s->whole.n}, parse_special, tokens));
    int64_t n = 0;
    while (n < tokens->n && n < prompt_ids->n && tokens->id[n] == prompt_ids->id[n])
        n++;
    *n_prompt = n;
    end_with_eos(s, tokens);
    return NULL;
}

static void count_length(prep_sink_t *s, int kind, int64_t n)
{
    s->n_of_length[kind][n < N_LENGTH ? n : N_LENGTH - 1]++;
    s->n_token[kind] += n;
    if (n > s->longest[kind])
        s->longest[kind] = n;
}

/* Writes a sample whose sequence i has its first n_prompt[i] tokens not learned. */
static qp_error_t add(prep_sink_t *s, int kind, int64_t id, float margin,
                      const qp_tokens_t *const *sequence, const uint8_t *const *loss)
{
    const int32_t *token[2] = {0};
    int64_t n[2] = {0};
    for (int64_t i = 0; i < kind_sequences[kind]; i++) {
        token[i] = sequence[i]->id;
        n[i] = sequence[i]->n;
        if (n[i] == 0) {
            prep_sink_count(s, PREP_EMPTY_ROWS, 1);
            return NULL;
        }
        if (s->options->max_tokens > 0 && n[i] > s->options->max_tokens) {
            prep_sink_count(s, PREP_TOO_LONG, 1);
            return NULL;
        }
    }
    int split = split_of(s, id);
    QP_TRY(open_writer(s, kind, split));
    QP_TRY(qp_shard_writer_add(s->writer[kind][split], id, margin, token, loss, n));
    s->n_sample[kind][split]++;
    for (int64_t i = 0; i < kind_sequences[kind]; i++)
        count_length(s, kind, n[i]);
    return NULL;
}

/* n bytes, 0 for the first n_prompt (qp_free). */
static uint8_t *loss_after(int64_t n_prompt, int64_t n)
{
    uint8_t *loss = QP_NEW("prep", uint8_t, n);
    memset(loss + n_prompt, 1, (size_t)(n - n_prompt));
    return loss;
}

/* A normalizer may take away all that there is: nothing but BOS is no text. Counted. */
static bool is_empty(prep_sink_t *s, const qp_tokens_t *tokens)
{
    bool empty = tokens->n <= (qp_tokenizer_adds_bos(s->tokenizer) ? 1 : 0);
    prep_sink_count(s, PREP_EMPTY_ROWS, empty);
    return empty;
}

qp_error_t prep_sink_text(prep_sink_t *s, int64_t id, prep_text_t text, bool parse_special)
{
    const qp_tokens_t *sequence[] = {&s->scratch[0]};
    QP_TRY(encode(s, text, parse_special, &s->scratch[0]));
    if (is_empty(s, &s->scratch[0]))
        return NULL;
    end_with_eos(s, &s->scratch[0]);
    return add(s, PREP_SFT, id, 0.0f, sequence, NULL);
}

qp_error_t prep_sink_prompt(prep_sink_t *s, int64_t id, prep_text_t prompt, bool parse_special)
{
    const qp_tokens_t *sequence[] = {&s->scratch[0]};
    QP_TRY(encode(s, prompt, parse_special, &s->scratch[0]));
    if (is_empty(s, &s->scratch[0]))
        return NULL;
    const uint8_t *none = QP_NEW("prep", uint8_t, s->scratch[0].n);
    qp_error_t error = add(s, PREP_PROMPT, id, 0.0f, sequence, &none);
    qp_free((void *)none);
    return error;
}

/* SFT and reward samples: one prompt with one or two completions. */
static qp_error_t add_completions(prep_sink_t *s, int kind, int64_t id, float margin,
                                  prep_text_t prompt, const prep_text_t *completion,
                                  bool parse_special)
{
    const qp_tokens_t *sequence[] = {&s->scratch[1], &s->scratch[2]};
    uint8_t *loss[2] = {NULL, NULL};
    qp_error_t error = NULL;
    QP_TRY_DONE(encode(s, prompt, parse_special, &s->scratch[0]));
    for (int64_t i = 0; i < kind_sequences[kind]; i++) {
        int64_t n_prompt = 0;
        QP_TRY_DONE(encode_completion(s, prompt, &s->scratch[0], completion[i], parse_special,
                                      &s->scratch[1 + i], &n_prompt));
        loss[i] = loss_after(n_prompt, s->scratch[1 + i].n);
    }
    error = add(s, kind, id, margin, sequence, (const uint8_t *const *)loss);
done:
    qp_free(loss[0]);
    qp_free(loss[1]);
    return error;
}

qp_error_t prep_sink_completion(prep_sink_t *s, int64_t id, prep_text_t prompt,
                                prep_text_t completion, bool parse_special)
{
    return add_completions(s, PREP_SFT, id, 0.0f, prompt, &completion, parse_special);
}

qp_error_t prep_sink_pair(prep_sink_t *s, int64_t id, float margin, prep_text_t prompt,
                          const prep_text_t answer[2], bool parse_special)
{
    return add_completions(s, PREP_REWARD, id, margin, prompt, answer, parse_special);
}

qp_error_t prep_sink_chat(prep_sink_t *s, int64_t id, const qp_chat_message_t *message,
                          int64_t n_message)
{
    qp_chat_t chat = {0};
    qp_tokens_t *tokens = &s->scratch[0], *completion = &s->scratch[1];
    uint8_t *loss = NULL;
    qp_error_t error = NULL;
    tokens->n = completion->n = 0;
    QP_TRY_DONE(qp_chat_render(s->tokenizer, message, n_message, false, &chat));
    QP_TRY_DONE(qp_chat_encode(s->tokenizer, &chat, tokens, completion));
    /* What a template writes behind the last answer (ChatML: a line end) is never generated. */
    int64_t n = tokens->n;
    while (n > 0 && completion->id[n - 1] == 0)
        n--;
    if (n > 0)
        tokens->n = n;
    end_with_eos(s, tokens);
    loss = QP_NEW("prep", uint8_t, tokens->n);
    for (int64_t i = 0; i < tokens->n; i++)
        loss[i] = i >= n || completion->id[i] != 0;
    error = add(s, PREP_SFT, id, 0.0f, (const qp_tokens_t *const[]){tokens},
                (const uint8_t *const[]){loss});
done:
    qp_free(loss);
    qp_chat_fini(&chat);
    return error;
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
#define PREP_COUNT_TEXT(id, text) text,
    static const char *const count_text[] = {PREP_COUNTS(PREP_COUNT_TEXT)};
#undef PREP_COUNT_TEXT
    qp_comm_sum_i64(s->comm, s->count, PREP_N_COUNT);
    for (int i = 0; i < PREP_N_COUNT; i++)
        if (s->count[i] > 0)
            qp_log_info("%lld %s", (long long)s->count[i], count_text[i]);
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

qp_error_t prep_sink_commit(prep_sink_t *s)
{
    qp_error_t error = NULL;
    int64_t n_all = 0;
    qp_comm_sum_i64(s->comm, &s->n_sample[0][0], (int64_t)PREP_N_KIND * N_SPLIT);
    for (int i = 0; i < PREP_N_KIND * N_SPLIT; i++)
        n_all += s->n_sample[i / N_SPLIT][i % N_SPLIT];
    if (n_all == 0)
        error = QP_ERROR(QP_INPUT, "%s: nothing in it makes a sample", s->source);
    else
        error = finish_shards(s);
    QP_TRY(qp_comm_agree(s->comm, error));
    for (int kind = 0; kind < PREP_N_KIND && error == NULL; kind++)
        for (int split = 0; split < N_SPLIT && error == NULL; split++)
            if (s->writer[kind][split] != NULL)
                error = qp_shard_writer_commit(&s->writer[kind][split]);
    QP_TRY(qp_comm_agree(s->comm, error));
    report(s);
    return NULL;
}
