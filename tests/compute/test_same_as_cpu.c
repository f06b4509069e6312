/* QP_TEST: check=0
 * A device's ops against the CPU's, for rows of any alignment: the same bits in copies, dropout
 * masks and the cache, the same tokens drawn; else what is left by rounding: the CPU may fuse a
 * multiplication and an addition. */
#include "cpu_testing.h"

typedef struct {
    qp_device_t *device, *cpu;
} pair_t;

/* n elements in the type, normal; the same on both; to be freed by the device. */
static qp_dptr_t random_on(qp_device_t *device, qp_dtype_t dtype, int64_t n, uint32_t site)
{
    const qp_philox_key_t key = {.seed = 31, .site = site};
    void *host = qp_alloc("test", qp_bytes(n, qp_dtype_bytes(dtype)));
    for (int64_t i = 0; i < n; i++)
        put_element(host, dtype, i, (double)qp_philox_normal(&key, (uint64_t)i));
    const qp_dptr_t p = upload_bytes(device, host, qp_bytes(n, qp_dtype_bytes(dtype)));
    qp_free(host);
    return p;
}

static bool same(const pair_t *on, const qp_dptr_t *p, size_t bytes)
{
    void *a = download_bytes(on->device, p[0], bytes), *b = download_bytes(on->cpu, p[1], bytes);
    const bool equal = memcmp(a, b, bytes) == 0;
    qp_free(a);
    qp_free(b);
    return equal;
}

/* To a few roundings, of terms of about 1. */
static bool close_to(const pair_t *on, const qp_dptr_t *p, qp_dtype_t dtype, int64_t n)
{
    const double limit = dtype == QP_F32 ? 1e-6 : 1.6e-2;
    const size_t bytes = qp_bytes(n, qp_dtype_bytes(dtype));
    void *a = download_bytes(on->device, p[0], bytes), *b = download_bytes(on->cpu, p[1], bytes);
    bool close = true;
    for (int64_t i = 0; i < n; i++) {
        const double x = element_of(a, dtype, i), y = element_of(b, dtype, i);
        close = close && ((isnan(x) && isnan(y)) || fabs(x - y) <= limit * fmax(1.0, fabs(y)));
    }
    qp_free(a);
    qp_free(b);
    return close;
}

static void release(const pair_t *on, qp_dptr_t *p)
{
    on->device->ops->release(on->device, &p[0]);
    on->cpu->ops->release(on->cpu, &p[1]);
}

enum { N_ROW = 7 };
/* Multiples of four and eight, with and without a gap of the same; else one by one. */
static const struct {
    int64_t n_col, ld;
} shapes[] = {{64, 64}, {64, 72}, {20, 24}, {64, 67}, {1032, 1032}, {37, 40}, {2, 2}};
enum { N_SHAPE = sizeof shapes / sizeof shapes[0] };

/* embed, with a token of none; gather_rows; combine_rows; what lies between the rows stays. */
static void test_rows(const pair_t *on)
{
    static const int32_t index[N_ROW] = {3, 0, 6, 6, 2, 1, 5},
                         token[N_ROW] = {3, -1, 6, 0, 2, 1, 5};
    for (int s = 0; s < N_SHAPE; s++)
        for (int types = 0; types < 4; types++) {
            const qp_dtype_t to = types & 1 ? QP_BF16 : QP_F32, from = types & 2 ? QP_BF16 : QP_F32;
            const int64_t n = N_ROW * shapes[s].ld;
            qp_dptr_t in[2], out[2], more[2], at[2];
            for (int d = 0; d < 2; d++) {
                qp_device_t *device = d == 0 ? on->device : on->cpu;
                qp_queue_t *q = qp_device_queue(device);
                in[d] = random_on(device, from, n, 1);
                out[d] = random_on(device, to, n, 2);
                more[d] = random_on(device, to, n, 3);
                at[d] = upload_bytes(device, index, sizeof index);
                qp_dptr_t tokens = upload_bytes(device, token, sizeof token);
                qp_dptr_t row = random_on(device, QP_F32, N_ROW, 4);
                qp_dptr_t w = random_on(device, QP_F32, shapes[s].n_col, 5);
                const qp_mat_t table = {in[d], from, N_ROW, shapes[s].n_col, shapes[s].ld};
                qp_mat_t x = table;
                x.dtype = to;
                x.data = out[d];
                CHECK_OK(device->ops->embed(q, x, table, tokens));
                x.data = more[d];
                CHECK_OK(device->ops->gather_rows(q, x, table, at[d]));
                CHECK_OK(device->ops->combine_rows(q, x, row, row, w));
                settle(device);
                device->ops->release(device, &tokens);
                device->ops->release(device, &row);
                device->ops->release(device, &w);
            }
            const size_t bytes = qp_bytes(n, qp_dtype_bytes(to));
            CHECK_MSG(same(on, out, bytes), "embed, shape %d, types %d", s, types);
            CHECK_MSG(close_to(on, more, to, n), "gather and combine, shape %d, types %d", s,
                      types);
            qp_dptr_t *const all[] = {in, out, more, at};
            for (int i = 0; i < 4; i++)
                release(on, all[i]);
        }
}

