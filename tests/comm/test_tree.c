/* QP_TEST: ranks=1,2,3,4
 * The deterministic reduction: one tree of leaves whatever the rank count, the same bits
 * everywhere. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "comm/comm.h"
#include "testing.h"

/* Element i of leaf l: magnitudes far apart, so that another order of additions gives other bits.
 */
static float leaf_value(int64_t leaf, int64_t i)
{
    const qp_philox_key_t key = {.seed = 7, .sample = (uint32_t)leaf};
    float x = qp_philox_normal(&key, (uint64_t)i);
    return x * exp2f((float)((leaf * 7 + i) % 19 - 9));
}

/* The definition, spelled out for one element. */
static float tree_of_leaves(int64_t lo, int64_t hi, int64_t i)
{
    if (hi - lo == 0)
        return 0.0f;
    if (hi - lo == 1)
        return leaf_value(lo, i);
    int64_t middle = lo + (hi - lo) / 2;
    return tree_of_leaves(lo, middle, i) + tree_of_leaves(middle, hi, i);
}

/* The definition for rank counts that are no powers of two: the local sums in the tree of ranks. */
static float tree_of_ranks(int n_leaf, int size, int lo, int hi, int64_t i)
{
    if (hi - lo == 1) {
        int64_t first, end;
        qp_tree_range(n_leaf, size, lo, &first, &end);
        return tree_of_leaves(first, end, i);
    }
    int middle = lo + (hi - lo) / 2;
    return tree_of_ranks(n_leaf, size, lo, middle, i) + tree_of_ranks(n_leaf, size, middle, hi, i);
}

/* This rank's leaves, summed with the stack schedule, into sum[n]. */
static void local_sum(int64_t first, int64_t end, int64_t n, float *sum)
{
    int depth = qp_tree_depth(end - first), n_stack = 0, deepest = 0;
    float *stack = QP_NEW("test", float, depth *n);
    for (int64_t leaf = first; leaf < end; leaf++) {
        if (!CHECK(n_stack < depth))
            break;
        for (int64_t i = 0; i < n; i++)
            stack[n_stack * n + i] = leaf_value(leaf, i);
        n_stack++;
        deepest = n_stack > deepest ? n_stack : deepest;
        for (int merges = qp_tree_merges(first, end, leaf); merges > 0; merges--) {
            n_stack--;
            for (int64_t i = 0; i < n; i++)
                stack[(n_stack - 1) * n + i] += stack[n_stack * n + i];
        }
    }
    CHECK(n_stack == (end > first) && (end == first || deepest == depth));
    memcpy(sum, stack, (size_t)n * sizeof *sum);
    qp_free(stack);
}

static void test_ranges_partition_the_leaves(void)
{
    for (int64_t n_leaf = 0; n_leaf < 40; n_leaf++)
        for (int n_rank = 1; n_rank < 12; n_rank++) {
            int64_t next = 0;
            for (int rank = 0; rank < n_rank; rank++) {
                int64_t first, end;
                qp_tree_range(n_leaf, n_rank, rank, &first, &end);
                CHECK(first == next && end >= first && end - first <= n_leaf / n_rank + 2);
                next = end;
            }
            CHECK(next == n_leaf);
        }
}

static void test_sum_over_ranks_is_the_tree(qp_comm_t *comm)
{
    enum { N = 37 };
    const int64_t n_leaves[] = {1, 2, 3, 5, 8, 13, 32};
    int size = qp_comm_size(comm);
    bool power_of_two = (size & (size - 1)) == 0;
    for (size_t k = 0; k < sizeof n_leaves / sizeof n_leaves[0]; k++) {
        int64_t n_leaf = n_leaves[k], first, end;
        float sum[N];
        qp_tree_range(n_leaf, size, qp_comm_rank(comm), &first, &end);
        local_sum(first, end, N, sum);
        qp_tree_sum_f32(comm, sum, N);
        for (int64_t i = 0; i < N; i++) {
            float expected = power_of_two ? tree_of_leaves(0, n_leaf, i)
                                          : tree_of_ranks((int)n_leaf, size, 0, size, i);
            CHECK_MSG(memcmp(&sum[i], &expected, sizeof expected) == 0,
                      "%lld leaves, element %lld: %a, expected %a", (long long)n_leaf, (long long)i,
                      (double)sum[i], (double)expected);
        }
    }
}

/* More elements than one chunk, and fewer than ranks; fp64 too. */
static void test_sizes(qp_comm_t *comm)
{
    const int64_t sizes[] = {0, 1, 2, 3, 5, (1 << 20) + 3};
    int size = qp_comm_size(comm), rank = qp_comm_rank(comm);
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        int64_t n = sizes[k], n_wrong = 0;
        double *data = QP_NEW("test", double, n);
        for (int64_t i = 0; i < n; i++)
            data[i] = (double)(i % 1000) + 1000.0 * rank;
        qp_tree_sum_f64(comm, data, n);
        for (int64_t i = 0; i < n; i++)
            n_wrong += data[i] != (double)(i % 1000) * size + 500.0 * size * (size - 1);
        CHECK_MSG(n_wrong == 0, "%lld of %lld elements wrong", (long long)n_wrong, (long long)n);
        qp_free(data);
    }
}

/* A group sums as its parent does, beside it. */
static void test_group(qp_comm_t *comm)
{
    enum { N = 5000 };
    float here[N], there[N];
    qp_tree_group_t *group = NULL;
    if (CHECK_OK(qp_comm_agree(comm, qp_tree_group_create(comm, &group)))) {
        for (int64_t i = 0; i < N; i++)
            here[i] = there[i] = leaf_value(qp_comm_rank(comm), i);
        qp_tree_sum_f32(comm, here, N);
        qp_tree_group_sum_f32(group, there, N);
        CHECK(memcmp(here, there, sizeof here) == 0);
    }
    qp_tree_group_destroy(&group);
    CHECK(group == NULL);
}

int main(void)
{
    qp_comm_t *comm = NULL;
    if (CHECK_OK(qp_comm_create(&comm))) {
        if (qp_comm_rank(comm) == 0)
            test_ranges_partition_the_leaves();
        test_sum_over_ranks_is_the_tree(comm);
        test_sizes(comm);
        test_group(comm);
    }
    qp_comm_destroy(&comm);
    return qp_test_end();
}
