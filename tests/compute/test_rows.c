/* QP_TEST: isa=AVX2 check=0
 * Elementwise and row ops of the CPU backend against plain double-precision twins. */
#include "cpu_testing.h"

#include "compute/cpu/cpu.h"
#include "compute/cpu/rows/math.h"

static const qp_dtype_t dtypes[] = {QP_F32, QP_BF16};
enum { N_DTYPE = 2 };
/* Odd sizes, below and above the chunk in which rows are read; enough work to use all threads. */
static const struct {
    int64_t n_row, n_col;
} sizes[] = {{1, 1}, {3, 7}, {5, 64}, {37, 576}, {9, 1025}, {4, 4097}};
enum { N_SIZE = sizeof sizes / sizeof sizes[0] };

/* Calls body(device, out dtype, in dtype, n_row, n_col) for all sizes and types. */
static void for_all(qp_device_t *device,
                    void (*body)(qp_device_t *, qp_dtype_t, qp_dtype_t, int64_t, int64_t))
{
    for (int s = 0; s < N_SIZE; s++)
        for (int a = 0; a < N_DTYPE; a++)
            for (int b = 0; b < N_DTYPE; b++)
                body(device, dtypes[a], dtypes[b], sizes[s].n_row, sizes[s].n_col);
}

QP_CPU_CLONES static void exp_all(const float *x, float *y, int n)
{
    for (int i = 0; i < n; i++)
        y[i] = qp_cpu_expf(x[i]);
}

static void test_expf_is_exact_to_two_ulp(void)
{
    enum { N = 4096 };
    float x[N], y[N];
    double worst = 0.0;
    for (int block = 0; block < 512; block++) {
        for (int i = 0; i < N; i++)
            x[i] = (float)(-87.3 + 175.6 * ((double)block * N + i) / (512.0 * N));
        exp_all(x, y, N);
        for (int i = 0; i < N; i++) {
            double exact = exp((double)x[i]), ulp = exact * 0x1p-23;
            worst = fmax(worst, fabs((double)y[i] - exact) / ulp);
        }
    }
    CHECK_MSG(worst <= 2.0, "expf is off by %.2f ulp", worst);
    const float edge[] = {-INFINITY, -1e30f, -87.4f, 88.4f, INFINITY, NAN, 0.0f, -0.0f};
    exp_all(edge, y, 8);
    CHECK(y[0] == 0.0f && y[1] == 0.0f && y[2] == 0.0f);
    CHECK(isinf(y[3]) && isinf(y[4]) && isnan(y[5]) && y[6] == 1.0f && y[7] == 1.0f);
}

static void check_gather(qp_device_t *device, qp_dtype_t out_dtype, qp_dtype_t in_dtype,
                         int64_t n_row, int64_t n_col)
{
    tensor_t in = make_normal(device, in_dtype, n_row, n_col, 1);
    tensor_t out = make_tensor(device, out_dtype, 2 * n_row, n_col);
    int32_t *index = QP_NEW("test", int32_t, 2 * n_row);
    double *expected = QP_NEW("test", double, 2 * n_row * n_col);
    for (int64_t i = 0; i < 2 * n_row; i++) {
        index[i] = (int32_t)((i * 7 + 3) % n_row);
        memcpy(expected + i * n_col, in.x + index[i] * n_col, (size_t)n_col * sizeof(double));
    }
    qp_dptr_t at = upload_bytes(device, index, qp_bytes(2 * n_row, sizeof(int32_t)));
    CHECK_OK(device->ops->embed(qp_device_queue(device), out.m, in.m, at));
    CHECK_TENSOR(&out, expected, TOL_ELEMENT, "embed %lld x %lld", (long long)n_row,
                 (long long)n_col);
    CHECK_OK(device->ops->gather_rows(qp_device_queue(device), out.m, in.m, at));
    CHECK_TENSOR(&out, expected, TOL_ELEMENT, "gather %lld x %lld", (long long)n_row,
                 (long long)n_col);
    device->ops->release(device, &at);
    free_tensor(&in);
    free_tensor(&out);
    QP_FREE(index);
    QP_FREE(expected);
}

