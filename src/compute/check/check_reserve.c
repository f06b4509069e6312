/* What was reserved, and whether it covers what an op is given. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "compute/check/check.h"

#define FIELD(name)                           \
    {                                         \
#name, offsetof(qp_pass_size_t, name) \
    }
static const struct {
    const char *name;
    size_t at; /* an int64_t */
} fields[] = {FIELD(n_token),
              FIELD(widest),
              FIELD(attention.n_head),
              FIELD(attention.n_kv_head),
              FIELD(attention.head_dim),
              FIELD(n_key),
              FIELD(n_decode)};
enum { N_FIELD = sizeof fields / sizeof *fields };

static int64_t value_of(const qp_pass_size_t *size, int field)
{
    return *(const int64_t *)((const char *)size + fields[field].at);
}

/* The first field that is larger than what was reserved, or N_FIELD. */
static int exceeds(const qp_pass_size_t *reserved, const qp_pass_size_t *used)
{
    int field = 0;
    while (field < N_FIELD && value_of(used, field) <= value_of(reserved, field))
        field++;
    return field;
}

qp_error_t qp_check_scratch(qp_check_device_t *device)
{
    qp_budget_t *budget = &device->base.budget;
    const size_t before = device->scratch_bytes;
    size_t at, bytes;
    if (budget->n == 0 || device->n_reserved == 0)
        return NULL;
    bytes = qp_cpu_scratch_bytes(device->cpu, device->reserved, (int)device->n_reserved);
    if (bytes == before)
        return NULL;
    if (before > 0)
        qp_budget_give_back(budget, "scratch", before);
    device->scratch_bytes = 0;
    QP_TRY(qp_budget_take(budget, "scratch", bytes, &at));
    device->scratch_bytes = bytes;
    return NULL;
}

qp_error_t qp_check_reserved(qp_check_device_t *device, const qp_pass_size_t *size)
{
    device->reserved = qp_realloc("device", device->reserved,
                                  qp_bytes(device->n_reserved + 1, sizeof *device->reserved));
    device->reserved[device->n_reserved++] = *size;
    return qp_check_scratch(device);
}

void qp_check_covered(const qp_check_task_t *task)
{
    const qp_check_device_t *device = task->device;
    const qp_pass_size_t none = {0};
    int field = exceeds(&none, &task->used);
    for (int64_t i = 0; i < device->n_reserved && field < N_FIELD; i++)
        field = exceeds(&device->reserved[i], &task->used);
    if (field == N_FIELD)
        return;
    const qp_pass_size_t *last =
        device->n_reserved > 0 ? &device->reserved[device->n_reserved - 1] : &none;
    fprintf(stderr,
            "device.backend = \"check\": %s comes with %s = %lld, but reserve() was told of "
            "no such pass (the last one: %lld)\n",
            task->op, fields[field].name, (long long)value_of(&task->used, field),
            (long long)value_of(last, field));
    abort();
}
