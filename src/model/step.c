#include <string.h>

#include "base/mem.h"
#include "model/workspace.h"

qp_error_t qp_model_forward(qp_workspace_t *ws, const qp_role_t *role,
                            const qp_model_batch_t *batch, const qp_pass_t *pass)
{
    qp_flow_t *flow = &ws->flow;
    const qp_base_t *base = ws->base;
    QP_ASSERT(role->base == base);
    flow->adapter = role->adapter;
    flow->dropout = pass->training && role->adapter != NULL ? role->adapter->dropout : 0.0f;
    flow->key = pass->key;
    QP_TRY(qp_workspace_upload(ws, batch));
    QP_TRY(flow->ops->embed(flow->q, qp_flow_mat(flow, ws->input[0], base->config.d_model),
                            base->embedding, ws->token));
    for (int64_t l = 0; l < base->config.n_layer; l++)
        QP_TRY(qp_layer_forward(flow, l, &ws->state[l], ws->input[l], ws->input[l + 1]));
    qp_mat_t last = qp_flow_mat(flow, ws->input[base->config.n_layer], base->config.d_model);
    qp_input_t norm = qp_layer_norm(flow, last, base->norm, ws->rstd);
    norm.copy = qp_model_hidden(ws);
    return flow->ops->input(flow->q, &norm);
}

qp_mat_t qp_model_hidden(const qp_workspace_t *ws)
{
    return qp_flow_mat(&ws->flow, ws->hidden, ws->hidden.n_col);
}

/* The lowest group with an adapter: in layer 0 nothing below it is computed. */
static qp_group_t lowest_group(const qp_adapter_t *adapter)
{
    int linear = 0;
    while (!adapter->target[linear])
        linear++;
    return qp_linear_group((qp_linear_t)linear);
}

static qp_error_t layer_backward(qp_workspace_t *ws, int64_t layer)
{
    const qp_layer_state_t *state = &ws->state[layer];
    /* the one state of this mode still is the top layer's */
    bool stale = ws->recompute == QP_RECOMPUTE_LAYER && layer < ws->base->config.n_layer - 1;
    if (stale)
        QP_TRY(qp_layer_forward(&ws->flow, layer, state, ws->input[layer], (qp_mat_t){0}));
    qp_group_t last = layer == 0 ? lowest_group(ws->flow.adapter) : QP_N_GROUP;
    return qp_layer_backward(&ws->flow, layer, state, ws->input[layer], last);
}

static void tell_done(const qp_pass_t *pass, int64_t layer)
{
    if (pass->layer_done != NULL)
        pass->layer_done(pass->owner, layer);
}

qp_error_t qp_model_backward(qp_workspace_t *ws, const qp_role_t *role, qp_mat_t dhidden,
                             const qp_pass_t *pass)
{
    const qp_flow_t *flow = &ws->flow;
    const qp_base_t *base = ws->base;
    QP_ASSERT(ws->backward && role->adapter != NULL && role->adapter == flow->adapter);
    int64_t n_layer = base->config.n_layer, d_model = base->config.d_model;
    QP_TRY(flow->ops->rmsnorm_backward(flow->q, qp_flow_mat(flow, flow->scratch.dresidual, d_model),
                                       dhidden, qp_flow_mat(flow, ws->input[n_layer], d_model),
                                       ws->rstd, base->norm, false));
    for (int64_t l = n_layer - 1; l >= 0; l--) {
        QP_TRY(layer_backward(ws, l));
        tell_done(pass, l);
    }
    return NULL;
}

/* Lists the rows that have a target, and for every row where its gradient will stand. */
static int64_t pick_rows(qp_workspace_t *ws, const qp_model_batch_t *batch)
{
    int64_t n = 0;
    for (int64_t t = 0; t < batch->n_token; t++) {
        if (batch->target[t] < 0)
            continue;
        ws->host_row[n] = (int32_t)t;
        ws->host_target[n] = batch->target[t];
        ws->host_back[t] = (int32_t)n++;
    }
    for (int64_t t = 0; t < batch->n_token; t++)
        if (batch->target[t] < 0)
            ws->host_back[t] = (int32_t)n; /* the zero row under the others */
    return n;
}

