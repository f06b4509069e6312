#include "compute/device.h"

#include "base/env.h"
#include "compute/check/check.h"

typedef struct {
    const char *name;
    qp_error_t (*open)(const qp_device_config_t *, int, int,
                       qp_device_t **); /* NULL: not built in */
} backend_t;

static const backend_t BACKENDS[] = {
    [QP_BACKEND_CPU] = {"cpu", qp_cpu_device_open},
    [QP_BACKEND_CUDA] = {"cuda", NULL},
    [QP_BACKEND_CHECK] = {"check", qp_check_device_open},
};
enum { N_BACKEND = sizeof BACKENDS / sizeof BACKENDS[0] };

/* What "auto" is: the CPU, unless who tests says otherwise. */
static qp_error_t choose(int *backend)
{
    const char *name = qp_env("QUIPU_BACKEND");
    *backend = QP_BACKEND_CPU;
    if (name == NULL)
        return NULL;
    for (int i = QP_BACKEND_CPU; i < N_BACKEND; i++)
        if (strcmp(name, BACKENDS[i].name) == 0) {
            *backend = i;
            return NULL;
        }
    return QP_ERROR(QP_INPUT,
                    "the environment variable QUIPU_BACKEND is \"%s\", not cpu, cuda or "
                    "check",
                    name);
}

qp_error_t qp_device_open(const qp_device_config_t *config, int node_rank, int node_size,
                          qp_device_t **device)
{
    qp_device_config_t resolved = *config;
    QP_ASSERT(node_size > 0 && node_rank >= 0 && node_rank < node_size);
    if (resolved.backend == QP_BACKEND_AUTO)
        QP_TRY(choose(&resolved.backend));
    const backend_t *backend = &BACKENDS[resolved.backend];
    if (backend->open == NULL)
        return QP_ERROR(QP_INPUT,
                        "device.backend = \"%s\": this program was built without it; say "
                        "\"cpu\" or \"auto\"",
                        backend->name);
    if (resolved.compute == QP_COMPUTE_AUTO)
        resolved.compute = (int)qp_device_auto_compute();
    return backend->open(&resolved, node_rank, node_size, device);
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

void *qp_device_to_host(const qp_device_t *device, qp_dptr_t p)
{
    QP_ASSERT(device->host_addressable);
    return (void *)p.address;
}
