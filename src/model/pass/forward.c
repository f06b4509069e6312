#include <math.h>

#include "base/activity.h"
#include "model/pass/layer.h"

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

/* y = add + linear(x) of the base, plus the adapter's part. */
static qp_error_t linear(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state,
                         qp_group_t group, qp_mat_t y, qp_input_t x, qp_mat_t add)
{
    const qp_weight_t *w = &flow->base->layer[layer].group[group];
    qp_lora_tap(flow, layer, state, group, &x);
    QP_TRY(flow->ops->linear_forward(flow->q, y, &x, w, add));
    return qp_lora_forward(flow, layer, group, y, &x);
}

static qp_error_t attend(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state,
                         qp_mat_t out, qp_mat_t qkv)
{
    const qp_ops_t *ops = flow->ops;
    if (flow->kv == NULL)
        return ops->attention_forward(flow->q, out, state->lse, qkv, &flow->attention,
                                      &flow->batch);
    QP_TRY(
        ops->kv_append(flow->q, &flow->kv[layer], qkv, &flow->attention, &flow->batch, flow->map));
    return ops->attention_cached(flow->q, out, qkv, &flow->kv[layer], &flow->attention,
                                 &flow->batch, flow->map);
}

qp_input_t qp_layer_norm(const qp_flow_t *flow, qp_mat_t residual, qp_dptr_t weight, qp_dptr_t rstd)
{
    return (qp_input_t){.kind = QP_INPUT_RMSNORM,
                        .x = residual,
                        .weight = weight,
                        .rstd = rstd,
                        .eps = flow->base->config.rms_norm_eps};
}

/* mid = in + o(attention(norm(in))) */
static qp_error_t attention_forward(const qp_flow_t *flow, int64_t layer,
                                    const qp_layer_state_t *state, qp_mat_t mid, qp_mat_t in)
{
    const qp_ops_t *ops = flow->ops;
    const qp_base_t *base = flow->base;
    qp_mat_t qkv = qp_flow_mat(flow, state->qkv, state->qkv.n_col);
    qp_mat_t attention = qp_flow_mat(flow, state->attention, state->attention.n_col);
    qp_input_t x = qp_layer_norm(flow, in, base->layer[layer].input_norm, state->input_rstd);
    QP_TRY(linear(flow, layer, state, QP_GROUP_QKV, qkv, x, (qp_mat_t){0}));
    QP_TRY(ops->rope(flow->q, qkv, &flow->attention, base->rope, flow->batch.position, false));
    QP_TRY(attend(flow, layer, state, attention, qkv));
    return linear(flow, layer, state, QP_GROUP_O, mid, qp_input(attention), in);
}

qp_error_t qp_layer_forward(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state,
                            qp_mat_t in, qp_mat_t out)
{
    int64_t d_model = flow->base->config.d_model;
    qp_mat_t mid = qp_flow_mat(flow, state->mid, d_model);
    qp_mat_t gate_up = qp_flow_mat(flow, state->gate_up, state->gate_up.n_col);
    qp_activity_mark();
    QP_TRY(qp_lora_draw_masks(flow, layer, state));
    QP_TRY(attention_forward(flow, layer, state, mid, qp_flow_mat(flow, in, d_model)));
    qp_input_t x = qp_layer_norm(flow, mid, flow->base->layer[layer].post_norm, state->post_rstd);
    QP_TRY(linear(flow, layer, state, QP_GROUP_GATE_UP, gate_up, x, (qp_mat_t){0}));
    if (qp_dptr_is_null(out.data))
        return NULL;
    qp_input_t swiglu = {.kind = QP_INPUT_SWIGLU, .x = gate_up};
    return linear(flow, layer, state, QP_GROUP_DOWN, qp_flow_mat(flow, out, d_model), swiglu, mid);
}
