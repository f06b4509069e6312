/**
 * Speed of attention and the language-model head beside the bare product of the same machine:
 *
 *     bench_attention [threads] [bf16|fp32]
 *
 * Shapes of SmolLM2-135M at 4 x 1024 tokens. Useful operations are counted: the causal half of
 * attention (4 E n^2/2 per head forward, 10 E n^2/2 backward), and the two products of the head.
 * Decoding reads its cache: 16 sequences with 1024 keys each.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "base/timer.h"
#include "compute/ops.h"

enum { N_SEQ = 4, LENGTH = 1024, T = N_SEQ * LENGTH, H = 9, G = 3, E = 64, V = 49152, D = H * E };
enum { REPEAT = 5, N = 2048 }; /* N: size of the bare product */

typedef struct {
    qp_device_t *device;
    const qp_ops_t *ops;
    qp_queue_t *q;
    qp_dtype_t dtype;
} bench_t;

static void stop_on(qp_error_t error)
{
    if (error != NULL)
        exit(qp_error_report(&error));
}

static qp_mat_t random_mat(const bench_t *b, qp_dtype_t dtype, int64_t n_row, int64_t n_col)
{
    qp_mat_t m = qp_mat((qp_dptr_t){0}, dtype, n_row, n_col);
    stop_on(
        b->ops->alloc(b->device, "bench", qp_bytes(n_row * n_col, qp_dtype_bytes(dtype)), &m.data));
    float *x = QP_NEW("bench", float, n_col);
    qp_philox_key_t key = {.seed = 1};
    for (int64_t j = 0; j < n_col; j++)
        x[j] = 0.3f * qp_philox_normal(&key, (uint64_t)j);
    qp_mat_t row = qp_mat(qp_device_from_host(b->device, x), QP_F32, 1, n_col);
    for (int64_t i = 0; i < n_row; i++)
        stop_on(b->ops->axpby(b->q, 1.0f + (float)(i % 7), row, 0.0f, qp_mat_rows(m, i, 1)));
    QP_FREE(x);
    return m;
}

/* Best of REPEAT runs after one that warms up, in GFLOP/s. */
#define MEASURE(operations, call)                        \
    ({                                                   \
        double best_ = INFINITY;                         \
        for (int i_ = 0; i_ <= REPEAT; i_++) {           \
            double start_ = qp_time();                   \
            stop_on(call);                               \
            if (i_ > 0)                                  \
                best_ = fmin(best_, qp_time() - start_); \
        }                                                \
        (operations) / best_ * 1e-9;                     \
    })

static void print_line(const char *what, double speed, double raw)
{
    printf("%-28s %8.0f GFLOP/s   %3.0f%% of the bare product\n", what, speed, 100.0 * speed / raw);
    fflush(stdout);
}

static double bench_product(const bench_t *b)
{

    qp_mat_t x = random_mat(b, b->dtype, N, N), w = random_mat(b, b->dtype, N, N);
    qp_mat_t y = random_mat(b, QP_F32, N, N);
    double speed = MEASURE(2.0 * N * N * N,
                           b->ops->matmul(b->q, 1.0f, x, false, w, true, 0.0f, y, (qp_mask_t){0}));
    print_line("product 2048^3", speed, speed);
    b->ops->release(b->device, &x.data);
    b->ops->release(b->device, &w.data);
    b->ops->release(b->device, &y.data);
    return speed;
}

static void bench_attention(const bench_t *b, double raw)
{
    int32_t cu_seqlens[N_SEQ + 1];
    for (int s = 0; s <= N_SEQ; s++)
        cu_seqlens[s] = s * LENGTH;
    qp_ragged_t batch = {.n_token = T, .n_seq = N_SEQ, .cu_seqlens_host = cu_seqlens};
    qp_attention_t a = {H, G, E, 0.125f};
    qp_mat_t qkv = random_mat(b, b->dtype, T, (H + 2 * G) * E),
             out = random_mat(b, b->dtype, T, H * E);
    qp_mat_t dqkv = random_mat(b, b->dtype, T, (H + 2 * G) * E),
             dout = random_mat(b, b->dtype, T, H * E);
    qp_mat_t lse = random_mat(b, QP_F32, H, T);
    const double half = 0.5 * N_SEQ * H * (double)LENGTH * LENGTH * E;
    print_line("attention forward",
               MEASURE(4.0 * half, b->ops->attention_forward(b->q, out, lse.data, qkv, &a, &batch)),
               raw);
    print_line("attention backward",
               MEASURE(10.0 * half, b->ops->attention_backward(b->q, dqkv, dout, out, lse.data, qkv,
                                                               &a, &batch)),
               raw);
    qp_mat_t *all[] = {&qkv, &out, &dqkv, &dout, &lse};
    for (int i = 0; i < 5; i++)
        b->ops->release(b->device, &all[i]->data);
}

