/* QP_TEST: isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16 check=0
 * Fused language-model head against a double twin: log-probability, entropy, gradient; of floats
 * and of int8 in each of its modes. */
#include "linear_testing.h"

/* Rows and vocabularies around the chunks (256 rows, 2048 tokens). */
static const struct {
    int64_t n, d, v;
} sizes[] = {{1, 5, 3}, {7, 33, 2049}, {300, 64, 517}, {19, 96, 5000}};
enum { N_SIZE = sizeof sizes / sizeof sizes[0] };

typedef struct {
    double *logprob, *entropy, *dhidden;
} twin_t;

/* dhidden is the gradient of the sum of logprob. */
static void head_twin(twin_t *t, const double *hidden, const double *head, const int32_t *target,
                      int64_t n, int64_t d, int64_t v)
{
    double *z = QP_NEW("twin", double, v);
    for (int64_t i = 0; i < n; i++) {
        double top = -INFINITY, sum = 0.0;
        for (int64_t j = 0; j < v; j++) {
            z[j] = 0.0;
            for (int64_t k = 0; k < d; k++)
                z[j] += hidden[i * d + k] * head[j * d + k];
            top = fmax(top, z[j]);
        }
        for (int64_t j = 0; j < v; j++)
            sum += exp(z[j] - top);
        double lse = top + log(sum);
        t->entropy[i] = 0.0;
        t->logprob[i] = target[i] < 0 ? 0.0 : z[target[i]] - lse;
        for (int64_t k = 0; k < d; k++)
            t->dhidden[i * d + k] = 0.0;
        for (int64_t j = 0; j < v; j++) {
            double p = exp(z[j] - lse);
            t->entropy[i] -= p * (z[j] - lse);
            double g = target[i] < 0 ? 0.0 : (j == target[i]) - p;
            for (int64_t k = 0; k < d; k++)
                t->dhidden[i * d + k] += g * head[j * d + k];
        }
    }
    QP_FREE(z);
}

static twin_t make_twin(int64_t n, int64_t d)
{
    return (twin_t){QP_NEW("twin", double, n), QP_NEW("twin", double, n),
                    QP_NEW("twin", double, n *d)};
}

static void free_twin(twin_t *t)
{
    QP_FREE(t->logprob);
    QP_FREE(t->entropy);
    QP_FREE(t->dhidden);
}

static void test_twin_gradient(void)
{
    enum { N = 2, D = 4, V = 6 };
    double hidden[N * D], head[V * D];
    const int32_t target[N] = {5, 0};
    qp_philox_key_t key = {.seed = 9};
    for (int i = 0; i < N * D; i++)
        hidden[i] = (double)qp_philox_normal(&key, (uint64_t)i);
    for (int i = 0; i < V * D; i++)
        head[i] = (double)qp_philox_normal(&key, (uint64_t)(50 + i));
    twin_t t = make_twin(N, D), moved = make_twin(N, D);
    head_twin(&t, hidden, head, target, N, D, V);
    for (int i = 0; i < N * D; i++) {
        const double h = 1e-6, old = hidden[i];
        double slope = 0.0;
        for (int side = -1; side <= 1; side += 2) {
            hidden[i] = old + side * h;
            head_twin(&moved, hidden, head, target, N, D, V);
            for (int j = 0; j < N; j++)
                slope += side * moved.logprob[j] / (2 * h);
        }
        hidden[i] = old;
        CHECK_MSG(fabs(slope - t.dhidden[i]) < 1e-8, "twin %d: %.9g, differences %.9g", i,
                  t.dhidden[i], slope);
    }
    free_twin(&t);
    free_twin(&moved);
}

static linear_t make_head(qp_device_t *device, qp_weight_kind_t kind, int64_t v, int64_t d,
                          qp_linear_mode_t mode)
{
    return make_weight(
        device, (qp_weight_t){.kind = kind, .n_out = v, .n_in = d, .is_head = true, .mode = mode});
}

