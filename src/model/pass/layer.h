/**
 * \file layer.h
 * One transformer layer, forward and backward, on one ragged batch of T tokens. D = d_model,
 * H = n_head, G = n_kv_head, E = head_dim, F = d_ff, r = rank of the adapter, C = compute dtype.
 * The residual stream is fp32, everything inside a layer is C.
 */
#ifndef QP_MODEL_PASS_LAYER_H
#define QP_MODEL_PASS_LAYER_H

#include "model/base/arena.h"
#include "model/pass/pass.h"

/**
 * What backward needs of a layer's forward beside the layer's input. The rest (normed inputs, the
 * output of swiglu, dropped inputs and inner activations of adapters) is cheap and made again.
 * Dropout's masks are kept: a bit is cheaper to keep than to draw.
 */
typedef struct {
    qp_mat_t mid;               /**< [T, D] fp32 residual after attention */
    qp_dptr_t input_rstd;       /**< [T] fp32 of the norm before attention */
    qp_dptr_t post_rstd;        /**< [T] fp32 of the norm before the MLP */
    qp_mat_t qkv;               /**< [T, (H + 2G) E] C, after rope */
    qp_mat_t attention;         /**< [T, H E] C */
    qp_dptr_t lse;              /**< [H, T] fp32 */
    qp_mat_t gate_up;           /**< [T, 2F] C; backward may overwrite it with its gradient */
    qp_dptr_t mask[QP_N_GROUP]; /**< [T, qp_mask_words(n_in)] of groups with targets, if training */
} qp_layer_state_t;

/** Scratch that all layers share. */
typedef struct {
    qp_mat_t adapter_input; /**< [T, largest n_in of a target] C: what an adapter reads */
    qp_mat_t inner;         /**< [T, 3r] C: u = x A^T of a group's targets side by side */
    /* backward only */
    qp_mat_t dinner;    /**< [T, 3r] C */
    qp_mat_t dresidual; /**< [T, D] fp32 */
    qp_mat_t dout;      /**< [T, D] C: dresidual where products of an adapter take it */
    qp_mat_t din;       /**< [T + 1, max(D, H E)] C: gradient of a group's input */
    qp_mat_t dswiglu;   /**< [T, F] C */
    qp_mat_t dqkv;      /**< [T, (H + 2G) E] C */
} qp_layer_scratch_t;

/** A batch on its way through the layers of a role. */
typedef struct {
    const qp_base_t *base;
    const qp_adapter_t *adapter; /**< or NULL */
    qp_queue_t *q;
    const qp_ops_t *ops;
    qp_dtype_t dtype; /**< C */
    qp_attention_t attention;
    qp_layer_scratch_t scratch;
    qp_ragged_t batch;
    float dropout; /**< of adapter inputs; 0 when not training */
    qp_philox_key_t key;
    const qp_kv_t *kv;      /**< [n_layer] caches to append to and to attend to, or NULL */
    const qp_kv_map_t *map; /**< of this batch */
} qp_flow_t;

/** The flow of a base without a batch yet. */
qp_flow_t qp_flow(const qp_base_t *base);

/** Buffers for max_token tokens, with masks for the inputs of these linears (NULL: none). */
qp_layer_state_t qp_layer_state_take(qp_arena_t *arena, const qp_base_shape_t *shape,
                                     const bool masked[QP_N_LINEAR], int64_t max_token);
/** For adapters of lora's rank and targets (NULL: none). backward false: forward buffers only. */
qp_layer_scratch_t qp_layer_scratch_take(qp_arena_t *arena, const qp_base_shape_t *shape,
                                         const qp_lora_config_t *lora, int64_t max_token,
                                         bool backward);

/**
 * out = layer(in), [T, D] fp32; in, state->mid and out may be one buffer. Without out (no data) it
 * stops when the state is complete: the recomputation of backward.
 */
qp_error_t qp_layer_forward(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state,
                            qp_mat_t in, qp_mat_t out);

/** RMS norm of a residual, as the input of a linear. */
qp_input_t qp_layer_norm(const qp_flow_t *flow, qp_mat_t residual, qp_dptr_t weight,
                         qp_dptr_t rstd);

/**
 * Turns scratch.dresidual from the gradient of the layer's output into that of its input, and adds
 * the adapter's gradients. \a last is the group whose input needs no gradient: nothing below it is
 * computed (QP_N_GROUP: none, all is).
 */
qp_error_t qp_layer_backward(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state,
                             qp_mat_t in, qp_group_t last);

/** True if the group has targets. */
bool qp_lora_has(const qp_flow_t *flow, int64_t layer, qp_group_t group);
/** Draws the layer's masks for this batch, if there is dropout. */
qp_error_t qp_lora_draw_masks(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state);
/**
 * Makes \a x, input of a group, leave what the adapter reads, x dropped out, where qp_lora_input()
 * finds it; nothing without targets.
 */
void qp_lora_tap(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state,
                 qp_group_t group, qp_input_t *x);
/** What the adapter reads, once \a x was computed. */
qp_mat_t qp_lora_input(const qp_input_t *x);
/** y += scaling * x A^T B^T for the targets of a group; nothing without targets. */
qp_error_t qp_lora_forward(const qp_flow_t *flow, int64_t layer, qp_group_t group, qp_mat_t y,
                           const qp_input_t *x);
/** Adds to the gradients of A and B, and to dx unless it has no data; dy in C. */
qp_error_t qp_lora_backward(const qp_flow_t *flow, int64_t layer, qp_group_t group, qp_mat_t dx,
                            qp_mat_t dy, const qp_input_t *x);

/** Tokens in the vocabulary, positions in the table of angles? */
qp_error_t qp_model_check_batch(const qp_base_t *base, const qp_model_batch_t *batch);

/** The first T rows of a buffer, as a dense [T, n_col]. */
static inline qp_mat_t qp_flow_mat(const qp_flow_t *flow, qp_mat_t buffer, int64_t n_col)
{
    return qp_mat(buffer.data, buffer.dtype, flow->batch.n_token, n_col);
}

#endif
