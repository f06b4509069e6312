#include "base/hash.h"

#include <xxhash.h>

#include "base/error.h"

uint64_t qp_hash_bytes(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

qp_hash_t *qp_hash_create(void)
{
    XXH3_state_t *state = XXH3_createState();
    QP_ASSERT(state != NULL);
    XXH3_64bits_reset(state);
    return (qp_hash_t *)state;
}

void qp_hash_update(qp_hash_t *hash, const void *data, size_t bytes)
{
    XXH3_64bits_update((XXH3_state_t *)hash, data, bytes);
}

uint64_t qp_hash_value(const qp_hash_t *hash)
{
    return XXH3_64bits_digest((const XXH3_state_t *)hash);
}

void qp_hash_destroy(qp_hash_t **hash)
{
    XXH3_freeState((XXH3_state_t *)*hash);
    *hash = NULL;
}
