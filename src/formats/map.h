/** \file map.h  A file mapped for reading, whose pages can be given back behind a streaming reader.
 */
#ifndef QP_FORMATS_MAP_H
#define QP_FORMATS_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct {
    char *path;          /**< owned */
    const uint8_t *data; /**< NULL for an empty file */
    size_t n_bytes;
} qp_map_t;

/** Maps a regular file; absent, unreadable, no file or a Git LFS pointer: QP_INPUT naming the path.
 */
qp_error_t qp_map_open(const char *path, qp_map_t *map);
/** Unmaps; a zeroed map is allowed. */
void qp_map_close(qp_map_t *map);
/** Lets the kernel take back the pages that lie wholly inside the range; they are re-read on
 * demand. */
void qp_map_drop(const void *data, size_t n_bytes);

#endif
