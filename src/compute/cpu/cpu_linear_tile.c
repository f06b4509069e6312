#include "compute/cpu/cpu_linear.h"
#include "compute/cpu/cpu_math.h"
#include "compute/cpu/cpu_quantise.h"
#include "compute/cpu/cpu_tile.h"

/* Row pieces that share one copied panel, at most; fewer where that leaves too few tasks. With few
 * rows columns are cut finer, for the same reason. */
enum { GROUP = 8, TASKS = 16, FEW_ROWS = 64 };

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
    p->own_product = is_int8(p) && (!p->panel.packed || l->device->int8_product != NULL);
    p->cols = qp_cpu_cut(l->n_col, p->own_product && p->panel.packed && l->n_row <= FEW_ROWS
                                       ? QP_CPU_PACK
                                       : QP_CPU_COLS);
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

/* --- products to y ---------------------------------------------------------------------------- */

/* A part of a tile: rows [row, row + m) and columns [col, col + n) of y. */
typedef struct {
    int64_t row, m, col, n;
    const void *product; /* [m, n] int32 or fp32 */
    const float *thin;   /* what outlier columns add, rows thin_ld apart, or NULL */
    int64_t thin_ld;
    const int32_t *offset; /* [n] of an int8 product */
} part_t;

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

/* to = f + add, in the types of the matrices; add may be to, or NULL. */
static inline void store_row(void *to, qp_dtype_t dtype, const float *restrict f, const void *add,
                             qp_dtype_t add_dtype, int64_t n)
{
    _Alignas(64) float sum[QP_CPU_COLS];
    if (add != NULL) {
        if (add_dtype == QP_F32)
            for (int64_t j = 0; j < n; j++)
                sum[j] = f[j] + ((const float *)add)[j];
        else
            for (int64_t j = 0; j < n; j++)
                sum[j] = f[j] + qp_bf16_to_f32(((const uint16_t *)add)[j]);
        f = sum;
    }
    qp_cpu_store(to, dtype, f, n);
}

/* n is t->n, which the compiler may know. */
static inline __attribute__((always_inline)) void finish_rows(const plan_t *p, const part_t *t,
                                                              const int64_t n)
{
    const qp_cpu_linear_t *l = p->l;
    const qp_weight_t *w = l->w;
    const bool int8 = is_int8(p);
    const float *scale =
        l->backward || !qp_cpu_weight_is_int8(w) ? NULL : qp_cpu_f32(w->scale) + t->col;
    const float *scale_last = t->thin != NULL || !int8 ? scale : NULL;
    const float *bias =
        l->backward || qp_dptr_is_null(w->bias) ? NULL : qp_cpu_f32(w->bias) + t->col;
    const bool adds = !qp_dptr_is_null(l->add.data);
    const int64_t unrotate =
        l->backward && w->kind == QP_WEIGHT_INT8 ? qp_cpu_hadamard_block(w->n_in) : 0;
    _Alignas(64) float f[QP_CPU_COLS];
    for (int64_t i = 0; i < t->m; i++) {
        const int64_t row = t->row + i;
        if (int8)
            from_int8(f, (const int32_t *)t->product + i * n, t->offset, l->row_scale[row],
                      scale_last == NULL ? scale : NULL, n);
        else
            memcpy(f, (const float *)t->product + i * n, (size_t)n * sizeof *f);
        if (t->thin != NULL)
            add_row(f, t->thin + i * t->thin_ld, n);
        if (scale_last != NULL)
            qp_cpu_scale(f, scale_last, n);
        if (bias != NULL)
            add_row(f, bias, n);
        if (unrotate > 0)
            qp_cpu_hadamard(f, n, unrotate);
        store_row(qp_cpu_at(&l->y, row, t->col), l->y.dtype, f,
                  adds ? qp_cpu_at(&l->add, row, t->col) : NULL, l->add.dtype, n);
    }
}

QP_CPU_CLONES static void finish_part(const plan_t *p, const part_t *t)
{
    if (t->n == QP_CPU_PACK)
        finish_rows(p, t, QP_CPU_PACK);
    else
        finish_rows(p, t, t->n);
}

/* --- tiles ------------------------------------------------------------------------------------ */

/* A tile: row piece \a piece times a panel of columns. */
typedef struct {
    qp_cpu_cut_kind_t row_kind, col_kind;
    int64_t row, m, col, n;
    const void *a, *panel;
} tile_t;

/* c [m, n] = a [m, k] b [n, k]^T in integers, where the weights are not packed. */
QP_CPU_CLONES static void plain_product(int32_t *restrict c, const uint8_t *restrict a, int64_t lda,
                                        const int8_t *restrict b, int64_t m, int64_t n, int64_t k,
                                        const int8_t *next)
{
    (void)next;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            int32_t sum = 0;
            for (int64_t d = 0; d < k; d++)
                sum += (int32_t)a[i * lda + d] * (int32_t)b[j * k + d];
            c[i * n + j] = sum;
        }
}

/* Calls the lines of a part of a matrix into the cache. */
static void prefetch_part(const qp_mat_t *matrix, const part_t *t)
{
    enum { LINE = 64 };
    if (qp_dptr_is_null(matrix->data))
        return;
    const int64_t bytes = t->n * (int64_t)qp_dtype_bytes(matrix->dtype);
    for (int64_t i = 0; i < t->m; i++)
        for (int64_t b = 0; b < bytes; b += LINE)
            __builtin_prefetch((char *)qp_cpu_at(matrix, t->row + i, t->col) + b, 1);
}

