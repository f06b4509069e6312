/* Attention: sequences as blocks, keys and values copied into them. */
#include "base/minmax.h"
#include "compute/cpu/attention/attention_bf16.h"
#include "compute/cpu/attention/attention_decode.h"
#include "compute/cpu/attention/kv.h"
#include "compute/cpu/gemm/pack.h"
#include "compute/cpu/gemm/transpose.h"

/* Counts spans and blocks; writes the tables too once they have their memory. */
static void plan_spans(qp_blocks_t *b, const qp_ragged_t *batch, const int32_t *n_past)
{
    b->n_span = b->n_key_block = b->n_query_block = b->max_query_block = 0;
    for (int64_t s = 0; s < batch->n_seq; s++) {
        int64_t first = batch->cu_seqlens_host[s], n = batch->cu_seqlens_host[s + 1] - first;
        if (n == 0)
            continue;
        int64_t n_key = n + (n_past != NULL ? n_past[s] : 0);
        qp_span_t span = {.seq = s,
                          .first_row = first,
                          .n_query = n,
                          .n_key = n_key,
                          .n_query_block = (n + QP_QB - 1) / QP_QB,
                          .n_key_block = (n_key + QP_KB - 1) / QP_KB,
                          .first_query_block = b->n_query_block,
                          .first_key_block = b->n_key_block};
        if (b->span != NULL) {
            b->span[b->n_span] = span;
            for (int64_t i = 0; i < span.n_query_block; i++)
                b->query_block_span[b->n_query_block + i] = (int32_t)b->n_span;
            for (int64_t i = 0; i < span.n_key_block; i++)
                b->key_block_span[b->n_key_block + i] = (int32_t)b->n_span;
        }
        b->n_span++;
        b->n_query_block += span.n_query_block;
        b->n_key_block += span.n_key_block;
        if (span.n_query_block > b->max_query_block)
            b->max_query_block = span.n_query_block;
    }
}

/* The forms that the general way, and our own kernels forward and backward, multiply with. */
static const bool general_forms[QP_N_KEY_FORM] = {[QP_K] = true, [QP_V] = true};
static const bool fused_forms[][QP_N_KEY_FORM] = {
    [QP_FOR_FORWARD] = {[QP_K_TRANS] = true, [QP_V] = true},
    [QP_FOR_BACKWARD] = {[QP_K] = true, [QP_K_TRANS] = true, [QP_V_TRANS] = true},
};

/* Lays out tables and blocks, whose numbers are set; returns their bytes. */
static size_t carve_blocks(qp_blocks_t *b, const qp_cpu_device_t *device, qp_blocks_use_t use,
                           char *memory)
{
    const bool *form = b->fused != NULL ? fused_forms[use] : general_forms;
    const size_t key_bytes = qp_key_block_bytes(b);
    char *at = memory;
    b->span = qp_cpu_carve(&at, qp_bytes(b->n_span, sizeof *b->span));
    b->query_block_span = qp_cpu_carve(&at, qp_bytes(b->n_query_block, sizeof(int32_t)));
    b->key_block_span = qp_cpu_carve(&at, qp_bytes(b->n_key_block, sizeof(int32_t)));
    b->rows = qp_cpu_carve(&at, b->fused != NULL ? qp_bytes(device->n_thread, key_bytes) : 0);
    for (int i = 0; i < QP_N_KEY_FORM; i++)
        if (form[i])
            b->key[i] = qp_cpu_carve(&at, qp_bytes(b->n_key_block * b->a.n_kv_head, key_bytes));
    return (size_t)(at - memory);
}

static qp_blocks_t no_blocks(const qp_cpu_device_t *device, const qp_attention_t *a,
                             qp_dtype_t dtype)
{
    return (qp_blocks_t){.a = *a,
                         .group = a->n_head / a->n_kv_head,
                         .dtype = dtype,
                         .fused = qp_bf16_attention(device, dtype, a->head_dim)};
}

void qp_blocks_init(qp_blocks_t *b, qp_cpu_device_t *device, qp_blocks_use_t use,
                    const qp_attention_t *a, qp_dtype_t dtype, const qp_ragged_t *batch,
                    const int32_t *n_past)
{
    QP_ASSERT(a->n_head % a->n_kv_head == 0 && a->head_dim <= QP_CPU_CHUNK);
    QP_ASSERT(batch->cu_seqlens_host[batch->n_seq] == batch->n_token);
    *b = no_blocks(device, a, dtype);
    plan_spans(b, batch, n_past);
    qp_blocks_t measure = *b;
    const size_t bytes = carve_blocks(&measure, device, use, NULL);
    carve_blocks(b, device, use, qp_cpu_scratch(device, QP_SCRATCH_ATTENTION, bytes));
    plan_spans(b, batch, n_past);
}

