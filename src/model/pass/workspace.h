/** \file workspace.h  Inside of qp_workspace_t. */
#ifndef QP_MODEL_PASS_WORKSPACE_H
#define QP_MODEL_PASS_WORKSPACE_H

#include "model/pass/descriptor.h"
#include "model/pass/layer.h"

struct qp_workspace {
    const qp_base_t *base;
    int64_t max_token;
    qp_recompute_t recompute;
    bool backward;     /**< made for an adapter: the inputs of all layers are kept */
    qp_dptr_t storage; /**< one block holds everything below */
    size_t storage_bytes;
    qp_flow_t flow;  /**< the last forward's batch and role */
    qp_mat_t *input; /**< [n_layer + 1] of [T, D] fp32: layer inputs, then the last output */
    qp_layer_state_t *state;    /**< [n_layer]; all the same one when recomputed or not kept */
    qp_mat_t hidden;            /**< [T, D] C after the last norm */
    qp_mat_t picked;            /**< [T, D] C: rows of hidden that a head reads */
    qp_dptr_t rstd;             /**< [T] of the last norm */
    qp_descriptor_t descriptor; /**< of the batch: what follows, up to picked_position */
    qp_dptr_t token;            /**< [T]; the others of the batch are in flow.batch */
    /* rows that a head reads, one under the other; n_picked of them */
    qp_dptr_t row; /**< [n_picked] their row in the batch */
    qp_dptr_t
        back; /**< [T] for each row of the batch its place among them, or that of a zero row */
    qp_dptr_t target;                         /**< [n_picked] */
    qp_dptr_t picked_sample, picked_position; /**< [n_picked] identities, for dropout */
    qp_dptr_t result;           /**< [3T + 1] what the heads say, in the order of qp_result_t */
    qp_descriptor_t gradient;   /**< of outputs: what follows */
    qp_dptr_t dlogprob, dvalue; /**< [n_picked], [n_picked + 1]: then the sum of them */
    int32_t *host_row;          /**< [T] */
    float *host_real;           /**< [3T + 1] what the heads said */
    float *host_weight;         /**< [T] of qp_model_step() */
    /* dropout of what a scalar head reads; backward only */
    qp_dptr_t head_bits;         /**< [T, qp_mask_words(D)] */
    qp_mask_t head_mask;         /**< of the last outputs */
    int64_t n_picked;            /**< rows of the last outputs */
    bool has_logprob, has_value; /**< which heads these were */
};

/** What heads say of picked rows, [n_picked] fp32 each, one after another; in the end the bias of a
 * value head. */
typedef enum { QP_RESULT_LOGPROB, QP_RESULT_ENTROPY, QP_RESULT_VALUE, QP_N_RESULT } qp_result_t;

/**
 * Checks a batch against the workspace and copies it to the device, with the rows that heads read
 * (n_picked of host_row).
 */
qp_error_t qp_workspace_upload(qp_workspace_t *ws, const qp_model_batch_t *batch);

/** qp_model_forward() for heads that read the n_picked rows of host_row. */
qp_error_t qp_model_forward_picked(qp_workspace_t *ws, const qp_role_t *role,
                                   const qp_model_batch_t *batch, const qp_pass_t *pass);

#endif
