#include "compute/cpu/linear/linear.h"
#include "compute/cpu/gemm/float.h"
#include "compute/cpu/rows/math.h"
#include "compute/cpu/rows/quantise.h"
#include "compute/cpu/gemm/strip.h"
#include "compute/cpu/gemm/tile.h"

/* Row pieces that share one copied panel, at most; fewer where that leaves too few tasks, in all or
 * for a thread. With few rows columns are cut finer, for the same reason. */
enum { GROUP = 8, TASKS = 16, TASKS_OF_THREAD = 4, FEW_ROWS = 64 };

enum { PART = QP_CPU_PART, PACK = QP_CPU_PACK, STRIPS = QP_CPU_COLS / PACK };

/* Memory of one thread. */
typedef struct {
    void *panel;
    void *tile;                   /* [ROWS, COLS] int32 or fp32 */
    void *thin_rows, *thin_panel; /* [n_outlier, PACK]; strips of n_outlier rows */
    float *thin_tile;             /* [PART, PACK] */
    int32_t *offset; /* [COLS] zero point times the sums of the columns of an int8 panel */
} lane_t;

typedef struct {
    const qp_cpu_linear_t *l;
    qp_cpu_panel_t panel;
    qp_cpu_cut_t rows, cols;
    bool own_product;                              /* without oneDNN */
    const qp_cpu_gemm_t *gemm[QP_N_CUT][QP_N_CUT]; /* oneDNN's, by size of row and column piece */
    int64_t group, n_group;                        /* row pieces of a task */
    char *lanes;                                   /* [n_thread] of lane_bytes */
    size_t thin_strip_bytes, lane_bytes;
} plan_t;

static bool is_int8(const plan_t *p)
{
    return p->l->dtype == QP_U8;
}

/* --- plan ------------------------------------------------------------------------------------- */

/* Makes oneDNN's products ready, for each size of piece there is. */
static qp_error_t get_products(plan_t *p)
{
    const qp_cpu_linear_t *l = p->l;
    qp_cpu_gemm_spec_t spec = {.k = l->k,
                               .lda = l->lda,
                               .a = (int32_t)l->dtype,
                               .b = (int32_t)p->panel.dtype,
                               .c = is_int8(p) ? QP_I32 : QP_F32,
                               .alpha = 1.0f,
                               .packed_b = true};
    for (int i = 0; i < QP_N_CUT; i++)
        for (int j = 0; j < QP_N_CUT; j++) {
            spec.m = is_int8(p) ? p->rows.size[i] : qp_cpu_round_rows(p->rows.size[i]);
            spec.n = spec.ldc = p->cols.size[j];
            if (spec.m > 0 && spec.n > 0)
                QP_TRY(qp_cpu_gemm_get(l->device, &spec, &p->gemm[i][j]));
        }
    return NULL;
}

static qp_error_t make_plan(plan_t *p, const qp_cpu_linear_t *l)
{
    *p = (plan_t){.l = l};
    p->panel = qp_cpu_panel_plan(l->device, l->w, is_int8(p) ? QP_I8 : l->dtype, l->backward);
    const bool in_strips = !is_int8(p) || p->panel.packed;
    p->own_product = is_int8(p) ? !p->panel.packed || l->device->int8_product != NULL
                                : !qp_cpu_by_dnnl(l->device, l->dtype);
    p->rows = qp_cpu_cut(l->n_row, QP_CPU_ROWS);
    p->cols = qp_cpu_cut_coarse(
        l->n_col, p->own_product && in_strips && l->n_row <= FEW_ROWS ? PACK : QP_CPU_COLS);
    const int64_t n_task = qp_min_i64(TASKS, (int64_t)TASKS_OF_THREAD * l->device->n_thread);
    p->group = qp_min_i64(GROUP, p->rows.n_piece * p->cols.n_piece / n_task);
    p->group = p->group > 0 ? p->group : 1;
    p->n_group = (p->rows.n_piece + p->group - 1) / p->group;
    p->thin_strip_bytes = qp_cpu_strip_bytes(l->thin_dtype, l->n_outlier);
    return p->own_product ? NULL : get_products(p);
}

