#include "compute/cpu/linear/linear.h"

#include "compute/cpu/rows/input.h"
#include "compute/cpu/rows/math.h"
#include "compute/cpu/rows/quantise.h"
#include "compute/cpu/gemm/tile.h"

/* --- outlier columns of LLM.int8 -------------------------------------------------------------- */

QP_CPU_CLONES static void mark_outliers(uint8_t *restrict mark, const float *restrict x, int64_t n,
                                        float threshold)
{
    for (int64_t i = 0; i < n; i++)
        mark[i] |= (uint8_t)(x[i] >= threshold || x[i] <= -threshold);
}

static size_t list_bytes(int64_t k)
{
    return qp_cpu_round64(qp_bytes(k, sizeof(int32_t)));
}

/* Room for all columns: how many there are changes from batch to batch. */
static size_t outlier_bytes(int64_t n_row, int64_t k, qp_dtype_t dtype)
{
    return list_bytes(k) + qp_cpu_round64(qp_bytes(n_row * k, qp_dtype_bytes(dtype)));
}

static size_t mark_bytes_of(int64_t k)
{
    return qp_cpu_round64((size_t)k);
}

/* Lists the marked columns and makes room for the thin matrix. */
static void list_outliers(qp_cpu_linear_t *l, const uint8_t *marks, size_t mark_bytes)
{
    l->thin_dtype = qp_device_dtype(&l->device->base);
    char *at =
        qp_cpu_scratch(l->device, QP_SCRATCH_OUTLIER, outlier_bytes(l->n_row, l->k, l->thin_dtype));
    int32_t *outlier = qp_cpu_carve(&at, list_bytes(l->k));
    for (int64_t i = 0; i < l->k; i++) {
        bool any = false;
        for (int t = 0; t < l->device->n_thread; t++)
            any = any || marks[(size_t)t * mark_bytes + (size_t)i] != 0;
        if (any)
            outlier[l->n_outlier++] = (int32_t)i;
    }
    l->outlier = outlier;
    l->thin = at;
}

/**
 * Finds the columns of x where any row of this batch has an outlier (doc/numerics.md: the batch
 * decides, as in bitsandbytes), and takes them out as a thin matrix.
 */
static void find_outliers(qp_cpu_linear_t *l)
{
    const int64_t n_thread = l->device->n_thread;
    const float threshold = l->w->mode.outlier_threshold;
    const size_t mark_bytes = mark_bytes_of(l->k);
    char *marks = qp_cpu_scratch(l->device, QP_SCRATCH_TILE, (size_t)n_thread * mark_bytes);
    memset(marks, 0, (size_t)n_thread * mark_bytes);
    qp_input_t x = *l->x;
    x.copy.data = (qp_dptr_t){0}; /* made once, by qp_cpu_linear_prepare() */
#pragma omp parallel for num_threads(l->device->n_thread)
    for (int64_t r = 0; r < l->n_row; r++) {
        const size_t thread = (size_t)omp_get_thread_num();
        float *row = (float *)(l->rows + thread * l->row_bytes);
        qp_cpu_input_row(&x, r, row);
        mark_outliers((uint8_t *)marks + thread * mark_bytes, row, l->k, threshold);
    }
    list_outliers(l, (uint8_t *)marks, mark_bytes);
}

/* --- rows in the type of the product ---------------------------------------------------------- */

/* Outlier columns of a row leave q for the thin matrix. */
static void split_outliers(const qp_cpu_linear_t *l, uint8_t *q, float *row, int64_t r)
{
    char *out = (char *)l->thin + (size_t)(r * l->n_outlier) * qp_dtype_bytes(l->thin_dtype);
    for (int64_t j = 0; j < l->n_outlier; j++) {
        q[l->outlier[j]] = 128;
        row[j] = row[l->outlier[j]]; /* in place: column j never stands before input j */
    }
    qp_cpu_convert(out, l->thin_dtype, row, QP_F32, l->n_outlier);
}

void qp_cpu_linear_prepare(const qp_cpu_linear_t *l, int thread, int64_t r)
{
    const qp_cpu_weight_t *w = l->w;
    const int64_t n = qp_input_n_col(l->x), width = (int64_t)qp_dtype_bytes(l->dtype);
    float *row = (float *)(l->rows + (size_t)thread * l->row_bytes);
    char *to = (char *)l->a + r * l->lda * width;
    qp_cpu_input_row(l->x, r, row);
    if (!l->backward && w->kind == QP_WEIGHT_INT8)
        qp_cpu_hadamard(row, n, qp_hadamard_block(n));
    if (l->backward && qp_cpu_weight_is_int8(w))
        qp_cpu_scale(row, qp_cpu_f32(w->scale), n);
    memset(to + n * width, 0, (size_t)((l->k - n) * width));
    if (l->dtype != QP_U8) {
        qp_cpu_convert(to, l->dtype, row, QP_F32, n);
        return;
    }
    const float absmax = w->kind == QP_WEIGHT_LLM_INT8
                             ? qp_cpu_absmax_below(row, n, w->mode.outlier_threshold)
                             : qp_cpu_absmax(row, n);
    l->row_scale[r] = qp_cpu_quantise((uint8_t *)to, row, n, absmax);
    if (l->n_outlier > 0)
        split_outliers(l, (uint8_t *)to, row, r);
}

void qp_cpu_linear_prepare_all(qp_cpu_linear_t *l)
{
    QP_ASSERT(l->prepared);
#pragma omp parallel for num_threads(l->device->n_thread)
    for (int64_t r = 0; r < l->n_row; r++)
        qp_cpu_linear_prepare(l, omp_get_thread_num(), r);
    l->prepared = false;
}

