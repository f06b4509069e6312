#include "train/scaling/scaling.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/minmax.h"
#include "train/scaling/job.h"

enum { MOST_RANKS = 1024, MOST_ROWS = 16384 }; /* as batch.global_sequences */

qp_error_t qp_scaling_settings(const qp_machine_t *machine, const char *deck,
                               const char *const *sets, int n_set, qp_settings_t *settings)
{
    const bool cuda = machine->processor.kind == QP_PROCESSOR_CUDA;
    const int backend = cuda ? QP_BACKEND_CUDA : QP_BACKEND_CPU;
    char *lines = qp_machine_deck_lines(machine);
    qp_error_t error = qp_settings_read_for(NULL, lines, deck, sets, n_set, "", settings);
    qp_free(lines);
    QP_TRY(error);
    if (settings->device.backend == backend)
        return NULL;
    char *where = qp_deck_where(settings->deck, "device.backend");
    error = QP_ERROR(QP_INPUT, "%s: the processors of %s are of kind \"%s\"", where,
                     machine->machine.name, cuda ? "cuda" : "cpu");
    qp_free(where);
    qp_settings_fini(settings);
    return error;
}

/* What is planned for and what is not, by name. */
static qp_error_t check_modelled(const qp_settings_t *s)
{
    if (!qp_method_trains(s->job.method))
        return QP_ERROR(QP_INPUT,
                        "--plan-for: job.method = \"%s\" is not modelled; sft, reward, dpo and ppo "
                        "are",
                        qp_method_name(s->job.method));
    if (s->device.backend == QP_BACKEND_CUDA && s->device.allreduce != QP_ALLREDUCE_AUTO &&
        s->device.allreduce != QP_ALLREDUCE_TREE)
        return QP_ERROR(QP_INPUT, "--plan-for: of the ways of device.allreduce on GPUs only "
                                  "\"tree\" is modelled");
    return NULL;
}

/* Sizes, memory and times of the settings as they are now, on so many ranks. */
static qp_error_t plan_on(qp_scaling_t *scaling, const qp_layout_t *layout, qp_job_t *job)
{
    qp_run_t *run = &scaling->run;
    const int64_t host = (int64_t)(scaling->machine->node.memory * 1e9);
    QP_TRY(qp_run_plan_for(run, (int)layout->n_rank, (int)layout->n_node_rank, host));
    *job = qp_scaling_job(run, &scaling->data);
    return NULL;
}

static qp_error_t add_row(qp_scaling_t *scaling, qp_scaling_table_t *table, int64_t n_rank)
{
    qp_scaling_row_t *row = &table->row[table->n++];
    const qp_scaling_row_t *first = &table->row[0];
    const qp_memory_plan_t *plan = &scaling->run.plan;
    qp_job_t job;
    row->layout = qp_layout(scaling->machine, n_rank);
    QP_TRY(plan_on(scaling, &row->layout, &job));
    row->n_row = scaling->settings.batch.global_sequences;
    row->times = qp_job_times(scaling->machine, &row->layout, &job);
    row->tokens_per_second = job.n_token / row->times.step;
    row->efficiency = row->tokens_per_second / (double)n_rank /
                      (first->tokens_per_second / (double)first->layout.n_rank);
    row->node_bytes = qp_memory_plan_node_bytes(plan);
    row->device_bytes = qp_memory_plan_device_bytes(plan);
    row->fits = qp_memory_plan_fits(plan, 0);
    return NULL;
}

static int64_t ranks_of_machine(const qp_machine_t *m)
{
    return qp_min_i64(MOST_RANKS, m->machine.nodes * m->node.ranks);
}

/* Micro-batches that ranks can share in an update. */
static int64_t n_leaf(const qp_settings_t *s)
{
    return qp_settings_n_micro(s) /
           (s->job.method == QP_METHOD_PPO ? s->ppo.dropped_accumulation : 1);
}

static char *end_of_machine(const qp_machine_t *m)
{
    const int64_t n_rank = m->machine.nodes * m->node.ranks;
    return n_rank > MOST_RANKS ? NULL
                               : qp_format("%s has %lld ranks", m->machine.name, (long long)n_rank);
}

