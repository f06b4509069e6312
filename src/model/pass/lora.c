#include "model/adapter/adapter_impl.h"
#include "model/pass/layer.h"

bool qp_lora_has(const qp_flow_t *flow, int64_t layer, qp_group_t group)
{
    return flow->adapter != NULL && qp_adapter_group(flow->adapter, layer, group).n > 0;
}

/* Working weights [n_row, n_col] at an element offset: the bf16 copy where there is one. */
static qp_mat_t weights(const qp_adapter_t *adapter, int64_t offset, int64_t n_row, int64_t n_col)
{
    bool copy = !qp_dptr_is_null(adapter->copy);
    qp_dtype_t dtype = copy ? QP_BF16 : QP_F32;
    qp_dptr_t start = copy ? adapter->copy : adapter->param;
    return qp_mat(qp_dptr_at(start, (size_t)offset * qp_dtype_bytes(dtype)), dtype, n_row, n_col);
}

static qp_mat_t gradients(const qp_adapter_t *adapter, int64_t offset, int64_t n_row, int64_t n_col)
{
    return qp_mat(qp_dptr_at(adapter->grad, (size_t)offset * sizeof(float)), QP_F32, n_row, n_col);
}

/* --- dropout ---------------------------------------------------------------------------------- */

static int64_t group_n_in(const qp_flow_t *flow, int64_t layer, qp_group_t group)
{
    return flow->adapter->view[qp_adapter_group(flow->adapter, layer, group).first].n_in;
}

static qp_mask_t mask_of(const qp_flow_t *flow, const qp_layer_state_t *state, qp_group_t group)
{
    if (flow->dropout == 0.0f)
        return (qp_mask_t){0};
    return (qp_mask_t){state->mask[group], 1.0f / (1.0f - flow->dropout)};
}

/*
 * One mask per group: the targets of a group share the dropped input, so their A make one product.
 * (PEFT draws a mask per target; the expectation is the same.)
 */
qp_error_t qp_lora_draw_masks(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state)
{
    qp_philox_key_t key = flow->key;
    for (int group = 0; group < QP_N_GROUP && flow->dropout > 0.0f; group++) {
        if (!qp_lora_has(flow, layer, (qp_group_t)group))
            continue;
        key.site = (uint32_t)(QP_SITE_DROPOUT + layer * QP_N_GROUP + group);
        QP_TRY(flow->ops->dropout(flow->q, state->mask[group],
                                  group_n_in(flow, layer, (qp_group_t)group), flow->dropout, &key,
                                  &flow->batch));
    }
    return NULL;
}

void qp_lora_tap(const qp_flow_t *flow, int64_t layer, const qp_layer_state_t *state,
                 qp_group_t group, qp_input_t *x)
{
    if (!qp_lora_has(flow, layer, group))
        return;
    x->mask = mask_of(flow, state, group);
    if (x->kind != QP_INPUT_PLAIN || flow->dropout > 0.0f)
        x->copy = qp_flow_mat(flow, flow->scratch.adapter_input, qp_input_n_col(x));
}

qp_mat_t qp_lora_input(const qp_input_t *x)
{
    return qp_dptr_is_null(x->copy.data) ? x->x : x->copy;
}

/* --- products --------------------------------------------------------------------------------- */

static qp_error_t product(const qp_flow_t *flow, float alpha, qp_mat_t a, bool trans_a, qp_mat_t b,
                          bool trans_b, float beta, qp_mat_t c)
{
    return flow->ops->matmul(flow->q, alpha, a, trans_a, b, trans_b, beta, c, (qp_mask_t){0});
}

qp_error_t qp_lora_forward(const qp_flow_t *flow, int64_t layer, qp_group_t group, qp_mat_t y,
                           const qp_input_t *x)
{
    if (!qp_lora_has(flow, layer, group))
        return NULL;
    const qp_adapter_t *adapter = flow->adapter;
    qp_lora_group_t views = qp_adapter_group(adapter, layer, group);
    const qp_lora_view_t *view = adapter->view + views.first;
    int64_t r = adapter->r;
    qp_mat_t a = weights(adapter, view->a, views.n * r, view->n_in);
    qp_mat_t u = qp_flow_mat(flow, flow->scratch.inner, views.n * r);
    QP_TRY(product(flow, 1.0f, qp_lora_input(x), false, a, true, 0.0f, u));
    for (int64_t i = 0; i < views.n; i++, view++) {
        int64_t first = qp_linear_first_out(&flow->base->config, view->linear);
        QP_TRY(product(flow, adapter->scaling, qp_mat_cols(u, i * r, r), false,
                       weights(adapter, view->b, view->n_out, r), true, 1.0f,
                       qp_mat_cols(y, first, view->n_out)));
    }
    return NULL;
}

qp_error_t qp_lora_backward(const qp_flow_t *flow, int64_t layer, qp_group_t group, qp_mat_t dx,
                            qp_mat_t dy, const qp_input_t *x)
{
    if (!qp_lora_has(flow, layer, group))
        return NULL;
    const qp_adapter_t *adapter = flow->adapter;
    qp_lora_group_t views = qp_adapter_group(adapter, layer, group);
    const qp_lora_view_t *view = adapter->view + views.first;
    int64_t r = adapter->r, n_in = view->n_in, first_a = view->a;
    qp_mat_t a = weights(adapter, first_a, views.n * r, n_in);
    qp_mat_t u = qp_flow_mat(flow, flow->scratch.inner, views.n * r);
    qp_mat_t du = qp_flow_mat(flow, flow->scratch.dinner, views.n * r);
    QP_TRY(product(flow, 1.0f, qp_lora_input(x), false, a, true, 0.0f, u));
    for (int64_t i = 0; i < views.n; i++, view++) {
        int64_t first = qp_linear_first_out(&flow->base->config, view->linear);
        qp_mat_t dy_i = qp_mat_cols(dy, first, view->n_out);
        QP_TRY(product(flow, adapter->scaling, dy_i, true, qp_mat_cols(u, i * r, r), false, 1.0f,
                       gradients(adapter, view->b, view->n_out, r)));
        QP_TRY(product(flow, adapter->scaling, dy_i, false,
                       weights(adapter, view->b, view->n_out, r), false, 0.0f,
                       qp_mat_cols(du, i * r, r)));
    }
    QP_TRY(product(flow, 1.0f, du, true, qp_lora_input(x), false, 1.0f,
                   gradients(adapter, first_a, views.n * r, n_in)));
    if (qp_dptr_is_null(dx.data))
        return NULL;
    return flow->ops->matmul(flow->q, 1.0f, du, false, a, false, 1.0f, dx, x->mask);
}
