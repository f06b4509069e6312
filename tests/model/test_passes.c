/* QP_TEST: isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16 check=0,1,2
 * Forward and backward as functions: batching, recomputation, dropout, finite differences, the
 * distances of the cheaper precisions. */
#include <math.h>

#include "tiny.h"

/* Loss of a batch and, in a fresh array, the gradient of the adapter. */
static float *step(const tiny_setup_t *s, qp_workspace_t *ws, const qp_model_batch_t *batch,
                   uint32_t seed, double *loss, float *logprob)
{
    qp_role_t role = {s->base, s->adapter};
    qp_pass_t pass = {.training = true, .key = {.seed = seed, .step = 3}};
    tiny_zero_grad(s->adapter);
    CHECK_OK(qp_model_step(ws, &role, batch, &pass, 1.0f / TINY_N_TARGET, loss, logprob));
    return tiny_download(s->device, s->adapter->grad, s->adapter->n_param);
}

/* Sequence i of a batch as a batch of its own. */
static qp_model_batch_t alone(const tiny_batch_t *b, int i, int32_t cu_seqlens[2])
{
    int32_t first = b->cu_seqlens[i];
    cu_seqlens[0] = 0;
    cu_seqlens[1] = b->cu_seqlens[i + 1] - first;
    return (qp_model_batch_t){.n_token = cu_seqlens[1],
                              .n_seq = 1,
                              .token = b->token + first,
                              .target = b->target + first,
                              .position = b->position + first,
                              .cu_seqlens = cu_seqlens,
                              .sample = b->sample + first};
}

static void test_ragged_batch_equals_each_sequence_alone(const tiny_setup_t *s, qp_workspace_t *ws)
{
    tiny_batch_t batch;
    float together[TINY_N_TOKEN], single[TINY_N_TOKEN];
    double loss, sum = 0.0;
    tiny_batch(s->base->config.n_vocab, 0, &batch);
    qp_model_batch_t view = tiny_view(&batch);
    float *grad = step(s, ws, &view, 7, &loss, together);
    float *total = QP_NEW("test", float, s->adapter->n_param);
    for (int i = 0; i < TINY_N_SEQ; i++) {
        int32_t cu_seqlens[2];
        double part;
        qp_model_batch_t one = alone(&batch, i, cu_seqlens);
        float *g = step(s, ws, &one, 7, &part, single + batch.cu_seqlens[i]);
        for (int64_t p = 0; p < s->adapter->n_param; p++)
            total[p] += g[p];
        sum += part;
        qp_free(g);
    }
    CHECK_MSG(fabs(sum / loss - 1.0) < 1e-6, "loss %g together, %g alone", loss, sum);
    for (int t = 0; t < TINY_N_TOKEN; t++) {
        CHECK(fabsf(together[t] - single[t]) < 1e-4f);
        CHECK((batch.target[t] >= 0) == (together[t] != 0.0f));
    }
    double error = qp_test_relative_error(total, grad, s->adapter->n_param);
    CHECK_MSG(error < 1e-5, "gradient: relative error %g", error);
    qp_free(grad);
    qp_free(total);
}

static void test_recomputation_gives_the_same_bits(const tiny_setup_t *s, qp_workspace_t *ws,
                                                   const qp_lora_config_t *lora)
{
    qp_workspace_t *keep;
    tiny_batch_t batch;
    double loss_layer, loss_none;
    CHECK_OK(qp_workspace_create(s->base, lora, TINY_N_TOKEN, QP_RECOMPUTE_NONE, &keep));
    tiny_batch(s->base->config.n_vocab, 1, &batch);
    qp_model_batch_t view = tiny_view(&batch);
    float *layer = step(s, ws, &view, 7, &loss_layer, NULL);
    float *none = step(s, keep, &view, 7, &loss_none, NULL);
    CHECK(loss_layer == loss_none);
    CHECK(memcmp(layer, none, (size_t)s->adapter->n_param * sizeof *none) == 0);
    const qp_base_shape_t shape = qp_base_shape(s->base);
    CHECK(qp_workspace_bytes(&shape, lora, TINY_N_TOKEN, QP_RECOMPUTE_NONE) >
          qp_workspace_bytes(&shape, lora, TINY_N_TOKEN, QP_RECOMPUTE_LAYER));
    qp_free(layer);
    qp_free(none);
    qp_workspace_destroy(&keep);
}

