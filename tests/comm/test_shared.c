/* QP_TEST: ranks=1,2,3,4
 * Node-shared memory of all kinds: zeroed, aligned, one copy, counted once. */
#include <stdint.h>

#include "base/mem.h"
#include "comm/comm.h"
#include "testing.h"

static void test_block(qp_comm_t *comm, qp_shared_t *shared, size_t bytes, int64_t alive_before)
{
    uint8_t *data = qp_shared_data(shared);
    int rank = qp_comm_node_rank(comm), size = qp_comm_node_size(comm);
    CHECK((uintptr_t)data % 4096 == 0);
    int64_t expected = rank == 0 ? (int64_t)bytes : 0;
    int64_t handle = qp_mem_alive() - alive_before - expected;
    CHECK_MSG(handle >= 0 && handle < 200, "%lld bytes counted too many", (long long)handle);
    size_t n_wrong = 0;
    for (size_t i = 0; i < bytes; i++)
        n_wrong += data[i] != 0;
    CHECK(n_wrong == 0);
    qp_shared_fence(comm, shared);
    for (size_t i = (size_t)rank; i < bytes; i += (size_t)size) /* everyone writes its share */
        data[i] = (uint8_t)(i % 251);
    qp_shared_fence(comm, shared);
    for (size_t i = 0; i < bytes; i++) /* and reads all */
        n_wrong += data[i] != (uint8_t)(i % 251);
    CHECK_MSG(n_wrong == 0, "%zu bytes wrong", n_wrong);
    qp_shared_fence(comm, shared);
}

static void test_kinds_and_sizes(qp_comm_t *comm)
{
    const qp_shared_kind_t kinds[] = {QP_SHARED_WINDOW, QP_SHARED_MEMFD, QP_SHARED_OWN};
    const size_t n_kind = qp_comm_node_size(comm) == 1 ? 3 : 2;
    const size_t sizes[] = {1, 4096, 5000, 3 * 4096 + 1, (size_t)10 << 20};
    for (size_t k = 0; k < n_kind; k++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            int64_t before = qp_mem_alive();
            qp_shared_t *shared = NULL;
            if (CHECK_OK(qp_shared_create_as(comm, "test", sizes[s], kinds[k], &shared)))
                test_block(comm, shared, sizes[s], before);
            qp_shared_destroy(comm, &shared);
            CHECK(shared == NULL && qp_mem_alive() == before);
        }
}

static void test_chosen_kind(qp_comm_t *comm)
{
    int64_t before = qp_mem_alive();
    qp_shared_t *shared = NULL;
    if (CHECK_OK(qp_shared_create(comm, "test", 100000, &shared)))
        test_block(comm, shared, 100000, before);
    qp_shared_destroy(comm, &shared);
}

/* More than any machine has: an error that names the label, not a signal. */
static void test_shortage(qp_comm_t *comm)
{
    int64_t before = qp_mem_alive();
    qp_shared_t *shared = NULL;
    CHECK_FAILS(qp_shared_create_as(comm, "huge", (size_t)1 << 50, QP_SHARED_MEMFD, &shared), QP_IO,
                "huge: no room for");
    CHECK(shared == NULL && qp_mem_alive() == before);
}

int main(void)
{
    qp_comm_t *comm = NULL;
    if (CHECK_OK(qp_comm_create(&comm))) {
        test_kinds_and_sizes(comm);
        test_chosen_kind(comm);
        test_shortage(comm);
    }
    qp_comm_destroy(&comm);
    return qp_test_end();
}
