/*
 * Causal attention backward. One task is one (sequence, query head), or all heads of a group one
 * after the other: it walks the blocks of keys, and for each the blocks of queries that see it,
 * recomputing the probabilities from lse. Blocks are held transposed, [keys, queries], so that the
 * second operands of all products are packed once for many uses (pack.h), but for dS^T:
 *
 *   P^T = exp(K Q^T - lse)      dV += P^T dO      dP^T = V dO^T
 *   dS^T = P^T (dP^T - delta)   dK += dS^T Q      dQ^T += K^T dS^T   delta = rowsum(dO * O)
 *
 * The factor scale of dS is left to dQ and dK.
 *
 * With grouped queries the dK and dV of the heads of a group are summed in order, in fp32.
 */
#include "compute/cpu/attention/attention_bf16.h"
#include "compute/cpu/gemm/pack.h"

/* Blocks of queries as second operands: [QB, E], and their transposes. */
typedef struct {
    char *plain, *trans; /* [all query blocks of a span] */
} operand_t;

typedef struct {
    operand_t query, dout;
    size_t plain_bytes, trans_bytes; /* of one block of an operand */
    qp_block_t block;                /* [QB, E] on its way to be packed */
    float *dquery;                   /* [query blocks, E, QB]: dQ^T */
    float *lse, *delta;              /* [all query rows]; lse infinite in the rows that fill up */
    void *key;                       /* [E, KB] K^T */
    float *score, *dscore;           /* [KB, QB] */
    void *prob, *dprob;              /* [KB, QB] in the products' type: P^T, dS^T */
    void *packed;                    /* dS^T as a second operand */
    float *dk, *dv;                  /* [KB, E] */
} task_t;

static size_t carve_task(task_t *t, const qp_blocks_t *b, const qp_cpu_device_t *device,
                         char *memory)
{
    char *at = memory;
    const int64_t e = b->a.head_dim, n_block = b->max_query_block, n_row = n_block * QP_QB;
    const size_t width = qp_dtype_bytes(b->dtype), tile = QP_QB * QP_KB;
    t->plain_bytes = qp_cpu_operand_bytes(device, b->dtype, QP_QB, e);
    t->trans_bytes = qp_cpu_operand_bytes(device, b->dtype, e, QP_QB);
    operand_t *const operand[] = {&t->query, &t->dout};
    for (int i = 0; i < 2; i++) {
        operand[i]->plain = qp_cpu_carve(&at, (size_t)n_block * t->plain_bytes);
        operand[i]->trans = qp_cpu_carve(&at, (size_t)n_block * t->trans_bytes);
    }
    t->block = (qp_block_t){qp_cpu_carve(&at, (size_t)(QP_QB * e) * width), b->dtype, QP_QB, e};
    t->dquery = qp_cpu_carve(&at, (size_t)(n_row * e) * sizeof(float));
    t->lse = qp_cpu_carve(&at, (size_t)n_row * sizeof(float));
    t->delta = qp_cpu_carve(&at, (size_t)n_row * sizeof(float));
    t->key = qp_cpu_carve(&at, (size_t)(QP_KB * e) * width);
    t->score = qp_cpu_carve(&at, tile * sizeof(float));
    t->dscore = qp_cpu_carve(&at, tile * sizeof(float));
    t->prob = qp_cpu_carve(&at, tile * width);
    t->dprob = qp_cpu_carve(&at, tile * width);
    t->packed = qp_cpu_carve(&at, qp_cpu_operand_bytes(device, b->dtype, QP_KB, QP_QB));
    t->dk = qp_cpu_carve(&at, (size_t)(QP_KB * e) * sizeof(float));
    t->dv = qp_cpu_carve(&at, (size_t)(QP_KB * e) * sizeof(float));
    return (size_t)(at - memory);
}

typedef struct backward backward_t;

struct backward {
    const qp_blocks_t *b;
    const qp_cpu_device_t *device;
    /* Key block j and all blocks of queries that see it. */
    qp_error_t (*run)(const backward_t *f, task_t *t, int thread, const qp_span_t *s, int64_t j,
                      int64_t kv_head);
    /* [KB, QB] = K x^T; [KB, E] += dS^T x; [E, QB] += K^T dS^T */
    const qp_cpu_gemm_t *score[QP_N_BLOCK_SIZE], *key[QP_N_BLOCK_SIZE], *query[QP_N_BLOCK_SIZE];
    qp_mat_t qkv, out, dout, dqkv;
    const float *lse; /* [H, n_token] */
    /* With grouped queries: what heads leave, and whether one task does all heads of a group. */
    bool by_group;
    float *left;            /* [2 (dK, dV), n_slot, n_row, E]: by group [thread, row of a span], */
    int64_t n_slot, n_left; /* else [H, n_token] */
    int64_t first_row, end_row; /* of the part */
};

