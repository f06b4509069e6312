/* Who started the process, by its environment: the innermost launcher counts, steps that are one
 * process are none, marks are hidden and come back. */
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/mem.h"
#include "comm/launch.h"
#include "testing.h"

enum { MAX_PAIR = 6 };

static const struct {
    const char *by; /* NULL: alone */
    int64_t size, rank;
    const char *pair[MAX_PAIR][2];
} row[] = {
    {NULL, 1, 0, {{"SLURM_JOB_ID", "5"}, {"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}}},
    {"Slurm", 1, 0, {{"SLURM_STEP_ID", "4294967291"}, {"SLURM_NTASKS", "4"}}},
    {NULL, 1, 0, {{"SLURM_STEP_ID", "batch"}, {"SLURM_STEP_NUM_TASKS", "4"}}},
    {NULL, 1, 0, {{"PMI_SIZE", "many"}, {"PMI_RANK", "0"}}},
    {"Slurm", 1, 0, {{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}}},
    {"Slurm", 4, 3, {{"SLURM_STEP_ID", "2"}, {"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "3"}}},
    {"mpirun",
     2,
     1,
     {{"SLURM_STEP_ID", "0"},
      {"SLURM_STEP_NUM_TASKS", "1"},
      {"OMPI_COMM_WORLD_SIZE", "2"},
      {"OMPI_COMM_WORLD_RANK", "1"}}},
    {"a PMI launcher",
     8,
     7,
     {{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "2"}, {"PMI_SIZE", "8"}, {"PMI_RANK", "7"}}},
    {"Flux", 2, 1, {{"FLUX_JOB_SIZE", "2"}, {"FLUX_TASK_RANK", "1"}}},
};

static void test_who(void)
{
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        for (int k = 0; k < MAX_PAIR && row[i].pair[k][0] != NULL; k++)
            setenv(row[i].pair[k][0], row[i].pair[k][1], 1);
        const qp_launch_t found = qp_launch_read();
        const bool same = row[i].by == NULL || found.by == NULL ? found.by == row[i].by
                                                                : strcmp(found.by, row[i].by) == 0;
        CHECK_MSG(same && found.size == row[i].size && found.rank == row[i].rank,
                  "row %d: %s, %lld of %lld", (int)i, found.by != NULL ? found.by : "alone",
                  (long long)found.rank, (long long)found.size);
        for (int k = 0; k < MAX_PAIR && row[i].pair[k][0] != NULL; k++)
            unsetenv(row[i].pair[k][0]);
    }
}

static void test_checks(void)
{
    const qp_launch_t four = {"Slurm", 4, 0}, one = {"Slurm", 1, 0}, two = {"mpirun", 2, 0};
    CHECK_FAILS(qp_launch_check(&four), QP_INPUT, "as 4 tasks");
    CHECK_OK(qp_launch_check(&one));
    setenv("PMIX_MCA_gds", "hash", 1); /* tuning is no launcher */
    CHECK_FAILS(qp_launch_check(&four), QP_INPUT, "as 4 tasks");
    unsetenv("PMIX_MCA_gds");
    setenv("PMI2_RANK", "0", 1);
    CHECK_OK(qp_launch_check(&four));
    unsetenv("PMI2_RANK");
    CHECK_OK(qp_launch_check_size(&four, 4));
    CHECK_OK(qp_launch_check_size(&one, 1));
    CHECK_FAILS(qp_launch_check_size(&two, 1), QP_INPUT, "mpirun started this program as 2 tasks");
}

static void test_hiding(void)
{
    static const char *const mark[] = {"SLURM_STEP_ID", "PMI_FD", "PMIX_RANK", "FLUX_URI",
                                       "OMPI_MCA_ess"};
    static const char *const other[] = {"SLURMX", "PMIX_MCA_gds", "OMPI_MCA_btl", "HOMELESS"};
    qp_str_t hidden = {0};
    for (int i = 0; i < 5; i++)
        setenv(mark[i], "a=b", 1);
    for (int i = 0; i < 4; i++)
        setenv(other[i], "kept", 1);
    qp_launch_hide(&hidden);
    for (int i = 0; i < 5; i++)
        CHECK_MSG(qp_env(mark[i]) == NULL, "%s is hidden", mark[i]);
    for (int i = 0; i < 4; i++)
        CHECK_MSG(qp_env(other[i]) != NULL, "%s stays", other[i]);
    qp_launch_restore(&hidden);
    for (int i = 0; i < 5; i++) {
        const char *value = qp_env(mark[i]);
        CHECK_MSG(value != NULL && strcmp(value, "a=b") == 0, "%s is back", mark[i]);
    }
}

int main(void)
{
    qp_str_t outside = {0};
    qp_launch_hide(&outside); /* of who runs the tests */
    test_who();
    test_checks();
    test_hiding();
    qp_launch_restore(&outside);
    return qp_test_end();
}
