/* QP_TEST: ranks=1,2,3,4
 * Ranks and nodes, agreement, small collectives. */
#include <string.h>

#include "base/mem.h"
#include "comm/comm.h"
#include "testing.h"

static void test_ranks_and_nodes(qp_comm_t *comm)
{
    int rank = qp_comm_rank(comm), size = qp_comm_size(comm);
    CHECK(rank >= 0 && rank < size);
    CHECK(qp_comm_node_rank(comm) >= 0 && qp_comm_node_rank(comm) < qp_comm_node_size(comm));
    int64_t node_size = qp_comm_node_rank(comm) == 0 ? qp_comm_node_size(comm) : 0;
    qp_comm_sum_i64(comm, &node_size, 1);
    CHECK(node_size == size);
}

static void test_agreement_is_the_lowest_rank_s_error(qp_comm_t *comm)
{
    int rank = qp_comm_rank(comm), size = qp_comm_size(comm);
    CHECK(qp_comm_agree(comm, NULL) == NULL);
    for (int failing = 0; failing < size; failing++) {
        qp_error_t local = rank < failing ? NULL : QP_ERROR(QP_IO, "disk of %d is full", rank);
        char expected[64];
        if (failing > 0)
            snprintf(expected, sizeof expected, "rank %d: disk of %d is full", failing, failing);
        else
            snprintf(expected, sizeof expected, "disk of 0 is full");
        qp_error_t error = qp_comm_agree(comm, local);
        if (CHECK(error != NULL))
            CHECK_MSG(strcmp(error->message, expected) == 0, "%s", error->message);
        CHECK_FAILS(error, QP_IO, expected);
    }
    qp_error_t bug = rank == size - 1 ? QP_ERROR(QP_INTERNAL, "a bug") : NULL;
    CHECK_FAILS(qp_comm_agree(comm, bug), QP_INTERNAL, "a bug");
}

static void test_bits_are_or_ed(qp_comm_t *comm)
{
    uint64_t expected = ((uint64_t)1 << qp_comm_size(comm)) - 1;
    CHECK(qp_comm_agree_bits(comm, (uint64_t)1 << qp_comm_rank(comm)) == expected);
    CHECK(qp_comm_agree_bits(comm, (uint64_t)1 << 63) == (uint64_t)1 << 63);
}

static void test_broadcasts(qp_comm_t *comm)
{
    int rank = qp_comm_rank(comm);
    for (int root = 0; root < qp_comm_size(comm); root++) {
        uint16_t bf16[3] = {(uint16_t)(rank + 1), (uint16_t)(rank + 2), (uint16_t)(rank + 3)};
        qp_comm_bcast(comm, bf16, 3, QP_BF16, root);
        CHECK(bf16[0] == root + 1 && bf16[2] == root + 3);
        void *block = NULL;
        size_t n_bytes = 0;
        if (rank == root) {
            block = qp_strdup("what only the root knows");
            n_bytes = strlen(block) + 1;
        }
        qp_comm_bcast_block(comm, &block, &n_bytes, root);
        CHECK(n_bytes == 25 && strcmp(block, "what only the root knows") == 0);
        qp_free(block);
        block = rank == root ? qp_alloc("test", 0) : NULL;
        n_bytes = 0;
        qp_comm_bcast_block(comm, &block, &n_bytes, root);
        CHECK(n_bytes == 0 && block != NULL);
        qp_free(block);
    }
}

static void test_reductions_and_gathers(qp_comm_t *comm)
{
    int64_t rank = qp_comm_rank(comm), size = qp_comm_size(comm);
    int64_t sum[2] = {rank + 1, -rank}, largest = -rank;
    qp_comm_sum_i64(comm, sum, 2);
    CHECK(sum[0] == size * (size + 1) / 2 && sum[1] == -size * (size - 1) / 2);
    qp_comm_max_i64(comm, &largest, 1);
    CHECK(largest == 0);

    int32_t pair[2] = {(int32_t)rank, (int32_t)(10 * rank)}, all[8];
    qp_comm_allgather(comm, pair, 2, QP_I32, all);
    for (int32_t r = 0; r < size; r++)
        CHECK(all[2 * r] == r && all[2 * r + 1] == 10 * r);

    /* Rank r gives r elements, so rank 0 gives none. */
    float mine[4] = {(float)rank, (float)rank, (float)rank, (float)rank};
    void *out = NULL;
    int64_t counts[4];
    qp_comm_allgatherv(comm, mine, rank, QP_F32, &out, counts);
    int64_t n = 0;
    for (int64_t r = 0; r < size; r++) {
        CHECK(counts[r] == r);
        for (int64_t i = 0; i < r; i++)
            CHECK(((float *)out)[n++] == (float)r);
    }
    qp_free(out);
}

int main(void)
{
    qp_comm_t *comm = NULL;
    if (CHECK_OK(qp_comm_create(&comm))) {
        test_ranks_and_nodes(comm);
        test_agreement_is_the_lowest_rank_s_error(comm);
        test_bits_are_or_ed(comm);
        test_broadcasts(comm);
        test_reductions_and_gathers(comm);
        qp_comm_barrier(comm);
    }
    qp_comm_destroy(&comm);
    return qp_test_end();
}
