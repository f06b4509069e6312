/**
 * Rates of a device's ops at the shapes of a 7B model, beside what the card can do:
 *
 *     QUIPU_BACKEND=cuda bench_device [small]
 *
 * Useful operations are counted: two for a multiplication and an addition, of attention the causal
 * half (4 E n^2/2 per head forward, 10 E n^2/2 backward), of the head's gradient two products.
 * Decoding is limited by memory: bytes of weights or cache. Work is queued for a tenth of a second,
 * and its time is the mean. "small" is for devices that are slow: it shows that all of it runs.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/timer.h"
#include "compute/ops.h"

/* Dense peaks: tera-operations per second of bf16 and of int8 products, TB/s of memory. */
static const struct {
    const char *card;
    double bf16, int8, memory;
} peaks[] = {{"A100", 312.0, 624.0, 2.0},
             {"H100", 989.0, 1979.0, 3.35},
             {"H200", 989.0, 1979.0, 4.8},
             {"B200", 2250.0, 4500.0, 8.0}};
enum { N_PEAK = sizeof peaks / sizeof peaks[0] };

typedef enum { OF_BF16, OF_INT8, OF_MEMORY } limit_t;

typedef struct {
    qp_device_t *device;
    const qp_ops_t *ops;
    qp_queue_t *q;
    double peak[3]; /* by limit_t, operations or bytes per second; 0: not known */
    bool small;
    int64_t d, ff, vocab, n_token, n_seq, n_head, head_dim, n_past;
} bench_t;

static void stop_on(qp_error_t error)
{
    if (error != NULL)
        exit(qp_error_report(&error));
}

/* --- measuring -------------------------------------------------------------------------------- */

/* Seconds of one call, of so many that they fill a tenth of a second. */
#define SECONDS(b, call)                                               \
    ({                                                                 \
        int64_t n_ = 1;                                                \
        double seconds_ = 0.0;                                         \
        stop_on(call);                                                 \
        for (;;) {                                                     \
            stop_on((b)->ops->synchronize((b)->q));                    \
            const double start_ = qp_time();                           \
            for (int64_t i_ = 0; i_ < n_; i_++)                        \
                stop_on(call);                                         \
            stop_on((b)->ops->synchronize((b)->q));                    \
            seconds_ = (qp_time() - start_) / (double)n_;              \
            if ((b)->small || seconds_ * (double)n_ > 0.1)             \
                break;                                                 \
            n_ = (int64_t)fmin(0.13 / seconds_, 8.0 * (double)n_) + 1; \
        }                                                              \
        seconds_;                                                      \
    })

static void print_rate(const bench_t *b, const char *what, limit_t limit, double amount,
                       double seconds)
{
    const double rate = amount / seconds;
    static const char *const unit[] = {"TFLOP/s", "TOP/s", "TB/s"};
    printf("%-40s %9.3f ms %9.2f %-7s", what, seconds * 1e3, rate * 1e-12, unit[limit]);
    if (b->peak[limit] > 0.0)
        printf(" %4.0f%% of the peak", 100.0 * rate / b->peak[limit]);
    printf("\n");
    fflush(stdout);
}

/* --- what ops work on ------------------------------------------------------------------------- */

/* n numbers of a type: small ones that differ, of both signs. */
static void *some_numbers(qp_dtype_t dtype, int64_t n)
{
    void *data = qp_alloc("bench", qp_bytes(n, qp_dtype_bytes(dtype)));
    uint32_t state = 12345;
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        const int value = (int)(state >> 24) - 128;
        if (dtype == QP_I8)
            ((int8_t *)data)[i] = (int8_t)(value == -128 ? 0 : value);
        else if (dtype == QP_BF16)
            ((uint16_t *)data)[i] = qp_f32_to_bf16((float)value / 128.0f);
        else
            ((float *)data)[i] = (float)value / 128.0f;
    }
    return data;
}

static qp_dptr_t new_bytes(const bench_t *b, const void *from, size_t bytes)
{
    qp_dptr_t p;
    stop_on(b->ops->alloc(b->device, "bench", bytes, &p));
    if (from != NULL)
        stop_on(b->ops->upload(b->q, p, from, bytes));
    return p;
}

static qp_mat_t new_mat(const bench_t *b, qp_dtype_t dtype, int64_t n_row, int64_t n_col)
{
    void *data = some_numbers(dtype, n_row * n_col);
    const qp_dptr_t p = new_bytes(b, data, qp_bytes(n_row * n_col, qp_dtype_bytes(dtype)));
    qp_free(data);
    return qp_mat(p, dtype, n_row, n_col);
}

