/* QP_TEST: check=0
 * An engine in a workspace's memory: what a pass left there does not matter, nor does what the
 * engine leaves to the pass behind it. */
#include <string.h>

#include "base/mem.h"
#include "model/engine/engine.h"
#include "model/tiny.h"

enum { MAX_LENGTH = 24, N_REQUEST = 3 };

static const qp_generate_config_t config = {.max_new_tokens = 8,
                                            .num_return_sequences = 1,
                                            .top_p = 1.0,
                                            .max_active = 2,
                                            .max_prefill = 16};

/* Greedy answers by an engine of its own (ws NULL) or in the workspace. */
static void answer(const tiny_setup_t *s, const qp_lora_config_t *lora, const qp_workspace_t *ws,
                   qp_request_t request[N_REQUEST])
{
    static const int32_t prompt[] = {3, 7, 11, 5, 2};
    const qp_role_t role = {s->base, s->adapter};
    const qp_philox_key_t key = {.seed = 5};
    const qp_eos_t none = {0};
    qp_engine_t *engine;
    CHECK_OK(qp_engine_create(s->base, lora, &config, MAX_LENGTH, ws, &engine));
    for (int i = 0; i < N_REQUEST; i++)
        request[i] = (qp_request_t){.prompt = prompt, .n_prompt = 3 + i, .sample = (uint32_t)i};
    CHECK_OK(qp_engine_run(engine, &role, request, N_REQUEST, &none, &key));
    qp_engine_destroy(&engine);
}

static double loss_of(const tiny_setup_t *s, qp_workspace_t *ws)
{
    tiny_batch_t batch;
    tiny_batch(s->base->config.n_vocab, 0, &batch);
    const qp_model_batch_t view = tiny_view(&batch);
    const qp_role_t role = {s->base, s->adapter};
    const qp_pass_t pass = {.training = true};
    double loss = 0.0;
    CHECK_OK(qp_model_step(ws, &role, &view, &pass, 1.0f, &loss, NULL));
    return loss;
}

int main(void)
{
    enum { ROOM = 4096 }; /* tokens: so that the engine fits */
    tiny_t tiny;
    tiny_setup_t s;
    qp_workspace_t *ws;
    qp_request_t own[N_REQUEST], borrowed[N_REQUEST];
    qp_comm_t *comm; /* keeps MPI alive over the set-up */
    CHECK_OK(qp_comm_create(&comm));
    tiny_open("tied", &tiny);
    tiny_setup(&tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8, &s);
    CHECK_OK(qp_workspace_create(s.base, &tiny.lora, ROOM, QP_RECOMPUTE_LAYER, &ws));
    const qp_base_shape_t shape = qp_base_shape(s.base);
    CHECK(qp_workspace_bytes(&shape, &tiny.lora, ROOM, QP_RECOMPUTE_LAYER) >=
          qp_engine_bytes(&shape, &tiny.lora, &config, MAX_LENGTH));
    const double before = loss_of(&s, ws);
    answer(&s, &tiny.lora, NULL, own);
    answer(&s, &tiny.lora, ws, borrowed);
    CHECK(loss_of(&s, ws) == before);
    for (int i = 0; i < N_REQUEST; i++) {
        const size_t n = (size_t)own[i].n_token;
        CHECK(n == 8 && borrowed[i].n_token == own[i].n_token);
        CHECK(memcmp(own[i].token, borrowed[i].token, n * sizeof(int32_t)) == 0);
        CHECK(memcmp(own[i].logprob, borrowed[i].logprob, n * sizeof(float)) == 0);
        qp_free(own[i].token);
        qp_free(own[i].logprob);
        qp_free(borrowed[i].token);
        qp_free(borrowed[i].logprob);
    }
    qp_workspace_destroy(&ws);
    tiny_teardown(&s);
    tiny_close(&tiny);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
