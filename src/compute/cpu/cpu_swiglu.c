/* SwiGLU: silu(gate) * up, and its gradient. */
#include "compute/cpu/cpu.h"
#include "compute/cpu/cpu_math.h"

QP_CPU_CLONES static void swiglu_chunk(const qp_mat_t *out, const qp_mat_t *gate_up, int64_t row,
                                       int64_t first)
{
    float gate[QP_CPU_CHUNK], up[QP_CPU_CHUNK];
    int64_t n = qp_cpu_min(out->n_col - first, QP_CPU_CHUNK);
    qp_cpu_load(gate, gate_up->dtype, qp_cpu_at(gate_up, row, first), n);
    qp_cpu_load(up, gate_up->dtype, qp_cpu_at(gate_up, row, out->n_col + first), n);
    for (int64_t i = 0; i < n; i++)
        up[i] *= gate[i] / (1.0f + qp_cpu_expf(-gate[i]));
    qp_cpu_store(qp_cpu_at(out, row, first), out->dtype, up, n);
}

qp_error_t qp_cpu_swiglu_forward(qp_queue_t *q, qp_mat_t out, qp_mat_t gate_up)
{
    QP_ASSERT(gate_up.n_row == out.n_row && gate_up.n_col == 2 * out.n_col);
#pragma omp parallel for collapse(2) num_threads(qp_cpu_threads(q, out.n_row *out.n_col))
    for (int64_t t = 0; t < out.n_row; t++)
        for (int64_t first = 0; first < out.n_col; first += QP_CPU_CHUNK)
            swiglu_chunk(&out, &gate_up, t, first);
    return NULL;
}

/*
 * With s = sigmoid(gate): dup = dout gate s, dgate = dout up s (1 + gate (1 - s)). Reads its chunk
 * whole before it writes, so dgate_up may be gate_up.
 */
QP_CPU_CLONES static void swiglu_backward_chunk(const qp_mat_t *dgate_up, const qp_mat_t *dout,
                                                const qp_mat_t *gate_up, int64_t row, int64_t first)
{
    float gate[QP_CPU_CHUNK], up[QP_CPU_CHUNK], dy[QP_CPU_CHUNK];
    int64_t n_col = dout->n_col, n = qp_cpu_min(n_col - first, QP_CPU_CHUNK);
    qp_cpu_load(gate, gate_up->dtype, qp_cpu_at(gate_up, row, first), n);
    qp_cpu_load(up, gate_up->dtype, qp_cpu_at(gate_up, row, n_col + first), n);
    qp_cpu_load(dy, dout->dtype, qp_cpu_at(dout, row, first), n);
    for (int64_t i = 0; i < n; i++) {
        float s = 1.0f / (1.0f + qp_cpu_expf(-gate[i]));
        float dgate = dy[i] * up[i] * s * (1.0f + gate[i] * (1.0f - s));
        up[i] = dy[i] * gate[i] * s;
        gate[i] = dgate;
    }
    qp_cpu_store(qp_cpu_at(dgate_up, row, first), dgate_up->dtype, gate, n);
    qp_cpu_store(qp_cpu_at(dgate_up, row, n_col + first), dgate_up->dtype, up, n);
}

qp_error_t qp_cpu_swiglu_backward(qp_queue_t *q, qp_mat_t dgate_up, qp_mat_t dout, qp_mat_t gate_up)
{
    QP_ASSERT(gate_up.n_row == dout.n_row && gate_up.n_col == 2 * dout.n_col);
    QP_ASSERT(dgate_up.n_row == dout.n_row && dgate_up.n_col == 2 * dout.n_col);
#pragma omp parallel for collapse(2) num_threads(qp_cpu_threads(q, dout.n_row *dout.n_col))
    for (int64_t t = 0; t < dout.n_row; t++)
        for (int64_t first = 0; first < dout.n_col; first += QP_CPU_CHUNK)
            swiglu_backward_chunk(&dgate_up, &dout, &gate_up, t, first);
    return NULL;
}