/*
 * P^T and dS^T of the first n_row keys of key block j and query block i. Zero where the key comes
 * after the query, which includes all keys that fill up a block; queries that do have lse infinite.
 */
QP_CPU_CLONES static void probability_block(const task_t *t, int64_t j, int64_t i, int64_t n_row,
                                            float scale)
{
    const float *restrict lse = t->lse + i * QP_QB, *restrict delta = t->delta + i * QP_QB;
    int64_t ahead = j * QP_KB - i * QP_QB; /* of the first key before the first query */
    const qp_dtype_t dtype = t->block.dtype;
    const size_t width = qp_dtype_bytes(dtype);
    for (int64_t r = 0; r < n_row; r++) {
        float *restrict p = t->score + r * QP_QB, *restrict d = t->dscore + r * QP_QB;
        for (int64_t c = 0; c < QP_QB; c++) {
            float prob = qp_cpu_expf_negative(p[c] * scale - lse[c]);
            p[c] = prob;
            d[c] = prob * (d[c] - delta[c]);
        }
        for (int64_t c = 0; c < qp_min_i64(ahead + r, QP_QB); c++)
            p[c] = d[c] = 0.0f;
        qp_store_operand((char *)t->prob + (size_t)(r * QP_QB) * width, dtype, p, QP_QB);
        qp_store_operand((char *)t->dprob + (size_t)(r * QP_QB) * width, dtype, d, QP_QB);
    }
}

QP_CPU_CLONES static void store_rows(const qp_mat_t *to, int64_t first_row, int64_t first_col,
                                     const float *from, int64_t n_row, int64_t n_col)
{
    for (int64_t r = 0; r < n_row; r++)
        qp_cpu_store(qp_cpu_at(to, first_row + r, first_col), to->dtype, from + r * n_col, n_col);
}

/* to [n_col, n_row] = transpose of from [n_row, n_col], elements of 2 or 4 bytes. */
static void transpose(void *restrict to, const void *restrict from, qp_dtype_t dtype, int64_t n_row,
                      int64_t n_col)
{
    for (int64_t c = 0; c < n_col; c++)
        for (int64_t r = 0; r < n_row; r++)
            if (dtype == QP_F32)
                ((float *)to)[c * n_row + r] = ((const float *)from)[r * n_col + c];
            else
                ((uint16_t *)to)[c * n_row + r] = ((const uint16_t *)from)[r * n_col + c];
}

/* Columns from first_col on of a span's rows, block by block. */
static void load_operand(const backward_t *f, const task_t *t, const operand_t *to,
                         const qp_mat_t *from, const qp_span_t *s, int64_t first_col)
{
    const int64_t e = f->b->a.head_dim;
    for (int64_t i = 0; i < s->n_query_block; i++) {
        const int64_t first = s->first_row + i * QP_QB, n = s->n_query - i * QP_QB;
        const void *rows = qp_cpu_at(from, first, first_col);
        qp_dtype_t dtype = from->dtype;
        int64_t ld = from->ld;
        if (n < QP_QB) { /* the last block is filled up first */
            qp_block_load(&t->block, from, first_col, first, n);
            rows = t->block.data, dtype = t->block.dtype, ld = e;
        }
        qp_cpu_operand_pack(f->device, to->plain + (size_t)i * t->plain_bytes, f->b->dtype, rows,
                            dtype, ld, false, QP_QB, e);
        qp_cpu_operand_pack(f->device, to->trans + (size_t)i * t->trans_bytes, f->b->dtype, rows,
                            dtype, ld, true, e, QP_QB);
    }
}