/* Both parts, each alone; without a scale what was there, even a NaN, does not matter. */
static void check_combine(qp_device_t *device, qp_dtype_t dtype, int64_t n_row, int64_t n_col)
{
    const qp_ops_t *ops = device->ops;
    qp_queue_t *q = qp_device_queue(device);
    const qp_dptr_t none = {0};
    for (int parts = 1; parts <= 3; parts++) {
        const bool scaled = parts & 1, shifted = parts & 2;
        tensor_t x = make_normal(device, dtype, n_row, n_col, 1);
        tensor_t scale = make_normal(device, QP_F32, 1, n_row, 2),
                 shift = make_normal(device, QP_F32, 1, n_row, 3),
                 w = make_normal(device, QP_F32, 1, n_col, 4);
        double *expected = QP_NEW("test", double, n_row *n_col);
        for (int64_t i = 0; i < n_row * n_col; i++)
            expected[i] = (scaled ? scale.x[i / n_col] * x.x[i] : 0.0) +
                          (shifted ? shift.x[i / n_col] * w.x[i % n_col] : 0.0);
        if (!scaled)
            set_element(&x, 0, 0, NAN);
        CHECK_OK(ops->combine_rows(q, x.m, scaled ? scale.m.data : none,
                                   shifted ? shift.m.data : none, shifted ? w.m.data : none));
        CHECK_TENSOR(&x, expected, TOL_ELEMENT, "combined rows %lld x %lld, parts %d",
                     (long long)n_row, (long long)n_col, parts);
        tensor_t *all[] = {&x, &scale, &shift, &w};
        for (int i = 0; i < 4; i++)
            free_tensor(all[i]);
        QP_FREE(expected);
    }
}

static const double rms_eps = 1e-5;

static void rmsnorm_twin(double *y, const double *x, const double *w, int64_t n_row, int64_t n_col)
{
    for (int64_t i = 0; i < n_row; i++) {
        double sum = 0.0;
        for (int64_t j = 0; j < n_col; j++)
            sum += x[i * n_col + j] * x[i * n_col + j];
        double rstd = 1.0 / sqrt(sum / (double)n_col + rms_eps);
        for (int64_t j = 0; j < n_col; j++)
            y[i * n_col + j] = x[i * n_col + j] * rstd * w[j];
    }
}

static void rmsnorm_backward_twin(double *dx, const double *dy, const double *x, const double *w,
                                  int64_t n_row, int64_t n_col)
{
    for (int64_t i = 0; i < n_row; i++) {
        const double *g = dy + i * n_col, *z = x + i * n_col;
        double sum = 0.0, dot = 0.0;
        for (int64_t j = 0; j < n_col; j++) {
            sum += z[j] * z[j];
            dot += g[j] * w[j] * z[j];
        }
        double rstd = 1.0 / sqrt(sum / (double)n_col + rms_eps);
        for (int64_t j = 0; j < n_col; j++)
            dx[i * n_col + j] =
                rstd * g[j] * w[j] - z[j] * rstd * rstd * rstd * dot / (double)n_col;
    }
}

/* The twin's gradient against central differences of the twin's value along random directions. */
static void test_rmsnorm_twin_gradient(void)
{
    enum { R = 3, C = 11 };
    double x[R * C], dy[R * C], w[C], dx[R * C], up[R * C], down[R * C];
    qp_philox_key_t key = {.seed = 3};
    for (int i = 0; i < R * C; i++) {
        x[i] = (double)qp_philox_normal(&key, (uint64_t)i);
        dy[i] = (double)qp_philox_normal(&key, (uint64_t)(100 + i));
        w[i % C] = 1.0 + 0.1 * i;
    }
    rmsnorm_backward_twin(dx, dy, x, w, R, C);
    for (int i = 0; i < R * C; i++) {
        const double h = 1e-6, old = x[i];
        x[i] = old + h;
        rmsnorm_twin(up, x, w, R, C);
        x[i] = old - h;
        rmsnorm_twin(down, x, w, R, C);
        x[i] = old;
        double slope = 0.0;
        for (int j = 0; j < R * C; j++)
            slope += dy[j] * (up[j] - down[j]) / (2 * h);
        CHECK_MSG(fabs(slope - dx[i]) < 1e-7, "twin %d: %.9g, differences %.9g", i, dx[i], slope);
    }
}