/*
 * Our own int8 product, part by part: each is finished while it is in the cache. Where the result
 * goes is called there before the product, which takes long enough for it to come.
 */
static void run_parts(const plan_t *p, const lane_t *lane, const tile_t *tile)
{
    static const qp_cpu_int8_product_t plain = {plain_product, QP_CPU_ROWS, QP_CPU_COLS};
    const qp_cpu_linear_t *l = p->l;
    const qp_cpu_int8_product_t *product = p->panel.packed ? l->device->int8_product : &plain;
    for (int64_t j = 0; j < tile->n; j += product->n_col)
        for (int64_t i = 0; i < tile->m; i += product->n_row) {
            const part_t part = {.row = tile->row + i,
                                 .m = qp_cpu_min(product->n_row, tile->m - i),
                                 .col = tile->col + j,
                                 .n = qp_cpu_min(product->n_col, tile->n - j),
                                 .product = lane->tile,
                                 .thin =
                                     l->n_outlier > 0 ? lane->thin_tile + i * tile->n + j : NULL,
                                 .thin_ld = tile->n,
                                 .offset = lane->offset + j};
            prefetch_part(&l->y, &part);
            if (l->add.data.address != l->y.data.address)
                prefetch_part(&l->add, &part);
            product->run(lane->tile, (const uint8_t *)tile->a + i * l->lda, l->lda,
                         (const int8_t *)tile->panel + j * l->k, part.m, part.n, l->k,
                         i == 0 ? (const int8_t *)tile->panel + (j + part.n) * l->k : NULL);
            finish_part(p, &part);
        }
}

static qp_error_t run_tile(const plan_t *p, int thread, const lane_t *lane, const tile_t *t)
{
    const qp_cpu_linear_t *l = p->l;
    if (l->n_outlier > 0) {
        const char *thin =
            (const char *)l->thin + (size_t)(t->row * l->n_thin) * qp_dtype_bytes(l->thin_dtype);
        QP_TRY(qp_cpu_gemm_run(p->thin.gemm[t->row_kind][t->col_kind], thread, thin,
                               lane->thin_panel, lane->thin_tile));
    }
    if (p->own_product) {
        run_parts(p, lane, t);
        return NULL;
    }
    void *c = p->direct ? qp_cpu_at(&l->y, t->row, t->col) : lane->tile;
    QP_TRY(qp_cpu_gemm_run(p->whole.gemm[t->row_kind][t->col_kind], thread, t->a, t->panel, c));
    if (!p->direct)
        finish_part(p, &(part_t){.row = t->row,
                                 .m = t->m,
                                 .col = t->col,
                                 .n = t->n,
                                 .product = c,
                                 .thin = l->n_outlier > 0 ? lane->thin_tile : NULL,
                                 .thin_ld = t->n,
                                 .offset = lane->offset});
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
    tile_t tile = {.col_kind = qp_cpu_cut_kind(&p->cols, col_piece),
                   .col = qp_cpu_cut_first(&p->cols, col_piece)};
    tile.n = p->cols.size[tile.col_kind];
    const lane_t lane = lane_of(p, thread);
    tile.panel = qp_cpu_panel(&p->panel, l->device, l->w, tile.col, tile.n, lane.panel);
    const int32_t *sum = qp_cpu_i32(l->backward ? l->w->col_sum : l->w->row_sum) + tile.col;
    for (int64_t c = 0; is_int8(p) && c < tile.n; c++)
        lane.offset[c] = 128 * sum[c];
    if (l->n_outlier > 0)
        make_thin_panel(p, &lane, tile.col, tile.n);
    const int64_t end = qp_cpu_min((group + 1) * p->group, p->rows.n_piece);
    for (int64_t piece = group * p->group; piece < end; piece++) {
        tile.row_kind = qp_cpu_cut_kind(&p->rows, piece);
        tile.row = qp_cpu_cut_first(&p->rows, piece);
        tile.m = p->rows.size[tile.row_kind];
        tile.a = (const char *)l->a + (size_t)(tile.row * l->lda) * qp_dtype_bytes(l->dtype);
        QP_TRY(run_tile(p, thread, &lane, &tile));
    }
    return NULL;
}

/* Few tasks of few rows: each thread reads one stretch of the weights. */
static int tasks_at_a_time(const qp_cpu_linear_t *l, int64_t n_task)
{
    const int64_t n_thread = l->device->n_thread;
    return l->n_row > FEW_ROWS ? 1 : (int)((n_task + n_thread - 1) / n_thread);
}

qp_error_t qp_cpu_linear_product(const qp_cpu_linear_t *l)
{
    plan_t plan;
    QP_TRY(make_plan(&plan, l));
    measure_lane(&plan);
    plan.lanes =
        qp_cpu_scratch(l->device, QP_SCRATCH_TILE, (size_t)l->device->n_thread * plan.lane_bytes);
    const int64_t n_prepared = l->prepared ? l->n_row : 0;
    const int64_t n_task = plan.n_group * plan.cols.n_piece;
    qp_error_t error = NULL;
#pragma omp parallel num_threads(l->device->n_thread)
    {
        const int thread = omp_get_thread_num();
#pragma omp for
        for (int64_t r = 0; r < n_prepared; r++)
            qp_cpu_linear_prepare(l, thread, r);
#pragma omp for schedule(dynamic, tasks_at_a_time(l, n_task))
        for (int64_t task = 0; task < n_task; task++)
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
