/**
 * \file cpu_int8.h
 * Products of whole numbers for CPUs on which oneDNN has none that takes the packed weights of
 * cpu_weight.h: with AVX2, and with AVX-VNNI.
 */
#ifndef QP_COMPUTE_CPU_INT8_H
#define QP_COMPUTE_CPU_INT8_H

#include <stdint.h>

/**
 * c [m, n] = a b, exact, in the calling thread. a [m, k] has rows of \a lda bytes; b is a packed
 * panel: for each 64 columns, byte [i / 4][column][i % 4] is b[i][column]. n and k are multiples of
 * 64; c is dense.
 */
typedef void (*qp_cpu_int8_product_t)(int32_t *c, const uint8_t *a, int64_t lda, const int8_t *b,
                                      int64_t m, int64_t n, int64_t k);

/**
 * The fastest of them for this CPU, or NULL. Like oneDNN's, it is capped by ONEDNN_MAX_CPU_ISA:
 * all machines of a kind can be tried on one.
 */
qp_cpu_int8_product_t qp_cpu_int8_product(void);

#endif