static void check_rmsnorm(qp_device_t *device, qp_dtype_t out_dtype, qp_dtype_t in_dtype,
                          int64_t n_row, int64_t n_col)
{
    qp_queue_t *q = qp_device_queue(device);
    tensor_t x = make_normal(device, in_dtype, n_row, n_col, 1);
    tensor_t w = make_normal(device, QP_F32, 1, n_col, 2),
             dy = make_normal(device, out_dtype, n_row, n_col, 3);
    tensor_t y = make_tensor(device, out_dtype, n_row, n_col);
    tensor_t dx = make_normal(device, in_dtype, n_row, n_col, 4);
    tensor_t rstd = make_tensor(device, QP_F32, 1, n_row);
    double *expected = QP_NEW("test", double, n_row *n_col);
    const qp_input_t norm = {.kind = QP_INPUT_RMSNORM,
                             .x = x.m,
                             .weight = w.m.data,
                             .rstd = rstd.m.data,
                             .eps = (float)rms_eps,
                             .copy = y.m};
    CHECK_OK(device->ops->input(q, &norm));
    rmsnorm_twin(expected, x.x, w.x, n_row, n_col);
    CHECK_TENSOR(&y, expected, TOL_REDUCTION, "rmsnorm %lld x %lld", (long long)n_row,
                 (long long)n_col);
    rmsnorm_backward_twin(expected, dy.x, x.x, w.x, n_row, n_col);
    for (int64_t i = 0; i < n_row * n_col; i++)
        expected[i] += dx.x[i];
    CHECK_OK(device->ops->rmsnorm_backward(q, dx.m, dy.m, x.m, rstd.m.data, w.m.data, true));
    CHECK_TENSOR(&dx, expected, TOL_REDUCTION, "rmsnorm backward += %lld x %lld", (long long)n_row,
                 (long long)n_col);
    for (int64_t i = 0; i < n_row * n_col; i++)
        expected[i] -= dx.x[i];
    /* One column: the gradient is what eps leaves of a full cancellation, so only sums are
     * compared. */
    CHECK_OK(device->ops->rmsnorm_backward(q, dx.m, dy.m, x.m, rstd.m.data, w.m.data, false));
    if (n_col > 1)
        CHECK_TENSOR(&dx, expected, TOL_REDUCTION, "rmsnorm backward %lld x %lld", (long long)n_row,
                     (long long)n_col);
    QP_FREE(expected);
    free_tensor(&x);
    free_tensor(&w);
    free_tensor(&dy);
    free_tensor(&y);
    free_tensor(&dx);
    free_tensor(&rstd);
}

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

static void check_swiglu(qp_device_t *device, qp_dtype_t out_dtype, qp_dtype_t in_dtype,
                         int64_t n_row, int64_t n_col)
{
    qp_queue_t *q = qp_device_queue(device);
    tensor_t gate_up = make_tensor(device, in_dtype, n_row, 2 * n_col);
    fill_normal(&gate_up, 1, 4.0);
    tensor_t out = make_tensor(device, out_dtype, n_row, n_col);
    tensor_t dout = make_normal(device, out_dtype, n_row, n_col, 2);
    double *y = QP_NEW("test", double, n_row *n_col),
           *d = QP_NEW("test", double, 2 * n_row * n_col);
    for (int64_t i = 0; i < n_row; i++)
        for (int64_t j = 0; j < n_col; j++) {
            double gate = gate_up.x[i * 2 * n_col + j], up = gate_up.x[(i * 2 + 1) * n_col + j];
            double dy = dout.x[i * n_col + j];
            const double h = 1e-5; /* the derivative of silu by central differences: error 1e-10 */
            y[i * n_col + j] = silu(gate) * up;
            d[i * 2 * n_col + j] = dy * up * (silu(gate + h) - silu(gate - h)) / (2 * h);
            d[(i * 2 + 1) * n_col + j] = dy * silu(gate);
        }
    qp_input_t input = {.kind = QP_INPUT_SWIGLU, .x = gate_up.m, .copy = out.m};
    CHECK_OK(device->ops->input(q, &input));
    CHECK_TENSOR(&out, y, TOL_ELEMENT, "swiglu %lld x %lld", (long long)n_row, (long long)n_col);
    tensor_t grad = make_tensor(device, in_dtype, n_row, 2 * n_col);
    input = (qp_input_t){
        .kind = QP_INPUT_SWIGLU_GRADIENT, .x = gate_up.m, .dout = dout.m, .copy = grad.m};
    CHECK_OK(device->ops->input(q, &input));
    CHECK_TENSOR(&grad, d, TOL_ELEMENT, "swiglu backward %lld x %lld", (long long)n_row,
                 (long long)n_col);
    input.copy = gate_up.m;
    CHECK_OK(device->ops->input(q, &input));
    CHECK_MSG(same_rows(&gate_up, 0, &grad, n_row), "swiglu backward in place");
    QP_FREE(y);
    QP_FREE(d);
    free_tensor(&gate_up);
    free_tensor(&out);
    free_tensor(&dout);
    free_tensor(&grad);
}

