/* The keyed order of an epoch is a bijection, differs by seed and epoch, and never changes. */
#include <string.h>

#include "base/mem.h"
#include "data/data.h"
#include "testing.h"

static void test_every_index_comes_once(int64_t n)
{
    uint8_t *seen = QP_NEW("test", uint8_t, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t p = qp_permute(3, 1, n, i);
        if (CHECK_MSG(p >= 0 && p < n && !seen[p], "n %lld: %lld -> %lld", (long long)n,
                      (long long)i, (long long)p))
            seen[p] = 1;
    }
    qp_free(seen);
}

static void test_orders_differ(void)
{
    int64_t n = 10007, same_seed = 0, same_epoch = 0, fixed = 0;
    double distance = 0.0;
    for (int64_t i = 0; i < n; i++) {
        int64_t p = qp_permute(3, 1, n, i);
        same_seed += p == qp_permute(4, 1, n, i);
        same_epoch += p == qp_permute(3, 2, n, i);
        fixed += p == i;
        distance += (double)(p > i ? p - i : i - p) / (double)n;
    }
    CHECK_MSG(same_seed < 10 && same_epoch < 10 && fixed < 10, "%lld %lld %lld",
              (long long)same_seed, (long long)same_epoch, (long long)fixed);
    CHECK_MSG(distance / (double)n > 0.32 && distance / (double)n < 0.345,
              "mean distance %.4f, expected 1/3", distance / (double)n);
}

/* All orders of three elements turn up equally often over the seeds. */
static void test_small_orders_are_fair(void)
{
    int count[27] = {0};
    for (uint32_t seed = 0; seed < 6000; seed++) {
        int64_t code = 0;
        for (int64_t i = 0; i < 3; i++)
            code = 3 * code + qp_permute(seed, 0, 3, i);
        count[code]++;
    }
    for (int code = 0; code < 27; code++)
        CHECK_MSG(count[code] == 0 || (count[code] > 850 && count[code] < 1150), "order %d: %d",
                  code, count[code]);
}

/* Restarted runs rely on these values. */
static void test_known_answers(void)
{
    static const int64_t expected[] = {598, 972, 233, 84, 519400787283};
    for (int64_t i = 0; i < 4; i++)
        CHECK_MSG(qp_permute(1, 0, 1000, i) == expected[i], "%lld: %lld", (long long)i,
                  (long long)qp_permute(1, 0, 1000, i));
    CHECK(qp_permute(1, 0, 1ll << 40, 12345) == expected[4]);
}

int main(void)
{
    for (int64_t n = 1; n < 70; n++)
        test_every_index_comes_once(n);
    test_every_index_comes_once(4096);
    test_every_index_comes_once(100003);
    test_orders_differ();
    test_small_orders_are_fair();
    test_known_answers();
    return qp_test_end();
}
