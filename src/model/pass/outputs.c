/*
 * The heads of a role on the hidden states of a batch, and the way back from the gradients of what
 * they say. Only the rows that a head reads are taken: they are picked, one under the other, and
 * their gradients are spread over the rows of the batch again.
 */
#include <string.h>

#include "base/mem.h"
#include "model/pass/workspace.h"

static bool reads_row(const qp_model_batch_t *batch, int64_t t)
{
    return batch->target[t] >= 0 || (batch->valued != NULL && batch->valued[t]);
}

/* Lists the rows that are read. */
static void pick_rows(qp_workspace_t *ws, const qp_model_batch_t *batch)
{
    int64_t n = 0;
    ws->has_logprob = ws->has_value = false;
    for (int64_t t = 0; t < batch->n_token; t++) {
        if (!reads_row(batch, t))
            continue;
        ws->has_logprob |= batch->target[t] >= 0;
        ws->has_value |= batch->valued != NULL && batch->valued[t];
        ws->host_row[n++] = (int32_t)t;
    }
    ws->n_picked = n;
}

/* --- forward ---------------------------------------------------------------------------------- */

/* d logprob / d hidden of the picked rows, later their whole gradient; one more row is zero. */
static qp_mat_t picked_gradient(const qp_workspace_t *ws)
{
    return qp_mat(ws->flow.scratch.din.data, ws->flow.dtype, ws->n_picked, ws->hidden.n_col);
}

/* What a scalar head reads: the picked rows in fp32, dropped out in training. A copy stays until
 * backward overwrites it; without one it takes the place of the residual, which nobody reads any
 * more. */
static qp_error_t picked_in_f32(const qp_workspace_t *ws, qp_mat_t *whole)
{
    const qp_mat_t picked = qp_mat_rows(ws->picked, 0, ws->n_picked);
    const bool masked = !qp_dptr_is_null(ws->head_mask.bits);
    *whole = picked;
    if (picked.dtype == QP_F32 && !masked)
        return NULL;
    const qp_mat_t room = ws->backward ? ws->flow.scratch.dresidual : ws->input[0];
    *whole = qp_mat(room.data, QP_F32, ws->n_picked, picked.n_col);
    qp_input_t input = qp_input(picked);
    input.copy = *whole;
    input.mask = ws->head_mask;
    return ws->flow.ops->input(ws->flow.q, &input);
}

/* Draws the mask of what the scalar head reads, if there is dropout. */
static qp_error_t draw_head_mask(qp_workspace_t *ws, const qp_adapter_t *adapter,
                                 const qp_pass_t *pass)
{
    const qp_ragged_t rows = {
        .n_token = ws->n_picked, .position = ws->picked_position, .sample = ws->picked_sample};
    qp_philox_key_t key = pass->key;
    ws->head_mask = (qp_mask_t){0};
    if (!pass->training || adapter->head_dropout == 0.0f)
        return NULL;
    key.site = QP_SITE_VALUE_DROPOUT;
    ws->head_mask = (qp_mask_t){ws->head_bits, 1.0f / (1.0f - adapter->head_dropout)};
    return ws->flow.ops->dropout(ws->flow.q, ws->head_bits, ws->hidden.n_col, adapter->head_dropout,
                                 &key, &rows);
}

/* Element \a offset of the head's segment of a flat array of the adapter. */
static qp_dptr_t head_at(const qp_adapter_t *adapter, qp_dptr_t array, int64_t offset)
{
    return qp_dptr_at(array,
                      qp_bytes(adapter->layer_first[adapter->n_layer] + offset, sizeof(float)));
}

/* Where a head says what it says. */
static qp_dptr_t result_at(const qp_workspace_t *ws, int result)
{
    return qp_dptr_at(ws->result, qp_bytes(result * ws->n_picked, sizeof(float)));
}

static qp_error_t lm_head(qp_workspace_t *ws, bool backward, bool with_entropy)
{
    const qp_flow_t *flow = &ws->flow;
    return flow->ops->lm_head(flow->q, result_at(ws, QP_RESULT_LOGPROB),
                              with_entropy ? result_at(ws, QP_RESULT_ENTROPY) : (qp_dptr_t){0},
                              backward ? picked_gradient(ws) : (qp_mat_t){0},
                              qp_mat_rows(ws->picked, 0, ws->n_picked), &ws->base->lm_head,
                              ws->target);
}

