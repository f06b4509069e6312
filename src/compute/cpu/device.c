#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "compute/cpu/cpu.h"
#include "compute/cpu/gemm/dnnl.h"
#include "compute/cpu/gemm/float.h"
#include "compute/cpu/gemm/int8.h"

/**
 * Cores for this rank. Where the ranks of a node may use more cores together than the node has,
 * they share one set and each takes its part; else the launcher bound each rank to cores of its
 * own.
 */
static int share_of_cores(int node_size)
{
    cpu_set_t mine;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof mine, &mine) != 0)
        return 1;
    const int n_mine = CPU_COUNT(&mine);
    const bool shared = (int64_t)n_mine * node_size > sysconf(_SC_NPROCESSORS_ONLN);
    const int n = shared ? n_mine / node_size : n_mine;
    return n > 1 ? n : 1;
}

static void device_close(qp_device_t *base)
{
    qp_cpu_device_t *device = (qp_cpu_device_t *)base;
    qp_cpu_gemm_cache_destroy(device);
    for (int i = 0; i < QP_N_SCRATCH; i++)
        qp_free(device->scratch[i]);
    qp_free(device);
}

static qp_error_t start(qp_cpu_device_t *device)
{
    QP_TRY(qp_cpu_gemm_cache_create(device));
    QP_TRY(qp_cpu_dnnl_likes_packed(device, QP_I8, &device->packed_int8));
    device->int8_product = qp_cpu_int8_product();
    device->packed_int8 |= device->int8_product != NULL;
    QP_TRY(qp_cpu_dnnl_likes_packed(device, QP_BF16, &device->packed_bf16));
    device->float_product[QP_F32] = qp_cpu_float_product(QP_F32);
    device->float_product[QP_BF16] = qp_cpu_float_product(QP_BF16);
    device->dnnl_bf16 = device->packed_bf16 && qp_cpu_dnnl_has(dnnl_cpu_isa_avx512_core_amx);
    const dnnl_version_t *version = dnnl_version();
    snprintf(device->base.description, sizeof device->base.description,
             "cpu: %d thread%s, %s, oneDNN %d.%d.%d, %s", device->n_thread,
             device->n_thread == 1 ? "" : "s", qp_cpu_dnnl_isa_name(), version->major,
             version->minor, version->patch, qp_dtype_name(qp_device_dtype(&device->base)));
    return NULL;
}

qp_compute_t qp_cpu_auto_compute(void)
{
    return qp_cpu_dnnl_has(dnnl_cpu_isa_avx512_core_bf16) ? QP_COMPUTE_BF16 : QP_COMPUTE_FP32;
}

/* Whether bf16, asked for by name, can be had. */
static qp_error_t check_bf16(void)
{
    if (!qp_cpu_dnnl_has(dnnl_cpu_isa_avx512_core))
        return QP_ERROR(QP_INPUT,
                        "device.compute = \"bf16\" needs a CPU with AVX-512, this one has %s: "
                        "set device.compute = \"auto\" or \"fp32\"",
                        qp_cpu_dnnl_isa_name());
    if (!qp_cpu_dnnl_has(dnnl_cpu_isa_avx512_core_bf16))
        qp_log_warn("device.compute = \"bf16\": this CPU (%s) has no instructions for bf16 and "
                    "emulates them: \"fp32\" is several times as fast here",
                    qp_cpu_dnnl_isa_name());
    return NULL;
}

qp_error_t qp_cpu_device_open(const qp_device_config_t *config, int index, int node_size,
                              qp_device_t **out)
{
    (void)index; /* the launcher places the rank; threads stay where it did */
    if (config->compute == QP_COMPUTE_BF16 && !config->elsewhere)
        QP_TRY(check_bf16());
    qp_cpu_device_t *device = QP_NEW("device", qp_cpu_device_t, 1);
    device->n_thread = config->threads > 0 ? (int)config->threads : share_of_cores(node_size);
    omp_set_num_threads(device->n_thread);
    device->queue.device = &device->base;
    device->base = (qp_device_t){.ops = &qp_ops_cpu,
                                 .close = device_close,
                                 .queue = &device->queue,
                                 .config = *config,
                                 .host_addressable = true};
    device->base.config.backend = QP_BACKEND_CPU;
    device->base.config.threads = device->n_thread;
    const qp_error_t error = start(device);
    if (error != NULL)
        device_close(&device->base);
    else
        *out = &device->base;
    return error;
}

/* --- scratch ---------------------------------------------------------------------------------- */

static void add_need(const qp_device_t *base, const qp_pass_size_t *size,
                     qp_cpu_scratch_need_t *need)
{
    static void (*const part[])(const qp_cpu_device_t *, const qp_pass_size_t *,
                                qp_cpu_scratch_need_t *) = {
        qp_cpu_input_scratch,   qp_cpu_matmul_scratch,    qp_cpu_linear_scratch,
        qp_cpu_lm_head_scratch, qp_cpu_lm_logits_scratch, qp_cpu_attention_scratch,
        qp_cpu_lm_kl_scratch,   qp_cpu_sample_scratch};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        part[i]((const qp_cpu_device_t *)base, size, need);
}

