#include "compute/device.h"

#include "base/env.h"
#include "base/mem.h"
#include "comm/comm.h"
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

#ifdef QUIPU_HAS_CUDA

static bool is_taken(const qp_cuda_id_t *taken, int n, const qp_cuda_id_t *id)
{
    for (int i = 0; i < n; i++)
        if (memcmp(&taken[i], id, sizeof *id) == 0)
            return true;
    return false;
}

/* Index of the first GPU that is not taken, or -1. */
static int first_free(const qp_cuda_id_t *taken, int n_taken, const qp_cuda_id_t *seen, int64_t n)
{
    for (int i = 0; i < n; i++)
        if (!is_taken(taken, n_taken, &seen[i]))
            return i;
    return -1;
}

/* Every rank goes through the lists of all: they come to the same. */
static qp_error_t assign(qp_comm_t *comm, const qp_cuda_id_t *mine, int n_mine, int *index)
{
    const int size = qp_comm_size(comm);
    int64_t *n_byte = QP_NEW("device", int64_t, size);
    qp_cuda_id_t *taken = QP_NEW("device", qp_cuda_id_t, size);
    void *all = NULL;
    qp_error_t error = NULL;
    qp_comm_allgatherv(comm, mine, n_mine * (int64_t)sizeof *mine, QP_U8, &all, n_byte);
    const qp_cuda_id_t *seen = all;
    for (int rank = 0; rank < size && error == NULL; rank++) {
        const int64_t n = n_byte[rank] / (int64_t)sizeof *seen;
        const int own = first_free(taken, rank, seen, n);
        if (own < 0)
            error = QP_ERROR(QP_INPUT,
                             "device.backend = \"cuda\": rank %d sees %lld GPU%s, taken by other "
                             "ranks of its node: one rank per GPU",
                             rank, (long long)n, n == 1 ? "" : "s");
        else
            taken[rank] = seen[own];
        if (rank == qp_comm_rank(comm))
            *index = own;
        seen += n;
    }
    qp_free(n_byte);
    qp_free(taken);
    qp_free(all);
    return error;
}

qp_error_t qp_device_assign(qp_comm_t *comm, const qp_device_config_t *config, int *index)
{
    qp_cuda_id_t *mine = NULL;
    int n_mine = 0;
    *index = 0;
    if (config->backend != QP_BACKEND_CUDA)
        return NULL;
    qp_error_t error = qp_comm_agree(comm, qp_cuda_list(&mine, &n_mine));
    if (error == NULL)
        error = assign(comm, mine, n_mine, index);
    else if (config->dry) /* said when the device is opened */
        qp_error_destroy(&error);
    qp_free(mine);
    return error;
}

#else

qp_error_t qp_device_assign(qp_comm_t *comm, const qp_device_config_t *config, int *index)
{
    (void)comm;
    (void)config;
    *index = 0;
    return NULL;
}

#endif

qp_error_t qp_device_open(const qp_device_config_t *config, int index, int node_size,
                          qp_device_t **device)
{
    qp_device_config_t resolved = *config;
    const char *why;
    QP_ASSERT(node_size > 0 && index >= 0);
    QP_TRY(qp_device_resolve(&resolved, &why));
    const backend_t *backend = &BACKENDS[resolved.backend];
    if (backend->open == NULL)
        return QP_ERROR(QP_INPUT,
                        "device.backend = \"%s\": this program was built without it; say "
                        "\"cpu\" or \"auto\"",
                        backend->name);
    return backend->open(&resolved, index, node_size, device);
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
