/**
 * \file attention.h
 * What the files of this room call of each other.
 */
#ifndef QP_CUDA_ATTENTION_ATTENTION_H
#define QP_CUDA_ATTENTION_ATTENTION_H

#include "cuda/cuda.h"

QP_CUDA_BEGIN

/** attention_cached for the sequences from map->n_decode on: tiles of queries against the cache. */
qp_error_t qp_cuda_attention_prefill(qp_queue_t *q, qp_mat_t out, qp_mat_t qkv, const qp_kv_t *kv,
                                     const qp_attention_t *a, const qp_ragged_t *batch,
                                     const qp_kv_map_t *map);

/** And for those before: each row alone, its keys in pieces. */
qp_error_t qp_cuda_attention_decode(qp_queue_t *q, qp_mat_t out, qp_mat_t qkv, const qp_kv_t *kv,
                                    const qp_attention_t *a, const qp_ragged_t *batch,
                                    const qp_kv_map_t *map);

/** Bytes of slot ATTENTION for that many rows and keys of the longest sequence. */
size_t qp_cuda_attention_decode_bytes(const qp_attention_t *a, int64_t n_row, int64_t n_key);

/** And for the backward pass. */
size_t qp_cuda_attention_backward_bytes(const qp_attention_t *a, int64_t n_token);

QP_CUDA_END

#endif
