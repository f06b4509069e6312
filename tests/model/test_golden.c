/* QP_TEST: ranks=1,2,4 isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16 check=0,1,2
 * Tiny models against transformers and PEFT in fp32: logits, loss, every LoRA gradient, and 50
 * steps of training; each on every rank of a node-shared base. Goldens: tests/golden/make_model.py.
 */
#include <math.h>

#include "tiny.h"

enum { N_STEP = 50, N_BATCH = 4 };

/* fp32 sums of a few thousand terms in another order: 1e-7 x sqrt(n) x depth, with a margin. */
static const double LOGIT_TOLERANCE = 2e-5, GRADIENT_TOLERANCE = 2e-5;
static const double STEP_TOLERANCE = 1e-3; /* the bar of fifty steps */

static void check_logits(const tiny_t *tiny, const tiny_setup_t *s, qp_workspace_t *ws)
{
    const qp_ops_t *ops = s->device->ops;
    int64_t n_vocab = tiny->config.n_vocab, n = TINY_N_TOKEN * n_vocab;
    qp_dptr_t logits;
    tiny_batch_t batch;
    qp_pass_t pass = {0};
    qp_role_t role = {s->base, s->adapter};
    tiny_batch(n_vocab, 0, &batch);
    qp_model_batch_t view = tiny_view(&batch);
    CHECK_OK(qp_model_forward(ws, &role, &view, &pass));
    CHECK_OK(ops->alloc(s->device, "test", (size_t)n * sizeof(float), &logits));
    CHECK_OK(ops->lm_logits(qp_device_queue(s->device),
                            qp_mat(logits, QP_F32, TINY_N_TOKEN, n_vocab), qp_model_hidden(ws),
                            &s->base->lm_head));
    float *found = tiny_download(s->device, logits, n);
    const float *expected = tiny_golden(tiny, "logits");
    double worst = 0.0, largest = 0.0;
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)found[i] - (double)expected[i]));
        largest = fmax(largest, fabs((double)expected[i]));
    }
    CHECK_MSG(worst <= LOGIT_TOLERANCE * largest, "logits differ by %g (largest %g)", worst,
              largest);
    qp_free(found);
    ops->release(s->device, &logits);
}

static void check_gradients(const tiny_t *tiny, const tiny_setup_t *s, qp_workspace_t *ws)
{
    tiny_batch_t batch;
    qp_pass_t pass = {.training = true};
    qp_role_t role = {s->base, s->adapter};
    double loss;
    tiny_batch(tiny->config.n_vocab, 0, &batch);
    qp_model_batch_t view = tiny_view(&batch);
    tiny_zero_grad(s->adapter);
    CHECK_OK(qp_model_step(ws, &role, &view, &pass, 1.0f / TINY_N_TARGET, &loss, NULL));
    double expected = (double)*(const float *)tiny_golden(tiny, "loss");
    CHECK_MSG(fabs(loss / TINY_N_TARGET - expected) <= 1e-5 * expected, "loss %g, expected %g",
              loss / TINY_N_TARGET, expected);
    float *grad = tiny_download(s->device, s->adapter->grad, s->adapter->n_param);
    for (int64_t v = 0; v < s->adapter->n_view; v++) {
        const qp_lora_view_t *w = &s->adapter->view[v];
        char name[64];
        snprintf(name, sizeof name, "grad.layers.%d.%s.A", w->layer,
                 qp_linear_short_name(w->linear));
        double a =
            qp_test_relative_error(grad + w->a, tiny_golden(tiny, name), s->adapter->r * w->n_in);
        CHECK_MSG(a <= GRADIENT_TOLERANCE, "%s: relative error %g", name, a);
        name[strlen(name) - 1] = 'B';
        double b =
            qp_test_relative_error(grad + w->b, tiny_golden(tiny, name), s->adapter->r * w->n_out);
        CHECK_MSG(b <= GRADIENT_TOLERANCE, "%s: relative error %g", name, b);
    }
    qp_free(grad);
}

static void check_training(const tiny_t *tiny, const tiny_setup_t *s, qp_workspace_t *ws)
{
    const qp_ops_t *ops = s->device->ops;
    qp_adapter_t *adapter = s->adapter;
    size_t bytes = (size_t)adapter->n_param * sizeof(float);
    qp_queue_t *q = qp_device_queue(s->device);
    qp_role_t role = {s->base, adapter};
    qp_dptr_t m, v;
    CHECK_OK(ops->alloc(s->device, "test", bytes, &m));
    CHECK_OK(ops->alloc(s->device, "test", bytes, &v));
    CHECK_OK(ops->zero(q, m, bytes));
    CHECK_OK(ops->zero(q, v, bytes));
    const float *expected = tiny_golden(tiny, "losses");
    for (int step = 0; step < N_STEP; step++) {
        tiny_batch_t batch;
        qp_pass_t pass = {.training = true, .key.step = (uint32_t)step};
        double loss;
        tiny_batch(tiny->config.n_vocab, step % N_BATCH, &batch);
        qp_model_batch_t view = tiny_view(&batch);
        tiny_zero_grad(adapter);
        CHECK_OK(qp_model_step(ws, &role, &view, &pass, 1.0f / TINY_N_TARGET, &loss, NULL));
        double error = fabs(loss / TINY_N_TARGET / (double)expected[step] - 1.0);
        CHECK_MSG(error <= STEP_TOLERANCE, "step %d: relative error of the loss %g", step, error);
        qp_adamw_t hyper = {.lr = 5e-3,
                            .beta1 = 0.9,
                            .beta2 = 0.999,
                            .eps = 1e-8,
                            .weight_decay = 0.05,
                            .grad_scale = 1.0f,
                            .step = step + 1};
        CHECK_OK(ops->adamw(q, adapter->param, adapter->copy, adapter->grad, m, v, adapter->n_param,
                            &hyper));
    }
    ops->release(s->device, &m);
    ops->release(s->device, &v);
}

static void test_agrees_with_transformers(const char *name)
{
    tiny_t tiny;
    tiny_setup_t s;
    qp_workspace_t *ws;
    tiny_open(name, &tiny);
    tiny_setup(&tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8, &s);
    CHECK_OK(qp_workspace_create(s.base, &tiny.lora, TINY_N_TOKEN, QP_RECOMPUTE_LAYER, &ws));
    check_logits(&tiny, &s, ws);
    check_gradients(&tiny, &s, ws);
    check_training(&tiny, &s, ws);
    qp_workspace_destroy(&ws);
    tiny_teardown(&s);
    tiny_close(&tiny);
}

int main(void)
{
    qp_comm_t *comm; /* keeps MPI alive over the set-ups */
    CHECK_OK(qp_comm_create(&comm));
    test_agrees_with_transformers("tied");
    test_agrees_with_transformers("bias");
    test_agrees_with_transformers("mha");
    qp_comm_destroy(&comm);
    return qp_test_end();
}
