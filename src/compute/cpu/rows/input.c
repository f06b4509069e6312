#include "compute/cpu/rows/input.h"

#include "base/minmax.h"
#include "compute/cpu/rows/math.h"

#include <math.h>

enum { LANES = 16 };

/* --- functions of a row ----------------------------------------------------------------------- */

/* Sixteen sums side by side: their order does not depend on the machine's vectors. */
static inline float sum_squares(const float *restrict x, int64_t n)
{
    float sum[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            sum[l] += x[i + l] * x[i + l];
    for (int l = 0; i + l < n; l++)
        sum[l] += x[i + l] * x[i + l];
    for (int w = LANES / 2; w > 0; w /= 2)
        for (int l = 0; l < w; l++)
            sum[l] += sum[l + w];
    return sum[0];
}

QP_CPU_CLONES static void rmsnorm_row(const qp_input_t *in, int64_t r, float *restrict row)
{
    const int64_t n = in->x.n_col;
    const float *restrict weight = qp_cpu_f32(in->weight);
    qp_cpu_load(row, in->x.dtype, qp_cpu_at(&in->x, r, 0), n);
    const float rstd = 1.0f / sqrtf(sum_squares(row, n) / (float)n + in->eps);
    for (int64_t i = 0; i < n; i++)
        row[i] *= rstd * weight[i];
    qp_cpu_f32(in->rstd)[r] = rstd;
}

QP_CPU_CLONES static void swiglu_row(const qp_input_t *in, int64_t r, float *restrict row)
{
    const int64_t n_col = in->x.n_col / 2;
    float gate[QP_CPU_CHUNK];
    for (int64_t first = 0; first < n_col; first += QP_CPU_CHUNK) {
        const int64_t n = qp_min_i64(n_col - first, QP_CPU_CHUNK);
        float *restrict up = row + first;
        qp_cpu_load(gate, in->x.dtype, qp_cpu_at(&in->x, r, first), n);
        qp_cpu_load(up, in->x.dtype, qp_cpu_at(&in->x, r, n_col + first), n);
        for (int64_t i = 0; i < n; i++)
            up[i] *= gate[i] / (1.0f + qp_cpu_expf(-gate[i]));
    }
}

QP_CPU_CLONES static void swiglu_gradient_row(const qp_input_t *in, int64_t r, float *row)
{
    const int64_t n_col = in->dout.n_col;
    float dy[QP_CPU_CHUNK];
    for (int64_t first = 0; first < n_col; first += QP_CPU_CHUNK) {
        const int64_t n = qp_min_i64(n_col - first, QP_CPU_CHUNK);
        float *restrict gate = row + first, *restrict up = row + n_col + first;
        qp_cpu_load(gate, in->x.dtype, qp_cpu_at(&in->x, r, first), n);
        qp_cpu_load(up, in->x.dtype, qp_cpu_at(&in->x, r, n_col + first), n);
        qp_cpu_load(dy, in->dout.dtype, qp_cpu_at(&in->dout, r, first), n);
        for (int64_t i = 0; i < n; i++) {
            const float s = 1.0f / (1.0f + qp_cpu_expf(-gate[i]));
            const float dgate = dy[i] * up[i] * s * (1.0f + gate[i] * (1.0f - s));
            up[i] = dy[i] * gate[i] * s;
            gate[i] = dgate;
        }
    }
}

static void plain_row(const qp_input_t *in, int64_t r, float *row)
{
    qp_cpu_convert(row, QP_F32, qp_cpu_at(&in->x, r, 0), in->x.dtype, in->x.n_col);
}

/* --- copies ----------------------------------------------------------------------------------- */

QP_CPU_CLONES static void copy_row(const qp_input_t *in, int64_t r, const float *row)
{
    const int64_t n_col = in->copy.n_col;
    float x[QP_CPU_CHUNK];
    for (int64_t first = 0; first < n_col; first += QP_CPU_CHUNK) {
        const int64_t n = qp_min_i64(n_col - first, QP_CPU_CHUNK);
        memcpy(x, row + first, (size_t)n * sizeof *x);
        qp_cpu_mask_row(x, in->mask, n_col, r, first, n);
        qp_cpu_store(qp_cpu_at(&in->copy, r, first), in->copy.dtype, x, n);
    }
}

void qp_cpu_input_row(const qp_input_t *input, int64_t r, float *row)
{
    static void (*const function[])(const qp_input_t *, int64_t,
                                    float *) = {[QP_INPUT_PLAIN] = plain_row,
                                                [QP_INPUT_RMSNORM] = rmsnorm_row,
                                                [QP_INPUT_SWIGLU] = swiglu_row,
                                                [QP_INPUT_SWIGLU_GRADIENT] = swiglu_gradient_row};
    function[input->kind](input, r, row);
    if (!qp_dptr_is_null(input->copy.data))
        copy_row(input, r, row);
}

void qp_cpu_input_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                          qp_cpu_scratch_need_t *need)
{
    qp_cpu_need(need, QP_SCRATCH_ROWS,
                (size_t)device->n_thread *
                    qp_cpu_row_bytes(qp_max_i64(size->widest, size->d_model)));
}

qp_error_t qp_cpu_input(qp_queue_t *q, const qp_input_t *x)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    const int64_t n_row = x->x.n_row, n_col = qp_input_n_col(x);
    QP_ASSERT(x->copy.n_row == n_row && x->copy.n_col == n_col);
    const size_t row_bytes = qp_cpu_row_bytes(n_col);
    char *rows = qp_cpu_scratch(device, QP_SCRATCH_ROWS, (size_t)device->n_thread * row_bytes);
#pragma omp parallel for num_threads(qp_cpu_threads(q, n_row *n_col))
    for (int64_t r = 0; r < n_row; r++)
        qp_cpu_input_row(x, r, (float *)(rows + (size_t)omp_get_thread_num() * row_bytes));
    return NULL;
}
