#include "compute/budget.h"

#include <string.h>

static qp_budget_row_t *row_of(qp_budget_t *budget, const char *label)
{
    for (int i = 0; i < budget->n; i++)
        if (strcmp(budget->row[i].label, label) == 0)
            return &budget->row[i];
    return NULL;
}

void qp_budget_add(qp_budget_t *budget, const char *label, size_t bytes)
{
    qp_budget_row_t *row = row_of(budget, label);
    if (row == NULL) {
        QP_ASSERT(budget->n < QP_BUDGET_ROWS);
        row = &budget->row[budget->n++];
        *row = (qp_budget_row_t){.label = label};
    }
    row->bytes += qp_budget_piece(bytes);
}

size_t qp_budget_bytes(const qp_budget_t *budget)
{
    size_t bytes = 0;
    for (int i = 0; i < budget->n; i++)
        bytes += budget->row[i].bytes;
    return bytes;
}

size_t qp_budget_place(qp_budget_t *budget)
{
    size_t bytes = 0;
    for (int i = 0; i < budget->n; i++) {
        budget->row[i].first = bytes;
        bytes += budget->row[i].bytes;
    }
    return bytes;
}

qp_error_t qp_budget_take(qp_budget_t *budget, const char *label, size_t bytes, size_t *at)
{
    qp_budget_row_t *row = row_of(budget, label);
    const size_t piece = qp_budget_piece(bytes);
    if (row == NULL || piece > row->bytes - row->top)
        return QP_ERROR(QP_INTERNAL,
                        "%s: %zu bytes of the device are wanted beyond the memory plan, which has "
                        "%zu for it, %zu of them in use",
                        label, bytes, row == NULL ? 0 : row->bytes, row == NULL ? 0 : row->alive);
    *at = row->first + row->top;
    row->top += piece;
    row->alive += piece;
    if (row->alive > row->peak)
        row->peak = row->alive;
    return NULL;
}

void qp_budget_give_back(qp_budget_t *budget, const char *label, size_t bytes)
{
    qp_budget_row_t *row = row_of(budget, label);
    const size_t piece = qp_budget_piece(bytes);
    QP_ASSERT(row != NULL && piece <= row->alive);
    row->alive -= piece;
    if (row->alive == 0)
        row->top = 0;
}
