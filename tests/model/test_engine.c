/* QP_TEST: isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16 check=0,1,2
 * Generation: against the plain forward pass, and independent of what is decoded together, to the
 * bit. */
#include <math.h>
#include <stdlib.h>

#include "model/engine/engine.h"
#include "tiny.h"

enum { N_REQUEST = 7, MAX_LENGTH = 100 };
static const int N_PROMPT[N_REQUEST] = {5, 1, 33, 64, 12, 31, 32};
static const int N_NEW[N_REQUEST] = {20, 30, 3, 30, 1, 25, 17};

typedef struct {
    int32_t prompt[N_REQUEST][MAX_LENGTH];
    qp_request_t request[N_REQUEST];
} answers_t;

static const qp_eos_t NONE = {0};

static void ask(const tiny_setup_t *s, const qp_lora_config_t *lora,
                const qp_generate_config_t *config, qp_eos_t eos, answers_t *out)
{
    qp_engine_t *engine;
    qp_role_t role = {s->base, s->adapter};
    qp_philox_key_t key = {.seed = 5, .step = 9};
    memset(out, 0, sizeof *out);
    for (int i = 0; i < N_REQUEST; i++) {
        char name[32];
        snprintf(name, sizeof name, "prompt.%d", i);
        for (int t = 0; t < N_PROMPT[i]; t++)
            out->prompt[i][t] = (int32_t)(tiny_word(name, t) % 96);
        out->request[i] = (qp_request_t){.prompt = out->prompt[i],
                                         .n_prompt = N_PROMPT[i],
                                         .max_new_tokens = N_NEW[i],
                                         .sample = (uint32_t)i};
    }
    CHECK_OK(qp_engine_create(s->base, lora, config, MAX_LENGTH, NULL, &engine));
    CHECK_OK(qp_engine_run(engine, &role, out->request, N_REQUEST, &eos, &key));
    qp_engine_destroy(&engine);
}

static void forget(answers_t *answers)
{
    for (int i = 0; i < N_REQUEST; i++) {
        qp_free(answers->request[i].token);
        qp_free(answers->request[i].logprob);
    }
}

/* The same tokens and the same bits of their log-probabilities. */
static void check_same(const qp_request_t *a, const qp_request_t *b, int n, const char *what)
{
    for (int i = 0; i < n; i++) {
        const qp_request_t *x = &a[i], *y = &b[i];
        CHECK_MSG(x->n_token == y->n_token && x->stopped == y->stopped, "%s: request %d", what, i);
        for (int64_t t = 0; t < x->n_token && t < y->n_token; t++) {
            CHECK_MSG(x->token[t] == y->token[t], "%s: request %d, token %d", what, i, (int)t);
            CHECK_MSG(memcmp(&x->logprob[t], &y->logprob[t], sizeof *x->logprob) == 0,
                      "%s: request %d, token %d: log-probabilities %.9g and %.9g", what, i, (int)t,
                      (double)x->logprob[t], (double)y->logprob[t]);
        }
    }
}

/* Every generated token must be the likeliest after its prefix in one forward pass over the whole
 * sequence, with the log-probability the engine gave. */
static void check_against_forward(const tiny_setup_t *s, qp_workspace_t *ws, const qp_request_t *r)
{
    int64_t n = r->n_prompt + r->n_token, n_vocab = s->base->config.n_vocab;
    int32_t token[MAX_LENGTH], target[MAX_LENGTH], position[MAX_LENGTH];
    int32_t cu_seqlens[2] = {0, (int32_t)n};
    uint32_t sample[MAX_LENGTH] = {0};
    float logprob[MAX_LENGTH];
    double loss;
    qp_dptr_t logits;
    qp_role_t role = {s->base, s->adapter};
    qp_pass_t pass = {0};
    for (int64_t t = 0; t < n; t++) {
        token[t] = t < r->n_prompt ? r->prompt[t] : r->token[t - r->n_prompt];
        position[t] = (int32_t)t;
        target[t] = -1;
        if (t > 0)
            target[t - 1] = token[t];
    }
    qp_model_batch_t batch = {.n_token = n,
                              .n_seq = 1,
                              .token = token,
                              .target = target,
                              .position = position,
                              .cu_seqlens = cu_seqlens,
                              .sample = sample};
    CHECK_OK(qp_model_step(ws, &role, &batch, &pass, 0.0f, &loss, logprob));
    CHECK_OK(s->device->ops->alloc(s->device, "test", (size_t)(n * n_vocab) * 4, &logits));
    CHECK_OK(s->device->ops->lm_logits(qp_device_queue(s->device),
                                       qp_mat(logits, QP_F32, n, n_vocab), qp_model_hidden(ws),
                                       &s->base->lm_head));
    float *row = tiny_download(s->device, logits, n * n_vocab);
    for (int64_t i = 0; i < r->n_token; i++) {
        int64_t t = r->n_prompt + i - 1, best = 0;
        for (int64_t v = 1; v < n_vocab; v++)
            best = row[t * n_vocab + v] > row[t * n_vocab + best] ? v : best;
        CHECK_MSG(r->token[i] == best, "token %d", (int)i);
        CHECK(fabsf(r->logprob[i] - logprob[t]) < 1e-4f);
    }
    qp_free(row);
    s->device->ops->release(s->device, &logits);
}

