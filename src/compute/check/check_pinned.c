/* Host memory that a device reads and writes by itself: asynchronous copies must use no other. */
#include <stdio.h>
#include <stdlib.h>

#include "compute/check/check.h"

static qp_check_device_t *device_of(qp_device_t *device)
{
    return (qp_check_device_t *)device;
}

static void add(qp_check_device_t *device, void *start, size_t bytes)
{
    pthread_mutex_lock(&device->lock);
    device->pinned = qp_realloc("device", device->pinned,
                                qp_bytes(device->n_pinned + 1, sizeof *device->pinned));
    device->pinned[device->n_pinned++] = (qp_check_pinned_t){start, bytes};
    pthread_mutex_unlock(&device->lock);
}

__attribute__((noreturn)) static void complain(const char *op, const void *p, size_t bytes)
{
    fprintf(stderr,
            "device.backend = \"check\": %s is given %zu bytes of host memory at %p, which is not "
            "pinned (host_alloc, host_register)\n",
            op, bytes, p);
    abort();
}

static void take_away(qp_check_device_t *device, const char *op, const void *start)
{
    pthread_mutex_lock(&device->lock);
    int64_t i = 0;
    while (i < device->n_pinned && device->pinned[i].start != start)
        i++;
    if (i == device->n_pinned)
        complain(op, start, 0);
    device->pinned[i] = device->pinned[--device->n_pinned];
    pthread_mutex_unlock(&device->lock);
}

void qp_check_is_pinned(qp_check_device_t *device, const char *op, const void *p, size_t bytes)
{
    const char *at = p;
    bool inside = false;
    pthread_mutex_lock(&device->lock);
    for (int64_t i = 0; i < device->n_pinned; i++) {
        const qp_check_pinned_t *block = &device->pinned[i];
        inside |= at >= block->start && at + bytes <= block->start + block->bytes;
    }
    pthread_mutex_unlock(&device->lock);
    if (!inside)
        complain(op, p, bytes);
}

qp_error_t qp_check_host_alloc(qp_device_t *device, const char *label, size_t bytes, void **out)
{
    QP_TRY(qp_cpu_host_alloc(device_of(device)->cpu, label, bytes, out));
    add(device_of(device), *out, bytes);
    return NULL;
}

void qp_check_host_release(qp_device_t *device, void *p)
{
    if (p == NULL)
        return;
    take_away(device_of(device), "host_release", p);
    qp_cpu_host_release(device_of(device)->cpu, p);
}

qp_error_t qp_check_host_register(qp_device_t *device, void *p, size_t bytes)
{
    add(device_of(device), p, bytes);
    return NULL;
}

void qp_check_host_unregister(qp_device_t *device, void *p)
{
    take_away(device_of(device), "host_unregister", p);
}
