/* QP_TEST: check=0
 * Rows that lie so far apart that the number of an element has more than 32 bits: ops give the bits
 * that they give where the rows lie close. On a device alone, whose memory is what it says. */
#include "cpu_testing.h"

enum { N_ROW = 3, AREA = 128, N_AREA = 14, WIDTH = AREA * N_AREA, H = 2, G = 1, E = 16 };
static const int64_t far_apart = ((int64_t)1 << 30) + WIDTH; /* 2^31 elements before the last row */

/* Rows of bf16 in areas of as many columns, a matrix in each. */
typedef struct {
    qp_device_t *device;
    qp_dptr_t p;
    int64_t ld;
} view_t;

static qp_mat_t matrix(const view_t *v, int area, int64_t n_col)
{
    const qp_dptr_t at = qp_dptr_at(v->p, (size_t)(area * AREA) * sizeof(uint16_t));
    return (qp_mat_t){at, QP_BF16, N_ROW, n_col, v->ld};
}

/* As many elements per row, in fp32: an area holds half of it. */
static qp_mat_t floats(const view_t *v, int area, int64_t n_col)
{
    qp_mat_t m = matrix(v, area, n_col);
    m.dtype = QP_F32;
    m.ld /= 2;
    return m;
}

static view_t make_view(qp_device_t *device, int64_t ld)
{
    view_t v = {.device = device, .ld = ld};
    const qp_philox_key_t key = {.seed = 5};
    uint16_t row[WIDTH];
    CHECK_OK(device->ops->alloc(device, "test",
                                qp_bytes((N_ROW - 1) * ld + WIDTH, sizeof(uint16_t)), &v.p));
    for (int64_t r = 0; r < N_ROW; r++) {
        for (int i = 0; i < WIDTH; i++)
            row[i] = qp_f32_to_bf16(qp_philox_normal(&key, (uint64_t)(r * WIDTH + i)));
        CHECK_OK(device->ops->upload(qp_device_queue(device),
                                     qp_dptr_at(v.p, (size_t)(r * ld) * sizeof row[0]), row,
                                     sizeof row));
    }
    return v;
}

static void run_rows(const view_t *v, qp_dptr_t index, qp_dptr_t numbers)
{
    const qp_ops_t *ops = v->device->ops;
    qp_queue_t *q = qp_device_queue(v->device);
    const qp_mat_t x = matrix(v, 0, AREA);
    const qp_input_t norm = {.kind = QP_INPUT_RMSNORM,
                             .x = matrix(v, 1, AREA),
                             .weight = numbers,
                             .rstd = qp_dptr_at(numbers, AREA * sizeof(float)),
                             .eps = 1e-5f,
                             .copy = matrix(v, 2, AREA)};
    CHECK_OK(ops->axpby(q, 0.5f, x, 2.0f, matrix(v, 3, AREA)));
    CHECK_OK(ops->gather_rows(q, matrix(v, 4, AREA), x, index));
    CHECK_OK(ops->gather_rows(q, floats(v, 5, AREA / 2), matrix(v, 0, AREA / 2), index));
    CHECK_OK(ops->combine_rows(q, matrix(v, 4, AREA), numbers, numbers, numbers));
    CHECK_OK(ops->input(q, &norm));
    CHECK_OK(ops->rmsnorm_backward(q, matrix(v, 3, AREA), x, norm.x, norm.rstd, numbers, true));
}

