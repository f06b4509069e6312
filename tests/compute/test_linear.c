/* QP_TEST: isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16 check=0
 * Frozen linears of every kind and mode, forward and backward, against twins in double precision
 * and in integers; sizes that oneDNN packs (multiples of 64) and sizes that it does not. */
#include "compute/cpu/gemm/dnnl.h"
#include "linear_testing.h"

enum { LLM_OUTLIER = 3 }; /* feature with outliers in LLM.int8 tests */

static linear_t make_linear(qp_device_t *device, qp_weight_kind_t kind, int64_t n_out, int64_t n_in,
                            bool has_bias, qp_linear_mode_t mode)
{
    return make_weight(
        device,
        (qp_weight_t){
            .kind = kind, .n_out = n_out, .n_in = n_in, .has_bias = has_bias, .mode = mode});
}

/* Each type that products can have on this machine. */
#define FOR_COMPUTE(compute)                                                    \
    for (qp_compute_t compute = has_bf16() ? QP_COMPUTE_BF16 : QP_COMPUTE_FP32; \
         compute <= QP_COMPUTE_FP32; compute++)

/* --- twins ------------------------------------------------------------------------------------ */

/* y (+)= x W^T + bias with the dense weights. */
static void forward_twin(double *y, const double *x, const linear_t *l, int64_t n_row,
                         bool accumulate)
{
    const int64_t n_in = l->w.n_in, n_out = l->w.n_out;
    for (int64_t r = 0; r < n_row; r++)
        for (int64_t o = 0; o < n_out; o++) {
            double sum = l->bias != NULL ? (double)l->bias[o] : 0.0;
            for (int64_t i = 0; i < n_in; i++)
                sum += x[r * n_in + i] * l->dense[o * n_in + i];
            y[r * n_out + o] = sum + (accumulate ? y[r * n_out + o] : 0.0);
        }
}

static void backward_twin(double *dx, const double *dy, const linear_t *l, int64_t n_row,
                          bool accumulate)
{
    const int64_t n_in = l->w.n_in, n_out = l->w.n_out;
    for (int64_t r = 0; r < n_row; r++)
        for (int64_t i = 0; i < n_in; i++) {
            double sum = accumulate ? dx[r * n_in + i] : 0.0;
            for (int64_t o = 0; o < n_out; o++)
                sum += dy[r * n_out + o] * l->dense[o * n_in + i];
            dx[r * n_in + i] = sum;
        }
}

/* --- calls of the ops ------------------------------------------------------------------------- */

static const qp_mat_t nothing = {0};

static void run_linear(qp_device_t *device, const linear_t *l, bool back, qp_mat_t y, qp_mat_t x,
                       qp_mat_t add)
{
    const qp_input_t input = qp_input(x);
    CHECK_OK((back ? device->ops->linear_backward
                   : device->ops->linear_forward)(qp_device_queue(device), y, &input, &l->w, add));
}

static void forward(qp_device_t *device, const linear_t *l, qp_mat_t y, qp_mat_t x)
{
    run_linear(device, l, false, y, x, nothing);
}

static void backward(qp_device_t *device, const linear_t *l, qp_mat_t dx, qp_mat_t dy)
{
    run_linear(device, l, true, dx, dy, nothing);
}

/* --- fp32 and bf16 bases ---------------------------------------------------------------------- */

static const struct {
    int64_t n_row, n_out, n_in;
} sizes[] = {{1, 17, 48},   {3, 33, 100},    {17, 64, 64},   {130, 257, 64},
             {5, 320, 576}, {130, 192, 128}, {600, 128, 64}, {1, 576, 1536}};
enum { N_SIZE = sizeof sizes / sizeof sizes[0] };

/* What a linear's result is added to. */
typedef enum { ADD_NOTHING, ADD_ITSELF, ADD_OTHER, N_ADD } add_t;

