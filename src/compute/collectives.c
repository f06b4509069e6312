#include "compute/collectives.h"

#include "base/log.h"
#include "base/mem.h"
#include "comm/comm.h"

/* Whether a device sums by MPI: it has nothing of its own, or is told to. */
static bool is_by_mpi(const qp_device_t *device)
{
    return device->collectives == NULL || device->config.allreduce == QP_ALLREDUCE_MPI;
}

qp_error_t qp_collectives_create(qp_comm_t *comm, qp_device_t *device, int64_t n_max,
                                 qp_collectives_t **c)
{
    *c = NULL;
    if (device->collectives == NULL && device->config.allreduce > QP_ALLREDUCE_MPI)
        return QP_ERROR(QP_INPUT,
                        "device.allreduce: \"tree\" and \"nccl\" are ways of GPUs, the "
                        "backend \"%s\" has \"mpi\" alone: say \"auto\"",
                        device->ops->name);
    if (device->config.allreduce == QP_ALLREDUCE_NCCL && qp_comm_size(comm) > 1)
        qp_log_info(
            "device.allreduce = \"nccl\": the bits of gradients depend on the number of ranks "
            "and on the machine");
    return is_by_mpi(device) ? qp_collectives_mpi_create(comm, device, n_max, c)
                             : device->collectives->create(comm, device, n_max, c);
}

void qp_collectives_destroy(qp_collectives_t **c)
{
    if (*c != NULL)
        (*c)->ops->destroy(*c);
    *c = NULL;
}

size_t qp_collectives_host_bytes(const qp_device_t *device, int64_t n_max)
{
    return is_by_mpi(device) && !device->host_addressable ? qp_bytes(n_max, sizeof(float)) : 0;
}

size_t qp_collectives_bytes(const qp_device_t *device, int n_rank, int64_t n_max)
{
    return is_by_mpi(device) ? 0 : device->collectives->bytes(device, n_rank, n_max);
}

size_t qp_collectives_outside(const qp_device_t *device, int n_rank)
{
    return n_rank == 1 || is_by_mpi(device) ? 0 : device->collectives->outside;
}

int64_t qp_collectives_chunk(const qp_device_t *device)
{
    return is_by_mpi(device) ? QP_TREE_CHUNK : device->collectives->chunk;
}
