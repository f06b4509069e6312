/*
 * Attention of new tokens to a paged cache. Single tokens go through the dot products of decoding;
 * other sequences through the blocked products of training.
 */
#include "compute/cpu/attention/attention_decode.h"

static qp_error_t attend_blocks(qp_cpu_device_t *device, const qp_mat_t *out, const qp_mat_t *qkv,
                                const qp_kv_t *kv, const qp_attention_t *a,
                                const qp_ragged_t *batch, const qp_kv_map_t *map)
{
    qp_ragged_t part;
    for (int64_t first = map->n_decode; first < batch->n_seq; first += part.n_seq) {
        qp_blocks_t b;
        part = qp_blocks_part(batch, map->n_past, first, QP_BLOCKS_OF_CACHE);
        qp_blocks_init(&b, device, QP_FOR_FORWARD, a, qkv->dtype, &part, map->n_past + first);
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
