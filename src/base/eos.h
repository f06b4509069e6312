/**
 * \file eos.h
 * The token ids that end an answer. A model may have several (<|end_of_text|>, <|eot_id|>, ...):
 * each of them ends one; the first is the one that is put behind texts without any.
 */
#ifndef QP_BASE_EOS_H
#define QP_BASE_EOS_H

#include <stdbool.h>
#include <stdint.h>

enum { QP_MAX_EOS = 16 };

/** Zero-initialised: none. No id stands in it twice. */
typedef struct {
    int n;
    int32_t id[QP_MAX_EOS];
} qp_eos_t;

static inline bool qp_eos_has(const qp_eos_t *eos, int32_t id)
{
    bool has = false;
    for (int i = 0; i < eos->n; i++)
        has |= eos->id[i] == id;
    return has;
}

/** The id that is put behind texts; -1: none. */
static inline int32_t qp_eos_first(const qp_eos_t *eos)
{
    return eos->n > 0 ? eos->id[0] : -1;
}

/** Appends an id that is not there yet; false where there is no room. */
static inline bool qp_eos_add(qp_eos_t *eos, int32_t id)
{
    if (qp_eos_has(eos, id))
        return true;
    if (eos->n == QP_MAX_EOS)
        return false;
    eos->id[eos->n++] = id;
    return true;
}

#endif
