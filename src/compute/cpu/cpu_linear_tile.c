#include "compute/cpu/cpu_linear.h"
#include "compute/cpu/cpu_math.h"
#include "compute/cpu/cpu_quantise.h"
#include "compute/cpu/cpu_tile.h"

/* Row pieces that share one copied panel. */
enum { GROUP = 4 };

/* Products of one kind, by size of row piece and column piece. */
typedef struct {
    const qp_cpu_gemm_t *gemm[QP_N_CUT][QP_N_CUT];
} products_t;

/* Memory of one thread. */
typedef struct {
    void *panel, *thin_panel;
    void *tile;       /* [ROWS, COLS] int32 or fp32 */
    float *thin_tile; /* [ROWS, COLS] */
    int32_t *sum;     /* [COLS] sums of the columns of an int8 panel */
} lane_t;

typedef struct {
    const qp_cpu_linear_t *l;
    qp_cpu_panel_t panel;
    qp_cpu_cut_t rows, cols;
    bool direct;      /* the product writes y itself */
    bool own_product; /* int8 without oneDNN */
    products_t whole, thin, sums;
    const uint8_t *ones; /* [k] */
    char *lanes;         /* [n_thread] of lane_bytes, laid out by lane_of() */
    size_t panel_bytes, thin_panel_bytes, tile_bytes, thin_tile_bytes, sum_bytes, lane_bytes;
} plan_t;

static bool is_int8(const plan_t *p)
{
    return p->l->dtype == QP_U8;
}

/* --- plan ------------------------------------------------------------------------------------- */

/* Makes the products of one kind ready, for each size of piece there is. */
static qp_error_t get_products(const plan_t *p, const qp_cpu_cut_t *rows, qp_cpu_gemm_spec_t spec,
                               bool panel_ld, products_t *products)
{
    for (int i = 0; i < QP_N_CUT; i++)
        for (int j = 0; j < QP_N_CUT; j++) {
            spec.m = rows->size[i];
            spec.n = p->cols.size[j];
            if (spec.m == 0 || spec.n == 0)
                continue;
            spec.ldb = panel_ld ? qp_cpu_panel_ld(&p->panel, p->l->w, spec.n) : spec.n;
            spec.ldc = p->direct ? p->l->y.ld : spec.n;
            QP_TRY(qp_cpu_gemm_get(p->l->device, &spec, &products->gemm[i][j]));
        }
    return NULL;
}

static qp_error_t make_plan(plan_t *p, const qp_cpu_linear_t *l)
{
    *p = (plan_t){.l = l};
    p->panel = qp_cpu_panel_plan(l->device, l->w, is_int8(p) ? QP_I8 : l->dtype, l->backward);
    p->rows = qp_cpu_cut(l->n_row, QP_CPU_ROWS);
    p->cols = qp_cpu_cut(l->n_col, QP_CPU_COLS);
    p->own_product = is_int8(p) && (!p->panel.packed || l->device->int8_product != NULL);
    p->direct = !qp_cpu_weight_is_int8(l->w) && (l->backward || qp_dptr_is_null(l->w->bias)) &&
                (l->y.dtype == QP_F32 || l->dtype == QP_BF16);
    const qp_cpu_gemm_spec_t spec = {.k = l->k,
                                     .lda = l->lda,
                                     .trans_b = p->panel.trans,
                                     .a = (int32_t)l->dtype,
                                     .b = (int32_t)p->panel.dtype,
                                     .c = p->direct    ? (int32_t)l->y.dtype
                                          : is_int8(p) ? QP_I32
                                                       : QP_F32,
                                     .accumulate = p->direct && l->accumulate,
                                     .alpha = 1.0f,
                                     .packed_b = p->panel.packed};
    if (!p->own_product) {
        QP_TRY(get_products(p, &p->rows, spec, true, &p->whole));
        const qp_cpu_cut_t one = {.size = {[QP_CUT_REST] = 1}};
        if (is_int8(p) && l->backward)
            QP_TRY(get_products(p, &one, spec, true, &p->sums));
    }
    if (l->n_outlier > 0) {
        const qp_cpu_gemm_spec_t thin = {.k = l->n_thin,
                                         .lda = l->n_thin,
                                         .a = (int32_t)l->thin_dtype,
                                         .b = (int32_t)l->thin_dtype,
                                         .c = QP_F32,
                                         .alpha = 1.0f};
        QP_TRY(get_products(p, &p->rows, thin, false, &p->thin));
    }
    return NULL;
}

