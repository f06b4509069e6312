/* QP_TEST: isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16 check=0
 * Rows stand alone: what an op makes of a row has the same bits whatever rows come with it, how
 * many and in which place. Sizes of SmolLM2-135M and odd ones; rows of LoRA lie apart, as its
 * columns do.
 */
#include <math.h>

#include "compute/cpu/cpu.h"
#include "compute/cpu/gemm/dot.h"
#include "compute/cpu/gemm/float.h"
#include "compute/cpu/gemm/strip.h"
#include "linear_testing.h"

/* Batches of the same rows: below, at and above the heights of blocks, parts and pieces. */
#ifdef __SANITIZE_ADDRESS__ /* ten times as slow: fewer rows, odd sizes only */
enum { N_ROW = 140, FIRST_SIZE = 2 };
static const int64_t batches[] = {1, 17, 129};
#else
enum { N_ROW = 300, FIRST_SIZE = 0 };
static const int64_t batches[] = {1, 2, 3, 7, 8, 9, 16, 17, 24, 25, 33, 64, 96, 129, 255};
#endif
enum { N_BATCH = sizeof batches / sizeof batches[0] };

/* An op on rows [first, first + n) of its inputs, to the first n rows of y. */
typedef void (*op_t)(const void *context, qp_mat_t y, int64_t first, int64_t n);

/* All rows together, then in batches of each size, at the front, in the middle and at the end. */
static void check_rows(op_t op, const void *context, tensor_t *all, tensor_t *some,
                       const char *what)
{
    op(context, all->m, 0, N_ROW);
    for (int b = 0; b < N_BATCH; b++) {
        const int64_t n = batches[b], first[] = {0, (N_ROW - n) / 3, N_ROW - n};
        for (int i = 0; i < 3; i++) {
            op(context, qp_mat_rows(some->m, 0, n), first[i], n);
            CHECK_MSG(same_rows(all, first[i], some, n), "%s: rows %lld to %lld", what,
                      (long long)first[i], (long long)(first[i] + n));
        }
    }
}

/* --- dense products --------------------------------------------------------------------------- */

typedef struct {
    int64_t n, k;
    bool trans_b;
    float alpha, beta;
    qp_dtype_t a, b, c; /* in bf16 compute; in fp32 compute all are fp32 */
    bool masked;
} product_t;

/* x A^T and u B^T of LoRA, backward's two, and the head; then what is odd. */
static const product_t products[] = {
    {24, 576, true, 1.0f, 0.0f, QP_BF16, QP_BF16, QP_F32, false},
    {192, 576, true, 1.0f, 0.0f, QP_BF16, QP_BF16, QP_BF16, false},
    {3, 1536, true, 1.0f, 0.0f, QP_BF16, QP_BF16, QP_BF16, false},
    {576, 8, true, 2.0f, 1.0f, QP_BF16, QP_BF16, QP_F32, false},
    {576, 16, true, 2.0f, 1.0f, QP_BF16, QP_BF16, QP_BF16, false},
    {192, 1, true, 0.5f, 1.0f, QP_BF16, QP_BF16, QP_BF16, false},
    {576, 64, true, 2.0f, 1.0f, QP_BF16, QP_BF16, QP_F32, false},
    {16, 576, false, 2.0f, 0.0f, QP_BF16, QP_BF16, QP_F32, false},
    {576, 48, false, 1.0f, 1.0f, QP_BF16, QP_BF16, QP_F32, true},
    {257, 33, true, 1.0f, 0.0f, QP_F32, QP_BF16, QP_F32, false},
    {100, 700, false, 1.0f, -0.5f, QP_BF16, QP_F32, QP_BF16, false},
    {70, 131, true, 1.0f, 0.0f, QP_F32, QP_F32, QP_F32, false},
};
enum { N_PRODUCT = sizeof products / sizeof products[0] };

typedef struct {
    qp_device_t *device;
    const product_t *p;
    tensor_t a, b, c;
    qp_dptr_t bits;
} product_context_t;

