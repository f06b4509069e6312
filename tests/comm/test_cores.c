/* QP_TEST: ranks=1,2,4
 * Ranks of a node that may use the same cores get parts of their own; nobody is bound that wants
 * more threads than its part has, or that the launcher has bound. */
#include <mpi.h>
#include <sched.h>
#include <stdlib.h>

#include "comm/comm_impl.h"
#include "testing.h"

static cpu_set_t current(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    return set;
}

static void restore(const cpu_set_t *set)
{
    CHECK(sched_setaffinity(0, sizeof *set, set) == 0);
}

/* Parts are as large as promised, within what was there, and do not overlap. */
static void test_parts(qp_comm_t *comm, const cpu_set_t *all)
{
    const int n_rank = qp_comm_size(comm), n_core = CPU_COUNT(all);
    const int n = qp_comm_take_cores(comm, 0, true);
    cpu_set_t mine = current(), both;
    CHECK(n == (n_core >= n_rank ? n_core / n_rank : 1));
    CPU_AND(&both, &mine, all);
    CHECK(CPU_EQUAL(&both, &mine));
    int8_t n_owner[CPU_SETSIZE], own[CPU_SETSIZE];
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        own[cpu] = CPU_ISSET((size_t)cpu, &mine) != 0;
    MPI_Allreduce(own, n_owner, CPU_SETSIZE, MPI_INT8_T, MPI_SUM, MPI_COMM_WORLD);
    int most = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        most = n_owner[cpu] > most ? n_owner[cpu] : most;
    if (n_core >= n_rank)
        CHECK_MSG(most == 1, "%d ranks on one core", most);
    else
        CHECK(CPU_EQUAL(&mine, all)); /* too few to share out */
    restore(all);
}

static void test_unbound(qp_comm_t *comm, const cpu_set_t *all)
{
    qp_comm_take_cores(comm, 0, false);
    cpu_set_t mine = current();
    CHECK(CPU_EQUAL(&mine, all));
    qp_comm_take_cores(comm, CPU_COUNT(all) + 1, true);
    mine = current();
    CHECK(CPU_EQUAL(&mine, all));
}

/* As a launcher binds: different cores for different ranks. */
static void test_launcher(qp_comm_t *comm, const cpu_set_t *all)
{
    int n_rank = qp_comm_size(comm), wanted = qp_comm_rank(comm) % CPU_COUNT(all), seen = 0;
    cpu_set_t own, mine;
    if (n_rank == 1 || CPU_COUNT(all) == 1)
        return;
    CPU_ZERO(&own);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((size_t)cpu, all) && seen++ == wanted)
            CPU_SET((size_t)cpu, &own);
    restore(&own);
    CHECK(qp_comm_take_cores(comm, 0, true) == 1);
    mine = current();
    CHECK(CPU_EQUAL(&mine, &own));
    restore(all);
}

/* Machines as hwloc is told that they are: who is whose neighbour. */
static void test_neighbours(void)
{
    static const struct {
        const char *machine;
        unsigned all;
        int n_part;
        unsigned part[4];
    } row[] = {
        /* Siblings of a core are far apart by number, as Linux mostly numbers them. */
        {"package:2 core:2 pu:2(indexes=0,4,1,5,2,6,3,7)", 0xff, 4, {0x33, 0xcc}},
        {"package:2 core:2 pu:2(indexes=0,4,1,5,2,6,3,7)", 0xff, 2, {0x11, 0x22, 0x44, 0x88}},
        {"package:2 core:2 pu:2(indexes=0,4,1,5,2,6,3,7)", 0x7e, 3, {0x32, 0x4c}},
        /* Packages are dealt in turn; then caches within one. */
        {"package:2 core:4 pu:1(indexes=0,2,4,6,1,3,5,7)", 0xff, 4, {0x55, 0xaa}},
        {"l3:2 core:4 pu:1(indexes=0,2,4,6,1,3,5,7)", 0xff, 2, {0x05, 0x50, 0x0a, 0xa0}},
        /* A machine with fewer processors than there are: all are kept. */
        {"pu:2", 0xff, 4, {0xff, 0xff}},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        setenv("HWLOC_SYNTHETIC", row[i].machine, 1);
        for (int part = 0; part < 4 && row[i].part[part] != 0; part++) {
            cpu_set_t set;
            unsigned kept = 0;
            CPU_ZERO(&set);
            for (size_t cpu = 0; cpu < 8; cpu++)
                if (row[i].all & 1u << cpu)
                    CPU_SET(cpu, &set);
            qp_cores_keep_part(&set, part, row[i].n_part);
            for (size_t cpu = 0; cpu < 8; cpu++)
                kept |= CPU_ISSET(cpu, &set) ? 1u << cpu : 0u;
            CHECK_MSG(kept == row[i].part[part], "%s: part %d is %x", row[i].machine, part, kept);
        }
    }
    unsetenv("HWLOC_SYNTHETIC");
}

int main(void)
{
    qp_comm_t *comm = NULL;
    if (CHECK_OK(qp_comm_create(&comm))) {
        const cpu_set_t all = current();
        test_parts(comm, &all);
        test_unbound(comm, &all);
        test_launcher(comm, &all);
        test_neighbours();
    }
    qp_comm_destroy(&comm);
    return qp_test_end();
}