static void drop(const bench_t *b, qp_mat_t *m)
{
    b->ops->release(b->device, &m->data);
}

static qp_weight_t new_weight(const bench_t *b, qp_weight_t w)
{
    const bool int8 = w.kind == QP_WEIGHT_INT8 || w.kind == QP_WEIGHT_LLM_INT8;
    w.storage = new_bytes(b, NULL, b->ops->weight_bytes(b->device, &w));
    qp_mat_t plain = new_mat(b, qp_weight_dtype(w.kind), w.n_out, w.n_in);
    qp_mat_t scale = new_mat(b, QP_F32, w.n_out, 1);
    stop_on(b->ops->axpby(b->q, 1e-3f, scale, 0.0f, scale));
    stop_on(b->ops->weight_pack(b->q, &w, 0, plain, int8 ? scale.data : (qp_dptr_t){0},
                                (qp_dptr_t){0}));
    drop(b, &plain);
    drop(b, &scale);
    return w;
}

/* Sequences of one length, each with n_past tokens behind it. */
static qp_ragged_t new_batch(const bench_t *b, int64_t n_seq, int64_t length, int64_t n_past)
{
    int32_t *bounds = QP_NEW("bench", int32_t, n_seq + 1);
    int32_t *position = QP_NEW("bench", int32_t, n_seq * length);
    for (int64_t s = 0; s <= n_seq; s++)
        bounds[s] = (int32_t)(s * length);
    for (int64_t t = 0; t < n_seq * length; t++)
        position[t] = (int32_t)(n_past + t % length);
    qp_ragged_t batch = {.n_token = n_seq * length, .n_seq = n_seq, .cu_seqlens_host = bounds};
    batch.cu_seqlens = new_bytes(b, bounds, qp_bytes(n_seq + 1, sizeof(int32_t)));
    batch.position = new_bytes(b, position, qp_bytes(n_seq * length, sizeof(int32_t)));
    QP_FREE(position);
    return batch;
}

static void drop_batch(const bench_t *b, qp_ragged_t *batch)
{
    b->ops->release(b->device, &batch->cu_seqlens);
    b->ops->release(b->device, &batch->position);
    qp_free((void *)batch->cu_seqlens_host);
}

/* --- the ops ---------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    qp_weight_kind_t kind;
    qp_linear_mode_t mode;
    limit_t forward, backward;
} kinds[] = {
    {"int8", QP_WEIGHT_INT8, {true, true, 6.0f}, OF_INT8, OF_INT8},
    {"LLM.int8", QP_WEIGHT_LLM_INT8, {true, false, 6.0f}, OF_INT8, OF_BF16},
    {"int8 as bf16", QP_WEIGHT_INT8, {false, false, 6.0f}, OF_BF16, OF_BF16},
    {"bf16", QP_WEIGHT_BF16, {false, false, 6.0f}, OF_BF16, OF_BF16},
};
enum { N_KIND = sizeof kinds / sizeof kinds[0] };

static void bench_linear(const bench_t *b, int kind, int64_t n_in, int64_t n_out)
{
    qp_weight_t w = new_weight(
        b, (qp_weight_t){
               .kind = kinds[kind].kind, .n_out = n_out, .n_in = n_in, .mode = kinds[kind].mode});
    qp_mat_t x = new_mat(b, QP_BF16, b->n_token, n_in), y = new_mat(b, QP_BF16, b->n_token, n_out);
    const qp_input_t from = qp_input(x), back = qp_input(y);
    const double amount = 2.0 * (double)b->n_token * (double)n_in * (double)n_out;
    const qp_mat_t none = {0};
    char what[80];
    snprintf(what, sizeof what, "%s %lld x %lld", kinds[kind].name, (long long)n_in,
             (long long)n_out);
    double s = SECONDS(b, b->ops->linear_forward(b->q, y, &from, &w, none));
    print_rate(b, what, kinds[kind].forward, amount, s);
    strncat(what, ", backward", sizeof what - strlen(what) - 1);
    s = SECONDS(b, b->ops->linear_backward(b->q, x, &back, &w, none));
    print_rate(b, what, kinds[kind].backward, amount, s);
    b->ops->release(b->device, &w.storage);
    drop(b, &x);
    drop(b, &y);
}

/* Adapters: y += x A^T, and the gradient of A. */
static void bench_matmul(const bench_t *b)
{
    const int64_t rank = 16;
    qp_mat_t x = new_mat(b, QP_BF16, b->n_token, b->d), w = new_mat(b, QP_BF16, b->d, b->d);
    qp_mat_t y = new_mat(b, QP_BF16, b->n_token, b->d), a = new_mat(b, QP_F32, rank, b->d);
    qp_mat_t h = new_mat(b, QP_F32, b->n_token, rank);
    const qp_mask_t no = {0};
    const double t = (double)b->n_token, d = (double)b->d;
    print_rate(b, "matmul bf16 d x d", OF_BF16, 2.0 * t * d * d,
               SECONDS(b, b->ops->matmul(b->q, 1.0f, x, false, w, true, 0.0f, y, no)));
    print_rate(b, "matmul to rank 16", OF_MEMORY, 2.0 * t * d,
               SECONDS(b, b->ops->matmul(b->q, 1.0f, x, false, a, true, 0.0f, h, no)));
    print_rate(b, "matmul from rank 16, added", OF_MEMORY, 4.0 * t * d,
               SECONDS(b, b->ops->matmul(b->q, 1.0f, h, false, a, false, 1.0f, y, no)));
    print_rate(b, "matmul, gradient of rank 16", OF_MEMORY, 2.0 * t * d,
               SECONDS(b, b->ops->matmul(b->q, 1.0f, h, true, x, false, 1.0f, a, no)));
    qp_mat_t *all[] = {&x, &w, &y, &a, &h};
    for (int i = 0; i < 5; i++)
        drop(b, all[i]);
}

