/* Dropout masks from counter-based random numbers: a function of the token, not of the batch. */
#include "compute/cpu/cpu.h"
#include "compute/cpu/rows/math.h"

enum { LANES = 16 }; /* Philox blocks side by side; each gives eight halves: a byte of the mask */

/*
 * Philox 4x32-10 (Salmon et al. 2011, section 3.3), the same numbers as qp_philox(), for blocks
 * block ... block + 15 of the key's stream; bit k of keep[i] is set where half k of block i is at
 * least threshold.
 */
static inline void keep_lanes(uint8_t *restrict keep, const qp_philox_key_t *key, uint32_t block,
                              uint32_t threshold)
{
    uint32_t c[4][LANES], k0 = key->seed, k1 = key->step, bits[LANES] = {0};
    for (uint32_t i = 0; i < LANES; i++) {
        c[0][i] = key->sample;
        c[1][i] = key->position;
        c[2][i] = key->site;
        c[3][i] = block + i;
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < LANES; i++) {
            const uint64_t a = (uint64_t)c[0][i] * 0xD2511F53u, b = (uint64_t)c[2][i] * 0xCD9E8D57u;
            c[0][i] = (uint32_t)(b >> 32) ^ c[1][i] ^ k0;
            c[2][i] = (uint32_t)(a >> 32) ^ c[3][i] ^ k1;
            c[1][i] = (uint32_t)b;
            c[3][i] = (uint32_t)a;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int word = 0; word < 4; word++)
        for (int i = 0; i < LANES; i++) {
            const uint32_t low = c[word][i] & 0xffffu, high = c[word][i] >> 16;
            bits[i] |= (uint32_t)(low >= threshold) << (2 * word);
            bits[i] |= (uint32_t)(high >= threshold) << (2 * word + 1);
        }
    for (int i = 0; i < LANES; i++)
        keep[i] = (uint8_t)bits[i];
}

/* The last word of a row is filled up with whatever follows in the stream. */
QP_CPU_CLONES static void draw_row(uint8_t *row, int64_t n_byte, const qp_philox_key_t *key,
                                   uint32_t threshold)
{
    for (int64_t i = 0; i < n_byte; i += LANES) {
        uint8_t keep[LANES];
        keep_lanes(keep, key, (uint32_t)i, threshold);
        memcpy(row + i, keep, (size_t)qp_min_i64(n_byte - i, LANES));
    }
}

qp_error_t qp_cpu_dropout(qp_queue_t *q, qp_dptr_t bits, int64_t n_col, float p,
                          const qp_philox_key_t *key, const qp_ragged_t *batch)
{
    QP_ASSERT(p >= 0.0f && p < 1.0f);
    const int64_t n_byte = qp_mask_words(n_col) * (int64_t)sizeof(uint64_t);
    const uint32_t *sample = qp_cpu_u32(batch->sample), threshold = (uint32_t)ceilf(p * 0x1p16f);
    const int32_t *position = qp_cpu_i32(batch->position);
#pragma omp parallel for num_threads(qp_cpu_threads(q, batch->n_token *n_col))
    for (int64_t t = 0; t < batch->n_token; t++) {
        qp_philox_key_t row_key = *key;
        row_key.sample = sample[t];
        row_key.position = (uint32_t)position[t];
        draw_row((uint8_t *)bits.address + t * n_byte, n_byte, &row_key, threshold);
    }
    return NULL;
}
