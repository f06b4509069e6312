/**
 * \file budget.h
 * What a run may take of a device's own memory, label by label: the memory plan as the device is
 * given it. The device takes all of it in one piece, of which each row is a part; so a run that
 * finds no room finds that before it has begun, and nothing is allocated that was not planned.
 */
#ifndef QP_COMPUTE_BUDGET_H
#define QP_COMPUTE_BUDGET_H

#include <stddef.h>

#include "base/error.h"

enum { QP_BUDGET_ALIGN = 256, QP_BUDGET_ROWS = 12 };

/** What a piece of so many bytes takes of a budget. */
static inline size_t qp_budget_piece(size_t bytes)
{
    return ((bytes == 0 ? 1 : bytes) + QP_BUDGET_ALIGN - 1) / QP_BUDGET_ALIGN * QP_BUDGET_ALIGN;
}

typedef struct {
    const char *label; /**< of alloc(); a static string */
    size_t bytes;      /**< planned: of all pieces that are alive at once */
    size_t first;      /**< where its part begins */
    size_t top;        /**< the next piece begins here in it */
    size_t alive, peak;
} qp_budget_row_t;

/** {0}: nothing was planned, and whatever is asked for is given. */
typedef struct {
    int n;
    qp_budget_row_t row[QP_BUDGET_ROWS];
} qp_budget_t;

/** Adds to the row of the label, which is made on first use. */
void qp_budget_add(qp_budget_t *budget, const char *label, size_t bytes);
/** Of all rows; places them one behind another. */
size_t qp_budget_place(qp_budget_t *budget);
size_t qp_budget_bytes(const qp_budget_t *budget);

/** A piece of the label's row; *at: its place. QP_INTERNAL: more than was planned. */
qp_error_t qp_budget_take(qp_budget_t *budget, const char *label, size_t bytes, size_t *at);
/** The piece is free. Its place is used again when all pieces of the row are. */
void qp_budget_give_back(qp_budget_t *budget, const char *label, size_t bytes);

#endif
