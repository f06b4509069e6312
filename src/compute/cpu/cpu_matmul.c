#include "compute/cpu/cpu.h"
#include "compute/cpu/cpu_input.h"
#include "compute/cpu/cpu_math.h"
#include "compute/cpu/cpu_pack.h"
#include "compute/cpu/cpu_tile.h"

/**
 * One product, cut into tiles. The summed dimension is cut only where a is transposed: there it is
 * the number of tokens, which is another one in every batch; else it is a width of the model.
 */
typedef struct {
    qp_cpu_device_t *device;
    qp_dtype_t dtype; /* of both operands */
    bool trans_a, trans_b;
    float alpha, beta;
    qp_mat_t a, b, c;
    qp_mask_t mask;
    int64_t k;
    char *packed; /* b as packed strips of PACK columns, or NULL */
    size_t strip_bytes;
    qp_cpu_cut_t rows, cols, depth;
    bool direct; /* the product writes c itself; else a tile in fp32, then c */
    /* First product of a tile and those that add to it, by sizes of rows, columns and depth. */
    const qp_cpu_gemm_t *gemm[2][QP_N_CUT][QP_N_CUT][QP_N_CUT];
    float *tiles; /* [n_thread, ROWS, COLS] */
} matmul_t;

/* From PACK_ROWS rows and PACK_DEPTH columns of a on, packing b first is paid back; its strips are
 * as wide as the narrow tiles. */
enum {
    NARROW = 64,
    PACK = NARROW,
    PACK_ROWS = 64,
    PACK_DEPTH = 32,
    FEW_TASKS = 16,
    TILE = QP_CPU_ROWS * QP_CPU_COLS
};

/* fp32 with fp32 stays exact; with bf16 on either side the device's compute type decides. (Pairs of
 * bf16 come only with bf16 compute, in training; in fp32 they are exact anywhere.) */
static qp_dtype_t product_dtype(const qp_cpu_device_t *device, qp_mat_t a, qp_mat_t b)
{
    return a.dtype == QP_F32 && b.dtype == QP_F32 ? QP_F32 : qp_device_dtype(&device->base);
}

/* The matrix in the type of the product; a copy in scratch where it has another. */
static qp_mat_t cast(qp_cpu_device_t *device, qp_cpu_scratch_slot_t slot, qp_mat_t m,
                     qp_dtype_t dtype)
{
    if (m.dtype == dtype)
        return m;
    void *copy = qp_cpu_scratch(device, slot, qp_bytes(m.n_row * m.n_col, qp_dtype_bytes(dtype)));
    const qp_mat_t to = qp_mat((qp_dptr_t){(uintptr_t)copy}, dtype, m.n_row, m.n_col);
#pragma omp parallel for num_threads(device->n_thread) if (m.n_row * m.n_col > QP_CPU_SERIAL)
    for (int64_t r = 0; r < m.n_row; r++)
        qp_cpu_convert(qp_cpu_at(&to, r, 0), dtype, qp_cpu_at(&m, r, 0), m.dtype, m.n_col);
    return to;
}

/* Packs b where it is used often enough, straight from the type it has. */
static void prepare_b(matmul_t *p)
{
    p->strip_bytes = qp_cpu_operand_bytes(p->device, p->dtype, p->k, PACK);
    const bool likes = p->device->packed_bf16 && p->dtype == QP_BF16 && !p->trans_a;
    if (!likes || p->c.n_row < PACK_ROWS || p->k < PACK_DEPTH || p->a.ld != p->k) {
        p->b = cast(p->device, QP_SCRATCH_CAST_B, p->b, p->dtype);
        return;
    }
    const int64_t n = p->c.n_col, n_strip = (n + PACK - 1) / PACK;
    p->packed = qp_cpu_scratch(p->device, QP_SCRATCH_CAST_B, (size_t)n_strip * p->strip_bytes);
#pragma omp parallel for num_threads(p->device->n_thread) if (p->k * n > QP_CPU_SERIAL)
    for (int64_t i = 0; i < n_strip; i++) {
        const int64_t first = i * PACK;
        const void *from = p->trans_b ? qp_cpu_at(&p->b, first, 0) : qp_cpu_at(&p->b, 0, first);
        qp_cpu_operand_pack(p->device, p->packed + (size_t)i * p->strip_bytes, p->dtype, from,
                            p->b.dtype, p->b.ld, p->trans_b, p->k, qp_cpu_min(n - first, PACK));
    }
}