/* Along the gradient itself: d loss / d h = |g|^2 / |g| in fp32. With dropout the same masks must
 * appear in forward and backward for this to hold. */
static void test_gradient_is_the_slope_of_the_loss(const tiny_setup_t *s, qp_workspace_t *ws)
{
    const qp_ops_t *ops = s->device->ops;
    qp_queue_t *q = qp_device_queue(s->device);
    int64_t n = s->adapter->n_param;
    tiny_batch_t batch;
    double loss[2], unused, norm = 0.0, h = 2e-2;
    tiny_batch(s->base->config.n_vocab, 2, &batch);
    qp_model_batch_t view = tiny_view(&batch);
    float *param = tiny_download(s->device, s->adapter->param, n);
    float *moved = QP_NEW("test", float, n);
    float *grad = step(s, ws, &view, 11, &unused, NULL);
    for (int64_t i = 0; i < n; i++)
        norm += (double)grad[i] * (double)grad[i];
    norm = sqrt(norm);
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < n; i++)
            moved[i] = param[i] + (float)((side ? h : -h) * (double)grad[i] / norm);
        CHECK_OK(ops->upload(q, s->adapter->param, moved, (size_t)n * sizeof *moved));
        qp_free(step(s, ws, &view, 11, &loss[side], NULL));
    }
    double slope = (loss[1] - loss[0]) / TINY_N_TARGET / (2.0 * h);
    CHECK_MSG(fabs(slope / norm - 1.0) < 3e-3, "slope %g, gradient %g", slope, norm);
    CHECK_OK(ops->upload(q, s->adapter->param, param, (size_t)n * sizeof *param));
    qp_free(param);
    qp_free(moved);
    qp_free(grad);
}

static void test_dropout_is_keyed(const tiny_setup_t *s, qp_workspace_t *ws)
{
    tiny_batch_t batch;
    double a, b, c, off;
    tiny_batch(s->base->config.n_vocab, 0, &batch);
    qp_model_batch_t view = tiny_view(&batch);
    qp_free(step(s, ws, &view, 1, &a, NULL));
    qp_free(step(s, ws, &view, 1, &b, NULL));
    qp_free(step(s, ws, &view, 2, &c, NULL));
    s->adapter->dropout = 0.0f;
    qp_free(step(s, ws, &view, 1, &off, NULL));
    CHECK(a == b && a != c && a != off);
}

typedef struct {
    int64_t next;
    bool ordered;
} order_t;

static void note_layer(void *owner, int64_t layer)
{
    order_t *order = owner;
    order->ordered = order->ordered && layer == order->next;
    order->next--;
}

static void test_every_layer_is_reported_done(const tiny_setup_t *s, qp_workspace_t *ws)
{
    tiny_batch_t batch;
    qp_role_t role = {s->base, s->adapter};
    double loss;
    tiny_batch(s->base->config.n_vocab, 0, &batch);
    for (int empty = 0; empty < 2; empty++) {
        order_t order = {s->base->config.n_layer - 1, true};
        qp_pass_t pass = {.training = true, .layer_done = note_layer, .owner = &order};
        qp_model_batch_t view = tiny_view(&batch);
        if (empty)
            view.n_token = view.n_seq = 0;
        CHECK_OK(qp_model_step(ws, &role, &view, &pass, 1.0f, &loss, NULL));
        CHECK(order.ordered && order.next == -1);
        CHECK((loss == 0.0) == (empty == 1));
    }
}

static void test_bad_batches_are_refused(const tiny_setup_t *s, qp_workspace_t *ws)
{
    tiny_batch_t batch;
    qp_role_t role = {s->base, s->adapter};
    qp_pass_t pass = {0};
    tiny_batch(s->base->config.n_vocab, 0, &batch);
    qp_model_batch_t view = tiny_view(&batch);
    batch.token[5] = 96;
    CHECK_FAILS(qp_model_forward(ws, &role, &view, &pass), QP_INPUT, "token 5 of a batch is 96");
    batch.token[5] = 1;
    batch.position[63] = 128;
    CHECK_FAILS(qp_model_forward(ws, &role, &view, &pass), QP_INPUT, "position 128");
}

