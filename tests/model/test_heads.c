/* Outputs of both heads and their way back, in fp32: gradients against finite differences, with
 * dropout before the scalar head too; what a head says of a sequence is the same alone and among
 * others; the KL over the vocabulary. */
#include <math.h>

#include "tiny.h"

static const double WEIGHT_LOGPROB = 0.3, WEIGHT_VALUE = -0.7;

/* A batch with values at every third token, and a coefficient for each output. */
typedef struct {
    tiny_batch_t batch;
    uint8_t valued[TINY_N_TOKEN];
    float logprob[TINY_N_TOKEN], entropy[TINY_N_TOKEN], value[TINY_N_TOKEN];
    float dlogprob[TINY_N_TOKEN], dvalue[TINY_N_TOKEN];
    qp_model_batch_t view;
    qp_model_outputs_t outputs;
    qp_pass_t pass;
} fixture_t;

static void fill(const tiny_t *tiny, fixture_t *f)
{
    memset(f, 0, sizeof *f);
    tiny_batch(tiny->config.n_vocab, 0, &f->batch);
    for (int t = 0; t < TINY_N_TOKEN; t++) {
        f->valued[t] = t % 3 == 0;
        f->dlogprob[t] = (float)(WEIGHT_LOGPROB * sin(t));
        f->dvalue[t] = (float)(WEIGHT_VALUE * cos(t));
    }
    f->view = tiny_view(&f->batch);
    f->view.valued = f->valued;
    f->outputs = (qp_model_outputs_t){f->logprob, f->entropy, f->value};
    f->pass = (qp_pass_t){.training = true, .key = {.seed = 5, .step = 2}};
}

/* sum of dlogprob logprob + dvalue value: what the gradients are of. */
static double objective(qp_workspace_t *ws, const qp_role_t *role, fixture_t *f, bool backward)
{
    double sum = 0.0;
    CHECK_OK(qp_model_outputs(ws, role, &f->view, &f->pass, backward, &f->outputs));
    for (int t = 0; t < TINY_N_TOKEN; t++)
        sum += (double)f->dlogprob[t] * (double)f->logprob[t] +
               (double)f->dvalue[t] * (double)f->value[t];
    return sum;
}

static void set_param(qp_adapter_t *adapter, int64_t i, float value)
{
    CHECK_OK(adapter->device->ops->upload(qp_device_queue(adapter->device),
                                          qp_dptr_at(adapter->param, (size_t)i * sizeof value),
                                          &value, sizeof value));
}

/* Parameters of all kinds: of the head, its bias, and LoRA matrices of both layers. */
static void test_gradients(const tiny_t *tiny, float head_dropout)
{
    tiny_setup_t s;
    fixture_t f;
    qp_workspace_t *ws;
    tiny_setup_with_head(tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8,
                         QP_HEAD_VALUE, &s);
    s.adapter->head_dropout = head_dropout;
    CHECK_OK(qp_workspace_create(s.base, &tiny->lora, TINY_N_TOKEN, QP_RECOMPUTE_LAYER, &ws));
    fill(tiny, &f);
    const qp_role_t role = {s.base, s.adapter};
    tiny_zero_grad(s.adapter);
    objective(ws, &role, &f, true);
    CHECK_OK(qp_model_outputs_backward(ws, &role, &f.view, &f.pass, f.dlogprob, f.dvalue));
    float *grad = tiny_download(s.device, s.adapter->grad, s.adapter->n_param);
    float *param = tiny_download(s.device, s.adapter->param, s.adapter->n_param);
    const int64_t head = s.adapter->layer_first[s.adapter->n_layer], n = s.adapter->n_param;
    const int64_t probe[] = {head, head + 17, n - 2, n - 1, 3, n / 3, head / 2 + 5, head - 1};
    for (size_t i = 0; i < sizeof probe / sizeof probe[0]; i++) {
        const float h = 0.01f, old = param[probe[i]];
        set_param(s.adapter, probe[i], old + h);
        const double up = objective(ws, &role, &f, false);
        set_param(s.adapter, probe[i], old - h);
        const double down = objective(ws, &role, &f, false);
        set_param(s.adapter, probe[i], old);
        const double slope = (up - down) / (2.0 * (double)h), found = (double)grad[probe[i]];
        CHECK_MSG(fabs(slope - found) <= 0.02 * fmax(0.05, fabs(slope)),
                  "dropout %g, parameter %lld: gradient %g, differences %g", (double)head_dropout,
                  (long long)probe[i], found, slope);
    }
    qp_free(grad);
    qp_free(param);
    qp_workspace_destroy(&ws);
    tiny_teardown(&s);
}

