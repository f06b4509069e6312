/*
 * The deterministic reduction. The ranks [lo, hi) of a node are split at qp_tree_split(lo, hi); the
 * sum of a node is the sum of its left half plus the sum of its right half. One algorithm serves
 * every rank count: each rank collects all contributions to its piece of the array (all-to-all),
 * adds them in the order of the tree, and the pieces are gathered everywhere. That moves as few
 * bytes as any all-reduce.
 */
#include "comm/tree.h"

#include <time.h>

#include "base/mem.h"
#include "base/minmax.h"
#include "comm/comm.h"
#include "comm/mpi_check.h"

void qp_tree_range(int64_t n_leaf, int n_rank, int rank, int64_t *first, int64_t *end)
{
    int64_t lo = 0, hi = n_leaf;
    int64_t rank_lo = 0, rank_hi = n_rank;
    while (rank_hi - rank_lo > 1) {
        int64_t rank_middle = qp_tree_split(rank_lo, rank_hi);
        /* In proportion to the ranks: the middle when their number is even. */
        int64_t middle = lo + (hi - lo) * (rank_middle - rank_lo) / (rank_hi - rank_lo);
        if (rank < rank_middle) {
            hi = middle;
            rank_hi = rank_middle;
        } else {
            lo = middle;
            rank_lo = rank_middle;
        }
    }
    *first = lo;
    *end = hi;
}

int qp_tree_merges(int64_t first, int64_t end, int64_t leaf)
{
    int n_merge = 0;
    while (end - first > 1) { /* walks down to the leaf; every node that ends with it is complete */
        n_merge += end == leaf + 1;
        int64_t middle = qp_tree_split(first, end);
        if (leaf < middle)
            end = middle;
        else
            first = middle;
    }
    return n_merge;
}

int qp_tree_depth(int64_t n_leaf)
{
    int depth = 1;
    for (; n_leaf > 1; n_leaf -= qp_tree_split(0, n_leaf)) /* the right half is the larger */
        depth++;
    return depth;
}

void qp_tree_init(qp_tree_t *tree, MPI_Comm comm, bool patient)
{
    *tree = (qp_tree_t){.comm = comm, .patient = patient};
    QP_MPI_MUST(MPI_Comm_rank(comm, &tree->rank));
    QP_MPI_MUST(MPI_Comm_size(comm, &tree->size));
    tree->count = QP_NEW("comm", int, 4 * (int64_t)tree->size);
}

void qp_tree_fini(qp_tree_t *tree)
{
    qp_free(tree->count);
    qp_free(tree->pieces);
    *tree = (qp_tree_t){0};
}

static void add_f32(float *restrict left, const float *restrict right, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        left[i] = left[i] + right[i];
}

static void add_f64(double *restrict left, const double *restrict right, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        left[i] = left[i] + right[i];
}

/* Adds the contributions of ranks [lo, hi), each n elements, into that of lo. */
static void fold(void *pieces, int64_t n, qp_dtype_t dtype, int64_t lo, int64_t hi)
{
    if (hi - lo <= 1)
        return;
    int64_t middle = qp_tree_split(lo, hi);
    fold(pieces, n, dtype, lo, middle);
    fold(pieces, n, dtype, middle, hi);
    if (dtype == QP_F32)
        add_f32((float *)pieces + lo * n, (float *)pieces + middle * n, n);
    else
        add_f64((double *)pieces + lo * n, (double *)pieces + middle * n, n);
}

/* Waits for a request; a patient waiter leaves its core to the computing threads. */
static void wait_for(const qp_tree_t *tree, MPI_Request *request)
{
    int done = !tree->patient;
    if (done)
        QP_MPI_MUST(MPI_Wait(request, MPI_STATUS_IGNORE));
    while (!done) {
        QP_MPI_MUST(MPI_Test(request, &done, MPI_STATUS_IGNORE));
        if (!done)
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
}

static void sum_chunk(qp_tree_t *tree, void *data, int64_t n, qp_dtype_t dtype)
{
    int size = tree->size;
    int *piece = tree->count, *piece_offset = piece + size;        /* of every rank, in data */
    int *mine = piece + 2 * size, *mine_offset = piece + 3 * size; /* mine from every rank */
    for (int r = 0; r < size; r++) {
        piece_offset[r] = (int)(n * r / size);
        piece[r] = (int)(n * (r + 1) / size) - piece_offset[r];
    }
    for (int r = 0; r < size; r++) {
        mine[r] = piece[tree->rank];
        mine_offset[r] = r * mine[r];
    }
    MPI_Datatype type = qp_mpi_type(dtype);
    MPI_Request request;
    QP_MPI_MUST(MPI_Ialltoallv(data, piece, piece_offset, type, tree->pieces, mine, mine_offset,
                               type, tree->comm, &request));
    wait_for(tree, &request);
    fold(tree->pieces, mine[0], dtype, 0, size);
    QP_MPI_MUST(MPI_Iallgatherv(tree->pieces, mine[0], type, data, piece, piece_offset, type,
                                tree->comm, &request));
    wait_for(tree, &request);
}

void qp_tree_sum(qp_tree_t *tree, void *data, int64_t n, qp_dtype_t dtype)
{
    if (tree->size == 1)
        return;
    size_t bytes = qp_dtype_bytes(dtype);
    int64_t n_chunk = qp_min_i64(n, QP_TREE_CHUNK);
    size_t needed = qp_bytes(n_chunk + tree->size, bytes);
    if (tree->n_bytes < needed) {
        qp_free(tree->pieces);
        tree->pieces = qp_alloc("comm", needed);
        tree->n_bytes = needed;
    }
    for (int64_t first = 0; first < n; first += n_chunk)
        sum_chunk(tree, (char *)data + (size_t)first * bytes, qp_min_i64(n - first, n_chunk),
                  dtype);
}