/* lse and delta of a block's rows; infinity and 0 in those that fill it up. */
QP_CPU_CLONES static void load_statistics(const backward_t *f, const task_t *t, const qp_span_t *s,
                                          int64_t head, int64_t block)
{
    const int64_t e = f->b->a.head_dim, first = s->first_row + block * QP_QB;
    const int64_t n = qp_min_i64(s->n_query - block * QP_QB, QP_QB);
    float *restrict lse = t->lse + block * QP_QB, *restrict delta = t->delta + block * QP_QB;
    memcpy(lse, f->lse + head * f->qkv.n_row + first, (size_t)n * sizeof *lse);
    for (int64_t r = 0; r < n; r++) {
        float x[QP_CPU_CHUNK], y[QP_CPU_CHUNK], sum = 0.0f;
        qp_cpu_load(x, f->dout.dtype, qp_cpu_at(&f->dout, first + r, head * e), e);
        qp_cpu_load(y, f->out.dtype, qp_cpu_at(&f->out, first + r, head * e), e);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < e; i++)
            sum += x[i] * y[i];
        delta[r] = sum;
    }
    for (int64_t r = n; r < QP_QB; r++) {
        lse[r] = INFINITY;
        delta[r] = 0.0f;
    }
}

static void load_task(const backward_t *f, task_t *t, const qp_span_t *s, int64_t head)
{
    const int64_t e = f->b->a.head_dim;
    load_operand(f, t, &t->query, &f->qkv, s, head * e);
    load_operand(f, t, &t->dout, &f->dout, s, head * e);
    for (int64_t i = 0; i < s->n_query_block; i++)
        load_statistics(f, t, s, head, i);
    memset(t->dquery, 0, (size_t)(s->n_query_block * QP_QB * e) * sizeof(float));
}

/* Where a head leaves its rows of dK (part 0) or dV (1) from \a row of the span on. */
static float *left_rows(const backward_t *f, int part, int thread, const qp_span_t *s, int64_t head,
                        int64_t row)
{
    const int64_t slot = f->by_group ? thread : head;
    const int64_t at = f->by_group ? row : s->first_row + row;
    return f->left + ((part * f->n_slot + slot) * f->n_left + at) * f->b->a.head_dim;
}

/* First column of dK (part 0) or dV (1) of a kv head. */
static int64_t key_column(const backward_t *f, int part, int64_t kv_head)
{
    const qp_attention_t *a = &f->b->a;
    return (a->n_head + part * a->n_kv_head + kv_head) * a->head_dim;
}

