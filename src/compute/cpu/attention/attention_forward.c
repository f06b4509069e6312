/* Causal attention forward: blocks of queries against blocks of keys, softmax on line (Milakov and
 * Gimelshein 2018; Dao et al. 2022). In general the products are oneDNN's, with everything between
 * in fp32; in bf16 a block is one call of our own kernel, where the CPU has what it needs. */
#include "compute/cpu/attention/attention_bf16.h"
#include "compute/cpu/gemm/pack.h"

/* One thread's memory for a block of queries. */
typedef struct {
    qp_block_t query; /* [QB, E] */
    void *packed;     /* Q^T as our own kernel has it */
    float *score;     /* [QB, KB] */
    void *prob;       /* [QB, KB] in the products' type */
    float *out;       /* [QB, E], not yet divided by sum; [E, QB] of our own kernel */
    float *top, *sum; /* [QB] largest scaled score, sum of exp(score - top) */
} task_t;

static size_t carve_task(task_t *t, const qp_blocks_t *b, char *memory)
{
    char *at = memory;
    int64_t e = b->a.head_dim;
    size_t width = qp_dtype_bytes(b->dtype);
    t->query = (qp_block_t){qp_cpu_carve(&at, (size_t)(QP_QB * e) * width), b->dtype, QP_QB, e};
    t->packed = qp_cpu_carve(&at, b->fused != NULL ? (size_t)(QP_QB * e) * width : 0);
    t->score = qp_cpu_carve(&at, QP_QB * QP_KB * sizeof(float));
    t->prob = qp_cpu_carve(&at, QP_QB * QP_KB * width);
    t->out = qp_cpu_carve(&at, (size_t)(QP_QB * e) * sizeof(float));
    t->top = qp_cpu_carve(&at, QP_QB * sizeof(float));
    t->sum = qp_cpu_carve(&at, QP_QB * sizeof(float));
    return (size_t)(at - memory);
}

/* Largest, and sum, of a row of KB: folded in halves, which vectorises to the end. */
static inline float fold_max(const float *restrict x)
{
    float t[QP_KB / 2];
    for (int c = 0; c < QP_KB / 2; c++)
        t[c] = x[c] > x[c + QP_KB / 2] ? x[c] : x[c + QP_KB / 2];
#pragma GCC unroll 8
    for (int w = QP_KB / 4; w > 0; w /= 2)
        for (int c = 0; c < w; c++)
            t[c] = t[c] > t[c + w] ? t[c] : t[c + w];
    return t[0];
}

static inline float fold_sum(const float *restrict x)
{
    float t[QP_KB / 2];
    for (int c = 0; c < QP_KB / 2; c++)
        t[c] = x[c] + x[c + QP_KB / 2];
#pragma GCC unroll 8
    for (int w = QP_KB / 4; w > 0; w /= 2)
        for (int c = 0; c < w; c++)
            t[c] += t[c + w];
    return t[0];
}

/* Turns scores into probabilities relative to the running maximum; row r sees n_key + r keys. */
QP_CPU_CLONES static void softmax_block(const task_t *t, int64_t n_row, int64_t n_key, float scale)
{
    int64_t e = t->query.n_col;
    size_t width = qp_dtype_bytes(t->query.dtype);
    for (int64_t r = 0; r < n_row; r++) {
        float *restrict score = t->score + r * QP_KB;
        for (int64_t c = n_key + r < 0 ? 0 : n_key + r; c < QP_KB; c++)
            score[c] = -INFINITY;
        float top = scale * fold_max(score);
        if (top > t->top[r]) {
            float shrink = qp_cpu_expf(t->top[r] - top);
            float *restrict out = t->out + r * e;
            for (int64_t c = 0; c < e; c++)
                out[c] *= shrink;
            t->sum[r] *= shrink;
            t->top[r] = top;
        }
        top = t->top[r];
        for (int64_t c = 0; c < QP_KB; c++)
            score[c] = qp_cpu_expf_negative(score[c] * scale - top);
        t->sum[r] += fold_sum(score);
        qp_store_operand((char *)t->prob + (size_t)(r * QP_KB) * width, t->query.dtype, score,
                         QP_KB);
    }
}

QP_CPU_CLONES static void write_rows(const task_t *t, const qp_mat_t *out, int64_t first_row,
                                     int64_t first_col, int64_t n_row)
{
    int64_t e = t->query.n_col;
    for (int64_t r = 0; r < n_row; r++) {
        float *restrict row = t->out + r * e;
        float scale = 1.0f / t->sum[r];
        for (int64_t c = 0; c < e; c++)
            row[c] *= scale;
        qp_cpu_store(qp_cpu_at(out, first_row + r, first_col), out->dtype, row, e);
    }
}

