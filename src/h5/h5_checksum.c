/* Checksums of data sets, and small byte blobs. */
#include "base/hash.h"
#include "base/mem.h"
#include "base/minmax.h"
#include "h5/h5_impl.h"

/* Bytes read at once while verifying. */
static const int64_t BLOCK_BYTES = (int64_t)64 << 20;

qp_error_t qp_h5_checksum_set(qp_h5_t *file, const char *name, uint64_t xxh3)
{
    QP_H5_LOCKED();
    return qp_h5_attr_write(file, name, "xxh3", H5T_STD_U64LE, &xxh3);
}

qp_error_t qp_h5_checksum_get(const qp_h5_t *file, const char *name, uint64_t *xxh3)
{
    QP_H5_LOCKED();
    return qp_h5_attr_read(file, name, "xxh3", H5T_INTEGER, "one integer", H5T_NATIVE_UINT64, xxh3);
}

/* Locks block by block, so that verifying a large file does not hold up a reader thread. */
static qp_error_t compute(const qp_h5_t *file, const char *name, uint64_t *xxh3)
{
    qp_h5_shape_t shape;
    QP_TRY(qp_h5_dataset_shape(file, name, &shape));
    int64_t row_bytes = (int64_t)qp_dtype_bytes(shape.dtype);
    for (int i = 1; i < shape.n_dim; i++)
        row_bytes *= shape.dim[i];
    int64_t n_block = row_bytes > 0 && row_bytes < BLOCK_BYTES ? BLOCK_BYTES / row_bytes : 1;
    n_block = qp_min_i64(n_block, shape.dim[0]);
    char *block = qp_alloc("h5", qp_bytes(n_block, (size_t)row_bytes));
    qp_hash_t *hash = qp_hash_create();
    qp_error_t error = NULL;
    for (int64_t first = 0; first < shape.dim[0] && error == NULL; first += n_block) {
        int64_t n = qp_min_i64(shape.dim[0] - first, n_block);
        error = qp_h5_read(file, name, shape.dtype, first, n, block);
        if (error == NULL)
            qp_hash_update(hash, block, qp_bytes(n, (size_t)row_bytes));
    }
    *xxh3 = qp_hash_value(hash);
    qp_hash_destroy(&hash);
    qp_free(block);
    return error;
}

static qp_error_t compare(const qp_h5_t *file, const char *name, uint64_t stored, uint64_t computed)
{
    if (stored == computed)
        return NULL;
    return QP_ERROR(QP_INPUT, "%s: %s: damaged: checksum is %016llx, expected %016llx", file->path,
                    name, (unsigned long long)computed, (unsigned long long)stored);
}

qp_error_t qp_h5_checksum_verify(const qp_h5_t *file, const char *name)
{
    uint64_t stored, computed;
    QP_TRY(qp_h5_checksum_get(file, name, &stored));
    QP_TRY(compute(file, name, &computed));
    return compare(file, name, stored, computed);
}

qp_error_t qp_h5_read_verified(const qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t n,
                               void *data)
{
    uint64_t stored;
    QP_TRY(qp_h5_checksum_get(file, name, &stored));
    QP_TRY(qp_h5_read(file, name, dtype, 0, n, data));
    return compare(file, name, stored, qp_hash_bytes(data, qp_bytes(n, qp_dtype_bytes(dtype))));
}

qp_error_t qp_h5_verify(const qp_h5_t *file)
{
    char **names = NULL;
    int64_t n_name = 0;
    QP_TRY(qp_h5_list_datasets(file, &names, &n_name));
    qp_error_t error = NULL;
    for (int64_t i = 0; i < n_name && error == NULL; i++)
        error = qp_h5_checksum_verify(file, names[i]);
    qp_h5_list_free(&names, n_name);
    return error;
}

qp_error_t qp_h5_blob_write(qp_h5_t *file, const char *name, const void *data, size_t n_bytes)
{
    const qp_h5_shape_t shape = {QP_U8, 1, {(int64_t)n_bytes}};
    QP_TRY(qp_h5_dataset_create(file, name, &shape));
    QP_TRY(qp_h5_checksum_set(file, name, qp_hash_bytes(data, n_bytes)));
    bool builder = qp_h5_is_builder(file);
    return qp_h5_agree(file,
                       builder ? qp_h5_write(file, name, QP_U8, 0, (int64_t)n_bytes, data) : NULL);
}

qp_error_t qp_h5_blob_read(const qp_h5_t *file, const char *name, void **data, size_t *n_bytes)
{
    qp_h5_shape_t shape;
    *data = NULL;
    *n_bytes = 0;
    QP_TRY(qp_h5_dataset_shape(file, name, &shape));
    if (shape.n_dim != 1)
        return QP_ERROR(QP_INPUT, "%s: %s: %d dimensions, expected 1", file->path, name,
                        shape.n_dim);
    void *blob = qp_alloc("h5", (size_t)shape.dim[0] + 1);
    qp_error_t error = qp_h5_read_verified(file, name, QP_U8, shape.dim[0], blob);
    if (error != NULL) {
        qp_free(blob);
        return error;
    }
    *data = blob;
    *n_bytes = (size_t)shape.dim[0];
    return NULL;
}
