/* Each launch of each op on GPUs fails once: the op says so. And with no rows it launches nothing
 * that CUDA would refuse. Needs the stand-in for CUDA, which is told to fail. */
#include "cpu_testing.h"

#ifndef CUDA_ON_CPU

int main(void)
{
    return QP_TEST_SKIP;
}

#else

#include "cuda_on_cpu/faults.h"

enum { D = 40, F = 48, H = 2, G = 1, E = 8, V = 2100, BLOCK = 16, N_BLOCK = 8, T = 20, N_SEQ = 2 };

/* What ops are given: all of it zero, of some rows. */
typedef struct {
    qp_device_t *device;
    qp_dptr_t zeros, p[8]; /* p: pieces of what ops write */
    qp_ragged_t batch;
    qp_kv_map_t map;
    qp_kv_t kv;
    qp_dtype_t dtype;
    qp_weight_kind_t kind;
} on_t;

static qp_mat_t mat(const on_t *on, int piece, int64_t n_col)
{
    return qp_mat(on->p[piece], on->dtype, on->batch.n_token, n_col);
}

static const qp_attention_t attention = {H, G, E, 0.25f};

/* --- the ops ---------------------------------------------------------------------------------- */

static qp_error_t axpby(const on_t *on, qp_queue_t *q)
{
    return on->device->ops->axpby(q, 1.0f, mat(on, 0, D), 0.0f, mat(on, 1, D));
}

static qp_error_t dropout(const on_t *on, qp_queue_t *q)
{
    const qp_philox_key_t key = {.seed = 1};
    return on->device->ops->dropout(q, on->p[0], D, 0.5f, &key, &on->batch);
}

static qp_error_t embed(const on_t *on, qp_queue_t *q)
{
    return on->device->ops->embed(q, mat(on, 0, D), qp_mat(on->zeros, QP_F32, V, D), on->zeros);
}

static qp_error_t gather_rows(const on_t *on, qp_queue_t *q)
{
    return on->device->ops->gather_rows(q, mat(on, 0, D), mat(on, 1, D), on->zeros);
}

static qp_error_t combine_rows(const on_t *on, qp_queue_t *q)
{
    return on->device->ops->combine_rows(q, mat(on, 0, D), on->zeros, on->zeros, on->zeros);
}

static qp_error_t input(const on_t *on, qp_queue_t *q)
{
    const qp_input_t x = {.kind = QP_INPUT_SWIGLU, .x = mat(on, 0, 2 * D), .copy = mat(on, 1, D)};
    return on->device->ops->input(q, &x);
}

static qp_error_t rmsnorm_backward(const on_t *on, qp_queue_t *q)
{
    return on->device->ops->rmsnorm_backward(q, mat(on, 0, D), mat(on, 1, D), mat(on, 2, D),
                                             on->zeros, on->zeros, true);
}

static qp_error_t rope(const on_t *on, qp_queue_t *q)
{
    return on->device->ops->rope(q, mat(on, 0, (H + 2 * G) * E), &attention,
                                 qp_mat(on->zeros, QP_F32, T, E), on->zeros, false);
}

static qp_error_t adamw(const on_t *on, qp_queue_t *q)
{
    const qp_adamw_t hyper = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .step = 1};
    return on->device->ops->adamw(q, on->p[0], (qp_dptr_t){0}, on->p[1], on->p[2], on->p[3],
                                  on->batch.n_token, &hyper);
}

static qp_error_t sum_squares(const on_t *on, qp_queue_t *q)
{
    double sum;
    return on->device->ops->sum_squares(q, on->p[0], on->batch.n_token, &sum);
}

static qp_error_t matmul(const on_t *on, qp_queue_t *q)
{
    const qp_mat_t w = qp_mat(on->zeros, on->dtype, D, F);
    return on->device->ops->matmul(q, 1.0f, mat(on, 0, D), false, w, false, 0.0f, mat(on, 1, F),
                                   (qp_mask_t){{0}, 1.0f});
}

/* A sum that is long enough for several pieces. */
static qp_error_t matmul_over_rows(const on_t *on, qp_queue_t *q)
{
    const int64_t n = on->batch.n_token > 0 ? 2048 : 0;
    const qp_mat_t a = qp_mat(on->zeros, on->dtype, 2048, n > 0 ? D : 0),
                   b = qp_mat(on->zeros, on->dtype, 2048, 4),
                   c = qp_mat(on->p[1], QP_F32, a.n_col, 4);
    return on->device->ops->matmul(q, 1.0f, a, true, b, false, 0.0f, c, (qp_mask_t){{0}, 1.0f});
}

static qp_weight_t weight_of(const on_t *on, int64_t n_out, bool is_head)
{
    qp_weight_t w = {.kind = on->kind, .n_out = n_out, .n_in = D, .is_head = is_head};
    w.storage = on->zeros;
    w.mode = (qp_linear_mode_t){true, on->kind == QP_WEIGHT_INT8, 0.0f}; /* all are outliers */
    return w;
}

