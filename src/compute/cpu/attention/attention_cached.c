/*
 * Attention of new tokens to a paged cache. Single tokens go through the dot products of decoding;
 * other sequences through the blocked products of training.
 */
#include "compute/cpu/attention/attention_decode.h"

/* Keys whose blocks are there together, of one sequence or more. */
enum { MANY = 2048 };

/* End of the sequences from first on that are done together. */
static int64_t end_of_part(const qp_ragged_t *batch, const qp_kv_map_t *map, int64_t first)
{
    int64_t s = first, n_key = 0;
    while (s < batch->n_seq) {
        n_key += batch->cu_seqlens_host[s + 1] - batch->cu_seqlens_host[s] + map->n_past[s];
        if (n_key > MANY && s > first) /* at least one */
            break;
        s++;
    }
    return s;
}

/* Pasts may be long and many: blocks of all of them at once would be a second cache. */
static qp_error_t attend_blocks(qp_cpu_device_t *device, const qp_mat_t *out, const qp_mat_t *qkv,
                                const qp_kv_t *kv, const qp_attention_t *a,
                                const qp_ragged_t *batch, const qp_kv_map_t *map)
{
    for (int64_t first = map->n_decode, end; first < batch->n_seq; first = end) {
        end = end_of_part(batch, map, first);
        const qp_ragged_t part = {.n_token = batch->cu_seqlens_host[end],
                                  .n_seq = end - first,
                                  .cu_seqlens_host = batch->cu_seqlens_host + first};
        qp_blocks_t b;
        qp_blocks_init(&b, device, QP_FOR_FORWARD, a, qkv->dtype, &part, map->n_past + first, 1);
        const qp_key_source_t source = {.k = kv->k,
                                        .v = kv->v,
                                        .k_scale = kv->k_scale,
                                        .v_scale = kv->v_scale,
                                        .block_table = map->block_table + first * map->table_ld,
                                        .table_ld = map->table_ld,
                                        .block_len = kv->block_len};
        qp_blocks_load_keys(&b, device, &source);
        QP_TRY(qp_blocks_forward(&b, device, out, NULL, qkv));
    }
    return NULL;
}

qp_error_t qp_cpu_attention_cached(qp_queue_t *q, qp_mat_t out, qp_mat_t qkv, const qp_kv_t *kv,
                                   const qp_attention_t *a, const qp_ragged_t *batch,
                                   const qp_kv_map_t *map)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    QP_ASSERT(qkv.n_row == batch->n_token && out.n_row == batch->n_token);
    QP_ASSERT(map->n_decode <= batch->n_seq);
    QP_ASSERT(out.n_col == a->n_head * a->head_dim);
    QP_ASSERT(kv->k.n_col == a->n_kv_head * a->head_dim && kv->v.n_col == kv->k.n_col);
    qp_cpu_attention_decode(device, &out, &qkv, kv, a, batch, map);
    return attend_blocks(device, &out, &qkv, kv, a, batch, map);
}
