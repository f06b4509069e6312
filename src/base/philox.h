/**
 * \file philox.h
 * Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011, from Random123). A number is a
 * function of (seed, step, sample, position, site, index) alone, so it does not depend on the rank,
 * the thread, the batch it is drawn in, or a restart.
 */
#ifndef QP_BASE_PHILOX_H
#define QP_BASE_PHILOX_H

#include <stdint.h>

typedef struct {
    uint32_t seed;     /**< job.seed */
    uint32_t step;     /**< update of the run, or step that answers are drawn for; 0: no meaning */
    uint32_t sample;   /**< global index of the sequence */
    uint32_t position; /**< token position inside the sequence */
    uint32_t site;     /**< where it is used: see qp_site_t */
} qp_philox_key_t;

/** Sites; that of a layer's dropout is QP_SITE_DROPOUT + layer * QP_N_GROUP + group. */
typedef enum {
    QP_SITE_PERMUTATION = 1,
    QP_SITE_INIT = 2,
    QP_SITE_SAMPLING = 3,
    QP_SITE_INIT_HEAD = 4,
    QP_SITE_LENGTH = 5,
    QP_SITE_VALUE_DROPOUT = 6,
    QP_SITE_DROPOUT = 1024
} qp_site_t;

/** Four random words; \a block counts blocks of four under one key. */
void qp_philox(const qp_philox_key_t *key, uint32_t block, uint32_t out[4]);

/** Word \a index of the key's stream as a uniform in [0, 1) with 24 bits. */
float qp_philox_uniform(const qp_philox_key_t *key, uint64_t index);

/** Standard normal (Box-Muller) number \a index of the key's stream. */
float qp_philox_normal(const qp_philox_key_t *key, uint64_t index);

#endif
