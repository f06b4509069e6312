/** \file h5_impl.h  An open file, the process-wide lock and checked HDF5 calls; for this folder. */
#ifndef QP_H5_H5_IMPL_H
#define QP_H5_H5_IMPL_H

#include <hdf5.h>

#include "h5/h5.h"

/**
 * A file that several ranks write is in one of two states. Structure: rank 0 alone has it open,
 * with the driver of h5_latch.c; data sets and attributes are made there. Data: all ranks have it
 * open with MPI-IO and write rows, each by itself; the metadata stay as they are. For what is
 * collective in HDF5 and MPI-IO does not survive a failure on one rank: the others wait for it for
 * ever. A failed write is kept in both states, and the ranks agree on it.
 */
struct qp_h5 {
    hid_t id; /**< -1: not open on this rank */
    char *path;
    qp_comm_t *comm; /**< NULL: this process alone */
    bool writable;
    bool shared;        /**< open on all ranks with MPI-IO */
    int failure;        /**< errno of the first failed write, which HDF5 was not told of */
    int64_t n_bytes;    /**< of the file, when opened for reading */
    int64_t changed_ns; /**< when it was last written to, as of then; nanoseconds since 1970 */
};

/** Change the state of a file being written. Collective as opened. */
__attribute__((warn_unused_result)) qp_error_t qp_h5_enter_structure(qp_h5_t *file);
__attribute__((warn_unused_result)) qp_error_t qp_h5_enter_data(qp_h5_t *file);

/** Around what is collective in HDF5 while all ranks have the file open (base/activity.h); a mark
 * behind what is not. */
void qp_h5_wait_begin(const qp_h5_t *file);
void qp_h5_wait_end(const qp_h5_t *file);

/** Whether this rank makes the structure. */
bool qp_h5_is_builder(const qp_h5_t *file);

/** \a error, or else the failure that was kept. */
__attribute__((warn_unused_result)) qp_error_t qp_h5_latched(const qp_h5_t *file, qp_error_t error);

/** Makes the access list use the driver of h5_latch.c; *driver is released after the file is open.
 */
__attribute__((warn_unused_result)) qp_error_t qp_h5_set_latch(const qp_h5_t *file, hid_t access,
                                                               hid_t *driver);

/** The same for the file that is being written with MPI-IO: its first failure goes to *failure.
 * NULL: there is no such file. */
void qp_h5_latch_mpio(int *failure);

/**
 * Holds the lock around HDF5 until the enclosing block ends. HDF5's own build here is not
 * thread-safe; the lock is recursive, so public functions may call each other.
 */
#define QP_H5_LOCKED() \
    __attribute__((cleanup(qp_h5_unlock), unused)) const int qp_h5_locked_ = qp_h5_lock()
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

/** 1: there is such an object, 0: there is none, below 0: HDF5 cannot tell (damage). */
int qp_h5_lookup(const qp_h5_t *file, const char *name);

/** Closes any HDF5 handle but the file's (-1: none) on the way out; the earlier error wins. */
__attribute__((warn_unused_result)) qp_error_t
qp_h5_release(const qp_h5_t *file, const char *object, hid_t id, qp_error_t error);

/** Agreement over the ranks that opened the file together; local itself for serial files. */
__attribute__((warn_unused_result)) qp_error_t qp_h5_agree(const qp_h5_t *file, qp_error_t local);

/** Attributes with any scalar type; object "/" is the root. Collective as opened. */
qp_error_t qp_h5_attr_write(qp_h5_t *file, const char *object, const char *name, hid_t type,
                            const void *value);
/** The same on the rank that makes the structure; not collective. */
qp_error_t qp_h5_attr_store(const qp_h5_t *file, const char *object, const char *name, hid_t type,
                            const void *value);
qp_error_t qp_h5_attr_store_str(const qp_h5_t *file, const char *object, const char *name,
                                const char *value);
/** The stored attribute must be of \a type_class ("an integer", ... in \a expected). */
qp_error_t qp_h5_attr_read(const qp_h5_t *file, const char *object, const char *name,
                           H5T_class_t type_class, const char *expected, hid_t type, void *value);

#endif
