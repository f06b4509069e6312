/**
 * \file ppo_testing.h
 * What the tests of the arithmetic of PPO share: ragged responses, numbers, tolerances.
 */
#ifndef QP_TEST_PPO_TESTING_H
#define QP_TEST_PPO_TESTING_H

#include <math.h>
#include <string.h>

#include "base/philox.h"
#include "train/ppo/ppo_math.h"
#include "testing.h"

/* Five responses; the first has one token only. */
enum { N_SEQ = 5, N = 17 };
static const int64_t cu[N_SEQ + 1] = {0, 1, 5, 7, 14, N};

/* Of an error that is absolute below 1 and relative above. */
static const double rounded = 1.2e-7; /* computed in double, rounded to float once or twice */
static const double exact = 1e-13;    /* sums of some ten doubles */
static const double slope = 1e-6;     /* central difference, step 1e-5, of a gradient in float */

static inline bool near(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * fmax(1.0, fabs(b));
}

static inline bool same_bits(const void *a, const void *b, size_t n_bytes)
{
    return memcmp(a, b, n_bytes) == 0;
}

#define CHECK_NEAR(a, b, tolerance)                                                    \
    CHECK_MSG(near((double)(a), (double)(b), (tolerance)), "%s is %.9g, not %.9g", #a, \
              (double)(a), (double)(b))

/* Normal numbers of a stream of their own. */
static inline void draw(uint32_t stream, double mean, double spread, float *x)
{
    const qp_philox_key_t key = {.seed = 7, .site = stream};
    for (int i = 0; i < N; i++)
        x[i] = (float)(mean + spread * (double)qp_philox_normal(&key, (uint64_t)i));
}

#endif
