/* The rotation and the int8 quantisation of weight rows (doc/numerics.md). */
#include <math.h>

#include "model/base/base_file.h"

/* The butterflies of one block of 2^k numbers. */
static inline void butterflies(float *x, int64_t block)
{
    for (int64_t half = 1; half < block; half *= 2)
        for (int64_t i = 0; i < block; i += 2 * half)
            for (int64_t j = i; j < i + half; j++) {
                float a = x[j], b = x[j + half];
                x[j] = a + b;
                x[j + half] = a - b;
            }
}

void qp_hadamard_row(float *row, int64_t n)
{
    int64_t block = qp_hadamard_block(n);
    float scale = 1.0f / sqrtf((float)block);
    for (int64_t i = 0; i < n; i += block) {
        if (block == QP_HADAMARD_BLOCK) /* known length: unrolled and vectorised */
            butterflies(row + i, QP_HADAMARD_BLOCK);
        else
            butterflies(row + i, block);
        for (int64_t j = i; j < i + block; j++)
            row[j] *= scale;
    }
}

static float absmax_of(const float *row, int64_t n)
{
    enum { LANES = 16 }; /* independent maxima, so that the loop vectorises */
    float lane[LANES] = {0.0f}, absmax = 0.0f;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float x = fabsf(row[i + j]);
            lane[j] = x > lane[j] ? x : lane[j];
        }
    for (; i < n; i++)
        absmax = fmaxf(absmax, fabsf(row[i]));
    for (int j = 0; j < LANES; j++)
        absmax = fmaxf(absmax, lane[j]);
    return absmax;
}

float qp_quantise_row(const float *row, int64_t n, int8_t *q)
{
    /* Adding 1.5 x 2^23 rounds |x| < 2^22 to the nearest even integer, without a library call. */
    const float magic = 12582912.0f;
    float absmax = absmax_of(row, n);
    /* A row this small would overflow 127 / absmax; it is as good as zero. */
    float factor = absmax > 1e-36f ? 127.0f / absmax : 0.0f;
    for (int64_t i = 0; i < n; i++)
        q[i] = (int8_t)(row[i] * factor + magic - magic);
    return factor > 0.0f ? absmax / 127.0f : 0.0f;
}
