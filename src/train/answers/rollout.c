#include "train/answers/rollout.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Length of a response: uniform on [min, max], drawn per sequence. */
static int64_t draw_length(const qp_rollout_config_t *config, uint32_t seed, uint32_t sample)
{
    const qp_philox_key_t key = {
        .seed = seed, .step = config->step, .sample = sample, .site = QP_SITE_LENGTH};
    uint32_t word[4];
    qp_philox(&key, 0, word);
    const uint64_t n = (uint64_t)(config->max_length - config->min_length + 1);
    return config->min_length + (int64_t)((uint64_t)word[0] * n >> 32);
}

/* The engine's requests of this rank; answered. Rank-local. */
static qp_error_t answer(const qp_answerer_t *who, const qp_queries_t *queries,
                         const qp_rollout_config_t *config, qp_request_t *request)
{
    const qp_philox_key_t key = {.seed = who->seed, .step = config->step};
    const qp_eos_t none = {0}, *eos = config->stop_at_eos ? &who->eos : &none;
    for (int64_t i = 0; i < queries->n; i++) {
        const uint32_t sample = (uint32_t)(config->draw * queries->n_global + queries->first + i);
        request[i] = (qp_request_t){.prompt = queries->id[i],
                                    .n_prompt = queries->n_id[i],
                                    .max_new_tokens = draw_length(config, who->seed, sample),
                                    .sample = sample};
    }
    if (queries->n == 0)
        return NULL;
    return qp_engine_run(who->engine, &who->role, request, queries->n, eos, &key);
}

/* Everybody's n elements of type \a dtype, in the order of the ranks. */
static void *gather(qp_comm_t *comm, const void *mine, int64_t n, qp_dtype_t dtype)
{
    void *all = NULL;
    int64_t *count = QP_NEW("rollout", int64_t, qp_comm_size(comm));
    qp_comm_allgatherv(comm, mine, n, dtype, &all, count);
    qp_free(count);
    return all;
}

/* This rank's sequences, one after another. */
typedef struct {
    int64_t *length, *n_query; /* [n] */
    uint8_t *stopped;          /* [n] */
    int32_t *token;
    float *logprob;
    int64_t n_token, n_response;
} packed_t;

static packed_t pack(const qp_request_t *request, int64_t n)
{
    packed_t p = {.length = QP_NEW("rollout", int64_t, n),
                  .n_query = QP_NEW("rollout", int64_t, n),
                  .stopped = QP_NEW("rollout", uint8_t, n)};
    for (int64_t i = 0; i < n; i++) {
        p.n_token += request[i].n_prompt + request[i].n_token;
        p.n_response += request[i].n_token;
    }
    p.token = QP_NEW("rollout", int32_t, p.n_token);
    p.logprob = QP_NEW("rollout", float, p.n_response);
    int32_t *token = p.token;
    float *logprob = p.logprob;
    for (int64_t i = 0; i < n; i++) {
        const qp_request_t *r = &request[i];
        p.length[i] = r->n_prompt + r->n_token;
        p.n_query[i] = r->n_prompt;
        p.stopped[i] = r->stopped;
        memcpy(token, r->prompt, qp_bytes(r->n_prompt, sizeof *token));
        memcpy(token + r->n_prompt, r->token, qp_bytes(r->n_token, sizeof *token));
        memcpy(logprob, r->logprob, qp_bytes(r->n_token, sizeof *logprob));
        token += p.length[i];
        logprob += r->n_token;
    }
    return p;
}

/* Collective. */
static void exchange(qp_comm_t *comm, const packed_t *mine, const qp_queries_t *queries,
                     qp_rollout_t *r)
{
    const int64_t n_global = queries->n_global;
    int64_t *length = gather(comm, mine->length, queries->n, QP_I64);
    *r = (qp_rollout_t){.n_seq = n_global,
                        .first = QP_NEW("rollout", int64_t, n_global + 1),
                        .cu = QP_NEW("rollout", int64_t, n_global + 1),
                        .n_query = gather(comm, mine->n_query, queries->n, QP_I64),
                        .stopped = gather(comm, mine->stopped, queries->n, QP_U8),
                        .token = gather(comm, mine->token, mine->n_token, QP_I32),
                        .logprob = gather(comm, mine->logprob, mine->n_response, QP_F32)};
    for (int64_t s = 0; s < n_global; s++) {
        r->first[s + 1] = r->first[s] + length[s];
        r->cu[s + 1] = r->cu[s] + length[s] - r->n_query[s];
    }
    r->n_token = r->cu[n_global];
    qp_free(length);
}

qp_error_t qp_rollout_run(const qp_answerer_t *who, const qp_queries_t *queries,
                          const qp_rollout_config_t *config, qp_rollout_t *rollout)
{
    const int64_t n = queries->n;
    qp_request_t *request = QP_NEW("rollout", qp_request_t, n);
    *rollout = (qp_rollout_t){0};
    qp_error_t error = qp_comm_agree(who->comm, answer(who, queries, config, request));
    if (error == NULL) {
        packed_t mine = pack(request, n);
        exchange(who->comm, &mine, queries, rollout);
        qp_free(mine.length);
        qp_free(mine.n_query);
        qp_free(mine.stopped);
        qp_free(mine.token);
        qp_free(mine.logprob);
    }
    for (int64_t i = 0; i < n; i++) {
        qp_free(request[i].token);
        qp_free(request[i].logprob);
    }
    qp_free(request);
    return error;
}

void qp_rollout_fini(qp_rollout_t *r)
{
    qp_free(r->first);
    qp_free(r->n_query);
    qp_free(r->cu);
    qp_free(r->token);
    qp_free(r->logprob);
    qp_free(r->stopped);
    *r = (qp_rollout_t){0};
}

qp_error_t qp_rollout_text(const qp_rollout_t *r, const qp_tokenizer_t *tokenizer, int64_t seq,
                           bool response, qp_str_t *text)
{
    const int32_t *token = r->token + r->first[seq];
    const int64_t n_query = r->n_query[seq];
    qp_str_clear(text);
    return qp_tokenizer_decode(tokenizer, token + (response ? n_query : 0),
                               response ? qp_rollout_n_response(r, seq) : n_query, true, text);
}

qp_error_t qp_rollout_line(const qp_rollout_t *r, const qp_tokenizer_t *tokenizer, int64_t seq,
                           json_t *object, qp_str_t *lines)
{
    static const char *const key[] = {"query", "response"};
    qp_str_t text = {0};
    char *line = NULL;
    qp_error_t error = NULL;
    for (int i = 0; i < 2; i++) {
        QP_TRY_DONE(qp_rollout_text(r, tokenizer, seq, i == 1, &text));
        json_object_set_new(object, key[i], json_stringn(text.n > 0 ? text.data : "", text.n));
    }
    json_object_set_new(object, "n_token", json_integer(qp_rollout_n_response(r, seq)));
    json_object_set_new(object, "stopped", json_boolean(r->stopped[seq]));
    line = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(7));
    if (line == NULL)
        error = QP_ERROR(QP_INTERNAL, "an answer cannot be written as JSON");
    else
        qp_str_printf(lines, "%s\n", line);
done:
    free(line);
    json_decref(object);
    qp_str_fini(&text);
    return error;
}