static qp_error_t linear_forward(const on_t *on, qp_queue_t *q)
{
    const qp_weight_t w = weight_of(on, F, false);
    const qp_input_t x = qp_input(mat(on, 0, D));
    return on->device->ops->linear_forward(q, mat(on, 1, F), &x, &w, (qp_mat_t){.ld = 0});
}

static qp_error_t linear_backward(const on_t *on, qp_queue_t *q)
{
    const qp_weight_t w = weight_of(on, F, false);
    const qp_input_t dy = qp_input(mat(on, 0, F));
    return on->device->ops->linear_backward(q, mat(on, 1, D), &dy, &w, (qp_mat_t){.ld = 0});
}

static qp_error_t weight_pack(const on_t *on, qp_queue_t *q)
{
    const bool some = on->batch.n_token > 0, int8 = qp_weight_dtype(on->kind) == QP_I8;
    qp_weight_t w = weight_of(on, 70, false);
    w.storage = on->p[0];
    return on->device->ops->weight_pack(
        q, &w, some ? 0 : 64, qp_mat(on->zeros, qp_weight_dtype(on->kind), some ? 70 : 0, D),
        int8 ? on->zeros : (qp_dptr_t){0}, (qp_dptr_t){0});
}

static qp_error_t attention_forward(const on_t *on, qp_queue_t *q)
{
    return on->device->ops->attention_forward(q, mat(on, 0, H * E), on->p[1],
                                              mat(on, 2, (H + 2 * G) * E), &attention, &on->batch);
}

static qp_error_t attention_backward(const on_t *on, qp_queue_t *q)
{
    return on->device->ops->attention_backward(q, mat(on, 0, (H + 2 * G) * E), mat(on, 1, H * E),
                                               mat(on, 2, H * E), on->p[3],
                                               mat(on, 4, (H + 2 * G) * E), &attention, &on->batch);
}

static qp_error_t kv_append(const on_t *on, qp_queue_t *q)
{
    return on->device->ops->kv_append(q, &on->kv, mat(on, 2, (H + 2 * G) * E), &attention,
                                      &on->batch, &on->map);
}

static qp_error_t kv_copy(const on_t *on, qp_queue_t *q)
{
    static const qp_kv_rows_t rows = {1, 0, BLOCK};
    qp_kv_t layer[65]; /* more than go into one launch */
    for (int i = 0; i < 65; i++)
        layer[i] = on->kv;
    qp_kv_copy_t copies = {.layer = layer, .n_layer = 65, .n_copy = 1, .rows = &rows};
    copies.rows_device = on->zeros;
    copies.n_copy = on->batch.n_token > 0;
    return on->device->ops->kv_copy(q, &copies);
}

/* The first sequence is decoded, the second is not. */
static qp_error_t attention_cached(const on_t *on, qp_queue_t *q)
{
    return on->device->ops->attention_cached(q, mat(on, 0, H * E), mat(on, 2, (H + 2 * G) * E),
                                             &on->kv, &attention, &on->batch, &on->map);
}

static qp_error_t lm_head(const on_t *on, qp_queue_t *q)
{
    const qp_weight_t head = weight_of(on, V, true);
    return on->device->ops->lm_head(q, on->p[0], on->p[1], mat(on, 2, D), mat(on, 3, D), &head,
                                    on->zeros);
}

static qp_error_t lm_kl(const on_t *on, qp_queue_t *q)
{
    const qp_weight_t head = weight_of(on, V, true);
    return on->device->ops->lm_kl(q, on->p[0], mat(on, 2, D), mat(on, 3, D), &head);
}

static qp_error_t lm_logits(const on_t *on, qp_queue_t *q)
{
    const qp_weight_t head = weight_of(on, V, true);
    const qp_mat_t logits = qp_mat(on->p[0], QP_F32, on->batch.n_token, V);
    return on->device->ops->lm_logits(q, logits, mat(on, 3, D), &head);
}

/* The first of them the most likely one. */
static qp_error_t sample(const on_t *on, qp_queue_t *q)
{
    const qp_sampling_t how = {.temperature = on->kind == QP_WEIGHT_F32 ? 0.0f : 1.0f,
                               .top_p = 0.9f};
    const qp_philox_key_t key = {.seed = 1};
    return on->device->ops->sample(q, on->p[1], on->p[2],
                                   qp_mat(on->p[0], QP_F32, on->batch.n_token, V), &how, &key,
                                   on->zeros, on->zeros, (qp_dptr_t){0});
}

/* --- the test --------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    qp_error_t (*op)(const on_t *, qp_queue_t *);
    bool weights, head; /* once for each kind of them */
} op_t;