/* Whether some piece of depth kind d is the first of its tile (adds: is added to others or to c).
 */
static bool is_needed(const matmul_t *p, qp_cpu_cut_kind_t d, bool adds)
{
    const bool starts = d == qp_cpu_cut_kind(&p->depth, 0);
    if (p->direct && p->beta == 1.0f)
        return adds;
    return adds ? !starts || p->depth.n_full > 1 : starts;
}

/*
 * Whether products write c themselves. A bf16 result must be rounded once, and an fp32 product
 * cannot round at all; oneDNN is slow at adding to bf16 and at bf16 rows that do not stand
 * together, and takes packed operands only with results that do.
 */
static bool is_direct(const matmul_t *p)
{
    const bool dense = p->c.ld == p->c.n_col && p->cols.n_piece == 1;
    if (!qp_dptr_is_null(p->mask.bits) || (p->packed != NULL && !dense))
        return false;
    if (p->c.dtype == QP_F32)
        return p->beta == 0.0f || p->beta == 1.0f;
    return p->beta == 0.0f && p->dtype == QP_BF16 && p->depth.n_piece == 1 && dense;
}

static qp_error_t get_products(matmul_t *p)
{
    qp_cpu_gemm_spec_t spec = {.lda = p->a.ld,
                               .ldb = p->b.ld,
                               .trans_a = p->trans_a,
                               .trans_b = p->trans_b,
                               .a = (int32_t)p->dtype,
                               .b = (int32_t)p->dtype,
                               .c = p->direct ? (int32_t)p->c.dtype : QP_F32,
                               .alpha = p->alpha};
    for (int i = 0; i < QP_N_CUT; i++)
        for (int j = 0; j < QP_N_CUT; j++)
            for (int d = 0; d < QP_N_CUT; d++)
                for (int adds = 0; adds < 2; adds++) {
                    spec.m = p->rows.size[i];
                    spec.n = p->cols.size[j];
                    spec.k = p->depth.size[d];
                    spec.ldc = p->direct ? p->c.ld : spec.n;
                    spec.accumulate = adds;
                    if (p->packed != NULL)
                        qp_cpu_operand_describe(p->device, &spec, p->trans_b);
                    if (spec.m > 0 && spec.n > 0 && spec.k > 0 &&
                        is_needed(p, (qp_cpu_cut_kind_t)d, adds))
                        QP_TRY(qp_cpu_gemm_get(p->device, &spec, &p->gemm[adds][i][j][d]));
                }
    return NULL;
}

/* c = mask(tile) + beta c for m rows from \a row, n columns from \a col. */
QP_CPU_CLONES static void write_tile(const matmul_t *p, float *restrict tile, int64_t row,
                                     int64_t m, int64_t col, int64_t n)
{
    _Alignas(64) float f[QP_CPU_COLS];
    for (int64_t i = 0; i < m; i++, tile += n) {
        void *c = qp_cpu_at(&p->c, row + i, col);
        qp_cpu_mask_row(tile, p->mask, p->c.n_col, row + i, col, n);
        if (p->beta != 0.0f) {
            qp_cpu_load(f, p->c.dtype, c, n);
            for (int64_t j = 0; j < n; j++)
                tile[j] += p->beta * f[j];
        }
        qp_cpu_store(c, p->c.dtype, tile, n);
    }
}