static qp_attention_t shape_of(const bench_t *b)
{
    return (qp_attention_t){b->n_head, b->n_head, b->head_dim, 1.0f / sqrtf((float)b->head_dim)};
}

static void bench_attention(const bench_t *b, int64_t n_seq)
{
    const qp_attention_t a = shape_of(b);
    const int64_t length = b->n_token / n_seq;
    qp_ragged_t batch = new_batch(b, n_seq, length, 0);
    qp_mat_t qkv = new_mat(b, QP_BF16, b->n_token, 3 * b->d),
             dqkv = new_mat(b, QP_BF16, b->n_token, 3 * b->d),
             out = new_mat(b, QP_BF16, b->n_token, b->d),
             dout = new_mat(b, QP_BF16, b->n_token, b->d),
             lse = new_mat(b, QP_F32, b->n_head, b->n_token);
    const double half = 0.5 * (double)(n_seq * length * length * b->d);
    char what[80];
    snprintf(what, sizeof what, "attention %lld x %lld", (long long)n_seq, (long long)length);
    print_rate(b, what, OF_BF16, 4.0 * half,
               SECONDS(b, b->ops->attention_forward(b->q, out, lse.data, qkv, &a, &batch)));
    strncat(what, ", backward", sizeof what - strlen(what) - 1);
    print_rate(
        b, what, OF_BF16, 10.0 * half,
        SECONDS(b, b->ops->attention_backward(b->q, dqkv, dout, out, lse.data, qkv, &a, &batch)));
    qp_mat_t *all[] = {&qkv, &dqkv, &out, &dout, &lse};
    for (int i = 0; i < 5; i++)
        drop(b, all[i]);
    drop_batch(b, &batch);
}

static void bench_head(const bench_t *b, int kind)
{
    qp_weight_t w = new_weight(b, (qp_weight_t){.kind = kinds[kind].kind,
                                                .n_out = b->vocab,
                                                .n_in = b->d,
                                                .is_head = true,
                                                .mode = kinds[kind].mode});
    qp_mat_t hidden = new_mat(b, QP_BF16, b->n_token, b->d),
             dhidden = new_mat(b, QP_BF16, b->n_token, b->d),
             logprob = new_mat(b, QP_F32, 1, b->n_token), logits = new_mat(b, QP_F32, 64, b->vocab);
    int32_t *target = QP_NEW("bench", int32_t, b->n_token);
    for (int64_t i = 0; i < b->n_token; i++)
        target[i] = (int32_t)(i * 11 % b->vocab);
    qp_dptr_t at = new_bytes(b, target, qp_bytes(b->n_token, sizeof(int32_t)));
    const double product = 2.0 * (double)b->n_token * (double)b->d * (double)b->vocab;
    const qp_dptr_t none = {0};
    char what[80];
    snprintf(what, sizeof what, "head %s, log-probability", kinds[kind].name);
    print_rate(
        b, what, kinds[kind].forward, product,
        SECONDS(b, b->ops->lm_head(b->q, logprob.data, none, (qp_mat_t){0}, hidden, &w, at)));
    snprintf(what, sizeof what, "head %s, with gradient", kinds[kind].name);
    print_rate(b, what, kinds[kind].forward, 2.0 * product,
               SECONDS(b, b->ops->lm_head(b->q, logprob.data, none, dhidden, hidden, &w, at)));
    snprintf(what, sizeof what, "head %s, 64 rows of logits", kinds[kind].name);
    print_rate(b, what, OF_MEMORY, (double)b->ops->weight_bytes(b->device, &w),
               SECONDS(b, b->ops->lm_logits(b->q, logits, qp_mat_rows(hidden, 0, 64), &w)));
    qp_mat_t *all[] = {&hidden, &dhidden, &logprob, &logits};
    for (int i = 0; i < 4; i++)
        drop(b, all[i]);
    b->ops->release(b->device, &w.storage);
    b->ops->release(b->device, &at);
    QP_FREE(target);
}