static void run_product(const void *context, qp_mat_t y, int64_t first, int64_t n)
{
    const product_context_t *t = context;
    const product_t *p = t->p;
    qp_queue_t *q = qp_device_queue(t->device);
    const size_t words = (size_t)(first * qp_mask_words(p->n));
    const qp_mask_t mask = {qp_dptr_at(t->bits, words * sizeof(uint64_t)), 1.25f};
    if (p->beta != 0.0f)
        CHECK_OK(t->device->ops->axpby(q, 1.0f, qp_mat_rows(t->c.m, first, n), 0.0f, y));
    CHECK_OK(t->device->ops->matmul(q, p->alpha, qp_mat_rows(t->a.m, first, n), false, t->b.m,
                                    p->trans_b, p->beta, y, p->masked ? mask : (qp_mask_t){0}));
}

static void test_product(qp_device_t *device, const product_t *p)
{
    const bool whole = qp_device_dtype(device) == QP_F32;
    const qp_dtype_t c = whole ? QP_F32 : p->c;
    product_context_t t = {.device = device, .p = p};
    t.a = make_normal(device, whole ? QP_F32 : p->a, N_ROW, p->k, 1);
    t.b = make_normal(device, whole ? QP_F32 : p->b, p->trans_b ? p->n : p->k,
                      p->trans_b ? p->k : p->n, 2);
    t.c = make_normal(device, c, N_ROW, p->n, 3);
    const int64_t n_word = N_ROW * qp_mask_words(p->n);
    uint64_t *bits = QP_NEW("test", uint64_t, n_word);
    for (int64_t i = 0; i < n_word; i++)
        bits[i] = 0x9e3779b97f4a7c15u * (uint64_t)(i + 1);
    t.bits = upload_bytes(device, bits, (size_t)n_word * sizeof *bits);
    tensor_t all = make_tensor(device, c, N_ROW, p->n), some = make_tensor(device, c, N_ROW, p->n);
    char what[96];
    snprintf(what, sizeof what, "matmul n %lld k %lld, %s", (long long)p->n, (long long)p->k,
             qp_device_describe(device));
    check_rows(run_product, &t, &all, &some, what);
    tensor_t *tensor[] = {&t.a, &t.b, &t.c, &all, &some};
    for (int i = 0; i < 5; i++)
        free_tensor(tensor[i]);
    device->ops->release(device, &t.bits);
    QP_FREE(bits);
}

/* --- frozen linears --------------------------------------------------------------------------- */

static const struct {
    qp_weight_kind_t kind;
    qp_linear_mode_t mode;
    const char *name;
} kinds[] = {
    {QP_WEIGHT_F32, {false, false, 0.0f}, "fp32"},
    {QP_WEIGHT_BF16, {false, false, 0.0f}, "bf16"},
    {QP_WEIGHT_INT8, {true, true, 0.0f}, "int8"},
    {QP_WEIGHT_INT8, {false, false, 0.0f}, "weight-only"},
    {QP_WEIGHT_LLM_INT8, {true, false, 6.0f}, "LLM.int8"},
};
enum { N_KIND = sizeof kinds / sizeof kinds[0] };

typedef struct {
    int64_t n_out, n_in;
} shape_t;

static const shape_t shapes[] = {{960, 576}, {576, 1536}, {100, 65}, {17, 48}, {320, 33}};
enum { N_SHAPE = sizeof shapes / sizeof shapes[0] };

/* What a linear reads and what it adds to. */
typedef enum { PLAIN, NORM_TO_ITSELF, SWIGLU_TO_OTHER, N_FORM } form_t;

typedef struct {
    qp_device_t *device;
    linear_t l;
    form_t form;
    bool backward;
    tensor_t x, other, weight, rstd;
} linear_context_t;

static void run_linear(const void *context, qp_mat_t y, int64_t first, int64_t n)
{
    const linear_context_t *t = context;
    const qp_ops_t *ops = t->device->ops;
    qp_queue_t *q = qp_device_queue(t->device);
    const qp_mat_t other = qp_mat_rows(t->other.m, first, n);
    qp_input_t x = qp_input(qp_mat_rows(t->x.m, first, n));
    qp_mat_t add = {0};
    if (t->form == NORM_TO_ITSELF) {
        x.kind = QP_INPUT_RMSNORM;
        x.weight = t->weight.m.data;
        x.rstd = t->rstd.m.data;
        x.eps = 1e-5f;
        CHECK_OK(ops->axpby(q, 1.0f, other, 0.0f, y));
        add = y;
    } else if (t->form == SWIGLU_TO_OTHER) {
        x.kind = QP_INPUT_SWIGLU;
        add = other;
    }
    CHECK_OK((t->backward ? ops->linear_backward : ops->linear_forward)(q, y, &x, &t->l.w, add));
}