static void test_greedy_is_the_argmax_of_forward(const tiny_setup_t *s,
                                                 const qp_lora_config_t *lora)
{
    answers_t answers;
    qp_workspace_t *ws;
    /* Without do_sample the keys of sampling do nothing; the deck's own temperature is 1. */
    qp_generate_config_t config = {.max_new_tokens = 8,
                                   .max_active = 4,
                                   .max_prefill = 40,
                                   .temperature = 1.0,
                                   .top_k = 5,
                                   .top_p = 0.9};
    CHECK_OK(qp_workspace_create(s->base, lora, MAX_LENGTH, QP_RECOMPUTE_LAYER, &ws));
    ask(s, lora, &config, NONE, &answers);
    for (int i = 0; i < N_REQUEST; i++) {
        CHECK(answers.request[i].n_token == N_NEW[i] && !answers.request[i].stopped);
        check_against_forward(s, ws, &answers.request[i]);
    }
    forget(&answers);
    qp_workspace_destroy(&ws);
}

static void test_answers_do_not_depend_on_company(const tiny_setup_t *s,
                                                  const qp_lora_config_t *lora)
{
    static const int64_t ACTIVE[] = {2, 3, 16}, PREFILL[] = {1, 64, 1000};
    for (int sampled = 0; sampled < 2; sampled++) {
        answers_t one, many;
        qp_generate_config_t config = {.max_new_tokens = 8,
                                       .temperature = 0.9,
                                       .top_p = 0.95,
                                       .top_k = 40,
                                       .do_sample = sampled != 0,
                                       .max_active = 1,
                                       .max_prefill = 64};
        ask(s, lora, &config, NONE, &one);
        for (int i = 0; i < 3; i++) {
            config.max_active = ACTIVE[i];
            config.max_prefill = PREFILL[i];
            ask(s, lora, &config, NONE, &many);
            check_same(one.request, many.request, N_REQUEST, "few");
            forget(&many);
        }
        forget(&one);
    }
}

static void test_eos_ends_an_answer(const tiny_setup_t *s, const qp_lora_config_t *lora)
{
    answers_t whole, cut;
    qp_generate_config_t config = {.max_new_tokens = 8, .max_active = 3, .max_prefill = 64};
    ask(s, lora, &config, NONE, &whole);
    const qp_eos_t eos = {2, {whole.request[1].token[2], whole.request[0].token[4]}};
    ask(s, lora, &config, eos, &cut);
    for (int i = 0; i < N_REQUEST; i++) {
        const qp_request_t *full = &whole.request[i], *r = &cut.request[i];
        int64_t n = 0;
        while (n < full->n_token && !qp_eos_has(&eos, full->token[n]))
            n++;
        bool found = n < full->n_token;
        CHECK(r->stopped == found && r->n_token == (found ? n + 1 : n));
        CHECK(memcmp(r->token, full->token, (size_t)r->n_token * sizeof *r->token) == 0);
    }
    CHECK(cut.request[0].stopped && cut.request[1].stopped); /* each by an id of its own */
    forget(&whole);
    forget(&cut);
}

/* An element of a key or value is off by at most 1/254 of its head's largest, about 0.6% of its
 * usual size: so are scores and values, and logits of size 5 by a few hundredths. Compared as long
 * as the tokens are the same: the first one in any case. */