static void measure_lane(plan_t *p)
{
    const qp_cpu_linear_t *l = p->l;
    const size_t tile = QP_CPU_ROWS * QP_CPU_COLS * sizeof(float);
    if (p->panel.copied)
        p->panel_bytes = qp_bytes(l->k * QP_CPU_COLS, qp_dtype_bytes(p->panel.dtype));
    p->thin_panel_bytes = qp_bytes(l->n_thin * QP_CPU_COLS, qp_dtype_bytes(l->thin_dtype));
    p->tile_bytes = p->direct ? 0 : tile;
    p->thin_tile_bytes = l->n_outlier > 0 ? tile : 0;
    p->sum_bytes = QP_CPU_COLS * sizeof(int32_t);
    p->lane_bytes = qp_cpu_round64(p->panel_bytes) + qp_cpu_round64(p->thin_panel_bytes) +
                    p->tile_bytes + p->thin_tile_bytes + p->sum_bytes;
}

static lane_t lane_of(const plan_t *p, int thread)
{
    char *at = p->lanes + (size_t)thread * p->lane_bytes;
    lane_t lane;
    lane.panel = qp_cpu_carve(&at, p->panel_bytes);
    lane.thin_panel = qp_cpu_carve(&at, p->thin_panel_bytes);
    lane.tile = qp_cpu_carve(&at, p->tile_bytes);
    lane.thin_tile = qp_cpu_carve(&at, p->thin_tile_bytes);
    lane.sum = qp_cpu_carve(&at, p->sum_bytes);
    return lane;
}

/* --- one row of a tile to y ------------------------------------------------------------------- */

/* Whole numbers to fp32, with the row's scale and, if given, the columns' scales. */
QP_CPU_CLONES static void from_int8(float *restrict f, const int32_t *restrict acc,
                                    const int32_t *restrict sum, float row_scale,
                                    const float *restrict scale, int64_t n)
{
    if (scale == NULL)
        for (int64_t j = 0; j < n; j++)
            f[j] = (float)(acc[j] - 128 * sum[j]) * row_scale;
    else
        for (int64_t j = 0; j < n; j++)
            f[j] = (float)(acc[j] - 128 * sum[j]) * row_scale * scale[j];
}

QP_CPU_CLONES static void add_row(float *restrict f, const float *restrict x, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        f[j] += x[j];
}

QP_CPU_CLONES static void write_row(void *y, qp_dtype_t dtype, const float *f, int64_t n,
                                    bool accumulate)
{
    if (accumulate)
        qp_cpu_add(y, dtype, f, n);
    else
        qp_cpu_store(y, dtype, f, n);
}

/* Row r of the result, columns [first, first + n), from row i of the tile. */
static void finish_row(const plan_t *p, const lane_t *lane, const int32_t *sum, int64_t i,
                       int64_t r, int64_t first, int64_t n)
{
    const qp_cpu_linear_t *l = p->l;
    const qp_weight_t *w = l->w;
    const float *scale =
        l->backward || !qp_cpu_weight_is_int8(w) ? NULL : qp_cpu_f32(w->scale) + first;
    const bool has_thin = l->n_outlier > 0;
    _Alignas(64) float f[QP_CPU_COLS];
    if (is_int8(p))
        from_int8(f, (int32_t *)lane->tile + i * n, sum, l->row_scale[r], has_thin ? NULL : scale,
                  n);
    else
        memcpy(f, (float *)lane->tile + i * n, (size_t)n * sizeof *f);
    if (has_thin)
        add_row(f, lane->thin_tile + i * n, n);
    if (scale != NULL && (has_thin || !is_int8(p)))
        qp_cpu_scale(f, scale, n);
    if (!l->backward && !qp_dptr_is_null(w->bias))
        add_row(f, qp_cpu_f32(w->bias) + first, n);
    if (l->backward && w->kind == QP_WEIGHT_INT8)
        qp_cpu_hadamard(f, n, qp_cpu_hadamard_block(w->n_in));
    write_row(qp_cpu_at(&l->y, r, first), l->y.dtype, f, n, l->accumulate);
}

/* --- tiles ------------------------------------------------------------------------------------ */

/* c [m, n] = a [m, k] b [n, k]^T in integers, where the weights are not packed. */
QP_CPU_CLONES static void int8_product(int32_t *restrict c, const uint8_t *restrict a, int64_t lda,
                                       const int8_t *restrict b, int64_t m, int64_t n, int64_t k)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            int32_t sum = 0;
            for (int64_t d = 0; d < k; d++)
                sum += (int32_t)a[i * lda + d] * (int32_t)b[j * k + d];
            c[i * n + j] = sum;
        }
}

static qp_error_t multiply(const plan_t *p, const qp_cpu_gemm_t *gemm, int thread, const void *a,
                           const void *b, void *c, int64_t m, int64_t n)
{
    if (!p->own_product)
        return qp_cpu_gemm_run(gemm, thread, a, b, c);
    if (p->panel.packed)
        p->l->device->int8_product(c, a, p->l->lda, b, m, n, p->l->k);
    else
        int8_product(c, a, p->l->lda, b, m, n, p->l->k);
    return NULL;
}

