#include <math.h>

#include "base/mem.h"
#include "base/minmax.h"
#include "import/source.h"

typedef struct {
    double change, max_change, weight; /* sums and maximum of absolute values */
    int64_t n;
} sums_t;

static void add_piece(const float *exact, const float *written, int64_t n, sums_t *sums)
{
    double change = 0.0, weight = 0.0, max = 0.0;
#pragma omp parallel for schedule(static) reduction(+ : change, weight) reduction(max : max)
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)written[i] - (double)exact[i]);
        change += d;
        weight += fabs((double)exact[i]);
        max = d > max ? d : max;
    }
    sums->change += change;
    sums->weight += weight;
    sums->max_change = max > sums->max_change ? max : sums->max_change;
    sums->n += n;
}

static qp_error_t compare_tensor(qp_source_t *exact, qp_source_t *written, int64_t index,
                                 const qp_tensor_spec_t *spec, float *a, float *b, sums_t *sums)
{
    int64_t piece = qp_source_piece(spec);
    for (int64_t first = 0; first < spec->n_row; first += piece) {
        int64_t left = spec->n_row - first, n_row = qp_min_i64(left, piece);
        QP_TRY(qp_source_rows(exact, index, first, n_row, a));
        QP_TRY(qp_source_rows(written, index, first, n_row, b));
        add_piece(a, b, n_row * spec->n_col, sums);
    }
    return NULL;
}

qp_error_t qp_source_rounding(qp_source_t *exact, qp_source_t *written, qp_rounding_t *rounding)
{
    int64_t n_spec, n = qp_source_piece_max(exact);
    const qp_tensor_spec_t *spec = qp_source_tensors(exact, &n_spec);
    float *a = QP_NEW("rounding", float, n), *b = QP_NEW("rounding", float, n);
    sums_t sums = {0};
    qp_error_t error = NULL;
    for (int64_t i = 0; error == NULL && i < n_spec; i++)
        if (spec[i].tensor_class == QP_TENSOR_LINEAR)
            error = compare_tensor(exact, written, i, &spec[i], a, b, &sums);
    double count = sums.n > 0 ? (double)sums.n : 1.0;
    *rounding = (qp_rounding_t){sums.change / count, sums.max_change, sums.weight / count};
    qp_free(a);
    qp_free(b);
    return error;
}
