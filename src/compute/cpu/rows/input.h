/** \file input.h  Inputs of linears, row by row (qp_input_t), and dropout masks on rows. */
#ifndef QP_COMPUTE_CPU_ROWS_INPUT_H
#define QP_COMPUTE_CPU_ROWS_INPUT_H

#include "compute/cpu/cpu.h"

/**
 * Row r of the input in fp32: row [qp_input_n_col()]. Writes the row of input->copy too. Any
 * thread.
 */
void qp_cpu_input_row(const qp_input_t *input, int64_t r, float *row);

/** Keeps or drops one element by the lowest bit. */
static inline float qp_cpu_keep(float x, uint32_t bit)
{
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    word &= 0u - (bit & 1u);
    memcpy(&x, &word, sizeof word);
    return x;
}

/** Bytes of a row in fp32, of which each thread has one. */
static inline size_t qp_cpu_row_bytes(int64_t n_col)
{
    return qp_cpu_round64(qp_bytes(n_col, sizeof(float)));
}

/**
 * x = mask(x) for columns [first, first + n) of row r of [T, n_col]. Inlined, so that it vectorises
 * in QP_CPU_CLONES.
 */
static inline void qp_cpu_mask_row(float *restrict x, qp_mask_t mask, int64_t n_col, int64_t r,
                                   int64_t first, int64_t n)
{
    enum { WORD = 32 };
    if (qp_dptr_is_null(mask.bits))
        return;
    const uint32_t *restrict bits = qp_cpu_u32(mask.bits) + r * 2 * qp_mask_words(n_col);
    int64_t i = 0;
    if (first % WORD == 0)
        for (; i + WORD <= n; i += WORD)
            for (int j = 0; j < WORD; j++)
                x[i + j] = qp_cpu_keep(x[i + j] * mask.scale, bits[(first + i) / WORD] >> j);
    for (; i < n; i++)
        x[i] = qp_cpu_keep(x[i] * mask.scale, bits[(first + i) / WORD] >> (first + i) % WORD);
}

#endif
