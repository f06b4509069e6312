#include "compute/device.h"

#include "compute/cpu/cpu.h"

typedef qp_error_t (*open_t)(const qp_device_config_t *config, int node_rank, int node_size,
                             qp_device_t **device);

#ifdef QUIPU_CUDA
qp_error_t qp_cuda_device_open(const qp_device_config_t *config, int node_rank, int node_size,
                               qp_device_t **device);
static const open_t open_cuda = qp_cuda_device_open;
#else
static const open_t open_cuda = NULL;
#endif

qp_error_t qp_device_open(const qp_device_config_t *config, int node_rank, int node_size,
                          qp_device_t **device)
{
    QP_ASSERT(node_size > 0 && node_rank >= 0 && node_rank < node_size);
    qp_device_config_t resolved = *config;
    if (resolved.backend == QP_BACKEND_AUTO)
        resolved.backend = open_cuda != NULL ? QP_BACKEND_CUDA : QP_BACKEND_CPU;
    const open_t open[] = {[QP_BACKEND_CPU] = qp_cpu_device_open, [QP_BACKEND_CUDA] = open_cuda};
    if (open[resolved.backend] == NULL)
        return QP_ERROR(QP_INPUT, "device.backend = \"cuda\": this build has no CUDA backend; "
                                  "configure with -DQUIPU_CUDA=ON, or say \"cpu\"");
    return open[resolved.backend](&resolved, node_rank, node_size, device);
}

void qp_device_close(qp_device_t **device)
{
    if (*device != NULL)
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
