#include "comm/launch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"

extern char **environ;

/* A number of the environment; -1: absent, or no number. */
static int64_t number(const char *name)
{
    const char *text = qp_env(name);
    char *end = NULL;
    const long long value = text != NULL ? strtoll(text, &end, 10) : -1;
    return text != NULL && *end == '\0' ? (int64_t)value : -1;
}

/*
 * Who says how many tasks were started together, the innermost first: mpirun starts its ranks by a
 * step of Slurm's. \a step, where there is one, names the step that the count is of: a job's batch
 * script and salloc's shell have numbers of their own (2^32 - 16 and above), and are one process.
 */
static const struct {
    const char *by, *size, *rank, *step;
} launcher[] = {
    {"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", NULL},
    {"a PMI launcher", "PMI_SIZE", "PMI_RANK", NULL},
    {"Slurm", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_ID"},
    {"Slurm", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_ID"},
    {"Flux", "FLUX_JOB_SIZE", "FLUX_TASK_RANK", NULL},
};
enum { N_LAUNCHER = sizeof launcher / sizeof launcher[0] };

qp_launch_t qp_launch_read(void)
{
    const int64_t first_special = ((int64_t)1 << 32) - 16;
    for (int i = 0; i < N_LAUNCHER; i++) {
        const int64_t size = number(launcher[i].size), rank = number(launcher[i].rank);
        const int64_t step = launcher[i].step != NULL ? number(launcher[i].step) : 0;
        if (size > 0 && step >= first_special)
            return (qp_launch_t){launcher[i].by, 1, 0};
        if (size > 0 && step >= 0)
            return (qp_launch_t){launcher[i].by, size, rank > 0 ? rank : 0};
    }
    return (qp_launch_t){NULL, 1, 0};
}

/* --- tasks that cannot find each other -------------------------------------------------------- */

static bool has_prefix_of(const char *variable, const char *const *prefix, int n_prefix)
{
    for (int i = 0; i < n_prefix; i++)
        if (qp_has_prefix(variable, prefix[i]))
            return true;
    return false;
}

/* What people set by hand to tune a library; it does not come from a launcher. */
static bool is_tuning(const char *variable)
{
    return qp_has_prefix(variable, "PMIX_MCA_");
}

/* Slurm's PMI plugins, of any version, announce themselves. */
static bool has_pmi(void)
{
    static const char *const prefix[] = {"PMI_", "PMI2_", "PMIX_"};
    for (char **variable = environ; *variable != NULL; variable++)
        if (has_prefix_of(*variable, prefix, 3) && !is_tuning(*variable))
            return true;
    return false;
}

qp_error_t qp_launch_check(const qp_launch_t *launch)
{
    if (launch->by == NULL || strcmp(launch->by, "Slurm") != 0 || launch->size == 1 || has_pmi())
        return NULL;
    return QP_ERROR(QP_INPUT,
                    "Slurm started this program as %lld tasks, but gives them no means to find "
                    "each other: start it by srun --mpi=pmix or by mpirun, or as one task",
                    (long long)launch->size);
}

qp_error_t qp_launch_check_size(const qp_launch_t *launch, int size)
{
    if (launch->size == 1 || size > 1)
        return NULL;
    return QP_ERROR(QP_INPUT,
                    "%s started this program as %lld tasks, but to MPI each of them is alone: use "
                    "the mpirun, or the PMI, of the MPI library that Quipu was built with",
                    launch->by, (long long)launch->size);
}

/* --- alone ------------------------------------------------------------------------------------ */

static bool is_mark(const char *variable)
{
    static const char *const prefix[] = {"SLURM_",
                                         "PMI_",
                                         "PMI2_",
                                         "PMIX_",
                                         "PRTE_",
                                         "PALS_",
                                         "FLUX_",
                                         "JSM_",
                                         "OMPI_COMM_WORLD_",
                                         "OMPI_MCA_ess",
                                         "OMPI_MCA_pmix=",
                                         "OMPI_UNIVERSE_SIZE",
                                         "OMPI_MCA_orte_ess",
                                         "OMPI_MCA_orte_hnp_uri",
                                         "OMPI_MCA_orte_local_daemon_uri",
                                         "OMPI_MCA_orte_launch",
                                         "OMPI_MCA_orte_app_num",
                                         "OMPI_MCA_orte_num_nodes",
                                         "OMPI_MCA_orte_jobfam_session_dir",
                                         "OMPI_MCA_orte_top_session_dir"};
    return has_prefix_of(variable, prefix, (int)(sizeof prefix / sizeof prefix[0])) &&
           !is_tuning(variable);
}

/* Calls visit(name, value) for each of \a hidden's "name=value". */
static void each(const qp_str_t *hidden, void (*visit)(const char *name, const char *value))
{
    for (size_t at = 0; at < hidden->n; at += strlen(hidden->data + at) + 1) {
        char *equals = strchr(hidden->data + at, '=');
        *equals = '\0';
        visit(hidden->data + at, equals + 1);
        *equals = '=';
    }
}

static void take_out(const char *name, const char *value)
{
    (void)value;
    unsetenv(name);
}

static void put_back(const char *name, const char *value)
{
    setenv(name, value, 1);
}

void qp_launch_hide(qp_str_t *hidden)
{
    for (char **variable = environ; *variable != NULL; variable++)
        if (is_mark(*variable) && strchr(*variable, '=') != NULL)
            qp_str_append(hidden, *variable, strlen(*variable) + 1);
    each(hidden, take_out);
}

void qp_launch_restore(qp_str_t *hidden)
{
    each(hidden, put_back);
    qp_str_fini(hidden);
}