/* Lays out a thread's memory; returns its bytes. */
static size_t carve_lane(lane_t *lane, const plan_t *p, char *memory)
{
    const qp_cpu_linear_t *l = p->l;
    char *at = memory;
    const bool thin = l->n_outlier > 0;
    lane->panel = qp_cpu_carve(&at, p->panel.copied ? STRIPS * p->panel.strip_bytes : 0);
    lane->tile = qp_cpu_carve(&at, sizeof(float[QP_CPU_ROWS][QP_CPU_COLS]));
    lane->thin_rows =
        qp_cpu_carve(&at, qp_bytes(l->n_outlier * PACK, qp_dtype_bytes(l->thin_dtype)));
    lane->thin_panel = qp_cpu_carve(&at, STRIPS * p->thin_strip_bytes);
    lane->thin_tile = qp_cpu_carve(&at, thin ? sizeof(float[PART][PACK]) : 0);
    lane->offset = qp_cpu_carve(&at, sizeof(int32_t[QP_CPU_COLS]));
    return (size_t)(at - memory);
}

size_t qp_cpu_linear_lane_bytes(qp_dtype_t dtype, int64_t k, qp_dtype_t thin, int64_t n_outlier)
{
    const qp_cpu_linear_t l = {.thin_dtype = thin, .n_outlier = n_outlier};
    const size_t int8 = qp_cpu_int8_strip_bytes(k), strip = qp_cpu_strip_bytes(dtype, k);
    const plan_t p = {.l = &l,
                      .panel = {.copied = true, .strip_bytes = strip > int8 ? strip : int8},
                      .thin_strip_bytes = qp_cpu_strip_bytes(thin, n_outlier)};
    lane_t measure;
    return carve_lane(&measure, &p, NULL);
}

/* --- products to y ---------------------------------------------------------------------------- */

