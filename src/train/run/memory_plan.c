#include "train/run/memory_plan.h"

#include <stdio.h>

#include "base/env.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "compute/collectives.h"

/* What libraries take later on: kernels that oneDNN compiles, buffers of HDF5 and MPI, stacks.
 * While a base is loaded, the slots that it passes through take as much. */
static const int64_t GROWTH_PER_RANK = 24 << 20;
/* Where the process cannot tell what it has. */
static const int64_t PROGRAM_UNKNOWN = 160 << 20;

/* The two places that have a limit. */
typedef enum { HOST, DEVICE, N_LIMIT } limit_t;

/* The row that is not of the budget. */
static const char OUTSIDE[] = "outside";

static const char *const of_each[N_LIMIT] = {[HOST] = "node", [DEVICE] = "device"};
static const char *const of_place[] = {
    [QP_PLACE_RANK] = "rank", [QP_PLACE_NODE] = "node", [QP_PLACE_DEVICE] = "device"};

qp_error_t qp_memory_plan_init(qp_memory_plan_t *plan, qp_comm_t *comm, qp_device_t *device)
{
    int64_t device_free = -1, total = -1, used = qp_env_memory_used();
    QP_TRY(qp_comm_agree(comm, device->ops->memory_info(device, &device_free, &total)));
    int64_t most[] = {qp_comm_node_size(comm), used > 0 ? used : PROGRAM_UNKNOWN,
                      -qp_env_memory_available(), -total, -device_free};
    qp_comm_max_i64(comm, most, sizeof most / sizeof *most);
    *plan = (qp_memory_plan_t){.n_rank = most[0],
                               .program = most[1] + GROWTH_PER_RANK,
                               .host_free = most[2] > 0 ? -1 : -most[2],
                               .has_device = total >= 0,
                               .device_free = device_free < 0 ? -1 : -most[3]};
    const int64_t taken = (device_free < 0 ? 0 : most[4]) - most[3];
    const size_t later = device->outside + qp_collectives_outside(device, qp_comm_size(comm));
    if (plan->has_device && (size_t)taken + later > 0)
        qp_memory_plan_add(plan, OUTSIDE, (size_t)taken + later, QP_PLACE_DEVICE);
    return NULL;
}

void qp_memory_plan_move(qp_memory_plan_t *plan, const qp_device_t *device, int n_rank,
                         int n_node_rank, int64_t host_bytes)
{
    plan->n_rank = n_node_rank;
    plan->host_free = host_bytes;
    if (plan->n > 0) /* OUTSIDE */
        plan->row[0].bytes += qp_budget_piece(qp_collectives_outside(device, n_rank));
}

void qp_memory_plan_add_as(qp_memory_plan_t *plan, const char *name, const char *label,
                           size_t bytes, qp_place_t place)
{
    QP_ASSERT(plan->n < QP_MAX_PLAN_ROW);
    if (place == QP_PLACE_DEVICE && !plan->has_device)
        place = QP_PLACE_RANK;
    plan->row[plan->n].name = name;
    plan->row[plan->n].label = label;
    plan->row[plan->n].bytes = place == QP_PLACE_DEVICE ? qp_budget_piece(bytes) : bytes;
    plan->row[plan->n++].place = place;
}

void qp_memory_plan_add(qp_memory_plan_t *plan, const char *label, size_t bytes, qp_place_t place)
{
    qp_memory_plan_add_as(plan, label, label, bytes, place);
}

/* What a row takes of a limit. */
static int64_t share_of(const qp_memory_plan_t *plan, int row, limit_t limit)
{
    const qp_place_t place = plan->row[row].place;
    const int64_t bytes = (int64_t)plan->row[row].bytes;
    if ((place == QP_PLACE_DEVICE) != (limit == DEVICE))
        return 0;
    return place == QP_PLACE_RANK ? plan->n_rank * bytes : bytes;
}

static int64_t needed(const qp_memory_plan_t *plan, limit_t limit)
{
    int64_t bytes = limit == HOST ? plan->n_rank * plan->program : 0;
    for (int i = 0; i < plan->n; i++)
        bytes += share_of(plan, i, limit);
    return bytes;
}

int64_t qp_memory_plan_node_bytes(const qp_memory_plan_t *plan)
{
    return needed(plan, HOST);
}

int64_t qp_memory_plan_device_bytes(const qp_memory_plan_t *plan)
{
    return needed(plan, DEVICE);
}

/* Whether so much more of a place fits. */
static bool fits(const qp_memory_plan_t *plan, limit_t limit, int64_t extra)
{
    const int64_t need = needed(plan, limit) + extra;
    if (limit == DEVICE)
        return plan->device_free < 0 || need <= plan->device_free;
    return plan->host_free < 0 || need <= plan->host_free;
}

bool qp_memory_plan_fits(const qp_memory_plan_t *plan, size_t extra)
{
    const int64_t bytes = (int64_t)extra;
    return fits(plan, HOST, plan->has_device ? 0 : plan->n_rank * bytes) &&
           fits(plan, DEVICE, bytes);
}

static double megabytes(int64_t bytes)
{
    return (double)bytes / 1e6;
}

static void print_limit(const qp_memory_plan_t *plan, limit_t limit, int64_t available)
{
    char text[64] = "free memory unknown";
    if (available >= 0)
        snprintf(text, sizeof text, "%.1f MB available", megabytes(available));
    qp_log_info("  %-14s %10.1f MB per %s, %s", "together", megabytes(needed(plan, limit)),
                of_each[limit], text);
}