/* One linear one way; the result may be added to what y holds or to what stands elsewhere. */
static void test_one_way(qp_device_t *device, const linear_t *l, qp_dtype_t dtype, int64_t n_row,
                         bool back, add_t adds, double most, const char *what)
{
    const int64_t n_in = back ? l->w.n_out : l->w.n_in, n_out = back ? l->w.n_in : l->w.n_out;
    tensor_t x = make_normal(device, dtype, n_row, n_in, 1);
    tensor_t other = make_normal(device, dtype, n_row, n_out, 2);
    tensor_t y = make_tensor(device, dtype, n_row, n_out);
    tensor_t *result = adds == ADD_ITSELF ? &other : &y;
    double *expected = QP_NEW("test", double, n_row *n_out);
    memcpy(expected, other.x, (size_t)(n_row * n_out) * sizeof *expected);
    (back ? backward_twin : forward_twin)(expected, x.x, l, n_row, adds != ADD_NOTHING);
    run_linear(device, l, back, result->m, x.m, adds == ADD_NOTHING ? nothing : other.m);
    char name[128];
    snprintf(name, sizeof name, "%s %s, add %d, %lld rows [%lld, %lld]", what,
             back ? "backward" : "forward", (int)adds, (long long)n_row, (long long)l->w.n_out,
             (long long)l->w.n_in);
    check_tensor(result, expected, most, name);
    QP_FREE(expected);
    free_tensor(&x);
    free_tensor(&y);
    free_tensor(&other);
}

static void test_both_ways(qp_device_t *device, const linear_t *l, qp_dtype_t dtype, int64_t n_row,
                           add_t adds, tol_t limit, double factor, const char *what)
{
    for (int back = 0; back < 2; back++)
        test_one_way(device, l, dtype, n_row, back == 1, adds, factor * tolerance(limit, dtype),
                     what);
}

static void test_float_kinds(void)
{
    const qp_linear_mode_t mode = {0};
    FOR_COMPUTE(compute)
    {
        qp_device_t *device = open_compute(compute, 2);
        for (int kind = QP_WEIGHT_F32; kind <= QP_WEIGHT_BF16; kind++)
            for (size_t s = 0; s < N_SIZE; s++) {
                linear_t l = make_linear(device, (qp_weight_kind_t)kind, sizes[s].n_out,
                                         sizes[s].n_in, s % 2 == 0, mode);
                test_both_ways(device, &l, qp_device_dtype(device), sizes[s].n_row,
                               (add_t)(s % N_ADD), TOL_REDUCTION, 1.0,
                               kind == QP_WEIGHT_F32 ? "fp32" : "bf16");
                free_linear(device, &l);
            }
        qp_device_close(&device);
    }
}

/* <dy, W x> = <W^T dy, x> without any twin. */
static void test_backward_is_the_transpose(void)
{
    qp_device_t *device = open_compute(QP_COMPUTE_FP32, 2);
    linear_t l = make_linear(device, QP_WEIGHT_F32, 96, 160, false, (qp_linear_mode_t){0});
    tensor_t x = make_normal(device, QP_F32, 1, 160, 1), dy = make_normal(device, QP_F32, 1, 96, 2);
    tensor_t y = make_tensor(device, QP_F32, 1, 96), dx = make_tensor(device, QP_F32, 1, 160);
    forward(device, &l, y.m, x.m);
    backward(device, &l, dx.m, dy.m);
    double a = 0.0, b = 0.0;
    for (int64_t i = 0; i < 96; i++)
        a += dy.x[i] * get_element(&y, 0, i);
    for (int64_t i = 0; i < 160; i++)
        b += x.x[i] * get_element(&dx, 0, i);
    CHECK_MSG(fabs(a - b) < 1e-3, "%.8g and %.8g", a, b);
    tensor_t *all[] = {&x, &dy, &y, &dx};
    for (int i = 0; i < 4; i++)
        free_tensor(all[i]);
    free_linear(device, &l);
    qp_device_close(&device);
}

/* --- int8 ------------------------------------------------------------------------------------- */

static const qp_linear_mode_t int8_mode = {true, true, 6.0f};
static const qp_linear_mode_t weight_only = {false, false, 6.0f};

