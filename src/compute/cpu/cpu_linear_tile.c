#include "compute/cpu/cpu_linear.h"
#include "compute/cpu/cpu_math.h"
#include "compute/cpu/cpu_quantise.h"
#include "compute/cpu/cpu_tile.h"

/* Row pieces that share one copied panel, at most; fewer where that leaves too few tasks. */
enum { GROUP = 8, TASKS = 16 };

/* Products of one kind, by size of row piece and column piece. */
typedef struct {
    const qp_cpu_gemm_t *gemm[QP_N_CUT][QP_N_CUT];
} products_t;

/* Memory of one thread. */
typedef struct {
    void *panel, *thin_panel;
    void *tile;       /* [ROWS, COLS] int32 or fp32 */
    float *thin_tile; /* [ROWS, COLS] */
    int32_t *offset;  /* [COLS] 128 times the sums of the columns of an int8 panel */
} lane_t;

typedef struct {
    const qp_cpu_linear_t *l;
    qp_cpu_panel_t panel;
    qp_cpu_cut_t rows, cols;
    bool direct;      /* the product writes y itself */
    bool own_product; /* int8 without oneDNN */
    products_t whole, thin;
    int64_t group, n_group; /* row pieces of a task */
    char *lanes;            /* [n_thread] of lane_bytes, laid out by lane_of() */
    size_t panel_bytes, thin_panel_bytes, tile_bytes, thin_tile_bytes, offset_bytes, lane_bytes;
} plan_t;

static bool is_int8(const plan_t *p)
{
    return p->l->dtype == QP_U8;
}

/* --- plan ------------------------------------------------------------------------------------- */

