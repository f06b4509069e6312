/* What all dense products share: operands in the type of the product, tiles of the result written.
 */
#include "compute/cpu/rows/input.h"
#include "compute/cpu/rows/math.h"
#include "compute/cpu/gemm/matmul.h"

enum { USUAL = 64 }; /* columns of most tiles */

size_t qp_cpu_matmul_cast_bytes(qp_dtype_t dtype, int64_t n_row, int64_t n_col)
{
    return qp_bytes(n_row * n_col, qp_dtype_bytes(dtype));
}

qp_mat_t qp_cpu_matmul_cast(const qp_cpu_matmul_t *p, qp_cpu_scratch_slot_t slot, qp_mat_t m)
{
    qp_cpu_device_t *device = p->device;
    if (m.dtype == p->dtype && (p->trans_a || m.ld == m.n_col || !qp_cpu_by_dnnl(device, m.dtype)))
        return m;
    void *copy = qp_cpu_scratch(device, slot, qp_cpu_matmul_cast_bytes(p->dtype, m.n_row, m.n_col));
    const qp_mat_t to = qp_mat((qp_dptr_t){(uintptr_t)copy}, p->dtype, m.n_row, m.n_col);
#pragma omp parallel for num_threads(device->n_thread) if (m.n_row * m.n_col > QP_CPU_SERIAL)
    for (int64_t r = 0; r < m.n_row; r++)
        qp_cpu_convert(qp_cpu_at(&to, r, 0), to.dtype, qp_cpu_at(&m, r, 0), m.dtype, m.n_col);
    return to;
}

/* to = alpha x + beta to, in the type of to */
static inline void mix_row(void *to, qp_dtype_t dtype, float alpha, const float *restrict x,
                           float beta, int64_t n)
{
    float *restrict whole = to;
    uint16_t *restrict half = to;
    if (dtype == QP_F32)
        for (int64_t j = 0; j < n; j++)
            whole[j] = alpha * x[j] + beta * whole[j];
    else
        for (int64_t j = 0; j < n; j++)
            half[j] = qp_f32_to_bf16(alpha * x[j] + beta * qp_bf16_to_f32(half[j]));
}

/* n is tile->n, which the compiler may know. */
static inline __attribute__((always_inline)) void
write_rows(const qp_cpu_matmul_t *p, const qp_cpu_matmul_tile_t *tile, const int64_t n)
{
    for (int64_t i = 0; i < tile->m; i++) {
        float *restrict x = tile->x + i * tile->ld;
        void *c = qp_cpu_at(&p->c, tile->row + i, tile->col);
        qp_cpu_mask_row(x, p->mask, p->c.n_col, tile->row + i, tile->col, n);
        if (p->beta != 0.0f) {
            mix_row(c, p->c.dtype, tile->alpha, x, p->beta, n);
            continue;
        }
        for (int64_t j = 0; tile->alpha != 1.0f && j < n; j++)
            x[j] *= tile->alpha;
        qp_cpu_store(c, p->c.dtype, x, n);
    }
}

QP_CPU_CLONES void qp_cpu_matmul_write(const qp_cpu_matmul_t *p, const qp_cpu_matmul_tile_t *tile)
{
    if (tile->n == USUAL)
        write_rows(p, tile, USUAL);
    else
        write_rows(p, tile, tile->n);
}
