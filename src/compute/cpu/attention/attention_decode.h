/**
 * \file attention_decode.h
 * Attention of single tokens to a paged cache: bound by reading the cache, which is read once, as
 * it lies. Kernels take a tile of keys or values and all query heads that share them.
 */
#ifndef QP_COMPUTE_CPU_ATTENTION_ATTENTION_DECODE_H
#define QP_COMPUTE_CPU_ATTENTION_ATTENTION_DECODE_H

#include "compute/cpu/attention/attention.h"

enum {
    QP_DECODE_TILE = 16,  /**< rows of a tile */
    QP_DECODE_PIECE = 128 /**< keys of a task, whose scores are there together; whole tiles */
};

/** Rows of one kv head: as many as a tile has, the last real one standing for those that miss. */
typedef struct {
    const char *const *row; /**< [TILE] rows of the cache */
    size_t offset;          /**< of the kv head in a row, in bytes */
    qp_dtype_t dtype;       /**< fp32, bf16, or int8 without its scales */
    int64_t e, group;       /**< elements of the kv head; query heads */
} qp_decode_tile_t;

/** What multiplies a tile; \a wide is room for [TILE, e] in fp32, 64-aligned, of the thread. */
typedef struct {
    qp_dtype_t query; /**< type of the queries */
    /** score [group, PIECE], its first TILE columns = scale * query [group, e] times the rows. */
    void (*score)(float *score, const void *query, const qp_decode_tile_t *tile, float scale,
                  float *wide);
    /** out [group, e] += weight [group, PIECE], its first TILE columns, times the rows. */
    void (*add)(float *out, const float *weight, const qp_decode_tile_t *tile, float *wide);
} qp_decode_kernel_t;

/** The kernel of AVX-512 with BF16 for queries and a cache in bf16 (weights are rounded to bf16, as
 * in training), or NULL. */
const qp_decode_kernel_t *qp_bf16_decode(const qp_cpu_device_t *device, qp_dtype_t query,
                                         qp_dtype_t cache, int64_t head_dim);

/** Attention of the batch's first map->n_decode sequences, token by token; see attention_cached. */
void qp_cpu_attention_decode(qp_cpu_device_t *device, const qp_mat_t *out, const qp_mat_t *qkv,
                             const qp_kv_t *kv, const qp_attention_t *a, const qp_ragged_t *batch,
                             const qp_kv_map_t *map);

void qp_cpu_attention_decode_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                                     qp_cpu_scratch_need_t *need);

#endif