/* values = hidden w; the bias, one number, goes along and is added on the host */
static qp_error_t scalar_head(qp_workspace_t *ws, const qp_adapter_t *adapter)
{
    const qp_flow_t *flow = &ws->flow;
    const int64_t d_model = ws->hidden.n_col;
    qp_mat_t whole;
    QP_TRY(picked_in_f32(ws, &whole));
    if (adapter->head == QP_HEAD_VALUE)
        QP_TRY(flow->ops->copy(flow->q, result_at(ws, QP_N_RESULT),
                               head_at(adapter, adapter->param, d_model), sizeof(float)));
    return flow->ops->matmul(flow->q, 1.0f, whole, false,
                             qp_mat(head_at(adapter, adapter->param, 0), QP_F32, 1, d_model), true,
                             0.0f, qp_mat(result_at(ws, QP_RESULT_VALUE), QP_F32, ws->n_picked, 1),
                             (qp_mask_t){0});
}

/* One number of each picked row to where \a batch asks for it, zero elsewhere. */
static void spread(const qp_workspace_t *ws, const qp_model_batch_t *batch, qp_result_t result,
                   float bias, float *to)
{
    const float *from = ws->host_real + result * ws->n_picked;
    for (int64_t i = 0; i < ws->n_picked; i++) {
        const int32_t t = ws->host_row[i];
        if (result == QP_RESULT_VALUE ? batch->valued[t] != 0 : batch->target[t] >= 0)
            to[t] = from[i] + bias;
    }
}

/* Waits for all that heads said of the picked rows, and hands it out. */
static qp_error_t read_results(qp_workspace_t *ws, const qp_adapter_t *adapter,
                               const qp_model_batch_t *batch, const qp_model_outputs_t *outputs)
{
    const bool biased = ws->has_value && adapter->head == QP_HEAD_VALUE;
    const int64_t n = QP_N_RESULT * ws->n_picked;
    QP_TRY(ws->flow.ops->download(ws->flow.q, ws->host_real, ws->result,
                                  qp_bytes(n + 1, sizeof(float))));
    if (ws->has_logprob && outputs->logprob != NULL)
        spread(ws, batch, QP_RESULT_LOGPROB, 0.0f, outputs->logprob);
    if (ws->has_logprob && outputs->entropy != NULL)
        spread(ws, batch, QP_RESULT_ENTROPY, 0.0f, outputs->entropy);
    if (ws->has_value && outputs->value != NULL)
        spread(ws, batch, QP_RESULT_VALUE, biased ? ws->host_real[n] : 0.0f, outputs->value);
    return NULL;
}

static void clear(const qp_model_outputs_t *outputs, int64_t n_token)
{
    float *const all[] = {outputs->logprob, outputs->entropy, outputs->value};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] != NULL)
            memset(all[i], 0, qp_bytes(n_token, sizeof(float)));
}

static qp_error_t run_heads(qp_workspace_t *ws, const qp_role_t *role, const qp_pass_t *pass,
                            bool backward, bool with_entropy)
{
    QP_TRY(ws->flow.ops->gather_rows(ws->flow.q, qp_mat_rows(ws->picked, 0, ws->n_picked),
                                     qp_model_hidden(ws), ws->row));
    if (ws->has_logprob)
        QP_TRY(lm_head(ws, backward, with_entropy));
    if (!ws->has_value)
        return NULL;
    QP_TRY(draw_head_mask(ws, role->adapter, pass));
    return scalar_head(ws, role->adapter);
}

/* Everything but reading what the heads say. */
static qp_error_t run_outputs(qp_workspace_t *ws, const qp_role_t *role,
                              const qp_model_batch_t *batch, const qp_pass_t *pass, bool backward,
                              bool with_entropy)
{
    QP_ASSERT(batch->n_token <= ws->max_token);
    pick_rows(ws, batch);
    QP_ASSERT(!ws->has_value || (role->adapter != NULL && role->adapter->head != QP_HEAD_NONE));
    if (ws->n_picked == 0)
        return NULL;
    QP_TRY(qp_model_forward_picked(ws, role, batch, pass));
    return run_heads(ws, role, pass, backward, with_entropy);
}

