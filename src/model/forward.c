#include <math.h>

#include "model/layer.h"

qp_flow_t qp_flow(const qp_base_t *base)
{
    const qp_llama_config_t *config = &base->config;
    return (qp_flow_t){.base = base,
                       .q = qp_device_queue(base->device),
                       .ops = base->device->ops,
                       .dtype = qp_device_dtype(base->device),
                       .attention = {.n_head = config->n_head,
                                     .n_kv_head = config->n_kv_head,
                                     .head_dim = config->head_dim,
                                     .scale = 1.0f / sqrtf((float)config->head_dim)}};
}

/* y (+)= linear(x) of the base, plus the adapter's part. */
static qp_error_t linear(const qp_flow_t *flow, int64_t layer, qp_group_t group, qp_mat_t y,
                         qp_mat_t x, bool accumulate)
{
    const qp_weight_t *w = &flow->base->layer[layer].group[group];
    QP_TRY(flow->ops->linear_forward(flow->q, y, x, w, accumulate));
    return qp_lora_forward(flow, layer, group, y, x);
}

static qp_error_t copy_rows(const qp_flow_t *flow, qp_mat_t to, qp_mat_t from)
{
    if (to.data.address == from.data.address)
        return NULL;
    size_t bytes = (size_t)(to.n_row * to.n_col) * qp_dtype_bytes(to.dtype);
    return flow->ops->copy(flow->q, to.data, from.data, bytes);
}

static qp_error_t attend(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state,
                         qp_mat_t out, qp_mat_t qkv)
{
    const qp_ops_t *ops = flow->ops;
    if (flow->kv != NULL)
        QP_TRY(ops->kv_append(flow->q, &flow->kv[layer], qkv, &flow->attention, &flow->batch,
                              flow->map));
    if (flow->kv != NULL && flow->has_past)
        return ops->attention_cached(flow->q, out, qkv, &flow->kv[layer], &flow->attention,
                                     &flow->batch, flow->map);
    return ops->attention_forward(flow->q, out, state->lse, qkv, &flow->attention, &flow->batch);
}

/* mid = in + o(attention(norm(in))) */
static qp_error_t attention_forward(const qp_flow_t *flow, int64_t layer,
                                    const qp_layer_state_t *state, qp_mat_t mid, qp_mat_t in)
{
    const qp_ops_t *ops = flow->ops;
    const qp_base_t *base = flow->base;
    qp_mat_t x = qp_flow_mat(flow, flow->scratch.normed, in.n_col);
    qp_mat_t qkv = qp_flow_mat(flow, state->qkv, state->qkv.n_col);
    qp_mat_t attention = qp_flow_mat(flow, state->attention, state->attention.n_col);
    QP_TRY(ops->rmsnorm_forward(flow->q, x, state->input_rstd, in, base->layer[layer].input_norm,
                                base->config.rms_norm_eps));
    QP_TRY(linear(flow, layer, QP_GROUP_QKV, qkv, x, false));
    QP_TRY(ops->rope(flow->q, qkv, &flow->attention, base->rope, flow->batch.position, false));
    QP_TRY(attend(flow, layer, state, attention, qkv));
    QP_TRY(copy_rows(flow, mid, in));
    return linear(flow, layer, QP_GROUP_O, mid, attention, true);
}

qp_error_t qp_layer_forward(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state,
                            qp_mat_t in, qp_mat_t out)
{
    const qp_ops_t *ops = flow->ops;
    const qp_llama_config_t *config = &flow->base->config;
    int64_t d_model = config->d_model;
    qp_mat_t mid = qp_flow_mat(flow, state->mid, d_model);
    qp_mat_t x = qp_flow_mat(flow, flow->scratch.normed, d_model);
    qp_mat_t gate_up = qp_flow_mat(flow, state->gate_up, state->gate_up.n_col);
    QP_TRY(attention_forward(flow, layer, state, mid, qp_flow_mat(flow, in, d_model)));
    QP_TRY(ops->rmsnorm_forward(flow->q, x, state->post_rstd, mid,
                                flow->base->layer[layer].post_norm, config->rms_norm_eps));
    QP_TRY(linear(flow, layer, QP_GROUP_GATE_UP, gate_up, x, false));
    if (qp_dptr_is_null(out.data))
        return NULL;
    out = qp_flow_mat(flow, out, d_model);
    qp_mat_t swiglu = qp_flow_mat(flow, flow->scratch.swiglu, config->d_ff);
    QP_TRY(ops->swiglu_forward(flow->q, swiglu, gate_up));
    QP_TRY(copy_rows(flow, out, mid));
    return linear(flow, layer, QP_GROUP_DOWN, out, swiglu, true);
}
