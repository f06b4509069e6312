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
    qp_flow_t flow;    /**< the last forward's batch and role */
    qp_mat_t *input;   /**< [n_layer + 1] of [T, D] fp32: layer inputs, then the last output */
    qp_layer_state_t *state; /**< [n_layer]; all the same one when recomputed or not kept */
    qp_mat_t hidden;         /**< [T, D] C after the last norm */
    qp_mat_t picked;         /**< [T, D] C: rows of hidden that count in the loss */
    qp_dptr_t rstd;          /**< [T] of the last norm */
    qp_dptr_t token, position, sample; /**< [T] the batch on the device */
    qp_dptr_t cu_seqlens;              /**< [T + 1] */
    /* rows that count in the loss, one under the other */
    qp_dptr_t row; /**< [T] their row in the batch */
    qp_dptr_t
        back; /**< [T] for each row of the batch its place among them, or that of a zero row */
    qp_dptr_t target;                            /**< [T] */
    qp_dptr_t logprob;                           /**< [T] */
    qp_dptr_t dlogprob;                          /**< [T] */
    int32_t *host_row, *host_target, *host_back; /**< [T] */
    float *host_real;                            /**< [T] */
};

/** Checks a batch against the workspace and copies it to the device. */
qp_error_t qp_workspace_upload(qp_workspace_t *ws, const qp_model_batch_t *batch);

#endif