/* a w, and w a: rows of a, and features. */
static void run_products(const view_t *v, qp_dptr_t w)
{
    const qp_ops_t *ops = v->device->ops;
    qp_queue_t *q = qp_device_queue(v->device);
    const qp_mat_t a = matrix(v, 0, AREA), square = qp_mat(w, QP_BF16, N_ROW, N_ROW);
    const qp_mask_t none = {.scale = 1.0f};
    CHECK_OK(ops->matmul(q, 1.0f, a, false, qp_mat(w, QP_BF16, AREA, AREA), false, 0.0f,
                         matrix(v, 6, AREA), none));
    CHECK_OK(ops->matmul(q, 1.0f, square, false, a, false, 1.0f, matrix(v, 7, AREA), none));
    CHECK_OK(ops->matmul(q, 1.0f, floats(v, 5, AREA / 2), false,
                         qp_mat(w, QP_F32, AREA / 2, AREA / 2), true, 0.0f, floats(v, 8, AREA / 2),
                         none));
}

static void run_attention(const view_t *v, const batch_t *batch, qp_dptr_t angles, qp_dptr_t lse)
{
    const qp_attention_t a = {H, G, E, 0.25f};
    const qp_ops_t *ops = v->device->ops;
    qp_queue_t *q = qp_device_queue(v->device);
    const qp_mat_t qkv = matrix(v, 9, (H + 2 * G) * E), out = matrix(v, 10, H * E);
    CHECK_OK(ops->rope(q, qkv, &a, qp_mat(angles, QP_F32, N_ROW, E), batch->r.position, false));
    CHECK_OK(ops->attention_forward(q, out, lse, qkv, &a, &batch->r));
    CHECK_OK(ops->attention_backward(q, matrix(v, 11, (H + 2 * G) * E), matrix(v, 12, H * E), out,
                                     lse, qkv, &a, &batch->r));
}

/* The rows as all ops left them, to be freed. */
static uint16_t *run(const view_t *v)
{
    static const int32_t index[N_ROW] = {2, 0, 1}, length[] = {N_ROW};
    enum { N = AREA * AREA };
    qp_device_t *device = v->device;
    const qp_philox_key_t key = {.seed = 6};
    uint32_t *numbers = QP_NEW("test", uint32_t, N);
    uint16_t *rows = QP_NEW("test", uint16_t, N_ROW * WIDTH);
    for (int i = 0; i < N; i++) { /* normal, as fp32 and as two of bf16 */
        const uint32_t half = qp_f32_to_bf16(qp_philox_normal(&key, (uint64_t)i));
        numbers[i] = half << 16 | half;
    }
    batch_t batch = make_batch(device, 1, length, NULL);
    qp_dptr_t on_device[] = {upload_bytes(device, index, sizeof index),
                             upload_bytes(device, numbers, N * sizeof *numbers),
                             upload_bytes(device, numbers, N * sizeof *numbers)};
    run_rows(v, on_device[0], on_device[1]);
    run_products(v, on_device[2]);
    run_attention(v, &batch, on_device[2], on_device[1]);
    for (int64_t r = 0; r < N_ROW; r++)
        CHECK_OK(device->ops->download(qp_device_queue(device), rows + r * WIDTH,
                                       qp_dptr_at(v->p, (size_t)(r * v->ld) * sizeof *rows),
                                       WIDTH * sizeof *rows));
    for (int i = 0; i < 3; i++)
        device->ops->release(device, &on_device[i]);
    free_batch(device, &batch);
    qp_free(numbers);
    return rows;
}

int main(void)
{
    qp_device_t *device = open_device(1);
    if (strcmp(device->ops->name, "cuda") != 0) {
        qp_device_close(&device);
        return QP_TEST_SKIP;
    }
    view_t close = make_view(device, WIDTH), away = make_view(device, far_apart);
    uint16_t *expected = run(&close), *got = run(&away);
    for (int area = 0; area < N_AREA; area++)
        for (int r = 0; r < N_ROW; r++) {
            const int at = r * WIDTH + area * AREA;
            CHECK_MSG(memcmp(expected + at, got + at, AREA * sizeof *got) == 0, "area %d, row %d",
                      area, r);
        }
    qp_free(expected);
    qp_free(got);
    device->ops->release(device, &close.p);
    device->ops->release(device, &away.p);
    qp_device_close(&device);
    return qp_test_end();
}
