/** \file transpose.h  Transposition and sums across registers, for QP_CPU_CLONES functions. */
#ifndef QP_COMPUTE_CPU_GEMM_TRANSPOSE_H
#define QP_COMPUTE_CPU_GEMM_TRANSPOSE_H

#include <stdint.h>
#include <string.h>

enum { QP_WORDS = 16 };

/** 16 elements of four bytes: fp32, or pairs of bf16. */
typedef uint32_t qp_words_t __attribute__((vector_size(QP_WORDS * sizeof(uint32_t))));

/* Lane i of the first and of the second row after two rows h apart swapped their off-diagonal
 * h x h blocks; lanes of the second row before are counted from 16. */
#define QP_FIRST(i, h) (((i) & (h)) == 0 ? (i) : (i) - (h) + QP_WORDS)
#define QP_SECOND(i, h) (((i) & (h)) == 0 ? (i) + (h) : (i) + QP_WORDS)
#define QP_ALL_LANES(at, h)                                                                   \
    at(0, h), at(1, h), at(2, h), at(3, h), at(4, h), at(5, h), at(6, h), at(7, h), at(8, h), \
        at(9, h), at(10, h), at(11, h), at(12, h), at(13, h), at(14, h), at(15, h)

#define QP_EXCHANGE(v, h)                                                           \
    _Pragma("GCC unroll 16") for (int i = 0; i < QP_WORDS; i++) if ((i & (h)) == 0) \
    {                                                                               \
        const qp_words_t a = (v)[i], b = (v)[i + (h)];                              \
        (v)[i] = __builtin_shufflevector(a, b, QP_ALL_LANES(QP_FIRST, h));          \
        (v)[i + (h)] = __builtin_shufflevector(a, b, QP_ALL_LANES(QP_SECOND, h));   \
    }

/** Transposes 16 rows of 16 elements. */
static inline void qp_cpu_transpose(qp_words_t v[QP_WORDS])
{
    QP_EXCHANGE(v, 8)
    QP_EXCHANGE(v, 4)
    QP_EXCHANGE(v, 2)
    QP_EXCHANGE(v, 1)
}

typedef float qp_floats_t __attribute__((vector_size(QP_WORDS * sizeof(float))));

#define QP_FOLD(v, h)                                                       \
    _Pragma("GCC unroll 8") for (int i = 0; i < (h); i++)                   \
    {                                                                       \
        const qp_floats_t a = (v)[i], b = (v)[i + (h)];                     \
        (v)[i] = __builtin_shufflevector(a, b, QP_ALL_LANES(QP_FIRST, h)) + \
                 __builtin_shufflevector(a, b, QP_ALL_LANES(QP_SECOND, h)); \
    }

/** sum[i] is the sum of the lanes of v[i], in a tree; v is used up. */
static inline void qp_cpu_sum_lanes(float sum[QP_WORDS], qp_floats_t v[QP_WORDS])
{
    QP_FOLD(v, 8)
    QP_FOLD(v, 4)
    QP_FOLD(v, 2)
    QP_FOLD(v, 1)
    memcpy(sum, &v[0], sizeof v[0]);
}

#endif