static void test_linear(qp_device_t *device, int kind, const shape_t *shape, form_t form,
                        bool backward)
{
    linear_context_t t = {.device = device,
                          .l = make_weight(device, (qp_weight_t){.kind = kinds[kind].kind,
                                                                 .n_out = shape->n_out,
                                                                 .n_in = shape->n_in,
                                                                 .has_bias = true,
                                                                 .mode = kinds[kind].mode}),
                          .form = form,
                          .backward = backward};
    const qp_dtype_t dtype = form == NORM_TO_ITSELF ? QP_F32 : qp_device_dtype(device);
    const int64_t n_in = backward ? shape->n_out : shape->n_in;
    const int64_t n_out = backward ? shape->n_in : shape->n_out;
    t.x = make_normal(device, dtype, N_ROW, form == SWIGLU_TO_OTHER ? 2 * n_in : n_in, 1);
    for (int64_t r = 0; kinds[kind].kind == QP_WEIGHT_LLM_INT8 && r < N_ROW; r++)
        for (int64_t i = 3; i < n_in; i += 20) /* the same columns in every batch */
            set_element(&t.x, r, i, r % 2 == 0 ? 50.0 : -20.0);
    t.other = make_normal(device, dtype, N_ROW, n_out, 2);
    t.weight = make_normal(device, QP_F32, 1, n_in, 3);
    t.rstd = make_tensor(device, QP_F32, 1, N_ROW);
    const qp_dtype_t to = form == SWIGLU_TO_OTHER ? dtype : QP_F32; /* bf16 hides differences */
    tensor_t all = make_tensor(device, to, N_ROW, n_out),
             some = make_tensor(device, to, N_ROW, n_out);
    char what[128];
    snprintf(what, sizeof what, "%s %s [%lld, %lld], form %d, %s", kinds[kind].name,
             backward ? "backward" : "forward", (long long)shape->n_out, (long long)shape->n_in,
             (int)form, qp_device_describe(device));
    check_rows(run_linear, &t, &all, &some, what);
    tensor_t *tensor[] = {&t.x, &t.other, &t.weight, &t.rstd, &all, &some};
    for (int i = 0; i < 6; i++)
        free_tensor(tensor[i]);
    free_linear(device, &t.l);
}

/* LLM.int8 wants the outlier columns that the input has by itself. */
static void test_linears(qp_device_t *device)
{
    for (int kind = 0; kind < N_KIND; kind++)
        for (int s = FIRST_SIZE; s < N_SHAPE; s++) {
            const bool llm = kinds[kind].kind == QP_WEIGHT_LLM_INT8;
            test_linear(device, kind, &shapes[s], llm ? PLAIN : (form_t)(s % N_FORM), false);
        }
}

/* --- logits ----------------------------------------------------------------------------------- */

typedef struct {
    qp_device_t *device;
    tensor_t hidden;
    linear_t head;
} logits_context_t;

static void run_logits(const void *context, qp_mat_t y, int64_t first, int64_t n)
{
    const logits_context_t *t = context;
    CHECK_OK(t->device->ops->lm_logits(qp_device_queue(t->device), y,
                                       qp_mat_rows(t->hidden.m, first, n), &t->head.w));
}

static void test_logits(qp_device_t *device, qp_weight_kind_t kind, bool int8_activation,
                        int64_t n_vocab, int64_t d)
{
    logits_context_t t = {
        .device = device,
        .hidden = make_normal(device, qp_device_dtype(device), N_ROW, d, 1),
        .head = make_weight(device, (qp_weight_t){.kind = kind,
                                                  .n_out = n_vocab,
                                                  .n_in = d,
                                                  .is_head = true,
                                                  .mode = {.int8_activation = int8_activation}})};
    tensor_t all = make_tensor(device, QP_F32, N_ROW, n_vocab),
             some = make_tensor(device, QP_F32, N_ROW, n_vocab);
    char what[96];
    snprintf(what, sizeof what, "logits of kind %d [%lld, %lld], %s", (int)kind, (long long)n_vocab,
             (long long)d, qp_device_describe(device));
    check_rows(run_logits, &t, &all, &some, what);
    free_linear(device, &t.head);
    tensor_t *tensor[] = {&t.hidden, &all, &some};
    for (int i = 0; i < 3; i++)
        free_tensor(tensor[i]);
}

