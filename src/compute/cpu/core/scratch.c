#include <stdio.h>
#include <stdlib.h>

#include "compute/cpu/cpu.h"

/* The caller did not reserve, or for smaller passes: on a device that cannot allocate inside an op
 * this would be the end. */
__attribute__((noreturn)) static void complain(const qp_cpu_device_t *device,
                                               qp_cpu_scratch_slot_t slot, size_t bytes)
{
#define WHAT(id, what) [QP_SCRATCH_##id] = (what),
    static const char *const name[QP_N_SCRATCH] = {QP_CPU_SCRATCH_SLOTS(WHAT)};
#undef WHAT
    fprintf(stderr,
            "%s wants %zu bytes of scratch (%s), but reserve() was told of no such pass: %zu\n",
            device->op, bytes, name[slot], device->reserved.bytes[slot]);
    abort();
}

/* By itself the CPU makes good what was not reserved; the backend "check" does not let it. */
void *qp_cpu_scratch(qp_cpu_device_t *device, qp_cpu_scratch_slot_t slot, size_t bytes)
{
    if (bytes > device->reserved.bytes[slot]) {
        if (device->op != NULL)
            complain(device, slot, bytes);
        qp_cpu_scratch_need_t need = {0};
        qp_cpu_need(&need, slot, bytes);
        qp_cpu_scratch_grow(device, &need);
    }
    return device->scratch[slot];
}

void qp_cpu_scratch_grow(qp_cpu_device_t *device, const qp_cpu_scratch_need_t *need)
{
    for (int i = 0; i < QP_N_SCRATCH; i++) {
        if (need->bytes[i] <= device->reserved.bytes[i])
            continue;
        qp_free(device->scratch[i]); /* contents are not kept: no copy */
        device->scratch[i] = qp_alloc("scratch", need->bytes[i]);
        device->reserved.bytes[i] = need->bytes[i];
    }
}
