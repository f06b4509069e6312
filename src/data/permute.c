#include "data/data.h"

#include "base/philox.h"

enum { N_ROUND = 6 }; /* even, so that the two halves end at the widths they started with */

/*
 * An alternating Feistel network on the smallest power of two that holds n: each round replaces
 * (left, right) by (right, left ^ F(right)). What falls outside [0, n) walks the cycle on; less
 * than half of the domain does, so two walks are enough on average.
 */
int64_t qp_permute(uint32_t seed, uint32_t epoch, int64_t n, int64_t i)
{
    QP_ASSERT(n > 0 && i >= 0 && i < n);
    if (n == 1)
        return 0;
    unsigned n_bit = 64u - (unsigned)__builtin_clzll((uint64_t)n - 1);
    if (n_bit < 2)
        n_bit = 2;
    unsigned left_bits = n_bit / 2, right_bits = n_bit - left_bits;
    uint64_t x = (uint64_t)i;
    do {
        uint64_t left = x >> right_bits, right = x & ((1ull << right_bits) - 1);
        unsigned left_width = left_bits, right_width = right_bits;
        for (uint32_t round = 0; round < N_ROUND; round++) {
            qp_philox_key_t key = {seed, epoch, (uint32_t)right, round, QP_SITE_PERMUTATION};
            uint32_t word[4];
            qp_philox(&key, (uint32_t)(right >> 32), word);
            uint64_t mixed = left ^ (word[0] & ((1ull << left_width) - 1));
            left = right;
            right = mixed;
            unsigned width = left_width;
            left_width = right_width;
            right_width = width;
        }
        x = (left << right_bits) | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}
