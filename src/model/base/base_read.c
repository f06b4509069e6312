#include "model/base/base_read.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"

/* A data set of the file. */
typedef struct {
    char name[QP_BASE_MAX_NAME + 16];
    qp_base_set_t set;
    qp_dtype_t dtype;
    int64_t n_row, n_col;
    bool is_vector; /* fp32, whose numbers are checked: a norm, scales, biases */
} data_set_t;

static qp_error_t check_shape(const qp_base_reader_t *reader, const data_set_t *set)
{
    qp_h5_shape_t shape;
    QP_TRY(qp_h5_dataset_shape(reader->file, set->name, &shape));
    const int64_t found_cols = shape.n_dim == 2 ? shape.dim[1] : 1;
    if (shape.dtype == set->dtype && (shape.n_dim == 1 || shape.n_dim == 2) &&
        shape.dim[0] == set->n_row && found_cols == set->n_col)
        return NULL;
    return QP_ERROR(QP_INPUT, "%s: %s: found %s [%lld, %lld], expected %s [%lld, %lld]",
                    qp_h5_path(reader->file), set->name, qp_dtype_name(shape.dtype),
                    (long long)shape.dim[0], (long long)found_cols, qp_dtype_name(set->dtype),
                    (long long)set->n_row, (long long)set->n_col);
}

static qp_error_t check_sum(const qp_base_reader_t *reader, const data_set_t *set)
{
    const uint64_t found = qp_hash_value(reader->hash[set->set]);
    uint64_t expected = 0;
    QP_TRY(qp_h5_checksum_get(reader->file, set->name, &expected));
    if (found == expected)
        return NULL;
    return QP_ERROR(QP_INPUT, "%s: %s: checksum is %016llx, expected %016llx: the file is damaged",
                    qp_h5_path(reader->file), set->name, (unsigned long long)found,
                    (unsigned long long)expected);
}

/* Elements [first, first + n) of a vector must be finite, and not negative where they are scales.
 */
static qp_error_t check_vector(const qp_base_reader_t *reader, const data_set_t *set, int64_t first,
                               int64_t n, const float *value)
{
    const bool is_scale = set->set == QP_BASE_SCALES;
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(value[i]) || (is_scale && value[i] < 0.0f))
            return QP_ERROR(QP_INPUT, "%s: %s: element %lld is %g, expected a finite %s",
                            qp_h5_path(reader->file), set->name, (long long)(first + i),
                            (double)value[i], is_scale ? "scale >= 0" : "number");
    return NULL;
}

/* Rows [first, first + n) of a data set. */
static qp_error_t read_rows(qp_base_reader_t *reader, const data_set_t *set, int64_t first,
                            int64_t n, void *to)
{
    const size_t bytes = qp_bytes(n * set->n_col, qp_dtype_bytes(set->dtype));
    qp_hash_t **hash = &reader->hash[set->set];
    if (first == 0) {
        QP_TRY(check_shape(reader, set));
        if (*hash != NULL)
            qp_hash_destroy(hash);
        *hash = qp_hash_create();
    }
    QP_TRY(qp_h5_read(reader->file, set->name, set->dtype, first, n, to));
    reader->n_bytes += (int64_t)bytes;
    qp_hash_update(*hash, to, bytes);
    if (first + n == set->n_row)
        QP_TRY(check_sum(reader, set));
    return set->is_vector ? check_vector(reader, set, first, n, to) : NULL;
}

/* Rows [first, first + n) of a tensor of the piece's item, which are the piece's from \a row on. */
static qp_error_t read_tensor(qp_base_reader_t *reader, const qp_base_piece_t *piece, int tensor,
                              int64_t first, int64_t n, int64_t row, char *to)
{
    static const char *const suffix[QP_BASE_N_SET] = {".weight", ".weight_scale", ".bias"};
    const qp_base_item_t *item = piece->item;
    const size_t offset[QP_BASE_N_SET] = {0, piece->scale, piece->bias};
    for (int s = QP_BASE_ROWS; s < QP_BASE_N_SET; s++) {
        const bool is_rows = s == QP_BASE_ROWS;
        if (!is_rows && offset[s] == 0)
            continue;
        data_set_t set = {.set = (qp_base_set_t)s,
                          .dtype = is_rows ? item->dtype : QP_F32,
                          .n_row = item->tensor[tensor].n_row,
                          .n_col = is_rows ? item->n_col : 1,
                          .is_vector = !is_rows || (item->weight == NULL && item->n_col == 1)};
        snprintf(set.name, sizeof set.name, "%s%s", item->tensor[tensor].name, suffix[s]);
        QP_TRY(read_rows(reader, &set, first, n,
                         to + offset[s] + qp_bytes(row * set.n_col, qp_dtype_bytes(set.dtype))));
    }
    return NULL;
}

qp_error_t qp_base_read_piece(qp_base_reader_t *reader, const qp_base_piece_t *piece, void *to)
{
    int64_t before = 0; /* rows of the item in the tensors above */
    for (int t = 0; t < piece->item->n_tensor; t++) {
        const int64_t n_row = piece->item->tensor[t].n_row;
        int64_t first = piece->first - before, end = first + piece->n_row;
        first = first > 0 ? first : 0;
        end = end < n_row ? end : n_row;
        if (first < end)
            QP_TRY(read_tensor(reader, piece, t, first, end - first, before + first - piece->first,
                               to));
        before += n_row;
    }
    return NULL;
}

void qp_base_reader_fini(qp_base_reader_t *reader)
{
    for (int s = 0; s < QP_BASE_N_SET; s++)
        if (reader->hash[s] != NULL)
            qp_hash_destroy(&reader->hash[s]);
}
