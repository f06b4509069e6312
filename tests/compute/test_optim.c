/* QP_TEST: isa=AVX2 check=0
 * AdamW against torch (tests/golden/make_optim.py) and a double twin; sums of squares. */
#include "cpu_testing.h"

static qp_dptr_t upload_floats(qp_device_t *device, const float *x, int64_t n)
{
    return upload_bytes(device, x, qp_bytes(n, sizeof *x));
}

static void test_adamw_follows_torch(qp_device_t *device)
{
    enum { N = 37, STEPS = 4 };
    float golden[N * (1 + 2 * STEPS)], zero[N] = {0}, param[N];
    uint16_t copy[N];
    FILE *file = fopen(qp_test_source("tests/golden/optim.f32"), "rb");
    CHECK(file != NULL && fread(golden, sizeof golden, 1, file) == 1);
    if (file != NULL)
        fclose(file);
    qp_queue_t *q = qp_device_queue(device);
    qp_dptr_t p = upload_floats(device, golden, N), g = upload_floats(device, zero, N);
    qp_dptr_t m = upload_floats(device, zero, N), v = upload_floats(device, zero, N);
    qp_dptr_t half = upload_bytes(device, copy, sizeof copy);
    for (int step = 0; step < STEPS; step++) {
        const float *grad = golden + N * (1 + 2 * step), *expected = grad + N;
        float scaled[N];
        for (int i = 0; i < N; i++)
            scaled[i] = grad[i] * 4.0f; /* undone by grad_scale */
        qp_adamw_t hyper = {.lr = 1e-2,
                            .beta1 = 0.9,
                            .beta2 = 0.999,
                            .eps = 1e-8,
                            .weight_decay = 0.05,
                            .grad_scale = 0.25f,
                            .step = step + 1};
        CHECK_OK(device->ops->upload(q, g, scaled, sizeof scaled));
        CHECK_OK(device->ops->adamw(q, p, half, g, m, v, N, &hyper));
        CHECK_OK(device->ops->download(q, param, p, sizeof param));
        CHECK_OK(device->ops->download(q, copy, half, sizeof copy));
        for (int i = 0; i < N; i++) {
            /* A contracted multiply-add may round once less than torch: 2 ulp of a value near 1. */
            CHECK_MSG(fabsf(param[i] - expected[i]) <= 0x1p-22f * fmaxf(1.0f, fabsf(expected[i])),
                      "step %d, parameter %d: %.9g, torch %.9g", step, i, (double)param[i],
                      (double)expected[i]);
            CHECK(copy[i] == qp_f32_to_bf16(param[i]));
        }
    }
    qp_dptr_t *all[] = {&p, &g, &m, &v, &half};
    for (int i = 0; i < 5; i++)
        device->ops->release(device, all[i]);
}

/* More elements than a chunk, threads one and three, no bf16 copy: double twin, and the same bits.
 */
static void test_adamw_twin(qp_device_t *device, qp_device_t *other)
{
    enum { N = 20011 };
    tensor_t p = make_normal(device, QP_F32, 1, N, 1), g = make_normal(device, QP_F32, 1, N, 2);
    tensor_t m = make_normal(device, QP_F32, 1, N, 3), v = make_normal(device, QP_F32, 1, N, 4);
    tensor_t p2 = make_normal(device, QP_F32, 1, N, 1), m2 = make_normal(device, QP_F32, 1, N, 3);
    for (int i = 0; i < N; i++) {
        v.x[i] *= v.x[i];
        set_element(&v, 0, i, v.x[i]);
    }
    tensor_t v2 = make_tensor(device, QP_F32, 1, N);
    double *expected = QP_NEW("test", double, N);
    qp_adamw_t h = {.lr = 3e-3,
                    .beta1 = 0.8,
                    .beta2 = 0.99,
                    .eps = 1e-6,
                    .weight_decay = 0.1,
                    .grad_scale = 0.5f,
                    .step = 17};
    for (int i = 0; i < N; i++) {
        set_element(&v2, 0, i, get_element(&v, 0, i));
        double grad = 0.5 * g.x[i], mean = h.beta1 * m.x[i] + (1 - h.beta1) * grad;
        double square = h.beta2 * v.x[i] + (1 - h.beta2) * grad * grad;
        double m_hat = mean / (1 - pow(h.beta1, 17)), v_hat = square / (1 - pow(h.beta2, 17));
        expected[i] = p.x[i] * (1 - h.lr * h.weight_decay) - h.lr * m_hat / (sqrt(v_hat) + h.eps);
    }
    CHECK_OK(device->ops->adamw(qp_device_queue(device), p.m.data, (qp_dptr_t){0}, g.m.data,
                                m.m.data, v.m.data, N, &h));
    CHECK_OK(other->ops->adamw(qp_device_queue(other), p2.m.data, (qp_dptr_t){0}, g.m.data,
                               m2.m.data, v2.m.data, N, &h));
    settle(other);
    CHECK_TENSOR(&p, expected, TOL_ELEMENT, "adamw");
    CHECK(same_rows(&p, 0, &p2, 1) && same_rows(&m, 0, &m2, 1) && same_rows(&v, 0, &v2, 1));
    tensor_t *all[] = {&p, &g, &m, &v, &p2, &m2, &v2};
    for (int i = 0; i < 7; i++)
        free_tensor(all[i]);
    QP_FREE(expected);
}

static void test_sum_squares(qp_device_t *device, qp_device_t *other)
{
    const int64_t sizes[] = {0, 1, 255, 257, 100003};
    for (int s = 0; s < 5; s++) {
        int64_t n = sizes[s];
        tensor_t x = make_normal(device, QP_F32, 1, n, 1);
        double sum, again, expected = 0.0;
        for (int64_t i = 0; i < n; i++)
            expected += x.x[i] * x.x[i];
        CHECK_OK(device->ops->sum_squares(qp_device_queue(device), x.m.data, n, &sum));
        CHECK_OK(other->ops->sum_squares(qp_device_queue(other), x.m.data, n, &again));
        CHECK(fabs(sum - expected) <= 1e-12 * expected);
        CHECK(memcmp(&sum, &again, sizeof sum) == 0);
        if (n > 0) {
            set_element(&x, 0, n - 1, NAN);
            CHECK_OK(device->ops->sum_squares(qp_device_queue(device), x.m.data, n, &sum));
            CHECK(!isfinite(sum));
            set_element(&x, 0, n - 1, -INFINITY);
            CHECK_OK(device->ops->sum_squares(qp_device_queue(device), x.m.data, n, &sum));
            CHECK(!isfinite(sum));
        }
        free_tensor(&x);
    }
}

int main(void)
{
    qp_device_t *device = open_device(1), *other = open_device(3);
    test_adamw_follows_torch(device);
    test_adamw_twin(device, other);
    test_sum_squares(device, other);
    qp_device_close(&device);
    qp_device_close(&other);
    return qp_test_end();
}
