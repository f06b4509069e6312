#include "cuda/linear/impl.h"

qp_dtype_t qp_cuda_linear_dtype(const qp_cuda_device_t *device, const qp_cuda_weight_t *w,
                                bool backward)
{
    if (w->kind == QP_WEIGHT_F32)
        return QP_F32;
    const bool int8 = backward ? w->kind == QP_WEIGHT_INT8 && w->mode.int8_gradient
                               : qp_cuda_weight_is_int8(w) && w->mode.int8_activation;
    return int8 ? QP_I8 : qp_device_dtype(&device->base);
}

/* Whether a product can read x as it is. */
static bool is_ready(const qp_input_t *x, const qp_cuda_weight_t *w, qp_dtype_t dtype,
                     bool backward)
{
    return x->kind == QP_INPUT_PLAIN && qp_dptr_is_null(x->copy.data) && dtype != QP_I8 &&
           !(backward ? w->scale != NULL : w->kind == QP_WEIGHT_INT8);
}

/* The rows of x as the product takes them. */
static qp_error_t prepare(qp_queue_t *q, qp_cuda_linear_t *l, qp_cuda_outliers_t *outliers,
                          const qp_input_t *x)
{
    const qp_dtype_t dtype = qp_cuda_linear_dtype(qp_cuda_device(q), l->w, l->backward);
    const qp_dtype_t compute = qp_device_dtype(q->device);
    const int64_t n_row = x->x.n_row, n_col = qp_input_n_col(x);
    char *at = NULL;
    if (is_ready(x, l->w, dtype, l->backward)) {
        l->a = (qp_cuda_rows_t){.dtype = x->x.dtype,
                                .n_row = n_row,
                                .n_col = n_col,
                                .ld = x->x.ld,
                                .data = (void *)x->x.data.address};
        return NULL;
    }
    const bool llm = l->w->kind == QP_WEIGHT_LLM_INT8 && dtype == QP_I8;
    (void)qp_cuda_rows(dtype, n_row, n_col, &at);
    if (llm)
        (void)qp_cuda_rows(compute, n_row, n_col, &at);
    at = qp_cuda_scratch(q, QP_CUDA_SCRATCH_ACTIVATION, (size_t)at);
    l->a = qp_cuda_rows(dtype, n_row, n_col, &at);
    if (!llm)
        return qp_cuda_linear_prepare(q, &l->a, x, l->w, l->backward);
    const qp_cuda_rows_t thin = qp_cuda_rows(compute, n_row, n_col, &at);
    l->outliers = outliers;
    return qp_cuda_linear_prepare_llm(q, &l->a, &thin, outliers, x, l->w);
}

static qp_error_t linear(qp_queue_t *q, qp_mat_t y, const qp_input_t *x, const qp_weight_t *weight,
                         qp_mat_t add, bool backward)
{
    const qp_cuda_weight_t w = qp_cuda_weight(weight);
    qp_cuda_outliers_t outliers;
    qp_cuda_linear_t l = {.w = &w, .backward = backward, .y = y, .add = add};
    QP_ASSERT(qp_dptr_is_null(add.data) || (add.n_row == y.n_row && add.n_col == y.n_col));
    QP_ASSERT(qp_input_n_col(x) == (backward ? w.n_out : w.n_in));
    QP_ASSERT(y.n_col == (backward ? w.n_in : w.n_out) && y.n_row == x->x.n_row);
    if (y.n_row == 0)
        return NULL;
    QP_TRY(prepare(q, &l, &outliers, x));
    return qp_cuda_linear_product(q, &l);
}

qp_error_t qp_cuda_linear_forward(qp_queue_t *q, qp_mat_t y, const qp_input_t *x,
                                  const qp_weight_t *w, qp_mat_t add)
{
    return linear(q, y, x, w, add, false);
}

qp_error_t qp_cuda_linear_backward(qp_queue_t *q, qp_mat_t dx, const qp_input_t *dy,
                                   const qp_weight_t *w, qp_mat_t add)
{
    return linear(q, dx, dy, w, add, true);
}

void qp_cuda_linear_need(const qp_cuda_device_t *device, const qp_pass_size_t *size,
                         qp_cuda_need_t *need)
{
    qp_cuda_prepare_need(device, size, need);
    qp_cuda_product_need(device, size, need);
}
