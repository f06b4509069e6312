#include "compute/cpu/gemm/matmul.h"

#include "base/minmax.h"
#include "compute/cpu/gemm/tile.h"

/* With fewer tiles than that, narrower ones. */
enum { FEW_TASKS = 16, NARROW = 64, TILE = QP_CPU_ROWS * QP_CPU_COLS };

/* fp32 with fp32 stays exact; with bf16 on either side the device's compute type decides. (Pairs of
 * bf16 come only with bf16 compute, in training; in fp32 they are exact anywhere.) */
static qp_dtype_t product_dtype(const qp_cpu_device_t *device, qp_mat_t a, qp_mat_t b)
{
    return a.dtype == QP_F32 && b.dtype == QP_F32 ? QP_F32 : qp_device_dtype(&device->base);
}

/* --- sums over rows --------------------------------------------------------------------------- */

/*
 * A product with trans_a by oneDNN, cut into tiles. The sum is over tokens, of which there is
 * another number in every batch: so it is cut too.
 */
typedef struct {
    qp_cpu_matmul_t p;
    qp_cpu_cut_t rows, cols, depth;
    bool direct; /* the product writes c itself; else a tile in fp32, then c */
    /* First product of a tile and those that add to it, by sizes of rows, columns and depth. */
    const qp_cpu_gemm_t *gemm[2][QP_N_CUT][QP_N_CUT][QP_N_CUT];
    float *tiles; /* [n_thread, ROWS, COLS] */
} sums_t;

/* Whether some piece of depth kind d is the first of its tile (adds: is added to others or to c).
 */
static bool is_needed(const sums_t *s, qp_cpu_cut_kind_t d, bool adds)
{
    const bool starts = d == qp_cpu_cut_kind(&s->depth, 0);
    if (s->direct && s->p.beta == 1.0f)
        return adds;
    return adds ? !starts || s->depth.n_full > 1 : starts;
}

/*
 * Whether products write c themselves. A bf16 result must be rounded once, and an fp32 product
 * cannot round at all; oneDNN is slow at adding to bf16 and at bf16 rows that do not stand
 * together.
 */
static bool is_direct(const sums_t *s)
{
    const qp_cpu_matmul_t *p = &s->p;
    if (!qp_dptr_is_null(p->mask.bits))
        return false;
    if (p->c.dtype == QP_F32)
        return p->beta == 0.0f || p->beta == 1.0f;
    return p->beta == 0.0f && p->dtype == QP_BF16 && s->depth.n_piece == 1 &&
           p->c.ld == p->c.n_col && s->cols.n_piece == 1;
}

static qp_error_t get_products(sums_t *s)
{
    const qp_cpu_matmul_t *p = &s->p;
    qp_cpu_gemm_spec_t spec = {.lda = p->a.ld,
                               .ldb = p->b.ld,
                               .trans_a = true,
                               .trans_b = p->trans_b,
                               .a = (int32_t)p->dtype,
                               .b = (int32_t)p->dtype,
                               .c = s->direct ? (int32_t)p->c.dtype : QP_F32,
                               .alpha = p->alpha};
    for (int i = 0; i < QP_N_CUT; i++)
        for (int j = 0; j < QP_N_CUT; j++)
            for (int d = 0; d < QP_N_CUT; d++)
                for (int adds = 0; adds < 2; adds++) {
                    spec.m = s->rows.size[i];
                    spec.n = s->cols.size[j];
                    spec.k = s->depth.size[d];
                    spec.ldc = s->direct ? p->c.ld : spec.n;
                    spec.accumulate = adds;
                    if (spec.m > 0 && spec.n > 0 && spec.k > 0 &&
                        is_needed(s, (qp_cpu_cut_kind_t)d, adds))
                        QP_TRY(qp_cpu_gemm_get(p->device, &spec, &s->gemm[adds][i][j][d]));
                }
    return NULL;
}

static qp_error_t run_tile(const sums_t *s, int thread, int64_t row_piece, int64_t col_piece)
{
    const qp_cpu_matmul_t *p = &s->p;
    const qp_cpu_cut_kind_t i = qp_cpu_cut_kind(&s->rows, row_piece);
    const qp_cpu_cut_kind_t j = qp_cpu_cut_kind(&s->cols, col_piece);
    const int64_t row = qp_cpu_cut_first(&s->rows, row_piece), n = s->cols.size[j];
    const int64_t col = qp_cpu_cut_first(&s->cols, col_piece);
    float *tile = s->tiles + (int64_t)thread * TILE;
    void *c = s->direct ? qp_cpu_at(&p->c, row, col) : tile;
    for (int64_t piece = 0; piece < s->depth.n_piece; piece++) {
        const qp_cpu_cut_kind_t d = qp_cpu_cut_kind(&s->depth, piece);
        const int64_t k = qp_cpu_cut_first(&s->depth, piece);
        const void *b = p->trans_b ? qp_cpu_at(&p->b, col, k) : qp_cpu_at(&p->b, k, col);
        const bool adds = piece > 0 || (s->direct && p->beta == 1.0f);
        QP_TRY(qp_cpu_gemm_run(s->gemm[adds][i][j][d], thread, qp_cpu_at(&p->a, k, row), b, c));
    }
    if (!s->direct)
        qp_cpu_matmul_write(p, &(qp_cpu_matmul_tile_t){.x = tile,
                                                       .ld = n,
                                                       .alpha = 1.0f,
                                                       .row = row,
                                                       .m = s->rows.size[i],
                                                       .col = col,
                                                       .n = n});
    return NULL;
}

