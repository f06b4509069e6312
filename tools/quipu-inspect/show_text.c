/* The samples of a shard as text, a row of JSON each: what a model is going to read. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "inspect.h"
#include "model/base/base_file.h"
#include "text/tokenizer.h"

typedef struct {
    const char *path;
    qp_h5_t *file;
    qp_tokenizer_t *tokenizer;
    char *kind;
    int64_t n_sample, n_side; /* sequences of a sample */
} shard_t;

/* A sequence, cut where its first token is learned; for prompts that is their end. */
typedef struct {
    qp_str_t whole;
    size_t n_prompt; /* bytes of whole */
} sequence_t;

static qp_error_t read_tokenizer(const char *base, qp_tokenizer_t **tokenizer)
{
    qp_base_info_t info;
    qp_error_t error = qp_base_header_read(base, &info, tokenizer);
    qp_base_info_fini(&info);
    return error;
}

static qp_error_t check_tokenizer(const shard_t *s, const char *base)
{
    int64_t id;
    QP_TRY(qp_h5_attr_get_i64(s->file, "/", "tokenizer_id", &id));
    if ((uint64_t)id == qp_tokenizer_id(s->tokenizer))
        return NULL;
    return QP_ERROR(QP_INPUT, "%s was made with tokenizer %016llx, %s has %016llx", s->path,
                    (unsigned long long)id, base,
                    (unsigned long long)qp_tokenizer_id(s->tokenizer));
}

static qp_error_t open_shard(shard_t *s, const char *base)
{
    QP_TRY(read_tokenizer(base, &s->tokenizer));
    QP_TRY(qp_h5_open(s->path, NULL, &s->file));
    QP_TRY(qp_h5_format_check(s->file, "shard", 1));
    QP_TRY(qp_h5_verify(s->file)); /* offsets and ids are trusted from here on */
    QP_TRY(check_tokenizer(s, base));
    QP_TRY(qp_h5_attr_get_str(s->file, "/", "kind", &s->kind));
    QP_TRY(qp_h5_attr_get_i64(s->file, "/", "n_sample", &s->n_sample));
    return qp_h5_attr_get_i64(s->file, "/", "sequences_per_sample", &s->n_side);
}

static qp_error_t close_shard(shard_t *s)
{
    qp_tokenizer_destroy(&s->tokenizer);
    qp_free(s->kind);
    return s->file != NULL ? qp_h5_close(&s->file) : NULL;
}

/* --- samples ---------------------------------------------------------------------------------- */

/* The part behind the prompt is what the whole text has more, since a tokenizer may write a token
 * in another way where it stands first. */
static qp_error_t decode(const shard_t *s, const int32_t *id, int64_t n, int64_t n_prompt,
                         sequence_t *sequence)
{
    qp_str_t prompt = {0};
    qp_str_clear(&sequence->whole);
    qp_error_t error = qp_tokenizer_decode(s->tokenizer, id, n, true, &sequence->whole);
    if (error == NULL)
        error = qp_tokenizer_decode(s->tokenizer, id, n_prompt, true, &prompt);
    sequence->n_prompt = 0;
    if (prompt.n > 0 && prompt.n <= sequence->whole.n &&
        memcmp(prompt.data, sequence->whole.data, prompt.n) == 0)
        sequence->n_prompt = prompt.n;
    qp_str_fini(&prompt);
    return error;
}

static qp_error_t read_sequence(const shard_t *s, int64_t number, sequence_t *sequence)
{
    int64_t at[2], n_prompt = 0;
    QP_TRY(qp_h5_read(s->file, "/offsets", QP_I64, number, 2, at));
    int64_t n = at[1] - at[0];
    if (n < 0)
        return QP_ERROR(QP_INPUT, "%s: /offsets: sequence %lld ends before it begins", s->path,
                        (long long)number);
    int32_t *id = QP_NEW("text", int32_t, n);
    uint8_t *loss = QP_NEW("text", uint8_t, n);
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_h5_read(s->file, "/tokens", QP_I32, at[0], n, id));
    QP_TRY_DONE(qp_h5_read(s->file, "/loss", QP_U8, at[0], n, loss));
    while (n_prompt < n && loss[n_prompt] == 0)
        n_prompt++;
    while (n > n_prompt && loss[n - 1] == 0)
        n--; /* what a chat template writes behind the last answer */
    error = decode(s, id, n, n_prompt, sequence);
