/* A source with an adapter folded in: W + scaling B A in fp32 (doc/numerics.md, LoRA). */
#include <omp.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "import/source_impl.h"

typedef struct {
    qp_source_t *onto; /* owned by the caller */
    const qp_peft_t *peft;
    float *delta; /* [n_thread, columns of the widest linear] */
    int64_t max_col;
    const qp_peft_pair_t **pair; /* [n_spec] the pair of each tensor, or NULL */
} merged_t;

static const qp_peft_pair_t *pair_of(const qp_peft_t *peft, const char *tensor)
{
    char name[sizeof((qp_tensor_spec_t *)0)->name];
    for (int64_t i = 0; i < peft->n_pair; i++) {
        qp_linear_tensor_name(peft->pair[i].layer, peft->pair[i].linear, name);
        if (strcmp(name, tensor) == 0)
            return &peft->pair[i];
    }
    return NULL;
}

/* row += scaling * b A; the sum over r is made apart, so that it is not rounded to the weight's
 * size. */
static void add_delta(const qp_peft_t *peft, const qp_peft_pair_t *pair, int64_t row, float *delta,
                      float *weight)
{
    const float *b = pair->b + row * peft->r;
    float scaling = (float)qp_peft_scaling(peft);
    memset(delta, 0, (size_t)pair->n_in * sizeof *delta);
    for (int64_t k = 0; k < peft->r; k++) {
        const float *a = pair->a + k * pair->n_in;
        float factor = b[k];
        for (int64_t j = 0; j < pair->n_in; j++)
            delta[j] += factor * a[j];
    }
    for (int64_t j = 0; j < pair->n_in; j++)
        weight[j] += scaling * delta[j];
}

static qp_error_t merged_rows(qp_source_t *source, int64_t spec, int64_t first, int64_t n_row,
                              float *rows)
{
    const merged_t *merged = source->self;
    const qp_peft_pair_t *pair = merged->pair[spec];
    int64_t n_col = source->spec[spec].n_col;
    QP_TRY(qp_source_rows(merged->onto, spec, first, n_row, rows));
    if (pair == NULL)
        return NULL;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_row; i++)
        add_delta(merged->peft, pair, first + i,
                  merged->delta + omp_get_thread_num() * merged->max_col, rows + i * n_col);
    return NULL;
}

static const char *merged_file(const qp_source_t *source, int64_t spec)
{
    (void)spec;
    return source->name;
}

static void merged_close(qp_source_t *source)
{
    merged_t *merged = source->self;
    qp_free(merged->delta);
    qp_free(merged->pair);
    qp_free(merged);
}

static const qp_source_kind_t kind = {
    .rows = merged_rows, .file = merged_file, .close = merged_close};

/* The blobs of a tokenizer, copied. */
static void copy_tokenizer(const qp_tokenizer_files_t *from, qp_tokenizer_files_t *to)
{
    memcpy(to->kind, from->kind, sizeof to->kind);
    const struct {
        const void *from;
        size_t n_bytes;
        void **to;
    } blobs[] = {{from->model, from->model_bytes, &to->model},
                 {from->config, from->config_bytes, &to->config}};
    for (size_t i = 0; i < sizeof blobs / sizeof blobs[0]; i++)
        if (blobs[i].from != NULL)
            *blobs[i].to =
                memcpy(qp_alloc("source", blobs[i].n_bytes + 1), blobs[i].from, blobs[i].n_bytes);
    to->model_bytes = from->model_bytes;
    to->config_bytes = from->config_bytes;
}

void qp_source_merged(qp_source_t *onto, const qp_peft_t *peft, qp_source_t **source)
{
    qp_source_t *s = QP_NEW("source", qp_source_t, 1);
    merged_t *merged = QP_NEW("source", merged_t, 1);
    s->kind = &kind;
    s->self = merged;
    s->name = qp_format("%s with an adapter", onto->name);
    s->config = onto->config;
    copy_tokenizer(&onto->tokenizer, &s->tokenizer);
    s->generation = onto->generation != NULL ? qp_strdup(onto->generation) : NULL;
    s->n_score = peft->score != NULL ? peft->n_score : onto->n_score;
    const float *score = peft->score != NULL ? peft->score : onto->score;
    if (score != NULL) {
        size_t bytes = qp_bytes(s->n_score * s->config.d_model, sizeof *score);
        s->score = memcpy(qp_alloc("source", bytes), score, bytes);
    }
    qp_llama_tensors(&s->config, &s->spec, &s->n_spec);
    merged->onto = onto;
    merged->peft = peft;
    merged->pair = QP_NEW("source", const qp_peft_pair_t *, s->n_spec);
    for (int64_t i = 0; i < s->n_spec; i++) {
        merged->pair[i] = pair_of(peft, s->spec[i].name);
        if (s->spec[i].n_col > merged->max_col)
            merged->max_col = s->spec[i].n_col;
    }
    merged->delta = QP_NEW("source", float, omp_get_max_threads() * merged->max_col);
    *source = s;
}