qp_ragged_t qp_blocks_part(const qp_ragged_t *batch, const int32_t *n_past, int64_t first,
                           int64_t max_block)
{
    const int32_t *start = batch->cu_seqlens_host;
    int64_t end = first, n_block = 0;
    while (end < batch->n_seq) {
        const int64_t n_key = start[end + 1] - start[end] + (n_past != NULL ? n_past[end] : 0);
        n_block += (n_key + QP_KB - 1) / QP_KB;
        if (n_block > max_block && end > first) /* at least one */
            break;
        end++;
    }
    return (qp_ragged_t){
        .n_token = start[end], .n_seq = end - first, .cu_seqlens_host = start + first};
}

void qp_block_load(const qp_block_t *to, const qp_mat_t *from, int64_t first_col, int64_t first_row,
                   int64_t n_row)
{
    size_t row_bytes = (size_t)to->n_col * qp_dtype_bytes(to->dtype);
    for (int64_t i = 0; i < n_row; i++)
        qp_cpu_convert((char *)to->data + (size_t)i * row_bytes, to->dtype,
                       qp_cpu_at(from, first_row + i, first_col), from->dtype, to->n_col);
    memset((char *)to->data + (size_t)n_row * row_bytes, 0,
           (size_t)(to->n_row - n_row) * row_bytes);
}

/* 16 rows of at most QB columns: to [16, QB]. */
static inline void transpose_rows(float *restrict to, const float *restrict from, int64_t n_col)
{
    for (int64_t c = 0; c < n_col; c += QP_WORDS) {
        qp_words_t v[QP_WORDS];
        for (int64_t i = 0; i < QP_WORDS; i++) /* the last ones again where there are no more */
            memcpy(&v[i], from + qp_min_i64(c + i, n_col - 1) * QP_QB, sizeof v[i]);
        qp_cpu_transpose(v);
        for (int64_t i = 0; i < QP_WORDS; i++)
            memcpy(to + i * QP_QB + c, &v[i], sizeof v[i]);
    }
}

QP_CPU_CLONES void qp_block_store_trans(const qp_mat_t *to, int64_t first_row, int64_t first_col,
                                        const float *from, int64_t n_row, int64_t n_col,
                                        float scale)
{
    float rows[QP_WORDS * QP_QB];
    for (int64_t r = 0; r < n_row; r += QP_WORDS)
        for (int64_t c = 0; c < n_col; c += QP_QB) {
            const int64_t width = qp_min_i64(n_col - c, QP_QB);
            transpose_rows(rows, from + c * QP_QB + r, width);
            for (int64_t i = 0; i < QP_WORDS * QP_QB; i++)
                rows[i] *= scale;
            for (int64_t i = 0; i < qp_min_i64(n_row - r, QP_WORDS); i++)
                qp_cpu_store(qp_cpu_at(to, first_row + r + i, first_col + c), to->dtype,
                             rows + i * QP_QB, width);
        }
}

/* One block of keys or values of one kv head, from rows that stand together or in pages. */
static void load_key_block(const qp_blocks_t *b, const qp_key_source_t *source,
                           const qp_mat_t *from, const qp_mat_t *scale, const qp_span_t *s,
                           int64_t block, int64_t kv_head, void *data)
{
    int64_t first = block * QP_KB, n = qp_min_i64(s->n_key - first, QP_KB), e = b->a.head_dim;
    qp_block_t to = {data, b->dtype, QP_KB, e};
    if (source->block_table == NULL) {
        qp_block_load(&to, from, kv_head * e, s->first_row + first, n);
        return;
    }
    const int32_t *table = source->block_table + s->seq * source->table_ld;
    size_t row_bytes = (size_t)e * qp_dtype_bytes(b->dtype);
    for (int64_t i = 0; i < n; i++) {
        int64_t t = first + i;
        int64_t row = table[t / source->block_len] * source->block_len + t % source->block_len;
        qp_cpu_kv_convert((char *)to.data + (size_t)i * row_bytes, b->dtype, from, scale, row,
                          kv_head, e);
    }
    memset((char *)to.data + (size_t)n * row_bytes, 0, (size_t)(QP_KB - n) * row_bytes);
}

