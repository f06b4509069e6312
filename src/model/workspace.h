/** \file workspace.h  Inside of qp_workspace_t. */
#ifndef QP_MODEL_WORKSPACE_H
#define QP_MODEL_WORKSPACE_H

#include "model/layer.h"

struct qp_workspace {
    const qp_base_t *base;
    int64_t max_token;
    qp_recompute_t recompute;
    bool backward;     /**< made for an adapter: the inputs of all layers are kept */
    qp_dptr_t storage; /**< one block holds everything below */
    size_t storage_bytes;
    qp_flow_t flow;  /**< the last forward's batch and role */
    qp_mat_t *input; /**< [n_layer + 1] of [T, D] fp32: layer inputs, then the last output */
    qp_layer_state_t *state; /**< [n_layer]; all the same one when recomputed or not kept */
    qp_mat_t hidden;         /**< [T, D] C after the last norm */
    qp_mat_t picked;         /**< [T, D] C: rows of hidden that a head reads */
    qp_dptr_t rstd;          /**< [T] of the last norm */
    qp_dptr_t token, position, sample; /**< [T] the batch on the device */
    qp_dptr_t cu_seqlens;              /**< [T + 1] */
    /* rows that a head reads, one under the other */
    qp_dptr_t row; /**< [T] their row in the batch */
    qp_dptr_t
        back; /**< [T] for each row of the batch its place among them, or that of a zero row */
    qp_dptr_t target;                            /**< [T] */
    qp_dptr_t logprob, entropy, value;           /**< [T] */
    qp_dptr_t dlogprob, dvalue;                  /**< [T], [T + 1]: then the sum of them */
    int32_t *host_row, *host_target, *host_back; /**< [T] */
    float *host_real;                            /**< [T + 1] */
    float *host_logprob, *host_weight;           /**< [T] of qp_model_step() */
    /* dropout of what a scalar head reads; backward only */
    qp_dptr_t picked_sample, picked_position; /**< [T] identities of the picked rows */
    qp_dptr_t head_bits;                      /**< [T, qp_mask_words(D)] */
    qp_mask_t head_mask;                      /**< of the last outputs */
    int64_t n_picked;                         /**< rows of the last outputs */
    bool has_logprob, has_value;              /**< which heads these were */
};

/** Checks a batch against the workspace and copies it to the device. */
qp_error_t qp_workspace_upload(qp_workspace_t *ws, const qp_model_batch_t *batch);

#endif
