/* Data sets: creation, shape, rows in and out. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/minmax.h"
#include "base/activity.h"
#include "h5/h5_impl.h"

/* One transfer moves at most this much (MPI-IO counts bytes in an int). */
static const int64_t PIECE_BYTES = (int64_t)1 << 30;

/* Stored types; bf16 and fp16 are uint16 with the attribute "dtype". */
static hid_t stored_type(qp_dtype_t dtype)
{
    const hid_t types[QP_N_DTYPE] = {
        [QP_F32] = H5T_IEEE_F32LE, [QP_BF16] = H5T_STD_U16LE, [QP_F16] = H5T_STD_U16LE,
        [QP_F64] = H5T_IEEE_F64LE, [QP_I8] = H5T_STD_I8LE,    [QP_U8] = H5T_STD_U8LE,
        [QP_I32] = H5T_STD_I32LE,  [QP_U32] = H5T_STD_U32LE,  [QP_I64] = H5T_STD_I64LE,
        [QP_U64] = H5T_STD_U64LE,
    };
    QP_ASSERT(dtype < QP_N_DTYPE);
    return types[dtype];
}

static bool is_half(qp_dtype_t dtype)
{
    return dtype == QP_BF16 || dtype == QP_F16;
}

/* Allocates the disk blocks now: a full disk is an error here, not after hours of writing. */
static qp_error_t reserve(const qp_h5_t *file, const char *name, hid_t set)
{
    haddr_t start = H5Dget_offset(set);
    if (start == HADDR_UNDEF)
        return NULL; /* empty */
    int fd = open(file->path, O_RDWR | O_CLOEXEC);
    qp_error_t error = NULL;
    off_t end = (off_t)(start + H5Dget_storage_size(set));
    if (fd < 0 || (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, end) != 0 && errno != EOPNOTSUPP))
        error = QP_ERROR(QP_IO, "%s: no room for %s: %s", file->path, name, strerror(errno));
    if (fd >= 0)
        close(fd);
    return error;
}

static qp_error_t create_contiguous(qp_h5_t *file, const char *name, const qp_h5_shape_t *shape)
{
    hid_t space = -1, links = -1, creation = -1, set = -1;
    hsize_t dim[QP_H5_MAX_DIM];
    QP_ASSERT(shape->n_dim >= 1 && shape->n_dim <= QP_H5_MAX_DIM);
    for (int i = 0; i < shape->n_dim; i++) {
        QP_ASSERT(shape->dim[i] >= 0);
        dim[i] = (hsize_t)shape->dim[i];
    }
    qp_error_t error;
    QP_TRY_DONE(QP_H5(file, name, space = H5Screate_simple(shape->n_dim, dim, NULL)));
    QP_TRY_DONE(QP_H5(file, name, links = H5Pcreate(H5P_LINK_CREATE)));
    QP_TRY_DONE(QP_H5(file, name, H5Pset_create_intermediate_group(links, 1)));
    QP_TRY_DONE(QP_H5(file, name, creation = H5Pcreate(H5P_DATASET_CREATE)));
    QP_TRY_DONE(QP_H5(file, name, H5Pset_layout(creation, H5D_CONTIGUOUS)));
    QP_TRY_DONE(QP_H5(file, name, H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY)));
    QP_TRY_DONE(QP_H5(file, name, H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER)));
    QP_TRY_DONE(QP_H5(file, name,
                      set = H5Dcreate2(file->id, name, stored_type(shape->dtype), space, links,
                                       creation, H5P_DEFAULT)));
    error = reserve(file, name, set);
done:
    error = qp_h5_release(file, name, set, error);
    error = qp_h5_release(file, name, creation, error);
    error = qp_h5_release(file, name, links, error);
    return qp_h5_release(file, name, space, error);
}

static qp_error_t create_set(qp_h5_t *file, const char *name, const qp_h5_shape_t *shape)
{
    QP_TRY(create_contiguous(file, name, shape));
    if (is_half(shape->dtype))
        QP_TRY(qp_h5_attr_store_str(file, name, "dtype", qp_dtype_name(shape->dtype)));
    return qp_h5_latched(file, NULL);
}

qp_error_t qp_h5_dataset_create(qp_h5_t *file, const char *name, const qp_h5_shape_t *shape)
{
    QP_H5_LOCKED();
    QP_TRY(qp_h5_enter_structure(file));
    return qp_h5_agree(file, qp_h5_is_builder(file) ? create_set(file, name, shape) : NULL);
}