#define OP(name, ...)            \
    {                            \
#name, name, __VA_ARGS__ \
    }
static const op_t ops[] = {
    OP(axpby, false, false),
    OP(dropout, false, false),
    OP(embed, false, false),
    OP(gather_rows, false, false),
    OP(combine_rows, false, false),
    OP(input, false, false),
    OP(rmsnorm_backward, false, false),
    OP(rope, false, false),
    OP(adamw, false, false),
    OP(sum_squares, false, false),
    OP(matmul, false, false),
    OP(matmul_over_rows, false, false),
    OP(linear_forward, true, false),
    OP(linear_backward, true, false),
    OP(weight_pack, true, false),
    OP(attention_forward, false, false),
    OP(attention_backward, false, false),
    OP(kv_append, false, false),
    OP(kv_copy, false, false),
    OP(attention_cached, false, false),
    OP(lm_head, true, true),
    OP(lm_kl, true, true),
    OP(lm_logits, true, true),
    OP(sample, true, true),
};

/* One launch after the other fails, until there are no more. */
static void fail_each(const op_t *op, const on_t *on)
{
    qp_queue_t *q = qp_device_queue(on->device);
    for (int n = 1;; n++) {
        (void)cuda_on_cpu_fail_launch(n);
        qp_error_t error = op->op(on, q);
        const bool failed = cuda_on_cpu_fail_launch(0) == 0;
        CHECK_OK(on->device->ops->synchronize(q)); /* the error is not found again */
        if (!failed) {
            CHECK_OK(error);
            return;
        }
        if (!CHECK_MSG(error != NULL, "%s, weight %d: launch %d failed, and it did not say so",
                       op->name, (int)on->kind, n))
            return;
        CHECK_FAILS(error, QP_INTERNAL, "too many resources requested for launch");
    }
}

static void run_ops(on_t *on)
{
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        for (int kind = QP_WEIGHT_F32; kind <= QP_WEIGHT_LLM_INT8; kind++) {
            on->kind = (qp_weight_kind_t)kind;
            if ((!ops[i].weights && kind > 0) || (ops[i].head && kind == QP_WEIGHT_LLM_INT8))
                continue;
            fail_each(&ops[i], on);
        }
}

/* No rows, and rows of each type. */
static void test_device(qp_compute_t compute)
{
    /* Not static: a kernel that reads one is found, while the program's constants are fine. */
    const int32_t some[] = {0, 1, T}, none[] = {0, 0, 0}, past[] = {20, 0};
    const int32_t table[N_BLOCK] = {0, 1, 2, 3, 4, 5, 6, 7};
    const size_t piece = (size_t)T * V * sizeof(float), zeros = (size_t)V * F * sizeof(float);
    on_t on = {.device = open_compute(compute, 1),
               .dtype = compute == QP_COMPUTE_BF16 ? QP_BF16 : QP_F32};
    const qp_ops_t *ops_of = on.device->ops;
    qp_queue_t *q = qp_device_queue(on.device);
    CHECK_OK(ops_of->alloc(on.device, "test", zeros + 8 * piece, &on.zeros));
    CHECK_OK(ops_of->zero(q, on.zeros, zeros + 8 * piece));
    for (size_t i = 0; i < 8; i++)
        on.p[i] = qp_dptr_at(on.zeros, zeros + i * piece);
    const qp_mat_t cache = qp_mat(on.p[5], on.dtype, N_BLOCK * BLOCK, G * E);
    on.kv = (qp_kv_t){.k = cache, .v = cache, .block_len = BLOCK};
    on.kv.v.data = on.p[6];
    on.map = (qp_kv_map_t){.n_seq = N_SEQ, .n_past = past, .block_table = table, .n_decode = 1};
    on.map.table_ld = N_BLOCK / N_SEQ;
    on.map.n_past_device = upload_bytes(on.device, past, sizeof past);
    on.map.block_table_device = upload_bytes(on.device, table, sizeof table);
    qp_dptr_t bounds = upload_bytes(on.device, some, sizeof some),
              nothing = upload_bytes(on.device, none, sizeof none);
    on.batch = (qp_ragged_t){T, N_SEQ, some, bounds, on.zeros, on.zeros};
    run_ops(&on);
    on.batch = (qp_ragged_t){0, N_SEQ, none, nothing, on.zeros, on.zeros};
    run_ops(&on);
    qp_dptr_t *const all[] = {&on.zeros, &on.map.n_past_device, &on.map.block_table_device, &bounds,
                              &nothing};
    for (int i = 0; i < 5; i++)
        ops_of->release(on.device, all[i]);
    qp_device_close(&on.device);
}

int main(void)
{
    CHECK(setenv("QUIPU_BACKEND", "cuda", 1) == 0);
    test_device(QP_COMPUTE_FP32);
    test_device(QP_COMPUTE_BF16);
    return qp_test_end();
}

#endif
