#include "base/activity.h"
#include "model/pass/layer.h"

/* One layer's backward: what its four groups share. */
typedef struct {
    const qp_flow_t *flow;
    const qp_layer_t *weights;
    const qp_layer_state_t *state;
    int64_t layer;
    qp_mat_t in; /* [T, D] fp32 */
    bool last;   /* the input of the group at hand needs no gradient */
} step_t;

/*
 * dx = dy W plus the adapter's part; the adapter's gradients. x is the group's input, computed
 * again where the adapter looks at it; then dy_copy is where dy goes for the adapter, if it is no
 * matrix in C yet.
 */
static qp_error_t linear_backward(const step_t *step, qp_group_t group, qp_mat_t dx, qp_input_t dy,
                                  qp_mat_t dy_copy, qp_input_t x)
{
    const qp_flow_t *flow = step->flow;
    const bool has_lora = qp_lora_has(flow, step->layer, group);
    if (has_lora && (dy.kind != QP_INPUT_PLAIN || dy.x.dtype != flow->dtype))
        dy.copy = dy_copy;
    if (step->last) {
        dx.data = (qp_dptr_t){0};
        if (!qp_dptr_is_null(dy.copy.data))
            QP_TRY(flow->ops->input(flow->q, &dy));
    } else {
        QP_TRY(flow->ops->linear_backward(flow->q, dx, &dy, &step->weights->group[group],
                                          (qp_mat_t){0}));
    }
    if (!has_lora)
        return NULL;
    qp_lora_tap(flow, step->layer, step->state, group, &x);
    if (!qp_dptr_is_null(x.copy.data))
        QP_TRY(flow->ops->input(flow->q, &x));
    return qp_lora_backward(flow, step->layer, group, dx,
                            qp_dptr_is_null(dy.copy.data) ? dy.x : dy.copy, &x);
}

/* The gradient of a group that ends in the residual. */
static qp_input_t residual_gradient(const qp_flow_t *flow)
{
    return qp_input(qp_flow_mat(flow, flow->scratch.dresidual, flow->scratch.dresidual.n_col));
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
    qp_input_t swiglu = {.kind = QP_INPUT_SWIGLU,
                         .x = qp_flow_mat(flow, step->state->gate_up, 2 * d_ff)};
    return linear_backward(step, QP_GROUP_DOWN, qp_flow_mat(flow, flow->scratch.dswiglu, d_ff),
                           residual_gradient(flow),
                           qp_flow_mat(flow, flow->scratch.dout, step->in.n_col), swiglu);
}

static qp_error_t gate_up_backward(const step_t *step)
{
    const qp_flow_t *flow = step->flow;
    const qp_layer_state_t *state = step->state;
    const qp_dptr_t weight = step->weights->post_norm;
    int64_t d_ff = flow->base->config.d_ff;
    qp_mat_t gate_up = qp_flow_mat(flow, state->gate_up, 2 * d_ff);
    qp_mat_t mid = qp_flow_mat(flow, state->mid, step->in.n_col);
    qp_mat_t dx = qp_flow_mat(flow, flow->scratch.din, step->in.n_col);
    qp_input_t dy = {.kind = QP_INPUT_SWIGLU_GRADIENT,
                     .x = gate_up,
                     .dout = qp_flow_mat(flow, flow->scratch.dswiglu, d_ff)};
    QP_TRY(linear_backward(step, QP_GROUP_GATE_UP, dx, dy, gate_up,
                           qp_layer_norm(flow, mid, weight, state->post_rstd)));
    return step->last ? NULL : norm_backward(step, dx, mid, state->post_rstd, weight);
}

static qp_error_t o_backward(const step_t *step)
{
    const qp_flow_t *flow = step->flow;
    qp_mat_t attention = qp_flow_mat(flow, step->state->attention, step->state->attention.n_col);
    return linear_backward(step, QP_GROUP_O, qp_flow_mat(flow, flow->scratch.din, attention.n_col),
                           residual_gradient(flow),
                           qp_flow_mat(flow, flow->scratch.dout, step->in.n_col),
                           qp_input(attention));
}

static qp_error_t qkv_backward(const step_t *step)
{
    const qp_flow_t *flow = step->flow;
    const qp_layer_state_t *state = step->state;
    const qp_dptr_t weight = step->weights->input_norm;
    qp_mat_t qkv = qp_flow_mat(flow, state->qkv, state->qkv.n_col);
    qp_mat_t dqkv = qp_flow_mat(flow, flow->scratch.dqkv, qkv.n_col);
    qp_mat_t attention = qp_flow_mat(flow, state->attention, state->attention.n_col);
    qp_mat_t dattention = qp_flow_mat(flow, flow->scratch.din, attention.n_col);
    QP_TRY(flow->ops->attention_backward(flow->q, dqkv, dattention, attention, state->lse, qkv,
                                         &flow->attention, &flow->batch));
    QP_TRY(flow->ops->rope(flow->q, dqkv, &flow->attention, flow->base->rope, flow->batch.position,
                           true));
    qp_mat_t dx = qp_flow_mat(flow, flow->scratch.din, step->in.n_col);
    QP_TRY(linear_backward(step, QP_GROUP_QKV, dx, qp_input(dqkv), (qp_mat_t){0},
                           qp_layer_norm(flow, step->in, weight, state->input_rstd)));
    return step->last ? NULL : norm_backward(step, dx, step->in, state->input_rstd, weight);
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
    qp_activity_mark();
    for (int group = QP_N_GROUP - 1; group >= 0 && !step.last; group--) {
        step.last = group == (int)last;
        QP_TRY(BACKWARD[group](&step));
    }
    return NULL;
}