enum { N_DECODE = 16, N_LAYER = 30, BLOCK = 32, TABLE = LENGTH / BLOCK, N_KEY = N_DECODE * LENGTH };

static qp_kv_t make_cache(const bench_t *b, qp_dtype_t dtype)
{
    qp_kv_t kv = {.block_len = BLOCK};
    if (dtype != QP_I8) {
        kv.k = random_mat(b, dtype, N_KEY, G * E);
        kv.v = random_mat(b, dtype, N_KEY, G * E);
        return kv;
    }
    kv.k = kv.v = qp_mat((qp_dptr_t){0}, QP_I8, N_KEY, G * E);
    stop_on(b->ops->alloc(b->device, "bench", (size_t)(N_KEY * G * E), &kv.k.data));
    stop_on(b->ops->alloc(b->device, "bench", (size_t)(N_KEY * G * E), &kv.v.data));
    kv.k_scale = random_mat(b, QP_F32, N_KEY, G);
    kv.v_scale = random_mat(b, QP_F32, N_KEY, G);
    return kv;
}

/* One token of each of N_DECODE sequences through layers whose caches come from memory. */
static void bench_decode(const bench_t *b, qp_dtype_t dtype)
{
    int32_t cu_seqlens[N_DECODE + 1] = {0}, n_past[N_DECODE], table[N_DECODE * TABLE];
    qp_kv_t kv[N_LAYER];
    for (int s = 0; s < N_DECODE; s++) {
        cu_seqlens[s + 1] = s + 1;
        n_past[s] = LENGTH - 1;
    }
    for (int i = 0; i < N_DECODE * TABLE; i++)
        table[i] = i % TABLE * N_DECODE + i / TABLE;
    for (int l = 0; l < N_LAYER; l++)
        kv[l] = make_cache(b, dtype);
    qp_ragged_t batch = {.n_token = N_DECODE, .n_seq = N_DECODE, .cu_seqlens_host = cu_seqlens};
    qp_kv_map_t map = {.n_seq = N_DECODE,
                       .n_past = n_past,
                       .block_table = table,
                       .table_ld = TABLE,
                       .n_decode = N_DECODE};
    qp_attention_t a = {H, G, E, 0.125f};
    qp_mat_t qkv = random_mat(b, b->dtype, N_DECODE, (H + 2 * G) * E);
    qp_mat_t out = random_mat(b, b->dtype, N_DECODE, H * E);
    double best = INFINITY;
    for (int i = 0; i <= REPEAT; i++) {
        double start = qp_time();
        for (int l = 0; l < N_LAYER; l++)
            stop_on(b->ops->attention_cached(b->q, out, qkv, &kv[l], &a, &batch, &map));
        best = fmin(best, qp_time() - start);
    }
    printf("decode, cache in %-11s %8.1f us a token and layer, %.1f GB/s of cache\n",
           qp_dtype_name(dtype), best * 1e6 / (N_DECODE * N_LAYER),
           2e-9 * N_LAYER * N_KEY * G *
               (double)(E * qp_dtype_bytes(dtype) + (dtype == QP_I8 ? 4 : 0)) / best);
    fflush(stdout);
    for (int l = 0; l < N_LAYER; l++) {
        qp_mat_t *all[] = {&kv[l].k, &kv[l].v, &kv[l].k_scale, &kv[l].v_scale};
        for (int i = 0; i < 4; i++)
            b->ops->release(b->device, &all[i]->data);
    }
    b->ops->release(b->device, &qkv.data);
    b->ops->release(b->device, &out.data);
}