/* What an int8 product makes of rows, in the basis of the model. */
static void quantise_rows(double *to, const linear_t *head, const tensor_t *hidden)
{
    const int64_t d = head->w.n_in;
    uint8_t *q = QP_NEW("test", uint8_t, d);
    for (int64_t r = 0; r < hidden->m.n_row; r++) {
        const double scale = (double)quantise_twin(q, head, hidden, r);
        for (int64_t i = 0; i < d; i++)
            to[r * d + i] = scale * (double)(q[i] - 128);
        rotate_twin(to + r * d, d);
    }
    QP_FREE(q);
}

/* The same on whole numbers: the rotated row is rounded in bf16 compute. */
static void round_rows(double *to, const tensor_t *hidden)
{
    const int64_t d = hidden->m.n_col;
    const bool rounded = qp_device_dtype(hidden->device) == QP_BF16;
    float *row = QP_NEW("test", float, d);
    for (int64_t r = 0; rounded && r < hidden->m.n_row; r++) {
        for (int64_t i = 0; i < d; i++)
            row[i] = (float)hidden->x[r * d + i];
        qp_cpu_hadamard(row, d, qp_hadamard_block(d));
        for (int64_t i = 0; i < d; i++)
            to[r * d + i] = (double)qp_bf16_to_f32(qp_f32_to_bf16(row[i]));
        rotate_twin(to + r * d, d);
    }
    QP_FREE(row);
}

/* What a product with an int8 head sees. */
static void see_rows(double *to, const linear_t *head, const tensor_t *hidden)
{
    if (head->w.mode.int8_activation)
        quantise_rows(to, head, hidden);
    else
        round_rows(to, hidden);
}

/* Cosine between two gradients. */
static double cosine(const tensor_t *t, const double *expected)
{
    double both = 0.0, found = 0.0, right = 0.0;
    void *host = download_bytes(t->device, t->m.data, tensor_bytes(t));
    for (int64_t r = 0; r < t->m.n_row; r++)
        for (int64_t c = 0; c < t->m.n_col; c++) {
            const double x = element_of(host, t->m.dtype, r * t->m.ld + c),
                         y = expected[r * t->m.n_col + c];
            both += x * y;
            found += x * x;
            right += y * y;
        }
    qp_free(host);
    return both / sqrt(found * right);
}

static void check_head(qp_device_t *device, qp_dtype_t dtype, qp_weight_kind_t kind,
                       qp_linear_mode_t mode, int64_t n, int64_t d, int64_t v)
{
    qp_queue_t *q = qp_device_queue(device);
    tensor_t hidden = make_tensor(device, dtype, n, d);
    fill_normal(&hidden, 1, 3.0 / sqrt((double)d)); /* the head's numbers are normal */
    linear_t head = make_head(device, kind, v, d, mode);
    tensor_t logprob = make_tensor(device, QP_F32, 1, n),
             entropy = make_tensor(device, QP_F32, 1, n);
    tensor_t dhidden = make_tensor(device, dtype, n, d);
    int32_t *target = QP_NEW("test", int32_t, n);
    for (int64_t i = 0; i < n; i++)
        target[i] = i % 5 == 4 ? -1 : (int32_t)((i * 977 + v - 1) % v);
    qp_dptr_t at = upload_bytes(device, target, qp_bytes(n, sizeof(int32_t)));
    twin_t t = make_twin(n, d);
    if (kind == QP_WEIGHT_INT8)
        see_rows(hidden.x, &head, &hidden);
    head_twin(&t, hidden.x, head.dense, target, n, d, v);
    CHECK_OK(
        device->ops->lm_head(q, logprob.m.data, entropy.m.data, dhidden.m, hidden.m, &head.w, at));
    CHECK_TENSOR(&logprob, t.logprob, TOL_REDUCTION, "logprob, %lld tokens", (long long)v);
    CHECK_TENSOR(&entropy, t.entropy, TOL_REDUCTION, "entropy, %lld tokens", (long long)v);
    if (mode.int8_gradient) /* half a step of 255 of the largest probability, and no bias */
        CHECK_MSG(cosine(&dhidden, t.dhidden) > 0.9998, "dhidden, %lld tokens: cosine %.6f",
                  (long long)v, cosine(&dhidden, t.dhidden));
    else
        CHECK_TENSOR(&dhidden, t.dhidden, TOL_ATTENTION_GRADIENT, "dhidden, %lld tokens",
                     (long long)v);
    tensor_t only = make_tensor(device, QP_F32, 1, n);
    CHECK_OK(
        device->ops->lm_head(q, only.m.data, (qp_dptr_t){0}, (qp_mat_t){0}, hidden.m, &head.w, at));
    CHECK_MSG(same_rows(&only, 0, &logprob, 1), "logprob alone, %lld tokens", (long long)v);
    if (n > 3) { /* the last three rows alone */
        qp_dptr_t last = qp_dptr_at(at, (size_t)(n - 3) * sizeof(int32_t));
        only.m.n_col = 3;
        CHECK_OK(device->ops->lm_head(q, only.m.data, (qp_dptr_t){0}, (qp_mat_t){0},
                                      qp_mat_rows(hidden.m, n - 3, 3), &head.w, last));
        CHECK_TENSOR(&only, t.logprob + n - 3, TOL_REDUCTION, "the last three rows alone");
        only.m.n_col = n;
    }
    device->ops->release(device, &at);
    tensor_t *all[] = {&hidden, &logprob, &entropy, &dhidden, &only};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free_tensor(all[i]);
    free_linear(device, &head);
    free_twin(&t);
    QP_FREE(target);
}

