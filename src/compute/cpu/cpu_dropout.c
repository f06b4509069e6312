/* Dropout by counter-based random numbers: the mask is a function of the token, not of the batch.
 */
#include "compute/cpu/cpu.h"
#include "compute/cpu/cpu_math.h"

enum { LANES = 16, WORDS = 4 * LANES };

/*
 * Words 4 block ... 4 block + 63 of the key's stream: Philox 4x32-10 (Salmon et al. 2011, section
 * 3.3) for 16 blocks side by side; the same numbers as qp_philox().
 */
static inline void philox_lanes(const qp_philox_key_t *key, uint32_t block, uint32_t *restrict word)
{
    uint32_t c0[LANES], c1[LANES], c2[LANES], c3[LANES], k0 = key->seed, k1 = key->step;
    for (uint32_t i = 0; i < LANES; i++) {
        c0[i] = key->sample;
        c1[i] = key->position;
        c2[i] = key->site;
        c3[i] = block + i;
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < LANES; i++) {
            uint64_t a = (uint64_t)c0[i] * 0xD2511F53u, b = (uint64_t)c2[i] * 0xCD9E8D57u;
            c0[i] = (uint32_t)(b >> 32) ^ c1[i] ^ k0;
            c2[i] = (uint32_t)(a >> 32) ^ c3[i] ^ k1;
            c1[i] = (uint32_t)b;
            c3[i] = (uint32_t)a;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < LANES; i++) {
        word[4 * i] = c0[i];
        word[4 * i + 1] = c1[i];
        word[4 * i + 2] = c2[i];
        word[4 * i + 3] = c3[i];
    }
}

/* An element is kept when the 24 high bits of its word are at least threshold = p 2^24. */
typedef struct {
    qp_mat_t out, x;
    uint32_t threshold;
    float scale;
    bool accumulate;
} dropout_t;

QP_CPU_CLONES static void dropout_row(const dropout_t *d, int64_t row, const qp_philox_key_t *key)
{
    uint32_t word[WORDS];
    float x[WORDS];
    for (int64_t first = 0; first < d->x.n_col; first += WORDS) {
        int64_t n = qp_cpu_min(d->x.n_col - first, WORDS);
        void *to = qp_cpu_at(&d->out, row, first);
        philox_lanes(key, (uint32_t)(first / 4), word);
        qp_cpu_load(x, d->x.dtype, qp_cpu_at(&d->x, row, first), n);
        for (int64_t i = 0; i < n; i++)
            x[i] = (word[i] >> 8) >= d->threshold ? x[i] * d->scale : 0.0f;
        if (d->accumulate)
            qp_cpu_add(to, d->out.dtype, x, n);
        else
            qp_cpu_store(to, d->out.dtype, x, n);
    }
}

qp_error_t qp_cpu_dropout(qp_queue_t *q, qp_mat_t out, qp_mat_t x, float p,
                          const qp_philox_key_t *key, const qp_ragged_t *batch, bool accumulate)
{
    QP_ASSERT(p >= 0.0f && p < 1.0f);
    QP_ASSERT(out.n_row == x.n_row && out.n_col == x.n_col && x.n_row == batch->n_token);
    dropout_t d = {out, x, (uint32_t)ceilf(p * 0x1p24f), 1.0f / (1.0f - p), accumulate};
    const uint32_t *sample = qp_cpu_u32(batch->sample);
    const int32_t *position = qp_cpu_i32(batch->position);
#pragma omp parallel for num_threads(qp_cpu_threads(q, x.n_row *x.n_col))
    for (int64_t t = 0; t < x.n_row; t++) {
        qp_philox_key_t row_key = *key;
        row_key.sample = sample[t];
        row_key.position = (uint32_t)position[t];
        dropout_row(&d, t, &row_key);
    }
    return NULL;
}
