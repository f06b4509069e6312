/*
 * Dense products whose rows stand alone. A task is a strip of 64 columns and some rows: it packs
 * its strip of b, straight from the type that b has, and multiplies part by part. With few rows a
 * little of the depth is packed at a time, and stays in the first-level cache.
 */
#include "compute/cpu/gemm/matmul.h"

#include "compute/cpu/gemm/float.h"
#include "compute/cpu/rows/math.h"
#include "compute/cpu/gemm/strip.h"
#include "compute/cpu/gemm/tile.h"

/* Row pieces of a task, at most; fewer where that leaves a thread less tasks than that. */
enum { GROUP = 8, TASKS = 4 };

enum { PART = QP_CPU_PART, STRIP = QP_CPU_STRIP, SHALLOW = 64 };

/* Memory of one thread. */
typedef struct {
    char *strip; /* [k, STRIP] */
    float *tile; /* [ROWS, STRIP] */
    char *rows;  /* oneDNN's: [QP_CPU_ROUND, k] the last rows, filled up */
} lane_t;

typedef struct {
    const qp_cpu_matmul_t *p;
    qp_mat_t a;
    qp_cpu_cut_t rows, strips;
    int64_t group, n_group;                        /* row pieces of a task */
    const qp_cpu_gemm_t *gemm[QP_N_CUT][QP_N_CUT]; /* oneDNN's, by size of row piece and strip */
    char *lanes;                                   /* [n_thread] of lane_bytes */
    size_t row_bytes, lane_bytes;
} plan_t;

/* A piece of rows times a strip. */
typedef struct {
    qp_cpu_cut_kind_t row_kind, col_kind;
    int64_t row, m, col, n;
} tile_t;

/* Lays out a thread's memory; returns its bytes. */
static size_t carve_lane(lane_t *lane, const qp_cpu_device_t *device, qp_dtype_t dtype, int64_t k,
                         char *memory)
{
    const bool by_dnnl = qp_cpu_by_dnnl(device, dtype);
    char *at = memory;
    lane->strip = qp_cpu_carve(&at, qp_cpu_strip_bytes(dtype, k));
    lane->tile = qp_cpu_carve(&at, sizeof(float[QP_CPU_ROWS][STRIP]));
    lane->rows = qp_cpu_carve(&at, by_dnnl ? QP_CPU_ROUND * qp_bytes(k, qp_dtype_bytes(dtype)) : 0);
    return (size_t)(at - memory);
}

size_t qp_cpu_matmul_lane_bytes(const qp_cpu_device_t *device, qp_dtype_t dtype, int64_t k)
{
    lane_t measure;
    return carve_lane(&measure, device, dtype, k, NULL);
}

static qp_error_t get_products(plan_t *plan)
{
    const qp_cpu_matmul_t *p = plan->p;
    qp_cpu_gemm_spec_t spec = {.k = p->k,
                               .lda = p->k,
                               .a = (int32_t)p->dtype,
                               .b = (int32_t)p->dtype,
                               .c = QP_F32,
                               .alpha = 1.0f,
                               .packed_b = true};
    for (int i = 0; i < QP_N_CUT; i++)
        for (int j = 0; j < QP_N_CUT; j++) {
            spec.m = qp_cpu_round_rows(plan->rows.size[i]);
            spec.n = spec.ldc = plan->strips.size[j];
            if (spec.m > 0 && spec.n > 0)
                QP_TRY(qp_cpu_gemm_get(p->device, &spec, &plan->gemm[i][j]));
        }
    return NULL;
}

/* Rows [first, first + n) of a tile's strip. */
static void pack(const qp_cpu_matmul_t *p, const lane_t *lane, const tile_t *t, int64_t first,
                 int64_t n)
{
    const void *from =
        p->trans_b ? qp_cpu_at(&p->b, t->col, first) : qp_cpu_at(&p->b, first, t->col);
    qp_cpu_strip_pack(lane->strip, p->dtype, from, p->b.dtype, p->b.ld, p->trans_b, n, t->n);
}

static void write_rows(const qp_cpu_matmul_t *p, const lane_t *lane, const tile_t *t, int64_t i,
                       int64_t m, int64_t ld)
{
    qp_cpu_matmul_write(p, &(qp_cpu_matmul_tile_t){.x = lane->tile,
                                                   .ld = ld,
                                                   .alpha = p->alpha,
                                                   .row = t->row + i,
                                                   .m = m,
                                                   .col = t->col,
                                                   .n = t->n});
}

/* --- by our own products ---------------------------------------------------------------------- */

static void multiply(const plan_t *plan, const lane_t *lane, const tile_t *t, int64_t i, int64_t m,
                     int64_t first, int64_t k)
{
    const qp_cpu_matmul_t *p = plan->p;
    p->device->float_product[p->dtype](
        &(qp_cpu_float_t){.c = lane->tile,
                          .a = qp_cpu_at(&plan->a, t->row + i, first),
                          .strip = lane->strip,
                          .lda = plan->a.ld,
                          .m = m,
                          .n = t->n,
                          .k = k,
                          .accumulate = first > 0});
}

