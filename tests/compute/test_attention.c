/* QP_TEST: isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16 check=0
 * Causal attention, forward and backward: against the double twin, whose gradient is checked by
 * differences; the same bits alone, in a batch and on any number of threads; and transformers'. */
#include "attention_twin.h"
#include "cpu_testing.h"

typedef struct {
    qp_attention_t a;
    int n_seq;
    int32_t length[5];
} case_t;

/* Head sizes and groups of real models and odd ones; lengths around the blocks of 64 and 128. */
static const case_t cases[] = {
    {{9, 3, 64, 0.125f}, 3, {1, 150, 64}},         {{2, 2, 80, 0.1118f}, 2, {65, 129}},
    {{4, 1, 128, 0.08839f}, 2, {257, 2}},          {{3, 3, 7, 0.37796f}, 4, {5, 0, 63, 128}},
    {{2, 1, 33, 0.17408f}, 5, {3, 1, 1, 70, 9}},   {{1, 1, 64, 0.125f}, 1, {700}},
    {{6, 2, 64, 0.125f}, 5, {70, 66, 65, 70, 64}}, /* backward: heads of a group are one task */
};
enum { N_CASE = sizeof cases / sizeof cases[0] };

/* All arrays of one run of the op. */
typedef struct {
    batch_t batch;
    tensor_t qkv, out, lse, dout, dqkv;
} run_t;

static run_t start_run(qp_device_t *device, const case_t *c, qp_dtype_t dtype)
{
    run_t r = {.batch = make_batch(device, c->n_seq, c->length, NULL)};
    int64_t n = r.batch.r.n_token, e = c->a.head_dim;
    int64_t n_qkv = (c->a.n_head + 2 * c->a.n_kv_head) * e;
    r.qkv = make_normal(device, dtype, n, n_qkv, 1);
    r.dout = make_normal(device, dtype, n, c->a.n_head * e, 2);
    r.out = make_tensor(device, dtype, n, c->a.n_head * e);
    r.lse = make_tensor(device, QP_F32, 1, c->a.n_head * n);
    r.dqkv = make_tensor(device, dtype, n, n_qkv);
    return r;
}

static void run(qp_device_t *device, const case_t *c, run_t *r)
{
    qp_queue_t *q = qp_device_queue(device);
    CHECK_OK(
        device->ops->attention_forward(q, r->out.m, r->lse.m.data, r->qkv.m, &c->a, &r->batch.r));
    CHECK_OK(device->ops->attention_backward(q, r->dqkv.m, r->dout.m, r->out.m, r->lse.m.data,
                                             r->qkv.m, &c->a, &r->batch.r));
}

static void free_run(qp_device_t *device, run_t *r)
{
    free_batch(device, &r->batch);
    free_tensor(&r->qkv);
    free_tensor(&r->out);
    free_tensor(&r->lse);
    free_tensor(&r->dout);
    free_tensor(&r->dqkv);
}

static void check_against_twin(qp_device_t *device, const case_t *c, qp_dtype_t dtype)
{
    run_t r = start_run(device, c, dtype);
    run(device, c, &r);
    int64_t n = r.batch.r.n_token, ld = r.qkv.m.n_col, h = c->a.n_head, ldo = r.out.m.n_col;
    double *out = QP_NEW("test", double, n *ldo), *lse = QP_NEW("test", double, h *n);
    double *dqkv = QP_NEW("test", double, n *ld), *seq_lse = QP_NEW("test", double, h *n);
    for (int s = 0; s < c->n_seq; s++) {
        int64_t first = r.batch.cu_seqlens[s];
        attention_twin(out + first * ldo, seq_lse, r.qkv.x + first * ld, &c->a, c->length[s]);
        attention_backward_twin(dqkv + first * ld, r.dout.x + first * ldo, out + first * ldo,
                                seq_lse, r.qkv.x + first * ld, &c->a, c->length[s]);
        for (int64_t i = 0; i < h; i++)
            memcpy(lse + i * n + first, seq_lse + i * c->length[s],
                   (size_t)c->length[s] * sizeof *lse);
    }
    const char *type = qp_dtype_name(dtype);
    CHECK_TENSOR(&r.out, out, TOL_ATTENTION, "forward, head_dim %d, %s", (int)c->a.head_dim, type);
    CHECK_TENSOR(&r.lse, lse, TOL_ATTENTION, "lse, head_dim %d, %s", (int)c->a.head_dim, type);
    CHECK_TENSOR(&r.dqkv, dqkv, TOL_ATTENTION_GRADIENT, "backward, head_dim %d, %s",
                 (int)c->a.head_dim, type);
    QP_FREE(out);
    QP_FREE(lse);
    QP_FREE(seq_lse);
    QP_FREE(dqkv);
    free_run(device, &r);
}

