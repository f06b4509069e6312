#include "base/minmax.h"
#include "cuda/gemm/product.cuh"

/* --- sums over many rows ---------------------------------------------------------------------- */

/*
 * With trans_a the result is small and the sum long (gradients of LoRA over tokens): it is cut into
 * pieces, of which there are as many as make TILES tiles, whatever the card; their sums are added
 * in their order.
 */
enum { TILES = 256, LEAST_PIECE = 256, PIECE_STEP = 32 };

static size_t partial_bytes(void)
{
    return (size_t)TILES * QP_SMALL_TILE * QP_SMALL_TILE * sizeof(float);
}

static void cut(qp_product_t *p)
{
    const int64_t n_tile =
        (int64_t)qp_blocks_of(p->m, QP_SMALL_TILE) * qp_blocks_of(p->n, QP_SMALL_TILE);
    const int64_t most = qp_min_i64(TILES / n_tile, p->k / LEAST_PIECE);
    if (most <= 1)
        return;
    const int64_t step = most * PIECE_STEP;
    p->piece = (p->k + step - 1) / step * PIECE_STEP;
    p->n_piece = (p->k + p->piece - 1) / p->piece;
}

static __global__ void add_pieces_kernel(const qp_product_t p)
{
    const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= p.m * p.n)
        return;
    float sum = 0.0f;
    for (int64_t piece = 0; piece < p.n_piece; piece++)
        sum += p.partial[piece * p.m * p.n + at];
    const int64_t row = at / p.n, col = at % p.n;
    qp_mat_put(p.p.c, row, col, qp_product_value(p.p, row, col, sum));
}

/* --- products --------------------------------------------------------------------------------- */

static qp_operand_t operand(qp_mat_t m, bool along)
{
    const size_t width = qp_dtype_bytes(m.dtype), align = width == 1 ? 8 : 16;
    return {reinterpret_cast<const void *>(m.data.address), m.ld, along ? m.n_row : m.n_col, along,
            m.data.address % align == 0 && (size_t)m.ld * width % align == 0};
}

static qp_product_t describe(const qp_cuda_product_t *p)
{
    qp_product_t d = {};
    d.p = *p;
    d.a = operand(p->a, !p->trans_a);
    d.b = operand(p->b, p->trans_b);
    d.m = p->c.n_row;
    d.n = p->c.n_col;
    d.k = d.piece = p->trans_a ? p->a.n_row : p->a.n_col;
    d.n_piece = 1;
    QP_ASSERT(d.a.n == d.m && d.b.n == d.n && (p->trans_b ? p->b.n_col : p->b.n_row) == d.k);
    QP_ASSERT(p->a.dtype == QP_F32 || p->a.dtype == QP_BF16);
    QP_ASSERT(p->b.dtype == QP_F32 || p->b.dtype == QP_BF16 || p->b.dtype == QP_I8);
    QP_ASSERT(d.k > 0);
    return d;
}

static qp_error_t launch(qp_queue_t *q, qp_product_t *p)
{
    return p->p.dtype == QP_F32 ? qp_product_f32(q, p) : qp_product_bf16(q, p);
}

static qp_error_t sum_over_rows(qp_queue_t *q, qp_product_t *p)
{
    cut(p);
    if (p->n_piece == 1)
        return launch(q, p);
    p->partial = static_cast<float *>(qp_cuda_scratch(q, QP_CUDA_SCRATCH_MATMUL, partial_bytes()));
    QP_TRY(launch(q, p));
    return QP_LAUNCH(q, add_pieces_kernel, qp_blocks_of(p->m * p->n, 256), 256, *p);
}

QP_CUDA_BEGIN

void qp_cuda_matmul_need(const qp_cuda_device_t *device, const qp_pass_size_t *size,
                         qp_cuda_need_t *need)
{
    (void)device;
    (void)size;
    qp_cuda_need(need, QP_CUDA_SCRATCH_MATMUL, partial_bytes());
}

qp_error_t qp_cuda_product(qp_queue_t *q, const qp_cuda_product_t *p)
{
    if (p->c.n_row == 0 || p->c.n_col == 0)
        return NULL;
    qp_product_t d = describe(p);
    return launch(q, &d);
}

qp_error_t qp_cuda_matmul(qp_queue_t *q, float alpha, qp_mat_t a, bool trans_a, qp_mat_t b,
                          bool trans_b, float beta, qp_mat_t c, qp_mask_t mask)
{
    if (c.n_row == 0 || c.n_col == 0)
        return NULL;
    qp_cuda_product_t p = {};
    p.dtype = a.dtype == QP_F32 && b.dtype == QP_F32 ? QP_F32 : qp_device_dtype(q->device);
    p.trans_a = trans_a;
    p.trans_b = trans_b;
    p.alpha = alpha;
    p.beta = beta;
    p.a = a;
    p.b = b;
    p.c = c;
    p.mask = mask;
    qp_product_t d = describe(&p);
    return trans_a ? sum_over_rows(q, &d) : launch(q, &d);
}

QP_CUDA_END
