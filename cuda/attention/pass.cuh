/**
 * \file pass.cuh
 * Arguments of the kernels for training and prefill, fp32 (forward.cu, backward.cu) and bf16
 * (forward_bf16.cu, backward_bf16.cu).
 */
#ifndef QP_CUDA_ATTENTION_PASS_CUH
#define QP_CUDA_ATTENTION_PASS_CUH

#include "cuda/attention/tile.cuh"

typedef struct {
    qp_heads_t out, query, key, value;
    qp_tile_batch_t batch;
    float *lse; /**< [H, n_token], or NULL */
    int64_t n_token;
    int e, group; /**< query heads per kv head */
    float scale;
    qp_pages_t pages;
    const int32_t *n_past; /**< [n_seq] keys in the cache before the batch's own, or NULL */
} qp_forward_t;

typedef struct {
    qp_heads_t query, key, value, out, dout, dquery, dkey, dvalue;
    qp_tile_batch_t batch;
    const float *lse; /**< [H, n_token] */
    float *delta;     /**< the same */
    int64_t n_token;
    int e, n_head, group; /**< query heads per kv head */
    float scale;
} qp_backward_t;

QP_CUDA_BEGIN

/** Heads of up to so many features have kernels in bf16; larger ones are multiplied as fp32. */
enum { QP_BF16_MAX_E = 128 };

/** The kernels behind the slots, products in bf16. */
qp_error_t qp_cuda_attention_forward_bf16(qp_queue_t *q, const qp_forward_t *f,
                                          const qp_ragged_t *batch, int64_t n_head);
/** delta is there. */
qp_error_t qp_cuda_attention_backward_bf16(qp_queue_t *q, const qp_backward_t *b,
                                           const qp_ragged_t *batch);

QP_CUDA_END

#endif
