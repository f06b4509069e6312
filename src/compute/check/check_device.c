#include <stdio.h>
#include <stdlib.h>

#include "base/env.h"
#include "base/log.h"
#include "compute/check/check.h"

static void device_close(qp_device_t *base)
{
    qp_check_device_t *device = (qp_check_device_t *)base;
    qp_error_t error = device->queue == NULL ? NULL : qp_check_wait_all(device);
    if (error != NULL)
        qp_log_error("device.backend = \"check\": nobody waited for what failed: %s",
                     error->message);
    qp_error_destroy(&error);
    while (device->queue != NULL) {
        qp_queue_t *queue = &device->queue->base;
        qp_check_queue_destroy(&queue);
    }
    qp_check_memory_close(&device->memory);
    qp_free(device->reserved);
    pthread_mutex_destroy(&device->lock);
    qp_free(device->pinned);
    if (device->cpu != NULL)
        qp_device_close(&device->cpu);
    qp_free(device);
}

static qp_error_t start(qp_check_device_t *device, const qp_device_config_t *config, int index,
                        int node_size)
{
    const char *seed = qp_env("QUIPU_CHECK_SEED");
    device->seed = device->draw = seed == NULL ? 0 : strtoull(seed, NULL, 10);
    const char *memory = qp_env("QUIPU_CHECK_MEMORY");
    device->all_bytes = memory == NULL ? -1 : strtoll(memory, NULL, 10);
    QP_TRY(qp_check_memory_open(&device->memory));
    QP_TRY(qp_cpu_device_open(config, index, node_size, &device->cpu));
    QP_TRY(qp_check_queue_create(&device->base, &device->base.queue));
    device->base.config = device->cpu->config;
    device->base.config.backend = QP_BACKEND_CHECK;
    snprintf(device->base.description, sizeof device->base.description, "check (seed %llu): %.120s",
             (unsigned long long)device->seed, device->cpu->description);
    return NULL;
}

qp_error_t qp_check_device_open(const qp_device_config_t *config, int index, int node_size,
                                qp_device_t **out)
{
    qp_check_device_t *device = QP_NEW("device", qp_check_device_t, 1);
    device->base = (qp_device_t){.ops = &qp_ops_check, .close = device_close, .queued = true};
    pthread_mutex_init(&device->lock, NULL);
    qp_error_t error = start(device, config, index, node_size);
    if (error != NULL)
        device_close(&device->base);
    else
        *out = &device->base;
    return error;
}