/* A head whose adapter has no linear: it learns, and nothing beside it. */
static void test_head_alone(const tiny_t *tiny)
{
    tiny_setup_t s;
    fixture_t f;
    qp_workspace_t *ws;
    tiny_setup_with_head(tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8,
                         QP_HEAD_VALUE, &s);
    memset(s.adapter->target, 0, sizeof s.adapter->target);
    s.adapter->n_view = 0;
    CHECK_OK(qp_workspace_create(s.base, &tiny->lora, TINY_N_TOKEN, QP_RECOMPUTE_NONE, &ws));
    fill(tiny, &f);
    const qp_role_t role = {s.base, s.adapter};
    tiny_zero_grad(s.adapter);
    objective(ws, &role, &f, true);
    CHECK_OK(qp_model_outputs_backward(ws, &role, &f.view, &f.pass, f.dlogprob, f.dvalue));
    float *grad = tiny_download(s.device, s.adapter->grad, s.adapter->n_param);
    const int64_t head = s.adapter->layer_first[s.adapter->n_layer], n = s.adapter->n_param;
    double sum = 0.0;
    for (int t = 0; t < TINY_N_TOKEN; t++)
        sum += f.valued[t] ? (double)f.dvalue[t] : 0.0;
    CHECK(fabs((double)grad[n - 1] - sum) < 1e-5 && grad[head] != 0.0f);
    for (int64_t i = 0; i < head; i++)
        CHECK(grad[i] == 0.0f);
    qp_free(grad);
    qp_workspace_destroy(&ws);
    tiny_teardown(&s);
}

/* What is dropped is 0, and what stays is divided by 1 - p: so the mean stays what it is. With one
 * weight alone a value is one of the two. */
static void test_dropout_keeps_the_mean(const tiny_t *tiny)
{
    const float p = 0.25f;
    tiny_setup_t s;
    fixture_t f;
    qp_workspace_t *ws;
    float whole[TINY_N_TOKEN];
    int n_kept = 0, n_valued = 0;
    tiny_setup_with_head(tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8,
                         QP_HEAD_VALUE, &s);
    CHECK_OK(qp_workspace_create(s.base, &tiny->lora, TINY_N_TOKEN, QP_RECOMPUTE_LAYER, &ws));
    const qp_role_t role = {s.base, s.adapter};
    const int64_t head = s.adapter->layer_first[s.adapter->n_layer];
    for (int64_t i = head; i < s.adapter->n_param; i++)
        set_param(s.adapter, i, i == head + 5 ? 1.0f : 0.0f);
    fill(tiny, &f);
    objective(ws, &role, &f, false);
    memcpy(whole, f.value, sizeof whole);
    s.adapter->head_dropout = p;
    objective(ws, &role, &f, false);
    for (int t = 0; t < TINY_N_TOKEN; t++) {
        const float kept = whole[t] / (1.0f - p);
        CHECK_MSG(f.value[t] == 0.0f || fabsf(f.value[t] - kept) <= 1e-5f * fabsf(kept),
                  "token %d: %g, kept %g", t, (double)f.value[t], (double)kept);
        n_kept += f.valued[t] && f.value[t] != 0.0f;
        n_valued += f.valued[t];
    }
    CHECK(n_kept > n_valued / 2 && n_kept < n_valued);
    qp_workspace_destroy(&ws);
    tiny_teardown(&s);
}

/* Without training there is no mask: the same values twice, others than with it. */
static void test_dropout_is_for_training(const tiny_t *tiny)
{
    tiny_setup_t s;
    fixture_t f;
    qp_workspace_t *ws;
    float first[TINY_N_TOKEN];
    tiny_setup_with_head(tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8,
                         QP_HEAD_VALUE, &s);
    CHECK_OK(qp_workspace_create(s.base, &tiny->lora, TINY_N_TOKEN, QP_RECOMPUTE_LAYER, &ws));
    const qp_role_t role = {s.base, s.adapter};
    fill(tiny, &f);
    objective(ws, &role, &f, false);
    memcpy(first, f.value, sizeof first);
    s.adapter->head_dropout = 0.5f;
    objective(ws, &role, &f, false);
    CHECK(memcmp(first, f.value, sizeof first) != 0);
    f.pass.training = false;
    objective(ws, &role, &f, false);
    CHECK(memcmp(first, f.value, sizeof first) == 0);
    for (int t = 0; t < TINY_N_TOKEN; t++) /* nobody asked for these */
        CHECK(f.valued[t] || f.value[t] == 0.0f);
    qp_workspace_destroy(&ws);
    tiny_teardown(&s);
}

