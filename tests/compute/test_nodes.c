/* QP_TEST: ranks=1,3,4 check=0
 * Which GPU a rank gets where a job has several nodes: its number on its node says so, not its
 * number in the job. Nodes are made up here: the ranks go round them, as some launchers place them.
 */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "compute/ops.h"
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

#ifdef CUDA_ON_CPU
/* Each node has two GPUs, as the stand-in for CUDA shows them. */
static void test_device(const qp_comm_t *comm)
{
    const qp_device_config_t config = {.backend = QP_BACKEND_AUTO, .threads = 1};
    qp_device_t *device = NULL;
    char gpu[32];
    CHECK(setenv("CUDA_ON_CPU_DEVICES", "2", 1) == 0);
    if (!CHECK_OK(
            qp_device_open(&config, qp_comm_node_rank(comm), qp_comm_node_size(comm), &device)))
        return;
    snprintf(gpu, sizeof gpu, "GPU %d,", qp_comm_rank(comm) / N_NODE);
    CHECK(strcmp(device->ops->name, "cuda") != 0 ||
          strstr(qp_device_describe(device), gpu) != NULL);
    qp_device_close(&device);
}
#endif

int main(void)
{
    qp_comm_t *comm = NULL;
    CHECK_OK(qp_comm_create(&comm));
    test_nodes(comm);
#ifdef CUDA_ON_CPU
    test_device(comm);
#endif
    qp_comm_destroy(&comm);
    return qp_test_end();
}