/* The product of integers is exact: the result has the bits of the formula. */
static void test_integers_are_exact(qp_device_t *device, size_t s, qp_weight_kind_t kind)
{
    const int64_t n_row = sizes[s].n_row, n_out = sizes[s].n_out, n_in = sizes[s].n_in;
    linear_t l = make_linear(device, kind, n_out, n_in, true, int8_mode);
    tensor_t x = make_normal(device, QP_F32, n_row, n_in, 5);
    tensor_t y = make_tensor(device, QP_F32, n_row, n_out);
    forward(device, &l, y.m, x.m);
    uint8_t *u = QP_NEW("test", uint8_t, n_in);
    int64_t n_wrong = 0;
    for (int64_t r = 0; r < n_row; r++) {
        const float row_scale = quantise_twin(u, &l, &x, r);
        for (int64_t o = 0; o < n_out; o++) {
            int32_t sum = 0;
            for (int64_t i = 0; i < n_in; i++)
                sum += (u[i] - 128) * l.q[o * n_in + i];
            const float product = (float)sum * row_scale, scaled = product * l.scale[o];
            n_wrong += (float)get_element(&y, r, o) != scaled + l.bias[o];
        }
    }
    CHECK_MSG(n_wrong == 0, "kind %d, [%lld, %lld]: %lld of %lld differ", (int)kind,
              (long long)n_out, (long long)n_in, (long long)n_wrong, (long long)(n_row * n_out));
    QP_FREE(u);
    free_tensor(&x);
    free_tensor(&y);
    free_linear(device, &l);
}

/*
 * A row of normal numbers has absmax of about 3.5 sigma, so a step of 3.5/127 sigma and an rms
 * error of 3.5/127/sqrt(12) = 0.8% of each operand that is quantised.
 */
static const double quantised = 0.012;

/* Where there is AMX oneDNN multiplies; elsewhere it still can. */
static void leave_it_to_onednn(qp_device_t *device)
{
    qp_cpu_device_t *cpu = (qp_cpu_device_t *)device;
    bool likes = false;
    if (device->config.backend != QP_BACKEND_CPU)
        return;
    CHECK_OK(qp_cpu_dnnl_likes_packed(cpu, QP_I8, &likes));
    if (likes)
        cpu->int8_product = NULL;
}

static void test_int8_kinds(bool by_onednn)
{
    FOR_COMPUTE(compute)
    {
        qp_device_t *device = open_compute(compute, 2);
        if (by_onednn)
            leave_it_to_onednn(device);
        const qp_dtype_t dtype = qp_device_dtype(device);
        const double to_quantised = quantised / tolerance(TOL_REDUCTION, dtype);
        for (int kind = QP_WEIGHT_INT8; kind <= QP_WEIGHT_LLM_INT8; kind++)
            for (size_t s = 0; s < N_SIZE; s++) {
                test_integers_are_exact(device, s, (qp_weight_kind_t)kind);
                linear_t l = make_linear(device, (qp_weight_kind_t)kind, sizes[s].n_out,
                                         sizes[s].n_in, s % 2 == 0, int8_mode);
                test_both_ways(device, &l, dtype, sizes[s].n_row, (add_t)(s % N_ADD), TOL_REDUCTION,
                               to_quantised, "int8");
                l.w.mode = weight_only;
                /* operand and rotation rounded, then the result: two roundings more than a product
                 */
                test_both_ways(device, &l, dtype, sizes[s].n_row, (add_t)(s % N_ADD), TOL_REDUCTION,
                               2.0, "weight-only");
                free_linear(device, &l);
            }
        qp_device_close(&device);
    }
}

/* --- LLM.int8 outliers ------------------------------------------------------------------------ */

/*
 * Large values in few features: their columns are taken out whole, also from rows where they are
 * small; the rest is integer. With nothing but outliers in a row the result is exact to rounding.
 */
