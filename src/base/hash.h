/** \file hash.h  XXH3 checksums (xxHash): 64-bit, streaming or at once. */
#ifndef QP_BASE_HASH_H
#define QP_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct qp_hash qp_hash_t;

uint64_t qp_hash_bytes(const void *data, size_t bytes);
qp_hash_t *qp_hash_create(void);
void qp_hash_update(qp_hash_t *hash, const void *data, size_t bytes);
uint64_t qp_hash_value(const qp_hash_t *hash);
void qp_hash_destroy(qp_hash_t **hash);

#endif