qp_error_t qp_model_outputs(qp_workspace_t *ws, const qp_role_t *role,
                            const qp_model_batch_t *batch, const qp_pass_t *pass, bool backward,
                            const qp_model_outputs_t *outputs)
{
    clear(outputs, batch->n_token);
    QP_TRY(run_outputs(ws, role, batch, pass, backward, outputs->entropy != NULL));
    return ws->n_picked == 0 ? NULL : read_results(ws, role->adapter, batch, outputs);
}

/* --- KL over the vocabulary ------------------------------------------------------------------- */

/* Where backward would put gradients: there is none. */
static qp_mat_t kept_rows(const qp_workspace_t *ws)
{
    QP_ASSERT(ws->backward);
    return qp_mat(ws->flow.scratch.din.data, ws->flow.dtype, ws->n_picked, ws->hidden.n_col);
}

qp_error_t qp_model_keep(qp_workspace_t *ws)
{
    return ws->flow.ops->copy(
        ws->flow.q, kept_rows(ws).data, ws->picked.data,
        qp_bytes(ws->n_picked * ws->hidden.n_col, qp_dtype_bytes(ws->flow.dtype)));
}

qp_error_t qp_model_kl(qp_workspace_t *ws, const qp_model_batch_t *batch, float *kl)
{
    memset(kl, 0, qp_bytes(batch->n_token, sizeof *kl));
    if (ws->n_picked == 0)
        return NULL;
    const qp_dptr_t at = result_at(ws, QP_RESULT_ENTROPY);
    QP_TRY(ws->flow.ops->lm_kl(ws->flow.q, at, kept_rows(ws),
                               qp_mat_rows(ws->picked, 0, ws->n_picked), &ws->base->lm_head));
    QP_TRY(ws->flow.ops->download(ws->flow.q, ws->host_real + QP_RESULT_ENTROPY * ws->n_picked, at,
                                  qp_bytes(ws->n_picked, sizeof(float))));
    spread(ws, batch, QP_RESULT_ENTROPY, 0.0f, kl);
    return NULL;
}

/* --- backward --------------------------------------------------------------------------------- */

/* Gradients of an output at the picked rows, of those that the head was asked for; their sum. */
static qp_dptr_t put_gradient(qp_workspace_t *ws, const qp_model_batch_t *batch, bool of_targets,
                              const float *from)
{
    void *room;
    const int64_t n = ws->n_picked;
    const qp_dptr_t at = qp_descriptor_take(&ws->gradient, of_targets ? n : n + 1, &room);
    float *to = room;
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t t = ws->host_row[i];
        to[i] = (of_targets ? batch->target[t] >= 0 : batch->valued[t] != 0) ? from[t] : 0.0f;
        sum += (double)to[i];
    }
    if (!of_targets)
        to[n] = (float)sum;
    return at;
}

/* Gradients of the scalar head itself. */
static qp_error_t scalar_head_backward(qp_workspace_t *ws, const qp_adapter_t *adapter)
{
    const qp_flow_t *flow = &ws->flow;
    const int64_t n = ws->n_picked, d_model = ws->hidden.n_col;
    qp_mat_t whole;
    QP_TRY(picked_in_f32(ws, &whole));
    QP_TRY(flow->ops->matmul(flow->q, 1.0f, qp_mat(ws->dvalue, QP_F32, n, 1), true, whole, false,
                             1.0f, qp_mat(head_at(adapter, adapter->grad, 0), QP_F32, 1, d_model),
                             (qp_mask_t){0}));
    if (adapter->head != QP_HEAD_VALUE)
        return NULL;
    const qp_dptr_t sum = qp_dptr_at(ws->dvalue, qp_bytes(n, sizeof(float)));
    return flow->ops->axpby(flow->q, 1.0f, qp_mat(sum, QP_F32, 1, 1), 1.0f,
                            qp_mat(head_at(adapter, adapter->grad, d_model), QP_F32, 1, 1));
}

