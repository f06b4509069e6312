#include "compute/cpu/attention/kv.h"

#include "compute/cpu/rows/quantise.h"

QP_CPU_CLONES void qp_cpu_kv_convert(void *to, qp_dtype_t dtype, const qp_mat_t *from,
                                     const qp_mat_t *scale, int64_t row, int64_t kv_head, int64_t e)
{
    float x[QP_CPU_CHUNK];
    if (from->dtype == dtype) {
        memcpy(to, qp_cpu_at(from, row, kv_head * e), (size_t)e * qp_dtype_bytes(dtype));
        return;
    }
    const float factor = qp_cpu_kv_scale(scale, row, kv_head);
    qp_cpu_kv_load(x, from->dtype, qp_cpu_at(from, row, kv_head * e), e);
    for (int64_t i = 0; i < e; i++)
        x[i] *= factor;
    qp_cpu_store(to, dtype, x, e);
}

/* One row of all kv heads. */
static void store_row(const qp_mat_t *to, const qp_mat_t *scale, int64_t to_row,
                      const qp_mat_t *from, int64_t from_row, int64_t e)
{
    if (to->dtype != QP_I8) {
        qp_cpu_convert(qp_cpu_at(to, to_row, 0), to->dtype, qp_cpu_at(from, from_row, 0),
                       from->dtype, to->n_col);
        return;
    }
    for (int64_t g = 0; g < scale->n_col; g++) {
        float x[QP_CPU_CHUNK];
        int8_t *q = qp_cpu_at(to, to_row, g * e);
        qp_cpu_convert(x, QP_F32, qp_cpu_at(from, from_row, g * e), from->dtype, e);
        *(float *)qp_cpu_at(scale, to_row, g) =
            qp_cpu_quantise((uint8_t *)q, x, e, qp_cpu_absmax(x, e));
        for (int64_t i = 0; i < e; i++)
            q[i] = (int8_t)(q[i] ^ -128); /* 128 + q as q */
    }
}

qp_error_t qp_cpu_kv_append(qp_queue_t *q, const qp_kv_t *kv, qp_mat_t qkv, const qp_attention_t *a,
                            const qp_ragged_t *batch, const qp_kv_map_t *map)
{
    const int64_t e = a->head_dim, n_kv = a->n_kv_head * e, n_q = a->n_head * e;
    QP_ASSERT(kv->k.n_col == n_kv && kv->v.n_col == n_kv && qkv.n_col == n_q + 2 * n_kv);
    QP_ASSERT(kv->k.dtype != QP_I8 || (kv->k_scale.n_col == a->n_kv_head && e <= QP_CPU_CHUNK));
    const qp_mat_t k = qp_mat_cols(qkv, n_q, n_kv), v = qp_mat_cols(qkv, n_q + n_kv, n_kv);
#pragma omp parallel for schedule(dynamic) num_threads(qp_cpu_threads(q, batch->n_token *n_kv))
    for (int64_t s = 0; s < batch->n_seq; s++) {
        int64_t first = batch->cu_seqlens_host[s], n = batch->cu_seqlens_host[s + 1] - first;
        for (int64_t i = 0; i < n; i++) {
            int64_t row;
            qp_cpu_kv_rows(&row, kv, map, s, map->n_past[s] + i, 1);
            QP_ASSERT(row >= 0 && row < kv->k.n_row);
            store_row(&kv->k, &kv->k_scale, row, &k, first + i, e);
            store_row(&kv->v, &kv->v_scale, row, &v, first + i, e);
        }
    }
    return NULL;
}

static void copy_block(const qp_mat_t *m, int64_t block_len, const qp_kv_rows_t *c)
{
    QP_ASSERT(c->n_row >= 0 && c->n_row <= block_len && (c->to + 1) * block_len <= m->n_row &&
              (c->from + 1) * block_len <= m->n_row);
    for (int64_t r = 0; r < c->n_row; r++)
        memcpy(qp_cpu_at(m, c->to * block_len + r, 0), qp_cpu_at(m, c->from * block_len + r, 0),
               qp_bytes(m->n_col, qp_dtype_bytes(m->dtype)));
}

qp_error_t qp_cpu_kv_copy(qp_queue_t *q, const qp_kv_copy_t *copies)
{
#pragma omp parallel for num_threads(qp_cpu_device(q)->n_thread) if (copies->n_copy > 1)
    for (int64_t l = 0; l < copies->n_layer; l++) {
        const qp_kv_t *kv = &copies->layer[l];
        const qp_mat_t *const mat[] = {&kv->k, &kv->v, &kv->k_scale, &kv->v_scale};
        for (int m = 0; m < 4; m++)
            for (int64_t i = 0; i < copies->n_copy && !qp_dptr_is_null(mat[m]->data); i++)
                copy_block(mat[m], kv->block_len, &copies->rows[i]);
    }
    return NULL;
}
