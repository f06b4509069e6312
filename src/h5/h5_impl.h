/** \file h5_impl.h  An open file, the process-wide lock and checked HDF5 calls; for this folder. */
#ifndef QP_H5_H5_IMPL_H
#define QP_H5_H5_IMPL_H

#include <hdf5.h>

#include "h5/h5.h"

struct qp_h5 {
    hid_t id;
    char *path;
    qp_comm_t *comm; /**< NULL: serial driver */
    bool writable;
    int64_t n_bytes; /**< of the file, when opened for reading */
};

/**
 * Holds the lock around HDF5 until the enclosing block ends. HDF5's own build here is not
 * thread-safe; the lock is recursive, so public functions may call each other.
 */
#define QP_H5_LOCKED() __attribute__((cleanup(qp_h5_unlock))) const int qp_h5_locked_ = qp_h5_lock()
int qp_h5_lock(void);
void qp_h5_unlock(const int *locked);

/**
 * QP_TRY_DONE(QP_H5(file, name, id = H5Dopen2(...))): NULL, or an error with path, object and
 * HDF5's innermost message; QP_IO for files being written, QP_INPUT (damage) for files being read.
 */
#define QP_H5(file, object, call) qp_h5_check((file), (object), (call) < 0, __FILE__, __LINE__)
__attribute__((warn_unused_result)) qp_error_t qp_h5_check(const qp_h5_t *file, const char *object,
                                                           bool failed, const char *source_file,
                                                           int line);

/** Closes any HDF5 handle but the file's (-1: none) on the way out; the earlier error wins. */
__attribute__((warn_unused_result)) qp_error_t
qp_h5_release(const qp_h5_t *file, const char *object, hid_t id, qp_error_t error);

/** Agreement over the ranks that opened the file together; local itself for serial files. */
__attribute__((warn_unused_result)) qp_error_t qp_h5_agree(const qp_h5_t *file, qp_error_t local);

/** Attributes with any scalar type; object "/" is the root. */
qp_error_t qp_h5_attr_write(qp_h5_t *file, const char *object, const char *name, hid_t type,
                            const void *value);
/** The stored attribute must be of \a type_class ("an integer", ... in \a expected). */
qp_error_t qp_h5_attr_read(const qp_h5_t *file, const char *object, const char *name,
                           H5T_class_t type_class, const char *expected, hid_t type, void *value);

#endif