static qp_error_t make_strong(qp_scaling_t *scaling)
{
    const int64_t most = ranks_of_machine(scaling->machine), leaves = n_leaf(&scaling->settings);
    for (int64_t n = 1; n <= most && n <= leaves; n *= 2)
        QP_TRY(add_row(scaling, &scaling->strong, n));
    scaling->strong.end = leaves < most ? qp_format("an update has %lld micro-batches: more ranks "
                                                    "would have nothing to do",
                                                    (long long)leaves)
                                        : end_of_machine(scaling->machine);
    return NULL;
}

/* Rows that a rank has on a full node, fewer where all ranks of the machine would have more than a
 * deck may say; in whole micro-batches of each update. */
static int64_t rows_of_rank(const qp_scaling_t *scaling)
{
    const qp_settings_t *s = &scaling->settings;
    const int64_t n_mini = s->batch.global_sequences / qp_settings_update_sequences(s);
    const int64_t least = s->batch.micro_sequences * n_mini *
                          (s->job.method == QP_METHOD_PPO ? s->ppo.dropped_accumulation : 1);
    const int64_t share = qp_min_i64(s->batch.global_sequences / scaling->machine->node.ranks,
                                     MOST_ROWS / ranks_of_machine(scaling->machine));
    return qp_max_i64(least, share / least * least);
}

static qp_error_t make_weak(qp_scaling_t *scaling, const qp_settings_t *settings)
{
    const int64_t most = ranks_of_machine(scaling->machine), rows = rows_of_rank(scaling);
    const int64_t n_mini =
        settings->batch.global_sequences / qp_settings_update_sequences(settings);
    qp_settings_t *s = &scaling->settings;
    int64_t n = 1;
    for (; n <= most && n * rows <= MOST_ROWS; n *= 2) {
        s->batch.global_sequences = n * rows;
        if (s->ppo.mini_batch_sequences > 0)
            s->ppo.mini_batch_sequences = n * rows / n_mini;
        QP_TRY(add_row(scaling, &scaling->weak, n));
    }
    *s = *settings;
    scaling->rows_of_rank = rows;
    scaling->weak.end = n <= most ? qp_format("batch.global_sequences is %d at most", MOST_ROWS)
                                  : end_of_machine(scaling->machine);
    return NULL;
}

/* As many ranks of a node as have something to do. */
static qp_error_t plan_full_node(qp_scaling_t *scaling)
{
    const qp_machine_t *m = scaling->machine;
    scaling->layout = qp_layout(m, qp_min_i64(m->node.ranks, n_leaf(&scaling->settings)));
    QP_TRY(plan_on(scaling, &scaling->layout, &scaling->job));
    scaling->plan = scaling->run.plan;
    scaling->recompute = scaling->run.size.recompute;
    return NULL;
}

qp_error_t qp_scaling_create(qp_comm_t *comm, const qp_settings_t *settings,
                             const qp_machine_t *machine, qp_scaling_t *scaling)
{
    *scaling = (qp_scaling_t){.machine = machine, .settings = *settings};
    qp_settings_t *s = &scaling->settings;
    QP_TRY(check_modelled(s));
    if (qp_comm_size(comm) > 1)
        return QP_ERROR(QP_INPUT, "--plan-for: one process does it, not %d ranks",
                        qp_comm_size(comm));
    s->device.elsewhere = true;
    if (s->log.level > QP_LOG_WARN)
        s->log.level = QP_LOG_WARN; /* of the ranks, cores and memory of this machine */
    QP_TRY(qp_run_look(comm, s, true, &scaling->run));
    QP_TRY(qp_scaling_look_at_data(&scaling->run, &scaling->data));
    QP_TRY(plan_full_node(scaling));
    QP_TRY(make_strong(scaling));
    const qp_settings_t deck = *s;
    return make_weak(scaling, &deck);
}

void qp_scaling_fini(qp_scaling_t *scaling)
{
    qp_run_close(&scaling->run);
    QP_FREE(scaling->strong.end);
    QP_FREE(scaling->weak.end);
}

qp_error_t qp_scaling_check(const qp_scaling_t *scaling)
{
    return qp_error_context(qp_memory_plan_check(&scaling->plan), "%s, %lld ranks on a node",
                            scaling->machine->machine.name, (long long)scaling->layout.n_node_rank);
}