static qp_error_t run_tile(const matmul_t *p, int thread, int64_t row_piece, int64_t col_piece)
{
    const qp_cpu_cut_kind_t i = qp_cpu_cut_kind(&p->rows, row_piece);
    const qp_cpu_cut_kind_t j = qp_cpu_cut_kind(&p->cols, col_piece);
    const int64_t row = qp_cpu_cut_first(&p->rows, row_piece), m = p->rows.size[i];
    const int64_t col = qp_cpu_cut_first(&p->cols, col_piece), n = p->cols.size[j];
    float *tile = p->tiles + (int64_t)thread * TILE;
    void *c = p->direct ? qp_cpu_at(&p->c, row, col) : tile;
    for (int64_t piece = 0; piece < p->depth.n_piece; piece++) {
        const qp_cpu_cut_kind_t d = qp_cpu_cut_kind(&p->depth, piece);
        const int64_t k = qp_cpu_cut_first(&p->depth, piece);
        const void *a = p->trans_a ? qp_cpu_at(&p->a, k, row) : qp_cpu_at(&p->a, row, k);
        const void *b = p->packed != NULL ? p->packed + (size_t)(col / PACK) * p->strip_bytes
                        : p->trans_b      ? qp_cpu_at(&p->b, col, k)
                                          : qp_cpu_at(&p->b, k, col);
        const bool adds = piece > 0 || (p->direct && p->beta == 1.0f);
        QP_TRY(qp_cpu_gemm_run(p->gemm[adds][i][j][d], thread, a, b, c));
    }
    if (!p->direct)
        write_tile(p, tile, row, m, col, n);
    return NULL;
}

qp_error_t qp_cpu_matmul(qp_queue_t *q, float alpha, qp_mat_t a, bool trans_a, qp_mat_t b,
                         bool trans_b, float beta, qp_mat_t c, qp_mask_t mask)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    const int64_t k = trans_a ? a.n_row : a.n_col;
    QP_ASSERT((trans_b ? b.n_col : b.n_row) == k && (trans_b ? b.n_row : b.n_col) == c.n_col &&
              (trans_a ? a.n_col : a.n_row) == c.n_row && k > 0);
    if (c.n_row == 0 || c.n_col == 0)
        return NULL;
    const qp_dtype_t dtype = product_dtype(device, a, b);
    matmul_t p = {.device = device,
                  .dtype = dtype,
                  .trans_a = trans_a,
                  .trans_b = trans_b,
                  .alpha = alpha,
                  .beta = beta,
                  .a = cast(device, QP_SCRATCH_CAST_A, a, dtype),
                  .b = b,
                  .c = c,
                  .mask = mask,
                  .k = k,
                  .rows = qp_cpu_cut(c.n_row, QP_CPU_ROWS),
                  .cols = qp_cpu_cut(c.n_col, QP_CPU_COLS),
                  .depth = qp_cpu_cut(k, trans_a ? QP_CPU_DEPTH : k)};
    if (p.rows.n_piece * p.cols.n_piece < FEW_TASKS)
        p.cols = qp_cpu_cut(c.n_col, NARROW);
    prepare_b(&p);
    if (p.packed != NULL) { /* pieces begin where strips do */
        const int64_t left = p.cols.size[QP_CUT_SIXTEENS] + p.cols.size[QP_CUT_REST];
        p.cols.size[QP_CUT_SIXTEENS] = left;
        p.cols.size[QP_CUT_REST] = 0;
        p.cols.n_piece = p.cols.n_full + (left > 0);
    }
    p.direct = is_direct(&p);
    p.tiles = qp_cpu_scratch(device, QP_SCRATCH_TILE,
                             p.direct ? 0 : (size_t)device->n_thread * TILE * sizeof(float));
    QP_TRY(get_products(&p));
    qp_error_t error = NULL;
#pragma omp parallel for num_threads(device->n_thread) schedule(dynamic)
    for (int64_t task = 0; task < p.rows.n_piece * p.cols.n_piece; task++)
        qp_cpu_keep_error(&error, run_tile(&p, omp_get_thread_num(), task / p.cols.n_piece,
                                           task % p.cols.n_piece));
    return error;
}