/* Sequence s of the case, alone on another number of threads, gives the bits it gave in the batch.
 */
static void check_alone(qp_device_t *device, qp_device_t *other, const case_t *c, qp_dtype_t dtype)
{
    run_t all = start_run(device, c, dtype);
    run(device, c, &all);
    for (int s = 0; s < c->n_seq; s++) {
        case_t one = {c->a, 1, {c->length[s]}};
        int64_t first = all.batch.cu_seqlens[s], n = c->length[s];
        run_t r = start_run(other, &one, dtype);
        copy_rows(&r.qkv, 0, &all.qkv, first, n);
        copy_rows(&r.dout, 0, &all.dout, first, n);
        run(other, &one, &r);
        CHECK_MSG(same_rows(&all.out, first, &r.out, n), "forward bits, head_dim %d, sequence %d",
                  (int)c->a.head_dim, s);
        CHECK_MSG(same_rows(&all.dqkv, first, &r.dqkv, n),
                  "backward bits, head_dim %d, sequence %d", (int)c->a.head_dim, s);
        free_run(other, &r);
    }
    free_run(device, &all);
}

static void test_twin_gradient(void)
{
    enum { N = 6, H = 2, G = 1, E = 3, LD = (H + 2 * G) * E };
    const qp_attention_t a = {H, G, E, 0.7f};
    double qkv[N * LD], out[N * H * E], other[N * H * E], lse[H * N], unused[H * N];
    double dout[N * H * E], dqkv[N * LD];
    qp_philox_key_t key = {.seed = 5};
    for (int i = 0; i < N * LD; i++)
        qkv[i] = (double)qp_philox_normal(&key, (uint64_t)i);
    for (int i = 0; i < N * H * E; i++)
        dout[i] = (double)qp_philox_normal(&key, (uint64_t)(1000 + i));
    attention_twin(out, lse, qkv, &a, N);
    attention_backward_twin(dqkv, dout, out, lse, qkv, &a, N);
    for (int i = 0; i < N * LD; i++) {
        const double h = 1e-6, old = qkv[i];
        double slope = 0.0;
        for (int side = -1; side <= 1; side += 2) {
            qkv[i] = old + side * h;
            attention_twin(other, unused, qkv, &a, N);
            for (int j = 0; j < N * H * E; j++)
                slope += side * dout[j] * other[j] / (2 * h);
        }
        qkv[i] = old;
        CHECK_MSG(fabs(slope - dqkv[i]) < 1e-8, "twin %d: %.9g, differences %.9g", i, dqkv[i],
                  slope);
    }
}

static bool all_finite(const tensor_t *t)
{
    double *x = get_all(t);
    bool finite = true;
    for (int64_t i = 0; i < t->m.n_row * t->m.n_col; i++)
        finite = finite && isfinite(x[i]);
    QP_FREE(x);
    return finite;
}

/* Scores far from zero in both directions, as a long training run can make them. */
static void test_large_scores(qp_device_t *device)
{
    const case_t c = {{2, 1, 64, 0.125f}, 1, {200}};
    run_t r = start_run(device, &c, QP_F32);
    fill_normal(&r.qkv, 1, 30.0);
    run(device, &c, &r);
    int64_t n = 200;
    double *out = QP_NEW("test", double, n * 128), *lse = QP_NEW("test", double, 2 * n);
    attention_twin(out, lse, r.qkv.x, &c.a, n);
    /* Scores of about 900 have fp32 steps of 6e-5, which is the error of their exponential. */
    double error = tensor_error(&r.out, out);
    CHECK_MSG(error < 3e-4, "large scores: error %.3g", error);
    CHECK(all_finite(&r.dqkv));
    QP_FREE(out);
    QP_FREE(lse);
    free_run(device, &r);
}

