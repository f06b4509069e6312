#include "model/layer.h"

/* One layer's backward: what its four groups share. */
typedef struct {
    const qp_flow_t *flow;
    const qp_layer_t *weights;
    const qp_layer_state_t *state;
    int64_t layer;
    qp_mat_t in; /* [T, D] fp32 */
    bool last;   /* the input of the group at hand needs no gradient */
} step_t;

/* dx = dy W plus the adapter's part; the adapter's gradients. x is looked at by the adapter only.
 */
static qp_error_t linear_backward(const step_t *step, qp_group_t group, qp_mat_t dx, qp_mat_t dy,
                                  qp_mat_t x)
{
    const qp_flow_t *flow = step->flow;
    if (step->last)
        dx.data = (qp_dptr_t){0};
    else
        QP_TRY(flow->ops->linear_backward(flow->q, dx, dy, &step->weights->group[group], false));
    return qp_lora_backward(flow, step->layer, group, dx, dy, x);
}

/* The gradient of a group that ends in the residual, in the compute dtype. */
static qp_error_t residual_gradient(const qp_flow_t *flow, qp_mat_t *dy)
{
    *dy = qp_flow_mat(flow, flow->scratch.dresidual, flow->scratch.dresidual.n_col);
    if (flow->dtype == QP_F32)
        return NULL;
    qp_mat_t residual = *dy;
    *dy = qp_flow_mat(flow, flow->scratch.dout, residual.n_col);
    return flow->ops->axpby(flow->q, 1.0f, residual, 0.0f, *dy);
}

/* The normed input of a group again, if the adapter wants it. */
static qp_error_t normed_input(const step_t *step, qp_group_t group, qp_mat_t residual,
                               qp_dptr_t rstd, qp_dptr_t weight, qp_mat_t *x)
{
    const qp_flow_t *flow = step->flow;
    *x = qp_flow_mat(flow, flow->scratch.normed, residual.n_col);
    if (!qp_lora_has(flow, step->layer, group))
        return NULL;
    return flow->ops->rmsnorm_forward(flow->q, *x, rstd, residual, weight,
                                      flow->base->config.rms_norm_eps);
}

/* dresidual += gradient through the norm */
static qp_error_t norm_backward(const step_t *step, qp_mat_t dx, qp_mat_t residual, qp_dptr_t rstd,
                                qp_dptr_t weight)
{
    const qp_flow_t *flow = step->flow;
    qp_mat_t dresidual = qp_flow_mat(flow, flow->scratch.dresidual, residual.n_col);
    return flow->ops->rmsnorm_backward(flow->q, dresidual, dx, residual, rstd, weight, true);
}

static qp_error_t down_backward(const step_t *step)
{
    const qp_flow_t *flow = step->flow;
    int64_t d_ff = flow->base->config.d_ff;
    qp_mat_t dy, gate_up = qp_flow_mat(flow, step->state->gate_up, 2 * d_ff);
    qp_mat_t swiglu = qp_flow_mat(flow, flow->scratch.swiglu, d_ff);
    qp_mat_t dswiglu = qp_flow_mat(flow, flow->scratch.dswiglu, d_ff);
    QP_TRY(residual_gradient(flow, &dy));
    if (qp_lora_has(flow, step->layer, QP_GROUP_DOWN))
        QP_TRY(flow->ops->swiglu_forward(flow->q, swiglu, gate_up));
    return linear_backward(step, QP_GROUP_DOWN, dswiglu, dy, swiglu);
}

static qp_error_t gate_up_backward(const step_t *step)
{
    const qp_flow_t *flow = step->flow;
    const qp_layer_state_t *state = step->state;
    int64_t d_ff = flow->base->config.d_ff;
    qp_mat_t gate_up = qp_flow_mat(flow, state->gate_up, 2 * d_ff);
    qp_mat_t dswiglu = qp_flow_mat(flow, flow->scratch.dswiglu, d_ff);
    qp_mat_t mid = qp_flow_mat(flow, state->mid, step->in.n_col);
    qp_mat_t x, dx = qp_flow_mat(flow, flow->scratch.din, step->in.n_col);
    QP_TRY(flow->ops->swiglu_backward(flow->q, gate_up, dswiglu, gate_up));
    QP_TRY(
        normed_input(step, QP_GROUP_GATE_UP, mid, state->post_rstd, step->weights->post_norm, &x));
    QP_TRY(linear_backward(step, QP_GROUP_GATE_UP, dx, gate_up, x));
    if (step->last)
        return NULL;
    return norm_backward(step, dx, mid, state->post_rstd, step->weights->post_norm);
}

static qp_error_t o_backward(const step_t *step)
{
    const qp_flow_t *flow = step->flow;
    qp_mat_t attention = qp_flow_mat(flow, step->state->attention, step->state->attention.n_col);
    qp_mat_t dy, dattention = qp_flow_mat(flow, flow->scratch.din, attention.n_col);
    QP_TRY(residual_gradient(flow, &dy));
    return linear_backward(step, QP_GROUP_O, dattention, dy, attention);
}

static qp_error_t qkv_backward(const step_t *step)
{
    const qp_flow_t *flow = step->flow;
    const qp_layer_state_t *state = step->state;
    qp_mat_t qkv = qp_flow_mat(flow, state->qkv, state->qkv.n_col);
    qp_mat_t dqkv = qp_flow_mat(flow, flow->scratch.dqkv, qkv.n_col);
    qp_mat_t attention = qp_flow_mat(flow, state->attention, state->attention.n_col);
    qp_mat_t dattention = qp_flow_mat(flow, flow->scratch.din, attention.n_col);
    QP_TRY(flow->ops->attention_backward(flow->q, dqkv, dattention, attention, state->lse, qkv,
                                         &flow->attention, &flow->batch));
    QP_TRY(flow->ops->rope(flow->q, dqkv, &flow->attention, flow->base->rope, flow->batch.position,
                           true));
    qp_mat_t x, dx = qp_flow_mat(flow, flow->scratch.din, step->in.n_col);
    QP_TRY(normed_input(step, QP_GROUP_QKV, step->in, state->input_rstd, step->weights->input_norm,
                        &x));
    QP_TRY(linear_backward(step, QP_GROUP_QKV, dx, dqkv, x));
    if (step->last)
        return NULL;
    return norm_backward(step, dx, step->in, state->input_rstd, step->weights->input_norm);
}

static qp_error_t (*const BACKWARD[QP_N_GROUP])(const step_t *) = {
    [QP_GROUP_QKV] = qkv_backward,
    [QP_GROUP_O] = o_backward,
    [QP_GROUP_GATE_UP] = gate_up_backward,
    [QP_GROUP_DOWN] = down_backward,
};

qp_error_t qp_layer_backward(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state,
                             qp_mat_t in, qp_group_t last)
{
    step_t step = {.flow = flow,
                   .weights = &flow->base->layer[layer],
                   .state = state,
                   .layer = layer,
                   .in = qp_flow_mat(flow, in, flow->base->config.d_model)};
    for (int group = QP_N_GROUP - 1; group >= 0 && !step.last; group--) {
        step.last = group == (int)last;
        QP_TRY(BACKWARD[group](&step));
    }
    return NULL;
}
