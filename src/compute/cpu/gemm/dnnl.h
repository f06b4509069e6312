/** \file dnnl.h  oneDNN behind one door: checked calls and the cache of ready products. */
#ifndef QP_COMPUTE_CPU_GEMM_DNNL_H
#define QP_COMPUTE_CPU_GEMM_DNNL_H

#include <oneapi/dnnl/dnnl.h>

#include "compute/cpu/cpu.h"

/** Passes a failed oneDNN call up as an internal error that names the call. */
#define QP_DNNL(call)                                                                         \
    do {                                                                                      \
        dnnl_status_t qp_status_ = (call);                                                    \
        if (qp_status_ != dnnl_success)                                                       \
            return QP_ERROR(QP_INTERNAL, "oneDNN status %d from %s", (int)qp_status_, #call); \
    } while (0)

/** What oneDNN makes of this CPU; bits of dnnl_cpu_isa_t. */
bool qp_cpu_dnnl_has(dnnl_cpu_isa_t isa);
/** "AVX-512 VNNI BF16"; static. */
const char *qp_cpu_dnnl_isa_name(void);

qp_error_t qp_cpu_gemm_cache_create(qp_cpu_device_t *device);
void qp_cpu_gemm_cache_destroy(qp_cpu_device_t *device);

/**
 * Whether oneDNN, asked for the layout it likes best, takes int8 weights in the blocks of
 * weight.h (dtype QP_I8) or bf16 operands in those of pack.h (QP_BF16), for one token as
 * for many.
 */
qp_error_t qp_cpu_dnnl_likes_packed(qp_cpu_device_t *device, qp_dtype_t dtype, bool *likes);

#endif
