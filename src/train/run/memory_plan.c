#include "train/run/memory_plan.h"

#include "base/env.h"
#include "base/log.h"

/* What libraries take later on: kernels that oneDNN compiles, buffers of HDF5 and MPI, stacks. */
static const int64_t GROWTH_PER_RANK = 24 << 20;
/* Where the process cannot tell what it has. */
static const int64_t PROGRAM_UNKNOWN = 160 << 20;

static int64_t ranks_of_fullest_node(qp_comm_t *comm)
{
    int64_t n = qp_comm_node_size(comm);
    qp_comm_max_i64(comm, &n, 1);
    return n;
}

void qp_memory_plan_init(qp_memory_plan_t *plan, qp_comm_t *comm)
{
    int64_t least = -qp_env_memory_available();
    qp_comm_max_i64(comm, &least, 1);
    int64_t used = qp_env_memory_used();
    qp_comm_max_i64(comm, &used, 1);
    *plan = (qp_memory_plan_t){.program = (used > 0 ? used : PROGRAM_UNKNOWN) + GROWTH_PER_RANK,
                               .available = least > 0 ? -1 : -least};
}

void qp_memory_plan_add(qp_memory_plan_t *plan, const char *label, size_t bytes, bool per_node)
{
    QP_ASSERT(plan->n < QP_MAX_PLAN_ROW);
    plan->row[plan->n].label = label;
    plan->row[plan->n].bytes = bytes;
    plan->row[plan->n++].per_node = per_node;
}

int64_t qp_memory_plan_node_bytes(const qp_memory_plan_t *plan, qp_comm_t *comm)
{
    int64_t n_rank = ranks_of_fullest_node(comm), bytes = n_rank * plan->program;
    for (int i = 0; i < plan->n; i++)
        bytes += (int64_t)plan->row[i].bytes * (plan->row[i].per_node ? 1 : n_rank);
    return bytes;
}

bool qp_memory_plan_fits(const qp_memory_plan_t *plan, qp_comm_t *comm, size_t extra)
{
    int64_t need =
        qp_memory_plan_node_bytes(plan, comm) + (int64_t)extra * ranks_of_fullest_node(comm);
    return plan->available < 0 || need <= plan->available;
}

static double megabytes(int64_t bytes)
{
    return (double)bytes / 1e6;
}

void qp_memory_plan_print(const qp_memory_plan_t *plan, qp_comm_t *comm)
{
    int64_t n_rank = ranks_of_fullest_node(comm);
    qp_log_info("memory plan (ranks on a node: %lld):", (long long)n_rank);
    for (int i = 0; i < plan->n; i++)
        qp_log_info("  %-14s %10.1f MB per %s", plan->row[i].label,
                    megabytes((int64_t)plan->row[i].bytes),
                    plan->row[i].per_node ? "node" : "rank");
    qp_log_info("  %-14s %10.1f MB per rank", "program", megabytes(plan->program));
    qp_log_info("  %-14s %10.1f MB per node, %.1f MB available", "together",
                megabytes(qp_memory_plan_node_bytes(plan, comm)), megabytes(plan->available));
}

void qp_memory_plan_compare(const qp_memory_plan_t *plan, qp_comm_t *comm)
{
    int64_t peak = qp_env_memory_peak();
    qp_comm_max_i64(comm, &peak, 1);
    if (peak < 0)
        return;
    int64_t node = peak * ranks_of_fullest_node(comm);
    qp_log_info("peak memory: rank %.1f MB, node %.1f MB (planned %.1f MB)", megabytes(peak),
                megabytes(node), megabytes(qp_memory_plan_node_bytes(plan, comm)));
}

qp_error_t qp_memory_plan_check(const qp_memory_plan_t *plan, qp_comm_t *comm)
{
    if (qp_memory_plan_fits(plan, comm, 0))
        return NULL;
    int largest = 0;
    for (int i = 1; i < plan->n; i++)
        if (plan->row[i].bytes > plan->row[largest].bytes)
            largest = i;
    return QP_ERROR(
        QP_INPUT,
        "the run needs %.1f MB on a node, but only %.1f MB are available; the largest part "
        "is the %s with %.1f MB (smaller: batch.micro_sequences, data.seq_length, "
        "generate.max_active, ranks per node; or device.recompute = \"layer\")",
        megabytes(qp_memory_plan_node_bytes(plan, comm)), megabytes(plan->available),
        plan->row[largest].label, megabytes((int64_t)plan->row[largest].bytes));
}