QP_CPU_CLONES static void add_rows(float *restrict to, const float *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

/* dK and dV of one block of keys from this head go to their place, or to the group's others. */
static void store_key_block(const backward_t *f, const task_t *t, int thread, const qp_span_t *s,
                            int64_t head, int64_t block)
{
    const int64_t e = f->b->a.head_dim, first = block * QP_KB;
    const int64_t n = qp_min_i64(s->n_key - first, QP_KB);
    for (int64_t i = 0; i < n * e; i++)
        t->dk[i] *= f->b->a.scale;
    for (int part = 0; part < 2; part++) {
        const float *from = part == 0 ? t->dk : t->dv;
        if (f->left == NULL) {
            store_rows(&f->dqkv, s->first_row + first, key_column(f, part, head), from, n, e);
            continue;
        }
        float *to = left_rows(f, part, thread, s, head, first);
        if (f->by_group && head % f->b->group > 0)
            add_rows(to, from, n * e);
        else
            memcpy(to, from, (size_t)(n * e) * sizeof *to);
    }
}

/* Block i of queries and one block of keys, j. */
static qp_error_t backward_block(const backward_t *f, task_t *t, int thread, const qp_span_t *s,
                                 int64_t j, int64_t i, const void *k, const void *v)
{
    const int64_t e = f->b->a.head_dim;
    const size_t plain = (size_t)i * t->plain_bytes, trans = (size_t)i * t->trans_bytes;
    const int64_t seen = qp_min_i64(s->n_key, (i + 1) * QP_QB) - j * QP_KB;
    const qp_block_size_t size = qp_block_size(seen);
    const void *dprob = t->dprob;
    QP_TRY(qp_cpu_gemm_run(f->score[size], thread, k, t->query.trans + trans, t->score));
    QP_TRY(qp_cpu_gemm_run(f->score[size], thread, v, t->dout.trans + trans, t->dscore));
    probability_block(t, j, i, qp_block_keys((int)size), f->b->a.scale);
    QP_TRY(qp_cpu_gemm_run(f->key[size], thread, t->prob, t->dout.plain + plain, t->dv));
    QP_TRY(qp_cpu_gemm_run(f->key[size], thread, t->dprob, t->query.plain + plain, t->dk));
    if (size == QP_WHOLE_BLOCK) {
        dprob = t->packed;
        qp_cpu_operand_pack(f->device, t->packed, f->b->dtype, t->dprob, f->b->dtype, QP_QB, false,
                            QP_KB, QP_QB);
    }
    return qp_cpu_gemm_run(f->query[size], thread, t->key, dprob, t->dquery + i * QP_QB * e);
}

static qp_error_t run_general(const backward_t *f, task_t *t, int thread, const qp_span_t *s,
                              int64_t j, int64_t kv_head)
{
    const qp_blocks_t *b = f->b;
    const void *k = qp_key_block(b, QP_K, s->first_key_block + j, kv_head);
    const void *v = qp_key_block(b, QP_V, s->first_key_block + j, kv_head);
    transpose(t->key, k, b->dtype, QP_KB, b->a.head_dim);
    for (int64_t i = j * QP_KB / QP_QB; i < s->n_query_block; i++)
        QP_TRY(backward_block(f, t, thread, s, j, i, k, v));
    return NULL;
}

/* The same with our own kernel, half a block of keys after the other. */
static qp_error_t run_fused(const backward_t *f, task_t *t, int thread, const qp_span_t *s,
                            int64_t j, int64_t kv_head)
{
    (void)thread;
    const qp_blocks_t *b = f->b;
    const int64_t e = b->a.head_dim, block = s->first_key_block + j;
    qp_bf16_backward_t w = {.block = {.head_dim = e, .scale = b->a.scale},
                            .prob = t->prob,
                            .dprob = t->dprob,
                            .packed = t->packed};
    for (int64_t h = 0, first = j * QP_KB; h < 2 && first < s->n_key; h++, first += QP_SUB) {
        const size_t half = (size_t)h * qp_key_block_bytes(b) / 2;
        w.block.n_key = qp_min_i64(s->n_key - first, QP_SUB);
        w.key = qp_key_block(b, QP_K, block, kv_head) + half;
        w.key_trans = qp_key_block(b, QP_K_TRANS, block, kv_head) + half;
        w.value_trans = qp_key_block(b, QP_V_TRANS, block, kv_head) + half;
        w.dkey = t->dk + h * QP_SUB * e;
        w.dvalue = t->dv + h * QP_SUB * e;
        for (int64_t i = first / QP_QB; i < s->n_query_block; i++) {
            w.block.n_query = qp_min_i64(s->n_query - i * QP_QB, QP_QB);
            w.block.ahead = i * QP_QB - first;
            w.query = t->query.plain + (size_t)i * t->plain_bytes;
            w.query_trans = t->query.trans + (size_t)i * t->trans_bytes;
            w.dout = t->dout.plain + (size_t)i * t->plain_bytes;
            w.dout_trans = t->dout.trans + (size_t)i * t->trans_bytes;
            w.lse = t->lse + i * QP_QB;
            w.delta = t->delta + i * QP_QB;
            w.dquery = t->dquery + i * QP_QB * e;
            b->fused->backward(&w);
        }
    }
    return NULL;
}

static qp_error_t backward_head(const backward_t *f, task_t *t, int thread, const qp_span_t *s,
                                int64_t head)
{
    const qp_blocks_t *b = f->b;
    const int64_t e = b->a.head_dim, kv_head = head / b->group;
    load_task(f, t, s, head);
    for (int64_t j = 0; j < s->n_key_block; j++) {
        memset(t->dk, 0, (size_t)(QP_KB * e) * sizeof(float));
        memset(t->dv, 0, (size_t)(QP_KB * e) * sizeof(float));
        QP_TRY(f->run(f, t, thread, s, j, kv_head));
        store_key_block(f, t, thread, s, head, j);
    }
    for (int64_t i = 0; i < s->n_query_block; i++)
        qp_block_store_trans(&f->dqkv, s->first_row + i * QP_QB, head * e,
                             t->dquery + i * QP_QB * e, qp_min_i64(s->n_query - i * QP_QB, QP_QB),
                             e, b->a.scale);
    return NULL;
}

/* All heads of a group, one after the other; the sum of what they leave is in the thread's slot. */
static qp_error_t backward_group(const backward_t *f, task_t *t, int thread, const qp_span_t *s,
                                 int64_t kv_head)
{
    const qp_blocks_t *b = f->b;
    for (int64_t h = kv_head * b->group; h < (kv_head + 1) * b->group; h++)
        QP_TRY(backward_head(f, t, thread, s, h));
    for (int part = 0; part < 2; part++)
        store_rows(&f->dqkv, s->first_row, key_column(f, part, kv_head),
                   left_rows(f, part, thread, s, 0, 0), s->n_key, b->a.head_dim);
    return NULL;
}

/* Adds up what the heads of a group left, in the order of backward_group(). */
QP_CPU_CLONES static void sum_group_row(const backward_t *f, int part, int64_t kv_head, int64_t row)
{
    const int64_t e = f->b->a.head_dim, n = f->n_left * e;
    const float *restrict x = f->left + (part * f->n_slot + kv_head * f->b->group) * n + row * e;
    float sum[QP_CPU_CHUNK];
    memcpy(sum, x, (size_t)e * sizeof *sum);
    for (int64_t h = 1; h < f->b->group; h++)
        for (int64_t c = 0; c < e; c++)
            sum[c] += x[h * n + c];
    qp_cpu_store(qp_cpu_at(&f->dqkv, row, key_column(f, part, kv_head)), f->dqkv.dtype, sum, e);
}

static qp_error_t prepare_products(backward_t *f, qp_cpu_device_t *device)
{
    int64_t e = f->b->a.head_dim;
    int32_t dtype = (int32_t)f->b->dtype;
    for (int size = 0; size < QP_N_BLOCK_SIZE; size++) {
        int64_t n = qp_block_keys(size);
        qp_cpu_gemm_spec_t spec = {.a = dtype, .b = dtype, .c = QP_F32, .alpha = 1.0f};
        qp_cpu_gemm_spec_t score = spec, key = spec, query = spec;
        score.m = n, score.n = QP_QB, score.k = e;
        score.lda = e, score.ldc = QP_QB;
        qp_cpu_operand_describe(device, &score, true);
        key.m = n, key.n = e, key.k = QP_QB, key.accumulate = true;
        key.lda = QP_QB, key.ldc = e;
        qp_cpu_operand_describe(device, &key, false);
        query.m = e, query.n = QP_QB, query.k = n, query.accumulate = true;
        query.lda = QP_KB, query.ldb = QP_QB, query.ldc = QP_QB;
        if (size == QP_WHOLE_BLOCK) /* the halves of K^T's rows do not stand together */
            qp_cpu_operand_describe(device, &query, false);
        QP_TRY(qp_cpu_gemm_get(device, &score, &f->score[size]));
        QP_TRY(qp_cpu_gemm_get(device, &key, &f->key[size]));
        QP_TRY(qp_cpu_gemm_get(device, &query, &f->query[size]));
    }
    return NULL;
}

/* Of all threads; *bytes gets those of one. */
static size_t task_bytes(const qp_blocks_t *b, const qp_cpu_device_t *device, size_t *bytes)
{
    task_t measure;
    *bytes = carve_task(&measure, b, device, NULL);
    return *bytes * (size_t)device->n_thread;
}

static qp_error_t run_backward(const backward_t *f, qp_cpu_device_t *device)
{
    const qp_blocks_t *b = f->b;
    size_t bytes;
    const size_t all = task_bytes(b, device, &bytes);
    char *memory = qp_cpu_scratch(device, QP_SCRATCH_ATTENTION_TASK, all);
    qp_error_t error = NULL;
#pragma omp parallel num_threads(device->n_thread)
    {
        int thread = omp_get_thread_num();
        task_t task;
        carve_task(&task, b, device, memory + (size_t)thread * bytes);
        if (f->by_group) {
#pragma omp for collapse(2) schedule(dynamic)
            for (int64_t s = 0; s < b->n_span; s++)
                for (int64_t g = 0; g < b->a.n_kv_head; g++)
                    qp_cpu_keep_error(&error, backward_group(f, &task, thread, &b->span[s], g));
        } else {
#pragma omp for collapse(2) schedule(dynamic)
            for (int64_t s = 0; s < b->n_span; s++)
                for (int64_t h = 0; h < b->a.n_head; h++)
                    qp_cpu_keep_error(&error, backward_head(f, &task, thread, &b->span[s], h));
            if (f->left != NULL) {
#pragma omp for collapse(3)
                for (int part = 0; part < 2; part++)
                    for (int64_t g = 0; g < b->a.n_kv_head; g++)
                        for (int64_t t = f->first_row; t < f->end_row; t++)
                            sum_group_row(f, part, g, t);
            }
        }
    }
    return error;
}

static size_t left_bytes(int64_t n_row, int64_t head_dim)
{
    return qp_bytes(2 * n_row * head_dim, sizeof(float));
}

/* Heads of a group are one task where that still leaves tasks enough to go round; the results are
 * the same. What they leave lies in memory for a short time, or until the sum at the end. */
static void plan_groups(backward_t *f, qp_cpu_device_t *device)
{
    const qp_blocks_t *b = f->b;
    if (b->group == 1)
        return;
    double work = 0.0, largest = 0.0;
    for (int64_t s = 0; s < b->n_span; s++) {
        const double n = (double)b->span[s].n_query;
        work += n * n;
        largest = n * n > largest ? n * n : largest;
    }
    f->by_group = work * (double)b->a.n_kv_head >= 4.0 * largest * device->n_thread;
    f->n_slot = f->by_group ? device->n_thread : b->a.n_head;
    f->n_left = f->by_group ? b->max_query_block * QP_QB : f->qkv.n_row;
    f->left = qp_cpu_scratch(device, QP_SCRATCH_ATTENTION_SUM,
                             left_bytes(f->n_slot * f->n_left, b->a.head_dim));
}

/* By groups the longest sequence has at most n_kv_head / (4 n_thread) of all rows, as its part of
 * the work tells. */
void qp_blocks_backward_scratch(const qp_blocks_t *b, const qp_cpu_device_t *device,
                                int64_t n_token, qp_cpu_scratch_need_t *need)
{
    const int64_t n_row = b->a.n_head * n_token + (int64_t)device->n_thread * QP_QB;
    size_t bytes;
    qp_cpu_need(need, QP_SCRATCH_ATTENTION_TASK, task_bytes(b, device, &bytes));
    if (b->group > 1)
        qp_cpu_need(need, QP_SCRATCH_ATTENTION_SUM, left_bytes(n_row, b->a.head_dim));
}

static qp_error_t backward_part(backward_t *f, qp_cpu_device_t *device, const qp_ragged_t *part,
                                const qp_attention_t *a)
{
    const int64_t e = a->head_dim, n_kv = a->n_kv_head * e;
    const qp_key_source_t source = {.k = qp_mat_cols(f->qkv, a->n_head * e, n_kv),
                                    .v = qp_mat_cols(f->qkv, a->n_head * e + n_kv, n_kv)};
    qp_blocks_t b;
    qp_blocks_init(&b, device, QP_FOR_BACKWARD, a, f->qkv.dtype, part, NULL);
    qp_blocks_load_keys(&b, device, &source);
    f->b = &b;
    f->run = b.fused != NULL ? run_fused : run_general;
    f->first_row = part->cu_seqlens_host[0];
    f->end_row = part->n_token;
    plan_groups(f, device);
    if (b.fused == NULL)
        QP_TRY(prepare_products(f, device));
    return run_backward(f, device);
}

qp_error_t qp_cpu_attention_backward(qp_queue_t *q, qp_mat_t dqkv, qp_mat_t dout, qp_mat_t out,
                                     qp_dptr_t lse, qp_mat_t qkv, const qp_attention_t *a,
                                     const qp_ragged_t *batch)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    int64_t e = a->head_dim, n_kv = a->n_kv_head * e, n_token = batch->n_token;
    QP_ASSERT(qkv.n_row == n_token && qkv.n_col == a->n_head * e + 2 * n_kv);
    QP_ASSERT(dqkv.n_row == n_token && dqkv.n_col == qkv.n_col);
    QP_ASSERT(out.n_row == n_token && out.n_col == a->n_head * e);
    QP_ASSERT(dout.n_row == n_token && dout.n_col == out.n_col);
    backward_t f = {.device = device,
                    .qkv = qkv,
                    .out = out,
                    .dout = dout,
                    .dqkv = dqkv,
                    .lse = qp_cpu_f32(lse)};
    qp_ragged_t part;
    for (int64_t first = 0; first < batch->n_seq; first += part.n_seq) {
        part = qp_blocks_part(batch, NULL, first, qp_blocks_of_batch(n_token));
        QP_TRY(backward_part(&f, device, &part, a));
    }
    return NULL;
}
