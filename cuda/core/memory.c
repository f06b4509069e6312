#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cuda/cuda.h"

/* --- device and pinned memory ----------------------------------------------------------------- */

/* Whoever watches what kernels do knows only what CUDA gives. */
#ifdef CUDA_ON_CPU
#define TELL(p, bytes, given) cuda_on_cpu_piece((p), (bytes), (given))
#else
#define TELL(p, bytes, given) ((void)0)
#endif

/* How large a block is, and under which label it is counted. */
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

/* What was counted; without a link to others. */
static block_t uncount(const void *p)
{
    block_t **link = &blocks;
    for (; (*link)->p != p; link = &(*link)->next)
        QP_ASSERT((*link)->next != NULL);
    block_t *block = *link;
    const block_t was = {.label = block->label, .p = block->p, .bytes = block->bytes};
    *link = block->next;
    qp_mem_account(block->label, -(int64_t)block->bytes);
    qp_free(block);
    return was;
}

/* What the driver has of a GPU for each process, about: there is no way to see it from within. */
static const int64_t CONTEXT_BYTES = 600 << 20;

static int64_t scratch_alive(const qp_cuda_device_t *device)
{
    int64_t bytes = 0;
    for (int i = 0; i < QP_CUDA_N_SCRATCH; i++)
        bytes += (int64_t)device->reserved.bytes[i];
    return bytes;
}

qp_error_t qp_cuda_memory_info(qp_device_t *base, int64_t *free_bytes, int64_t *all_bytes)
{
    const qp_cuda_device_t *device = (const qp_cuda_device_t *)base;
    const int64_t most = (int64_t)(base->config.memory * 1e9);
    size_t unused = 0, all = 0;
    if (device->is_there)
        QP_TRY(QP_CUDA(cudaMemGetInfo(&unused, &all)));
    *free_bytes = device->is_there ? (int64_t)unused : -1;
    *all_bytes = device->is_there ? (int64_t)all : CONTEXT_BYTES;
    if (device->is_there && device->arena == NULL)
        *free_bytes += scratch_alive(device);
    if (most > 0 && (base->config.dry || most < *all_bytes)) {
        const int64_t taken = *all_bytes - *free_bytes;
        const int64_t own = device->is_there && taken < CONTEXT_BYTES ? taken : CONTEXT_BYTES;
        const int64_t left = most > own ? most - own : 0;
        *free_bytes = base->config.dry || left < *free_bytes ? left : *free_bytes;
        *all_bytes = most;
    }
    return NULL;
}

/* Memory of the GPU, for \a what. */
static qp_error_t take(const char *what, size_t bytes, void **p)
{
    size_t unused = 0, all = 0;
    const cudaError_t status = cudaMalloc(p, at_least_one(bytes));
    if (status != cudaErrorMemoryAllocation)
        return QP_CUDA(status);
    (void)cudaGetLastError();
    QP_TRY(QP_CUDA(cudaMemGetInfo(&unused, &all)));
    return QP_ERROR(QP_IO, "%s: the GPU has no room for %.1f MB more: %.1f of %.1f MB are free",
                    what, (double)bytes / 1e6, (double)unused / 1e6, (double)all / 1e6);
}

qp_error_t qp_cuda_alloc(qp_device_t *base, const char *label, size_t bytes, qp_dptr_t *out)
{
    const qp_cuda_device_t *device = (const qp_cuda_device_t *)base;
    void *p = NULL;
    size_t at = 0;
    if (device->arena == NULL) {
        QP_TRY(take(label, bytes, &p));
    } else {
        QP_TRY(qp_budget_take(&base->budget, label, bytes, &at));
        p = device->arena + at;
        TELL(p, bytes, true);
    }
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

void qp_cuda_release(qp_device_t *base, qp_dptr_t *p)
{
    const qp_cuda_device_t *device = (const qp_cuda_device_t *)base;
    if (qp_dptr_is_null(*p))
        return;
    const block_t block = uncount((void *)p->address);
    if (device->arena == NULL) {
        warn(QP_CUDA(cudaFree(block.p))); /* waits for all work */
    } else {
        warn(QP_CUDA(cudaDeviceSynchronize()));
        TELL(block.p, block.bytes, false);
        qp_budget_give_back(&base->budget, block.label, block.bytes);
    }
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

/* A new device has scratch for what is asked for beside passes: those of size 0. */
size_t qp_cuda_scratch_bytes(const qp_device_t *device, const qp_pass_size_t *size, int n)
{
    qp_cuda_need_t need = {0};
    size_t bytes = 0;
    add_need(device, &(qp_pass_size_t){0}, &need);
    for (int i = 0; i < n; i++)
        add_need(device, &size[i], &need);
    for (int i = 0; i < QP_CUDA_N_SCRATCH; i++)
        if (need.bytes[i] > 0)
            bytes += qp_budget_piece(need.bytes[i]);
    return bytes;
}

void qp_cuda_drop_scratch(qp_device_t *base)
{
    qp_cuda_device_t *device = (qp_cuda_device_t *)base;
    for (int i = 0; i < QP_CUDA_N_SCRATCH; i++) {
        qp_dptr_t p = {(uintptr_t)device->scratch[i]};
        qp_cuda_release(base, &p);
        device->scratch[i] = NULL;
    }
    device->reserved = (qp_cuda_need_t){0};
}

/* All slots anew, one behind another in their row of a budget; contents are not kept. */
static qp_error_t make_scratch(qp_device_t *base, const qp_cuda_need_t *need)
{
    qp_cuda_device_t *device = (qp_cuda_device_t *)base;
    qp_cuda_drop_scratch(base);
    for (int i = 0; i < QP_CUDA_N_SCRATCH; i++) {
        qp_dptr_t p = {0};
        if (need->bytes[i] == 0)
            continue;
        QP_TRY(qp_cuda_alloc(base, "scratch", need->bytes[i], &p));
        device->scratch[i] = (void *)p.address;
        device->reserved.bytes[i] = need->bytes[i];
    }
    return NULL;
}

qp_error_t qp_cuda_reserve(qp_device_t *base, const qp_pass_size_t *size)
{
    const qp_cuda_need_t reserved = ((qp_cuda_device_t *)base)->reserved;
    qp_cuda_need_t need = reserved;
    add_need(base, size, &need);
    return memcmp(&need, &reserved, sizeof need) == 0 ? NULL : make_scratch(base, &need);
}

/* The GPU is asked once; what is there already, scratch alone, moves. */
qp_error_t qp_cuda_take_budget(qp_device_t *base, const qp_budget_t *budget)
{
    qp_cuda_device_t *device = (qp_cuda_device_t *)base;
    const qp_cuda_need_t need = device->reserved;
    void *arena = NULL;
    QP_ASSERT(device->arena == NULL);
    qp_cuda_drop_scratch(base);
    base->budget = *budget;
    const size_t bytes = qp_budget_place(&base->budget);
    QP_TRY(take("the run's memory, in one piece", bytes, &arena));
    TELL(arena, bytes, false);
    device->arena = arena;
    return make_scratch(base, &need);
}

void qp_cuda_drop_budget(qp_device_t *base)
{
    qp_cuda_device_t *device = (qp_cuda_device_t *)base;
    if (device->arena != NULL)
        warn(QP_CUDA(cudaFree(device->arena)));
    device->arena = NULL;
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
