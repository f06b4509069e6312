/* The op table that measures: each op of the device's own table, with its time. */
#include "base/mem.h"
#include "base/timer.h"
#include "compute/ops.h"

/* Ops that return at once only queue work: they are waited for, so that the time is theirs. */
#define TIMED(slot, parameters, ...)                              \
    static qp_error_t slot parameters                             \
    {                                                             \
        qp_device_t *device = q->device;                          \
        const double start = qp_time();                           \
        QP_TRY(device->timed_ops->slot(__VA_ARGS__));             \
        QP_TRY(device->timed_ops->synchronize(q));                \
        qp_timers_add(&device->timers, #slot, qp_time() - start); \
        return NULL;                                              \
    }

TIMED(upload, (qp_queue_t * q, qp_dptr_t to, const void *from, size_t bytes), q, to, from, bytes)
TIMED(download, (qp_queue_t * q, void *to, qp_dptr_t from, size_t bytes), q, to, from, bytes)
TIMED(copy, (qp_queue_t * q, qp_dptr_t to, qp_dptr_t from, size_t bytes), q, to, from, bytes)
TIMED(zero, (qp_queue_t * q, qp_dptr_t p, size_t bytes), q, p, bytes)
TIMED(weight_pack,
      (qp_queue_t * q, const qp_weight_t *w, const void *plain, const float *scale,
       const float *bias),
      q, w, plain, scale, bias)
TIMED(linear_forward,
      (qp_queue_t * q, qp_mat_t y, const qp_input_t *x, const qp_weight_t *w, qp_mat_t add), q, y,
      x, w, add)
TIMED(linear_backward,
      (qp_queue_t * q, qp_mat_t dx, const qp_input_t *dy, const qp_weight_t *w, qp_mat_t add), q,
      dx, dy, w, add)
TIMED(matmul,
      (qp_queue_t * q, float alpha, qp_mat_t a, bool trans_a, qp_mat_t b, bool trans_b, float beta,
       qp_mat_t c, qp_mask_t mask),
      q, alpha, a, trans_a, b, trans_b, beta, c, mask)
TIMED(embed, (qp_queue_t * q, qp_mat_t out, qp_mat_t table, qp_dptr_t token), q, out, table, token)
TIMED(gather_rows, (qp_queue_t * q, qp_mat_t out, qp_mat_t in, qp_dptr_t index), q, out, in, index)
TIMED(combine_rows, (qp_queue_t * q, qp_mat_t x, qp_dptr_t scale, qp_dptr_t shift, qp_dptr_t w), q,
      x, scale, shift, w)
TIMED(input, (qp_queue_t * q, const qp_input_t *x), q, x)
TIMED(rmsnorm_backward,
      (qp_queue_t * q, qp_mat_t dx, qp_mat_t dy, qp_mat_t x, qp_dptr_t rstd, qp_dptr_t weight,
       bool accumulate),
      q, dx, dy, x, rstd, weight, accumulate)
TIMED(rope,
      (qp_queue_t * q, qp_mat_t qkv, const qp_attention_t *a, qp_mat_t table, qp_dptr_t position,
       bool inverse),
      q, qkv, a, table, position, inverse)
TIMED(dropout,
      (qp_queue_t * q, qp_dptr_t bits, int64_t n_col, float p, const qp_philox_key_t *key,
       const qp_ragged_t *batch),
      q, bits, n_col, p, key, batch)
TIMED(axpby, (qp_queue_t * q, float alpha, qp_mat_t x, float beta, qp_mat_t y), q, alpha, x, beta,
      y)
TIMED(attention_forward,
      (qp_queue_t * q, qp_mat_t out, qp_dptr_t lse, qp_mat_t qkv, const qp_attention_t *a,
       const qp_ragged_t *batch),
      q, out, lse, qkv, a, batch)
TIMED(attention_backward,
      (qp_queue_t * q, qp_mat_t dqkv, qp_mat_t dout, qp_mat_t out, qp_dptr_t lse, qp_mat_t qkv,
       const qp_attention_t *a, const qp_ragged_t *batch),
      q, dqkv, dout, out, lse, qkv, a, batch)
TIMED(kv_append,
      (qp_queue_t * q, const qp_kv_t *kv, qp_mat_t qkv, const qp_attention_t *a,
       const qp_ragged_t *batch, const qp_kv_map_t *map),
      q, kv, qkv, a, batch, map)
TIMED(attention_cached,
      (qp_queue_t * q, qp_mat_t out, qp_mat_t qkv, const qp_kv_t *kv, const qp_attention_t *a,
       const qp_ragged_t *batch, const qp_kv_map_t *map),
      q, out, qkv, kv, a, batch, map)
TIMED(lm_head,
      (qp_queue_t * q, qp_dptr_t logprob, qp_dptr_t entropy, qp_mat_t dhidden, qp_mat_t hidden,
       qp_mat_t head, qp_dptr_t target),
      q, logprob, entropy, dhidden, hidden, head, target)
TIMED(lm_kl, (qp_queue_t * q, qp_dptr_t kl, qp_mat_t hidden_p, qp_mat_t hidden_q, qp_mat_t head), q,
      kl, hidden_p, hidden_q, head)
TIMED(lm_logits, (qp_queue_t * q, qp_mat_t logits, qp_mat_t hidden, qp_mat_t head), q, logits,
      hidden, head)
TIMED(sample,
      (qp_queue_t * q, qp_dptr_t token, qp_dptr_t logprob, qp_mat_t logits,
       const qp_sampling_t *sampling, const qp_philox_key_t *key, const uint32_t *sample,
       const uint32_t *position, const uint8_t *forbid),
      q, token, logprob, logits, sampling, key, sample, position, forbid)
TIMED(sum_squares, (qp_queue_t * q, qp_dptr_t x, int64_t n, double *out), q, x, n, out)
TIMED(adamw,
      (qp_queue_t * q, qp_dptr_t param, qp_dptr_t copy_bf16, qp_dptr_t grad, qp_dptr_t m,
       qp_dptr_t v, int64_t n, const qp_adamw_t *hyper),
      q, param, copy_bf16, grad, m, v, n, hyper)

void qp_device_time_ops(qp_device_t *device)
{
    QP_ASSERT(device->timed_ops == NULL);
    qp_ops_t *table = QP_NEW("device", qp_ops_t, 1);
    *table = *device->ops;
    table->upload = upload;
    table->download = download;
    table->copy = copy;
    table->zero = zero;
    table->weight_pack = weight_pack;
    table->linear_forward = linear_forward;
    table->linear_backward = linear_backward;
    table->matmul = matmul;
    table->embed = embed;
    table->gather_rows = gather_rows;
    table->combine_rows = combine_rows;
    table->input = input;
    table->rmsnorm_backward = rmsnorm_backward;
    table->rope = rope;
    table->dropout = dropout;
    table->axpby = axpby;
    table->attention_forward = attention_forward;
    table->attention_backward = attention_backward;
    table->kv_append = kv_append;
    table->attention_cached = attention_cached;
    table->lm_head = lm_head;
    table->lm_kl = lm_kl;
    table->lm_logits = lm_logits;
    table->sample = sample;
    table->sum_squares = sum_squares;
    table->adamw = adamw;
    device->timed_ops = device->ops;
    device->ops = table;
}