/* Makes the products of one kind ready, for each size of piece there is. */
static qp_error_t get_products(const plan_t *p, qp_cpu_gemm_spec_t spec, bool panel_ld,
                               products_t *products)
{
    for (int i = 0; i < QP_N_CUT; i++)
        for (int j = 0; j < QP_N_CUT; j++) {
            spec.m = p->rows.size[i];
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
    p->group = qp_cpu_min(GROUP, p->rows.n_piece * p->cols.n_piece / TASKS);
    p->group = p->group > 0 ? p->group : 1;
    p->n_group = (p->rows.n_piece + p->group - 1) / p->group;
    const bool adds = !qp_dptr_is_null(l->add.data);
    p->direct = !qp_cpu_weight_is_int8(l->w) && (l->backward || qp_dptr_is_null(l->w->bias)) &&
                (l->y.dtype == QP_F32 || l->dtype == QP_BF16) &&
                (!adds || l->add.data.address == l->y.data.address);
    const qp_cpu_gemm_spec_t spec = {.k = l->k,
                                     .lda = l->lda,
                                     .trans_b = p->panel.trans,
                                     .a = (int32_t)l->dtype,
                                     .b = (int32_t)p->panel.dtype,
                                     .c = p->direct    ? (int32_t)l->y.dtype
                                          : is_int8(p) ? QP_I32
                                                       : QP_F32,
                                     .accumulate = p->direct && adds,
                                     .alpha = 1.0f,
                                     .packed_b = p->panel.packed};
    if (!p->own_product)
        QP_TRY(get_products(p, spec, true, &p->whole));
    if (l->n_outlier > 0) {
        const qp_cpu_gemm_spec_t thin = {.k = l->n_thin,
                                         .lda = l->n_thin,
                                         .a = (int32_t)l->thin_dtype,
                                         .b = (int32_t)l->thin_dtype,
                                         .c = QP_F32,
                                         .alpha = 1.0f};
        QP_TRY(get_products(p, thin, false, &p->thin));
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
    p->offset_bytes = QP_CPU_COLS * sizeof(int32_t);
    p->lane_bytes = qp_cpu_round64(p->panel_bytes) + qp_cpu_round64(p->thin_panel_bytes) +
                    p->tile_bytes + p->thin_tile_bytes + p->offset_bytes;
}

static lane_t lane_of(const plan_t *p, int thread)
{
    char *at = p->lanes + (size_t)thread * p->lane_bytes;
    lane_t lane;
    lane.panel = qp_cpu_carve(&at, p->panel_bytes);
    lane.thin_panel = qp_cpu_carve(&at, p->thin_panel_bytes);
    lane.tile = qp_cpu_carve(&at, p->tile_bytes);
    lane.thin_tile = qp_cpu_carve(&at, p->thin_tile_bytes);
    lane.offset = qp_cpu_carve(&at, p->offset_bytes);
    return lane;
}

/* --- a tile to y ------------------------------------------------------------------------------ */

/* Whole numbers to fp32, with the row's scale and, if given, the columns' scales. */
static inline void from_int8(float *restrict f, const int32_t *restrict acc,
                             const int32_t *restrict offset, float row_scale,
                             const float *restrict scale, int64_t n)
{
    if (scale == NULL)
        for (int64_t j = 0; j < n; j++)
            f[j] = (float)(acc[j] - offset[j]) * row_scale;
    else
        for (int64_t j = 0; j < n; j++)
            f[j] = (float)(acc[j] - offset[j]) * row_scale * scale[j];
}

static inline void add_row(float *restrict f, const float *restrict x, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        f[j] += x[j];
}

/* Adds a row of a matrix, fp32 or bf16. */
static inline void add_matrix_row(float *restrict f, const void *x, qp_dtype_t dtype, int64_t n)
{
    if (dtype == QP_F32) {
        add_row(f, x, n);
        return;
    }
    const uint16_t *restrict half = x;
    for (int64_t j = 0; j < n; j++)
        f[j] += qp_bf16_to_f32(half[j]);
}

/* Rows [row, row + m) of the result, columns [col, col + n), from the tile. */
QP_CPU_CLONES static void finish_tile(const plan_t *p, const lane_t *lane, int64_t row, int64_t m,
                                      int64_t col, int64_t n)
{
    const qp_cpu_linear_t *l = p->l;
    const qp_weight_t *w = l->w;
    const float *scale =
        l->backward || !qp_cpu_weight_is_int8(w) ? NULL : qp_cpu_f32(w->scale) + col;
    const float *bias = l->backward || qp_dptr_is_null(w->bias) ? NULL : qp_cpu_f32(w->bias) + col;
    const bool has_thin = l->n_outlier > 0, adds = !qp_dptr_is_null(l->add.data);
    const bool scales_last = scale != NULL && (has_thin || !is_int8(p));
    const int64_t unrotate =
        l->backward && w->kind == QP_WEIGHT_INT8 ? qp_cpu_hadamard_block(w->n_in) : 0;
    _Alignas(64) float f[QP_CPU_COLS];
    for (int64_t i = 0; i < m; i++) {
        if (is_int8(p))
            from_int8(f, (int32_t *)lane->tile + i * n, lane->offset, l->row_scale[row + i],
                      scales_last ? NULL : scale, n);
        else
            memcpy(f, (float *)lane->tile + i * n, (size_t)n * sizeof *f);
        if (has_thin)
            add_row(f, lane->thin_tile + i * n, n);
        if (scales_last)
            qp_cpu_scale(f, scale, n);
        if (bias != NULL)
            add_row(f, bias, n);
        if (unrotate > 0)
            qp_cpu_hadamard(f, n, unrotate);
        if (adds)
            add_matrix_row(f, qp_cpu_at(&l->add, row + i, col), l->add.dtype, n);
        qp_cpu_store(qp_cpu_at(&l->y, row + i, col), l->y.dtype, f, n);
    }
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
                           int64_t piece, int64_t col_piece)
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
    if (!p->direct)
        finish_tile(p, lane, row, m, col, n);
    return NULL;
}

/* Columns [col, col + n) of the weights for the outlier columns of x. */
static void make_thin_panel(const plan_t *p, const lane_t *lane, int64_t col, int64_t n)
{
    const qp_cpu_linear_t *l = p->l;
    const size_t used = qp_bytes(l->n_outlier * n, qp_dtype_bytes(l->thin_dtype));
    const size_t all = qp_bytes(l->n_thin * n, qp_dtype_bytes(l->thin_dtype));
    qp_cpu_weight_inputs(l->device, l->w, col, n, l->outlier, l->n_outlier, l->thin_dtype,
                         lane->thin_panel);
    memset((char *)lane->thin_panel + used, 0, all - used);
}

/* One panel and a group of row pieces. */
static qp_error_t run_task(const plan_t *p, int thread, int64_t col_piece, int64_t group)
{
    const qp_cpu_linear_t *l = p->l;
    const qp_cpu_cut_kind_t j = qp_cpu_cut_kind(&p->cols, col_piece);
    const int64_t col = qp_cpu_cut_first(&p->cols, col_piece), n = p->cols.size[j];
    const lane_t lane = lane_of(p, thread);
    const void *panel = qp_cpu_panel(&p->panel, l->device, l->w, col, n, lane.panel);
    const int32_t *sum = qp_cpu_i32(l->backward ? l->w->col_sum : l->w->row_sum);
    for (int64_t c = 0; is_int8(p) && c < n; c++)
        lane.offset[c] = 128 * sum[col + c];
    if (l->n_outlier > 0)
        make_thin_panel(p, &lane, col, n);
    const int64_t end = qp_cpu_min((group + 1) * p->group, p->rows.n_piece);
    for (int64_t piece = group * p->group; piece < end; piece++)
        QP_TRY(run_tile(p, thread, &lane, panel, piece, col_piece));
    return NULL;
}

qp_error_t qp_cpu_linear_product(const qp_cpu_linear_t *l)
{
    plan_t plan;
    QP_TRY(make_plan(&plan, l));
    measure_lane(&plan);
    plan.lanes =
        qp_cpu_scratch(l->device, QP_SCRATCH_TILE, (size_t)l->device->n_thread * plan.lane_bytes);
    const int64_t n_prepared = l->prepared ? l->n_row : 0;
    qp_error_t error = NULL;
#pragma omp parallel num_threads(l->device->n_thread)
    {
        const int thread = omp_get_thread_num();
#pragma omp for
        for (int64_t r = 0; r < n_prepared; r++)
            qp_cpu_linear_prepare(l, thread, r);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < plan.n_group * plan.cols.n_piece; task++)
            qp_cpu_keep_error(&error, run_task(&plan, thread, task % plan.cols.n_piece,
                                               task / plan.cols.n_piece));
    }
    return error;
}

/* Activations in the type of the product (those with outliers once more), their scales, and for
 * each thread a row in fp32, a panel of weights and a tile. */
size_t qp_cpu_linear_scratch(const qp_pass_size_t *size, qp_dtype_t dtype, int n_thread)
{
    const int64_t n_copy = size->outliers ? 2 : 1;
    const size_t row = qp_bytes(n_copy * size->widest, qp_dtype_bytes(dtype)) + sizeof(float);
    const size_t panel = qp_bytes(size->widest * QP_CPU_COLS, qp_dtype_bytes(dtype));
    const size_t tile = (size_t)(QP_CPU_ROWS * QP_CPU_COLS) * sizeof(float);
    const size_t lane = qp_bytes(size->widest, sizeof(float)) + panel + tile;
    return qp_bytes(size->n_token, row) + (size_t)n_thread * lane;
}