/* A few rows through linears whose weights come from memory: more of them than any cache holds. */
static void bench_decode_linear(const bench_t *b, int kind, int64_t n_row)
{
    enum { N_WEIGHT = 8 };
    qp_weight_t w[N_WEIGHT];
    double bytes = 0.0;
    for (int i = 0; i < N_WEIGHT; i++) {
        w[i] = new_weight(b, (qp_weight_t){.kind = kinds[kind].kind,
                                           .n_out = 2 * b->ff,
                                           .n_in = b->d,
                                           .mode = kinds[kind].mode});
        bytes +=
            (double)(w[i].n_out * w[i].n_in) * (double)qp_dtype_bytes(qp_weight_dtype(w[i].kind));
    }
    qp_mat_t x = new_mat(b, QP_BF16, n_row, b->d), y = new_mat(b, QP_BF16, n_row, 2 * b->ff);
    const qp_input_t from = qp_input(x);
    int next = 0;
    char what[80];
    snprintf(what, sizeof what, "decode %s, %lld rows", kinds[kind].name, (long long)n_row);
    print_rate(
        b, what, OF_MEMORY, bytes / N_WEIGHT,
        SECONDS(b, b->ops->linear_forward(b->q, y, &from, &w[next++ % N_WEIGHT], (qp_mat_t){0})));
    for (int i = 0; i < N_WEIGHT; i++)
        b->ops->release(b->device, &w[i].storage);
    drop(b, &x);
    drop(b, &y);
}

/* One token of each of n sequences against the cache of one layer. */
static void bench_decode_attention(const bench_t *b, qp_dtype_t dtype, int64_t n)
{
    enum { BLOCK = 32 };
    const int64_t table_ld = b->n_past / BLOCK + 1, n_key = n * table_ld * BLOCK;
    const qp_attention_t a = shape_of(b);
    qp_ragged_t batch = new_batch(b, n, 1, b->n_past);
    int32_t *n_past = QP_NEW("bench", int32_t, n), *table = QP_NEW("bench", int32_t, n * table_ld);
    for (int64_t s = 0; s < n; s++)
        n_past[s] = (int32_t)b->n_past;
    for (int64_t i = 0; i < n * table_ld; i++)
        table[i] = (int32_t)(i % table_ld * n + i / table_ld);
    qp_kv_t kv = {.k = new_mat(b, dtype, n_key, b->d),
                  .v = new_mat(b, dtype, n_key, b->d),
                  .block_len = BLOCK};
    if (dtype == QP_I8) {
        kv.k_scale = new_mat(b, QP_F32, n_key, b->n_head);
        kv.v_scale = new_mat(b, QP_F32, n_key, b->n_head);
    }
    qp_kv_map_t map = {.n_seq = n,
                       .n_past = n_past,
                       .block_table = table,
                       .table_ld = table_ld,
                       .n_decode = n,
                       .n_past_device = new_bytes(b, n_past, qp_bytes(n, sizeof(int32_t))),
                       .block_table_device =
                           new_bytes(b, table, qp_bytes(n * table_ld, sizeof(int32_t)))};
    qp_mat_t qkv = new_mat(b, QP_BF16, n, 3 * b->d), out = new_mat(b, QP_BF16, n, b->d);
    char what[80];
    snprintf(what, sizeof what, "decode attention, %lld x %lld, %s", (long long)n,
             (long long)b->n_past, qp_dtype_name(dtype));
    print_rate(b, what, OF_MEMORY,
               2.0 * (double)(n * b->n_past * b->d) * (double)qp_dtype_bytes(dtype),
               SECONDS(b, b->ops->attention_cached(b->q, out, qkv, &kv, &a, &batch, &map)));
    qp_mat_t *all[] = {&kv.k, &kv.v, &kv.k_scale, &kv.v_scale, &qkv, &out};
    for (int i = 0; i < 6; i++)
        drop(b, all[i]);
    b->ops->release(b->device, &map.n_past_device);
    b->ops->release(b->device, &map.block_table_device);
    drop_batch(b, &batch);
    QP_FREE(n_past);
    QP_FREE(table);
}