typedef struct {
    const qp_blocks_t *b;
    const qp_cpu_device_t *device;
    const qp_cpu_gemm_t *score[QP_N_BLOCK_SIZE], *out[QP_N_BLOCK_SIZE]; /* S = Q K^T, O += P V */
    qp_mat_t qkv, o;
    float *lse; /* [H, n_token] or NULL */
} forward_t;

/* A block of queries of one head. */
typedef struct {
    const qp_span_t *span;
    int64_t head, kv_head;
    int64_t first, n_row; /* rows of the span */
    int64_t position;     /* of the first */
} work_t;

static qp_error_t attend(const forward_t *f, const task_t *t, int thread, const work_t *w)
{
    const qp_blocks_t *b = f->b;
    qp_block_load(&t->query, &f->qkv, w->head * b->a.head_dim, w->span->first_row + w->first,
                  w->n_row);
    memset(t->prob, 0, QP_QB * QP_KB * qp_dtype_bytes(b->dtype));
    for (int64_t j = 0; j * QP_KB < w->position + w->n_row; j++) {
        const void *k = qp_key_block(b, QP_K, w->span->first_key_block + j, w->kv_head);
        const void *v = qp_key_block(b, QP_V, w->span->first_key_block + j, w->kv_head);
        const qp_block_size_t size = qp_block_size(w->position + w->n_row - j * QP_KB);
        QP_TRY(qp_cpu_gemm_run(f->score[size], thread, t->query.data, k, t->score));
        softmax_block(t, w->n_row, w->position + 1 - j * QP_KB, b->a.scale);
        QP_TRY(qp_cpu_gemm_run(f->out[size], thread, t->prob, v, t->out));
    }
    write_rows(t, &f->o, w->span->first_row + w->first, w->head * b->a.head_dim, w->n_row);
    return NULL;
}

/* O^T divided by the sums goes to its rows; the largest scores get the unit of lse. */
QP_CPU_CLONES static void finish_fused(const task_t *t, const qp_mat_t *out, int64_t first_row,
                                       int64_t first_col, int64_t n_row)
{
    float part[QP_QB];
    for (int64_t r = 0; r < QP_QB; r++) {
        part[r] = 1.0f / t->sum[r];
        t->top[r] *= (float)M_LN2;
    }
    for (int64_t c = 0; c < t->query.n_col; c++)
        for (int64_t r = 0; r < QP_QB; r++)
            t->out[c * QP_QB + r] *= part[r];
    qp_block_store_trans(out, first_row, first_col, t->out, n_row, t->query.n_col, 1.0f);
}

static void attend_fused(const forward_t *f, const task_t *t, const work_t *w)
{
    const qp_blocks_t *b = f->b;
    const int64_t e = b->a.head_dim;
    qp_bf16_forward_t block = {.block = {.head_dim = e, .scale = b->a.scale, .n_query = w->n_row},
                               .query = t->packed,
                               .score = t->score,
                               .prob = t->prob,
                               .out = t->out,
                               .top = t->top,
                               .sum = t->sum};
    const int64_t row = w->span->first_row + w->first;
    const void *query = qp_cpu_at(&f->qkv, row, w->head * e);
    int64_t ld = f->qkv.ld;
    if (w->n_row < QP_QB) { /* filled up first */
        qp_block_load(&t->query, &f->qkv, w->head * e, row, w->n_row);
        query = t->query.data, ld = e;
    }
    qp_cpu_operand_pack(f->device, t->packed, b->dtype, query, b->dtype, ld, true, e, QP_QB);
    for (int64_t first = 0; first < w->position + w->n_row; first += QP_SUB) {
        const int64_t j = w->span->first_key_block + first / QP_KB;
        const size_t half = first % QP_KB == 0 ? 0 : qp_key_block_bytes(b) / 2;
        block.key = qp_key_block(b, QP_K_TRANS, j, w->kv_head) + half;
        block.value = qp_key_block(b, QP_V, j, w->kv_head) + half;
        block.block.ahead = w->position - first;
        block.block.n_key = qp_min_i64(w->position + w->n_row - first, QP_SUB);
        b->fused->forward(&block);
    }
    finish_fused(t, &f->o, row, w->head * e, w->n_row);
}

