/* Rotary position embedding. */
#include "compute/cpu/cpu.h"
#include "compute/cpu/rows/math.h"

/* Rotates pairs (i, i + half) of n_head heads; angles = [cos(half), sin(half)], sign -1 rotates
 * back. */
QP_CPU_CLONES static void rope_row(void *row, qp_dtype_t dtype, const float *restrict angles,
                                   const qp_attention_t *a, float sign)
{
    float low[QP_CPU_CHUNK / 2], high[QP_CPU_CHUNK / 2];
    int64_t half = a->head_dim / 2;
    size_t half_bytes = (size_t)half * qp_dtype_bytes(dtype);
    for (int64_t h = 0; h < a->n_head + a->n_kv_head; h++) {
        char *head = (char *)row + 2 * (size_t)h * half_bytes;
        qp_cpu_load(low, dtype, head, half);
        qp_cpu_load(high, dtype, head + half_bytes, half);
        for (int64_t i = 0; i < half; i++) {
            float c = angles[i], s = sign * angles[half + i], x = low[i];
            low[i] = x * c - high[i] * s;
            high[i] = high[i] * c + x * s;
        }
        qp_cpu_store(head, dtype, low, half);
        qp_cpu_store(head + half_bytes, dtype, high, half);
    }
}

qp_error_t qp_cpu_rope(qp_queue_t *q, qp_mat_t qkv, const qp_attention_t *a, qp_mat_t table,
                       qp_dptr_t position, bool inverse)
{
    QP_ASSERT(a->head_dim % 2 == 0 && a->head_dim <= QP_CPU_CHUNK);
    QP_ASSERT(table.dtype == QP_F32 && table.n_col == a->head_dim);
    QP_ASSERT(qkv.n_col == (a->n_head + 2 * a->n_kv_head) * a->head_dim);
    const int32_t *at = qp_cpu_i32(position);
#pragma omp parallel for num_threads(qp_cpu_threads(q, qkv.n_row *qkv.n_col))
    for (int64_t t = 0; t < qkv.n_row; t++) {
        QP_ASSERT(at[t] >= 0 && at[t] < table.n_row);
        rope_row(qp_cpu_at(&qkv, t, 0), qkv.dtype, qp_cpu_at(&table, at[t], 0), a,
                 inverse ? -1.0f : 1.0f);
    }
    return NULL;
}
