/* Rows: look-up, gathering, gradient of RMS norm, scaled addition and casts. */
#include "compute/cpu/cpu.h"
#include "compute/cpu/rows/math.h"

#include <math.h>

QP_CPU_CLONES void qp_cpu_convert(void *to, qp_dtype_t to_dtype, const void *from,
                                  qp_dtype_t from_dtype, int64_t n)
{
    if (to_dtype == from_dtype) {
        memcpy(to, from, (size_t)n * qp_dtype_bytes(to_dtype));
        return;
    }
    float x[QP_CPU_CHUNK];
    for (int64_t i = 0; i < n; i += QP_CPU_CHUNK) {
        int64_t m = qp_min_i64(n - i, QP_CPU_CHUNK);
        qp_cpu_load(x, from_dtype, (const char *)from + (size_t)i * qp_dtype_bytes(from_dtype), m);
        qp_cpu_store((char *)to + (size_t)i * qp_dtype_bytes(to_dtype), to_dtype, x, m);
    }
}

/* Rows of negative numbers are zero if that is allowed. */
static void gather(qp_queue_t *q, qp_mat_t out, qp_mat_t in, qp_dptr_t index, bool none_allowed)
{
    QP_ASSERT(out.n_col == in.n_col);
    const int32_t *row = qp_cpu_i32(index);
#pragma omp parallel for num_threads(qp_cpu_threads(q, out.n_row *out.n_col))
    for (int64_t i = 0; i < out.n_row; i++) {
        QP_ASSERT((none_allowed || row[i] >= 0) && row[i] < in.n_row);
        void *to = qp_cpu_at(&out, i, 0);
        if (row[i] >= 0)
            qp_cpu_convert(to, out.dtype, qp_cpu_at(&in, row[i], 0), in.dtype, out.n_col);
        else
            memset(to, 0, qp_bytes(out.n_col, qp_dtype_bytes(out.dtype)));
    }
}

qp_error_t qp_cpu_gather_rows(qp_queue_t *q, qp_mat_t out, qp_mat_t in, qp_dptr_t index)
{
    gather(q, out, in, index, false);
    return NULL;
}

QP_CPU_CLONES static void combine_row(const qp_mat_t *x, int64_t row, const float *scale,
                                      const float *shift, const float *restrict w)
{
    float f[QP_CPU_CHUNK];
    for (int64_t i = 0; i < x->n_col; i += QP_CPU_CHUNK) {
        const int64_t n = qp_min_i64(x->n_col - i, QP_CPU_CHUNK);
        memset(f, 0, sizeof f);
        if (scale != NULL)
            qp_cpu_load(f, x->dtype, qp_cpu_at(x, row, i), n);
        for (int64_t j = 0; scale != NULL && j < n; j++)
            f[j] *= scale[row];
        for (int64_t j = 0; shift != NULL && j < n; j++)
            f[j] += shift[row] * w[i + j];
        qp_cpu_store(qp_cpu_at(x, row, i), x->dtype, f, n);
    }
}

qp_error_t qp_cpu_combine_rows(qp_queue_t *q, qp_mat_t x, qp_dptr_t scale, qp_dptr_t shift,
                               qp_dptr_t w)
{
#pragma omp parallel for num_threads(qp_cpu_threads(q, x.n_row *x.n_col))
    for (int64_t row = 0; row < x.n_row; row++)
        combine_row(&x, row, qp_cpu_f32(scale), qp_cpu_f32(shift), qp_cpu_f32(w));
    return NULL;
}

qp_error_t qp_cpu_embed(qp_queue_t *q, qp_mat_t out, qp_mat_t table, qp_dptr_t token)
{
    gather(q, out, table, token, true);
    return NULL;
}

/* --- gradient of RMS norm --------------------------------------------------------------------- */

typedef struct {
    qp_mat_t dx, dy, x;
    const float *rstd, *weight;
    bool accumulate;
} rmsnorm_backward_t;