/*
 * Log-probabilities of the n picked rows, on the device; with weight != 0 also the gradient of
 * weight * sum(-logprob) with respect to their hidden states, in scratch.din [n + 1, D].
 */
static qp_error_t head(qp_workspace_t *ws, int64_t n, float weight)
{
    const qp_flow_t *flow = &ws->flow;
    const qp_ops_t *ops = flow->ops;
    int64_t d_model = ws->base->config.d_model;
    size_t bytes = qp_bytes(n, sizeof(int32_t));
    qp_mat_t picked = qp_mat_rows(ws->picked, 0, n);
    qp_mat_t dpicked = {0};
    qp_dptr_t dlogprob = {0};
    QP_TRY(ops->upload(flow->q, ws->row, ws->host_row, bytes));
    QP_TRY(ops->upload(flow->q, ws->target, ws->host_target, bytes));
    QP_TRY(ops->gather_rows(flow->q, picked, qp_model_hidden(ws), ws->row));
    if (weight != 0.0f) {
        for (int64_t i = 0; i < n; i++)
            ws->host_real[i] = -weight;
        QP_TRY(ops->upload(flow->q, ws->dlogprob, ws->host_real, bytes));
        dlogprob = ws->dlogprob;
        dpicked = qp_mat(flow->scratch.din.data, flow->dtype, n, d_model);
    }
    return ops->lm_head(flow->q, ws->logprob, (qp_dptr_t){0}, dpicked, dlogprob, picked,
                        ws->base->lm_head, ws->target);
}

/* The gradient of the picked rows at the rows of the batch, zero at the others, in scratch.dout. */
static qp_error_t spread_gradient(qp_workspace_t *ws, int64_t n, qp_mat_t *dhidden)
{
    const qp_flow_t *flow = &ws->flow;
    int64_t d_model = ws->base->config.d_model;
    qp_mat_t picked = qp_mat(flow->scratch.din.data, flow->dtype, n + 1, d_model);
    *dhidden = qp_flow_mat(flow, flow->scratch.dout, d_model);
    QP_TRY(flow->ops->zero(flow->q, qp_mat_rows(picked, n, 1).data,
                           qp_bytes(d_model, qp_dtype_bytes(flow->dtype))));
    QP_TRY(flow->ops->upload(flow->q, ws->back, ws->host_back,
                             qp_bytes(flow->batch.n_token, sizeof(int32_t))));
    return flow->ops->gather_rows(flow->q, *dhidden, picked, ws->back);
}

/* Sum of -logprob in the order of the rows; logprobs back at their rows of the batch. */
static qp_error_t read_loss(qp_workspace_t *ws, int64_t n, double *loss_sum, float *logprob)
{
    QP_TRY(
        ws->flow.ops->download(ws->flow.q, ws->host_real, ws->logprob, qp_bytes(n, sizeof(float))));
    for (int64_t i = 0; i < n; i++) {
        *loss_sum -= (double)ws->host_real[i];
        if (logprob != NULL)
            logprob[ws->host_row[i]] = ws->host_real[i];
    }
    return NULL;
}

qp_error_t qp_model_step(qp_workspace_t *ws, const qp_role_t *role, const qp_model_batch_t *batch,
                         const qp_pass_t *pass, float weight, double *loss_sum, float *logprob)
{
    QP_ASSERT(batch->n_token <= ws->max_token);
    *loss_sum = 0.0;
    if (logprob != NULL)
        memset(logprob, 0, qp_bytes(batch->n_token, sizeof *logprob));
    int64_t n = pick_rows(ws, batch);
    if (n == 0) { /* nothing to learn here, yet the gradients are final */
        for (int64_t l = ws->base->config.n_layer - 1; l >= 0 && weight != 0.0f; l--)
            tell_done(pass, l);
        return NULL;
    }
    QP_TRY(qp_model_forward(ws, role, batch, pass));
    QP_TRY(head(ws, n, weight));
    QP_TRY(read_loss(ws, n, loss_sum, logprob));
    if (weight == 0.0f)
        return NULL;
    qp_mat_t dhidden;
    QP_TRY(spread_gradient(ws, n, &dhidden));
    return qp_model_backward(ws, role, dhidden, pass);
}
