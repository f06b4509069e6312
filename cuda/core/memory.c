#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "cuda/cuda.h"

/* --- device and pinned memory ----------------------------------------------------------------- */

/* What stands before nothing: how large the blocks are, and under which label they are counted. */
typedef struct block {
    struct block *next;
    const char *label;
    void *p;
    size_t bytes;
} block_t;

static block_t *blocks; /* of all devices of the process; used by the thread of the run alone */

/* Memory of no bytes is a valid address, too. */
static size_t at_least_one(size_t bytes)
{
    return bytes == 0 ? 1 : bytes;
}

static void count(const char *label, void *p, size_t bytes)
{
    block_t *block = QP_NEW("device", block_t, 1);
    *block = (block_t){.next = blocks, .label = label, .p = p, .bytes = at_least_one(bytes)};
    blocks = block;
    qp_mem_account(label, (int64_t)block->bytes);
}

static void uncount(const void *p)
{
    block_t **link = &blocks;
    for (; (*link)->p != p; link = &(*link)->next)
        QP_ASSERT((*link)->next != NULL);
    block_t *block = *link;
    *link = block->next;
    qp_mem_account(block->label, -(int64_t)block->bytes);
    qp_free(block);
}

qp_error_t qp_cuda_memory_info(qp_device_t *device, int64_t *free_bytes, int64_t *all_bytes)
{
    size_t unused, all;
    (void)device;
    QP_TRY(QP_CUDA(cudaMemGetInfo(&unused, &all)));
    *free_bytes = (int64_t)unused;
    *all_bytes = (int64_t)all;
    return NULL;
}

qp_error_t qp_cuda_alloc(qp_device_t *device, const char *label, size_t bytes, qp_dptr_t *out)
{
    void *p = NULL;
    (void)device;
    const cudaError_t status = cudaMalloc(&p, at_least_one(bytes));
    if (status == cudaErrorMemoryAllocation) {
        size_t unused = 0, all = 0;
        (void)cudaGetLastError();
        QP_TRY(QP_CUDA(cudaMemGetInfo(&unused, &all)));
        return QP_ERROR(QP_IO, "%s: the GPU has no room for %.1f MB more: %.1f of %.1f MB are free",
                        label, (double)bytes / 1e6, (double)unused / 1e6, (double)all / 1e6);
    }
    QP_TRY(QP_CUDA(status));
    count(label, p, bytes);
    *out = (qp_dptr_t){(uintptr_t)p};
    return NULL;
}

/* Freeing cannot fail in a way that the caller could do something about. */
static void warn(qp_error_t error)
{
    if (error != NULL)
        qp_log_warn("%s", error->message);
    qp_error_destroy(&error);
}

void qp_cuda_release(qp_device_t *device, qp_dptr_t *p)
{
    (void)device;
    if (qp_dptr_is_null(*p))
        return;
    void *block = (void *)p->address;
    warn(QP_CUDA(cudaFree(block))); /* waits for all work */
    uncount(block);
    *p = (qp_dptr_t){0};
}

qp_error_t qp_cuda_host_alloc(qp_device_t *device, const char *label, size_t bytes, void **out)
{
    (void)device;
    QP_TRY(QP_CUDA(cudaHostAlloc(out, at_least_one(bytes), cudaHostAllocDefault)));
    count(label, *out, bytes);
    return NULL;
}

void qp_cuda_host_release(qp_device_t *device, void *p)
{
    (void)device;
    if (p == NULL)
        return;
    warn(QP_CUDA(cudaFreeHost(p)));
    uncount(p);
}

qp_error_t qp_cuda_host_register(qp_device_t *device, void *p, size_t bytes)
{
    (void)device;
    return QP_CUDA(cudaHostRegister(p, bytes, cudaHostRegisterDefault));
}

void qp_cuda_host_unregister(qp_device_t *device, void *p)
{
    (void)device;
    warn(QP_CUDA(cudaHostUnregister(p)));
}

/* --- scratch ---------------------------------------------------------------------------------- */

static void add_need(const qp_device_t *base, const qp_pass_size_t *size, qp_cuda_need_t *need)
{
    static qp_cuda_need_of_t *const part[] = {qp_cuda_rows_need, qp_cuda_matmul_need,
                                              qp_cuda_linear_need, qp_cuda_attention_need,
                                              qp_cuda_head_need};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        part[i]((const qp_cuda_device_t *)base, size, need);
}

size_t qp_cuda_scratch_bytes(const qp_device_t *device, const qp_pass_size_t *size, int n)
{
    qp_cuda_need_t need = {0};
    size_t bytes = 0;
    for (int i = 0; i < n; i++)
        add_need(device, &size[i], &need);
    for (int i = 0; i < QP_CUDA_N_SCRATCH; i++)
        bytes += need.bytes[i];
    return bytes;
}

qp_error_t qp_cuda_reserve(qp_device_t *base, const qp_pass_size_t *size)
{
    qp_cuda_device_t *device = (qp_cuda_device_t *)base;
    qp_cuda_need_t need = {0};
    add_need(base, size, &need);
    for (int i = 0; i < QP_CUDA_N_SCRATCH; i++) {
        if (need.bytes[i] <= device->reserved.bytes[i])
            continue;
        qp_dptr_t p = {(uintptr_t)device->scratch[i]};
        qp_cuda_release(base, &p); /* contents are not kept */
        device->scratch[i] = NULL;
        device->reserved.bytes[i] = 0;
        QP_TRY(qp_cuda_alloc(base, "scratch", need.bytes[i], &p));
        device->scratch[i] = (void *)p.address;
        device->reserved.bytes[i] = need.bytes[i];
    }
    return NULL;
}

void *qp_cuda_scratch(qp_queue_t *q, qp_cuda_scratch_slot_t slot, size_t bytes)
{
#define WHAT(id, what) [QP_CUDA_SCRATCH_##id] = (what),
    static const char *const name[QP_CUDA_N_SCRATCH] = {QP_CUDA_SCRATCH_SLOTS(WHAT)};
#undef WHAT
    const qp_cuda_device_t *device = qp_cuda_device(q);
    QP_ASSERT(q == device->base.queue);
    if (bytes <= device->reserved.bytes[slot])
        return device->scratch[slot];
    fprintf(stderr,
            "%zu bytes of scratch (%s) are wanted, but reserve() was told of no such pass: "
            "%zu\n",
            bytes, name[slot], device->reserved.bytes[slot]);
    abort();
}