/* Also where both are the same: then it is 0, exactly. */
static void check_kl(qp_device_t *device, qp_dtype_t dtype, qp_weight_kind_t kind, int64_t n,
                     int64_t d, int64_t v)
{
    tensor_t p = make_tensor(device, dtype, n, d), q = make_tensor(device, dtype, n, d);
    tensor_t kl = make_tensor(device, QP_F32, 1, n);
    linear_t head = make_head(device, kind, v, d, (qp_linear_mode_t){0});
    const tensor_t *const side[] = {&p, &q};
    fill_normal(&p, 1, 3.0 / sqrt((double)d));
    fill_normal(&q, 2, 3.0 / sqrt((double)d));
    double *logp[2], *expected = QP_NEW("test", double, n);
    for (int k = 0; k < 2; k++) {
        logp[k] = QP_NEW("test", double, n *v);
        for (int64_t i = 0; i < n; i++) {
            double sum = 0.0, *z = logp[k] + i * v;
            for (int64_t j = 0; j < v; j++)
                for (int64_t c = 0; c < d; c++)
                    z[j] += side[k]->x[i * d + c] * head.dense[j * d + c];
            for (int64_t j = 0; j < v; j++)
                sum += exp(z[j]);
            for (int64_t j = 0; j < v; j++)
                z[j] -= log(sum);
        }
    }
    for (int64_t i = 0; i < n * v; i++)
        expected[i / v] += exp(logp[0][i]) * (logp[0][i] - logp[1][i]);
    qp_queue_t *queue = qp_device_queue(device);
    CHECK_OK(device->ops->lm_kl(queue, kl.m.data, p.m, q.m, &head.w));
    CHECK_TENSOR(&kl, expected, TOL_REDUCTION, "kl of %lld rows, %lld tokens", (long long)n,
                 (long long)v);
    CHECK_OK(device->ops->lm_kl(queue, kl.m.data, p.m, p.m, &head.w));
    for (int64_t i = 0; i < n; i++)
        CHECK(get_element(&kl, 0, i) == 0.0);
    tensor_t *all[] = {&p, &q, &kl};
    for (int i = 0; i < 3; i++)
        free_tensor(all[i]);
    free_linear(device, &head);
    QP_FREE(logp[0]);
    QP_FREE(logp[1]);
    QP_FREE(expected);
}

static void check_logits(qp_device_t *device, qp_dtype_t dtype, qp_weight_kind_t kind,
                         qp_linear_mode_t mode, int64_t n, int64_t d, int64_t v)
{
    tensor_t hidden = make_normal(device, dtype, n, d, 1);
    tensor_t logits = make_tensor(device, QP_F32, n, v);
    linear_t head = make_head(device, kind, v, d, mode);
    double *expected = QP_NEW("test", double, n *v);
    CHECK_OK(device->ops->lm_logits(qp_device_queue(device), logits.m, hidden.m, &head.w));
    if (kind == QP_WEIGHT_INT8)
        see_rows(hidden.x, &head, &hidden);
    for (int64_t i = 0; i < n * v; i++)
        for (int64_t k = 0; k < d; k++)
            expected[i] += hidden.x[i / v * d + k] * head.dense[i % v * d + k];
    CHECK_TENSOR(&logits, expected, TOL_REDUCTION, "logits of %lld rows [%lld, %lld]", (long long)n,
                 (long long)v, (long long)d);
    QP_FREE(expected);
    free_linear(device, &head);
    free_tensor(&hidden);
    free_tensor(&logits);
}

