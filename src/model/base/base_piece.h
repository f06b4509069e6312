/**
 * \file base_piece.h
 * What of a base file goes where: the base as a list of items, each cut into pieces of some rows
 * that are read, passed on and put in place at once. All ranks of a node make the same list.
 */
#ifndef QP_MODEL_BASE_BASE_PIECE_H
#define QP_MODEL_BASE_BASE_PIECE_H

#include "model/base/base.h"

enum { QP_BASE_MAX_STACKED = 3, QP_BASE_MAX_NAME = 128 };

/** Tensors of the file, one below the other: a weight, or a matrix that is stored as it is. */
typedef struct {
    const qp_weight_t *weight; /**< NULL: the rows go to plain */
    qp_mat_t plain;
    struct {
        char name[QP_BASE_MAX_NAME]; /**< of the data sets, without ".weight", ".bias" ... */
        int64_t n_row;
    } tensor[QP_BASE_MAX_STACKED];
    int n_tensor;
    qp_dtype_t dtype;
    int64_t n_row, n_col; /**< of all tensors together; a vector has one column */
    int64_t piece_rows;
    int ring; /**< who reads it: a rank of the node */
} qp_base_item_t;

typedef struct {
    qp_base_item_t *item; /**< [n] */
    int64_t n, capacity;
    size_t piece_bytes; /**< of the largest piece */
} qp_base_items_t;

/** All of a base that has been laid out, but the rotary table; rings [n_ring] get about as many
 * bytes each. */
void qp_base_items_init(const qp_base_t *base, int n_ring, qp_base_items_t *items);
void qp_base_items_fini(qp_base_items_t *items);

/** Rows [first, first + n_row) of an item in one block: the rows, then their scales and biases. */
typedef struct {
    const qp_base_item_t *item;
    int64_t first, n_row;
    int64_t index;      /**< of its ring's pieces */
    size_t scale, bias; /**< where the block has [n_row] fp32; 0: none */
    size_t n_bytes;     /**< of the block */
} qp_base_piece_t;

/** Goes to the next piece of a ring; {0} is before the first. The rows of an item come in order. */
bool qp_base_next_piece(const qp_base_items_t *items, int ring, qp_base_piece_t *piece);

#endif