static void test_int8_cache_is_close(const tiny_setup_t *s, const qp_lora_config_t *lora)
{
    answers_t exact, close;
    int64_t n_same = 0, n_all = 0;
    qp_generate_config_t config = {.max_new_tokens = 8, .max_active = 3, .max_prefill = 64};
    ask(s, lora, &config, NONE, &exact);
    config.kv_cache_dtype = QP_KV_CACHE_INT8;
    ask(s, lora, &config, NONE, &close);
    for (int i = 0; i < N_REQUEST; i++) {
        const qp_request_t *x = &exact.request[i], *y = &close.request[i];
        n_all += x->n_token;
        for (int64_t t = 0; t < x->n_token && x->token[t] == y->token[t]; t++, n_same++)
            CHECK_MSG(fabsf(x->logprob[t] - y->logprob[t]) < 0.05f, "request %d, token %d: %g", i,
                      (int)t, (double)fabsf(x->logprob[t] - y->logprob[t]));
    }
    CHECK_MSG(n_same > n_all / 2, "%d of %d tokens before the first other one", (int)n_same,
              (int)n_all);
    forget(&exact);
    forget(&close);
}

/* Of a token's head, fp32 takes 4 E bytes and int8 E + 4; nothing else changes. */
static void test_int8_cache_is_small(const tiny_setup_t *s, const qp_lora_config_t *lora)
{
    const qp_llama_config_t *c = &s->base->config;
    const int64_t n_row = 3 * 128; /* MAX_LENGTH in blocks of 32 */
    qp_generate_config_t config = {.max_new_tokens = 8, .max_active = 3, .max_prefill = 64};
    const qp_base_shape_t shape = qp_base_shape(s->base);
    const size_t exact = qp_engine_bytes(&shape, lora, &config, MAX_LENGTH);
    config.kv_cache_dtype = QP_KV_CACHE_INT8;
    const size_t close = qp_engine_bytes(&shape, lora, &config, MAX_LENGTH);
    CHECK((int64_t)(exact - close) ==
          2 * c->n_layer * n_row * c->n_kv_head * (4 * c->head_dim - c->head_dim - 4));
}

/* Answers of nearly equal tokens: how many end before the fifth, how many after. */
static void count_ends(const tiny_setup_t *s, int64_t min_new_tokens, int *early, int *late)
{
    enum { N = 300, FIFTH = 5 };
    static const qp_eos_t eos = {2, {7, 50}};
    static const int32_t prompt[] = {3, 14, 15};
    qp_generate_config_t config = {.max_new_tokens = 10,
                                   .min_new_tokens = min_new_tokens,
                                   .do_sample = true,
                                   .temperature = 1e4,
                                   .top_p = 1.0,
                                   .max_active = 32,
                                   .max_prefill = 64};
    qp_engine_t *engine;
    qp_role_t role = {s->base, NULL};
    qp_philox_key_t key = {.seed = 4};
    qp_request_t *request = QP_NEW("test", qp_request_t, N);
    for (uint32_t i = 0; i < N; i++)
        request[i] = (qp_request_t){.prompt = prompt, .n_prompt = 3, .sample = i};
    CHECK_OK(qp_engine_create(s->base, NULL, &config, 13, NULL, &engine));
    CHECK_OK(qp_engine_run(engine, &role, request, N, &eos, &key));
    *early = *late = 0;
    for (int i = 0; i < N; i++) {
        *early += request[i].stopped && request[i].n_token < FIFTH;
        *late += request[i].stopped && request[i].n_token >= FIFTH;
        for (int64_t t = 0; t + 1 < request[i].n_token; t++)
            CHECK(!qp_eos_has(&eos, request[i].token[t]));
        qp_free(request[i].token);
        qp_free(request[i].logprob);
    }
    qp_free(request);
    qp_engine_destroy(&engine);
}

static void test_min_new_tokens(const tiny_setup_t *s)
{
    int early, late;
    count_ends(s, 0, &early, &late);
    CHECK_MSG(early > 0 && late > 0, "%d and %d", early, late);
    count_ends(s, 5, &early, &late);
    CHECK_MSG(early == 0 && late > 0, "%d and %d", early, late);
    count_ends(s, 10, &early, &late);
    CHECK_MSG(early == 0 && late == 0, "%d and %d", early, late);
}

