/**
 * \file int8.h
 * Products of whole numbers on the packed weights of weight.h: with AVX2, AVX-VNNI and AVX-512
 * VNNI. Unlike oneDNN's they give a piece of the result at a time that is finished while it is in
 * the first-level cache. Where there is AMX oneDNN multiplies, several times as fast.
 */
#ifndef QP_COMPUTE_CPU_GEMM_INT8_H
#define QP_COMPUTE_CPU_GEMM_INT8_H

#include <stdint.h>

enum { QP_CPU_PACK = 64 }; /**< rows and columns of a block of packed weights */

typedef struct qp_cpu_int8_product {
    /**
     * c [m, n] = a b, exact, in the calling thread. a [m, k] has rows of \a lda bytes; b is a
     * packed panel: for each 64 columns, byte [i / 4][column][i % 4] is b[i][column]. n and k are
     * multiples of 64; c is dense. next (or NULL) is the panel of 64 columns that is multiplied
     * after these: it is called into the cache meanwhile.
     */
    void (*run)(int32_t *c, const uint8_t *a, int64_t lda, const int8_t *b, int64_t m, int64_t n,
                int64_t k, const int8_t *next);
    int64_t n_row, n_col; /**< what is best asked for at a time */
} qp_cpu_int8_product_t;

/**
 * The fastest of them for this CPU; NULL where oneDNN's is faster, or there is none. Like oneDNN's,
 * it is capped by ONEDNN_MAX_CPU_ISA: all machines of a kind can be tried on one.
 */
const qp_cpu_int8_product_t *qp_cpu_int8_product(void);

#endif