static void bench_memory(const bench_t *b)
{
    const int64_t n = b->d * b->ff;
    qp_mat_t x = new_mat(b, QP_F32, b->ff, b->d), y = new_mat(b, QP_F32, b->ff, b->d);
    const size_t bytes = qp_bytes(n, sizeof(float));
    print_rate(b, "copy", OF_MEMORY, 2.0 * (double)bytes,
               SECONDS(b, b->ops->copy(b->q, y.data, x.data, bytes)));
    print_rate(b, "y = x + y, fp32", OF_MEMORY, 3.0 * (double)bytes,
               SECONDS(b, b->ops->axpby(b->q, 1.0f, x, 1.0f, y)));
    drop(b, &x);
    drop(b, &y);
}

/* --- all of it -------------------------------------------------------------------------------- */

static void open_device(bench_t *b)
{
    const qp_device_config_t config = {.backend = QP_BACKEND_AUTO, .compute = QP_COMPUTE_BF16};
    stop_on(qp_device_open(&config, 0, 1, &b->device));
    b->ops = b->device->ops;
    b->q = qp_device_queue(b->device);
    for (int kind = 0; kind < N_KIND; kind++) {
        const qp_weight_kind_t head =
            kinds[kind].kind == QP_WEIGHT_INT8 ? QP_WEIGHT_INT8 : QP_WEIGHT_BF16;
        const qp_pass_size_t size = {.n_token = b->n_token,
                                     .d_model = b->d,
                                     .n_vocab = b->vocab,
                                     .widest = 2 * b->ff,
                                     .n_inner = b->d,
                                     .attention = shape_of(b),
                                     .n_key = b->n_past + 32,
                                     .n_decode = 64,
                                     .weight = kinds[kind].kind,
                                     .lm_head = head,
                                     .backward = true,
                                     .mixed = true};
        stop_on(b->ops->reserve(b->device, &size));
    }
    for (int i = 0; i < N_PEAK; i++)
        if (strstr(qp_device_describe(b->device), peaks[i].card) != NULL) {
            b->peak[OF_BF16] = peaks[i].bf16 * 1e12;
            b->peak[OF_INT8] = peaks[i].int8 * 1e12;
            b->peak[OF_MEMORY] = peaks[i].memory * 1e12;
        }
}

int main(int argc, char **argv)
{
    bench_t b = {.d = 4096,
                 .ff = 11008,
                 .vocab = 32000,
                 .n_token = 4096,
                 .n_head = 32,
                 .head_dim = 128,
                 .n_past = 1024};
    if (argc > 1 && strcmp(argv[1], "small") == 0)
        b = (bench_t){.small = true,
                      .d = 128,
                      .ff = 192,
                      .vocab = 320,
                      .n_token = 64,
                      .n_head = 2,
                      .head_dim = 64,
                      .n_past = 64};
    open_device(&b);
    printf("%s; %lld tokens\n", qp_device_describe(b.device), (long long)b.n_token);
    for (int kind = 0; kind < N_KIND; kind++) {
        bench_linear(&b, kind, b.d, b.d);
        bench_linear(&b, kind, b.d, 3 * b.d);
        bench_linear(&b, kind, b.d, b.ff);
        bench_linear(&b, kind, b.ff, b.d);
    }
    bench_attention(&b, 4);
    bench_attention(&b, 1);
    bench_head(&b, 0);
    bench_head(&b, N_KIND - 1);
    bench_matmul(&b);
    for (int64_t rows = 1; rows <= 64; rows *= 8)
        bench_decode_linear(&b, 0, rows);
    bench_decode_linear(&b, N_KIND - 1, 1);
    bench_decode_attention(&b, QP_BF16, 64);
    bench_decode_attention(&b, QP_I8, 64);
    bench_memory(&b);
    qp_device_close(&b.device);
    return 0;
}