static void test_bad_requests_are_refused(const tiny_setup_t *s)
{
    static const int32_t prompt[] = {3, 96};
    qp_engine_t *engine;
    qp_role_t role = {s->base, NULL};
    qp_philox_key_t key = {0};
    qp_generate_config_t config = {.max_new_tokens = 8, .max_active = 2, .max_prefill = 8};
    CHECK_FAILS(qp_engine_create(s->base, NULL, &config, 1000, NULL, &engine), QP_INPUT,
                "128 positions");
    CHECK_OK(qp_engine_create(s->base, NULL, &config, 20, NULL, &engine));
    qp_request_t request = {.prompt = prompt, .n_prompt = 0};
    CHECK_FAILS(qp_engine_run(engine, &role, &request, 1, &NONE, &key), QP_INPUT,
                "prompt 0 is empty");
    request.n_prompt = 13;
    CHECK_FAILS(qp_engine_run(engine, &role, &request, 1, &NONE, &key), QP_INPUT, "13 tokens");
    request.n_prompt = 2;
    CHECK_FAILS(qp_engine_run(engine, &role, &request, 1, &NONE, &key), QP_INPUT, "token 96");
    request.n_prompt = 1;
    CHECK_OK(qp_engine_run(engine, &role, &request, 1, &NONE, &key)); /* the engine still works */
    CHECK(request.n_token == 8);
    qp_free(request.token);
    qp_free(request.logprob);
    qp_engine_destroy(&engine);
}

/* --- many prompts, whatever the precision ----------------------------------------------------- */

/*
 * Ragged prompts, every third with a beginning that others have too (and so wanting to share it),
 * one that is such a beginning, twice the same one. With bf16 and int8, rows of a product that
 * would be rounded otherwise in another company show in the last bits of log-probabilities, now and
 * then in a token.
 */
#ifdef __SANITIZE_ADDRESS__ /* ten times as slow */
enum { N_MANY = 8, N_ANSWER = 6 };
#else
enum { N_MANY = 24, N_ANSWER = 16 };
#endif
enum { N_COMMON = 40, MANY_LENGTH = N_COMMON + 40 + N_ANSWER };

typedef struct {
    int32_t prompt[N_MANY][MANY_LENGTH];
    qp_request_t request[N_MANY];
} many_t;

static void make_many(many_t *m)
{
    memset(m, 0, sizeof *m);
    for (int i = 0; i < N_MANY; i++) {
        char name[32];
        snprintf(name, sizeof name, "many.%d", i == N_MANY - 1 ? 1 : i);
        const bool prefix = i == N_MANY - 2;
        const int n_common = prefix ? N_COMMON - 10 : i % 3 == 0 ? N_COMMON - i % 2 * 7 : 0;
        const int n = n_common + (prefix ? 0 : 1 + (int)(tiny_word(name, 1000) % 40));
        for (int t = 0; t < n; t++)
            m->prompt[i][t] = (int32_t)(tiny_word(t < n_common ? "common" : name, t) % 96);
        m->request[i] = (qp_request_t){.prompt = m->prompt[i],
                                       .n_prompt = n,
                                       .max_new_tokens = N_ANSWER - i % 5,
                                       .sample = (uint32_t)i};
    }
}

/* Answers the requests in groups, each a run of its own. */
static void answer_many(const tiny_setup_t *s, const qp_lora_config_t *lora, int kv_cache_dtype,
                        int64_t max_active, int64_t max_prefill, int n_group, many_t *m)
{
    const qp_generate_config_t config = {.max_new_tokens = N_ANSWER,
                                         .temperature = 0.8,
                                         .top_p = 0.95,
                                         .do_sample = true,
                                         .max_active = max_active,
                                         .max_prefill = max_prefill,
                                         .kv_cache_dtype = kv_cache_dtype};
    const qp_role_t role = {s->base, s->adapter};
    const qp_philox_key_t key = {.seed = 6, .step = 2};
    qp_engine_t *engine;
    const qp_eos_t two = {1, {2}};
    make_many(m);
    CHECK_OK(qp_engine_create(s->base, lora, &config, MANY_LENGTH, NULL, &engine));
    for (int i = 0; i < N_MANY; i += n_group)
        CHECK_OK(qp_engine_run(engine, &role, &m->request[i],
                               i + n_group < N_MANY ? n_group : N_MANY - i, &two, &key));
    qp_engine_destroy(&engine);
}

static void forget_many(many_t *m)
{
    for (int i = 0; i < N_MANY; i++) {
        qp_free(m->request[i].token);
        qp_free(m->request[i].logprob);
    }
}