static qp_error_t read_dtype(const qp_h5_t *file, const char *name, hid_t set, qp_dtype_t *dtype)
{
    hid_t type = -1;
    char *half = NULL;
    qp_error_t error;
    *dtype = QP_N_DTYPE;
    QP_TRY_DONE(QP_H5(file, name, type = H5Dget_type(set)));
    if (qp_h5_attr_exists(file, name, "dtype"))
        QP_TRY_DONE(qp_h5_attr_get_str(file, name, "dtype", &half));
    for (int i = 0; i < QP_N_DTYPE; i++) {
        if (is_half((qp_dtype_t)i) &&
            (half == NULL || strcmp(half, qp_dtype_name((qp_dtype_t)i)) != 0))
            continue;
        if (H5Tequal(type, stored_type((qp_dtype_t)i)) > 0)
            *dtype = (qp_dtype_t)i;
    }
    if (*dtype == QP_N_DTYPE)
        error =
            QP_ERROR(QP_INPUT, "%s: %s: element type is none that Quipu knows", file->path, name);
done:
    qp_free(half);
    return qp_h5_release(file, name, type, error);
}

/* A damaged shape must not become an absurd allocation in the caller. */
static qp_error_t check_size(const qp_h5_t *file, const char *name, const qp_h5_shape_t *shape)
{
    int64_t n_bytes = (int64_t)qp_dtype_bytes(shape->dtype);
    bool overflow = false;
    for (int i = 0; i < shape->n_dim; i++)
        overflow |= shape->dim[i] < 0 || __builtin_mul_overflow(n_bytes, shape->dim[i], &n_bytes);
    if (overflow || (!file->writable && n_bytes > file->n_bytes))
        return QP_ERROR(QP_INPUT, "%s: %s: data set is larger than its file", file->path, name);
    return NULL;
}

static qp_error_t read_shape(const qp_h5_t *file, const char *name, hid_t set, qp_h5_shape_t *shape)
{
    hid_t space = -1;
    hsize_t dim[QP_H5_MAX_DIM];
    *shape = (qp_h5_shape_t){0};
    qp_error_t error;
    QP_TRY_DONE(read_dtype(file, name, set, &shape->dtype));
    QP_TRY_DONE(QP_H5(file, name, space = H5Dget_space(set)));
    QP_TRY_DONE(QP_H5(file, name, shape->n_dim = H5Sget_simple_extent_ndims(space)));
    if (shape->n_dim < 1 || shape->n_dim > QP_H5_MAX_DIM) {
        error = QP_ERROR(QP_INPUT, "%s: %s: %d dimensions, expected 1 to %d", file->path, name,
                         shape->n_dim, QP_H5_MAX_DIM);
        goto done;
    }
    QP_TRY_DONE(QP_H5(file, name, H5Sget_simple_extent_dims(space, dim, NULL)));
    for (int i = 0; i < shape->n_dim; i++)
        shape->dim[i] = (int64_t)dim[i];
    error = check_size(file, name, shape);
done:
    return qp_h5_release(file, name, space, error);
}

static qp_error_t open_set(const qp_h5_t *file, const char *name, hid_t *set)
{
    int found;
    QP_TRY(QP_H5(file, name, found = qp_h5_lookup(file, name)));
    if (found == 0)
        return QP_ERROR(QP_INPUT, "%s: no data set %s", file->path, name);
    return QP_H5(file, name, *set = H5Dopen2(file->id, name, H5P_DEFAULT));
}

qp_error_t qp_h5_dataset_shape(const qp_h5_t *file, const char *name, qp_h5_shape_t *shape)
{
    QP_H5_LOCKED();
    hid_t set = -1;
    qp_error_t error = open_set(file, name, &set);
    if (error == NULL)
        error = read_shape(file, name, set, shape);
    return qp_h5_release(file, name, set, error);
}

/* One transfer of rows [first, first + n_row) of a data set. */
typedef struct {
    const qp_h5_t *file;
    const char *name;
    hid_t set, properties;
    qp_h5_shape_t shape;
    int64_t row_bytes;
    const void *from; /* writing: the source; may be NULL with no rows */
    void *to;         /* reading: the destination; may be NULL with no rows */
    bool writing;
} transfer_t;

static qp_error_t transfer_begin(transfer_t *t, qp_dtype_t dtype, int64_t first, int64_t n_row)
{
    const qp_h5_t *file = t->file;
    QP_TRY(open_set(file, t->name, &t->set));
    QP_TRY(read_shape(file, t->name, t->set, &t->shape));
    if (t->shape.dtype != dtype)
        return QP_ERROR(QP_INPUT, "%s: %s: stored as %s, expected %s", file->path, t->name,
                        qp_dtype_name(t->shape.dtype), qp_dtype_name(dtype));
    if (first < 0 || n_row < 0 || first > t->shape.dim[0] || n_row > t->shape.dim[0] - first)
        return QP_ERROR(QP_INPUT, "%s: %s: rows %lld to %lld wanted, it has %lld", file->path,
                        t->name, (long long)first, (long long)(first + n_row),
                        (long long)t->shape.dim[0]);
    t->row_bytes = (int64_t)qp_dtype_bytes(dtype);
    for (int i = 1; i < t->shape.n_dim; i++)
        t->row_bytes *= t->shape.dim[i];
    return NULL;
}

