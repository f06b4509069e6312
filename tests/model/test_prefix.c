/* QP_TEST: check=1
 * What prompts have in common is computed once, and nobody can tell from the answers. */
#include <math.h>

#include "model/engine/engine.h"
#include "tiny.h"

enum { MAX_REQUEST = 12, MAX_LENGTH = 128 };

/* A prompt is parts of streams of tokens: "A40+b10" has the first 40 tokens of A, then the first 10
 * of b. */
typedef struct {
    const char *name;
    int64_t max_active, max_prefill;
    int64_t n_computed; /* prompt tokens: all without those that are shared; 0: any number */
    const char *prompts;
} case_t;

static const case_t cases[] = {
    {"unlike", 4, 1000, 40 + 50, "A40 B50"},
    {"samples of one prompt", 8, 1000, 50 + 5, "A50 A50 A50 A50 A50 A50"},
    {"up to a border", 8, 1000, 65 + 1, "A65 A65"},
    {"all but the last of a block", 8, 1000, 64 + 1, "A64 A64"},
    {"prefix on a border", 4, 1000, 74 + 10, "A64+a10 A64+b10"},
    {"prefix inside a block", 4, 1000, 55 + 10, "A45+a10 A45+b10"},
    {"a prompt is the prefix", 4, 1000, 40 + 21,
     "A60 A40"}, /* its last token is another's middle */
    {"less than a block: together", 4, 1000, 20 + 20, "A20 A20"},
    {"less than a block: in turn", 1, 1000, 20 + 1, "A20 A20"},
    {"more samples than slots", 2, 1000, 50 + 5, "A50 A50 A50 A50 A50 A50"},
    {"one slot for all", 1, 1000, 50 + 1 + 50 + 15, "A50 B50 A50 B35+b15"},
    {"two prompts by turns", 2, 1000, 50 + 2 + 40 + 2, "A50 B40 A50 B40 A50 B40"},
    {"a tree", 3, 1000, 80 + 1 + 40 + 1 + 40 + 1,
     "A40+a40 A40+b40 A40+c40 A40+a40 A40+b40 A40+c40"},
    {"what is shared needs no place in the batch", 8, 8, 50 + 3, "A50 A50 A50 A50"},
};
enum { N_CASE = sizeof cases / sizeof *cases };

typedef struct {
    int32_t prompt[MAX_REQUEST][MAX_LENGTH];
    qp_request_t request[MAX_REQUEST];
    int64_t n;
} asked_t;

/* Answers of different lengths: slots become free one by one. */
static void make_requests(const case_t *c, asked_t *a)
{
    char stream[2];
    int n, n_read;
    memset(a, 0, sizeof *a);
    for (const char *at = c->prompts; sscanf(at, " %1[A-Za-z]%d%n", stream, &n, &n_read) == 2;) {
        qp_request_t *request = &a->request[a->n];
        int32_t *prompt = a->prompt[a->n];
        for (int t = 0; t < n; t++)
            prompt[request->n_prompt + t] = (int32_t)(tiny_word(stream, t) % 96);
        at += n_read;
        request->prompt = prompt;
        request->n_prompt += n;
        request->max_new_tokens = 40 - 5 * (a->n % 4);
        request->sample = (uint32_t)a->n;
        if (*at == '+')
            at++;
        else
            a->n++;
    }
}

static qp_engine_t *open_engine(const tiny_setup_t *s, const qp_lora_config_t *lora,
                                int64_t max_active, int64_t max_prefill, int kv_cache_dtype)
{
    qp_engine_t *engine;
    qp_generate_config_t config = {.max_new_tokens = 40,
                                   .temperature = 0.9,
                                   .top_p = 0.95,
                                   .top_k = 40,
                                   .do_sample = true,
                                   .max_active = max_active,
                                   .max_prefill = max_prefill,
                                   .kv_cache_dtype = kv_cache_dtype};
    CHECK_OK(qp_engine_create(s->base, lora, &config, MAX_LENGTH, NULL, &engine));
    return engine;
}

static void run(qp_engine_t *engine, qp_role_t role, qp_request_t *request, int64_t n)
{
    const qp_eos_t none = {0};
    qp_philox_key_t key = {.seed = 5, .step = 9};
    CHECK_OK(qp_engine_run(engine, &role, request, n, &none, &key));
}

static void forget(qp_request_t *request)
{
    QP_FREE(request->token);
    QP_FREE(request->logprob);
}

