/* QP_TEST: check=0
 * AdamW steps with clipping against a plain double-precision twin of torch.optim.AdamW; a gradient
 * that is not finite changes nothing. */
#include <math.h>
#include <string.h>

#include "optim/optim.h"
#include "testing.h"

enum { N = 1003, N_STEP = 20 };

static const qp_optim_config_t config = {.lr = 1.0e-2,
                                         .beta1 = 0.9,
                                         .beta2 = 0.999,
                                         .eps = 1.0e-8,
                                         .weight_decay = 0.1,
                                         .max_grad_norm = 1.0,
                                         .schedule = QP_SCHEDULE_LINEAR,
                                         .warmup_steps = 3,
                                         .steps = N_STEP};

typedef struct {
    double param[N], m[N], v[N];
    int64_t n_update;
} twin_t;

static float gradient(int64_t step, int64_t i)
{
    static const float size[] = {0.0f, 0.01f, 0.12f}; /* norms 0, 0.2 and 2.7: max_grad_norm is 1 */
    return size[step % 3] * sinf((float)(step * 131 + i));
}

/* torch/optim/adamw.py, single tensor, and torch.nn.utils.clip_grad_norm_. */
static double twin_step(twin_t *t, int64_t step)
{
    double norm = 0.0, lr = qp_optim_lr(&config, step);
    for (int64_t i = 0; i < N; i++)
        norm += (double)gradient(step, i) * (double)gradient(step, i);
    norm = sqrt(norm);
    double scale = fmin(1.0, config.max_grad_norm / (norm + 1e-6));
    t->n_update++;
    double correction1 = 1.0 - pow(config.beta1, (double)t->n_update);
    double correction2 = 1.0 - pow(config.beta2, (double)t->n_update);
    for (int64_t i = 0; i < N; i++) {
        double g = scale * (double)gradient(step, i);
        t->param[i] *= 1.0 - lr * config.weight_decay;
        t->m[i] = config.beta1 * t->m[i] + (1.0 - config.beta1) * g;
        t->v[i] = config.beta2 * t->v[i] + (1.0 - config.beta2) * g * g;
        double denominator = sqrt(t->v[i]) / sqrt(correction2) + config.eps;
        t->param[i] -= lr / correction1 * t->m[i] / denominator;
    }
    return norm;
}

typedef struct {
    qp_device_t *device;
    qp_optim_t *optim;
    qp_dptr_t param, copy, grad;
} state_t;

static void one_step(state_t *s, int64_t step, const float *grad, double *norm, bool *skipped)
{
    qp_queue_t *q = qp_device_queue(s->device);
    CHECK_OK(s->device->ops->upload(q, s->grad, grad, N * sizeof(float)));
    CHECK_OK(qp_optim_step(s->optim, &config, step, s->param, s->copy, s->grad, norm, skipped));
}

static void check_param(state_t *s, const twin_t *twin)
{
    float param[N], expected[N];
    uint16_t copy[N];
    qp_queue_t *q = qp_device_queue(s->device);
    CHECK_OK(s->device->ops->download(q, param, s->param, sizeof param));
    CHECK_OK(s->device->ops->download(q, copy, s->copy, sizeof copy));
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < N; i++) {
        expected[i] = (float)twin->param[i];
        n_wrong += copy[i] != qp_f32_to_bf16(param[i]);
    }
    CHECK_MSG(n_wrong == 0, "%lld bf16 copies differ", (long long)n_wrong);
    /* Twenty updates of fp32 rounding, 6e-8 each, on parameters of order one. */
    CHECK(qp_test_relative_error(param, expected, N) < 2e-6);
}

/* max_grad_norm = 0: gradients of any size are taken as they are. AdamW's first step has the size
 * of lr whatever the gradient's scale, so the first moment tells. */
static void test_without_clipping(qp_device_t *device)
{
    enum { FEW = 4 };
    const float grad[FEW] = {300.0f, -400.0f, 0.0f, 1200.0f};
    qp_optim_config_t open = config;
    qp_optim_t *optim;
    qp_dptr_t param = {0}, at = {0};
    qp_queue_t *q = qp_device_queue(device);
    float m[FEW];
    double norm;
    bool skipped;
    open.max_grad_norm = 0.0;
    CHECK_OK(qp_optim_create(device, FEW, &optim));
    CHECK_OK(device->ops->alloc(device, "test", sizeof grad, &param));
    CHECK_OK(device->ops->alloc(device, "test", sizeof grad, &at));
    CHECK_OK(device->ops->zero(q, param, sizeof grad));
    CHECK_OK(device->ops->upload(q, at, grad, sizeof grad));
    CHECK_OK(qp_optim_step(optim, &open, 3, param, (qp_dptr_t){0}, at, &norm, &skipped));
    CHECK_OK(device->ops->download(q, m, optim->m, sizeof m));
    CHECK(!skipped && fabs(norm - 1300.0) < 1e-3);
    for (int i = 0; i < FEW; i++)
        CHECK(fabsf(m[i] - 0.1f * grad[i]) <= 1e-5f * fabsf(grad[i]));
    device->ops->release(device, &param);
    device->ops->release(device, &at);
    qp_optim_destroy(&optim);
}

int main(void)
{
    const qp_device_config_t device_config = {
        .backend = QP_BACKEND_AUTO, .compute = QP_COMPUTE_AUTO, .threads = 1};
    static twin_t twin;
    state_t s = {0};
    float host[N];
    double norm;
    bool skipped;
    CHECK_OK(qp_device_open(&device_config, 0, 1, &s.device));
    test_without_clipping(s.device);
    CHECK_OK(qp_optim_create(s.device, N, &s.optim));
    CHECK_OK(s.device->ops->alloc(s.device, "test", N * sizeof(float), &s.param));
    CHECK_OK(s.device->ops->alloc(s.device, "test", N * sizeof(uint16_t), &s.copy));
    CHECK_OK(s.device->ops->alloc(s.device, "test", N * sizeof(float), &s.grad));
    for (int64_t i = 0; i < N; i++) {
        host[i] = cosf((float)i);
        twin.param[i] = (double)host[i];
    }
    CHECK_OK(s.device->ops->upload(qp_device_queue(s.device), s.param, host, sizeof host));
    for (int64_t step = 0; step < N_STEP; step++) {
        if (step == 7) { /* the step is lost, the count of updates is not raised */
            memset(host, 0, sizeof host);
            host[N - 1] = NAN;
            one_step(&s, step, host, &norm, &skipped);
            CHECK(skipped && !isfinite(norm) && s.optim->n_update == twin.n_update);
            continue;
        }
        for (int64_t i = 0; i < N; i++)
            host[i] = gradient(step, i);
        one_step(&s, step, host, &norm, &skipped);
        double expected = twin_step(&twin, step);
        CHECK(!skipped && fabs(norm - expected) <= 1e-6 * expected);
    }
    check_param(&s, &twin);
    s.device->ops->release(s.device, &s.param);
    s.device->ops->release(s.device, &s.copy);
    s.device->ops->release(s.device, &s.grad);
    qp_optim_destroy(&s.optim);
    qp_device_close(&s.device);
    return qp_test_end();
}
