/** \file file.h  Whole files in memory, and files that appear complete or not at all. */
#ifndef QP_BASE_FILE_H
#define QP_BASE_FILE_H

#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/error.h"

/**
 * Opens a regular file for reading; the descriptor is the caller's (close). Absent, unreadable, or
 * a folder, pipe or device (which is never waited for): QP_INPUT naming the path.
 */
qp_error_t qp_file_open(const char *path, int *fd);

/** "a folder", "a pipe", ...: what stands under a name, by its st_mode. */
const char *qp_file_kind(mode_t mode);

/** Opens a regular file for appending (fclose is the caller's), made if absent. Failure: QP_IO. */
qp_error_t qp_file_append(const char *path, FILE **file);

/**
 * Reads a whole file; *data is the caller's (qp_free), followed by a NUL that is not counted.
 * A Git LFS pointer: QP_INPUT naming the path; else fails as qp_file_open().
 */
qp_error_t qp_file_read(const char *path, void **data, size_t *n_bytes);

/** QP_INPUT if this content of \a path is the pointer that Git LFS leaves in the place of a file.
 */
qp_error_t qp_file_refuse_pointer(const char *path, const void *data, size_t n_bytes);

/** Writes a whole file under a temporary name, then commits it. Failure: QP_IO, nothing left
 * behind. */
qp_error_t qp_file_write(const char *path, const void *data, size_t n_bytes);

/** Gives the finished file \a temporary its final name and makes the change durable. */
qp_error_t qp_file_commit(const char *temporary, const char *path);

/**
 * Opens an empty file for reading and writing in the folder of \a path that has no name any more:
 * it is gone when it is closed, however the process ends. fclose() is the caller's. Failure: QP_IO.
 */
qp_error_t qp_file_scratch(const char *path, FILE **file);

/** Makes a folder and those that it lies in, as far as they are not there (mkdir -p). Failure:
 * QP_IO. */
qp_error_t qp_folder_make(const char *path);

#endif
