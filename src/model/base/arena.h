/**
 * \file arena.h
 * One block of device memory carved into buffers. The same lay-out function runs twice: from the
 * null address to learn the size, then on the real block.
 */
#ifndef QP_MODEL_BASE_ARENA_H
#define QP_MODEL_BASE_ARENA_H

#include "compute/device.h"

typedef struct {
    qp_dptr_t start;
    size_t used_bytes;
} qp_arena_t;

/** The next \a bytes, aligned to 64. */
static inline qp_dptr_t qp_arena_take(qp_arena_t *arena, size_t bytes)
{
    qp_dptr_t p = qp_dptr_at(arena->start, arena->used_bytes);
    arena->used_bytes += (bytes + 63) / 64 * 64;
    return p;
}

/** A dense matrix. */
static inline qp_mat_t qp_arena_mat(qp_arena_t *arena, qp_dtype_t dtype, int64_t n_row,
                                    int64_t n_col)
{
    size_t bytes = (size_t)(n_row * n_col) * qp_dtype_bytes(dtype);
    return qp_mat(qp_arena_take(arena, bytes), dtype, n_row, n_col);
}

/** A vector of 4-byte elements. */
static inline qp_dptr_t qp_arena_vector(qp_arena_t *arena, int64_t n)
{
    return qp_arena_take(arena, (size_t)n * 4);
}

#endif