/* Moves n_row rows (none: takes part in the collective call with nothing). */
static qp_error_t transfer_piece(transfer_t *t, int64_t first, int64_t n_row, int64_t offset_bytes)
{
    const qp_h5_t *file = t->file;
    const char *name = t->name;
    hid_t space = -1, memory = -1, type = stored_type(t->shape.dtype);
    hsize_t start[QP_H5_MAX_DIM] = {(hsize_t)first}, count[QP_H5_MAX_DIM];
    for (int i = 0; i < t->shape.n_dim; i++)
        count[i] = (hsize_t)(i == 0 ? n_row : t->shape.dim[i]);
    qp_error_t error;
    QP_TRY_DONE(QP_H5(file, name, space = H5Dget_space(t->set)));
    QP_TRY_DONE(QP_H5(file, name, memory = H5Screate_simple(t->shape.n_dim, count, NULL)));
    if (n_row > 0) {
        QP_TRY_DONE(QP_H5(file, name,
                          H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL)));
    } else {
        QP_TRY_DONE(QP_H5(file, name, H5Sselect_none(space)));
        QP_TRY_DONE(QP_H5(file, name, H5Sselect_none(memory)));
    }
    if (!t->writing)
        error = QP_H5(
            file, name,
            H5Dread(t->set, type, memory, space, t->properties, (char *)t->to + offset_bytes));
    else
        error = QP_H5(file, name,
                      H5Dwrite(t->set, type, memory, space, t->properties,
                               (const char *)t->from + offset_bytes));
done:
    error = qp_h5_release(file, name, memory, error);
    return qp_h5_release(file, name, space, error);
}

/* All pieces, n_piece of them on every rank. After a failure the rank goes on: others count on it.
 */
static qp_error_t transfer_pieces(transfer_t *t, int64_t first, int64_t n_row, int64_t piece_rows,
                                  int64_t n_piece)
{
    qp_error_t error = NULL;
    for (int64_t i = 0; i < n_piece; i++) {
        int64_t done = i * piece_rows < n_row ? i * piece_rows : n_row;
        int64_t n = qp_min_i64(n_row - done, piece_rows);
        error = qp_error_first(error, transfer_piece(t, first + done, n, done * t->row_bytes));
        qp_activity_mark();
    }
    return error;
}

static qp_error_t transfer(transfer_t *t, bool collective, qp_dtype_t dtype, int64_t first,
                           int64_t n_row)
{
    qp_comm_t *comm = collective ? t->file->comm : NULL;
    t->set = -1;
    t->properties = H5P_DEFAULT;
    qp_error_t error = transfer_begin(t, dtype, first, n_row);
    if (comm != NULL && !t->writing && error == NULL)
        error = QP_H5(t->file, t->name, t->properties = H5Pcreate(H5P_DATASET_XFER));
    if (comm != NULL && !t->writing && error == NULL)
        error = QP_H5(t->file, t->name, H5Pset_dxpl_mpio(t->properties, H5FD_MPIO_COLLECTIVE));
    if (comm != NULL)
        error = qp_comm_agree(comm, error);
    if (error == NULL) {
        int64_t row_bytes = t->row_bytes > 0 ? t->row_bytes : 1;
        int64_t piece_rows = PIECE_BYTES > row_bytes ? PIECE_BYTES / row_bytes : 1;
        int64_t n_piece = (n_row + piece_rows - 1) / piece_rows;
        if (comm != NULL)
            qp_comm_max_i64(comm, &n_piece, 1);
        if (t->properties != H5P_DEFAULT) /* collective */
            qp_activity_wait_begin();
        error = transfer_pieces(t, first, n_row, piece_rows, n_piece);
        if (t->properties != H5P_DEFAULT)
            qp_activity_wait_end();
        if (comm != NULL)
            error = qp_comm_agree(comm, qp_h5_latched(t->file, error));
    }
    if (t->properties != H5P_DEFAULT)
        error = qp_h5_release(t->file, t->name, t->properties, error);
    error = qp_h5_release(t->file, t->name, t->set, error);
    return qp_h5_latched(t->file, error);
}

qp_error_t qp_h5_read(const qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t first,
                      int64_t n_row, void *data)
{
    QP_H5_LOCKED();
    return transfer(&(transfer_t){.file = file, .name = name, .to = data}, false, dtype, first,
                    n_row);
}

qp_error_t qp_h5_write(qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t first,
                       int64_t n_row, const void *data)
{
    QP_H5_LOCKED();
    return transfer(&(transfer_t){.file = file, .name = name, .from = data, .writing = true}, false,
                    dtype, first, n_row);
}

qp_error_t qp_h5_read_all(const qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t first,
                          int64_t n_row, void *data)
{
    QP_H5_LOCKED();
    return transfer(&(transfer_t){.file = file, .name = name, .to = data}, true, dtype, first,
                    n_row);
}

qp_error_t qp_h5_write_all(qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t first,
                           int64_t n_row, const void *data)
{
    QP_H5_LOCKED();
    QP_TRY(qp_h5_enter_data(file));
    return transfer(&(transfer_t){.file = file, .name = name, .from = data, .writing = true}, true,
                    dtype, first, n_row);
}
