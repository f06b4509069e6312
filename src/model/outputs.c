/*
 * The heads of a role on the hidden states of a batch, and the way back from the gradients of what
 * they say. Only the rows that a head reads are taken: they are picked, one under the other, and
 * their gradients are spread over the rows of the batch again.
 */
#include <string.h>

#include "base/mem.h"
#include "model/workspace.h"

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
        ws->host_row[n] = (int32_t)t;
        ws->host_target[n++] = batch->target[t];
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
                                 const qp_model_batch_t *batch, const qp_pass_t *pass)
{
    const qp_ops_t *ops = ws->flow.ops;
    const size_t bytes = qp_bytes(ws->n_picked, sizeof(int32_t));
    const qp_ragged_t rows = {
        .n_token = ws->n_picked, .position = ws->picked_position, .sample = ws->picked_sample};
    qp_philox_key_t key = pass->key;
    ws->head_mask = (qp_mask_t){0};
    if (!pass->training || adapter->head_dropout == 0.0f)
        return NULL;
    for (int64_t i = 0; i < ws->n_picked; i++)
        ws->host_back[i] = batch->position[ws->host_row[i]];
    QP_TRY(ops->upload(ws->flow.q, ws->picked_position, ws->host_back, bytes));
    for (int64_t i = 0; i < ws->n_picked; i++)
        ws->host_back[i] = (int32_t)batch->sample[ws->host_row[i]];
    QP_TRY(ops->upload(ws->flow.q, ws->picked_sample, ws->host_back, bytes));
    key.site = QP_SITE_VALUE_DROPOUT;
    ws->head_mask = (qp_mask_t){ws->head_bits, 1.0f / (1.0f - adapter->head_dropout)};
    return ops->dropout(ws->flow.q, ws->head_bits, ws->hidden.n_col, adapter->head_dropout, &key,
                        &rows);
}

/* Element \a offset of the head's segment of a flat array of the adapter. */
static qp_dptr_t head_at(const qp_adapter_t *adapter, qp_dptr_t array, int64_t offset)
{
    return qp_dptr_at(array,
                      qp_bytes(adapter->layer_first[adapter->n_layer] + offset, sizeof(float)));
}

static qp_error_t lm_head(qp_workspace_t *ws, bool backward, bool with_entropy)
{
    const qp_flow_t *flow = &ws->flow;
    return flow->ops->lm_head(flow->q, ws->logprob, with_entropy ? ws->entropy : (qp_dptr_t){0},
                              backward ? picked_gradient(ws) : (qp_mat_t){0},
                              qp_mat_rows(ws->picked, 0, ws->n_picked), ws->base->lm_head,
                              ws->target);
}

/* values = hidden w; the bias, one number, is added on the host */
static qp_error_t scalar_head(qp_workspace_t *ws, const qp_adapter_t *adapter)
{
    const qp_flow_t *flow = &ws->flow;
    const int64_t d_model = ws->hidden.n_col;
    qp_mat_t whole;
    QP_TRY(picked_in_f32(ws, &whole));
    return flow->ops->matmul(flow->q, 1.0f, whole, false,
                             qp_mat(head_at(adapter, adapter->param, 0), QP_F32, 1, d_model), true,
                             0.0f, qp_mat(ws->value, QP_F32, ws->n_picked, 1), (qp_mask_t){0});
}

/* Numbers of the picked rows to where \a wanted asks for them in the batch, zero elsewhere. */
static qp_error_t read_rows(const qp_workspace_t *ws, const qp_model_batch_t *batch, qp_dptr_t from,
                            bool of_targets, float bias, float *to)
{
    QP_TRY(ws->flow.ops->download(ws->flow.q, ws->host_real, from,
                                  qp_bytes(ws->n_picked, sizeof(float))));
    for (int64_t i = 0; i < ws->n_picked; i++) {
        const int32_t t = ws->host_row[i];
        if (of_targets ? batch->target[t] >= 0 : batch->valued[t] != 0)
            to[t] = ws->host_real[i] + bias;
    }
    return NULL;
}

static qp_error_t read_values(const qp_workspace_t *ws, const qp_adapter_t *adapter,
                              const qp_model_batch_t *batch, float *value)
{
    float bias = 0.0f;
    if (adapter->head == QP_HEAD_VALUE)
        QP_TRY(ws->flow.ops->download(
            ws->flow.q, &bias, head_at(adapter, adapter->param, ws->hidden.n_col), sizeof bias));
    return read_rows(ws, batch, ws->value, false, bias, value);
}

static void clear(const qp_model_outputs_t *outputs, int64_t n_token)
{
    float *const all[] = {outputs->logprob, outputs->entropy, outputs->value};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] != NULL)
            memset(all[i], 0, qp_bytes(n_token, sizeof(float)));
}

static qp_error_t run_heads(qp_workspace_t *ws, const qp_role_t *role,
                            const qp_model_batch_t *batch, const qp_pass_t *pass, bool backward,
                            const qp_model_outputs_t *outputs)
{
    const qp_ops_t *ops = ws->flow.ops;
    qp_queue_t *q = ws->flow.q;
    const size_t bytes = qp_bytes(ws->n_picked, sizeof(int32_t));
    QP_TRY(ops->upload(q, ws->row, ws->host_row, bytes));
    QP_TRY(ops->upload(q, ws->target, ws->host_target, bytes));
    QP_TRY(ops->gather_rows(q, qp_mat_rows(ws->picked, 0, ws->n_picked), qp_model_hidden(ws),
                            ws->row));
    if (ws->has_logprob) {
        QP_TRY(lm_head(ws, backward, outputs->entropy != NULL));
        if (outputs->logprob != NULL)
            QP_TRY(read_rows(ws, batch, ws->logprob, true, 0.0f, outputs->logprob));
        if (outputs->entropy != NULL)
            QP_TRY(read_rows(ws, batch, ws->entropy, true, 0.0f, outputs->entropy));
    }
    if (ws->has_value) {
        QP_TRY(draw_head_mask(ws, role->adapter, batch, pass));
        QP_TRY(scalar_head(ws, role->adapter));
        if (outputs->value != NULL)
            QP_TRY(read_values(ws, role->adapter, batch, outputs->value));
    }
    return NULL;
}