/* Both halves of a block of rows as second operands. */
static void pack_key_block(const qp_blocks_t *b, const qp_cpu_device_t *device, char *to,
                           const char *rows, bool trans)
{
    const int64_t e = b->a.head_dim;
    const size_t half = qp_key_block_bytes(b) / 2;
    for (int i = 0; i < 2; i++, to += half, rows += half)
        qp_cpu_operand_pack(device, to, b->dtype, rows, b->dtype, e, trans, trans ? e : QP_SUB,
                            trans ? QP_SUB : e);
}

/* Block j of all spans' as what is needed of it: keys (form QP_K) or values. */
static void load_forms(const qp_blocks_t *b, const qp_cpu_device_t *device,
                       const qp_key_source_t *source, qp_key_form_t form, int64_t j,
                       int64_t kv_head)
{
    const qp_mat_t *from = form == QP_K ? &source->k : &source->v;
    const qp_mat_t *scale = form == QP_K ? &source->k_scale : &source->v_scale;
    const qp_key_form_t trans = form == QP_K ? QP_K_TRANS : QP_V_TRANS;
    const qp_span_t *s = &b->span[b->key_block_span[j]];
    char *rows = b->fused == NULL
                     ? qp_key_block(b, form, j, kv_head)
                     : (char *)b->rows + (size_t)omp_get_thread_num() * qp_key_block_bytes(b);
    load_key_block(b, source, from, scale, s, j - s->first_key_block, kv_head, rows);
    if (b->fused == NULL)
        return;
    if (b->key[form] != NULL)
        pack_key_block(b, device, qp_key_block(b, form, j, kv_head), rows, false);
    if (b->key[trans] != NULL)
        pack_key_block(b, device, qp_key_block(b, trans, j, kv_head), rows, true);
}

void qp_blocks_load_keys(const qp_blocks_t *b, qp_cpu_device_t *device,
                         const qp_key_source_t *source)
{
#pragma omp parallel for collapse(2) num_threads(device->n_thread)
    for (int64_t j = 0; j < b->n_key_block; j++)
        for (int64_t g = 0; g < b->a.n_kv_head; g++) {
            load_forms(b, device, source, QP_K, j, g);
            load_forms(b, device, source, QP_V, j, g);
        }
}

/* --- scratch ---------------------------------------------------------------------------------- */

/* Parts of up to n_key_block blocks of keys; a block of them has at most two of queries. */
static size_t blocks_bytes(const qp_cpu_device_t *device, const qp_attention_t *a, qp_dtype_t dtype,
                           qp_blocks_use_t use, int64_t n_key_block)
{
    qp_blocks_t b = no_blocks(device, a, dtype);
    b.n_span = b.n_key_block = n_key_block;
    b.n_query_block = n_key_block * (QP_KB / QP_QB);
    return carve_blocks(&b, device, use, NULL);
}

static void need_for(const qp_cpu_device_t *device, const qp_pass_size_t *size, qp_dtype_t dtype,
                     qp_cpu_scratch_need_t *need)
{
    const qp_attention_t *a = &size->attention;
    const int64_t n_block = qp_blocks_of_batch(size->n_token);
    qp_blocks_t b = no_blocks(device, a, dtype);
    b.max_query_block = (size->n_token + QP_QB - 1) / QP_QB;
    qp_cpu_need(need, QP_SCRATCH_ATTENTION,
                blocks_bytes(device, a, dtype, QP_FOR_FORWARD, n_block));
    qp_blocks_forward_scratch(&b, device, need);
    if (size->backward) {
        qp_cpu_need(need, QP_SCRATCH_ATTENTION,
                    blocks_bytes(device, a, dtype, QP_FOR_BACKWARD, n_block));
        qp_blocks_backward_scratch(&b, device, size->n_token, need);
    }
    if (size->n_key > 0) {
        const int64_t longest = (size->n_key + QP_KB - 1) / QP_KB;
        qp_cpu_need(need, QP_SCRATCH_ATTENTION,
                    blocks_bytes(device, a, dtype, QP_FOR_FORWARD,
                                 qp_max_i64(longest, QP_BLOCKS_OF_CACHE)));
        qp_cpu_attention_decode_scratch(device, size, need);
    }
}

void qp_cpu_attention_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                              qp_cpu_scratch_need_t *need)
{
    if (size->attention.n_head == 0)
        return;
    for (int dtype = QP_F32; dtype <= QP_BF16; dtype++)
        if (size->mixed || dtype == (int)qp_device_dtype(&device->base))
            need_for(device, size, (qp_dtype_t)dtype, need);
}
