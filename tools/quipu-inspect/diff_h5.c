#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/minmax.h"
#include "formats/convert.h"
#include "inspect.h"

/* Bytes compared at once. */
static const int64_t PIECE_BYTES = (int64_t)16 << 20;

typedef struct {
    const qp_h5_t *a, *b;
    int64_t n_same, n_differ;
} diff_t;

/* --- numbers ---------------------------------------------------------------------------------- */

/* Sums over the elements of a data set. */
typedef struct {
    double max, difference2, norm2;
    int64_t n_differ;
} change_t;

static double element(qp_dtype_t dtype, const uint8_t *p)
{
#define QP_AS(type)              \
    {                            \
        type x;                  \
        memcpy(&x, p, sizeof x); \
        return (double)x;        \
    }
    float single;
    switch (dtype) {
    case QP_F64:
        QP_AS(double)
    case QP_I8:
        QP_AS(int8_t)
    case QP_U8:
        QP_AS(uint8_t)
    case QP_I32:
        QP_AS(int32_t)
    case QP_U32:
        QP_AS(uint32_t)
    case QP_I64:
        QP_AS(int64_t)
    case QP_U64:
        QP_AS(uint64_t)
    default:
        qp_convert_to_f32(dtype, p, 1, &single);
        return (double)single;
    }
#undef QP_AS
}

static void add_piece(qp_dtype_t dtype, const uint8_t *a, const uint8_t *b, int64_t n,
                      change_t *change)
{
    size_t bytes = qp_dtype_bytes(dtype);
    for (int64_t i = 0; i < n; i++, a += bytes, b += bytes) {
        double x = element(dtype, a), y = element(dtype, b), d = fabs(x - y);
        change->n_differ += memcmp(a, b, bytes) != 0;
        change->max = d > change->max ? d : change->max;
        change->difference2 += d * d;
        change->norm2 += x * x;
    }
}

static qp_error_t compare_values(const diff_t *diff, const char *name, const qp_h5_shape_t *shape,
                                 change_t *change)
{
    int64_t per_row = 1, bytes = (int64_t)qp_dtype_bytes(shape->dtype);
    for (int d = 1; d < shape->n_dim; d++)
        per_row *= shape->dim[d];
    int64_t piece = per_row > 0 ? PIECE_BYTES / (per_row * bytes) : 0;
    piece = piece > 0 ? piece : 1;
    uint8_t *a = qp_alloc("diff", qp_bytes(piece * per_row, (size_t)bytes));
    uint8_t *b = qp_alloc("diff", qp_bytes(piece * per_row, (size_t)bytes));
    qp_error_t error = NULL;
    for (int64_t first = 0; error == NULL && first < shape->dim[0]; first += piece) {
        int64_t left = shape->dim[0] - first, n_row = qp_min_i64(left, piece);
        error = qp_h5_read(diff->a, name, shape->dtype, first, n_row, a);
        if (error == NULL)
            error = qp_h5_read(diff->b, name, shape->dtype, first, n_row, b);
        if (error == NULL)
            add_piece(shape->dtype, a, b, n_row * per_row, change);
    }
    qp_free(a);
    qp_free(b);
    return error;
}

/* --- data sets and attributes ----------------------------------------------------------------- */

static qp_error_t compare_dataset(diff_t *diff, const char *name)
{
    qp_h5_shape_t a, b;
    change_t change = {0};
    QP_TRY(qp_h5_dataset_shape(diff->a, name, &a));
    QP_TRY(qp_h5_dataset_shape(diff->b, name, &b));
    bool comparable = a.dtype == b.dtype && a.n_dim == b.n_dim;
    for (int d = 0; comparable && d < a.n_dim; d++)
        comparable = a.dim[d] == b.dim[d];
    if (comparable)
        QP_TRY(compare_values(diff, name, &a, &change));
    if (comparable && change.n_differ == 0) {
        diff->n_same++;
        return NULL;
    }
    diff->n_differ++;
    if (!comparable)
        printf("%s: other type or shape\n", name);
    else
        printf("%s: %ld elements, max difference %.6g, relative %.3g\n", name,
               (long)change.n_differ, change.max,
               sqrt(change.difference2) / (sqrt(change.norm2) + 1e-300));
    return NULL;
}

static qp_error_t compare_datasets(diff_t *diff)
{
    char **name = NULL;
    int64_t n = 0;
    QP_TRY(qp_h5_list_datasets(diff->a, &name, &n));
    qp_error_t error = NULL;
    for (int64_t i = 0; error == NULL && i < n; i++) {
        if (qp_h5_exists(diff->b, name[i])) {
            error = compare_dataset(diff, name[i]);
        } else {
            printf("%s: only in %s\n", name[i], qp_h5_path(diff->a));
            diff->n_differ++;
        }
    }
    qp_h5_list_free(&name, n);
    QP_TRY(error);
    QP_TRY(qp_h5_list_datasets(diff->b, &name, &n));
    for (int64_t i = 0; i < n; i++)
        if (!qp_h5_exists(diff->a, name[i])) {
            printf("%s: only in %s\n", name[i], qp_h5_path(diff->b));
            diff->n_differ++;
        }
    qp_h5_list_free(&name, n);
    return NULL;
}

static qp_error_t compare_attributes(diff_t *diff)
{
    for (const qp_root_attribute_t *attribute = qp_root_attributes; attribute->name != NULL;
         attribute++) {
        char *a = NULL, *b = NULL;
        qp_error_t error = qp_root_attribute_text(diff->a, attribute, &a);
        if (error == NULL)
            error = qp_root_attribute_text(diff->b, attribute, &b);
        if (error == NULL && (a != NULL || b != NULL) &&
            (a == NULL || b == NULL || strcmp(a, b) != 0)) {
            printf("%s: %s, %s\n", attribute->name, a != NULL ? a : "(none)",
                   b != NULL ? b : "(none)");
            diff->n_differ++;
        }
        qp_free(a);
        qp_free(b);
        QP_TRY(error);
    }
    return NULL;
}

qp_error_t qp_diff_h5(const char *path_a, const char *path_b, bool *same)
{
    qp_h5_t *a = NULL, *b = NULL;
    *same = false;
    qp_error_t error = qp_h5_open(path_a, NULL, &a);
    if (error == NULL)
        error = qp_h5_open(path_b, NULL, &b);
    diff_t diff = {.a = a, .b = b};
    if (error == NULL)
        error = compare_attributes(&diff);
    if (error == NULL)
        error = compare_datasets(&diff);
    for (int i = 0; i < 2; i++) { /* both were only read */
        qp_h5_t **file = i == 0 ? &a : &b;
        qp_error_t closing = *file != NULL ? qp_h5_close(file) : NULL;
        qp_error_destroy(&closing);
    }
    if (error == NULL) {
        *same = diff.n_differ == 0;
        printf("%s: %ld data sets are equal, %ld differences\n", *same ? "same" : "different",
               (long)diff.n_same, (long)diff.n_differ);
    }
    return error;
}
