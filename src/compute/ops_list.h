/**
 * \file ops_list.h
 * The slots of the op table that compute, once more: what is made of each of
 * them in the same way (timing, checking, a backend's table) is made from this list. A slot that is
 * missing here fails the count at the end of ops_timed.c.
 *
 * An entry is OP(name, (type, parameter), ...), all parameters but the queue.
 */
#ifndef QP_COMPUTE_OPS_LIST_H
#define QP_COMPUTE_OPS_LIST_H

#include "compute/ops.h"

/* M applied to each of up to ten parenthesised pairs. */
#define QP_EACH(M, ...)                                                                    \
    QP_EACH_PICK(__VA_ARGS__, QP_EACH10, QP_EACH9, QP_EACH8, QP_EACH7, QP_EACH6, QP_EACH5, \
                 QP_EACH4, QP_EACH3, QP_EACH2, QP_EACH1, )                                 \
    (M, __VA_ARGS__)
#define QP_EACH_PICK(a, b, c, d, e, f, g, h, i, j, pick, ...) pick
#define QP_EACH1(M, a) M a
#define QP_EACH2(M, a, ...) M a QP_EACH1(M, __VA_ARGS__)
#define QP_EACH3(M, a, ...) M a QP_EACH2(M, __VA_ARGS__)
#define QP_EACH4(M, a, ...) M a QP_EACH3(M, __VA_ARGS__)
#define QP_EACH5(M, a, ...) M a QP_EACH4(M, __VA_ARGS__)
#define QP_EACH6(M, a, ...) M a QP_EACH5(M, __VA_ARGS__)
#define QP_EACH7(M, a, ...) M a QP_EACH6(M, __VA_ARGS__)
#define QP_EACH8(M, a, ...) M a QP_EACH7(M, __VA_ARGS__)
#define QP_EACH9(M, a, ...) M a QP_EACH8(M, __VA_ARGS__)
#define QP_EACH10(M, a, ...) M a QP_EACH9(M, __VA_ARGS__)

/* For QP_EACH: ", type parameter" and ", parameter". */
#define QP_PARAMETER(type, name) , type name
#define QP_ARGUMENT(type, name) , name

/* clang-format off */
#define QP_QUEUE_OPS(OP) \
    OP(weight_pack, (const qp_weight_t *, w), (int64_t, first), (qp_mat_t, plain), (qp_dptr_t, scale), \
       (qp_dptr_t, bias)) \
    OP(linear_forward, (qp_mat_t, y), (const qp_input_t *, x), (const qp_weight_t *, w), (qp_mat_t, add)) \
    OP(linear_backward, (qp_mat_t, dx), (const qp_input_t *, dy), (const qp_weight_t *, w), (qp_mat_t, add)) \
    OP(matmul, (float, alpha), (qp_mat_t, a), (bool, trans_a), (qp_mat_t, b), (bool, trans_b), (float, beta), \
       (qp_mat_t, c), (qp_mask_t, mask)) \
    OP(embed, (qp_mat_t, out), (qp_mat_t, table), (qp_dptr_t, token)) \
    OP(gather_rows, (qp_mat_t, out), (qp_mat_t, in), (qp_dptr_t, index)) \
    OP(combine_rows, (qp_mat_t, x), (qp_dptr_t, scale), (qp_dptr_t, shift), (qp_dptr_t, w)) \
    OP(input, (const qp_input_t *, x)) \
    OP(rmsnorm_backward, (qp_mat_t, dx), (qp_mat_t, dy), (qp_mat_t, x), (qp_dptr_t, rstd), (qp_dptr_t, weight), \
       (bool, accumulate)) \
    OP(rope, (qp_mat_t, qkv), (const qp_attention_t *, a), (qp_mat_t, table), (qp_dptr_t, position), (bool, inverse)) \
    OP(dropout, (qp_dptr_t, bits), (int64_t, n_col), (float, p), (const qp_philox_key_t *, key), \
       (const qp_ragged_t *, batch)) \
    OP(axpby, (float, alpha), (qp_mat_t, x), (float, beta), (qp_mat_t, y)) \
    OP(attention_forward, (qp_mat_t, out), (qp_dptr_t, lse), (qp_mat_t, qkv), (const qp_attention_t *, a), \
       (const qp_ragged_t *, batch)) \
    OP(attention_backward, (qp_mat_t, dqkv), (qp_mat_t, dout), (qp_mat_t, out), (qp_dptr_t, lse), (qp_mat_t, qkv), \
       (const qp_attention_t *, a), (const qp_ragged_t *, batch)) \
    OP(kv_append, (const qp_kv_t *, kv), (qp_mat_t, qkv), (const qp_attention_t *, a), (const qp_ragged_t *, batch), \
       (const qp_kv_map_t *, map)) \
    OP(kv_copy, (const qp_kv_copy_t *, copies)) \
    OP(attention_cached, (qp_mat_t, out), (qp_mat_t, qkv), (const qp_kv_t *, kv), (const qp_attention_t *, a), \
       (const qp_ragged_t *, batch), (const qp_kv_map_t *, map)) \
    OP(lm_head, (qp_dptr_t, logprob), (qp_dptr_t, entropy), (qp_mat_t, dhidden), (qp_mat_t, hidden), \
       (const qp_weight_t *, head), (qp_dptr_t, target)) \
    OP(lm_kl, (qp_dptr_t, kl), (qp_mat_t, hidden_p), (qp_mat_t, hidden_q), (const qp_weight_t *, head)) \
    OP(lm_logits, (qp_mat_t, logits), (qp_mat_t, hidden), (const qp_weight_t *, head)) \
    OP(sample, (qp_dptr_t, token), (qp_dptr_t, logprob), (qp_mat_t, logits), (const qp_sampling_t *, sampling), \
       (const qp_philox_key_t *, key), (qp_dptr_t, sample), (qp_dptr_t, position), (qp_dptr_t, forbid)) \
    OP(adamw, (qp_dptr_t, param), (qp_dptr_t, copy_bf16), (qp_dptr_t, grad), (qp_dptr_t, m), (qp_dptr_t, v), \
       (int64_t, n), (const qp_adamw_t *, hyper))
/* clang-format on */

#endif