void qp_memory_plan_print(const qp_memory_plan_t *plan)
{
    qp_log_info("memory plan (ranks on a node: %lld):", (long long)plan->n_rank);
    for (int i = 0; i < plan->n; i++)
        qp_log_info("  %-14s %10.1f MB per %s", plan->row[i].name,
                    megabytes((int64_t)plan->row[i].bytes), of_place[plan->row[i].place]);
    qp_log_info("  %-14s %10.1f MB per rank", "program", megabytes(plan->program));
    print_limit(plan, HOST, plan->host_free);
    if (plan->has_device)
        print_limit(plan, DEVICE, plan->device_free);
}

/* What the device has had of each row, in all, and what others have of its memory. */
static void compare_device(qp_comm_t *comm, qp_device_t *device)
{
    const qp_budget_t *budget = &device->budget;
    int64_t unused = 0, all = 0, planned = (int64_t)qp_budget_bytes(budget), used = 0;
    qp_error_t error = device->ops->memory_info(device, &unused, &all);
    int64_t most[QP_BUDGET_ROWS + 1] = {error == NULL ? all - unused - planned : -1};
    qp_error_destroy(&error);
    for (int i = 0; i < budget->n; i++)
        most[1 + i] = (int64_t)budget->row[i].peak;
    qp_comm_max_i64(comm, most, 1 + budget->n);
    for (int i = 0; i < budget->n; i++) {
        const qp_budget_row_t *row = &budget->row[i];
        used += most[1 + i];
        if (most[1 + i] != (int64_t)row->bytes)
            qp_log_info("  %-14s %lld bytes at most, planned %zu", row->label,
                        (long long)most[1 + i], row->bytes);
    }
    qp_log_info(
        "peak memory: device %.1f MB of %.1f MB planned (%lld of %lld bytes), %.1f MB beside "
        "it",
        megabytes(used), megabytes(planned), (long long)used, (long long)planned,
        megabytes(most[0]));
}

void qp_memory_plan_compare(const qp_memory_plan_t *plan, qp_comm_t *comm, qp_device_t *device)
{
    int64_t peak = qp_env_memory_peak();
    qp_comm_max_i64(comm, &peak, 1);
    if (device->budget.n > 0)
        compare_device(comm, device);
    if (peak < 0)
        return;
    qp_log_info("peak memory: rank %.1f MB, node %.1f MB (planned %.1f MB)", megabytes(peak),
                megabytes(peak * plan->n_rank), megabytes(needed(plan, HOST)));
}

/* "workspace 120.0 MB per rank, base 80.5 MB per node": what takes most of the place, up to three
 * rows (qp_free). */
static char *largest_rows(const qp_memory_plan_t *plan, limit_t limit)
{
    qp_str_t text = {0};
    bool named[QP_MAX_PLAN_ROW] = {false};
    for (int n = 0; n < 3; n++) {
        int largest = -1;
        for (int i = 0; i < plan->n; i++)
            if (!named[i] && share_of(plan, i, limit) > 0 &&
                (largest < 0 || share_of(plan, i, limit) > share_of(plan, largest, limit)))
                largest = i;
        if (largest < 0)
            break;
        named[largest] = true;
        qp_str_printf(&text, "%s%s %.1f MB per %s", n == 0 ? "" : ", ", plan->row[largest].name,
                      megabytes((int64_t)plan->row[largest].bytes),
                      of_place[plan->row[largest].place]);
    }
    if (text.n == 0)
        qp_str_printf(&text, "program %.1f MB per rank", megabytes(plan->program));
    return text.data;
}

static qp_error_t check_limit(const qp_memory_plan_t *plan, limit_t limit, int64_t available)
{
    if (fits(plan, limit, 0))
        return NULL;
    char *largest = largest_rows(plan, limit);
    qp_error_t error = QP_ERROR(
        QP_INPUT,
        "the run needs %.1f MB on a %s, but only %.1f MB are available; most of it: %s (smaller: "
        "batch.micro_sequences, data.seq_length, generate.max_active%s; or device.recompute = "
        "\"layer\", an int8 base)",
        megabytes(needed(plan, limit)), of_each[limit], megabytes(available), largest,
        limit == HOST ? ", ranks per node" : "");
    qp_free(largest);
    return error;
}

qp_error_t qp_memory_plan_check(const qp_memory_plan_t *plan)
{
    QP_TRY(check_limit(plan, HOST, plan->host_free));
    return check_limit(plan, DEVICE, plan->device_free);
}

qp_error_t qp_memory_plan_take(const qp_memory_plan_t *plan, qp_comm_t *comm, qp_device_t *device)
{
    qp_budget_t budget = {0};
    for (int i = 0; i < plan->n; i++)
        if (plan->row[i].place == QP_PLACE_DEVICE && plan->row[i].label != OUTSIDE)
            qp_budget_add(&budget, plan->row[i].label, plan->row[i].bytes);
    if (budget.n == 0)
        return NULL;
    qp_error_t error = device->ops->take_budget(device, &budget);
    if (error != NULL) {
        char *largest = largest_rows(plan, DEVICE);
        error = qp_error_context(error, "the plan is %.1f MB on a device (%s)",
                                 megabytes((int64_t)qp_budget_bytes(&budget)), largest);
        qp_free(largest);
    }
    return qp_comm_agree(comm, error);
}
