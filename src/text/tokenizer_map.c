#include "text/tokenizer_map.h"

#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/mem.h"

void qp_textmap_fini(qp_textmap_t *map)
{
    qp_str_fini(&map->text);
    qp_free(map->slot);
    *map = (qp_textmap_t){0};
}

/* The slot of the key, or the empty slot where it belongs. */
static qp_textmap_slot_t *find_slot(const qp_textmap_t *map, const char *key, size_t n_bytes,
                                    uint32_t hash)
{
    const uint32_t mask = map->n_slot - 1;
    for (uint32_t i = hash & mask;; i = (i + 1) & mask) {
        qp_textmap_slot_t *slot = &map->slot[i];
        if (slot->value < 0 || (slot->hash == hash && slot->length == n_bytes &&
                                memcmp(map->text.data + slot->offset, key, n_bytes) == 0))
            return slot;
    }
}

static void grow(qp_textmap_t *map)
{
    qp_textmap_slot_t *old = map->slot;
    uint32_t n_old = map->n_slot;
    map->n_slot = n_old > 0 ? 2 * n_old : 64;
    map->slot = QP_NEW("tokenizer", qp_textmap_slot_t, map->n_slot);
    for (uint32_t i = 0; i < map->n_slot; i++)
        map->slot[i].value = -1;
    for (uint32_t i = 0; i < n_old; i++)
        if (old[i].value >= 0)
            *find_slot(map, map->text.data + old[i].offset, old[i].length, old[i].hash) = old[i];
    qp_free(old);
}

void qp_textmap_put(qp_textmap_t *map, const char *key, size_t n_bytes, int32_t value)
{
    QP_ASSERT(value >= 0 && map->text.n + n_bytes < UINT32_MAX);
    if (2 * (map->n + 1) > map->n_slot)
        grow(map);
    const uint32_t hash = (uint32_t)qp_hash_bytes(key, n_bytes);
    qp_textmap_slot_t *slot = find_slot(map, key, n_bytes, hash);
    if (slot->value < 0) {
        *slot = (qp_textmap_slot_t){
            .hash = hash, .length = (uint32_t)n_bytes, .offset = (uint32_t)map->text.n};
        qp_str_append(&map->text, key, n_bytes);
        map->n++;
    }
    slot->value = value;
}

int32_t qp_textmap_get(const qp_textmap_t *map, const char *key, size_t n_bytes)
{
    if (map->n == 0)
        return -1;
    return find_slot(map, key, n_bytes, (uint32_t)qp_hash_bytes(key, n_bytes))->value;
}

void qp_pairmap_init(qp_pairmap_t *map, int64_t n_pair)
{
    uint32_t n_slot = 64;
    while (n_slot < 2 * n_pair)
        n_slot *= 2;
    map->slot = QP_NEW("tokenizer", qp_pairmap_slot_t, n_slot);
    map->mask = n_slot - 1;
    for (uint32_t i = 0; i < n_slot; i++)
        map->slot[i].left = -1;
}

void qp_pairmap_fini(qp_pairmap_t *map)
{
    QP_FREE(map->slot);
}

void qp_pairmap_put(qp_pairmap_t *map, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    uint32_t i = qp_pairmap_start(map, left, right);
    while (map->slot[i].left >= 0 && (map->slot[i].left != left || map->slot[i].right != right))
        i = (i + 1) & map->mask;
    map->slot[i] = (qp_pairmap_slot_t){.left = left, .right = right, .rank = rank, .id = id};
}
