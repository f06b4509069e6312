/**
 * \file kv.h
 * Rows of the paged KV cache: in fp32 or bf16 as they are, or in int8 with a scale per kv head.
 */
#ifndef QP_COMPUTE_CPU_ATTENTION_KV_H
#define QP_COMPUTE_CPU_ATTENTION_KV_H

#include "compute/cpu/cpu.h"
#include "compute/cpu/rows/math.h"

/** Rows of tokens [first, first + n) of a sequence. */
static inline void qp_cpu_kv_rows(int64_t *row, const qp_kv_t *kv, const qp_kv_map_t *map,
                                  int64_t seq, int64_t first, int64_t n)
{
    const int32_t *block = map->block_table + seq * map->table_ld + first / kv->block_len;
    int64_t skip = first % kv->block_len;
    for (int64_t i = 0; i < n; block++, skip = 0)
        for (int64_t r = skip; r < kv->block_len && i < n; r++, i++)
            row[i] = *block * kv->block_len + r;
}

/** Scale of a row's kv head; 1 where there are no scales. */
static inline float qp_cpu_kv_scale(const qp_mat_t *scale, int64_t row, int64_t kv_head)
{
    return qp_dptr_is_null(scale->data) ? 1.0f : *(const float *)qp_cpu_at(scale, row, kv_head);
}

/** n elements of a row in fp32, not scaled. */
static inline void qp_cpu_kv_load(float *restrict to, qp_dtype_t dtype, const void *from, int64_t n)
{
    const int8_t *restrict q = from;
    if (dtype != QP_I8) {
        qp_cpu_load(to, dtype, from, n);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        to[i] = q[i];
}

/** The e elements of a row's kv head, scaled, as fp32 or bf16. */
void qp_cpu_kv_convert(void *to, qp_dtype_t dtype, const qp_mat_t *from, const qp_mat_t *scale,
                       int64_t row, int64_t kv_head, int64_t e);

#endif