/* dx of another type than x and dy, overwritten and added to; a row that is not finite. */
static void test_rmsnorm_backward(const pair_t *on)
{
    for (int s = 0; s < N_SHAPE; s++)
        for (int types = 0; types < 4; types++) {
            const qp_dtype_t to = types & 1 ? QP_BF16 : QP_F32, from = types & 2 ? QP_BF16 : QP_F32;
            const int64_t n = N_ROW * shapes[s].ld;
            qp_dptr_t p[2];
            for (int d = 0; d < 2; d++) {
                qp_device_t *device = d == 0 ? on->device : on->cpu;
                qp_queue_t *q = qp_device_queue(device);
                qp_dptr_t x = random_on(device, from, n, 1), dy = random_on(device, from, n, 2),
                          rstd = random_on(device, QP_F32, N_ROW, 3),
                          w = random_on(device, QP_F32, shapes[s].n_col, 4);
                const float bad = NAN;
                p[d] = random_on(device, to, n, 5);
                CHECK_OK(
                    device->ops->upload(q, qp_dptr_at(rstd, 2 * sizeof bad), &bad, sizeof bad));
                const qp_mat_t in = {x, from, N_ROW, shapes[s].n_col, shapes[s].ld};
                qp_mat_t in_dy = in, out = in;
                in_dy.data = dy;
                out.data = p[d];
                out.dtype = to;
                CHECK_OK(device->ops->rmsnorm_backward(q, out, in_dy, in, rstd, w, s % 2 > 0));
                settle(device);
                qp_dptr_t *const all[] = {&x, &dy, &rstd, &w};
                for (int i = 0; i < 4; i++)
                    device->ops->release(device, all[i]);
            }
            CHECK_MSG(close_to(on, p, to, n), "rmsnorm_backward, shape %d, types %d", s, types);
            release(on, p);
        }
}

static void test_rope(const pair_t *on)
{
    enum { H = 3, G = 1, P = 9 };
    static const int64_t head_dims[] = {8, 64, 10};
    static const int32_t position[N_ROW] = {0, 8, 3, 3, 1, 2, 7};
    for (int types = 0; types < 6; types++) {
        const qp_dtype_t dtype = types & 1 ? QP_BF16 : QP_F32;
        const qp_attention_t a = {H, G, head_dims[types / 2], 1.0f};
        const int64_t n_col = (H + 2 * G) * a.head_dim;
        qp_dptr_t p[2];
        for (int d = 0; d < 2; d++) {
            qp_device_t *device = d == 0 ? on->device : on->cpu;
            p[d] = random_on(device, dtype, N_ROW * n_col, 1);
            qp_dptr_t table = random_on(device, QP_F32, P * a.head_dim, 2);
            qp_dptr_t at = upload_bytes(device, position, sizeof position);
            CHECK_OK(device->ops->rope(qp_device_queue(device), qp_mat(p[d], dtype, N_ROW, n_col),
                                       &a, qp_mat(table, QP_F32, P, a.head_dim), at,
                                       types % 3 > 0));
            settle(device);
            device->ops->release(device, &table);
            device->ops->release(device, &at);
        }
        CHECK_MSG(close_to(on, p, dtype, N_ROW * n_col), "rope, types %d", types);
        release(on, p);
    }
}

