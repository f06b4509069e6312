/**
 * \file comm.h
 * Ranks and nodes, agreed decisions, deterministic reductions and node-shared memory.
 * Counts are elements, never bytes, unless a name ends in _bytes.
 */
#ifndef QP_COMM_COMM_H
#define QP_COMM_COMM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"

/** All ranks of the job and the ranks of this node; opaque. */
typedef struct qp_comm qp_comm_t;

/**
 * Starts MPI (THREAD_MULTIPLE) if nobody has, and splits by node. Collective over all ranks.
 * Also initialises the log's rank.
 */
qp_error_t qp_comm_create(qp_comm_t **comm);

/** Destroys the handle; finalizes MPI if create started it. Collective. */
void qp_comm_destroy(qp_comm_t **comm);

/** Ends the whole job at once with \a code, after flushing; for errors where no agreement is
 * possible. */
__attribute__((noreturn)) void qp_comm_abort(qp_comm_t *comm, int code);

int qp_comm_rank(const qp_comm_t *comm);
int qp_comm_size(const qp_comm_t *comm);
int qp_comm_node_rank(const qp_comm_t *comm);
int qp_comm_node_size(const qp_comm_t *comm);
int qp_comm_n_node(const qp_comm_t *comm);

/** The MPI_Comm inside, by value as void* for the h5 module only: *(MPI_Comm *)qp_comm_mpi(c). */
const void *qp_comm_mpi(const qp_comm_t *comm);

/* --- agreed decisions ------------------------------------------------------------------------- */

/**
 * Collective. If any rank passes an error, every rank returns one: the error of the lowest failing
 * rank, with its code and message (prefixed "rank N: " when there is more than one rank and N > 0).
 * Takes ownership of \a local. Call it after rank-local work that can fail, before the next
 * collective.
 */
__attribute__((warn_unused_result)) qp_error_t qp_comm_agree(qp_comm_t *comm, qp_error_t local);

/** Collective. Bitwise OR of every rank's word. */
uint64_t qp_comm_agree_bits(qp_comm_t *comm, uint64_t bits);

/* --- small collectives ------------------------------------------------------------------------ */

void qp_comm_barrier(qp_comm_t *comm);
void qp_comm_bcast(qp_comm_t *comm, void *data, int64_t n, qp_dtype_t dtype, int root);
/** Broadcasts a byte block whose size only the root knows; *data is allocated on the others
 * (qp_free). */
void qp_comm_bcast_block(qp_comm_t *comm, void **data, size_t *n_bytes, int root);
/** One block from rank \a from (data is read) to rank \a to (data is filled); others return at
 * once. */
void qp_comm_move(qp_comm_t *comm, void *data, int64_t n, qp_dtype_t dtype, int from, int to);
void qp_comm_sum_i64(qp_comm_t *comm, int64_t *data, int64_t n);
void qp_comm_max_i64(qp_comm_t *comm, int64_t *data, int64_t n);
/** Gathers n elements of every rank on every rank: out has size * n elements, in rank order. */
void qp_comm_allgather(qp_comm_t *comm, const void *data, int64_t n, qp_dtype_t dtype, void *out);
/** Ragged all-gather (fewer than 2^31 elements in all); *out is allocated (qp_free), counts [size]
 * gets every rank's n. */
void qp_comm_allgatherv(qp_comm_t *comm, const void *data, int64_t n, qp_dtype_t dtype, void **out,
                        int64_t *counts);

/* --- the deterministic reduction -------------------------------------------------------------- */

/**
 * The tree. A node [lo, hi) of leaves (or of ranks) has the children [lo, split) and [split, hi);
 * its sum is the sum of the left child plus the sum of the right one.
 */
static inline int64_t qp_tree_split(int64_t lo, int64_t hi)
{
    return lo + (hi - lo) / 2;
}