/* --- what the ops rest on --------------------------------------------------------------------- */

/* An element of a product of fp32 is one chain of fused multiply-adds, on every CPU that has them.
 */
static void test_chain(int64_t m, int64_t n, int64_t k, bool in_parts)
{
    enum { GAP = 3 };
    const qp_cpu_float_product_t product = qp_cpu_float_product(QP_F32);
    const qp_philox_key_t key = {.seed = 9};
    const int64_t lda = k + GAP, half = in_parts ? k / 32 * 16 : 0;
    float *a = QP_NEW("test", float, m *lda), *b = QP_NEW("test", float, n *k);
    float *c = QP_NEW("test", float, m *QP_CPU_STRIP);
    char *strip = qp_alloc("test", qp_cpu_strip_bytes(QP_F32, k));
    for (int64_t i = 0; i < m * lda; i++)
        a[i] = i % lda < k ? qp_philox_normal(&key, (uint64_t)i) : NAN;
    for (int64_t i = 0; i < n * k; i++)
        b[i] = qp_philox_normal(&key, (uint64_t)(m * lda + i));
    qp_cpu_strip_pack(strip, QP_F32, b, QP_F32, k, true, k, n);
    qp_cpu_float_t p = {
        .c = c, .a = a, .strip = strip, .lda = lda, .m = m, .n = n, .k = in_parts ? half : k};
    product(&p);
    if (in_parts) {
        p.a = a + half;
        p.strip = strip + half * QP_CPU_STRIP * (int64_t)sizeof(float);
        p.k = k - half;
        p.accumulate = true;
        product(&p);
    }
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float sum = 0.0f;
            for (int64_t d = 0; d < k; d++)
                sum = fmaf(a[i * lda + d], b[j * k + d], sum);
            n_wrong += sum != c[i * QP_CPU_STRIP + j];
        }
    CHECK_MSG(n_wrong == 0, "[%lld, %lld] x [%lld, %lld]: %lld differ from the chain", (long long)m,
              (long long)k, (long long)k, (long long)n, (long long)n_wrong);
    QP_FREE(a);
    QP_FREE(b);
    QP_FREE(c);
    qp_free(strip);
}

static void test_chains(void)
{
    for (int64_t m = 1; m <= 31; m++)
        test_chain(m, 1 + m * 13 % QP_CPU_STRIP, 5 * m, m > 8);
    for (int64_t n = 1; n <= QP_CPU_STRIP; n++)
        test_chain(7, n, 40, n % 2 == 0);
}

/* --- all -------------------------------------------------------------------------------------- */

static void test_device(qp_device_t *device)
{
    for (int p = FIRST_SIZE; p < N_PRODUCT; p++)
        test_product(device, &products[p]);
    test_linears(device);
}

int main(void)
{
    if (qp_cpu_dot_product(QP_F32, QP_F32) != NULL) /* there is AVX2 */
        test_chains();
    for (int bf16 = 0; bf16 <= has_bf16(); bf16++) {
        qp_device_t *device = open_compute(bf16 ? QP_COMPUTE_BF16 : QP_COMPUTE_FP32, 2);
        test_device(device);
        for (qp_weight_kind_t kind = QP_WEIGHT_F32; kind <= QP_WEIGHT_BF16; kind++) {
            test_logits(device, kind, false, 300, 576);
            test_logits(device, kind, false, 130, 77);
        }
        test_logits(device, QP_WEIGHT_INT8, false, 300, 576);
        test_logits(device, QP_WEIGHT_INT8, true, 300, 576);
        test_logits(device, QP_WEIGHT_INT8, true, 130, 76);
        qp_cpu_device_t *cpu = (qp_cpu_device_t *)device;
        if (bf16 && device->config.backend == QP_BACKEND_CPU && cpu->packed_bf16 &&
            !cpu->dnnl_bf16) { /* as where there is AMX */
            cpu->dnnl_bf16 = true;
            test_device(device);
        }
        qp_device_close(&device);
    }
    return qp_test_end();
}