static const qp_linear_mode_t as_floats = {0},
                              in_int8 = {.int8_activation = true, .int8_gradient = true},
                              forward_in_int8 = {.int8_activation = true};

/* Few rows and many, whole and broken blocks of the vocabulary. */
static void test_logits(qp_device_t *device)
{
    static const int64_t n_row[] = {1, 5, 16, 17, 40, 70};
    const qp_dtype_t dtype = qp_device_dtype(device);
    for (size_t i = 0; i < sizeof n_row / sizeof n_row[0]; i++) {
        check_logits(device, QP_F32, QP_WEIGHT_F32, as_floats, n_row[i], 33, 77);
        check_logits(device, dtype, QP_WEIGHT_BF16, as_floats, n_row[i], 64, 531);
        check_logits(device, dtype, QP_WEIGHT_BF16, as_floats, n_row[i], 45, 35);
        check_logits(device, dtype, QP_WEIGHT_INT8, as_floats, n_row[i], 64, 531);
        check_logits(device, dtype, QP_WEIGHT_INT8, in_int8, n_row[i], 128, 531);
        check_logits(device, dtype, QP_WEIGHT_INT8, in_int8, n_row[i], 45, 35);
    }
}

/* Alone or among others, to the bit. */
static void check_logits_alone(qp_device_t *device, qp_weight_kind_t kind, qp_linear_mode_t mode)
{
    enum { N = 11, D = 128, V = 300 };
    tensor_t hidden = make_normal(device, qp_device_dtype(device), N, D, 1);
    tensor_t all = make_tensor(device, QP_F32, N, V), one = make_tensor(device, QP_F32, 1, V);
    linear_t head = make_head(device, kind, V, D, mode);
    qp_queue_t *q = qp_device_queue(device);
    CHECK_OK(device->ops->lm_logits(q, all.m, hidden.m, &head.w));
    CHECK_OK(device->ops->lm_logits(q, one.m, qp_mat_rows(hidden.m, 7, 1), &head.w));
    CHECK(same_rows(&all, 7, &one, 1));
    free_linear(device, &head);
    free_tensor(&hidden);
    free_tensor(&all);
    free_tensor(&one);
}

static void test_logits_stand_alone(qp_device_t *device)
{
    check_logits_alone(device, QP_WEIGHT_BF16, as_floats);
    check_logits_alone(device, QP_WEIGHT_INT8, as_floats);
    check_logits_alone(device, QP_WEIGHT_INT8, in_int8);
}

/* Sizes that are packed and sizes that are not, around the chunks of rows and tokens. */
static void test_int8(qp_device_t *device)
{
    static const struct {
        int64_t n, d, v;
    } size[] = {{3, 20, 70}, {19, 64, 1029}, {1030, 64, 130}, {7, 128, 2112}};
    static const qp_linear_mode_t *const mode[] = {&as_floats, &forward_in_int8, &in_int8};
    for (size_t i = 0; i < sizeof size / sizeof size[0]; i++)
        for (size_t m = 0; m < sizeof mode / sizeof mode[0]; m++)
            check_head(device, qp_device_dtype(device), QP_WEIGHT_INT8, *mode[m], size[i].n,
                       size[i].d, size[i].v);
}

/* Probabilities that are all about as large lose nothing on one side when they are rounded: the
 * part of the error along the sum of p W, which a cosine does not show beside the target's row. */