/**
 * The leaves [0, n_leaf) of the global batch (its micro-batches) belong to ranks by halving: ranks
 * and leaves are split in halves together by qp_tree_split(), so for rank counts that are powers of
 * two every rank owns one node of the tree of all leaves (or none: with fewer leaves than ranks),
 * and local tree sums followed by qp_tree_sum_*() give the same tree, whatever the rank count. A
 * rank without leaves contributes zeros. Gives this rank's [first, end).
 */
void qp_tree_range(int64_t n_leaf, int n_rank, int rank, int64_t *first, int64_t *end);

/**
 * The local tree sum of the leaves [first, end), in order, on a stack: push leaf \a leaf, then as
 * many times as this says replace the top two (left below right) by left + right. After the last
 * leaf one entry is left, the sum. The stack never holds more than qp_tree_depth(end - first)
 * entries.
 */
int qp_tree_merges(int64_t first, int64_t end, int64_t leaf);
int qp_tree_depth(int64_t n_leaf);

/** Elements summed at once: small enough for the cache, large enough to hide latencies. */
enum { QP_TREE_CHUNK = 1 << 20 };

/**
 * Sum over ranks in the fixed binary tree of halved rank ranges (left + right at each node); all
 * ranks get the same bits. Host memory, in place. Collective. The order of additions is the one of
 * qp_tree_range(), so local tree sums continue seamlessly.
 */
void qp_tree_sum_f32(qp_comm_t *comm, float *data, int64_t n);
void qp_tree_sum_f64(qp_comm_t *comm, double *data, int64_t n);

/**
 * The same sum on a communicator of its own, for one helper thread: it may run beside anything else
 * on \a comm, and sleeps between polls, so that the computing threads keep their cores. Create and
 * destroy are collective.
 */
typedef struct qp_tree_group qp_tree_group_t;
qp_error_t qp_tree_group_create(qp_comm_t *comm, qp_tree_group_t **group);
void qp_tree_group_sum_f32(qp_tree_group_t *group, float *data, int64_t n);
/** Nulls; NULL allowed. */
void qp_tree_group_destroy(qp_tree_group_t **group);

/* --- cores ------------------------------------------------------------------------------------ */

/**
 * Cores that this rank can count on, at least 1. Where the ranks of a node may all use the same
 * cores, each gets its own part of them, neighbours first (packages, then caches, then cores, then
 * their hardware threads), and with \a bind the calling thread, and threads that it starts from
 * then on, stay there. A launcher's own binding (different cores for different ranks) is left
 * alone, and nothing is bound where a rank wants more threads (\a n_thread, 0: as many as cores)
 * than its part has. Collective.
 */
int qp_comm_take_cores(qp_comm_t *comm, int64_t n_thread, bool bind);

/* --- node-shared memory ----------------------------------------------------------------------- */

/** One block of memory per node, mapped by every rank of the node. */
typedef struct qp_shared qp_shared_t;

/** OWN: only where a rank is alone on its node. */
typedef enum { QP_SHARED_WINDOW, QP_SHARED_MEMFD, QP_SHARED_OWN } qp_shared_kind_t;

/**
 * Collective over all ranks; every rank of a node passes the same \a bytes. Uses
 * MPI_Win_allocate_shared, or a memfd of the node's first rank when /dev/shm is too small. Counted
 * under \a label (a static string) by the node's first rank only. Zeroed; aligned to 4096.
 */
qp_error_t qp_shared_create(qp_comm_t *comm, const char *label, size_t bytes, qp_shared_t **shared);
/** The same with the kind of memory named by the caller. */
qp_error_t qp_shared_create_as(qp_comm_t *comm, const char *label, size_t bytes,
                               qp_shared_kind_t kind, qp_shared_t **shared);
void *qp_shared_data(const qp_shared_t *shared);
/** Makes all writes of the node's ranks visible to each other. Collective over the node. */
void qp_shared_fence(qp_comm_t *comm, qp_shared_t *shared);
/** Collective over the node. NULL is allowed. */
void qp_shared_destroy(qp_comm_t *comm, qp_shared_t **shared);

#endif