static void test_dropout(const pair_t *on)
{
    static const int32_t length[] = {5, 0, 17, 1}, n_past[] = {0, 3, 1000, 2};
    for (int64_t n_col = 1; n_col < 700; n_col += 133) {
        const qp_philox_key_t key = {
            .seed = (uint32_t)n_col, .step = (uint32_t)n_col % 5, .site = 1030};
        qp_dptr_t p[2];
        size_t bytes = 0;
        for (int d = 0; d < 2; d++) {
            qp_device_t *device = d == 0 ? on->device : on->cpu;
            batch_t batch = make_batch(device, 4, length, n_past);
            bytes = (size_t)(batch.r.n_token * qp_mask_words(n_col)) * sizeof(uint64_t);
            CHECK_OK(device->ops->alloc(device, "test", bytes, &p[d]));
            CHECK_OK(
                device->ops->dropout(qp_device_queue(device), p[d], n_col, 0.1f, &key, &batch.r));
            settle(device);
            free_batch(device, &batch);
        }
        CHECK_MSG(same(on, p, bytes), "dropout of %d columns", (int)n_col);
        release(on, p);
    }
}

static void test_adamw(const pair_t *on)
{
    enum { N = 2011 };
    const qp_adamw_t hyper = {.lr = 3e-3,
                              .beta1 = 0.8,
                              .beta2 = 0.99,
                              .eps = 1e-6,
                              .weight_decay = 0.1,
                              .grad_scale = 0.5f,
                              .step = 17};
    qp_dptr_t param[2], m[2], v[2], copy[2];
    for (int d = 0; d < 2; d++) {
        qp_device_t *device = d == 0 ? on->device : on->cpu;
        qp_dptr_t grad = random_on(device, QP_F32, N, 4);
        param[d] = random_on(device, QP_F32, N, 1);
        m[d] = random_on(device, QP_F32, N, 2);
        v[d] = random_on(device, QP_F32, N, 3); /* half of them negative: NaN */
        copy[d] = random_on(device, QP_BF16, N, 5);
        CHECK_OK(device->ops->adamw(qp_device_queue(device), param[d], copy[d], grad, m[d], v[d], N,
                                    &hyper));
        settle(device);
        device->ops->release(device, &grad);
    }
    CHECK(close_to(on, param, QP_F32, N) && close_to(on, copy, QP_BF16, N));
    CHECK(close_to(on, m, QP_F32, N) && close_to(on, v, QP_F32, N));
    qp_dptr_t *const all[] = {param, m, v, copy};
    for (int i = 0; i < 4; i++)
        release(on, all[i]);
}

/* --- the cache -------------------------------------------------------------------------------- */

enum { BLOCK_LEN = 4, N_BLOCK = 12, TABLE = 3, N_SEQ = 3 };

/* Keys, values and scales of a cache into which a batch was written. */
typedef struct {
    qp_dptr_t part[4][2];
    size_t bytes[4];
} caches_t;

static void append(caches_t *c, qp_device_t *device, int d, qp_dtype_t dtype, qp_dtype_t cache)
{
    enum { H = 2, G = 2, E = 24, ROWS = N_BLOCK * BLOCK_LEN };
    static const int32_t table[] = {11, 2, 5, 0, 4, 7, 9, 3, 1};
    static const int32_t n_new[N_SEQ] = {6, 0, 3}, n_past[N_SEQ] = {2, 1, 7};
    const qp_attention_t a = {H, G, E, 1.0f};
    batch_t batch = make_batch(device, N_SEQ, n_new, n_past);
    const bool int8 = cache == QP_I8;
    for (int i = 0; i < 4; i++) {
        c->bytes[i] = ROWS * (i < 2 ? (size_t)(G * E) * qp_dtype_bytes(cache) : G * sizeof(float));
        CHECK_OK(device->ops->alloc(device, "test", c->bytes[i], &c->part[i][d]));
        CHECK_OK(device->ops->zero(qp_device_queue(device), c->part[i][d], c->bytes[i]));
    }
    qp_kv_t kv = {.k = qp_mat(c->part[0][d], cache, ROWS, G * E),
                  .v = qp_mat(c->part[1][d], cache, ROWS, G * E),
                  .block_len = BLOCK_LEN};
    if (int8) {
        kv.k_scale = qp_mat(c->part[2][d], QP_F32, ROWS, G);
        kv.v_scale = qp_mat(c->part[3][d], QP_F32, ROWS, G);
    }
    qp_kv_map_t map = {.n_seq = N_SEQ, .n_past = n_past, .block_table = table, .table_ld = TABLE};
    map.n_past_device = upload_bytes(device, n_past, sizeof n_past);
    map.block_table_device = upload_bytes(device, table, sizeof table);
    qp_dptr_t qkv = random_on(device, dtype, batch.r.n_token * (H + 2 * G) * E, 6);
    CHECK_OK(device->ops->kv_append(qp_device_queue(device), &kv,
                                    qp_mat(qkv, dtype, batch.r.n_token, (H + 2 * G) * E), &a,
                                    &batch.r, &map));
    settle(device);
    device->ops->release(device, &map.n_past_device);
    device->ops->release(device, &map.block_table_device);
    device->ops->release(device, &qkv);
    free_batch(device, &batch);
}