/* One element of q, k or v that is no number, or infinite, shows in what is made from it. */
static void test_not_finite(qp_device_t *device, qp_dtype_t dtype)
{
    enum { N = 150, E = 64, ROW = 70 };
    const case_t c = {{1, 1, E, 0.125f}, 1, {N}};
    const double bad[] = {NAN, INFINITY};
    for (int part = 0; part < 3; part++)
        for (int i = 0; i < 2; i++) {
            run_t r = start_run(device, &c, dtype);
            set_element(&r.qkv, ROW, part * E + 3, bad[i]);
            run(device, &c, &r);
            CHECK_MSG(!all_finite(&r.out) && !all_finite(&r.dqkv), "part %d is %g", part, bad[i]);
            free_run(device, &r);
        }
}

/*
 * transformers' LLaMA attention (tests/golden/make_attention.py): rotary table, rotation, causal
 * grouped attention and the gradient down to the unrotated q, k, v.
 */
static void test_transformers(qp_device_t *device)
{
    enum { T = 11, H = 4, G = 2, E = 8, LD = (H + 2 * G) * E };
    static float golden[T * E + 2 * T * LD + 2 * T * H * E];
    FILE *file = fopen(qp_test_source("tests/golden/attention.f32"), "rb");
    CHECK(file != NULL && fread(golden, sizeof golden, 1, file) == 1);
    if (file != NULL)
        fclose(file);
    const float *table = golden, *qkv = table + T * E, *out = qkv + T * LD;
    const float *dout = out + T * H * E, *dqkv = dout + T * H * E;
    const case_t c = {{H, G, E, 0.35355339f}, 1, {T}};
    run_t r = start_run(device, &c, QP_F32);
    tensor_t rope = make_tensor(device, QP_F32, T, E);
    double *expected_out = QP_NEW("test", double, T *H *E);
    double *expected_dqkv = QP_NEW("test", double, T *LD);
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < E; i++)
            set_element(&rope, t, i, (double)table[t * E + i]);
        for (int i = 0; i < LD; i++) {
            set_element(&r.qkv, t, i, (double)qkv[t * LD + i]);
            expected_dqkv[t * LD + i] = (double)dqkv[t * LD + i];
        }
        for (int i = 0; i < H * E; i++) {
            set_element(&r.dout, t, i, (double)dout[t * H * E + i]);
            expected_out[t * H * E + i] = (double)out[t * H * E + i];
        }
    }
    qp_queue_t *q = qp_device_queue(device);
    CHECK_OK(device->ops->rope(q, r.qkv.m, &c.a, rope.m, r.batch.r.position, false));
    run(device, &c, &r);
    CHECK_OK(device->ops->rope(q, r.dqkv.m, &c.a, rope.m, r.batch.r.position, true));
    CHECK_TENSOR(&r.out, expected_out, TOL_ATTENTION, "transformers, forward");
    CHECK_TENSOR(&r.dqkv, expected_dqkv, TOL_ATTENTION_GRADIENT, "transformers, backward");
    QP_FREE(expected_out);
    QP_FREE(expected_dqkv);
    free_tensor(&rope);
    free_run(device, &r);
}

int main(void)
{
    test_twin_gradient();
    qp_device_t *device = open_device(2), *other = open_device(1);
    const int n_dtype = has_bf16() ? 2 : 1;
    for (int i = 0; i < N_CASE; i++)
        for (int d = 0; d < n_dtype; d++) {
            qp_dtype_t dtype = d == 0 ? QP_F32 : QP_BF16;
            check_against_twin(device, &cases[i], dtype);
            check_alone(device, other, &cases[i], dtype);
        }
    test_large_scores(device);
    for (int d = 0; d < n_dtype; d++)
        test_not_finite(device, d == 0 ? QP_F32 : QP_BF16);
    test_transformers(device);
    qp_device_close(&device);
    qp_device_close(&other);
    return qp_test_end();
}
