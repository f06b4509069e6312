/* QP_TEST: ranks=1,3,4
 * A rank's number on its node where a job has several. Nodes are made up here: the ranks go round
 * them, as some launchers place them. */
#include <mpi.h>

#include "comm/comm.h"
#include "testing.h"

enum { N_NODE = 2 };

/* In place of MPI's. */
int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *part)
{
    int rank;
    (void)info;
    CHECK(type == MPI_COMM_TYPE_SHARED);
    PMPI_Comm_rank(comm, &rank);
    return PMPI_Comm_split(comm, rank % N_NODE, key, part);
}

static void test_nodes(const qp_comm_t *comm)
{
    const int rank = qp_comm_rank(comm), size = qp_comm_size(comm);
    CHECK(qp_comm_n_node(comm) == (size < N_NODE ? size : N_NODE));
    CHECK(qp_comm_node_rank(comm) == rank / N_NODE);
    CHECK(qp_comm_node_size(comm) == (size - rank % N_NODE + N_NODE - 1) / N_NODE);
}

int main(void)
{
    qp_comm_t *comm = NULL;
    CHECK_OK(qp_comm_create(&comm));
    test_nodes(comm);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
