/**
 * \file tile.h
 * How a dimension of a product is cut. Ragged batches bring a new number of tokens every time, and
 * each size of a product has to be made ready once; so the pieces come in few sizes: full blocks, a
 * multiple of 16, and less than 16.
 */
#ifndef QP_COMPUTE_CPU_GEMM_TILE_H
#define QP_COMPUTE_CPU_GEMM_TILE_H

#include <stdint.h>

enum {
    QP_CPU_ROWS = 128, /**< rows of a result tile */
    QP_CPU_COLS = 256, /**< columns of one: the weight panel stays in the second-level cache */
    QP_CPU_DEPTH = 512 /**< where the summed dimension is cut */
};

/*
 * oneDNN's kernels, and so the order of their sums, depend on the number of rows. Products of
 * floats whose rows are to stand alone are ours (float.h), or where there is AMX oneDNN's of
 * multiples of so many rows, the height of its tiles.
 */
enum { QP_CPU_ROUND = 16 };

static inline int64_t qp_cpu_round_rows(int64_t n_row)
{
    return (n_row + QP_CPU_ROUND - 1) / QP_CPU_ROUND * QP_CPU_ROUND;
}

/** Sizes of pieces: full blocks, then at most one piece of each other size. */
typedef enum { QP_CUT_FULL, QP_CUT_SIXTEENS, QP_CUT_REST, QP_N_CUT } qp_cpu_cut_kind_t;

typedef struct {
    int64_t n_piece;
    int64_t n_full;
    int64_t size[QP_N_CUT]; /**< 0: there is no such piece */
} qp_cpu_cut_t;

static inline qp_cpu_cut_t qp_cpu_cut(int64_t total, int64_t block)
{
    qp_cpu_cut_t cut = {.n_full = total / block};
    const int64_t left = total % block;
    cut.size[QP_CUT_FULL] = cut.n_full > 0 ? block : 0;
    cut.size[QP_CUT_SIXTEENS] = left / 16 * 16;
    cut.size[QP_CUT_REST] = left % 16;
    cut.n_piece = cut.n_full + (left >= 16) + (left % 16 > 0);
    return cut;
}

static inline qp_cpu_cut_kind_t qp_cpu_cut_kind(const qp_cpu_cut_t *cut, int64_t piece)
{
    if (piece < cut->n_full)
        return QP_CUT_FULL;
    return piece == cut->n_full && cut->size[QP_CUT_SIXTEENS] > 0 ? QP_CUT_SIXTEENS : QP_CUT_REST;
}

/** Full blocks and at most one smaller piece: where nothing has to be made ready for its size. */
static inline qp_cpu_cut_t qp_cpu_cut_coarse(int64_t total, int64_t block)
{
    qp_cpu_cut_t cut = {.n_piece = (total + block - 1) / block, .n_full = total / block};
    cut.size[QP_CUT_FULL] = cut.n_full > 0 ? block : 0;
    cut.size[QP_CUT_SIXTEENS] = total % block;
    return cut;
}

/** Where piece \a piece begins. */
static inline int64_t qp_cpu_cut_first(const qp_cpu_cut_t *cut, int64_t piece)
{
    if (piece <= cut->n_full)
        return piece * cut->size[QP_CUT_FULL];
    return cut->n_full * cut->size[QP_CUT_FULL] + cut->size[QP_CUT_SIXTEENS];
}

#endif