static void check_axpby(qp_device_t *device, qp_dtype_t out_dtype, qp_dtype_t in_dtype,
                        int64_t n_row, int64_t n_col)
{
    qp_queue_t *q = qp_device_queue(device);
    tensor_t x = make_normal(device, in_dtype, n_row, n_col, 1);
    tensor_t y = make_tensor(device, out_dtype, n_row, n_col); /* NaN: must not be read at beta 0 */
    double *expected = QP_NEW("test", double, n_row *n_col);
    CHECK_OK(device->ops->axpby(q, 0.5f, x.m, 0.0f, y.m));
    for (int64_t i = 0; i < n_row * n_col; i++)
        expected[i] = 0.5 * x.x[i];
    CHECK_TENSOR(&y, expected, TOL_ELEMENT, "axpby beta 0");
    for (int64_t i = 0; i < n_row * n_col; i++)
        expected[i] = 0.25 * x.x[i] + 2.0 * get_element(&y, i / n_col, i % n_col);
    CHECK_OK(device->ops->axpby(q, 0.25f, x.m, 2.0f, y.m));
    CHECK_TENSOR(&y, expected, TOL_ELEMENT, "axpby");
    QP_FREE(expected);
    free_tensor(&x);
    free_tensor(&y);
}

static void test_rope_rotates_halves(qp_device_t *device)
{
    qp_queue_t *q = qp_device_queue(device);
    enum { T = 21, H = 3, G = 1, E = 10, P = 40 };
    for (int d = 0; d < N_DTYPE; d++) {
        tensor_t qkv = make_normal(device, dtypes[d], T, (H + 2 * G) * E, 1);
        tensor_t table = make_tensor(device, QP_F32, P, E);
        for (int64_t p = 0; p < P; p++)
            for (int64_t i = 0; i < E / 2; i++) {
                double angle = (double)p * pow(10000.0, -2.0 * (double)i / E);
                set_element(&table, p, i, cos(angle));
                set_element(&table, p, E / 2 + i, sin(angle));
            }
        int32_t position[T];
        double *expected = QP_NEW("test", double, T *(H + 2 * G) * E);
        memcpy(expected, qkv.x, sizeof(double) * T * (H + 2 * G) * E);
        for (int t = 0; t < T; t++) {
            position[t] = (t * 5 + 2) % P;
            for (int h = 0; h < H + G; h++)
                for (int i = 0; i < E / 2; i++) {
                    double angle = position[t] * pow(10000.0, -2.0 * i / E);
                    const double *x = qkv.x + t * (H + 2 * G) * E + h * E;
                    double *y = expected + t * (H + 2 * G) * E + h * E;
                    y[i] = x[i] * cos(angle) - x[i + E / 2] * sin(angle);
                    y[i + E / 2] = x[i + E / 2] * cos(angle) + x[i] * sin(angle);
                }
        }
        qp_dptr_t at = upload_bytes(device, position, sizeof position);
        qp_attention_t a = {H, G, E, 1.0f};
        CHECK_OK(device->ops->rope(q, qkv.m, &a, table.m, at, false));
        CHECK_TENSOR(&qkv, expected, TOL_ELEMENT, "rope");
        CHECK_OK(device->ops->rope(q, qkv.m, &a, table.m, at, true));
        double error = tensor_error(&qkv, qkv.x);
        CHECK_MSG(error <= 2 * tolerance(TOL_ELEMENT, dtypes[d]), "rope back: error %.3g", error);
        device->ops->release(device, &at);
        free_tensor(&qkv);
        free_tensor(&table);
        QP_FREE(expected);
    }
}

/* Half c of the key's stream. */
static uint32_t half_word(const qp_philox_key_t *key, int64_t c)
{
    uint32_t word[4];
    qp_philox(key, (uint32_t)(c / 8), word);
    return word[c % 8 / 2] >> (c % 2 * 16) & 0xffffu;
}