/* The second sequence of the batch, of 33 tokens, alone. */
static void test_alone_and_among_others(const tiny_t *tiny)
{
    enum { FIRST = 20, N = 33 };
    tiny_setup_t s;
    fixture_t f;
    qp_workspace_t *ws;
    float logprob[N] = {0}, value[N] = {0};
    const int32_t cu_seqlens[] = {0, N};
    tiny_setup_with_head(tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8,
                         QP_HEAD_SCORE, &s);
    CHECK_OK(qp_workspace_create(s.base, &tiny->lora, TINY_N_TOKEN, QP_RECOMPUTE_LAYER, &ws));
    const qp_role_t role = {s.base, s.adapter};
    fill(tiny, &f);
    f.pass.training = false;
    objective(ws, &role, &f, false);
    const qp_model_batch_t one = {.n_token = N,
                                  .n_seq = 1,
                                  .token = f.batch.token + FIRST,
                                  .target = f.batch.target + FIRST,
                                  .position = f.batch.position + FIRST,
                                  .cu_seqlens = cu_seqlens,
                                  .sample = f.batch.sample + FIRST,
                                  .valued = f.valued + FIRST};
    const qp_model_outputs_t outputs = {.logprob = logprob, .value = value};
    CHECK_OK(qp_model_outputs(ws, &role, &one, &f.pass, false, &outputs));
    for (int t = 0; t < N; t++)
        CHECK_MSG(fabsf(logprob[t] - f.logprob[FIRST + t]) <= 1e-5f &&
                      fabsf(value[t] - f.value[FIRST + t]) <= 1e-5f,
                  "token %d: logprob %g, %g, value %g, %g", t, (double)logprob[t],
                  (double)f.logprob[FIRST + t], (double)value[t], (double)f.value[FIRST + t]);
    qp_workspace_destroy(&ws);
    tiny_teardown(&s);
}

/* Of the policy to itself it is 0; to the base it is what the sampled estimate is the mean of. */
static void test_kl(const tiny_t *tiny)
{
    tiny_setup_t s;
    fixture_t f;
    qp_workspace_t *ws;
    float kl[TINY_N_TOKEN];
    tiny_setup(tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8, &s);
    CHECK_OK(qp_workspace_create(s.base, &tiny->lora, TINY_N_TOKEN, QP_RECOMPUTE_LAYER, &ws));
    const qp_role_t policy = {s.base, s.adapter}, reference = {s.base, NULL};
    fill(tiny, &f);
    f.view.valued = NULL;
    f.pass.training = false;
    const qp_role_t *const other[] = {&policy, &reference};
    for (int i = 0; i < 2; i++) {
        CHECK_OK(qp_model_outputs(ws, &policy, &f.view, &f.pass, false, &f.outputs));
        CHECK_OK(qp_model_keep(ws));
        CHECK_OK(qp_model_outputs(ws, other[i], &f.view, &f.pass, false, &f.outputs));
        CHECK_OK(qp_model_kl(ws, &f.view, kl));
        for (int t = 0; t < TINY_N_TOKEN; t++)
            CHECK(f.batch.target[t] < 0 || i == 0 ? kl[t] == 0.0f : kl[t] > 0.0f);
    }
    qp_workspace_destroy(&ws);
    tiny_teardown(&s);
}

int main(void)
{
    tiny_t tiny;
    qp_comm_t *comm; /* keeps MPI alive over the set-ups */
    CHECK_OK(qp_comm_create(&comm));
    tiny_open("tied", &tiny);
    test_gradients(&tiny, 0.0f);
    test_gradients(&tiny, 0.5f);
    test_head_alone(&tiny);
    test_dropout_keeps_the_mean(&tiny);
    test_dropout_is_for_training(&tiny);
    test_alone_and_among_others(&tiny);
    test_kl(&tiny);
    tiny_close(&tiny);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
