#include "compute/cpu/cpu.h"

#define SLOT(name, ...) .name = qp_cpu_##name,

const qp_ops_t qp_ops_cpu = {
    .name = "cpu",

    SLOT(memory_info) SLOT(take_budget) SLOT(scratch_bytes) SLOT(reserve) SLOT(alloc) SLOT(release)
        SLOT(host_alloc) SLOT(host_release) SLOT(host_register) SLOT(host_unregister)

            SLOT(queue_create) SLOT(queue_destroy) SLOT(synchronize) SLOT(event_create)
                SLOT(event_destroy) SLOT(event_record) SLOT(event_wait) SLOT(event_synchronize)

                    SLOT(upload)
                        .upload_async = qp_cpu_upload,
    SLOT(download).download_async = qp_cpu_download,
    SLOT(copy) SLOT(zero) SLOT(discard)

        SLOT(weight_bytes)

            QP_QUEUE_OPS(SLOT)

                SLOT(sum_squares)};