static void test_outliers(qp_device_t *device, int64_t n_row, int64_t n_out, int64_t n_in)
{
    linear_t l = make_linear(device, QP_WEIGHT_LLM_INT8, n_out, n_in, false, int8_mode);
    tensor_t x = make_normal(device, QP_F32, n_row, n_in, 5);
    tensor_t y = make_tensor(device, QP_F32, n_row, n_out);
    for (int64_t r = 0; r < n_row; r += 3)
        for (int64_t i = LLM_OUTLIER; i < n_in; i += 40) {
            /* a column has one sign; 6 is the threshold itself */
            set_element(&x, r, i, (r % 2 == 0 ? 50.0 : 6.0) * (i / 40 % 2 == 0 ? 1.0 : -1.0));
            x.x[r * n_in + i] = get_element(&x, r, i);
        }
    uint8_t *u = QP_NEW("test", uint8_t, n_in);
    for (int64_t r = 0; r < n_row; r++) {
        const double row_scale = (double)quantise_twin(u, &l, &x, r);
        for (int64_t o = 0; o < n_out; o++) {
            double sum = 0.0;
            for (int64_t i = 0; i < n_in; i++)
                sum += l.dense[o * n_in + i] *
                       (i % 40 == LLM_OUTLIER ? x.x[r * n_in + i] : (u[i] - 128) * row_scale);
            y.x[r * n_out + o] = sum;
        }
    }
    forward(device, &l, y.m, x.m);
    CHECK_TENSOR(&y, y.x, TOL_REDUCTION, "outliers, %lld rows [%lld, %lld]", (long long)n_row,
                 (long long)n_out, (long long)n_in);
    QP_FREE(u);
    free_tensor(&x);
    free_tensor(&y);
    free_linear(device, &l);
}

/* --- properties of int8 ----------------------------------------------------------------------- */

/* A row is what it is whatever stands beside it; a row with a NaN is not finite, the others are. */
static void test_rows_stand_alone(void)
{
    qp_device_t *device = open_compute(QP_COMPUTE_AUTO, 2);
    enum { ROWS = 150, BAD = 7, OUT = 128, IN = 192 };
    linear_t l = make_linear(device, QP_WEIGHT_INT8, OUT, IN, false, int8_mode);
    tensor_t x = make_normal(device, QP_BF16, ROWS, IN, 5);
    tensor_t y = make_tensor(device, QP_BF16, ROWS, OUT),
             part = make_tensor(device, QP_BF16, 3, OUT);
    forward(device, &l, y.m, x.m);
    forward(device, &l, part.m, qp_mat_rows(x.m, 140, 3));
    CHECK(same_rows(&y, 140, &part, 3));
    set_element(&x, BAD, 100, NAN);
    forward(device, &l, y.m, x.m);
    for (int64_t r = 0; r < ROWS; r++)
        CHECK_MSG(isfinite(get_element(&y, r, 0)) == (r != BAD), "row %lld", (long long)r);
    free_tensor(&x);
    free_tensor(&y);
    free_tensor(&part);
    free_linear(device, &l);
    qp_device_close(&device);
}

static void test_repeatable(qp_weight_kind_t kind, qp_linear_mode_t mode)
{
    qp_device_t *one = open_compute(QP_COMPUTE_AUTO, 1), *three = open_compute(QP_COMPUTE_AUTO, 3);
    linear_t l = make_linear(one, kind, 320, 576, true, mode);
    tensor_t x = make_normal(one, QP_BF16, 300, 576, 5), dx = make_tensor(one, QP_BF16, 300, 576);
    tensor_t y = make_tensor(one, QP_BF16, 300, 320), dx2 = make_tensor(one, QP_BF16, 300, 576);
    tensor_t y2 = make_tensor(one, QP_BF16, 300, 320);
    forward(one, &l, y.m, x.m);
    backward(one, &l, dx.m, y.m);
    settle(one);
    const int64_t alive = qp_mem_alive();
    for (int i = 0; i < 4; i++) {
        qp_device_t *device = i < 2 ? one : three;
        forward(device, &l, y2.m, x.m);
        backward(device, &l, dx2.m, y.m);
        settle(device);
        CHECK_MSG(same_rows(&y, 0, &y2, 300), "forward, kind %d, run %d", (int)kind, i);
        CHECK_MSG(same_rows(&dx, 0, &dx2, 300), "backward, kind %d, run %d", (int)kind, i);
        CHECK(i >= 2 || qp_mem_alive() == alive);
    }
    tensor_t *all[] = {&x, &dx, &y, &dx2, &y2};
    for (int i = 0; i < 5; i++)
        free_tensor(all[i]);
    free_linear(one, &l);
    qp_device_close(&one);
    qp_device_close(&three);
}

/* --- rows ------------------------------------------------------------------------------------- */

