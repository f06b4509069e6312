#include "model/pass/descriptor.h"

#include <string.h>

#include "base/mem.h"

void qp_descriptor_init(qp_descriptor_t *d, qp_dptr_t device, size_t capacity)
{
    *d = (qp_descriptor_t){
        .device = device, .host = qp_alloc("descriptor", capacity), .capacity = capacity};
}

void qp_descriptor_fini(qp_descriptor_t *d)
{
    qp_free(d->host);
    *d = (qp_descriptor_t){0};
}

void qp_descriptor_clear(qp_descriptor_t *d)
{
    d->used = 0;
}

qp_dptr_t qp_descriptor_take(qp_descriptor_t *d, int64_t n, void **host)
{
    const size_t at = d->used;
    d->used += qp_descriptor_bytes(n);
    QP_ASSERT(d->used <= d->capacity);
    *host = d->host + at;
    return qp_dptr_at(d->device, at);
}

qp_dptr_t qp_descriptor_put(qp_descriptor_t *d, const void *from, int64_t n)
{
    void *to;
    const qp_dptr_t at = qp_descriptor_take(d, n, &to);
    memcpy(to, from, (size_t)n * 4);
    return at;
}

qp_error_t qp_descriptor_send(const qp_descriptor_t *d, qp_queue_t *q)
{
    return q->device->ops->upload(q, d->device, d->host, d->used);
}