/* What is left of x under the mask, by the definition; counts what is kept. */
static int64_t dropout_twin(double *x, const batch_t *batch, int64_t n_col, double p,
                            const qp_philox_key_t *key)
{
    int64_t n_kept = 0;
    for (int64_t s = 0; s < batch->r.n_seq; s++)
        for (int32_t t = batch->cu_seqlens[s]; t < batch->cu_seqlens[s + 1]; t++)
            for (int64_t c = 0; c < n_col; c++) {
                qp_philox_key_t at = *key;
                at.sample = 100u + (uint32_t)s;
                at.position = (uint32_t)(t - batch->cu_seqlens[s]);
                const bool kept = half_word(&at, c) >= p * 0x1p16;
                n_kept += kept;
                x[t * n_col + c] *= kept ? 1.0 / (1.0 - p) : 0.0;
            }
    return n_kept;
}

/* A copy and a product under a mask: a function of the token, whatever the width and the batch. */
static void test_dropout_is_keyed(qp_device_t *device)
{
    enum { K = 16 };
    const int32_t length[] = {5, 17, 1};
    const float p = 0.3f;
    const qp_philox_key_t key = {.seed = 1, .step = 2, .site = 1030};
    qp_queue_t *q = qp_device_queue(device);
    batch_t batch = make_batch(device, 3, length, NULL);
    const int64_t n_row = batch.r.n_token;
    for (int64_t n_col = 1; n_col < 400; n_col += 66) {
        tensor_t x = make_normal(device, QP_BF16, n_row, n_col, 1);
        tensor_t y = make_tensor(device, QP_F32, n_row, n_col);
        tensor_t a = make_normal(device, QP_F32, n_row, K, 2),
                 b = make_normal(device, QP_F32, K, n_col, 3),
                 c = make_normal(device, QP_F32, n_row, n_col, 4);
        double *expected = QP_NEW("test", double, n_row *n_col);
        qp_mask_t mask = {.scale = 1.0f / (1.0f - p)};
        CHECK_OK(device->ops->alloc(
            device, "test", (size_t)(n_row * qp_mask_words(n_col)) * sizeof(uint64_t), &mask.bits));
        CHECK_OK(device->ops->dropout(q, mask.bits, n_col, p, &key, &batch.r));

        memcpy(expected, x.x, (size_t)(n_row * n_col) * sizeof *expected);
        const int64_t n_kept = dropout_twin(expected, &batch, n_col, (double)p, &key);
        if (n_col > 100)
            CHECK(fabs((double)n_kept / (double)(n_row * n_col) - 0.7) < 0.03);
        const qp_input_t input = {.x = x.m, .copy = y.m, .mask = mask};
        CHECK_OK(device->ops->input(q, &input));
        CHECK_TENSOR(&y, expected, TOL_ELEMENT, "dropout %lld", (long long)n_col);

        for (int64_t i = 0; i < n_row * n_col; i++) {
            expected[i] = 0.0;
            for (int64_t k = 0; k < K; k++)
                expected[i] += a.x[i / n_col * K + k] * b.x[k * n_col + i % n_col];
        }
        dropout_twin(expected, &batch, n_col, (double)p, &key);
        for (int64_t i = 0; i < n_row * n_col; i++)
            expected[i] += c.x[i];
        CHECK_OK(device->ops->matmul(q, 1.0f, a.m, false, b.m, false, 1.0f, c.m, mask));
        CHECK_TENSOR(&c, expected, TOL_REDUCTION, "masked product %lld", (long long)n_col);

        device->ops->release(device, &mask.bits);
        tensor_t *all[] = {&x, &y, &a, &b, &c};
        for (int t = 0; t < 5; t++)
            free_tensor(all[t]);
        QP_FREE(expected);
    }
    free_batch(device, &batch);
}

int main(void)
{
    test_expf_is_exact_to_two_ulp();
    test_rmsnorm_twin_gradient();
    qp_device_t *device = open_device(2);
    for_all(device, check_gather);
    for (int bf16 = 0; bf16 <= has_bf16(); bf16++) {
        check_combine(device, bf16 ? QP_BF16 : QP_F32, 1, 1);
        check_combine(device, bf16 ? QP_BF16 : QP_F32, 33, 700);
    }
    for_all(device, check_rmsnorm);
    for_all(device, check_swiglu);
    for_all(device, check_axpby);
    test_rope_rotates_halves(device);
    test_dropout_is_keyed(device);
    qp_device_close(&device);
    return qp_test_end();
}