/* --- cheaper precisions ----------------------------------------------------------------------- */

/* Angle and length of a beside b: the cosine does not see that all of a gradient is too large. */
typedef struct {
    double cosine;
    double share; /* of b that stands in a: 1 if only noise is added */
} likeness_t;

static likeness_t compare(const float *a, const float *b, int64_t n)
{
    double ab = 0.0, aa = 0.0, bb = 0.0;
    for (int64_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return (likeness_t){ab / sqrt(aa * bb), ab / bb};
}

/* What is dropped is 0, and what stays is divided by 1 - p: so means stay what they are. With B = 0
 * nothing else depends on dropout, and the gradient of B is linear in what is left. */
static void test_dropout_keeps_the_mean(const tiny_setup_t *s, qp_workspace_t *ws)
{
    enum { N_SEED = 60 };
    const qp_adapter_t *a = s->adapter;
    const qp_ops_t *ops = s->device->ops;
    qp_queue_t *q = qp_device_queue(s->device);
    const size_t bytes = (size_t)a->n_param * sizeof(float);
    tiny_batch_t batch;
    double loss;
    tiny_batch(s->base->config.n_vocab, 0, &batch);
    qp_model_batch_t view = tiny_view(&batch);
    float *param = tiny_download(s->device, a->param, a->n_param);
    float *without_b = tiny_download(s->device, a->param, a->n_param);
    float *mean = QP_NEW("test", float, a->n_param);
    for (int64_t v = 0; v < a->n_view; v++)
        memset(without_b + a->view[v].b, 0, (size_t)(a->view[v].n_out * a->r) * sizeof(float));
    CHECK_OK(ops->upload(q, a->param, without_b, bytes));
    s->adapter->dropout = 0.0f;
    float *whole = step(s, ws, &view, 1, &loss, NULL);
    s->adapter->dropout = 0.4f;
    for (uint32_t seed = 0; seed < N_SEED; seed++) {
        float *g = step(s, ws, &view, seed, &loss, NULL);
        for (int64_t i = 0; i < a->n_param; i++)
            mean[i] += g[i] / N_SEED;
        qp_free(g);
    }
    const likeness_t like = compare(mean, whole, a->n_param);
    CHECK_MSG(fabs(like.share - 1.0) < 0.05 && like.cosine > 0.98,
              "the mean gradient has a share of %g, cosine %g", like.share, like.cosine);
    CHECK_OK(ops->upload(q, a->param, param, bytes));
    qp_free(whole);
    qp_free(mean);
    qp_free(without_b);
    qp_free(param);
}

#define BF16                           \
    {                                  \
        QP_WEIGHT_BF16, QP_WEIGHT_BF16 \
    }
#define INT8                           \
    {                                  \
        QP_WEIGHT_INT8, QP_WEIGHT_BF16 \
    }
#define INT8_HEAD                      \
    {                                  \
        QP_WEIGHT_INT8, QP_WEIGHT_INT8 \
    }
#define HEAD_ALONE                    \
    {                                 \
        QP_WEIGHT_F32, QP_WEIGHT_INT8 \
    }
#define LLM_INT8                           \
    {                                      \
        QP_WEIGHT_LLM_INT8, QP_WEIGHT_BF16 \
    }

/* What the tiny model may lose; it is random, so its rounding noise does not average out as a
 * trained model's does (tests/real has the bars). */
static const struct {
    const char *name;
    qp_base_kinds_t kinds;
    qp_compute_t compute;
    qp_product_t product;
    double loss, cosine; /* relative difference, at least */
} MODES[] = {
    {"bf16", BF16, QP_COMPUTE_BF16, QP_PRODUCT_BF16, 0.01, 0.99},
    {"int8", INT8, QP_COMPUTE_BF16, QP_PRODUCT_INT8, 0.03, 0.98},
    {"int8 in fp32", INT8, QP_COMPUTE_FP32, QP_PRODUCT_INT8, 0.03, 0.98},
    {"int8 weights only", INT8, QP_COMPUTE_BF16, QP_PRODUCT_BF16, 0.02, 0.98},
    {"int8 and head", INT8_HEAD, QP_COMPUTE_BF16, QP_PRODUCT_INT8, 0.03, 0.98},
    {"int8 and head in fp32", INT8_HEAD, QP_COMPUTE_FP32, QP_PRODUCT_INT8, 0.03, 0.98},
    {"int8 head weights only", HEAD_ALONE, QP_COMPUTE_FP32, QP_PRODUCT_BF16, 0.01, 0.99},
    {"llm_int8", LLM_INT8, QP_COMPUTE_BF16, QP_PRODUCT_INT8, 0.03, 0.98},
    {"llm_int8 weights only", LLM_INT8, QP_COMPUTE_BF16, QP_PRODUCT_BF16, 0.02, 0.98},
};

/* What device.compute = "auto" is here. */
static int auto_compute(void)
{
    qp_device_config_t config = {.backend = QP_BACKEND_AUTO};
    const char *why;
    CHECK_OK(qp_device_resolve(&config, &why));
    return config.compute;
}

static void test_cheaper_precisions_stay_near(const tiny_t *tiny, const float *grad, double loss)
{
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++) {
        tiny_setup_t s;
        tiny_batch_t batch;
        qp_workspace_t *ws;
        double found;
        if (MODES[i].compute == QP_COMPUTE_BF16 && auto_compute() == QP_COMPUTE_FP32)
            continue; /* there it is refused, or emulated */
        tiny_setup(tiny, MODES[i].kinds, MODES[i].compute, MODES[i].product, &s);
        CHECK_OK(qp_workspace_create(s.base, &tiny->lora, TINY_N_TOKEN, QP_RECOMPUTE_LAYER, &ws));
        tiny_batch(tiny->config.n_vocab, 0, &batch);
        qp_model_batch_t view = tiny_view(&batch);
        float *g = step(&s, ws, &view, 1, &found, NULL);
        const likeness_t like = compare(g, grad, s.adapter->n_param);
        const double c = like.cosine, d = fabs(found / loss - 1.0);
        CHECK_MSG(d <= MODES[i].loss, "%s: loss differs by %g", MODES[i].name, d);
        CHECK_MSG(c >= MODES[i].cosine, "%s: cosine of the gradient %g", MODES[i].name, c);
        CHECK_MSG(fabs(like.share - 1.0) <= 0.05, "%s: %g of the gradient", MODES[i].name,
                  like.share);
        CHECK_MSG(d > 0.0, "%s: computes exactly what fp32 does", MODES[i].name);
        qp_free(g);
        qp_workspace_destroy(&ws);
        tiny_teardown(&s);
    }
}

