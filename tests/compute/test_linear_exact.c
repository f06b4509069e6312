/* QP_TEST: check=0
 * An int8 linear has the same bits on every device: sums of whole numbers are exact, and what comes
 * before and after them is written down to the order of its roundings. Linears of many shapes run
 * on the CPU and on the device of the environment. Where the row is a function of x, its elements
 * may differ in the last bit, and a rounding to int8 that was near a half goes the other way. */
#include "base/minmax.h"
#include "linear_testing.h"

static const uint32_t SEED = 5;

/* Two devices, of which the second may be the CPU once more. */
typedef struct {
    qp_device_t *device[2];
} pair_t;

/* One linear to be compared. */
typedef struct {
    int64_t n_row, n_out, n_in;
    qp_weight_kind_t kind;
    bool backward, has_bias;
    qp_dtype_t x, y;
    int adds; /* 0: nothing, 1: to itself, 2: to something else */
    qp_input_kind_t input;
} case_t;

static const char *describe(const case_t *c)
{
    static char text[160];
    snprintf(text, sizeof text,
             "%s kind %d, %lld rows [%lld, %lld], x %s, y %s, bias %d, add %d, input %d",
             c->backward ? "backward" : "forward", (int)c->kind, (long long)c->n_row,
             (long long)c->n_out, (long long)c->n_in, qp_dtype_name(c->x), qp_dtype_name(c->y),
             (int)c->has_bias, c->adds, (int)c->input);
    return text;
}

/* A number of 1 ... n by a key of its own. */
static int64_t draw(int64_t index, uint32_t site, int64_t n)
{
    const qp_philox_key_t key = {.seed = SEED, .sample = (uint32_t)index, .site = site};
    uint32_t word[4];
    qp_philox(&key, 0, word);
    return 1 + word[0] % n;
}

/* The result of a case on one device; the rows of x are as many as those of y. */
static tensor_t run_case(qp_device_t *device, const case_t *c)
{
    const qp_ops_t *ops = device->ops;
    qp_queue_t *q = qp_device_queue(device);
    const int64_t n_in = c->backward ? c->n_out : c->n_in, n_out = c->backward ? c->n_in : c->n_out;
    const int64_t x_col = c->input == QP_INPUT_SWIGLU ? 2 * n_in : n_in;
    linear_t l = make_weight(device, (qp_weight_t){.kind = c->kind,
                                                   .n_out = c->n_out,
                                                   .n_in = c->n_in,
                                                   .has_bias = c->has_bias,
                                                   .mode = {true, true, 1e30f}});
    tensor_t x = make_normal(device, c->x, c->n_row, x_col, 1);
    tensor_t other = make_normal(device, c->y, c->n_row, n_out, 2);
    tensor_t weight = make_normal(device, QP_F32, 1, x_col, 3);
    tensor_t rstd = make_tensor(device, QP_F32, 1, c->n_row);
    tensor_t y = make_tensor(device, c->y, c->n_row, n_out);
    qp_mat_t add = {0};
    qp_input_t input = {
        .kind = c->input, .x = x.m, .weight = weight.m.data, .rstd = rstd.m.data, .eps = 1e-5f};
    if (c->adds == 1)
        CHECK_OK(ops->axpby(q, 1.0f, other.m, 0.0f, y.m));
    if (c->adds > 0)
        add = c->adds == 1 ? y.m : other.m;
    CHECK_OK((c->backward ? ops->linear_backward : ops->linear_forward)(q, y.m, &input, &l.w, add));
    tensor_t *all[] = {&x, &other, &weight, &rstd};
    for (int i = 0; i < 4; i++)
        free_tensor(all[i]);
    free_linear(device, &l);
    return y;
}

/* Takes the elements of a tensor into its image. */
static void look(tensor_t *t)
{
    void *host = download_bytes(t->device, t->m.data, tensor_bytes(t));
    for (int64_t i = 0; i < t->m.n_row; i++)
        for (int64_t j = 0; j < t->m.n_col; j++)
            t->x[i * t->m.n_col + j] = element_of(host, t->m.dtype, i * t->m.ld + j);
    qp_free(host);
}

static void test_case(const pair_t *pair, const case_t *c)
{
    tensor_t y[2];
    for (int d = 0; d < 2; d++)
        y[d] = run_case(pair->device[d], c);
    if (c->input == QP_INPUT_PLAIN) {
        CHECK_MSG(same_rows(&y[0], 0, &y[1], c->n_row), "%s: other bits", describe(c));
    } else {
        /* a step of 1/127 of the largest element, in a few elements of thousands */
        const double limit = 1e-3 + tolerance(TOL_REDUCTION, c->y);
        look(&y[0]);
        const double error = tensor_error(&y[1], y[0].x);
        CHECK_MSG(error < limit, "%s: error %.3g, limit %.3g", describe(c), error, limit);
    }
    for (int d = 0; d < 2; d++)
        free_tensor(&y[d]);
}

