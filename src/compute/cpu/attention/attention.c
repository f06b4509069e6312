/* Attention: sequences as blocks, keys and values copied into them. */
#include "compute/cpu/attention/attention_bf16.h"
#include "compute/cpu/attention/kv.h"
#include "compute/cpu/gemm/pack.h"
#include "compute/cpu/gemm/transpose.h"

/* Counts spans and blocks; writes the tables too once they have their memory. */
static void plan_spans(qp_blocks_t *b, const qp_ragged_t *batch, const int32_t *n_past,
                       int64_t min_query)
{
    b->n_span = b->n_key_block = b->n_query_block = b->max_query_block = 0;
    for (int64_t s = 0; s < batch->n_seq; s++) {
        int64_t first = batch->cu_seqlens_host[s], n = batch->cu_seqlens_host[s + 1] - first;
        if (n < min_query)
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

void qp_blocks_init(qp_blocks_t *b, qp_cpu_device_t *device, qp_blocks_use_t use,
                    const qp_attention_t *a, qp_dtype_t dtype, const qp_ragged_t *batch,
                    const int32_t *n_past, int64_t min_query)
{
    QP_ASSERT(a->n_head % a->n_kv_head == 0 && a->head_dim <= QP_CPU_CHUNK);
    QP_ASSERT(batch->cu_seqlens_host[batch->n_seq] == batch->n_token);
    *b = (qp_blocks_t){.a = *a, .group = a->n_head / a->n_kv_head, .dtype = dtype};
    b->fused = qp_bf16_attention(device, dtype, a->head_dim);
    plan_spans(b, batch, n_past, min_query);
    const bool *form = b->fused != NULL ? fused_forms[use] : general_forms;
    const size_t span_bytes = qp_bytes(b->n_span, sizeof *b->span);
    const size_t query_bytes = qp_bytes(b->n_query_block, sizeof *b->query_block_span);
    const size_t index_bytes = qp_bytes(b->n_key_block, sizeof *b->key_block_span);
    const size_t key_bytes = qp_bytes(b->n_key_block * a->n_kv_head, qp_key_block_bytes(b));
    const size_t rows_bytes =
        b->fused != NULL ? qp_bytes(device->n_thread, qp_key_block_bytes(b)) : 0;
    size_t bytes = qp_cpu_round64(span_bytes) + qp_cpu_round64(query_bytes) +
                   qp_cpu_round64(index_bytes) + qp_cpu_round64(rows_bytes);
    for (int i = 0; i < QP_N_KEY_FORM; i++)
        bytes += form[i] ? qp_cpu_round64(key_bytes) : 0;
    char *at = qp_cpu_scratch(device, QP_SCRATCH_ATTENTION, bytes);
    b->span = qp_cpu_carve(&at, span_bytes);
    b->query_block_span = qp_cpu_carve(&at, query_bytes);
    b->key_block_span = qp_cpu_carve(&at, index_bytes);
    b->rows = qp_cpu_carve(&at, rows_bytes);
    for (int i = 0; i < QP_N_KEY_FORM; i++)
        if (form[i])
            b->key[i] = qp_cpu_carve(&at, key_bytes);
    plan_spans(b, batch, n_past, min_query);
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
            memcpy(&v[i], from + qp_cpu_min(c + i, n_col - 1) * QP_QB, sizeof v[i]);
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
            const int64_t width = qp_cpu_min(n_col - c, QP_QB);
            transpose_rows(rows, from + c * QP_QB + r, width);
            for (int64_t i = 0; i < QP_WORDS * QP_QB; i++)
                rows[i] *= scale;
            for (int64_t i = 0; i < qp_cpu_min(n_row - r, QP_WORDS); i++)
                qp_cpu_store(qp_cpu_at(to, first_row + r + i, first_col + c), to->dtype,
                             rows + i * QP_QB, width);
        }
}

/* One block of keys or values of one kv head, from rows that stand together or in pages. */
static void load_key_block(const qp_blocks_t *b, const qp_key_source_t *source,
                           const qp_mat_t *from, const qp_mat_t *scale, const qp_span_t *s,
                           int64_t block, int64_t kv_head, void *data)
{
    int64_t first = block * QP_KB, n = qp_cpu_min(s->n_key - first, QP_KB), e = b->a.head_dim;
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

/* Sequences of half a block's length or more on average; the longest may be the whole batch. */
size_t qp_cpu_attention_scratch(const qp_pass_size_t *size, qp_dtype_t dtype, int n_thread)
{
    const qp_attention_t *a = &size->attention;
    const size_t width = qp_dtype_bytes(dtype);
    const int64_t e = a->head_dim, n_block = 2 * (size->n_token / QP_KB + 1);
    const int64_t n_form = size->backward && dtype == QP_BF16 ? 3 : 2;
    const size_t kv = qp_bytes(n_form * n_block * a->n_kv_head * QP_KB * e, width);
    const size_t row = qp_bytes(e, 4 * width + sizeof(float)) + 2 * sizeof(float);
    const size_t tile = (size_t)(QP_QB * QP_KB) * (2 * sizeof(float) + 3 * width) +
                        qp_bytes(QP_KB * e, 2 * sizeof(float) + 3 * width);
    const size_t task = size->backward ? qp_bytes(size->n_token, row) + tile : tile;
    const bool sums = size->backward && a->n_head > a->n_kv_head;
    const size_t sum = sums ? qp_bytes(2 * a->n_head * size->n_token * e, sizeof(float)) : 0;
    return kv + (size_t)n_thread * task + sum;
}
