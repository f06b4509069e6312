/** \file base_read.h  Pieces of a base file in host memory, checked. */
#ifndef QP_MODEL_BASE_BASE_READ_H
#define QP_MODEL_BASE_BASE_READ_H

#include "base/hash.h"
#include "model/base/base_piece.h"

/** The data sets of a tensor: its rows, and what each row has besides. */
typedef enum { QP_BASE_ROWS, QP_BASE_SCALES, QP_BASE_BIASES, QP_BASE_N_SET } qp_base_set_t;

/** Reads item after item, each from its first piece to its last; starts as {.file = ...}. */
typedef struct {
    const qp_h5_t *file;
    qp_hash_t *hash[QP_BASE_N_SET]; /**< of what has been read of a data set so far */
    int64_t n_bytes;                /**< read of tensors, in all */
} qp_base_reader_t;

/**
 * Reads a piece into the block at \a to. QP_INPUT naming file and tensor: another shape, at its
 * last row another checksum, a norm, scale or bias that is not finite, a scale below 0.
 */
qp_error_t qp_base_read_piece(qp_base_reader_t *reader, const qp_base_piece_t *piece, void *to);
void qp_base_reader_fini(qp_base_reader_t *reader);

#endif