static qp_error_t sum_over_rows(const qp_cpu_matmul_t *p)
{
    qp_cpu_device_t *device = p->device;
    sums_t s = {.p = *p,
                .rows = qp_cpu_cut(p->c.n_row, QP_CPU_ROWS),
                .cols = qp_cpu_cut(p->c.n_col, QP_CPU_COLS),
                .depth = qp_cpu_cut(p->k, QP_CPU_DEPTH)};
    if (s.rows.n_piece * s.cols.n_piece < FEW_TASKS)
        s.cols = qp_cpu_cut(p->c.n_col, NARROW);
    s.p.a = qp_cpu_matmul_cast(p, QP_SCRATCH_CAST_A, p->a);
    s.p.b = qp_cpu_matmul_cast(p, QP_SCRATCH_CAST_B, p->b);
    s.direct = is_direct(&s);
    s.tiles = qp_cpu_scratch(device, QP_SCRATCH_TILE,
                             s.direct ? 0 : (size_t)device->n_thread * sizeof(float[TILE]));
    QP_TRY(get_products(&s));
    qp_error_t error = NULL;
#pragma omp parallel for num_threads(device->n_thread) schedule(dynamic)
    for (int64_t task = 0; task < s.rows.n_piece * s.cols.n_piece; task++)
        qp_cpu_keep_error(&error, run_tile(&s, omp_get_thread_num(), task / s.cols.n_piece,
                                           task % s.cols.n_piece));
    return error;
}

/* --- scratch ---------------------------------------------------------------------------------- */

/*
 * Rows are tokens; columns and depth those of linears, heads and adapters. Operands are copied
 * where one is not of the product's type, and where oneDNN wants them dense.
 */
void qp_cpu_matmul_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                           qp_cpu_scratch_need_t *need)
{
    const qp_dtype_t dtype = qp_device_dtype(&device->base);
    const int64_t widest = qp_max_i64(size->widest, qp_max_i64(size->d_model, size->n_inner));
    const size_t n_thread = (size_t)device->n_thread;
    qp_cpu_need(need, QP_SCRATCH_TILE, n_thread * sizeof(float[TILE]));
    qp_cpu_need(need, QP_SCRATCH_TILE, n_thread * qp_cpu_matmul_lane_bytes(device, QP_F32, widest));
    qp_cpu_need(need, QP_SCRATCH_TILE, n_thread * qp_cpu_matmul_lane_bytes(device, dtype, widest));
    if (size->mixed || qp_cpu_by_dnnl(device, dtype)) {
        const size_t copy = qp_cpu_matmul_cast_bytes(dtype, size->n_token, widest);
        qp_cpu_need(need, QP_SCRATCH_CAST_A, copy);
        qp_cpu_need(need, QP_SCRATCH_CAST_B, copy);
    }
}

/* --- the slot --------------------------------------------------------------------------------- */

qp_error_t qp_cpu_matmul(qp_queue_t *q, float alpha, qp_mat_t a, bool trans_a, qp_mat_t b,
                         bool trans_b, float beta, qp_mat_t c, qp_mask_t mask)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    const qp_cpu_matmul_t p = {.device = device,
                               .dtype = product_dtype(device, a, b),
                               .trans_a = trans_a,
                               .trans_b = trans_b,
                               .alpha = alpha,
                               .beta = beta,
                               .a = a,
                               .b = b,
                               .c = c,
                               .mask = mask,
                               .k = trans_a ? a.n_row : a.n_col};
    QP_ASSERT((trans_b ? b.n_col : b.n_row) == p.k && (trans_b ? b.n_row : b.n_col) == c.n_col &&
              (trans_a ? a.n_col : a.n_row) == c.n_row && p.k > 0);
    if (c.n_row == 0 || c.n_col == 0)
        return NULL;
    return trans_a ? sum_over_rows(&p) : qp_cpu_matmul_rows(&p);
}
