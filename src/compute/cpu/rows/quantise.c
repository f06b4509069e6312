#include "compute/cpu/rows/quantise.h"

#include <math.h>
#include <string.h>

#include "compute/cpu/cpu.h"

enum { BLOCK = 64, LANES = 16 };

/* Sixteen floats in whatever registers the machine has. */
typedef float lanes_t __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t index_t __attribute__((vector_size(LANES * sizeof(int32_t))));

/* The butterfly of distance h inside the sixteen lanes: lane i pairs with lane i ^ h. */
#define BUTTERFLY(v, h)                                                                            \
    do {                                                                                           \
        const index_t lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};               \
        const lanes_t sign = __builtin_convertvector(1 - 2 * ((lane & h) / h), lanes_t);           \
        (v) = __builtin_shufflevector((v), (v), 0 ^ h, 1 ^ h, 2 ^ h, 3 ^ h, 4 ^ h, 5 ^ h, 6 ^ h,   \
                                      7 ^ h, 8 ^ h, 9 ^ h, 10 ^ h, 11 ^ h, 12 ^ h, 13 ^ h, 14 ^ h, \
                                      15 ^ h) +                                                    \
              (v)*sign;                                                                            \
    } while (0)

/* Blocks of 64: six stages on four registers, four of them inside each register. */
QP_CPU_CLONES static void hadamard64(float *x, int64_t n)
{
    for (float *at = x; at < x + n; at += BLOCK) {
        lanes_t v[4];
        memcpy(v, at, sizeof v);
        for (int i = 0; i < 4; i++) {
            BUTTERFLY(v[i], 1);
            BUTTERFLY(v[i], 2);
            BUTTERFLY(v[i], 4);
            BUTTERFLY(v[i], 8);
        }
        const lanes_t a = v[0] + v[1], b = v[0] - v[1], c = v[2] + v[3], d = v[2] - v[3];
        const float norm = 0.125f; /* 1 / sqrt(64) */
        v[0] = (a + c) * norm;
        v[1] = (b + d) * norm;
        v[2] = (a - c) * norm;
        v[3] = (b - d) * norm;
        memcpy(at, v, sizeof v);
    }
}

/* Any smaller power of two; only models of unusual width come here. */
static void hadamard_small(float *x, int64_t n, int64_t block)
{
    const float norm = 1.0f / sqrtf((float)block);
    for (int64_t h = 1; h < block; h *= 2)
        for (int64_t i = 0; i < n; i++)
            if ((i & h) == 0) {
                const float a = x[i], b = x[i + h];
                x[i] = a + b;
                x[i + h] = a - b;
            }
    for (int64_t i = 0; i < n; i++)
        x[i] *= norm;
}

void qp_cpu_hadamard(float *x, int64_t n, int64_t block)
{
    if (block == BLOCK)
        hadamard64(x, n);
    else
        hadamard_small(x, n, block);
}

/* The bits of |x| order like integers, and those of a NaN stand above all. */
static inline int32_t magnitude(const float *x)
{
    int32_t bits;
    memcpy(&bits, x, sizeof bits);
    return bits & 0x7fffffff;
}

static inline float from_bits(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

QP_CPU_CLONES float qp_cpu_absmax(const float *x, int64_t n)
{
    int32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t m = magnitude(&x[i]);
        top = m > top ? m : top;
    }
    return from_bits(top);
}

QP_CPU_CLONES float qp_cpu_absmax_below(const float *x, int64_t n, float threshold)
{
    const int32_t limit = magnitude(&threshold), infinity = 0x7f800000;
    int32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t m = magnitude(&x[i]), counted = m < limit || m > infinity ? m : 0;
        top = counted > top ? counted : top;
    }
    return from_bits(top);
}

QP_CPU_CLONES float qp_cpu_quantise(uint8_t *restrict q, const float *restrict x, int64_t n,
                                    float absmax)
{
    const float factor = absmax > 1e-30f ? 127.0f / absmax : 0.0f;
    /* Adding 1.5 * 2^23 rounds to an integer (half to even) that stands in the lowest bits. */
    const float round = 0x1.8p23f;
    for (int64_t i = 0; i < n; i++) {
        float y = x[i] * factor;
        y = y < -127.0f ? -127.0f : y; /* excluded outliers only */
        y = y > 127.0f ? 127.0f : y;
        y += round;
        int32_t bits;
        memcpy(&bits, &y, sizeof bits);
        q[i] = (uint8_t)(bits + 128);
    }
    return absmax / 127.0f;
}

QP_CPU_CLONES void qp_cpu_scale(float *restrict x, const float *restrict scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= scale[i];
}