/* Random numbers, whatever the kind. */
static qp_weight_t random_head(const bench_t *b, qp_weight_kind_t kind, bool int8)
{
    qp_weight_t w = {.kind = kind,
                     .n_out = V,
                     .n_in = D,
                     .is_head = true,
                     .mode = {.int8_activation = int8, .int8_gradient = int8}};
    stop_on(b->ops->alloc(b->device, "bench", b->ops->weight_bytes(b->device, &w), &w.storage));
    qp_mat_t rows = random_mat(b, kind == QP_WEIGHT_F32 ? QP_F32 : QP_BF16, V, D);
    qp_mat_t scale = random_mat(b, QP_F32, V, 1);
    const qp_dptr_t none = {0};
    if (kind == QP_WEIGHT_INT8) { /* any bytes will do */
        rows.dtype = QP_I8;
        stop_on(b->ops->axpby(b->q, 1e-6f, scale, 0.0f, scale));
    }
    stop_on(
        b->ops->weight_pack(b->q, &w, 0, rows, kind == QP_WEIGHT_INT8 ? scale.data : none, none));
    b->ops->release(b->device, &rows.data);
    b->ops->release(b->device, &scale.data);
    return w;
}

static void bench_head(const bench_t *b, const char *name, qp_weight_t head, double raw)
{
    char what[64];
    qp_mat_t hidden = random_mat(b, b->dtype, T, D), dhidden = random_mat(b, b->dtype, T, D);
    qp_mat_t logprob = random_mat(b, QP_F32, 1, T), logits = random_mat(b, QP_F32, N_DECODE, V);
    int32_t *target = QP_NEW("bench", int32_t, T);
    for (int i = 0; i < T; i++)
        target[i] = i * 11 % V;
    qp_dptr_t at = qp_device_from_host(b->device, target);
    const double product = 2.0 * T * D * V;
    snprintf(what, sizeof what, "head %s, log-probability", name);
    print_line(what,
               MEASURE(product, b->ops->lm_head(b->q, logprob.data, (qp_dptr_t){0}, (qp_mat_t){0},
                                                hidden, &head, at)),
               raw);
    snprintf(what, sizeof what, "head %s, with gradient", name);
    print_line(what,
               MEASURE(2.0 * product, b->ops->lm_head(b->q, logprob.data, (qp_dptr_t){0}, dhidden,
                                                      hidden, &head, at)),
               raw);
    snprintf(what, sizeof what, "head %s, %d logits", name, N_DECODE);
    print_line(what,
               MEASURE(2.0 * N_DECODE * D * V,
                       b->ops->lm_logits(b->q, logits, qp_mat_rows(hidden, 0, N_DECODE), &head)),
               raw);
    qp_mat_t *all[] = {&hidden, &logits, &dhidden, &logprob};
    for (int i = 0; i < 4; i++)
        b->ops->release(b->device, &all[i]->data);
    b->ops->release(b->device, &head.storage);
    QP_FREE(target);
}

int main(int argc, char **argv)
{
    bool fp32 = argc > 2 && strcmp(argv[2], "fp32") == 0;
    qp_device_config_t config = {.backend = QP_BACKEND_CPU,
                                 .compute = fp32 ? QP_COMPUTE_FP32 : QP_COMPUTE_BF16,
                                 .threads = argc > 1 ? strtol(argv[1], NULL, 10) : 0};
    bench_t b = {0};
    stop_on(qp_device_open(&config, 0, 1, &b.device));
    const qp_pass_size_t size = {.n_token = T,
                                 .d_model = D,
                                 .n_vocab = V,
                                 .widest = N, /* more than all heads */
                                 .attention = {.n_head = H, .n_kv_head = G, .head_dim = E},
                                 .n_key = LENGTH,
                                 .n_decode = N_DECODE,
                                 .backward = true,
                                 .mixed = true};
    b.ops = b.device->ops;
    qp_pass_size_t int8 = size;
    int8.lm_head = QP_WEIGHT_INT8;
    stop_on(b.ops->reserve(b.device, &size));
    stop_on(b.ops->reserve(b.device, &int8));
    b.q = qp_device_queue(b.device);
    b.dtype = qp_device_dtype(b.device);
    printf("%s, %s\n", qp_device_describe(b.device), qp_dtype_name(b.dtype));
    double raw = bench_product(&b);
    bench_attention(&b, raw);
    bench_decode(&b, b.dtype);
    bench_decode(&b, QP_I8);
    bench_head(&b, "of floats", random_head(&b, fp32 ? QP_WEIGHT_F32 : QP_WEIGHT_BF16, false), raw);
    bench_head(&b, "of int8 as floats", random_head(&b, QP_WEIGHT_INT8, false), raw);
    bench_head(&b, "of int8", random_head(&b, QP_WEIGHT_INT8, true), raw);
    qp_device_close(&b.device);
    return 0;
}
