/* Small collectives by (count, dtype); long ones go in pieces, since MPI counts are int. */
#include <limits.h>
#include <string.h>

#include "base/mem.h"
#include "base/minmax.h"
#include "comm/comm_impl.h"

void qp_comm_barrier(qp_comm_t *comm)
{
    QP_MPI_MUST(MPI_Barrier(comm->world));
}

void qp_comm_bcast(qp_comm_t *comm, void *data, int64_t n, qp_dtype_t dtype, int root)
{
    for (int64_t first = 0; first < n; first += QP_COMM_PIECE) {
        int count = (int)qp_min_i64(n - first, QP_COMM_PIECE);
        char *piece = (char *)data + (size_t)first * qp_dtype_bytes(dtype);
        QP_MPI_MUST(MPI_Bcast(piece, count, qp_mpi_type(dtype), root, comm->world));
    }
}

void qp_comm_bcast_block(qp_comm_t *comm, void **data, size_t *n_bytes, int root)
{
    uint64_t bytes = *n_bytes;
    qp_comm_bcast(comm, &bytes, 1, QP_U64, root);
    *n_bytes = (size_t)bytes;
    if (comm->rank != root)
        *data = qp_alloc("comm", *n_bytes);
    qp_comm_bcast(comm, *data, (int64_t)bytes, QP_U8, root);
}

void qp_comm_move(qp_comm_t *comm, void *data, int64_t n, qp_dtype_t dtype, int from, int to)
{
    MPI_Datatype type = qp_mpi_type(dtype);
    for (int64_t first = 0; first < n && from != to; first += QP_COMM_PIECE) {
        int count = (int)qp_min_i64(n - first, QP_COMM_PIECE);
        char *piece = (char *)data + (size_t)first * qp_dtype_bytes(dtype);
        if (comm->rank == from)
            QP_MPI_MUST(MPI_Send(piece, count, type, to, 0, comm->world));
        else if (comm->rank == to)
            QP_MPI_MUST(MPI_Recv(piece, count, type, from, 0, comm->world, MPI_STATUS_IGNORE));
    }
}

static void reduce(qp_comm_t *comm, void *data, int64_t n, qp_dtype_t dtype, MPI_Op op)
{
    QP_ASSERT(n <= QP_COMM_PIECE);
    QP_MPI_MUST(MPI_Allreduce(MPI_IN_PLACE, data, (int)n, qp_mpi_type(dtype), op, comm->world));
}

void qp_comm_sum_i64(qp_comm_t *comm, int64_t *data, int64_t n)
{
    reduce(comm, data, n, QP_I64, MPI_SUM);
}

void qp_comm_max_i64(qp_comm_t *comm, int64_t *data, int64_t n)
{
    reduce(comm, data, n, QP_I64, MPI_MAX);
}

void qp_comm_allgather(qp_comm_t *comm, const void *data, int64_t n, qp_dtype_t dtype, void *out)
{
    QP_ASSERT(n <= QP_COMM_PIECE);
    MPI_Datatype type = qp_mpi_type(dtype);
    QP_MPI_MUST(MPI_Allgather(data, (int)n, type, out, (int)n, type, comm->world));
}

void qp_comm_allgatherv(qp_comm_t *comm, const void *data, int64_t n, qp_dtype_t dtype, void **out,
                        int64_t *counts)
{
    qp_comm_allgather(comm, &n, 1, QP_I64, counts);
    int *count = QP_NEW("comm", int, comm->size);
    int *offset = QP_NEW("comm", int, comm->size);
    int64_t total = 0;
    for (int r = 0; r < comm->size; r++) {
        count[r] = (int)counts[r];
        offset[r] = (int)total;
        total += counts[r];
        QP_ASSERT(total <= INT_MAX);
    }
    *out = qp_alloc("comm", qp_bytes(total, qp_dtype_bytes(dtype)));
    MPI_Datatype type = qp_mpi_type(dtype);
    QP_MPI_MUST(MPI_Allgatherv(data, (int)n, type, *out, count, offset, type, comm->world));
    qp_free(count);
    qp_free(offset);
}

void qp_tree_sum_f32(qp_comm_t *comm, float *data, int64_t n)
{
    qp_tree_sum(&comm->tree, data, n, QP_F32);
}

void qp_tree_sum_f64(qp_comm_t *comm, double *data, int64_t n)
{
    qp_tree_sum(&comm->tree, data, n, QP_F64);
}