qp_error_t qp_model_outputs(qp_workspace_t *ws, const qp_role_t *role,
                            const qp_model_batch_t *batch, const qp_pass_t *pass, bool backward,
                            const qp_model_outputs_t *outputs)
{
    QP_ASSERT(batch->n_token <= ws->max_token);
    clear(outputs, batch->n_token);
    pick_rows(ws, batch);
    QP_ASSERT(!ws->has_value || (role->adapter != NULL && role->adapter->head != QP_HEAD_NONE));
    if (ws->n_picked == 0)
        return NULL;
    QP_TRY(qp_model_forward(ws, role, batch, pass));
    return run_heads(ws, role, batch, pass, backward, outputs);
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
    QP_TRY(ws->flow.ops->lm_kl(ws->flow.q, ws->entropy, kept_rows(ws),
                               qp_mat_rows(ws->picked, 0, ws->n_picked), ws->base->lm_head));
    return read_rows(ws, batch, ws->entropy, true, 0.0f, kl);
}

/* --- backward --------------------------------------------------------------------------------- */

/* Gradients of an output at the picked rows to the device: of those that the head was asked for. */
static qp_error_t upload_picked(qp_workspace_t *ws, const qp_model_batch_t *batch, qp_dptr_t to,
                                bool of_targets, const float *from)
{
    for (int64_t i = 0; i < ws->n_picked; i++) {
        const int32_t t = ws->host_row[i];
        const bool asked = of_targets ? batch->target[t] >= 0 : batch->valued[t] != 0;
        ws->host_real[i] = asked ? from[t] : 0.0f;
    }
    return ws->flow.ops->upload(ws->flow.q, to, ws->host_real,
                                qp_bytes(ws->n_picked, sizeof(float)));
}

/* Gradients of the scalar head itself; dvalue gets its values on the device. */
static qp_error_t scalar_head_backward(qp_workspace_t *ws, const qp_adapter_t *adapter,
                                       const qp_model_batch_t *batch, const float *dvalue)
{
    const qp_flow_t *flow = &ws->flow;
    const int64_t n = ws->n_picked, d_model = ws->hidden.n_col;
    qp_mat_t whole;
    double sum = 0.0;
    QP_TRY(upload_picked(ws, batch, ws->dvalue, false, dvalue));
    for (int64_t i = 0; i < n; i++)
        sum += (double)ws->host_real[i];
    QP_TRY(picked_in_f32(ws, &whole));
    QP_TRY(flow->ops->matmul(flow->q, 1.0f, qp_mat(ws->dvalue, QP_F32, n, 1), true, whole, false,
                             1.0f, qp_mat(head_at(adapter, adapter->grad, 0), QP_F32, 1, d_model),
                             (qp_mask_t){0}));
    if (adapter->head != QP_HEAD_VALUE)
        return NULL;
    const qp_dptr_t at = qp_dptr_at(ws->dvalue, qp_bytes(n, sizeof(float)));
    const float bias = (float)sum;
    QP_TRY(flow->ops->upload(flow->q, at, &bias, sizeof bias));
    return flow->ops->axpby(flow->q, 1.0f, qp_mat(at, QP_F32, 1, 1), 1.0f,
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
    for (int64_t t = 0; t < flow->batch.n_token; t++) /* most get the zero row */
        ws->host_back[t] = (int32_t)ws->n_picked;
    for (int64_t i = 0; i < ws->n_picked; i++)
        ws->host_back[ws->host_row[i]] = (int32_t)i;
    QP_TRY(flow->ops->zero(flow->q, qp_mat_rows(picked, ws->n_picked, 1).data,
                           qp_bytes(d_model, qp_dtype_bytes(flow->dtype))));
    QP_TRY(flow->ops->upload(flow->q, ws->back, ws->host_back,
                             qp_bytes(flow->batch.n_token, sizeof(int32_t))));
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
    if (has_value)
        QP_TRY(scalar_head_backward(ws, role->adapter, batch, dvalue));
    if (has_logprob)
        QP_TRY(upload_picked(ws, batch, ws->dlogprob, true, dlogprob));
    QP_TRY(combine_gradients(ws, role->adapter, has_logprob, has_value));
    QP_TRY(spread_gradient(ws, &dhidden));
    return qp_model_backward(ws, role, dhidden, pass);
}

/* --- the language model's loss ---------------------------------------------------------------- */

qp_error_t qp_model_step(qp_workspace_t *ws, const qp_role_t *role, const qp_model_batch_t *batch,
                         const qp_pass_t *pass, float weight, double *loss_sum, float *logprob)
{
    float *own = logprob == NULL ? ws->host_logprob : logprob;
    const qp_model_outputs_t outputs = {.logprob = own};
    *loss_sum = 0.0;
    QP_TRY(qp_model_outputs(ws, role, batch, pass, weight != 0.0f, &outputs));
    for (int64_t i = 0; i < ws->n_picked; i++)
        *loss_sum -= (double)own[ws->host_row[i]];
    if (weight == 0.0f)
        return NULL;
    for (int64_t t = 0; t < batch->n_token; t++)
        ws->host_weight[t] = -weight;
    return qp_model_outputs_backward(ws, role, batch, pass, ws->host_weight, NULL);
}