/* --- what a row is quantised to --------------------------------------------------------------- */

/* A weight that gives what the row was quantised to: y = s q, and 127 is the largest of q. */
static linear_t make_unit(qp_device_t *device, int64_t n)
{
    linear_t l = make_weight(
        device,
        (qp_weight_t){.kind = QP_WEIGHT_INT8, .n_out = n, .n_in = n, .mode = {true, true, 1e30f}});
    memset(l.q, 0, (size_t)(n * n));
    for (int64_t i = 0; i < n; i++) {
        l.q[i * n + i] = 127;
        l.scale[i] = 1.0f / 127.0f;
    }
    device->ops->release(device, &l.w.storage);
    pack_weight(device, &l.w, l.q, l.scale, NULL, n);
    return l;
}

/* q [n_row, n] of a function of rows of x, as the device makes it. */
static void quantised(qp_device_t *device, qp_input_kind_t kind, qp_dtype_t dtype, int64_t n_row,
                      int64_t n, int32_t *q)
{
    linear_t unit = make_unit(device, n);
    const int64_t n_col = kind == QP_INPUT_SWIGLU ? 2 * n : n;
    tensor_t x = make_normal(device, dtype, n_row, n_col, 7);
    tensor_t weight = make_normal(device, QP_F32, 1, n_col, 8);
    tensor_t rstd = make_tensor(device, QP_F32, 1, n_row);
    tensor_t y = make_tensor(device, QP_F32, n_row, n);
    const qp_input_t input = {
        .kind = kind, .x = x.m, .weight = weight.m.data, .rstd = rstd.m.data, .eps = 1e-5f};
    CHECK_OK(
        device->ops->linear_forward(qp_device_queue(device), y.m, &input, &unit.w, (qp_mat_t){0}));
    look(&y);
    for (int64_t r = 0; r < n_row; r++) {
        double most = 0.0;
        for (int64_t i = 0; i < n; i++)
            most = fmax(most, fabs(y.x[r * n + i]));
        for (int64_t i = 0; i < n; i++) {
            const double exact = 127.0 * y.x[r * n + i] / most;
            q[r * n + i] = (int32_t)rint(exact);
            CHECK_MSG(fabs(exact - rint(exact)) < 1e-3, "a row is not whole numbers: %g", exact);
        }
    }
    tensor_t *all[] = {&x, &weight, &rstd, &y};
    for (int i = 0; i < 4; i++)
        free_tensor(all[i]);
    free_linear(device, &unit);
}

/* Behind a norm or SwiGLU q differs by 1 at most, in one element of a thousand at most. */
static void test_quantised(const pair_t *pair)
{
    enum { N_ROW = 24 };
    static const int64_t sizes[] = {64, 176, 257, 1024, 1408};
    static const qp_input_kind_t kinds[] = {QP_INPUT_PLAIN, QP_INPUT_RMSNORM, QP_INPUT_SWIGLU};
    for (int i = 0; i < 5 * 3 * 2; i++) {
        const int64_t n = sizes[i / 6], n_element = N_ROW * n;
        const qp_input_kind_t kind = kinds[i / 2 % 3];
        const qp_dtype_t dtype = i % 2 == 0 ? QP_F32 : QP_BF16;
        int32_t *q[2];
        int64_t n_other = 0, most = 0;
        for (int d = 0; d < 2; d++) {
            q[d] = QP_NEW("test", int32_t, n_element);
            quantised(pair->device[d], kind, dtype, N_ROW, n, q[d]);
        }
        for (int64_t k = 0; k < n_element; k++) {
            n_other += q[0][k] != q[1][k];
            most = qp_max_i64(most, llabs((long long)q[0][k] - q[1][k]));
        }
        CHECK_MSG(most <= (kind == QP_INPUT_PLAIN ? 0 : 1) && n_other * 1000 <= n_element,
                  "input %d, x %s, n %lld: %lld of %lld elements of q differ, by up to %lld",
                  (int)kind, qp_dtype_name(dtype), (long long)n, (long long)n_other,
                  (long long)n_element, (long long)most);
        for (int d = 0; d < 2; d++)
            qp_free(q[d]);
    }
}

