#include "model/adapter.h"
#include "model/layer.h"

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

/*
 * One mask per group: the targets of a group share the dropped input, so their A make one product.
 * (PEFT draws a mask per target; the expectation is the same.)
 */
static qp_philox_key_t dropout_key(const qp_flow_t *flow, int64_t layer, qp_group_t group)
{
    qp_philox_key_t key = flow->key;
    key.site = (uint32_t)(QP_SITE_DROPOUT + layer * QP_N_GROUP + (int64_t)group);
    return key;
}

/* The input of the adapter: *x itself, or its dropped copy in scratch. */
static qp_error_t drop(const qp_flow_t *flow, int64_t layer, qp_group_t group, qp_mat_t *x)
{
    if (flow->dropout == 0.0f)
        return NULL;
    qp_mat_t dropped = qp_flow_mat(flow, flow->scratch.dropped, x->n_col);
    qp_philox_key_t key = dropout_key(flow, layer, group);
    QP_TRY(flow->ops->dropout(flow->q, dropped, *x, flow->dropout, &key, &flow->batch, false));
    *x = dropped;
    return NULL;
}

qp_error_t qp_lora_forward(const qp_flow_t *flow, int64_t layer, qp_group_t group, qp_mat_t y,
                           qp_mat_t x)
{
    if (!qp_lora_has(flow, layer, group))
        return NULL;
    const qp_adapter_t *adapter = flow->adapter;
    const qp_ops_t *ops = flow->ops;
    qp_lora_group_t views = qp_adapter_group(adapter, layer, group);
    const qp_lora_view_t *view = adapter->view + views.first;
    int64_t r = adapter->r;
    QP_TRY(drop(flow, layer, group, &x));
    qp_mat_t a = weights(adapter, view->a, views.n * r, view->n_in);
    qp_mat_t u = qp_flow_mat(flow, flow->scratch.inner, views.n * r);
    QP_TRY(ops->matmul(flow->q, 1.0f, x, false, a, true, 0.0f, u));
    for (int64_t i = 0; i < views.n; i++, view++) {
        int64_t first = qp_linear_first_out(&flow->base->config, view->linear);
        QP_TRY(ops->matmul(flow->q, adapter->scaling, qp_mat_cols(u, i * r, r), false,
                           weights(adapter, view->b, view->n_out, r), true, 1.0f,
                           qp_mat_cols(y, first, view->n_out)));
    }
    return NULL;
}

/* dx += dropout'(du A) */
static qp_error_t input_gradient(const qp_flow_t *flow, int64_t layer, qp_group_t group,
                                 qp_mat_t dx, qp_mat_t du, qp_mat_t a)
{
    if (flow->dropout == 0.0f)
        return flow->ops->matmul(flow->q, 1.0f, du, false, a, false, 1.0f, dx);
    qp_mat_t dropped = qp_flow_mat(flow, flow->scratch.dropped, a.n_col);
    qp_philox_key_t key = dropout_key(flow, layer, group);
    QP_TRY(flow->ops->matmul(flow->q, 1.0f, du, false, a, false, 0.0f, dropped));
    return flow->ops->dropout(flow->q, dx, dropped, flow->dropout, &key, &flow->batch, true);
}

qp_error_t qp_lora_backward(const qp_flow_t *flow, int64_t layer, qp_group_t group, qp_mat_t dx,
                            qp_mat_t dy, qp_mat_t x)
{
    if (!qp_lora_has(flow, layer, group))
        return NULL;
    const qp_adapter_t *adapter = flow->adapter;
    const qp_ops_t *ops = flow->ops;
    qp_lora_group_t views = qp_adapter_group(adapter, layer, group);
    const qp_lora_view_t *view = adapter->view + views.first;
    int64_t r = adapter->r, n_in = view->n_in, first_a = view->a;
    QP_TRY(drop(flow, layer, group, &x));
    qp_mat_t a = weights(adapter, first_a, views.n * r, n_in);
    qp_mat_t u = qp_flow_mat(flow, flow->scratch.inner, views.n * r);
    qp_mat_t du = qp_flow_mat(flow, flow->scratch.dinner, views.n * r);
    QP_TRY(ops->matmul(flow->q, 1.0f, x, false, a, true, 0.0f, u));
    for (int64_t i = 0; i < views.n; i++, view++) {
        int64_t first = qp_linear_first_out(&flow->base->config, view->linear);
        qp_mat_t dy_i = qp_mat_cols(dy, first, view->n_out);
        QP_TRY(ops->matmul(flow->q, adapter->scaling, dy_i, true, qp_mat_cols(u, i * r, r), false,
                           1.0f, gradients(adapter, view->b, view->n_out, r)));
        QP_TRY(ops->matmul(flow->q, adapter->scaling, dy_i, false,
                           weights(adapter, view->b, view->n_out, r), false, 0.0f,
                           qp_mat_cols(du, i * r, r)));
    }
    QP_TRY(ops->matmul(flow->q, 1.0f, du, true, x, false, 1.0f,
                       gradients(adapter, first_a, views.n * r, n_in)));
    return qp_dptr_is_null(dx.data) ? NULL : input_gradient(flow, layer, group, dx, du, a);
}
