/**
 * \file head.cuh
 * What the ops of the language-model head have in common. Logits exist of some rows and some tokens
 * of the vocabulary at a time, in scratch; how many rows come together does not matter to a row,
 * and the tokens are cut the same way in every call.
 */
#ifndef QP_CUDA_HEAD_HEAD_CUH
#define QP_CUDA_HEAD_HEAD_CUH

#include "base/minmax.h"
#include "cuda/core/number.cuh"
#include "cuda/gemm/matmul.h"
#include "cuda/linear/linear.h"

/** Tokens whose logits exist at a time; a multiple of QP_WEIGHT_ROWS. */
enum { QP_HEAD_TOKENS = 2048 };

/** Rows whose logits exist at a time: enough of them to fill the card. */
static inline int64_t qp_head_rows_at_once(const qp_cuda_device_t *device, int64_t n_row)
{
    return qp_min_i64(n_row, 32 * (int64_t)device->n_sm);
}

/** A head and rows that are multiplied with it. */
struct qp_head_t {
    const qp_weight_t *weight;
    bool int8;
    qp_cuda_weight_t w;  /**< of int8 */
    qp_mat_t hidden;     /**< the rows at hand */
    qp_dtype_t dtype;    /**< floats: of the products */
    qp_cuda_rows_t rows; /**< int8: hidden as its products take it */
    char *p;             /**< int8, gradient: room for probabilities as its products take them */
    float *target;       /**< int8, gradient: room for the targets' rows of W, [n_row, D] */
};

/** A head of floats as the matrix that it is. */
static inline qp_mat_t qp_head_matrix(const qp_weight_t *w)
{
    return qp_mat(w->storage, qp_weight_dtype(w->kind), w->n_out, w->n_in);
}

/** Without rows. */
qp_head_t qp_head(const qp_weight_t *weight);

/** Cuts off \a at what products with up to n_row rows need (qp_cuda_carve()). */
void qp_head_carve(qp_head_t *h, const qp_cuda_device_t *device, int64_t n_row, bool gradient,
                   char **at);

/** The rows at hand are these, whose number is not above that of carve(). */
qp_error_t qp_head_take(qp_queue_t *q, qp_head_t *h, qp_mat_t hidden);

/** z [n_row, n_token] = logits of tokens [first, first + n_token). */
qp_error_t qp_head_logits(qp_queue_t *q, const qp_head_t *h, qp_mat_t z, int64_t first);

/** out [n_row, D] = p [n_row, n_token] times the rows of the head from \a first on, added to what
 * is there unless they are the first ones. */
qp_error_t qp_head_add(qp_queue_t *q, const qp_head_t *h, qp_mat_t out, qp_mat_t p, int64_t first);

/** int8: h->target is filled, of rows that have one. */
qp_error_t qp_head_load_targets(qp_queue_t *q, const qp_head_t *h, const int32_t *target);

/** What lm_kl takes of slot HEAD_ROWS. */
size_t qp_head_kl_bytes(const qp_cuda_device_t *device, const qp_weight_t *weight, int64_t n_row);

/** p is 0 there; 0 times -infinity is not. */
static __device__ inline float qp_head_below(float x)
{
    return x < -128.0f ? -128.0f : x;
}

#endif