static void test_hadamard(void)
{
    static const int64_t n_features[] = {64, 576, 48, 100, 33};
    static const int64_t blocks[] = {64, 64, 16, 4, 1};
    for (int s = 0; s < 5; s++) {
        float x[576], back[576];
        double twin[576];
        const int64_t n = n_features[s], block = qp_hadamard_block(n);
        const qp_philox_key_t key = {.seed = 3};
        for (int64_t i = 0; i < n; i++)
            twin[i] = (double)(back[i] = x[i] = qp_philox_normal(&key, (uint64_t)i));
        CHECK(block == blocks[s]);
        qp_cpu_hadamard(x, n, block);
        rotate_twin(twin, n);
        for (int64_t i = 0; i < n; i++)
            CHECK_MSG(fabs((double)x[i] - twin[i]) < 2e-6, "n %lld, i %lld", (long long)n,
                      (long long)i);
        qp_cpu_hadamard(x, n, block);
        CHECK(qp_test_relative_error(x, back, n) < 1e-6);
    }
}

static void test_quantise(void)
{
    const float x[5] = {127.0f, 0.5f, 1.5f, -2.5f, -127.0f}, zero[3] = {0.0f, -0.0f, 0.0f};
    const float large[4] = {1.0f, 7.0f, -3.0f, 6.0f}, bad[2] = {1.0f, NAN};
    uint8_t q[5];
    CHECK(qp_cpu_quantise(q, x, 5, qp_cpu_absmax(x, 5)) == 1.0f);
    CHECK(q[0] == 255 && q[1] == 128 && q[2] == 130 && q[3] == 126 && q[4] == 1);
    CHECK(qp_cpu_quantise(q, zero, 3, qp_cpu_absmax(zero, 3)) == 0.0f && q[0] == 128);
    CHECK(qp_cpu_absmax_below(large, 4, 6.0f) == 3.0f);
    CHECK(isnan(qp_cpu_absmax(bad, 2)) && isnan(qp_cpu_absmax_below(bad, 2, 6.0f)));
}

/* A linear of a function of rows is the linear of that function's result, which it also writes;
 * float products may round differently where rows lie elsewhere. */
static void test_inputs(qp_weight_kind_t kind)
{
    qp_device_t *device = open_compute(QP_COMPUTE_AUTO, 2);
    qp_queue_t *q = qp_device_queue(device);
    enum { ROWS = 150, OUT = 320, IN = 192 };
    linear_t l = make_linear(device, kind, OUT, IN, true, int8_mode);
    tensor_t x = make_normal(device, QP_F32, ROWS, 2 * IN, 1),
             dout = make_normal(device, QP_F32, ROWS, OUT / 2, 2),
             gate_up = make_normal(device, QP_F32, ROWS, OUT, 3),
             weight = make_normal(device, QP_F32, 1, IN, 4);
    qp_mat_t half = x.m;
    half.n_col = IN;
    const qp_input_t input[] = {
        {.kind = QP_INPUT_RMSNORM, .x = half, .weight = weight.m.data, .eps = 1e-5f},
        {.kind = QP_INPUT_SWIGLU, .x = x.m},
        {.kind = QP_INPUT_SWIGLU_GRADIENT, .x = gate_up.m, .dout = dout.m},
    };
    for (int i = 0; i < 3; i++) {
        const bool back = input[i].kind == QP_INPUT_SWIGLU_GRADIENT;
        const int64_t n = back ? OUT : IN, n_out = back ? IN : OUT;
        tensor_t copy = make_tensor(device, QP_F32, ROWS, n),
                 again = make_tensor(device, QP_F32, ROWS, n);
        tensor_t y = make_tensor(device, QP_F32, ROWS, n_out),
                 plain = make_tensor(device, QP_F32, ROWS, n_out);
        tensor_t rstd = make_tensor(device, QP_F32, 1, ROWS);
        qp_input_t with_copy = input[i];
        with_copy.copy = copy.m;
        with_copy.rstd = rstd.m.data;
        CHECK_OK((back ? device->ops->linear_backward
                       : device->ops->linear_forward)(q, y.m, &with_copy, &l.w, nothing));
        run_linear(device, &l, back, plain.m, copy.m, nothing);
        for (int64_t e = 0; e < ROWS * n_out; e++)
            plain.x[e] = get_element(&plain, e / n_out, e % n_out);
        CHECK_TENSOR(&y, plain.x, TOL_REDUCTION, "kind %d, input %d", (int)kind, i);
        CHECK_MSG(!is_int8(kind) || same_rows(&y, 0, &plain, ROWS), "kind %d, input %d", (int)kind,
                  i);
        with_copy.copy = again.m;
        CHECK_OK(device->ops->input(q, &with_copy));
        CHECK_MSG(same_rows(&copy, 0, &again, ROWS), "copy, kind %d, input %d", (int)kind, i);
        tensor_t *all[] = {&copy, &again, &y, &plain, &rstd};
        for (int t = 0; t < 5; t++)
            free_tensor(all[t]);
    }
    free_tensor(&x);
    free_tensor(&dout);
    free_tensor(&gate_up);
    free_tensor(&weight);
    free_linear(device, &l);
    qp_device_close(&device);
}