static void test_append(const pair_t *on)
{
    static const qp_dtype_t cache[] = {QP_F32, QP_BF16, QP_I8};
    for (int types = 0; types < 6; types++) {
        caches_t c;
        append(&c, on->device, 0, types & 1 ? QP_BF16 : QP_F32, cache[types / 2]);
        append(&c, on->cpu, 1, types & 1 ? QP_BF16 : QP_F32, cache[types / 2]);
        for (int i = 0; i < 4; i++) {
            CHECK_MSG(same(on, c.part[i], c.bytes[i]), "kv_append, types %d, part %d", types, i);
            release(on, c.part[i]);
        }
    }
}

/* Many layers, the last ones with wider rows; the first half of them has scales. */
static void copy_layers(qp_dptr_t *p, size_t *bytes, qp_device_t *device)
{
    enum { N_LAYER = 150, WIDER = 131, N_COL = 32, ROWS = N_BLOCK * BLOCK_LEN };
    static const qp_kv_rows_t rows[] = {{3, 7, 3}, {4, 7, BLOCK_LEN}, {0, 1, 0}, {11, 10, 1}};
    const qp_dtype_t dtype = QP_BF16;
    const int64_t ld = N_COL + 8, each = ROWS * ld;
    qp_kv_t layer[N_LAYER];
    *bytes = N_LAYER * 4 * (size_t)each * sizeof(float);
    *p = random_on(device, QP_F32, N_LAYER * 4 * each, 7);
    for (int l = 0; l < N_LAYER; l++) {
        qp_mat_t m[4];
        for (int i = 0; i < 4; i++)
            m[i] =
                (qp_mat_t){qp_dptr_at(*p, (size_t)((4 * l + i) * each) * sizeof(float)),
                           i < 2 ? dtype : QP_F32, ROWS, i < 2 ? N_COL : 3, l < WIDER ? N_COL : ld};
        layer[l] = (qp_kv_t){.k = m[0], .v = m[1], .block_len = BLOCK_LEN};
        if (l < N_LAYER / 2) {
            layer[l].k_scale = m[2];
            layer[l].v_scale = m[3];
        }
    }
    qp_dptr_t at = upload_bytes(device, rows, sizeof rows);
    const qp_kv_copy_t copies = {.layer = layer,
                                 .n_layer = N_LAYER,
                                 .n_copy = sizeof rows / sizeof rows[0],
                                 .rows = rows,
                                 .rows_device = at};
    CHECK_OK(device->ops->kv_copy(qp_device_queue(device), &copies));
    settle(device);
    device->ops->release(device, &at);
}

static void test_copies(const pair_t *on)
{
    qp_dptr_t p[2];
    size_t bytes;
    copy_layers(&p[0], &bytes, on->device);
    copy_layers(&p[1], &bytes, on->cpu);
    CHECK(same(on, p, bytes));
    release(on, p);
}

/* --- tokens drawn ----------------------------------------------------------------------------- */

enum { N_DRAW = 40 };

