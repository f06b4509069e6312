#include "compute/device.h"

#include "compute/cpu/cpu.h"

qp_error_t qp_device_open(const qp_device_config_t *config, int node_rank, int node_size,
                          qp_device_t **device)
{
    QP_ASSERT(node_size > 0 && node_rank >= 0 && node_rank < node_size);
    if (config->backend == QP_BACKEND_CUDA)
        return QP_ERROR(QP_INPUT, "device.backend = \"cuda\": this version has no CUDA backend; "
                                  "say \"cpu\" or \"auto\"");
    qp_device_config_t resolved = *config;
    resolved.backend = QP_BACKEND_CPU;
    if (resolved.compute == QP_COMPUTE_AUTO)
        resolved.compute = (int)qp_device_auto_compute();
    return qp_cpu_device_open(&resolved, node_rank, node_size, device);
}

void qp_device_close(qp_device_t **device)
{
    if (*device == NULL)
        return;
    if ((*device)->timed_ops != NULL)
        qp_free((void *)(*device)->ops);
    (*device)->close(*device);
    *device = NULL;
}

qp_queue_t *qp_device_queue(qp_device_t *device)
{
    return device->queue;
}

const char *qp_device_describe(const qp_device_t *device)
{
    return device->description;
}

qp_dptr_t qp_device_from_host(const qp_device_t *device, void *host)
{
    QP_ASSERT(device->host_addressable);
    return (qp_dptr_t){(uintptr_t)host};
}
