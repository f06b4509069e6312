#include "train/micro/sequences.h"

#include <string.h>

#include "base/mem.h"

void qp_sequences_init(qp_sequences_t *s, int64_t n)
{
    *s = (qp_sequences_t){.max_token = n,
                          .token = QP_NEW("sequences", int32_t, n),
                          .target = QP_NEW("sequences", int32_t, n),
                          .position = QP_NEW("sequences", int32_t, n),
                          .cu_seqlens = QP_NEW("sequences", int32_t, n + 1),
                          .sample = QP_NEW("sequences", uint32_t, n),
                          .valued = QP_NEW("sequences", uint8_t, n),
                          .logprob = QP_NEW("sequences", float, n),
                          .entropy = QP_NEW("sequences", float, n),
                          .value = QP_NEW("sequences", float, n),
                          .dlogprob = QP_NEW("sequences", float, n),
                          .dvalue = QP_NEW("sequences", float, n)};
}

void qp_sequences_fini(qp_sequences_t *s)
{
    void *all[] = {s->token,   s->target,  s->position, s->cu_seqlens, s->sample, s->valued,
                   s->logprob, s->entropy, s->value,    s->dlogprob,   s->dvalue};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        qp_free(all[i]);
    *s = (qp_sequences_t){0};
}

void qp_sequences_clear(qp_sequences_t *s)
{
    s->n_token = s->n_seq = 0;
}

static void add_token(qp_sequences_t *s, int32_t token, uint32_t sample)
{
    const int64_t t = s->n_token++;
    QP_ASSERT(t < s->max_token);
    s->token[t] = token;
    s->target[t] = -1;
    s->position[t] = (int32_t)(t - s->cu_seqlens[s->n_seq]);
    s->sample[t] = sample;
    s->valued[t] = 0;
    s->dlogprob[t] = s->dvalue[t] = 0.0f;
}

void qp_sequences_add(qp_sequences_t *s, const int32_t *token, int64_t n, int64_t n_query,
                      int32_t added, uint32_t sample)
{
    s->cu_seqlens[s->n_seq] = (int32_t)s->n_token;
    for (int64_t i = 0; i < n; i++) {
        add_token(s, token[i], sample);
        if (i >= n_query && i > 0)
            s->target[s->n_token - 2] = token[i];
    }
    if (added >= 0)
        add_token(s, added, sample);
    s->cu_seqlens[++s->n_seq] = (int32_t)s->n_token;
}

qp_model_batch_t qp_sequences_batch(const qp_sequences_t *s)
{
    return (qp_model_batch_t){.n_token = s->n_token,
                              .n_seq = s->n_seq,
                              .token = s->token,
                              .target = s->target,
                              .position = s->position,
                              .cu_seqlens = s->cu_seqlens,
                              .sample = s->sample,
                              .valued = s->valued};
}