static qp_error_t forward_block(const forward_t *f, const task_t *t, int thread, int64_t block,
                                int64_t head)
{
    const qp_blocks_t *b = f->b;
    const qp_span_t *s = &b->span[b->query_block_span[block]];
    const int64_t e = b->a.head_dim, first = (block - s->first_query_block) * QP_QB;
    const work_t w = {.span = s,
                      .head = head,
                      .kv_head = head / b->group,
                      .first = first,
                      .n_row = qp_min_i64(s->n_query - first, QP_QB),
                      .position = s->n_key - s->n_query + first};
    memset(t->out, 0, (size_t)(QP_QB * e) * sizeof(float));
    for (int64_t r = 0; r < QP_QB; r++) {
        t->top[r] = -INFINITY;
        t->sum[r] = 0.0f;
    }
    if (b->fused != NULL)
        attend_fused(f, t, &w);
    else
        QP_TRY(attend(f, t, thread, &w));
    if (f->lse != NULL)
        for (int64_t r = 0; r < w.n_row; r++)
            f->lse[head * f->qkv.n_row + s->first_row + first + r] = t->top[r] + logf(t->sum[r]);
    return NULL;
}

static qp_error_t prepare_products(forward_t *f, qp_cpu_device_t *device)
{
    int64_t e = f->b->a.head_dim;
    int32_t dtype = (int32_t)f->b->dtype;
    for (int size = 0; size < QP_N_BLOCK_SIZE; size++) {
        int64_t n = qp_block_keys(size);
        qp_cpu_gemm_spec_t spec = {.a = dtype, .b = dtype, .c = QP_F32, .alpha = 1.0f};
        qp_cpu_gemm_spec_t score = spec, out = spec;
        score.m = QP_QB, score.n = n, score.k = e, score.trans_b = true;
        score.lda = e, score.ldb = e, score.ldc = QP_KB;
        out.m = QP_QB, out.n = e, out.k = n, out.accumulate = true;
        out.lda = QP_KB, out.ldb = e, out.ldc = e;
        QP_TRY(qp_cpu_gemm_get(device, &score, &f->score[size]));
        QP_TRY(qp_cpu_gemm_get(device, &out, &f->out[size]));
    }
    return NULL;
}

/* Of all threads; *bytes gets those of one. */
static size_t task_bytes(const qp_blocks_t *b, const qp_cpu_device_t *device, size_t *bytes)
{
    task_t measure;
    *bytes = carve_task(&measure, b, NULL);
    return *bytes * (size_t)device->n_thread;
}

void qp_blocks_forward_scratch(const qp_blocks_t *b, const qp_cpu_device_t *device,
                               qp_cpu_scratch_need_t *need)
{
    size_t bytes;
    qp_cpu_need(need, QP_SCRATCH_ATTENTION_TASK, task_bytes(b, device, &bytes));
}

qp_error_t qp_blocks_forward(const qp_blocks_t *b, qp_cpu_device_t *device, const qp_mat_t *out,
                             float *lse, const qp_mat_t *qkv)
{
    forward_t f = {.b = b, .device = device, .qkv = *qkv, .o = *out, .lse = lse};
    if (b->fused == NULL)
        QP_TRY(prepare_products(&f, device));
    size_t bytes;
    const size_t all = task_bytes(b, device, &bytes);
    char *memory = qp_cpu_scratch(device, QP_SCRATCH_ATTENTION_TASK, all);
    qp_error_t error = NULL;
#pragma omp parallel num_threads(device->n_thread)
    {
        int thread = omp_get_thread_num();
        task_t task;
        carve_task(&task, b, memory + (size_t)thread * bytes);
        /* The last blocks of a sequence see the most keys: they go first. */
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t i = b->n_query_block - 1; i >= 0; i--)
            for (int64_t h = 0; h < b->a.n_head; h++)
                qp_cpu_keep_error(&error, forward_block(&f, &task, thread, i, h));
    }
    return error;
}

qp_error_t qp_cpu_attention_forward(qp_queue_t *q, qp_mat_t out, qp_dptr_t lse, qp_mat_t qkv,
                                    const qp_attention_t *a, const qp_ragged_t *batch)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    int64_t e = a->head_dim, n_kv = a->n_kv_head * e;
    QP_ASSERT(qkv.n_row == batch->n_token && qkv.n_col == a->n_head * e + 2 * n_kv);
    QP_ASSERT(out.n_row == batch->n_token && out.n_col == a->n_head * e);
    const qp_key_source_t source = {.k = qp_mat_cols(qkv, a->n_head * e, n_kv),
                                    .v = qp_mat_cols(qkv, a->n_head * e + n_kv, n_kv)};
    qp_ragged_t part;
    for (int64_t first = 0; first < batch->n_seq; first += part.n_seq) {
        qp_blocks_t b;
        part = qp_blocks_part(batch, NULL, first, qp_blocks_of_batch(batch->n_token));
        qp_blocks_init(&b, device, QP_FOR_FORWARD, a, qkv.dtype, &part, NULL);
        qp_blocks_load_keys(&b, device, &source);
        QP_TRY(qp_blocks_forward(&b, device, &out, qp_cpu_f32(lse), &qkv));
    }
    return NULL;
}
