/* Rotary position embedding. */
#include "cuda/rows/four.cuh"

enum { BLOCK = 256 };

/*
 * Rotates pairs (i, i + half) of n_head heads of the block's token; a row of the table is cos(half)
 * then sin(half), sign -1 rotates back. An angle that the table has not is NaN.
 */
template <int W>
static __global__ void rope_kernel(qp_mat_t qkv, int n_head, int half, qp_mat_t table,
                                   const int32_t *position, float sign)
{
    const int64_t row = blockIdx.x, at = position[row];
    const bool known = at >= 0 && at < table.n_row;
    const float *angles = qp_at<const float>(table.data) + (known ? at : 0) * table.ld;
    for (int pair = W * (int)threadIdx.x; pair < n_head * half; pair += W * BLOCK) {
        const int head = pair / half, first = pair % half;
        const int64_t col = 2 * (int64_t)head * half + first;
        float c[W], s[W], low[W], high[W];
        qp_get(c, angles + first);
        qp_get(s, angles + half + first);
        qp_get(low, qkv, row, col);
        qp_get(high, qkv, row, col + half);
        for (int i = 0; i < W; i++) {
            const float x = low[i], cosine = known ? c[i] : __uint_as_float(0x7fffffffu),
                        sine = sign * s[i];
            low[i] = x * cosine - high[i] * sine;
            high[i] = high[i] * cosine + x * sine;
        }
        qp_put(low, qkv, row, col);
        qp_put(high, qkv, row, col + half);
    }
}

QP_CUDA_BEGIN
qp_error_t qp_cuda_rope(qp_queue_t *q, qp_mat_t qkv, const qp_attention_t *a, qp_mat_t table,
                        qp_dptr_t position, bool inverse)
{
    QP_ASSERT(a->head_dim % 2 == 0);
    QP_ASSERT(table.dtype == QP_F32 && table.n_col == a->head_dim && table.n_row > 0);
    QP_ASSERT(qkv.n_col == (a->n_head + 2 * a->n_kv_head) * a->head_dim);
    if (qkv.n_row == 0 || qkv.n_col == 0)
        return NULL;
    const int n_head = (int)(a->n_head + a->n_kv_head), half = (int)(a->head_dim / 2);
    const int32_t *at = qp_at<const int32_t>(position);
    const unsigned grid = (unsigned)qkv.n_row;
    const float sign = inverse ? -1.0f : 1.0f;
    if (half % 4 == 0 && qp_in_fours(qkv) && qp_in_fours(table))
        return QP_LAUNCH(q, (rope_kernel<4>), grid, BLOCK, qkv, n_head, half, table, at, sign);
    return QP_LAUNCH(q, (rope_kernel<1>), grid, BLOCK, qkv, n_head, half, table, at, sign);
}
QP_CUDA_END