static void test_company_is_of_no_account(const tiny_setup_t *s, const qp_lora_config_t *lora,
                                          int kv_cache_dtype, const char *what)
{
    static const int64_t ACTIVE[] = {1, 3, 16};
    static const int GROUP[] = {1, 5, N_MANY};
    static many_t alone, other;
    int64_t n_shared = 0;
    answer_many(s, lora, kv_cache_dtype, 1, 1, 1, &alone);
    for (int a = 0; a < 3; a++)
        for (int g = 0; g < 3; g++) {
            char name[96];
            snprintf(name, sizeof name, "%s, %d active, groups of %d", what, (int)ACTIVE[a],
                     GROUP[g]);
            answer_many(s, lora, kv_cache_dtype, ACTIVE[a], a == 1 ? 50 : 1000, GROUP[g], &other);
            check_same(alone.request, other.request, N_MANY, name);
            for (int i = 0; i < N_MANY; i++)
                n_shared += other.request[i].n_shared;
            forget_many(&other);
        }
    CHECK(n_shared > N_COMMON); /* prefixes were shared at all */
    forget_many(&alone);
}

/* Prompts with their answers as one batch of the training pass. */
typedef struct {
    int32_t token[N_MANY * MANY_LENGTH], target[N_MANY * MANY_LENGTH];
    int32_t position[N_MANY * MANY_LENGTH], cu_seqlens[N_MANY + 1];
    uint32_t sample[N_MANY * MANY_LENGTH];
    float logprob[N_MANY * MANY_LENGTH];
} sequences_t;

static qp_model_batch_t make_sequences(const many_t *m, sequences_t *q)
{
    int64_t n = 0;
    for (int i = 0; i < N_MANY; i++) {
        const qp_request_t *r = &m->request[i];
        for (int64_t t = 0; t < r->n_prompt + r->n_token; t++, n++) {
            q->token[n] = t < r->n_prompt ? r->prompt[t] : r->token[t - r->n_prompt];
            q->position[n] = (int32_t)t;
            q->sample[n] = r->sample;
            q->target[n] = -1;
            if (t >= r->n_prompt)
                q->target[n - 1] = q->token[n];
        }
        q->cu_seqlens[i + 1] = (int32_t)n;
    }
    return (qp_model_batch_t){.n_token = n,
                              .n_seq = N_MANY,
                              .token = q->token,
                              .target = q->target,
                              .position = q->position,
                              .cu_seqlens = q->cu_seqlens,
                              .sample = q->sample};
}

/*
 * The log-probabilities of the engine are those of a training pass over the same sequences, up to
 * rounding: decoding sums attention up in other pieces, and the head of training is a product of
 * its own. Where activations are rounded to bf16 and then to int8, that rounding now and then falls
 * to the other side. Root of the mean square and largest difference, QP_TEST_VERBOSE=1 shows them.
 */
static void test_training_agrees(const tiny_setup_t *s, const qp_lora_config_t *lora, double rms,
                                 double most, const char *what)
{
    static many_t many;
    static sequences_t q;
    const qp_role_t role = {s->base, s->adapter};
    const qp_pass_t pass = {0};
    qp_workspace_t *ws;
    double loss, sum = 0.0, worst = 0.0;
    int64_t n = 0;
    answer_many(s, lora, QP_KV_CACHE_AUTO, 16, 1000, N_MANY, &many);
    const qp_model_batch_t batch = make_sequences(&many, &q);
    CHECK_OK(qp_workspace_create(s->base, lora, batch.n_token, QP_RECOMPUTE_LAYER, &ws));
    CHECK_OK(qp_model_step(ws, &role, &batch, &pass, 0.0f, &loss, q.logprob));
    for (int i = 0; i < N_MANY; i++) {
        const qp_request_t *r = &many.request[i];
        const int64_t first = q.cu_seqlens[i] + r->n_prompt - 1;
        for (int64_t t = 0; t < r->n_token; t++, n++) {
            const double d = fabs((double)r->logprob[t] - (double)q.logprob[first + t]);
            sum += d * d;
            worst = d > worst ? d : worst;
        }
    }
    const double mean = sqrt(sum / (double)n);
    CHECK_MSG(mean <= rms && worst <= most,
              "%s: engine and training differ by %.3g (limit %.3g), at most %.3g (%.3g)", what,
              mean, rms, worst, most);
    if (getenv("QP_TEST_VERBOSE") != NULL)
        printf("%s: engine and training differ by %.3g, at most %.3g\n", what, mean, worst);
    qp_workspace_destroy(&ws);
    forget_many(&many);
}

