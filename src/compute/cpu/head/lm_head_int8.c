/*
 * The head in int8: log-probability, entropy and gradient as lm_head.c has them, some rows and some
 * tokens of the vocabulary at a time, by the products of frozen linears on rows of the weight:
 *
 *     z = x W^T                                                                (forward)
 *     out = out + p W, with p = exp(z - m), 0 at the target                    (backward)
 *
 * In int8 p is rounded to eight bits without a sign, row by row: what is lost is half of what a
 * sign would cost, and the target's row, which outweighs all others, does not pass here.
 */
#include "compute/cpu/head/head.h"
#include "compute/cpu/linear/linear.h"
#include "compute/cpu/rows/math.h"
#include "compute/cpu/rows/quantise.h"

/* Of logits that exist at a time; their rows are so far apart that they do not meet in the cache.
 */
enum { ROWS = 1024, TOKENS = 1024, Z_LD = TOKENS + 16 };

/* Up to ROWS rows of a call. */
typedef struct {
    qp_cpu_device_t *device;
    qp_cpu_weight_t w;
    qp_cpu_linear_t forward; /* its a: the rows of hidden */
    bool gradient;
    qp_cpu_head_row_t *row; /* [n] */
    float *z;               /* [n, TOKENS], rows Z_LD apart */
    void *p;                /* [n, TOKENS] in the type of the backward product */
    float *p_scale;         /* [n] */
    float *out;             /* [n, D] */
    char *lanes;            /* [n_thread] a row of W */
    const int32_t *target;
} head_t;

/* Returns the scratch that n rows take. */
static size_t carve(head_t *h, char *memory, int64_t n, int64_t d, int n_thread)
{
    char *at = memory;
    h->row = qp_cpu_carve(&at, qp_bytes(n, sizeof *h->row));
    h->z = qp_cpu_carve(&at, qp_bytes(n * Z_LD, sizeof *h->z));
    h->p = qp_cpu_carve(&at, qp_bytes(n * TOKENS, sizeof(float)));
    h->p_scale = qp_cpu_carve(&at, qp_bytes(n, sizeof *h->p_scale));
    h->out = qp_cpu_carve(&at, qp_bytes(n * d, sizeof *h->out));
    h->lanes = qp_cpu_carve(&at, qp_bytes(n_thread, qp_cpu_round64((size_t)d * sizeof(float))));
    return (size_t)(at - memory);
}

/* With that of the linears, backward over the tokens. */
void qp_cpu_lm_head_int8_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                                 qp_cpu_scratch_need_t *need)
{
    head_t h;
    const int64_t n = qp_min_i64(size->n_token, ROWS), d = size->d_model;
    const qp_pass_size_t linear = {
        .n_token = n, .widest = qp_max_i64(d, TOKENS), .weight = QP_WEIGHT_INT8};
    qp_cpu_need(need, QP_SCRATCH_HEAD, carve(&h, NULL, n, d, device->n_thread));
    qp_cpu_linear_scratch(device, &linear, need);
}

/* Eight bits without a sign; returns the scale. */
QP_CPU_CLONES static float round_up_to_255(uint8_t *restrict q, const float *restrict p, int64_t n,
                                           float top)
{
    const float factor = top > 1e-30f ? 255.0f / top : 0.0f;
    for (int64_t i = 0; i < n; i++) {
        const float y = p[i] * factor + 0x1.8p23f; /* rounds: the integer is in the lowest bits */
        int32_t bits;
        memcpy(&bits, &y, sizeof bits);
        q[i] = (uint8_t)bits;
    }
    return top / 255.0f;
}

/* Row r of p for the backward product with the tokens of w: scaled as they are, and what packed
 * weights have in excess filled up. */
static void put_row(const head_t *h, const qp_cpu_linear_t *l, int64_t r, float *p)
{
    const int64_t n = l->w->n_out, width = (int64_t)qp_dtype_bytes(l->dtype);
    char *to = (char *)h->p + r * l->lda * width;
    qp_cpu_scale(p, qp_cpu_f32(l->w->scale), n);
    memset(to + n * width, 0, (size_t)((l->k - n) * width));
    if (l->dtype == QP_U8)
        h->p_scale[r] = round_up_to_255((uint8_t *)to, p, n, qp_cpu_absmax(p, n));
    else
        qp_cpu_convert(to, l->dtype, p, QP_F32, n);
}