/* dx = rstd (g - x rstd^2 mean(g x)) with g = dy * weight. */
QP_CPU_CLONES static void rmsnorm_backward_row(const rmsnorm_backward_t *b, int64_t row)
{
    float g[QP_CPU_CHUNK], x[QP_CPU_CHUNK], dot = 0.0f;
    const float *restrict weight = b->weight;
    int64_t n = b->x.n_col;
    for (int64_t i = 0; i < n; i += QP_CPU_CHUNK) {
        int64_t m = qp_min_i64(n - i, QP_CPU_CHUNK);
        qp_cpu_load(g, b->dy.dtype, qp_cpu_at(&b->dy, row, i), m);
        qp_cpu_load(x, b->x.dtype, qp_cpu_at(&b->x, row, i), m);
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < m; j++)
            dot += g[j] * weight[i + j] * x[j];
    }
    float rstd = b->rstd[row], slope = rstd * rstd * rstd * dot / (float)n;
    for (int64_t i = 0; i < n; i += QP_CPU_CHUNK) {
        int64_t m = qp_min_i64(n - i, QP_CPU_CHUNK);
        qp_cpu_load(g, b->dy.dtype, qp_cpu_at(&b->dy, row, i), m);
        qp_cpu_load(x, b->x.dtype, qp_cpu_at(&b->x, row, i), m);
        for (int64_t j = 0; j < m; j++)
            g[j] = g[j] * weight[i + j] * rstd - x[j] * slope;
        if (b->accumulate)
            qp_cpu_add(qp_cpu_at(&b->dx, row, i), b->dx.dtype, g, m);
        else
            qp_cpu_store(qp_cpu_at(&b->dx, row, i), b->dx.dtype, g, m);
    }
}

qp_error_t qp_cpu_rmsnorm_backward(qp_queue_t *q, qp_mat_t dx, qp_mat_t dy, qp_mat_t x,
                                   qp_dptr_t rstd, qp_dptr_t weight, bool accumulate)
{
    QP_ASSERT(dx.n_row == x.n_row && dx.n_col == x.n_col);
    QP_ASSERT(dy.n_row == x.n_row && dy.n_col == x.n_col);
    rmsnorm_backward_t b = {dx, dy, x, qp_cpu_f32(rstd), qp_cpu_f32(weight), accumulate};
#pragma omp parallel for num_threads(qp_cpu_threads(q, x.n_row *x.n_col))
    for (int64_t t = 0; t < x.n_row; t++)
        rmsnorm_backward_row(&b, t);
    return NULL;
}

/* --- y = alpha x + beta y --------------------------------------------------------------------- */

typedef struct {
    qp_mat_t x, y;
    float alpha, beta;
} axpby_t;

/* One chunk of one row; y is not read when beta is 0. */
QP_CPU_CLONES static void axpby_chunk(const axpby_t *a, int64_t row, int64_t first)
{
    float x[QP_CPU_CHUNK], y[QP_CPU_CHUNK];
    int64_t n = qp_min_i64(a->x.n_col - first, QP_CPU_CHUNK);
    void *to = qp_cpu_at(&a->y, row, first);
    qp_cpu_load(x, a->x.dtype, qp_cpu_at(&a->x, row, first), n);
    if (a->beta == 0.0f) {
        for (int64_t i = 0; i < n; i++)
            y[i] = a->alpha * x[i];
    } else {
        qp_cpu_load(y, a->y.dtype, to, n);
        for (int64_t i = 0; i < n; i++)
            y[i] = a->alpha * x[i] + a->beta * y[i];
    }
    qp_cpu_store(to, a->y.dtype, y, n);
}

qp_error_t qp_cpu_axpby(qp_queue_t *q, float alpha, qp_mat_t x, float beta, qp_mat_t y)
{
    QP_ASSERT(x.n_row == y.n_row && x.n_col == y.n_col);
    axpby_t a = {x, y, alpha, beta};
#pragma omp parallel for collapse(2) num_threads(qp_cpu_threads(q, x.n_row *x.n_col))
    for (int64_t row = 0; row < x.n_row; row++)
        for (int64_t first = 0; first < x.n_col; first += QP_CPU_CHUNK)
            axpby_chunk(&a, row, first);
    return NULL;
}