static void check_same(const char *name, int i, const qp_request_t *a, const qp_request_t *b)
{
    CHECK_MSG(a->n_token == b->n_token, "%s: request %d: number of tokens", name, i);
    for (int64_t t = 0; t < a->n_token && t < b->n_token; t++) {
        CHECK_MSG(a->token[t] == b->token[t], "%s: request %d, token %d", name, i, (int)t);
        CHECK_MSG(memcmp(&a->logprob[t], &b->logprob[t], sizeof *a->logprob) == 0,
                  "%s: request %d, token %d: log-probabilities %.9g and %.9g", name, i, (int)t,
                  (double)a->logprob[t], (double)b->logprob[t]);
    }
}

static void test_answers_as_alone(const tiny_setup_t *s, const qp_lora_config_t *lora,
                                  const case_t *c, int kv_cache_dtype)
{
    static asked_t together;
    qp_role_t role = {s->base, s->adapter};
    int64_t n_computed = 0;
    make_requests(c, &together);
    qp_engine_t *engine = open_engine(s, lora, c->max_active, c->max_prefill, kv_cache_dtype);
    qp_engine_t *other = open_engine(s, lora, 1, 1000, kv_cache_dtype);
    run(engine, role, together.request, together.n);
    for (int64_t i = 0; i < together.n; i++) {
        qp_request_t alone = together.request[i];
        run(other, role, &alone, 1);
        CHECK_MSG(alone.n_shared == 0, "%s: nothing of an earlier run", c->name);
        check_same(c->name, (int)i, &together.request[i], &alone);
        n_computed += together.request[i].n_prompt - together.request[i].n_shared;
        forget(&alone);
    }
    CHECK_MSG(c->n_computed == 0 || n_computed == c->n_computed,
              "%s: %d prompt tokens computed, not %d", c->name, (int)n_computed,
              (int)c->n_computed);
    for (int64_t i = 0; i < together.n; i++)
        forget(&together.request[i]);
    qp_engine_destroy(&engine);
    qp_engine_destroy(&other);
}

/* Prompts that share this and that, in all numbers of slots. */
static void test_any_prompts(const tiny_setup_t *s, const qp_lora_config_t *lora)
{
    for (int round = 0; round < 8; round++) {
        char prompts[MAX_REQUEST * 16] = "";
        for (int i = 0; i < MAX_REQUEST; i++) {
            const uint32_t word = tiny_word("any", round * MAX_REQUEST + i);
            sprintf(prompts + strlen(prompts), "%c%d+%c%d ", 'A' + word % 2, 1 + word / 2 % 60,
                    'a' + word / 128 % 2, 1 + word / 256 % 25);
        }
        test_answers_as_alone(s, lora, &(case_t){prompts, 1 + round % 5, 30, 0, prompts},
                              round % 2 == 0 ? QP_KV_CACHE_AUTO : QP_KV_CACHE_INT8);
    }
}

/* The rows of one role are of no use to another. */
static void test_roles_share_nothing(const tiny_setup_t *s, const qp_lora_config_t *lora)
{
    static asked_t asked;
    qp_engine_t *engine = open_engine(s, lora, 8, 1000, QP_KV_CACHE_AUTO);
    qp_engine_t *fresh = open_engine(s, lora, 8, 1000, QP_KV_CACHE_AUTO);
    qp_role_t with = {s->base, s->adapter}, without = {s->base, NULL};
    make_requests(&cases[1], &asked);
    qp_request_t first = asked.request[0], second = first, expected = first;
    run(engine, with, &first, 1);
    run(engine, without, &second, 1);
    run(fresh, without, &expected, 1);
    CHECK(second.n_shared == 0);
    check_same("another role", 0, &second, &expected);
    CHECK(fabsf(first.logprob[0] - second.logprob[0]) > 1e-3f);
    forget(&first);
    forget(&second);
    forget(&expected);
    qp_engine_destroy(&engine);
    qp_engine_destroy(&fresh);
}

int main(void)
{
    tiny_t tiny;
    tiny_setup_t s;
    tiny_open("tied", &tiny);
    tiny_setup(&tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8, &s);
    for (int i = 0; i < N_CASE; i++) {
        test_answers_as_alone(&s, &tiny.lora, &cases[i], QP_KV_CACHE_AUTO);
        test_answers_as_alone(&s, &tiny.lora, &cases[i], QP_KV_CACHE_INT8);
    }
    test_any_prompts(&s, &tiny.lora);
    test_roles_share_nothing(&s, &tiny.lora);
    tiny_teardown(&s);
    tiny_close(&tiny);
    return qp_test_end();
}
