#include "cuda/attention/attention.h"

void qp_cuda_attention_need(const qp_cuda_device_t *device, const qp_pass_size_t *size,
                            qp_cuda_need_t *need)
{
    const qp_attention_t *a = &size->attention;
    (void)device;
    if (a->n_head == 0)
        return;
    if (size->backward)
        qp_cuda_need(need, QP_CUDA_SCRATCH_ATTENTION,
                     qp_cuda_attention_backward_bytes(a, size->n_token));
    qp_cuda_need(need, QP_CUDA_SCRATCH_ATTENTION,
                 qp_cuda_attention_decode_bytes(a, size->n_decode, size->n_key));
}

/* Sequences that are decoded go row by row, the others in tiles of queries. */
qp_error_t qp_cuda_attention_cached(qp_queue_t *q, qp_mat_t out, qp_mat_t qkv, const qp_kv_t *kv,
                                    const qp_attention_t *a, const qp_ragged_t *batch,
                                    const qp_kv_map_t *map)
{
    QP_ASSERT(qkv.n_row == batch->n_token && out.n_row == batch->n_token);
    QP_ASSERT(map->n_decode <= batch->n_seq && out.n_col == a->n_head * a->head_dim);
    QP_ASSERT(kv->k.n_col == a->n_kv_head * a->head_dim && kv->v.n_col == kv->k.n_col);
    QP_TRY(qp_cuda_attention_decode(q, out, qkv, kv, a, batch, map));
    return qp_cuda_attention_prefill(q, out, qkv, kv, a, batch, map);
}