static size_t activation_bytes(int64_t n_row, int64_t k, qp_dtype_t dtype)
{
    return qp_bytes(qp_cpu_round_rows(n_row) * k, qp_dtype_bytes(dtype));
}

static size_t row_scale_bytes(int64_t n_row)
{
    return qp_bytes(n_row, sizeof(float));
}

/* Memory for the prepared rows. */
static void take_scratch(qp_cpu_linear_t *l)
{
    l->prepared = true;
    l->lda = l->k;
    l->zero_point = 128;
    l->a = qp_cpu_scratch(l->device, QP_SCRATCH_ACTIVATION,
                          activation_bytes(l->n_row, l->k, l->dtype));
    l->row_scale = qp_cpu_scratch(l->device, QP_SCRATCH_ROW_SCALE, row_scale_bytes(l->n_row));
    l->row_bytes = qp_cpu_row_bytes(l->k);
    l->rows =
        qp_cpu_scratch(l->device, QP_SCRATCH_ROWS, (size_t)l->device->n_thread * l->row_bytes);
}

/* Weights in fp32 are multiplied in fp32, others in what the device computes or in whole numbers.
 */
void qp_cpu_linear_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                           qp_cpu_scratch_need_t *need)
{
    const qp_dtype_t thin = qp_device_dtype(&device->base);
    const qp_dtype_t dtype = size->weight == QP_WEIGHT_F32 ? QP_F32 : thin;
    const int64_t n = size->n_token, k = size->widest;
    const size_t n_thread = (size_t)device->n_thread;
    const bool outliers = size->weight == QP_WEIGHT_LLM_INT8;
    qp_cpu_need(need, QP_SCRATCH_ACTIVATION, activation_bytes(n, k, dtype));
    qp_cpu_need(need, QP_SCRATCH_ROW_SCALE, row_scale_bytes(n));
    qp_cpu_need(need, QP_SCRATCH_ROWS, n_thread * qp_cpu_row_bytes(k));
    qp_cpu_need(need, QP_SCRATCH_TILE,
                n_thread * qp_cpu_linear_lane_bytes(dtype, k, thin, outliers ? k : 0));
    if (outliers) {
        qp_cpu_need(need, QP_SCRATCH_OUTLIER, outlier_bytes(n, k, thin));
        qp_cpu_need(need, QP_SCRATCH_TILE, n_thread * mark_bytes_of(k));
    }
}

/* --- the slots -------------------------------------------------------------------------------- */

qp_dtype_t qp_cpu_linear_dtype(const qp_cpu_device_t *device, const qp_cpu_weight_t *w,
                               bool backward)
{
    if (w->kind == QP_WEIGHT_F32)
        return QP_F32;
    const bool int8 = backward ? w->kind == QP_WEIGHT_INT8 && w->mode.int8_gradient
                               : qp_cpu_weight_is_int8(w) && w->mode.int8_activation;
    return int8 ? QP_U8 : qp_device_dtype(&device->base);
}

void qp_cpu_linear_init(qp_cpu_linear_t *l, qp_cpu_device_t *device, const qp_cpu_weight_t *w,
                        const qp_input_t *x, bool backward)
{
    *l = (qp_cpu_linear_t){.device = device,
                           .w = w,
                           .backward = backward,
                           .n_row = x->x.n_row,
                           .n_col = backward ? w->n_in : w->n_out,
                           .k = qp_cpu_weight_depth(device, w, backward),
                           .x = x,
                           .dtype = qp_cpu_linear_dtype(device, w, backward),
                           .a = qp_cpu_pointer(x->x.data),
                           .lda = x->x.ld};
    QP_ASSERT(qp_input_n_col(x) == (backward ? w->n_out : w->n_in));
    if (x->kind != QP_INPUT_PLAIN || !qp_dptr_is_null(x->copy.data) || x->x.dtype != l->dtype ||
        qp_cpu_weight_is_int8(w) || qp_cpu_by_dnnl(device, l->dtype))
        take_scratch(l);
}

static qp_error_t linear(qp_queue_t *q, qp_mat_t y, const qp_input_t *x, const qp_weight_t *weight,
                         qp_mat_t add, bool backward)
{
    const qp_cpu_weight_t w = qp_cpu_weight(weight);
    QP_ASSERT(qp_dptr_is_null(add.data) || (add.n_row == y.n_row && add.n_col == y.n_col));
    if (x->x.n_row == 0)
        return NULL;
    qp_cpu_linear_t l;
    qp_cpu_linear_init(&l, qp_cpu_device(q), &w, x, backward);
    QP_ASSERT(y.n_col == l.n_col && y.n_row == l.n_row);
    l.y = y;
    l.add = add;
    if (w.kind == QP_WEIGHT_LLM_INT8 && l.dtype == QP_U8)
        find_outliers(&l);
    return qp_cpu_linear_product(&l);
}

qp_error_t qp_cpu_linear_forward(qp_queue_t *q, qp_mat_t y, const qp_input_t *x,
                                 const qp_weight_t *w, qp_mat_t add)
{
    return linear(q, y, x, w, add, false);
}

qp_error_t qp_cpu_linear_backward(qp_queue_t *q, qp_mat_t dx, const qp_input_t *dy,
                                  const qp_weight_t *w, qp_mat_t add)
{
    return linear(q, dx, dy, w, add, true);
}
