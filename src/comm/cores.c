/* Which cores of a node belong to which of its ranks. */
#include <hwloc.h>
#include <sched.h>

#include "comm/comm_impl.h"

void qp_cores_keep_part(cpu_set_t *set, int part, int n_part)
{
    hwloc_topology_t topology;
    cpu_set_t kept;
    int n = 0;
    CPU_ZERO(&kept);
    if (hwloc_topology_init(&topology) != 0)
        return;
    hwloc_obj_t pu = NULL;
    if (hwloc_topology_load(topology) == 0)
        while ((pu = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, pu)) != NULL)
            if (CPU_ISSET((size_t)pu->os_index, set) && n++ / n_part == part)
                CPU_SET((size_t)pu->os_index, &kept);
    hwloc_topology_destroy(topology);
    if (CPU_COUNT(&kept) == n_part)
        *set = kept;
}

/* Whether all ranks of the node may use the same processors. */
static bool is_common(const qp_comm_t *comm, const cpu_set_t *mine)
{
    cpu_set_t all, any;
    const int n = (int)sizeof *mine;
    QP_MPI_MUST(MPI_Allreduce(mine, &all, n, MPI_BYTE, MPI_BAND, comm->node));
    QP_MPI_MUST(MPI_Allreduce(mine, &any, n, MPI_BYTE, MPI_BOR, comm->node));
    return CPU_EQUAL(&all, &any);
}

int qp_comm_take_cores(qp_comm_t *comm, int64_t n_thread, bool bind)
{
    cpu_set_t mine;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) /* more than CPU_SETSIZE */
        CPU_ZERO(&mine);
    const bool common = is_common(comm, &mine);
    const int n_part = common ? CPU_COUNT(&mine) / comm->node_size : CPU_COUNT(&mine);
    if (bind && common && comm->node_size > 1 && n_part > 0 && n_thread <= n_part) {
        qp_cores_keep_part(&mine, comm->node_rank, n_part);
        sched_setaffinity(0, sizeof mine, &mine);
    }
    return n_part > 1 ? n_part : 1;
}
