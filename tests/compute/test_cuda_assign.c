/* QP_TEST: ranks=1,2,3,4 labels=cuda
 * Which GPU a rank gets, whatever its launcher shows it. */
#include <stdio.h>
#include <stdlib.h>

#include "comm/comm.h"
#include "compute/device.h"
#include "testing.h"

#ifdef CUDA_ON_CPU

static const qp_device_config_t cuda = {.backend = QP_BACKEND_CUDA};

/* The node has n GPUs, of which this rank sees those in the list; NULL: all. */
static void show(int n, const char *list)
{
    char number[16];
    snprintf(number, sizeof number, "%d", n);
    CHECK(setenv("CUDA_ON_CPU_DEVICES", number, 1) == 0);
    CHECK((list != NULL ? setenv("CUDA_VISIBLE_DEVICES", list, 1)
                        : unsetenv("CUDA_VISIBLE_DEVICES")) == 0);
}

static void test_assigned(qp_comm_t *comm, int expected)
{
    int index = -1;
    CHECK_OK(qp_device_assign(comm, &cuda, &index));
    CHECK(index == expected);
}

/* Slurm's --gpus-per-task, and scripts that set CUDA_VISIBLE_DEVICES to the local rank. */
static void test_own_each(qp_comm_t *comm)
{
    char list[32];
    snprintf(list, sizeof list, "%d", qp_comm_rank(comm));
    show(4, list);
    test_assigned(comm, 0);
    snprintf(list, sizeof list, "%d,%d", 2 * qp_comm_rank(comm) + 1, 2 * qp_comm_rank(comm));
    show(8, list);
    test_assigned(comm, 0);
}

/* Nodes of two GPUs, the ranks dealt out to them in turn or in blocks. */
static void test_nodes(qp_comm_t *comm)
{
    const int rank = qp_comm_rank(comm), size = qp_comm_size(comm), n_node = (size + 1) / 2;
    const struct {
        int node, index;
    } ways[] = {{rank % n_node, rank / n_node}, {rank / 2, rank % 2}};
    for (int i = 0; i < 2; i++) {
        char node[16];
        snprintf(node, sizeof node, "node%d", ways[i].node);
        CHECK(setenv("CUDA_ON_CPU_NODE", node, 1) == 0);
        show(2, NULL);
        test_assigned(comm, ways[i].index);
    }
    CHECK(unsetenv("CUDA_ON_CPU_NODE") == 0);
}

static void test_too_few(qp_comm_t *comm)
{
    int index;
    show(qp_comm_size(comm) - 1, NULL);
    CHECK_FAILS(qp_device_assign(comm, &cuda, &index), QP_INPUT,
                qp_comm_size(comm) == 1 ? "no GPU" : "taken by other ranks of its node");
    show(8, "5"); /* all ranks the same one */
    if (qp_comm_size(comm) > 1)
        CHECK_FAILS(qp_device_assign(comm, &cuda, &index), QP_INPUT,
                    "rank 1 sees 1 GPU, taken by other ranks of its node: one rank per GPU");
    show(8, qp_comm_rank(comm) == qp_comm_size(comm) - 1 ? "" : NULL); /* one sees none */
    CHECK_FAILS(qp_device_assign(comm, &cuda, &index), QP_INPUT, "no GPU that CUDA can use");
}

int main(void)
{
    qp_comm_t *comm = NULL;
    CHECK_OK(qp_comm_create(&comm));
    show(4, NULL);
    test_assigned(comm, qp_comm_rank(comm));
    show(8, "6,1,3,4");
    test_assigned(comm, qp_comm_rank(comm));
    test_own_each(comm);
    test_nodes(comm);
    test_too_few(comm);
    const qp_device_config_t cpu = {.backend = QP_BACKEND_CPU};
    int index = -1;
    CHECK_OK(qp_device_assign(comm, &cpu, &index));
    CHECK(index == 0);
    qp_comm_destroy(&comm);
    return qp_test_end();
}

#else

int main(void)
{
    return 77; /* the machine has the GPUs that it has */
}

#endif