/* A part of a tile: rows [row, row + m) and columns [col, col + n) of y. */
typedef struct {
    int64_t row, m, col, n;
    const void *product; /* int32 or fp32, rows ld apart */
    int64_t ld;
    const float *thin;     /* what outlier columns add, rows PACK apart, or NULL */
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
    const qp_cpu_weight_t *w = l->w;
    const bool int8 = is_int8(p);
    const float *scale =
        l->backward || !qp_cpu_weight_is_int8(w) ? NULL : qp_cpu_f32(w->scale) + t->col;
    const float *scale_last = t->thin != NULL || !int8 ? scale : NULL;
    const float *bias =
        l->backward || qp_dptr_is_null(w->bias) ? NULL : qp_cpu_f32(w->bias) + t->col;
    const bool adds = !qp_dptr_is_null(l->add.data);
    const int64_t unrotate =
        l->backward && w->kind == QP_WEIGHT_INT8 ? qp_hadamard_block(w->n_in) : 0;
    _Alignas(64) float f[PACK];
    for (int64_t i = 0; i < t->m; i++) {
        const int64_t row = t->row + i;
        if (int8)
            from_int8(f, (const int32_t *)t->product + i * t->ld, t->offset, l->row_scale[row],
                      scale_last == NULL ? scale : NULL, n);
        else
            memcpy(f, (const float *)t->product + i * t->ld, (size_t)n * sizeof *f);
        if (t->thin != NULL)
            add_row(f, t->thin + i * PACK, n);
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
    if (t->n == PACK)
        finish_rows(p, t, PACK);
    else
        finish_rows(p, t, t->n);
}

/* --- tiles ------------------------------------------------------------------------------------ */

/* A tile: row piece \a piece times a panel of columns. */
typedef struct {
    qp_cpu_cut_kind_t row_kind, col_kind;
    int64_t row, m, col, n;
    const char *a, *panel;
} tile_t;

/* Rows [i, i + m) and columns [j, j + n) of a tile. */
typedef struct {
    int64_t i, m, j, n;
} area_t;

/* Strip j / PACK of those that begin at \a panel. */
static const char *strip_at(const void *panel, int64_t j, size_t strip_bytes)
{
    return (const char *)panel + (size_t)(j / PACK) * strip_bytes;
}

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

/* Calls the lines of an area of a matrix into the cache. */
static void prefetch_area(const qp_mat_t *matrix, const tile_t *tile, const area_t *area)
{
    enum { LINE = 64 };
    if (qp_dptr_is_null(matrix->data))
        return;
    const int64_t bytes = area->n * (int64_t)qp_dtype_bytes(matrix->dtype);
    for (int64_t i = 0; i < area->m; i++)
        for (int64_t b = 0; b < bytes; b += LINE)
            __builtin_prefetch(
                (char *)qp_cpu_at(matrix, tile->row + area->i + i, tile->col + area->j) + b, 1);
}

/* What outlier columns add to a part; in one order of sums, whoever multiplies the rest. */
static void multiply_thin(const plan_t *p, const lane_t *lane, const part_t *t, int64_t col)
{
    const qp_cpu_linear_t *l = p->l;
    const size_t row_bytes = qp_bytes(l->n_outlier, qp_dtype_bytes(l->thin_dtype));
    l->device->float_product[l->thin_dtype](
        &(qp_cpu_float_t){.c = lane->thin_tile,
                          .a = (const char *)l->thin + (size_t)t->row * row_bytes,
                          .strip = strip_at(lane->thin_panel, col, p->thin_strip_bytes),
                          .lda = l->n_outlier,
                          .m = t->m,
                          .n = t->n,
                          .k = l->n_outlier});
}

/* Products of an area, rows ld apart, to y: a little at a time. */
static void finish_area(const plan_t *p, const lane_t *lane, const tile_t *tile, const area_t *area,
                        int64_t ld)
{
    for (int64_t col = 0; col < area->n; col += PACK)
        for (int64_t row = 0; row < area->m; row += PART) {
            const int64_t j = area->j + col;
            part_t part = {.row = tile->row + area->i + row,
                           .m = qp_min_i64(PART, area->m - row),
                           .col = tile->col + j,
                           .n = qp_min_i64(PACK, area->n - col),
                           .product = (const float *)lane->tile + row * ld + col,
                           .ld = ld,
                           .offset = lane->offset + j};
            if (p->l->n_outlier > 0) {
                multiply_thin(p, lane, &part, j);
                part.thin = lane->thin_tile;
            }
            finish_part(p, &part);
        }
}

/* Our own product of an area; returns the distance of its rows. */
static int64_t multiply(const plan_t *p, const lane_t *lane, const tile_t *tile, const area_t *area,
                        const qp_cpu_int8_product_t *int8)
{
    const qp_cpu_linear_t *l = p->l;
    const char *a = tile->a + (size_t)(area->i * l->lda) * qp_dtype_bytes(l->dtype);
    const char *strip = strip_at(tile->panel, area->j, p->panel.strip_bytes);
    if (int8 != NULL) {
        const char *next = strip_at(tile->panel, area->j + area->n, p->panel.strip_bytes);
        const int64_t n = p->panel.packed ? (area->n + PACK - 1) / PACK * PACK : area->n;
        int8->run(lane->tile, (const uint8_t *)a, l->lda, (const int8_t *)strip, area->m, n, l->k,
                  area->i == 0 ? (const int8_t *)next : NULL);
        return n;
    }
    l->device->float_product[l->dtype](&(qp_cpu_float_t){.c = lane->tile,
                                                         .a = a,
                                                         .strip = strip,
                                                         .lda = l->lda,
                                                         .m = area->m,
                                                         .n = area->n,
                                                         .k = l->k});
    return PACK;
}

/*
 * Our own products, part by part: each is finished while it is in the cache. Where the result goes
 * is called there before the product, which takes long enough for it to come.
 */
static void run_parts(const plan_t *p, const lane_t *lane, const tile_t *tile)
{
    static const qp_cpu_int8_product_t plain = {plain_product, QP_CPU_ROWS, QP_CPU_COLS};
    const qp_cpu_linear_t *l = p->l;
    const qp_cpu_int8_product_t *int8 =
        !is_int8(p) ? NULL : (p->panel.packed ? l->device->int8_product : &plain);
    const int64_t n_row = int8 != NULL ? int8->n_row : PART;
    const int64_t n_col = int8 != NULL ? int8->n_col : PACK;
    for (int64_t j = 0; j < tile->n; j += n_col)
        for (int64_t i = 0; i < tile->m; i += n_row) {
            const area_t area = {i, qp_min_i64(n_row, tile->m - i), j,
                                 qp_min_i64(n_col, tile->n - j)};
            prefetch_area(&l->y, tile, &area);
            if (l->add.data.address != l->y.data.address)
                prefetch_area(&l->add, tile, &area);
            finish_area(p, lane, tile, &area, multiply(p, lane, tile, &area, int8));
        }
}

static qp_error_t run_tile(const plan_t *p, int thread, const lane_t *lane, const tile_t *t)
{
    if (p->own_product) {
        run_parts(p, lane, t);
        return NULL;
    }
    QP_TRY(qp_cpu_gemm_run(p->gemm[t->row_kind][t->col_kind], thread, t->a, t->panel, lane->tile));
    finish_area(p, lane, t, &(area_t){0, t->m, 0, t->n}, t->n);
    return NULL;
}

/* Columns [col, col + n) of the weights for the outlier columns of x. */
static void make_thin_panel(const plan_t *p, const lane_t *lane, int64_t col, int64_t n)
{
    const qp_cpu_linear_t *l = p->l;
    char *strip = lane->thin_panel;
    for (int64_t j = 0; j < n; j += PACK, strip += p->thin_strip_bytes) {
        const int64_t width = qp_min_i64(PACK, n - j);
        qp_cpu_weight_inputs(l->device, l->w, col + j, width, l->outlier, l->n_outlier,
                             l->thin_dtype, lane->thin_rows);
        qp_cpu_strip_pack(strip, l->thin_dtype, lane->thin_rows, l->thin_dtype, width, false,
                          l->n_outlier, width);
    }
}

static void make_offsets(const qp_cpu_linear_t *l, const lane_t *lane, const tile_t *tile)
{
    if (l->zero_point == 0) {
        memset(lane->offset, 0, (size_t)tile->n * sizeof *lane->offset);
        return;
    }
    const int32_t *sum = qp_cpu_i32(l->backward ? l->w->col_sum : l->w->row_sum) + tile->col;
    for (int64_t c = 0; c < tile->n; c++)
        lane->offset[c] = l->zero_point * sum[c];
}

/* One panel and a group of row pieces. */
static qp_error_t run_task(const plan_t *p, int thread, const lane_t *lane, int64_t col_piece,
                           int64_t group)
{
    const qp_cpu_linear_t *l = p->l;
    tile_t tile = {.col_kind = qp_cpu_cut_kind(&p->cols, col_piece),
                   .col = qp_cpu_cut_first(&p->cols, col_piece)};
    tile.n = p->cols.size[tile.col_kind];
    tile.panel = qp_cpu_panel(&p->panel, l->device, l->w, tile.col, tile.n, lane->panel);
    if (is_int8(p))
        make_offsets(l, lane, &tile);
    if (l->n_outlier > 0)
        make_thin_panel(p, lane, tile.col, tile.n);
    const int64_t end = qp_min_i64((group + 1) * p->group, p->rows.n_piece);
    for (int64_t piece = group * p->group; piece < end; piece++) {
        tile.row_kind = qp_cpu_cut_kind(&p->rows, piece);
        tile.row = qp_cpu_cut_first(&p->rows, piece);
        tile.m = p->rows.size[tile.row_kind];
        tile.a = (const char *)l->a + (size_t)(tile.row * l->lda) * qp_dtype_bytes(l->dtype);
        QP_TRY(run_tile(p, thread, lane, &tile));
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
    lane_t measure;
    plan.lane_bytes = carve_lane(&measure, &plan, NULL);
    plan.lanes =
        qp_cpu_scratch(l->device, QP_SCRATCH_TILE, (size_t)l->device->n_thread * plan.lane_bytes);
    const int64_t n_prepared = l->prepared ? l->n_row : 0;
    const int64_t n_task = plan.n_group * plan.cols.n_piece;
    qp_error_t error = NULL;
#pragma omp parallel num_threads(l->device->n_thread)
    {
        const int thread = omp_get_thread_num();
        lane_t lane;
        carve_lane(&lane, &plan, plan.lanes + (size_t)thread * plan.lane_bytes);
#pragma omp for
        for (int64_t r = 0; r < n_prepared; r++)
            qp_cpu_linear_prepare(l, thread, r);
#pragma omp for schedule(dynamic, tasks_at_a_time(l, n_task))
        for (int64_t task = 0; task < n_task; task++)
            qp_cpu_keep_error(&error, run_task(&plan, thread, &lane, task % plan.cols.n_piece,
                                               task / plan.cols.n_piece));
    }
    return error;
}
