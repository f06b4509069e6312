/**
 * \file reader.h
 * Files of text as they come: plain or gzip (all members), with or without a byte-order mark. What
 * is packed in another way is refused by name. Streaming: a shell's pipes are read too.
 */
#ifndef QP_FORMATS_READER_H
#define QP_FORMATS_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/** An open file. Used by one thread. */
typedef struct qp_reader qp_reader_t;

/**
 * Absent, a folder, a named pipe, unreadable, or bzip2, xz, zip, 7z, zstd, Parquet or UTF-16:
 * QP_INPUT naming the path. Not collective.
 */
qp_error_t qp_reader_open(const char *path, qp_reader_t **reader);
void qp_reader_close(qp_reader_t **reader);

/**
 * The next piece: up to and with the byte \a end, or what is left. *text is NULL at the end of the
 * file, else valid until the next call. A gzip stream that is cut, damaged or followed by something
 * else, and a piece of more than 1 GiB: QP_INPUT. What cannot be read: QP_IO.
 */
qp_error_t qp_reader_until(qp_reader_t *reader, char end, const char **text, size_t *n);

/** The next line without its end and without a byte-order mark before it; *text as above. */
qp_error_t qp_reader_line(qp_reader_t *reader, const char **text, size_t *n);

/** A whole file without its byte-order mark; *data is the caller's (qp_free), followed by a NUL
 * that is not counted. */
qp_error_t qp_reader_whole(const char *path, void **data, size_t *n);

#endif