/* A weight is the same bytes whether its rows come at once or in pieces. */
static void test_pieces(qp_weight_kind_t kind, int64_t n_out, int64_t n_in)
{
    qp_device_t *device = open_compute(QP_COMPUTE_FP32, 2);
    const int64_t n_element = n_out * n_in;
    float *plain = QP_NEW("test", float, n_element), *rows = QP_NEW("test", float, n_out);
    int8_t *bytes = (int8_t *)plain;
    for (size_t i = 0; i < qp_bytes(n_element, qp_dtype_bytes(qp_weight_dtype(kind))); i++)
        bytes[i] = (int8_t)(i * 37 % 61 - 30);
    for (int64_t o = 0; o < n_out; o++)
        rows[o] = (float)(o + 1);
    for (int piece = QP_WEIGHT_ROWS; piece <= 2 * QP_WEIGHT_ROWS; piece += QP_WEIGHT_ROWS) {
        qp_weight_t once = {.kind = kind, .n_out = n_out, .n_in = n_in, .has_bias = true}, w = once;
        const size_t n_bytes = device->ops->weight_bytes(device, &w);
        pack_weight(device, &once, plain, is_int8(kind) ? rows : NULL, rows, n_out);
        pack_weight(device, &w, plain, is_int8(kind) ? rows : NULL, rows, piece);
        char *a = download_bytes(device, once.storage, n_bytes);
        char *b = download_bytes(device, w.storage, n_bytes);
        CHECK_MSG(memcmp(a, b, n_bytes) == 0, "kind %d, [%lld, %lld], pieces of %d", (int)kind,
                  (long long)n_out, (long long)n_in, piece);
        qp_free(a);
        qp_free(b);
        device->ops->release(device, &once.storage);
        device->ops->release(device, &w.storage);
    }
    qp_free(plain);
    qp_free(rows);
    qp_device_close(&device);
}

int main(void)
{
    for (int kind = QP_WEIGHT_F32; kind <= QP_WEIGHT_LLM_INT8; kind++) {
        test_pieces((qp_weight_kind_t)kind, 320, 192);
        test_pieces((qp_weight_kind_t)kind, 200, 72);
    }
    test_hadamard();
    test_quantise();
    test_float_kinds();
    test_backward_is_the_transpose();
    test_int8_kinds(false);
    test_int8_kinds(true);
    qp_device_t *device = open_compute(QP_COMPUTE_FP32, 2);
    test_outliers(device, 1, 17, 48);
    test_outliers(device, 130, 128, 192);
    test_outliers(device, 20, 64, 4096);
    qp_device_close(&device);
    test_rows_stand_alone();
    test_repeatable(QP_WEIGHT_INT8, int8_mode);
    test_repeatable(QP_WEIGHT_LLM_INT8, int8_mode);
    test_repeatable(QP_WEIGHT_INT8, weight_only);
    test_repeatable(QP_WEIGHT_BF16, int8_mode);
    for (int kind = QP_WEIGHT_F32; kind <= QP_WEIGHT_LLM_INT8; kind++)
        test_inputs((qp_weight_kind_t)kind);
    return qp_test_end();
}
