#include "cuda/head/head.cuh"

QP_CUDA_BEGIN
qp_error_t qp_cuda_lm_logits(qp_queue_t *q, qp_mat_t logits, qp_mat_t hidden,
                             const qp_weight_t *head)
{
    QP_ASSERT(head->is_head && logits.dtype == QP_F32 && logits.n_row == hidden.n_row);
    QP_ASSERT(logits.n_col == head->n_out && hidden.n_col == head->n_in);
    if (head->kind == QP_WEIGHT_INT8) {
        const qp_input_t x = qp_input(hidden);
        return qp_cuda_linear_forward(q, logits, &x, head, {});
    }
    qp_head_t h = qp_head(head);
    QP_TRY(qp_head_take(q, &h, hidden));
    return qp_head_logits(q, &h, logits, 0);
}
QP_CUDA_END