static void test_rounding_has_no_side(qp_device_t *device)
{
    enum { N = 4, D = 64, V = 1029 };
    const int32_t target[N] = {5, 1028, 0, 700};
    tensor_t hidden = make_tensor(device, QP_F32, N, D),
             dhidden = make_tensor(device, QP_F32, N, D);
    tensor_t logprob = make_tensor(device, QP_F32, 1, N);
    linear_t head = make_head(device, QP_WEIGHT_INT8, V, D, in_int8);
    twin_t t = make_twin(N, D);
    double along = 0.0, all = 0.0;
    fill_normal(&hidden, 1, 0.1 / sqrt((double)D));
    qp_dptr_t at = upload_bytes(device, target, sizeof target);
    CHECK_OK(device->ops->lm_head(qp_device_queue(device), logprob.m.data, (qp_dptr_t){0},
                                  dhidden.m, hidden.m, &head.w, at));
    quantise_rows(hidden.x, &head, &hidden);
    head_twin(&t, hidden.x, head.dense, target, N, D, V);
    for (int i = 0; i < N * D; i++) {
        const double sum = head.dense[target[i / D] * D + i % D] - t.dhidden[i];
        along += (t.dhidden[i] - get_element(&dhidden, i / D, i % D)) * sum;
        all += sum * sum;
    }
    CHECK_MSG(fabs(along / all) < 5e-4, "the sum of p W is off by %g", along / all);
    device->ops->release(device, &at);
    free_tensor(&hidden);
    free_tensor(&dhidden);
    free_tensor(&logprob);
    free_linear(device, &head);
    free_twin(&t);
}

/* What is not a number in the first slice of the vocabulary is not forgotten in the next ones. */
static void test_nan_stays(qp_device_t *device)
{
    enum { N = 2, D = 64, V = 5000 };
    qp_queue_t *q = qp_device_queue(device);
    const float nan = NAN;
    linear_t head = make_head(device, QP_WEIGHT_F32, V, D, as_floats);
    tensor_t hidden = make_normal(device, QP_F32, N, D, 2);
    const int32_t target[N] = {V - 1, 3};
    CHECK_OK(
        device->ops->upload(q, qp_dptr_at(head.w.storage, 7 * D * sizeof nan), &nan, sizeof nan));
    qp_dptr_t to = upload_bytes(device, target, sizeof target);
    qp_dptr_t logprob = upload_bytes(device, target, sizeof target);
    CHECK_OK(
        device->ops->lm_head(q, logprob, (qp_dptr_t){0}, (qp_mat_t){0}, hidden.m, &head.w, to));
    float *found = download_bytes(device, logprob, N * sizeof *found);
    for (int i = 0; i < N; i++)
        CHECK_MSG(!isfinite(found[i]), "log-probability %d of a head with a NaN: %g", i,
                  (double)found[i]);
    QP_FREE(found);
    device->ops->release(device, &logprob);
    device->ops->release(device, &to);
    free_linear(device, &head);
    free_tensor(&hidden);
}

int main(void)
{
    test_twin_gradient();
    qp_device_t *device = open_device(2);
    for (int i = 0; i < N_SIZE; i++) {
        check_head(device, QP_F32, QP_WEIGHT_F32, as_floats, sizes[i].n, sizes[i].d, sizes[i].v);
        if (has_bf16())
            check_head(device, QP_BF16, QP_WEIGHT_BF16, as_floats, sizes[i].n, sizes[i].d,
                       sizes[i].v);
    }
    check_head(device, QP_F32, QP_WEIGHT_BF16, as_floats, 9, 40, 700);
    check_kl(device, QP_F32, QP_WEIGHT_F32, 1, 8, 3);
    check_kl(device, QP_F32, QP_WEIGHT_F32, 19, 64, 517);
    check_kl(device, QP_F32, QP_WEIGHT_INT8, 19, 64, 517);
    if (has_bf16())
        check_kl(device, QP_BF16, QP_WEIGHT_BF16, 19, 64, 517);
    test_int8(device);
    test_rounding_has_no_side(device);
    test_nan_stays(device);
    test_logits(device);
    test_logits_stand_alone(device);
    qp_device_close(&device);
    device = open_compute(QP_COMPUTE_AUTO, 2);
    test_int8(device);
    test_logits(device);
    test_logits_stand_alone(device);
    qp_device_close(&device);
    return qp_test_end();
}