size_t qp_cpu_scratch_bytes(const qp_device_t *device, const qp_pass_size_t *size, int n)
{
    qp_cpu_scratch_need_t need = {0};
    size_t bytes = 0;
    for (int i = 0; i < n; i++)
        add_need(device, &size[i], &need);
    for (int i = 0; i < QP_N_SCRATCH; i++)
        bytes += need.bytes[i];
    return bytes;
}

qp_error_t qp_cpu_reserve(qp_device_t *device, const qp_pass_size_t *size)
{
    qp_cpu_scratch_need_t need = {0};
    add_need(device, size, &need);
    qp_cpu_scratch_grow((qp_cpu_device_t *)device, &need);
    return NULL;
}

/* --- memory ----------------------------------------------------------------------------------- */

qp_error_t qp_cpu_memory_info(qp_device_t *device, int64_t *free_bytes, int64_t *all_bytes)
{
    (void)device;
    *free_bytes = *all_bytes = -1;
    return NULL;
}

qp_error_t qp_cpu_take_budget(qp_device_t *device, const qp_budget_t *budget)
{
    (void)device;
    (void)budget;
    return NULL;
}

qp_error_t qp_cpu_alloc(qp_device_t *device, const char *label, size_t bytes, qp_dptr_t *out)
{
    (void)device;
    *out = (qp_dptr_t){(uintptr_t)qp_alloc(label, bytes)};
    return NULL;
}

void qp_cpu_release(qp_device_t *device, qp_dptr_t *p)
{
    (void)device;
    qp_free(qp_cpu_pointer(*p));
    *p = (qp_dptr_t){0};
}

/* What one thread copies or clears at a time: a large page, which costs more to get than to fill.
 */
static const size_t COPY_BYTES = 2 << 20;

qp_error_t qp_cpu_upload(qp_queue_t *q, qp_dptr_t to, const void *from, size_t bytes)
{
    char *target = qp_cpu_pointer(to);
    const char *source = from;
#pragma omp parallel for num_threads(qp_cpu_device(q)->n_thread) if (bytes > COPY_BYTES)
    for (size_t at = 0; at < bytes; at += COPY_BYTES)
        memcpy(target + at, source + at, bytes - at < COPY_BYTES ? bytes - at : COPY_BYTES);
    return NULL;
}

qp_error_t qp_cpu_download(qp_queue_t *q, void *to, qp_dptr_t from, size_t bytes)
{
    (void)q;
    if (bytes > 0)
        memcpy(to, qp_cpu_pointer(from), bytes);
    return NULL;
}

qp_error_t qp_cpu_copy(qp_queue_t *q, qp_dptr_t to, qp_dptr_t from, size_t bytes)
{
    return qp_cpu_upload(q, to, qp_cpu_pointer(from), bytes);
}

/* By all threads too: new memory gets its pages from whoever writes to them first. */
qp_error_t qp_cpu_zero(qp_queue_t *q, qp_dptr_t p, size_t bytes)
{
    char *target = qp_cpu_pointer(p);
#pragma omp parallel for num_threads(qp_cpu_device(q)->n_thread) if (bytes > COPY_BYTES)
    for (size_t at = 0; at < bytes; at += COPY_BYTES)
        memset(target + at, 0, bytes - at < COPY_BYTES ? bytes - at : COPY_BYTES);
    return NULL;
}

qp_error_t qp_cpu_discard(qp_queue_t *q, qp_dptr_t p, size_t bytes)
{
    (void)q;
    (void)p;
    (void)bytes;
    return NULL;
}

qp_error_t qp_cpu_host_alloc(qp_device_t *device, const char *label, size_t bytes, void **out)
{
    (void)device;
    *out = qp_alloc(label, bytes);
    return NULL;
}

void qp_cpu_host_release(qp_device_t *device, void *p)
{
    (void)device;
    qp_free(p);
}

qp_error_t qp_cpu_host_register(qp_device_t *device, void *p, size_t bytes)
{
    (void)device;
    (void)p;
    (void)bytes;
    return NULL;
}

void qp_cpu_host_unregister(qp_device_t *device, void *p)
{
    (void)device;
    (void)p;
}

/* --- queues: everything is done when an op returns, so that there is nothing to wait for --------
 */

qp_error_t qp_cpu_queue_create(qp_device_t *device, qp_queue_t **queue)
{
    *queue = QP_NEW("device", qp_queue_t, 1);
    (*queue)->device = device;
    return NULL;
}

void qp_cpu_queue_destroy(qp_queue_t **queue)
{
    QP_FREE(*queue);
}

qp_error_t qp_cpu_synchronize(qp_queue_t *q)
{
    (void)q;
    return NULL;
}

struct qp_event {
    char nothing;
};

qp_error_t qp_cpu_event_create(qp_device_t *device, qp_event_t **event)
{
    (void)device;
    *event = QP_NEW("device", qp_event_t, 1);
    return NULL;
}

void qp_cpu_event_destroy(qp_event_t **event)
{
    QP_FREE(*event);
}

qp_error_t qp_cpu_event_record(qp_queue_t *q, qp_event_t *event)
{
    (void)q;
    (void)event;
    return NULL;
}

qp_error_t qp_cpu_event_wait(qp_queue_t *q, qp_event_t *event)
{
    (void)q;
    (void)event;
    return NULL;
}

qp_error_t qp_cpu_event_synchronize(qp_event_t *event)
{
    (void)event;
    return NULL;
}
