#include "compute/device.h"

#include "base/env.h"
#include "compute/check/check.h"
#include "compute/cuda.h"

typedef struct {
    const char *name;
    qp_error_t (*open)(const qp_device_config_t *, int, int,
                       qp_device_t **); /* NULL: not built in */
} backend_t;

static const backend_t BACKENDS[] = {
    [QP_BACKEND_CPU] = {"cpu", qp_cpu_device_open},
#ifdef QUIPU_HAS_CUDA
    [QP_BACKEND_CUDA] = {"cuda", qp_cuda_device_open},
#else
    [QP_BACKEND_CUDA] = {"cuda", NULL},
#endif
    [QP_BACKEND_CHECK] = {"check", qp_check_device_open},
};
enum { N_BACKEND = sizeof BACKENDS / sizeof BACKENDS[0] };

/* What who tests says "auto" is. */
static qp_error_t choose_by_name(const char *name, int *backend)
{
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

static int choose(const char **why)
{
#ifdef QUIPU_HAS_CUDA
    const bool cuda = qp_cuda_is_there(why);
    return cuda ? QP_BACKEND_CUDA : QP_BACKEND_CPU;
#else
    *why = "this program was built without CUDA";
    return QP_BACKEND_CPU;
#endif
}

qp_error_t qp_device_resolve(qp_device_config_t *config, const char **why)
{
    const char *name = qp_env("QUIPU_BACKEND");
    *why = NULL;
    if (config->backend == QP_BACKEND_AUTO) {
        if (name != NULL)
            QP_TRY(choose_by_name(name, &config->backend));
        else
            config->backend = choose(why);
    }
    if (config->compute == QP_COMPUTE_AUTO)
        config->compute =
            (int)(config->backend == QP_BACKEND_CUDA ? QP_COMPUTE_BF16 : qp_cpu_auto_compute());
    return NULL;
}

qp_error_t qp_device_open(const qp_device_config_t *config, int node_rank, int node_size,
                          qp_device_t **device)
{
    qp_device_config_t resolved = *config;
    const char *why;
    QP_ASSERT(node_size > 0 && node_rank >= 0 && node_rank < node_size);
    QP_TRY(qp_device_resolve(&resolved, &why));
    const backend_t *backend = &BACKENDS[resolved.backend];
    if (backend->open == NULL)
        return QP_ERROR(QP_INPUT,
                        "device.backend = \"%s\": this program was built without it; say "
                        "\"cpu\" or \"auto\"",
                        backend->name);
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
