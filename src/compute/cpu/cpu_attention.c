/* Attention: sequences as blocks, keys and values copied into them. */
#include "compute/cpu/cpu_attention.h"
#include "compute/cpu/cpu_kv.h"

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

void qp_blocks_init(qp_blocks_t *b, qp_cpu_device_t *device, const qp_attention_t *a,
                    qp_dtype_t dtype, const qp_ragged_t *batch, const int32_t *n_past,
                    int64_t min_query)
{
    QP_ASSERT(a->n_head % a->n_kv_head == 0 && a->head_dim <= QP_CPU_CHUNK);
    QP_ASSERT(batch->cu_seqlens_host[batch->n_seq] == batch->n_token);
    *b = (qp_blocks_t){.a = *a, .group = a->n_head / a->n_kv_head, .dtype = dtype};
    plan_spans(b, batch, n_past, min_query);
    size_t span_bytes = qp_bytes(b->n_span, sizeof *b->span);
    size_t query_bytes = qp_bytes(b->n_query_block, sizeof *b->query_block_span);
    size_t key_bytes = qp_bytes(b->n_key_block, sizeof *b->key_block_span);
    size_t kv_bytes =
        qp_bytes(b->n_key_block * a->n_kv_head * QP_KB * a->head_dim, qp_dtype_bytes(dtype));
    size_t bytes = qp_cpu_round64(span_bytes) + qp_cpu_round64(query_bytes) +
                   qp_cpu_round64(key_bytes) + 2 * qp_cpu_round64(kv_bytes);
    char *at = qp_cpu_scratch(device, QP_SCRATCH_ATTENTION, bytes);
    b->span = qp_cpu_carve(&at, span_bytes);
    b->query_block_span = qp_cpu_carve(&at, query_bytes);
    b->key_block_span = qp_cpu_carve(&at, key_bytes);
    b->k = qp_cpu_carve(&at, kv_bytes);
    b->v = qp_cpu_carve(&at, kv_bytes);
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

/* One block of keys or values of one kv head, from rows that stand together or in pages. */
static void load_key_block(const qp_blocks_t *b, const qp_key_source_t *source,
                           const qp_mat_t *from, const qp_mat_t *scale, const qp_span_t *s,
                           int64_t block, int64_t kv_head, void *base)
{
    int64_t first = block * QP_KB, n = qp_cpu_min(s->n_key - first, QP_KB), e = b->a.head_dim;
    qp_block_t to = {qp_key_block(b, base, s->first_key_block + block, kv_head), b->dtype, QP_KB,
                     e};
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

void qp_blocks_load_keys(const qp_blocks_t *b, qp_cpu_device_t *device,
                         const qp_key_source_t *source)
{
#pragma omp parallel for collapse(2) num_threads(device->n_thread)
    for (int64_t j = 0; j < b->n_key_block; j++)
        for (int64_t g = 0; g < b->a.n_kv_head; g++) {
            const qp_span_t *s = &b->span[b->key_block_span[j]];
            load_key_block(b, source, &source->k, &source->k_scale, s, j - s->first_key_block, g,
                           b->k);
            load_key_block(b, source, &source->v, &source->v_scale, s, j - s->first_key_block, g,
                           b->v);
        }
}

/* Sequences of half a block's length or more on average; the longest may be the whole batch. */
size_t qp_cpu_attention_scratch(const qp_pass_size_t *size, qp_dtype_t dtype, int n_thread)
{
    const qp_attention_t *a = &size->attention;
    const size_t width = qp_dtype_bytes(dtype);
    const int64_t e = a->head_dim, n_block = 2 * (size->n_token / QP_KB + 1);
    const size_t kv = 2 * qp_bytes(n_block * a->n_kv_head * QP_KB * e, width);
    const size_t row = qp_bytes(e, 4 * width + sizeof(float)) + 2 * sizeof(float);
    const size_t tile = (size_t)(QP_QB * QP_KB) * (2 * sizeof(float) + 3 * width) +
                        qp_bytes(QP_KB * e, 2 * sizeof(float) + 2 * width);
    const size_t task = size->backward ? qp_bytes(size->n_token, row) + tile : tile;
    const bool sums = size->backward && a->n_head > a->n_kv_head;
    const size_t sum = sums ? qp_bytes(2 * a->n_head * size->n_token * e, sizeof(float)) : 0;
    return kv + (size_t)n_thread * task + sum;
}