done:
    qp_free(id);
    qp_free(loss);
    return error;
}

static void set_text(json_t *row, const char *key, const char *text, size_t n)
{
    json_object_set_new(row, key, json_stringn(n > 0 ? text : "", n));
}

static bool same_prompt(const sequence_t *a, const sequence_t *b)
{
    const size_t n = a->n_prompt;
    return n == b->n_prompt && (n == 0 || memcmp(a->whole.data, b->whole.data, n) == 0);
}

/* Keys as quipu-prep's source "jsonl" reads them: what has no prompt, or none in common, is shown
 * whole. */
static void set_texts(const shard_t *s, const sequence_t *side, json_t *row)
{
    static const char *const of_pair[] = {"chosen", "rejected"};
    const bool is_pair = s->n_side > 1, is_prompt = strcmp(s->kind, "prompt") == 0;
    const bool has_prompt =
        is_prompt || (is_pair ? same_prompt(&side[0], &side[1]) : side[0].n_prompt > 0);
    const size_t from = has_prompt ? side[0].n_prompt : 0;
    if (has_prompt)
        set_text(row, "prompt", side[0].whole.data, from);
    for (int64_t k = 0; k < s->n_side && !is_prompt; k++)
        set_text(row,
                 is_pair      ? of_pair[k]
                 : has_prompt ? "completion"
                              : "text",
                 side[k].whole.data + from, side[k].whole.n - from);
}

static qp_error_t fill_row(const shard_t *s, int64_t i, sequence_t *side, json_t *row)
{
    for (int64_t k = 0; k < s->n_side; k++)
        QP_TRY(read_sequence(s, i * s->n_side + k, &side[k]));
    set_texts(s, side, row);
    if (s->n_side > 1) {
        float margin;
        QP_TRY(qp_h5_read(s->file, "/margin", QP_F32, i, 1, &margin));
        json_object_set_new(row, "margin", json_real((double)margin));
    }
    int64_t id;
    QP_TRY(qp_h5_read(s->file, "/id", QP_I64, i, 1, &id));
    json_object_set_new(row, "id", json_integer(id));
    return NULL;
}

static qp_error_t print_sample(const shard_t *s, int64_t i, sequence_t *side)
{
    json_t *row = json_object();
    qp_error_t error = fill_row(s, i, side, row);
    char *line = error == NULL
                     ? json_dumps(row, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(7))
                     : NULL;
    if (error == NULL && line == NULL)
        error = QP_ERROR(QP_INTERNAL, "sample %lld cannot be written as JSON", (long long)i);
    else if (error == NULL && puts(line) < 0)
        error = QP_ERROR(QP_IO, "standard output cannot be written");
    free(line);
    json_decref(row);
    return error;
}

qp_error_t qp_show_text(const char *path, const char *base)
{
    shard_t s = {.path = path};
    sequence_t side[2] = {0};
    qp_error_t error = open_shard(&s, base);
    if (error == NULL && s.n_side != 1 && s.n_side != 2)
        error = QP_ERROR(QP_INPUT, "%s: %lld sequences per sample: expected 1 or 2", path,
                         (long long)s.n_side);
    for (int64_t i = 0; i < s.n_sample && error == NULL; i++)
        error = print_sample(&s, i, side);
    qp_str_fini(&side[0].whole);
    qp_str_fini(&side[1].whole);
    qp_error_t closing = close_shard(&s);
    qp_error_destroy(&closing); /* nothing was written */
    return error;
}