/* dhidden of the picked rows = dlogprob (d logprob / d hidden) + mask(dvalue w). */
static qp_error_t combine_gradients(qp_workspace_t *ws, const qp_adapter_t *adapter,
                                    bool has_logprob, bool has_value)
{
    const qp_flow_t *flow = &ws->flow;
    const qp_dptr_t none = {0}, scale = has_logprob ? ws->dlogprob : none;
    const qp_mat_t picked = picked_gradient(ws);
    const bool masked = has_value && !qp_dptr_is_null(ws->head_mask.bits);
    const bool shifted = has_value && !masked;
    QP_TRY(flow->ops->combine_rows(flow->q, picked, scale, shifted ? ws->dvalue : none,
                                   shifted ? head_at(adapter, adapter->param, 0) : none));
    if (!masked)
        return NULL;
    const qp_mat_t w = qp_mat(head_at(adapter, adapter->param, 0), QP_F32, 1, picked.n_col);
    return flow->ops->matmul(flow->q, 1.0f, qp_mat(ws->dvalue, QP_F32, ws->n_picked, 1), false, w,
                             false, 1.0f, picked, ws->head_mask);
}

/* The gradient of the picked rows at the rows of the batch, zero at the others, in scratch.dout. */
static qp_error_t spread_gradient(qp_workspace_t *ws, qp_mat_t *dhidden)
{
    const qp_flow_t *flow = &ws->flow;
    const int64_t d_model = ws->base->config.d_model;
    qp_mat_t picked = picked_gradient(ws);
    picked.n_row++;
    *dhidden = qp_flow_mat(flow, flow->scratch.dout, d_model);
    QP_TRY(flow->ops->zero(flow->q, qp_mat_rows(picked, ws->n_picked, 1).data,
                           qp_bytes(d_model, qp_dtype_bytes(flow->dtype))));
    return flow->ops->gather_rows(flow->q, *dhidden, picked, ws->back);
}

qp_error_t qp_model_outputs_backward(qp_workspace_t *ws, const qp_role_t *role,
                                     const qp_model_batch_t *batch, const qp_pass_t *pass,
                                     const float *dlogprob, const float *dvalue)
{
    const qp_flow_t *flow = &ws->flow;
    const bool has_logprob = ws->has_logprob && dlogprob != NULL;
    const bool has_value = ws->has_value && dvalue != NULL;
    qp_mat_t dhidden;
    if (!has_logprob && !has_value) { /* nothing to learn here, yet the gradients are final */
        for (int64_t l = ws->base->config.n_layer - 1; l >= 0; l--)
            if (pass->layer_done != NULL)
                pass->layer_done(pass->owner, l);
        return NULL;
    }
    QP_ASSERT(batch->n_token == flow->batch.n_token);
    qp_descriptor_clear(&ws->gradient);
    if (has_logprob)
        ws->dlogprob = put_gradient(ws, batch, true, dlogprob);
    if (has_value)
        ws->dvalue = put_gradient(ws, batch, false, dvalue);
    QP_TRY(qp_descriptor_send(&ws->gradient, flow->q));
    if (has_value)
        QP_TRY(scalar_head_backward(ws, role->adapter));
    QP_TRY(combine_gradients(ws, role->adapter, has_logprob, has_value));
    QP_TRY(spread_gradient(ws, &dhidden));
    return qp_model_backward(ws, role, dhidden, pass);
}

/* --- the language model's loss ---------------------------------------------------------------- */

qp_error_t qp_model_step(qp_workspace_t *ws, const qp_role_t *role, const qp_model_batch_t *batch,
                         const qp_pass_t *pass, float weight, double *loss_sum, float *logprob)
{
    const qp_model_outputs_t outputs = {.logprob = logprob};
    *loss_sum = 0.0;
    clear(&outputs, batch->n_token);
    QP_TRY(run_outputs(ws, role, batch, pass, weight != 0.0f, false));
    for (int64_t t = 0; t < batch->n_token; t++)
        ws->host_weight[t] = -weight;
    if (weight != 0.0f)
        QP_TRY(qp_model_outputs_backward(ws, role, batch, pass, ws->host_weight, NULL));
    if (ws->n_picked == 0)
        return NULL;
    QP_TRY(read_results(ws, role->adapter, batch, &outputs)); /* the first thing to wait for */
    for (int64_t i = 0; i < ws->n_picked; i++)
        *loss_sum -= (double)ws->host_real[QP_RESULT_LOGPROB * ws->n_picked + i];
    return NULL;
}