static const struct {
    qp_base_kinds_t kinds;
    qp_compute_t compute;
    qp_product_t product;
    /* Between engine and training, in log-probabilities of about 4: two to three times what was
     * found in bf16 compute; the first one's for what has no other rounding than that of fp32. */
    double rms, most;
    const char *name;
} MODES[] = {
    {{QP_WEIGHT_F32, QP_WEIGHT_F32}, QP_COMPUTE_FP32, QP_PRODUCT_INT8, 3e-6, 1e-5, "fp32"},
    {{QP_WEIGHT_BF16, QP_WEIGHT_BF16}, QP_COMPUTE_AUTO, QP_PRODUCT_INT8, 0.02, 0.15, "bf16"},
    {{QP_WEIGHT_INT8, QP_WEIGHT_BF16}, QP_COMPUTE_AUTO, QP_PRODUCT_INT8, 0.06, 0.5, "int8"},
    {{QP_WEIGHT_INT8, QP_WEIGHT_BF16},
     QP_COMPUTE_AUTO,
     QP_PRODUCT_BF16,
     0.03,
     0.25,
     "int8, weight-only"},
    {{QP_WEIGHT_INT8, QP_WEIGHT_INT8},
     QP_COMPUTE_AUTO,
     QP_PRODUCT_INT8,
     0.06,
     0.5,
     "int8 and head"},
};

static void test_modes(const tiny_t *tiny)
{
    for (size_t i = 0; i < sizeof MODES / sizeof MODES[0]; i++) {
        tiny_setup_t s;
        tiny_setup(tiny, MODES[i].kinds, MODES[i].compute, MODES[i].product, &s);
        test_company_is_of_no_account(&s, &tiny->lora, QP_KV_CACHE_AUTO, MODES[i].name);
        if (i == 0)
            test_company_is_of_no_account(&s, &tiny->lora, QP_KV_CACHE_INT8, "int8 cache");
        const bool rounds =
            qp_device_dtype(s.device) == QP_BF16 ||
            (MODES[i].kinds.linear == QP_WEIGHT_INT8 && MODES[i].product == QP_PRODUCT_INT8);
        const size_t limit = rounds ? i : 0;
        test_training_agrees(&s, &tiny->lora, MODES[limit].rms, MODES[limit].most, MODES[i].name);
        tiny_teardown(&s);
    }
}

/* An adapter that has diverged: the first draw is refused, also where the next batch is queued
 * already. Leaves the adapter so. */
static void test_nothing_to_draw(const tiny_setup_t *s, const qp_lora_config_t *lora)
{
    static const int32_t prompt[] = {3, 14, 15};
    qp_engine_t *engine;
    qp_role_t role = {s->base, s->adapter};
    qp_philox_key_t key = {.seed = 4};
    qp_generate_config_t config = {.max_new_tokens = 8, .max_active = 2, .max_prefill = 8};
    qp_request_t request = {.prompt = prompt, .n_prompt = 3};
    const int64_t n_param = s->adapter->n_param;
    float *param = QP_NEW("test", float, n_param);
    for (int64_t i = 0; i < n_param; i++)
        param[i] = NAN;
    CHECK_OK(s->device->ops->upload(qp_device_queue(s->device), s->adapter->param, param,
                                    qp_bytes(n_param, sizeof *param)));
    CHECK_OK(qp_engine_create(s->base, lora, &config, 20, NULL, &engine));
    CHECK_FAILS(qp_engine_run(engine, &role, &request, 1, &NONE, &key), QP_INPUT,
                "answer 0, position 3: the model gives a logit that is NaN");
    qp_free(request.token);
    qp_free(request.logprob);
    qp_free(param);
    qp_engine_destroy(&engine);
}

int main(void)
{
    tiny_t tiny;
    tiny_setup_t s;
    qp_comm_t *comm; /* keeps MPI alive over the set-ups */
    CHECK_OK(qp_comm_create(&comm));
    tiny_open("tied", &tiny);
    tiny_setup(&tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8, &s);
    test_greedy_is_the_argmax_of_forward(&s, &tiny.lora);
    test_answers_do_not_depend_on_company(&s, &tiny.lora);
    test_eos_ends_an_answer(&s, &tiny.lora);
    test_int8_cache_is_close(&s, &tiny.lora);
    test_int8_cache_is_small(&s, &tiny.lora);
    test_min_new_tokens(&s);
    test_bad_requests_are_refused(&s);
    test_nothing_to_draw(&s, &tiny.lora);
    tiny_teardown(&s);
    test_modes(&tiny);
    tiny_close(&tiny);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
