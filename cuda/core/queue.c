#include <string.h>

#include "cuda/cuda.h"

/* Half of the pinned memory that upload() copies through. */
static const size_t RING_BYTES = 1 << 20;

struct qp_event {
    qp_cuda_device_t *device;
    cudaEvent_t event;
    bool recorded;
};

/* Any thread may come; CUDA keeps the current device per thread. */
static qp_error_t use(const qp_device_t *device)
{
    return QP_CUDA(cudaSetDevice(((const qp_cuda_device_t *)device)->index));
}

/* --- queues ----------------------------------------------------------------------------------- */

static qp_error_t create(qp_cuda_queue_t *queue)
{
    QP_TRY(use(queue->base.device));
    QP_TRY(QP_CUDA(cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking)));
    for (int i = 0; i < 2; i++) {
        void *host = NULL;
        QP_TRY(QP_CUDA(cudaEventCreateWithFlags(&queue->ring.free[i], cudaEventDisableTiming)));
        QP_TRY(qp_cuda_host_alloc(queue->base.device, "device", RING_BYTES, &host));
        queue->ring.host[i] = host;
    }
    return NULL;
}

qp_error_t qp_cuda_queue_create(qp_device_t *device, qp_queue_t **out)
{
    qp_cuda_queue_t *queue = QP_NEW("device", qp_cuda_queue_t, 1);
    queue->base.device = device;
    *out = &queue->base;
    const qp_error_t error = create(queue);
    if (error != NULL)
        qp_cuda_queue_destroy(out);
    return error;
}

void qp_cuda_queue_destroy(qp_queue_t **out)
{
    qp_cuda_queue_t *queue = (qp_cuda_queue_t *)*out;
    if (queue == NULL)
        return;
    qp_error_t error = queue->stream == NULL ? NULL : qp_cuda_synchronize(*out);
    qp_error_destroy(&error); /* who wanted to know has waited */
    for (int i = 0; i < 2; i++) {
        if (queue->ring.free[i] != NULL)
            (void)cudaEventDestroy(queue->ring.free[i]);
        qp_cuda_host_release(queue->base.device, queue->ring.host[i]);
    }
    if (queue->stream != NULL)
        (void)cudaStreamDestroy(queue->stream);
    QP_FREE(queue);
    *out = NULL;
}

qp_error_t qp_cuda_synchronize(qp_queue_t *q)
{
    QP_TRY(use(q->device));
    return QP_CUDA(cudaStreamSynchronize(qp_cuda_stream(q)));
}

/* --- events ----------------------------------------------------------------------------------- */

qp_error_t qp_cuda_event_create(qp_device_t *device, qp_event_t **out)
{
    qp_event_t *event = QP_NEW("device", qp_event_t, 1);
    event->device = (qp_cuda_device_t *)device;
    *out = event;
    qp_error_t error = use(device);
    if (error == NULL)
        error = QP_CUDA(cudaEventCreateWithFlags(&event->event, cudaEventDisableTiming));
    if (error != NULL)
        qp_cuda_event_destroy(out);
    return error;
}

void qp_cuda_event_destroy(qp_event_t **event)
{
    if (*event == NULL)
        return;
    if ((*event)->event != NULL)
        (void)cudaEventDestroy((*event)->event);
    QP_FREE(*event);
}

qp_error_t qp_cuda_event_record(qp_queue_t *q, qp_event_t *event)
{
    QP_TRY(use(q->device));
    event->recorded = true;
    return QP_CUDA(cudaEventRecord(event->event, qp_cuda_stream(q)));
}

qp_error_t qp_cuda_event_wait(qp_queue_t *q, qp_event_t *event)
{
    QP_TRY(use(q->device));
    return QP_CUDA(cudaStreamWaitEvent(qp_cuda_stream(q), event->event, 0));
}

qp_error_t qp_cuda_event_synchronize(qp_event_t *event)
{
    if (!event->recorded)
        return NULL;
    QP_TRY(use(&event->device->base));
    return QP_CUDA(cudaEventSynchronize(event->event));
}

/* --- copies ----------------------------------------------------------------------------------- */

static void *at(qp_dptr_t p)
{
    return (void *)p.address;
}

/* Through pinned memory: what the caller gave is read when this returns. */
qp_error_t qp_cuda_upload(qp_queue_t *q, qp_dptr_t to, const void *from, size_t bytes)
{
    qp_cuda_ring_t *ring = &((qp_cuda_queue_t *)q)->ring;
    QP_TRY(use(q->device));
    for (size_t done = 0; done < bytes; done += RING_BYTES) {
        const size_t n = bytes - done < RING_BYTES ? bytes - done : RING_BYTES;
        const int half = ring->next;
        ring->next = 1 - half;
        QP_TRY(QP_CUDA(cudaEventSynchronize(ring->free[half])));
        memcpy(ring->host[half], (const char *)from + done, n);
        QP_TRY(QP_CUDA(cudaMemcpyAsync((char *)at(to) + done, ring->host[half], n,
                                       cudaMemcpyHostToDevice, qp_cuda_stream(q))));
        QP_TRY(QP_CUDA(cudaEventRecord(ring->free[half], qp_cuda_stream(q))));
    }
    return NULL;
}

qp_error_t qp_cuda_upload_async(qp_queue_t *q, qp_dptr_t to, const void *from, size_t bytes)
{
    QP_TRY(use(q->device));
    return QP_CUDA(cudaMemcpyAsync(at(to), from, bytes, cudaMemcpyHostToDevice, qp_cuda_stream(q)));
}

qp_error_t qp_cuda_download_async(qp_queue_t *q, void *to, qp_dptr_t from, size_t bytes)
{
    QP_TRY(use(q->device));
    return QP_CUDA(cudaMemcpyAsync(to, at(from), bytes, cudaMemcpyDeviceToHost, qp_cuda_stream(q)));
}

/* By the ring, too: memory that is not pinned would be copied twice by the driver. */
qp_error_t qp_cuda_download(qp_queue_t *q, void *to, qp_dptr_t from, size_t bytes)
{
    const qp_cuda_ring_t *ring = &((qp_cuda_queue_t *)q)->ring;
    QP_TRY(qp_cuda_synchronize(q)); /* both halves are free */
    for (size_t done = 0; done < bytes; done += RING_BYTES) {
        const size_t n = bytes - done < RING_BYTES ? bytes - done : RING_BYTES;
        QP_TRY(qp_cuda_download_async(q, ring->host[0], qp_dptr_at(from, done), n));
        QP_TRY(qp_cuda_synchronize(q));
        memcpy((char *)to + done, ring->host[0], n);
    }
    return NULL;
}

qp_error_t qp_cuda_copy(qp_queue_t *q, qp_dptr_t to, qp_dptr_t from, size_t bytes)
{
    QP_TRY(use(q->device));
    return QP_CUDA(
        cudaMemcpyAsync(at(to), at(from), bytes, cudaMemcpyDeviceToDevice, qp_cuda_stream(q)));
}

qp_error_t qp_cuda_zero(qp_queue_t *q, qp_dptr_t p, size_t bytes)
{
    QP_TRY(use(q->device));
    return QP_CUDA(cudaMemsetAsync(at(p), 0, bytes, qp_cuda_stream(q)));
}

qp_error_t qp_cuda_discard(qp_queue_t *q, qp_dptr_t p, size_t bytes)
{
    (void)q;
    (void)p;
    (void)bytes;
    return NULL;
}