static void draw_on(qp_device_t *device, int64_t n_vocab, const qp_sampling_t *how, int32_t *token,
                    float *logprob)
{
    uint32_t row[N_DRAW], forbid[N_DRAW];
    const qp_philox_key_t key = {.seed = 8, .step = 3};
    qp_queue_t *q = qp_device_queue(device);
    float *host = qp_alloc("test", qp_bytes(N_DRAW * n_vocab, sizeof *host));
    for (int i = 0; i < N_DRAW; i++) {
        const qp_philox_key_t of_row = {.seed = 21, .site = (uint32_t)i};
        for (int64_t j = 0; j < n_vocab; j++) /* half of the rows have many equal logits */
            host[i * n_vocab + j] =
                i % 2 ? 3.0f * qp_philox_normal(&of_row, (uint64_t)j)
                      : roundf(qp_philox_normal(&of_row, (uint64_t)j) * 8.0f) / 4.0f;
        host[i * n_vocab + i % n_vocab] = i % 3 ? -INFINITY : -0.0f;
        row[i] = (uint32_t)i;
        forbid[i] = i % 5 == 0;
    }
    host[4 * n_vocab] = NAN;
    host[5 * n_vocab] = INFINITY;
    qp_dptr_t logits = upload_bytes(device, host, qp_bytes(N_DRAW * n_vocab, sizeof *host));
    qp_dptr_t rows = upload_bytes(device, row, sizeof row),
              tokens = upload_bytes(device, row, sizeof row),
              no = upload_bytes(device, forbid, sizeof forbid),
              logprobs = upload_bytes(device, row, sizeof row);
    CHECK_OK(device->ops->sample(q, tokens, logprobs, qp_mat(logits, QP_F32, N_DRAW, n_vocab), how,
                                 &key, rows, rows, no));
    CHECK_OK(device->ops->download(q, token, tokens, N_DRAW * sizeof *token));
    CHECK_OK(device->ops->download(q, logprob, logprobs, N_DRAW * sizeof *logprob));
    qp_dptr_t *const all[] = {&logits, &rows, &tokens, &no, &logprobs};
    for (int i = 0; i < 5; i++)
        device->ops->release(device, all[i]);
    qp_free(host);
}

static void test_sample(const pair_t *on)
{
    static const qp_eos_t eos = {3, {0, 6, 1}};
    static const qp_sampling_t ways[] = {{0.0f, 0, 1.0f, &eos},  {1.0f, 0, 1.0f, &eos},
                                         {0.7f, 0, 1.0f, &eos},  {1.3f, 5, 1.0f, &eos},
                                         {1.0f, 0, 0.6f, &eos},  {0.9f, 5, 0.8f, &eos},
                                         {5.0f, 1, 1.0f, &eos},  {9.0f, 0, 0.95f, &eos},
                                         {1.0f, 0, 1e-6f, &eos}, {2.0f, 700, 0.999f, &eos}};
    static const int64_t n_vocab[] = {8, 33, 1000, 9001};
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++)
        for (size_t v = 0; v < sizeof n_vocab / sizeof n_vocab[0]; v++) {
            int32_t token[2][N_DRAW];
            float logprob[2][N_DRAW];
            draw_on(on->device, n_vocab[v], &ways[w], token[0], logprob[0]);
            draw_on(on->cpu, n_vocab[v], &ways[w], token[1], logprob[1]);
            for (int i = 0; i < N_DRAW; i++)
                CHECK_MSG(token[0][i] == token[1][i] &&
                              fabsf(logprob[0][i] - logprob[1][i]) <=
                                  1e-6f * fmaxf(1.0f, fabsf(logprob[1][i])),
                          "way %d, vocabulary %d, row %d: token %d (%.9g), on the CPU %d (%.9g)",
                          (int)w, (int)n_vocab[v], i, token[0][i], (double)logprob[0][i],
                          token[1][i], (double)logprob[1][i]);
            CHECK(token[0][4] == -1 && token[0][5] == -1);
        }
}

int main(void)
{
    const qp_device_config_t config = {
        .backend = QP_BACKEND_CPU, .compute = QP_COMPUTE_FP32, .threads = 2};
    pair_t on = {.device = open_device(2)};
    CHECK_OK(qp_device_open(&config, 0, 1, &on.cpu));
    reserve_for_tests(on.cpu);
    test_rows(&on);
    test_rmsnorm_backward(&on);
    test_rope(&on);
    test_dropout(&on);
    test_adamw(&on);
    test_append(&on);
    test_copies(&on);
    test_sample(&on);
    qp_device_close(&on.device);
    qp_device_close(&on.cpu);
    return qp_test_end();
}