static void run_few(const plan_t *plan, const lane_t *lane, const tile_t *t)
{
    const int64_t depth = SHALLOW / (int64_t)qp_dtype_bytes(plan->p->dtype) * 4;
    for (int64_t first = 0; first < plan->p->k; first += depth) {
        const int64_t k = qp_min_i64(depth, plan->p->k - first);
        pack(plan->p, lane, t, first, k);
        multiply(plan, lane, t, 0, t->m, first, k);
    }
    write_rows(plan->p, lane, t, 0, t->m, STRIP);
}

static void run_parts(const plan_t *plan, const lane_t *lane, const tile_t *t)
{
    for (int64_t i = 0; i < t->m; i += PART) {
        const int64_t m = qp_min_i64(PART, t->m - i);
        multiply(plan, lane, t, i, m, 0, plan->p->k);
        write_rows(plan->p, lane, t, i, m, STRIP);
    }
}

/* --- by oneDNN -------------------------------------------------------------------------------- */

static qp_error_t run_dnnl(const plan_t *plan, int thread, const lane_t *lane, const tile_t *t)
{
    const void *a = qp_cpu_at(&plan->a, t->row, 0);
    if (t->m % QP_CPU_ROUND != 0) {
        memcpy(lane->rows, a, (size_t)t->m * plan->row_bytes);
        memset(lane->rows + (size_t)t->m * plan->row_bytes, 0,
               (size_t)(QP_CPU_ROUND - t->m) * plan->row_bytes);
        a = lane->rows;
    }
    QP_TRY(
        qp_cpu_gemm_run(plan->gemm[t->row_kind][t->col_kind], thread, a, lane->strip, lane->tile));
    write_rows(plan->p, lane, t, 0, t->m, t->n);
    return NULL;
}

/* --- tasks ------------------------------------------------------------------------------------ */

static qp_error_t run_task(const plan_t *plan, int thread, const lane_t *lane, int64_t strip,
                           int64_t group)
{
    const qp_cpu_matmul_t *p = plan->p;
    tile_t t = {.col_kind = qp_cpu_cut_kind(&plan->strips, strip), .col = strip * STRIP};
    t.n = plan->strips.size[t.col_kind];
    const bool few = p->c.n_row <= PART && !qp_cpu_by_dnnl(p->device, p->dtype);
    if (!few)
        pack(p, lane, &t, 0, p->k);
    const int64_t end = qp_min_i64((group + 1) * plan->group, plan->rows.n_piece);
    for (int64_t piece = group * plan->group; piece < end; piece++) {
        t.row_kind = qp_cpu_cut_kind(&plan->rows, piece);
        t.row = qp_cpu_cut_first(&plan->rows, piece);
        t.m = plan->rows.size[t.row_kind];
        if (qp_cpu_by_dnnl(p->device, p->dtype))
            QP_TRY(run_dnnl(plan, thread, lane, &t));
        else
            (few ? run_few : run_parts)(plan, lane, &t);
    }
    return NULL;
}

qp_error_t qp_cpu_matmul_rows(const qp_cpu_matmul_t *p)
{
    qp_cpu_device_t *device = p->device;
    plan_t plan = {.p = p,
                   .a = qp_cpu_matmul_cast(p, QP_SCRATCH_CAST_A, p->a),
                   .strips = qp_cpu_cut_coarse(p->c.n_col, STRIP),
                   .row_bytes = qp_bytes(p->k, qp_dtype_bytes(p->dtype))};
    const bool by_dnnl = qp_cpu_by_dnnl(device, p->dtype);
    plan.rows =
        by_dnnl ? qp_cpu_cut(p->c.n_row, QP_CPU_ROWS) : qp_cpu_cut_coarse(p->c.n_row, QP_CPU_ROWS);
    plan.group = qp_min_i64(GROUP, plan.rows.n_piece * plan.strips.n_piece /
                                       ((int64_t)TASKS * device->n_thread));
    plan.group = plan.group > 0 ? plan.group : 1;
    plan.n_group = (plan.rows.n_piece + plan.group - 1) / plan.group;
    if (by_dnnl)
        QP_TRY(get_products(&plan));
    plan.lane_bytes = qp_cpu_matmul_lane_bytes(device, p->dtype, p->k);
    plan.lanes =
        qp_cpu_scratch(device, QP_SCRATCH_TILE, (size_t)device->n_thread * plan.lane_bytes);
    const int64_t n_task = plan.n_group * plan.strips.n_piece;
    qp_error_t error = NULL;
#pragma omp parallel num_threads(device->n_thread) if (n_task > 1)
    {
        const int thread = omp_get_thread_num();
        lane_t lane;
        carve_lane(&lane, device, p->dtype, p->k, plan.lanes + (size_t)thread * plan.lane_bytes);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < n_task; task++)
            qp_cpu_keep_error(&error, run_task(&plan, thread, &lane, task % plan.strips.n_piece,
                                               task / plan.strips.n_piece));
    }
    return error;
}
