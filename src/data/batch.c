#include "data/plan.h"

#include "base/mem.h"
#include "data/shard.h"

void qp_batch_init(qp_batch_t *batch, int64_t n_row, int64_t row_tokens)
{
    int64_t n = n_row * row_tokens;
    *batch = (qp_batch_t){
        .token = QP_NEW("batch", int32_t, n),
        .target = QP_NEW("batch", int32_t, n),
        .position = QP_NEW("batch", int32_t, n),
        .sample = QP_NEW("batch", uint32_t, n),
        .completion = QP_NEW("batch", uint8_t, n),
        .cu_seqlens = QP_NEW("batch", int32_t, n + 1),
        .margin = QP_NEW("batch", float, n),
    };
}

void qp_batch_fini(qp_batch_t *batch)
{
    qp_free(batch->token);
    qp_free(batch->target);
    qp_free(batch->position);
    qp_free(batch->sample);
    qp_free(batch->completion);
    qp_free(batch->cu_seqlens);
    qp_free(batch->margin);
    *batch = (qp_batch_t){0};
}

void qp_batch_clear(qp_batch_t *batch)
{
    batch->n_token = batch->n_seq = batch->n_target = 0;
}

/* Ends the sequence that runs from the last boundary to the last token: positions, identity,
 * targets, margin. */
static void close_sequence(qp_batch_t *batch, bool completion_only, uint32_t identity, float margin)
{
    int64_t first = batch->cu_seqlens[batch->n_seq], end = batch->n_token;
    for (int64_t i = first; i < end; i++) {
        bool counted = i + 1 < end && (!completion_only || batch->completion[i + 1]);
        batch->target[i] = counted ? batch->token[i + 1] : -1;
        batch->n_target += counted;
        batch->position[i] = (int32_t)(i - first);
        batch->sample[i] = identity;
    }
    batch->margin[batch->n_seq] = margin;
    batch->cu_seqlens[++batch->n_seq] = (int32_t)end;
}

static qp_error_t add_piece(qp_batch_t *batch, const qp_dataset_t *dataset, const qp_plan_t *plan,
                            const qp_piece_t *piece)
{
    int64_t at = batch->n_token;
    QP_TRY(qp_dataset_read_run(dataset, piece->sequence, piece->start, piece->n, batch->token + at,
                               batch->completion + at));
    batch->n_token += piece->n;
    bool whole = piece->start + piece->n == qp_dataset_length(dataset, piece->sequence);
    int64_t end = batch->n_token - 1; /* a chat template may write a line end behind the answer */
    while (end > at && batch->completion[end] == 0)
        end--;
    const int32_t last = batch->token[end];
    if (plan->joined && whole && plan->eos.n > 0 && !qp_eos_has(&plan->eos, last))
        return QP_ERROR(QP_INPUT,
                        "%s: a sample ends with token %d, expected EOS (%d): without it, "
                        "data.packing = \"contaminated\" runs samples into each other",
                        qp_dataset_path(dataset, piece->sequence), (int)last,
                        (int)qp_eos_first(&plan->eos));
    return NULL;
}

qp_error_t qp_batch_add_row(qp_batch_t *batch, const qp_dataset_t *dataset, const qp_plan_t *plan,
                            int64_t row, int64_t place)
{
    int64_t row_start = batch->n_token, k = qp_dataset_sequences_per_sample(dataset);
    for (int64_t p = plan->first_piece[row]; p < plan->first_piece[row + 1]; p++) {
        int64_t in_row = batch->cu_seqlens[batch->n_seq] - row_start;
        QP_TRY(add_piece(batch, dataset, plan, &plan->piece[p]));
        if (!plan->joined || p + 1 == plan->first_piece[row + 1])
            close_sequence(batch, plan->completion_only,
                           (uint32_t)(place * plan->row_tokens + in_row),
                           qp_dataset_margin(dataset, plan->piece[p].sequence / k));
    }
    return NULL;
}

qp_error_t qp_plan_visit(qp_comm_t *comm, const qp_dataset_t *dataset, const qp_plan_t *plan,
                         int64_t micro_sequences, int64_t n_row,
                         qp_error_t (*visit)(void *owner, const qp_batch_t *batch), void *owner)
{
    if (n_row <= 0 || n_row > plan->n_row)
        n_row = plan->n_row;
    int64_t n_micro = (n_row + micro_sequences - 1) / micro_sequences, first, end;
    qp_tree_range(n_micro, qp_comm_size(comm), qp_comm_rank(comm), &first, &end);
    qp_batch_t batch;
    qp_batch_init(&batch, micro_sequences, plan->row_tokens);
    qp_error_t error = NULL;
    for (int64_t micro = first; micro < end; micro++) {
        qp_batch_clear(&batch);
        for (int64_t row = micro * micro_sequences;
             row < (micro + 1) * micro_sequences && row < n_row; row++)
            QP_TRY_DONE(qp_batch_add_row(&batch, dataset, plan, row, row));
        QP_TRY_DONE(visit(owner, &batch));
    }
done:
    qp_batch_fini(&batch);
    return error;
}
