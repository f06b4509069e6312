/**
 * \file h5.h
 * HDF5 files, data sets, hyperslabs, attributes and checksums. Errors name file and object.
 * All HDF5 calls of the process are serialised by one lock, so a prefetch thread may read while the
 * main thread checkpoints.
 */
#ifndef QP_H5_H5_H
#define QP_H5_H5_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"
#include "comm/comm.h"

typedef struct qp_h5 qp_h5_t; /**< an open file */

/**
 * Opens for reading. comm == NULL: this process alone (serial driver; not collective). Otherwise
 * MPI-IO and collective over comm. Not an HDF5 file, truncated, absent: QP_INPUT naming the path.
 */
qp_error_t qp_h5_open(const char *path, qp_comm_t *comm, qp_h5_t **file);

/**
 * Creates (truncates) a file; comm as above. Failure: QP_IO. While a file is being written
 * together, only the functions marked collective may be used on it, and every rank passes the same
 * arguments but for the rows. Changing between structure (data sets, attributes, blobs) and rows
 * re-opens the file: make the structure, then write all rows, then the checksums. A failed write
 * (full disk) is the same error on every rank; the file can then only be closed.
 */
qp_error_t qp_h5_create(const char *path, qp_comm_t *comm, qp_h5_t **file);

/** Flushes (to the disk: fsync) and closes; reports errors of delayed writes (full disk).
 * Collective as opened. */
qp_error_t qp_h5_close(qp_h5_t **file);

/** Writes out everything so far and syncs it (MPI-IO). Collective as opened. */
qp_error_t qp_h5_flush(qp_h5_t *file);

const char *qp_h5_path(const qp_h5_t *file);

/**
 * Whether somebody has written to a file that this process has open for reading by itself, since it
 * was opened or noted. A file renamed over its name is another one: what is open stays as it was.
 */
bool qp_h5_is_touched(const qp_h5_t *file);
/** Takes the file as it stands now: its contents have been compared. */
void qp_h5_note(qp_h5_t *file);

/** True if the object (dataset or group) exists. */
bool qp_h5_exists(const qp_h5_t *file, const char *name);

/** Names of the links of a group in alphabetical order; *names and each name are the caller's
 * (qp_free). */
qp_error_t qp_h5_list(const qp_h5_t *file, const char *group, char ***names, int64_t *n_name);

/** Full names ("/a/b") of all data sets of the file, in alphabetical order; owned as above. */
qp_error_t qp_h5_list_datasets(const qp_h5_t *file, char ***names, int64_t *n_name);
/** Frees such a list. */
void qp_h5_list_free(char ***names, int64_t n_name);

enum { QP_H5_MAX_DIM = 4 };

typedef struct {
    qp_dtype_t dtype; /**< bf16 is stored as uint16 with the attribute dtype = "bf16" */
    int n_dim;
    int64_t dim[QP_H5_MAX_DIM];
} qp_h5_shape_t;

/** Creates a contiguous data set (groups on the way too), space allocated. Collective as opened. */
qp_error_t qp_h5_dataset_create(qp_h5_t *file, const char *name, const qp_h5_shape_t *shape);

/** Shape and type of a data set. */
qp_error_t qp_h5_dataset_shape(const qp_h5_t *file, const char *name, qp_h5_shape_t *shape);

/**
 * Reads or writes rows [first, first + n_row) of the first dimension (all of the others).
 * Rank-local (independent I/O), n_row == 0 allowed. Type must be the stored one: no conversion;
 * mismatch QP_INPUT.
 */
qp_error_t qp_h5_read(const qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t first,
                      int64_t n_row, void *data);
qp_error_t qp_h5_write(qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t first,
                       int64_t n_row, const void *data);

/** The same, called by every rank of comm, in pieces of at most 1 GiB: rows are read together, and
 * written by each rank for itself; an error is every rank's. */
qp_error_t qp_h5_read_all(const qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t first,
                          int64_t n_row, void *data);
qp_error_t qp_h5_write_all(qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t first,
                           int64_t n_row, const void *data);

/** Attributes; object "/" is the root. Collective as opened for writing. Strings are the caller's
 * (qp_free). */
qp_error_t qp_h5_attr_set_i64(qp_h5_t *file, const char *object, const char *name, int64_t value);
qp_error_t qp_h5_attr_set_f64(qp_h5_t *file, const char *object, const char *name, double value);
qp_error_t qp_h5_attr_set_str(qp_h5_t *file, const char *object, const char *name,
                              const char *value);
qp_error_t qp_h5_attr_get_i64(const qp_h5_t *file, const char *object, const char *name,
                              int64_t *value);
qp_error_t qp_h5_attr_get_f64(const qp_h5_t *file, const char *object, const char *name,
                              double *value);
qp_error_t qp_h5_attr_get_str(const qp_h5_t *file, const char *object, const char *name,
                              char **value);
bool qp_h5_attr_exists(const qp_h5_t *file, const char *object, const char *name);

/**
 * Whole-data-set convenience for small byte blobs (tokenizer files, decks): 1-D uint8, with
 * checksum. Long strings (> 60 KB) go here, not into attributes. write: collective as opened, rank
 * 0's bytes count. read: rank-local; *data is the caller's (qp_free), followed by a NUL that is not
 * counted.
 */
qp_error_t qp_h5_blob_write(qp_h5_t *file, const char *name, const void *data, size_t n_bytes);
qp_error_t qp_h5_blob_read(const qp_h5_t *file, const char *name, void **data, size_t *n_bytes);

/**
 * Checksums: XXH3-64 of the rows in order, attribute "xxh3" of the data set. The writer passes the
 * value it computed; verify() re-reads in blocks of 64 MB and compares: mismatch QP_INPUT naming
 * file and data set.
 */
qp_error_t qp_h5_checksum_set(qp_h5_t *file, const char *name, uint64_t xxh3);
qp_error_t qp_h5_checksum_get(const qp_h5_t *file, const char *name, uint64_t *xxh3);
qp_error_t qp_h5_checksum_verify(const qp_h5_t *file, const char *name);
/** Reads the whole of a data set of one dimension, n elements, and compares its checksum: each byte
 * is read once. data is of no use after an error. Rank-local. */
qp_error_t qp_h5_read_verified(const qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t n,
                               void *data);

/** Verifies every data set of the file; one without a checksum is damage. Rank-local. */
qp_error_t qp_h5_verify(const qp_h5_t *file);

/**
 * Every Quipu file carries root attributes quipu_format ("base", "shard", "checkpoint") and
 * format_version. check: QP_INPUT when it is another format or a newer version.
 */
qp_error_t qp_h5_format_set(qp_h5_t *file, const char *format, int64_t version);
qp_error_t qp_h5_format_check(const qp_h5_t *file, const char *format, int64_t version);

#endif
