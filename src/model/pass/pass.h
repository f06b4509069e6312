/**
 * \file pass.h
 * Passes of a role: forward, heads and backward. A role is base + adapter (or none) + head (or
 * none); switching roles switches pointers.
 */
#ifndef QP_MODEL_PASS_PASS_H
#define QP_MODEL_PASS_PASS_H

#include "model/adapter/adapter.h"

typedef struct {
    const qp_base_t *base;
    qp_adapter_t *adapter; /**< NULL: the base alone (the reference model) */
} qp_role_t;

/**
 * Activations and scratch for micro-batches up to max_token tokens; made once, before the loop.
 * lora NULL: for the base alone, no backward. recompute (definite, not AUTO):
 *   LAYER keeps the input of each layer, the rest of a layer is recomputed in backward;
 *   NONE  keeps of each layer also the residual after attention, q k v after rope, the output of
 *         attention and its lse, and gate_up. Both give the same bits.
 */
typedef struct qp_workspace qp_workspace_t;
size_t qp_workspace_bytes(const qp_base_shape_t *shape, const qp_lora_config_t *lora,
                          int64_t max_token, qp_recompute_t recompute);
qp_error_t qp_workspace_create(const qp_base_t *base, const qp_lora_config_t *lora,
                               int64_t max_token, qp_recompute_t recompute, qp_workspace_t **ws);
void qp_workspace_destroy(qp_workspace_t **ws);
/** The largest pass in such a workspace, for which qp_workspace_create() reserves scratch. */
qp_pass_size_t qp_workspace_pass_size(const qp_base_shape_t *shape, const qp_lora_config_t *lora,
                                      int64_t max_token);

/** A ragged batch of host arrays; see qp_batch_t of the data module for the meaning. */
typedef struct {
    int64_t n_token, n_seq;
    const int32_t *token, *target, *position, *cu_seqlens;
    const uint32_t *sample;
    const uint8_t *valued; /**< [n_token] 1: the scalar head reads this token; NULL: none */
} qp_model_batch_t;

/** What the heads of a role say of a batch: host arrays [n_token], each may be NULL. */
typedef struct {
    float *logprob; /**< of the target; 0 where there is none */
    float *entropy; /**< of the distribution over the vocabulary; 0 likewise */
    float *value;   /**< of the scalar head; 0 where batch->valued does not ask */
} qp_model_outputs_t;

typedef struct {
    bool training;       /**< dropout on */
    qp_philox_key_t key; /**< seed and step of dropout */
    /** Called when the gradients of layer \a layer are final in this backward (adapter->grad
     * segment). */
    void (*layer_done)(void *owner, int64_t layer);
    void *owner;
} qp_pass_t;

/** Final hidden states (after the last norm) of every token, in ws: [n_token, d_model]. */
qp_error_t qp_model_forward(qp_workspace_t *ws, const qp_role_t *role,
                            const qp_model_batch_t *batch, const qp_pass_t *pass);
qp_mat_t qp_model_hidden(const qp_workspace_t *ws);
/**
 * Backward of the last forward, once, from dhidden (after the last norm); adds to
 * role->adapter->grad. Layer 0 is followed down to its lowest adapter only.
 */
qp_error_t qp_model_backward(qp_workspace_t *ws, const qp_role_t *role, qp_mat_t dhidden,
                             const qp_pass_t *pass);

/**
 * Forward and heads of one micro-batch; each head sees only the rows that ask for it. With
 * \a backward the next call may be qp_model_outputs_backward().
 */
qp_error_t qp_model_outputs(qp_workspace_t *ws, const qp_role_t *role,
                            const qp_model_batch_t *batch, const qp_pass_t *pass, bool backward,
                            const qp_model_outputs_t *outputs);
/**
 * KL over the whole vocabulary. keep() puts aside the rows whose log-probabilities the last outputs
 * gave (without backward); after the outputs of another role on the same batch, kl [n_token] gets
 * the KL of the kept distributions to these, 0 where there is no target.
 */
qp_error_t qp_model_keep(qp_workspace_t *ws);
qp_error_t qp_model_kl(qp_workspace_t *ws, const qp_model_batch_t *batch, float *kl);
/**
 * Backward of the last qp_model_outputs(), once, from the gradients of its outputs: host arrays
 * [n_token] or NULL, of which only what was asked for counts. Adds to adapter->grad. Calls
 * layer_done for each layer in any case.
 */
qp_error_t qp_model_outputs_backward(qp_workspace_t *ws, const qp_role_t *role,
                                     const qp_model_batch_t *batch, const qp_pass_t *pass,
                                     const float *dlogprob, const float *dvalue);

/**
 * Forward, cross-entropy and (unless weight == 0) backward of one micro-batch. loss_sum = sum over
 * counted targets of -log p; the gradient added to adapter->grad is of weight * loss_sum.
 * logprob: host [n_token] or NULL, 0 where nothing is counted. The head sees only rows with a
 * target. An empty batch or one without targets gives 0 and still calls layer_done for each layer.
 */
qp_error_t qp_model_step(qp_workspace_t *ws, const qp_role_t *role, const qp_model_batch_t *batch,
                         const qp_pass_t *pass, float weight, double *loss_sum, float *logprob);

#endif
