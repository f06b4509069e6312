/* QP_TEST: ranks=1,2
 * The memory plan on devices that have memory of their own and on those that have none: what it
 * adds up, and what it says on every rank when a node or a device is too small. */
#include <stdlib.h>
#include <string.h>

#include "testing.h"
#include "train/run/memory_plan.h"

static qp_memory_plan_t plan_on(qp_comm_t *comm, const char *device_memory)
{
    const qp_device_config_t config = {
        .backend = QP_BACKEND_CHECK, .compute = QP_COMPUTE_FP32, .threads = 1};
    qp_device_t *device = NULL;
    qp_memory_plan_t plan = {0};
    setenv("QUIPU_CHECK_MEMORY", device_memory, 1);
    CHECK_OK(qp_device_open(&config, qp_comm_node_rank(comm), qp_comm_node_size(comm), &device));
    CHECK_OK(qp_memory_plan_init(&plan, comm, device));
    qp_device_close(&device);
    return plan;
}

/* A node with 1000 MB, devices of 100 MB. */
static qp_memory_plan_t with_rows(qp_comm_t *comm, const char *device_memory)
{
    qp_memory_plan_t plan = plan_on(comm, device_memory);
    plan.host_free = 1000000000;
    plan.program = 10000000;
    qp_memory_plan_add(&plan, "base", 60000000, QP_PLACE_DEVICE);
    qp_memory_plan_add(&plan, "workspace", 29999872, QP_PLACE_DEVICE);
    qp_memory_plan_add(&plan, "staging", 5000000, QP_PLACE_RANK);
    qp_memory_plan_add(&plan, "arena", 200000000, QP_PLACE_NODE);
    return plan;
}

static void test_places(qp_comm_t *comm)
{
    const int64_t n = qp_comm_node_size(comm);
    qp_memory_plan_t plan = with_rows(comm, "100000000");
    CHECK(plan.has_device && plan.device_free == 100000000 && plan.n_rank == n);
    CHECK(qp_memory_plan_node_bytes(&plan) == n * 15000000 + 200000000);
    CHECK(qp_memory_plan_device_bytes(&plan) == 89999872);
    CHECK(qp_memory_plan_fits(&plan, 10000128) && !qp_memory_plan_fits(&plan, 10000129));
    CHECK_OK(qp_memory_plan_check(&plan));
    qp_memory_plan_print(&plan);
}

/* A device without memory of its own: everything is the host's. */
static void test_one_place(qp_comm_t *comm)
{
    const int64_t n = qp_comm_node_size(comm);
    qp_memory_plan_t plan = with_rows(comm, "");
    CHECK(!plan.has_device && qp_memory_plan_device_bytes(&plan) == 0);
    CHECK(qp_memory_plan_node_bytes(&plan) == n * 104999872 + 200000000);
    const size_t left = (size_t)((1000000000 - n * 104999872 - 200000000) / n);
    CHECK(qp_memory_plan_fits(&plan, left) && !qp_memory_plan_fits(&plan, left + 1));
    plan.host_free = -1; /* unknown is no limit */
    CHECK(qp_memory_plan_fits(&plan, (size_t)1 << 50));
    CHECK_OK(qp_memory_plan_check(&plan));
}

static void test_device_too_small(qp_comm_t *comm)
{
    qp_memory_plan_t plan = with_rows(comm, "80000000");
    CHECK(!qp_memory_plan_fits(&plan, 0));
    CHECK_FAILS(qp_memory_plan_check(&plan), QP_INPUT,
                "needs 90.0 MB on a device, but only 80.0 MB are available; most of it: base 60.0 "
                "MB per device, workspace 30.0 MB per device (smaller: batch.micro_sequences, "
                "data.seq_length, generate.max_active; or device.recompute");
}

/* The rank whose device is smallest decides for all. */
static void test_smallest_device(qp_comm_t *comm)
{
    const int last = qp_comm_size(comm) - 1;
    qp_memory_plan_t plan = with_rows(comm, qp_comm_rank(comm) == last ? "70000000" : "100000000");
    CHECK(plan.device_free == 70000000);
    CHECK_FAILS(qp_memory_plan_check(&plan), QP_INPUT, "only 70.0 MB are available");
}

static void test_host_too_small(qp_comm_t *comm)
{
    qp_memory_plan_t plan = with_rows(comm, "100000000");
    plan.host_free = 100000000;
    CHECK_FAILS(qp_memory_plan_check(&plan), QP_INPUT,
                "MB on a node, but only 100.0 MB are available; most of it: arena 200.0 MB per "
                "node, staging 5.0 MB per rank (smaller: batch.micro_sequences, data.seq_length, "
                "generate.max_active, ranks per node; or");
    plan = with_rows(comm, "");
    plan.host_free = 100000000;
    CHECK_FAILS(qp_memory_plan_check(&plan), QP_INPUT, "base 60.0 MB per rank");
}

int main(void)
{
    qp_comm_t *comm;
    CHECK_OK(qp_comm_create(&comm));
    test_places(comm);
    test_one_place(comm);
    test_device_too_small(comm);
    test_smallest_device(comm);
    test_host_too_small(comm);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