static void test_model(const char *name)
{
    tiny_t tiny;
    tiny_setup_t s;
    tiny_batch_t batch;
    qp_workspace_t *ws;
    double loss;
    tiny_open(name, &tiny);
    tiny_setup(&tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8, &s);
    CHECK_OK(qp_workspace_create(s.base, &tiny.lora, TINY_N_TOKEN, QP_RECOMPUTE_LAYER, &ws));
    test_gradient_is_the_slope_of_the_loss(&s, ws);
    s.adapter->dropout = 0.3f;
    test_gradient_is_the_slope_of_the_loss(&s, ws);
    test_ragged_batch_equals_each_sequence_alone(&s, ws);
    test_recomputation_gives_the_same_bits(&s, ws, &tiny.lora);
    test_dropout_keeps_the_mean(&s, ws);
    s.adapter->dropout = 0.3f;
    test_dropout_is_keyed(&s, ws);
    test_every_layer_is_reported_done(&s, ws);
    test_bad_batches_are_refused(&s, ws);
    tiny_batch(tiny.config.n_vocab, 0, &batch);
    qp_model_batch_t view = tiny_view(&batch);
    float *grad = step(&s, ws, &view, 1, &loss, NULL);
    test_cheaper_precisions_stay_near(&tiny, grad, loss);
    qp_free(grad);
    qp_workspace_destroy(&ws);
    tiny_teardown(&s);
    tiny_close(&tiny);
}

int main(void)
{
    qp_comm_t *comm; /* keeps MPI alive over the set-ups */
    CHECK_OK(qp_comm_create(&comm));
    test_model("tied");
    test_model("bias");
    test_model("mha");
    qp_comm_destroy(&comm);
    return qp_test_end();
}
