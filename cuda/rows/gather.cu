/* Rows that are looked up, and rows that are scaled and added. */
#include "cuda/rows/four.cuh"

enum { BLOCK = 128 };

/* --- look-up ---------------------------------------------------------------------------------- */

typedef struct {
    qp_mat_t out, in;
    const int32_t *index;
    bool none_allowed; /* rows of negative numbers are zero */
    int word;          /* of both, where they are of one type */
} gather_t;

/* A row of a number that is not there must not pass for one: it is NaN. */
static __device__ void gather_nothing(const gather_t &g, int64_t row, bool zero)
{
    const float x = zero ? 0.0f : __uint_as_float(0x7fffffffu);
    for (int64_t col = threadIdx.x; col < g.out.n_col; col += BLOCK)
        qp_mat_put(g.out, row, col, x);
}

/* In the same type all bits are kept. */
static __global__ void gather_same_kernel(gather_t g, int width)
{
    const int64_t row = blockIdx.x, from = g.index[row];
    if (from < 0 || from >= g.in.n_row)
        gather_nothing(g, row, from < 0 && g.none_allowed);
    else
        qp_copy_words(qp_at<char>(g.out.data) + row * g.out.ld * width,
                      qp_at<const char>(g.in.data) + from * g.in.ld * width, g.out.n_col * width,
                      g.word, (int)threadIdx.x, BLOCK);
}

template <int W> static __global__ void gather_cast_kernel(gather_t g)
{
    const int64_t row = blockIdx.x, from = g.index[row];
    if (from < 0 || from >= g.in.n_row) {
        gather_nothing(g, row, from < 0 && g.none_allowed);
        return;
    }
    for (int64_t col = W * threadIdx.x; col < g.out.n_col; col += W * BLOCK) {
        float x[W];
        qp_get(x, g.in, from, col);
        qp_put(x, g.out, row, col);
    }
}

static qp_error_t gather(qp_queue_t *q, qp_mat_t out, qp_mat_t in, qp_dptr_t index,
                         bool none_allowed)
{
    QP_ASSERT(out.n_col == in.n_col);
    if (out.n_row == 0 || out.n_col == 0)
        return NULL;
    const int word = qp_word_of(out) < qp_word_of(in) ? qp_word_of(out) : qp_word_of(in);
    const gather_t g = {out, in, qp_at<const int32_t>(index), none_allowed, word};
    const unsigned grid = (unsigned)out.n_row;
    if (out.dtype == in.dtype)
        return QP_LAUNCH(q, gather_same_kernel, grid, BLOCK, g, (int)qp_dtype_bytes(out.dtype));
    if (qp_in_fours(out) && qp_in_fours(in))
        return QP_LAUNCH(q, (gather_cast_kernel<4>), grid, BLOCK, g);
    return QP_LAUNCH(q, (gather_cast_kernel<1>), grid, BLOCK, g);
}

/* --- x row i = scale[i] (x row i) + shift[i] w ------------------------------------------------ */

template <int W>
static __global__ void combine_kernel(qp_mat_t x, const float *scale, const float *shift,
                                      const float *w)
{
    const int64_t row = blockIdx.x;
    for (int64_t col = W * threadIdx.x; col < x.n_col; col += W * BLOCK) {
        float sum[W] = {}, direction[W];
        if (scale != NULL) {
            qp_get(sum, x, row, col);
            for (int i = 0; i < W; i++)
                sum[i] *= scale[row];
        }
        if (shift != NULL) {
            qp_get(direction, w + col);
            for (int i = 0; i < W; i++)
                sum[i] += shift[row] * direction[i];
        }
        qp_put(sum, x, row, col);
    }
}

QP_CUDA_BEGIN

qp_error_t qp_cuda_embed(qp_queue_t *q, qp_mat_t out, qp_mat_t table, qp_dptr_t token)
{
    return gather(q, out, table, token, true);
}

qp_error_t qp_cuda_gather_rows(qp_queue_t *q, qp_mat_t out, qp_mat_t in, qp_dptr_t index)
{
    return gather(q, out, in, index, false);
}

qp_error_t qp_cuda_combine_rows(qp_queue_t *q, qp_mat_t x, qp_dptr_t scale, qp_dptr_t shift,
                                qp_dptr_t w)
{
    if (x.n_row == 0 || x.n_col == 0)
        return NULL;
    const unsigned grid = (unsigned)x.n_row;
    const float *by = qp_at<const float>(scale), *along = qp_at<const float>(shift),
                *direction = qp_at<const float>(w);
    if (qp_in_fours(x) && qp_in_fours(w))
        return QP_LAUNCH(q, (combine_kernel<4>), grid, BLOCK, x, by, along, direction);
    return QP_LAUNCH(q, (combine_kernel<1>), grid, BLOCK, x, by, along, direction);
}

QP_CUDA_END
