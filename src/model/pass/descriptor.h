/**
 * \file descriptor.h
 * The small arrays of a batch on their way to the device: put together on the host, one after
 * another, and sent in one copy.
 */
#ifndef QP_MODEL_PASS_DESCRIPTOR_H
#define QP_MODEL_PASS_DESCRIPTOR_H

#include "compute/ops.h"

typedef struct {
    qp_dptr_t device; /**< not owned: [capacity] bytes */
    char *host;       /**< owned: the same */
    size_t capacity, used;
} qp_descriptor_t;

/** Bytes that an array of n elements of four bytes takes in it. */
static inline size_t qp_descriptor_bytes(int64_t n)
{
    return ((size_t)n * 4 + 63) / 64 * 64;
}

/** \a device has room for \a capacity bytes. Free it with qp_descriptor_fini(). */
void qp_descriptor_init(qp_descriptor_t *d, qp_dptr_t device, size_t capacity);
void qp_descriptor_fini(qp_descriptor_t *d);

/** Begins a new one. */
void qp_descriptor_clear(qp_descriptor_t *d);
/**
 * Room for the next n elements of four bytes: *host gets where to write them until
 * qp_descriptor_send(); the result is where they are on the device behind it.
 */
qp_dptr_t qp_descriptor_take(qp_descriptor_t *d, int64_t n, void **host);
/** The next n elements of four bytes, copied. */
qp_dptr_t qp_descriptor_put(qp_descriptor_t *d, const void *from, int64_t n);
/** Queues the copy of all that was put. */
qp_error_t qp_descriptor_send(const qp_descriptor_t *d, qp_queue_t *q);

#endif