/* The gradient's product: out += p W. */
static void init_backward(qp_cpu_linear_t *l, const head_t *h, const qp_cpu_weight_t *w)
{
    const int64_t n = h->forward.n_row;
    const qp_mat_t out = qp_mat((qp_dptr_t){(uintptr_t)h->out}, QP_F32, n, w->n_in);
    *l = (qp_cpu_linear_t){.device = h->device,
                           .w = w,
                           .backward = true,
                           .n_row = n,
                           .n_col = w->n_in,
                           .k = qp_cpu_weight_depth(h->device, w, true),
                           .y = out,
                           .add = out,
                           .dtype = qp_cpu_linear_dtype(h->device, w, true),
                           .a = h->p,
                           .row_scale = h->p_scale};
    l->lda = l->k;
}

/* Tokens [first, first + n) of the vocabulary. */
static qp_error_t run_tokens(head_t *h, int64_t first, int64_t n)
{
    const qp_cpu_weight_t w = qp_cpu_weight_outputs(&h->w, first, n);
    const int64_t n_row = h->forward.n_row, d = w.n_in;
    qp_cpu_linear_t l = h->forward, backward;
    l.w = &w;
    l.n_col = n;
    l.y = (qp_mat_t){{(uintptr_t)h->z}, QP_F32, n_row, n, Z_LD};
    QP_TRY(qp_cpu_linear_product(&l));
    init_backward(&backward, h, &w);
#pragma omp parallel for num_threads(h->device->n_thread)
    for (int64_t r = 0; r < n_row; r++) {
        const int64_t target = h->target[r] - first;
        qp_cpu_head_scan(&h->row[r], h->z + r * Z_LD, n, target < n ? target : -1,
                         h->gradient ? h->out + r * d : NULL, d);
        if (h->gradient)
            put_row(h, &backward, r, h->z + r * Z_LD);
    }
    return h->gradient ? qp_cpu_linear_product(&backward) : NULL;
}

static void start_rows(head_t *h)
{
    const int64_t d = h->w.n_in;
    qp_cpu_linear_prepare_all(&h->forward);
    for (int64_t r = 0; r < h->forward.n_row; r++)
        h->row[r] = qp_cpu_head_row();
    if (h->gradient)
        memset(h->out, 0, qp_bytes(h->forward.n_row * d, sizeof *h->out));
}

/* The target's row of W, as the forward product sees it. */
static void load_target(const head_t *h, int64_t target, float *to)
{
    const int64_t d = h->w.n_in;
    const float scale = qp_cpu_f32(h->w.scale)[target];
    qp_cpu_weight_output(h->device, &h->w, target, to);
    qp_cpu_hadamard(to, d, qp_hadamard_block(d));
    for (int64_t i = 0; i < d; i++)
        to[i] *= scale;
}

/* Rows from \a first of the call. */
static void write_rows(const head_t *h, int64_t first, const qp_cpu_head_result_t *to)
{
    const int64_t d = h->w.n_in;
    const size_t lane_bytes = qp_cpu_round64((size_t)d * sizeof(float));
#pragma omp parallel for num_threads(h->device->n_thread)
    for (int64_t r = 0; r < h->forward.n_row; r++) {
        float *w = (float *)(h->lanes + (size_t)omp_get_thread_num() * lane_bytes);
        const bool counts = h->target[r] >= 0;
        if (h->gradient && counts)
            load_target(h, h->target[r], w);
        qp_cpu_head_write(to, first + r, &h->row[r], counts, h->gradient ? h->out + r * d : NULL,
                          w);
    }
}

qp_error_t qp_cpu_lm_head_int8(qp_queue_t *q, const qp_cpu_head_result_t *to, qp_mat_t hidden,
                               const qp_weight_t *head, const int32_t *target)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    const int64_t n_max = qp_min_i64(hidden.n_row, ROWS), d = head->n_in;
    head_t h = {
        .device = device, .w = qp_cpu_weight(head), .gradient = !qp_dptr_is_null(to->dhidden.data)};
    const size_t bytes = carve(&h, NULL, n_max, d, device->n_thread);
    carve(&h, qp_cpu_scratch(device, QP_SCRATCH_HEAD, bytes), n_max, d, device->n_thread);
    for (int64_t first = 0; first < hidden.n_row; first += ROWS) {
        const qp_input_t rows =
            qp_input(qp_mat_rows(hidden, first, qp_min_i64(hidden.n_row - first, ROWS)));
        qp_cpu_linear_init(&h.forward, device, &h.w, &rows, false);
        h.target = target + first;
        start_rows(&h);
        for (int64_t token = 0; token < h.w.n_out; token += TOKENS)
            QP_TRY(run_tokens(&h, token, qp_min_i64(h.w.n_out - token, TOKENS)));
        write_rows(&h, first, to);
    }
    return NULL;
}