/* Rows of piece number \a piece times one panel. */
static qp_error_t run_tile(const plan_t *p, int thread, const lane_t *lane, const void *panel,
                           const int32_t *sum, int64_t piece, int64_t col_piece)
{
    const qp_cpu_linear_t *l = p->l;
    const qp_cpu_cut_kind_t i = qp_cpu_cut_kind(&p->rows, piece);
    const qp_cpu_cut_kind_t j = qp_cpu_cut_kind(&p->cols, col_piece);
    const int64_t row = qp_cpu_cut_first(&p->rows, piece), m = p->rows.size[i];
    const int64_t col = qp_cpu_cut_first(&p->cols, col_piece), n = p->cols.size[j];
    const char *a = (const char *)l->a + (size_t)(row * l->lda) * qp_dtype_bytes(l->dtype);
    void *c = p->direct ? qp_cpu_at(&l->y, row, col) : lane->tile;
    QP_TRY(multiply(p, p->whole.gemm[i][j], thread, a, panel, c, m, n));
    if (l->n_outlier > 0) {
        const char *thin =
            (const char *)l->thin + (size_t)(row * l->n_thin) * qp_dtype_bytes(l->thin_dtype);
        QP_TRY(
            qp_cpu_gemm_run(p->thin.gemm[i][j], thread, thin, lane->thin_panel, lane->thin_tile));
    }
    for (int64_t r = 0; r < m && !p->direct; r++)
        finish_row(p, lane, sum, r, row + r, col, n);
    return NULL;
}

/* One panel and a group of row pieces. */
static qp_error_t run_task(const plan_t *p, int thread, int64_t col_piece, int64_t group)
{
    const qp_cpu_linear_t *l = p->l;
    const qp_cpu_cut_kind_t j = qp_cpu_cut_kind(&p->cols, col_piece);
    const int64_t col = qp_cpu_cut_first(&p->cols, col_piece), n = p->cols.size[j];
    const lane_t lane = lane_of(p, thread);
    const void *panel = qp_cpu_panel(&p->panel, l->device, l->w, col, n, lane.panel);
    const int32_t *sum = NULL;
    if (is_int8(p) && !l->backward) {
        sum = qp_cpu_i32(l->w->row_sum) + col;
    } else if (is_int8(p)) {
        QP_TRY(multiply(p, p->sums.gemm[QP_CUT_REST][j], thread, p->ones, panel, lane.sum, 1, n));
        sum = lane.sum;
    }
    if (l->n_outlier > 0) {
        const size_t used = qp_bytes(l->n_outlier * n, qp_dtype_bytes(l->thin_dtype));
        const size_t all = qp_bytes(l->n_thin * n, qp_dtype_bytes(l->thin_dtype));
        qp_cpu_weight_inputs(l->device, l->w, col, n, l->outlier, l->n_outlier, l->thin_dtype,
                             lane.thin_panel);
        memset((char *)lane.thin_panel + used, 0, all - used);
    }
    const int64_t end = qp_cpu_min((group + 1) * GROUP, p->rows.n_piece);
    for (int64_t piece = group * GROUP; piece < end; piece++)
        QP_TRY(run_tile(p, thread, &lane, panel, sum, piece, col_piece));
    return NULL;
}

qp_error_t qp_cpu_linear_product(const qp_cpu_linear_t *l)
{
    plan_t plan;
    QP_TRY(make_plan(&plan, l));
    measure_lane(&plan);
    const size_t n_thread = (size_t)l->device->n_thread;
    const size_t ones_bytes = qp_cpu_round64((size_t)l->k);
    uint8_t *ones =
        qp_cpu_scratch(l->device, QP_SCRATCH_TILE, ones_bytes + n_thread * plan.lane_bytes);
    memset(ones, 1, (size_t)l->k);
    plan.ones = ones;
    plan.lanes = (char *)ones + ones_bytes;

    const int64_t n_group = (plan.rows.n_piece + GROUP - 1) / GROUP;
    qp_error_t error = NULL;
#pragma omp parallel for num_threads(l->device->n_thread) schedule(dynamic)
    for (int64_t task = 0; task < n_group * plan.cols.n_piece; task++)
        qp_cpu_keep_error(&error, run_task(&plan, omp_get_thread_num(), task % plan.cols.n_piece,
                                           task / plan.cols.n_piece));
    return error;
}

/* Activations in the type of the product (those with outliers once more), their scales, and for
 * each thread a panel of weights and a tile. */
size_t qp_cpu_linear_scratch(const qp_pass_size_t *size, qp_dtype_t dtype, int n_thread)
{
    const int64_t n_copy = size->outliers ? 2 : 1;
    const size_t row = qp_bytes(n_copy * size->widest, qp_dtype_bytes(dtype)) + sizeof(float);
    const size_t panel = qp_bytes(size->widest * QP_CPU_COLS, qp_dtype_bytes(dtype));
    const size_t tile = (size_t)(QP_CPU_ROWS * QP_CPU_COLS) * sizeof(float);
    return qp_bytes(size->n_token, row) + (size_t)n_thread * (panel + tile);
}
