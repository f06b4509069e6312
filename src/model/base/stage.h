/**
 * \file stage.h
 * Node-shared memory that passes blocks from who reads a file to who wants them. Each rank of the
 * node fills a ring of slots of its own; a slot is filled again when all its takers are done with
 * it. Whoever fails says stop, and nobody waits any more.
 */
#ifndef QP_MODEL_BASE_STAGE_H
#define QP_MODEL_BASE_STAGE_H

#include "comm/comm.h"

/** A taker that is not yet done with one block can place the next while a third is read. */
enum { QP_STAGE_SLOTS = 3 };

typedef struct qp_stage qp_stage_t;

/** As many rings as the node has ranks; each block has \a n_taker takers. Collective. */
qp_error_t qp_stage_create(qp_comm_t *comm, size_t slot_bytes, int n_taker, qp_stage_t **stage);
/** When all ranks of the node are done. Nulls; NULL allowed. Collective. */
void qp_stage_destroy(qp_comm_t *comm, qp_stage_t **stage);

/** All slots as one block of whole pages. */
void *qp_stage_memory(const qp_stage_t *stage);
size_t qp_stage_bytes(const qp_stage_t *stage);
/** Where block \a index (0, 1, ...) of a ring stands. */
void *qp_stage_slot(const qp_stage_t *stage, int ring, int64_t index);

/** Waits until the block's slot is free to be filled; false: stop. */
bool qp_stage_wait_free(qp_stage_t *stage, int ring, int64_t index);
/** The block, the ring's next one, may be taken. */
void qp_stage_fill(qp_stage_t *stage, int ring, int64_t index);
/** Waits until the block may be taken; false: stop. */
bool qp_stage_wait_filled(qp_stage_t *stage, int ring, int64_t index);
/** One of its takers is done with the block. */
void qp_stage_release(qp_stage_t *stage, int ring, int64_t index);
/** Nobody waits any more. */
void qp_stage_stop(qp_stage_t *stage);

#endif
