#include <string.h>

#include "base/mem.h"
#include "model/pass/workspace.h"

qp_error_t qp_model_forward(qp_workspace_t *ws, const qp_role_t *role,
                            const qp_model_batch_t *batch, const qp_pass_t *pass)
{
    ws->n_picked = 0;
    return qp_model_forward_picked(ws, role, batch, pass);
}

qp_error_t qp_model_forward_picked(qp_workspace_t *ws, const qp_role_t *role,
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

/* The lowest group with an adapter: in layer 0 nothing below it is computed. Where the head alone
 * learns there is none, and the first group ends it. */
static qp_group_t lowest_group(const qp_adapter_t *adapter)
{
    for (int linear = 0; linear < QP_N_LINEAR; linear++)
        if (adapter->target[linear])
            return qp_linear_group((qp_linear_t)linear);
    return QP_GROUP_DOWN;
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
