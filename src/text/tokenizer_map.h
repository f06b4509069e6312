/**
 * \file tokenizer_map.h
 * Two read-mostly hash tables of the tokenizers: text -> id and pair of ids -> (rank, merged id).
 * Open addressing with linear probing, at most half full; filled at creation, then only read.
 */
#ifndef QP_TEXT_TOKENIZER_MAP_H
#define QP_TEXT_TOKENIZER_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

typedef struct {
    uint32_t hash, length;
    uint32_t offset; /**< of the key in text */
    int32_t value;   /**< -1: empty slot */
} qp_textmap_slot_t;

/** Byte strings (may hold NUL) to ids >= 0. Zero-initialise. */
typedef struct {
    qp_str_t text; /**< all keys */
    qp_textmap_slot_t *slot;
    uint32_t n_slot; /**< power of two */
    uint32_t n;
} qp_textmap_t;

void qp_textmap_fini(qp_textmap_t *map);
/** Adds or overwrites. */
void qp_textmap_put(qp_textmap_t *map, const char *key, size_t n_bytes, int32_t value);
/** The value, or -1. */
int32_t qp_textmap_get(const qp_textmap_t *map, const char *key, size_t n_bytes);

typedef struct {
    int32_t left, right; /**< left -1: empty slot */
    uint32_t rank;       /**< merges of smaller rank go first */
    int32_t id;          /**< of the merged token */
} qp_pairmap_slot_t;

/** Zero-initialise, then qp_pairmap_init(). */
typedef struct {
    qp_pairmap_slot_t *slot;
    uint32_t mask;
} qp_pairmap_t;

/** Room for n_pair pairs. */
void qp_pairmap_init(qp_pairmap_t *map, int64_t n_pair);
void qp_pairmap_fini(qp_pairmap_t *map);
/** Adds or overwrites; no more than n_pair different ones. */
void qp_pairmap_put(qp_pairmap_t *map, int32_t left, int32_t right, uint32_t rank, int32_t id);

static inline uint32_t qp_pairmap_start(const qp_pairmap_t *map, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 32) & map->mask;
}

/** The pair's slot, or NULL. */
static inline const qp_pairmap_slot_t *qp_pairmap_get(const qp_pairmap_t *map, int32_t left,
                                                      int32_t right)
{
    for (uint32_t i = qp_pairmap_start(map, left, right);; i = (i + 1) & map->mask) {
        const qp_pairmap_slot_t *slot = &map->slot[i];
        if (slot->left == left && slot->right == right)
            return slot;
        if (slot->left < 0)
            return NULL;
    }
}

#endif