/* --- shapes ----------------------------------------------------------------------------------- */

enum { N_RANDOM = 240, N_FUNCTION = 40 };

/* Sizes around those of blocks, warps and tiles, and any others. */
static int64_t draw_size(int64_t index, uint32_t site)
{
    static const int64_t common[] = {1,  2,  3,  15, 16,  17,  31,  32,  33,  48,
                                     63, 64, 65, 96, 127, 128, 129, 192, 257, 320};
    enum { N_COMMON = sizeof common / sizeof *common };
    return draw(index, site, 2) == 1 ? common[draw(index, site + 100, N_COMMON) - 1]
                                     : draw(index, site + 200, 200);
}

static case_t draw_case(int64_t index)
{
    case_t c = {.n_row = draw(index, 1, 3) == 1 ? draw(index, 11, 4) : draw_size(index, 12) / 2 + 1,
                .n_out = draw_size(index, 2),
                .n_in = draw_size(index, 3),
                .kind = draw(index, 5, 5) == 1 ? QP_WEIGHT_LLM_INT8 : QP_WEIGHT_INT8,
                .x = draw(index, 4, 2) == 1 ? QP_F32 : QP_BF16,
                .y = draw(index, 6, 2) == 1 ? QP_F32 : QP_BF16,
                .has_bias = draw(index, 7, 2) == 1,
                .adds = (int)draw(index, 8, 3) - 1};
    c.backward = c.kind == QP_WEIGHT_INT8 && draw(index, 9, 2) == 1; /* the other: no integers */
    return c;
}

static void test_random(const pair_t *pair)
{
    for (int64_t i = 0; i < N_RANDOM; i++) {
        const case_t c = draw_case(i);
        test_case(pair, &c);
    }
    for (int64_t i = 0; i < N_FUNCTION; i++) {
        case_t c = draw_case(N_RANDOM + i);
        c.input = i % 2 == 0 ? QP_INPUT_RMSNORM : QP_INPUT_SWIGLU;
        c.kind = QP_WEIGHT_INT8;
        test_case(pair, &c);
    }
}

/* Rows too long for a multiprocessor's memory; sums, and transposed weights, that are made in
 * pieces. */
static void test_large(const pair_t *pair)
{
    static const case_t large[] = {
        {5, 33, 25600, QP_WEIGHT_INT8, false, true, QP_F32, QP_F32, 2, QP_INPUT_PLAIN},
        {3, 27001, 20, QP_WEIGHT_INT8, true, false, QP_F32, QP_F32, 1, QP_INPUT_PLAIN},
        {2, 40, 25001, QP_WEIGHT_LLM_INT8, false, true, QP_F32, QP_F32, 0, QP_INPUT_PLAIN},
        {600, 300, 40, QP_WEIGHT_INT8, false, true, QP_F32, QP_F32, 0, QP_INPUT_PLAIN},
        {2, 700, 1100, QP_WEIGHT_INT8, true, false, QP_F32, QP_F32, 0, QP_INPUT_PLAIN},
        {1030, 90, 150, QP_WEIGHT_INT8, true, false, QP_F32, QP_F32, 1, QP_INPUT_PLAIN},
    };
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        test_case(pair, &large[i]);
}

/* For rows that are longer than those of other tests. */
static void reserve_long(qp_device_t *device)
{
    for (qp_weight_kind_t kind = QP_WEIGHT_INT8; kind <= QP_WEIGHT_LLM_INT8; kind++) {
        const qp_pass_size_t size = {.n_token = 1030,
                                     .d_model = 64,
                                     .n_vocab = 64,
                                     .widest = 28000,
                                     .weight = kind,
                                     .backward = true};
        CHECK_OK(device->ops->reserve(device, &size));
    }
}

static qp_device_t *open_backend(qp_backend_t backend)
{
    const qp_device_config_t config = {
        .backend = (int)backend, .compute = QP_COMPUTE_FP32, .threads = 2};
    qp_device_t *device = NULL;
    CHECK_OK(qp_device_open(&config, 0, 1, &device));
    reserve_long(device);
    return device;
}

/* Integers do not depend on what the device multiplies floats in; fp32 every CPU does. */
int main(void)
{
    const pair_t pair = {{open_backend(QP_BACKEND_CPU), open_backend(QP_BACKEND_AUTO)}};
    test_random(&pair);
    test_large(&pair);
    test_quantised(&pair);
    for (int d = 0; d < 2; d++) {
        qp_device_t *device = pair.device[d];
        qp_device_close(&device);
    }
    return qp_test_end();
}
