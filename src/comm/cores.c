/* Which cores of a node belong to which of its ranks. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "comm/comm_impl.h"

/* Where a logical processor is; siblings of a core stand next to each other. */
typedef struct {
    long package, core;
    int cpu;
} place_t;

static long topology(int cpu, const char *name)
{
    long value = 0;
    char *path = qp_format("/sys/devices/system/cpu/cpu%d/topology/%s", cpu, name);
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        if (fscanf(file, "%ld", &value) != 1)
            value = 0;
        fclose(file);
    }
    qp_free(path);
    return value;
}

static int compare(const void *left, const void *right)
{
    const place_t *a = left, *b = right;
    if (a->package != b->package)
        return a->package < b->package ? -1 : 1;
    if (a->core != b->core)
        return a->core < b->core ? -1 : 1;
    return a->cpu - b->cpu;
}

/* Keeps the n_part processors of part \a part, of those in \a set. */
static void keep_part(cpu_set_t *set, int part, int n_part)
{
    place_t place[CPU_SETSIZE];
    int n = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((size_t)cpu, set))
            place[n++] =
                (place_t){topology(cpu, "physical_package_id"), topology(cpu, "core_id"), cpu};
    qsort(place, (size_t)n, sizeof *place, compare);
    CPU_ZERO(set);
    for (int i = part * n_part; i < (part + 1) * n_part; i++)
        CPU_SET((size_t)place[i].cpu, set);
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
        keep_part(&mine, comm->node_rank, n_part);
        sched_setaffinity(0, sizeof mine, &mine);
    }
    return n_part > 1 ? n_part : 1;
}
