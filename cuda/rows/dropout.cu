/* Dropout masks from counter-based random numbers: a function of the token, not of the batch. */
#include <math.h>

#include "cuda/core/philox.cuh"

enum { BLOCK = 256 };

typedef struct {
    uint32_t *bits;
    int64_t n_part, n_row; /* parts of 32 bits in a row */
    qp_philox_key_t key;   /* but for sample and position */
    const uint32_t *sample;
    const int32_t *position;
    uint32_t threshold;
} dropout_t;

/* The lower half first; bit k is set where half k is at least the threshold. */
static __device__ uint32_t keep_eight(const qp_philox_key_t &key, uint32_t block,
                                      uint32_t threshold)
{
    uint32_t word[4], keep = 0;
    qp_philox_words(key, block, word);
    for (int i = 0; i < 4; i++) {
        keep |= (uint32_t)((word[i] & 0xffffu) >= threshold) << (2 * i);
        keep |= (uint32_t)((word[i] >> 16) >= threshold) << (2 * i + 1);
    }
    return keep;
}

/*
 * A thread draws 32 bits: four Philox blocks, of eight halves each. The last word of a row is
 * filled up with whatever follows in the stream.
 */
static __global__ void dropout_kernel(dropout_t d)
{
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= d.n_row * d.n_part)
        return;
    const int64_t row = i / d.n_part, part = i - row * d.n_part;
    qp_philox_key_t key = d.key;
    key.sample = d.sample[row];
    key.position = (uint32_t)d.position[row];
    uint32_t keep = 0;
    for (uint32_t block = 0; block < 4; block++)
        keep |= keep_eight(key, 4 * (uint32_t)part + block, d.threshold) << (8 * block);
    d.bits[i] = keep;
}

QP_CUDA_BEGIN
qp_error_t qp_cuda_dropout(qp_queue_t *q, qp_dptr_t bits, int64_t n_col, float p,
                           const qp_philox_key_t *key, const qp_ragged_t *batch)
{
    QP_ASSERT(p >= 0.0f && p < 1.0f);
    const int64_t n_part = 2 * qp_mask_words(n_col), n = n_part * batch->n_token;
    if (n == 0)
        return NULL;
    const dropout_t d = {.bits = qp_at<uint32_t>(bits),
                         .n_part = n_part,
                         .n_row = batch->n_token,
                         .key = *key,
                         .sample = qp_at<const uint32_t>(batch->sample),
                         .position = qp_at<const int32_t>(batch->position),
                         .threshold = (uint32_t)ceilf(p * 65536.0f)};
    return QP_LAUNCH(q, dropout_kernel, qp_blocks_of(n, BLOCK), BLOCK, d);
}
QP_CUDA_END
