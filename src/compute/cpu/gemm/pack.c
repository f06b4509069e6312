#include "compute/cpu/gemm/pack.h"

#include "compute/cpu/rows/math.h"
#include "compute/cpu/gemm/strip.h"

static bool is_packed(const qp_cpu_device_t *device, qp_dtype_t dtype)
{
    return device->packed_bf16 && dtype == QP_BF16;
}

size_t qp_cpu_operand_bytes(const qp_cpu_device_t *device, qp_dtype_t dtype, int64_t k, int64_t n)
{
    if (is_packed(device, dtype))
        return (size_t)qp_cpu_strips(n) * qp_cpu_strip_bytes(dtype, k);
    return qp_cpu_round64(qp_bytes(k * n, qp_dtype_bytes(dtype)));
}

void qp_cpu_operand_describe(const qp_cpu_device_t *device, qp_cpu_gemm_spec_t *spec, bool trans)
{
    spec->packed_b = is_packed(device, (qp_dtype_t)spec->b);
    spec->trans_b = trans && !spec->packed_b;
    spec->ldb = spec->packed_b ? 0 : (trans ? spec->k : spec->n);
}

void qp_cpu_operand_pack(const qp_cpu_device_t *device, void *to, qp_dtype_t dtype,
                         const void *from, qp_dtype_t from_dtype, int64_t ld, bool trans, int64_t k,
                         int64_t n)
{
    const size_t width = qp_dtype_bytes(from_dtype);
    if (!is_packed(device, dtype)) {
        const int64_t n_row = trans ? n : k, n_col = trans ? k : n;
        for (int64_t i = 0; i < n_row; i++)
            qp_cpu_convert((char *)to + (size_t)(i * n_col) * qp_dtype_bytes(dtype), dtype,
                           (const char *)from + (size_t)(i * ld) * width, from_dtype, n_col);
        return;
    }
    const size_t strip_bytes = qp_cpu_strip_bytes(dtype, k);
    char *strip = to;
    for (int64_t j = 0; j < n; j += QP_CPU_STRIP, strip += strip_bytes) {
        const char *first = (const char *)from + (size_t)(trans ? j * ld : j) * width;
        if (n - j < QP_CPU_STRIP)
            memset(strip, 0, strip_bytes);
        qp_cpu_strip_pack(strip, dtype, first, from_dtype, ld, trans, k,
                          qp_min_i64(n - j, QP_CPU_STRIP));
    }
}
