/** \file dump.h  The rows of Posts.xml of a Stack Exchange dump, one by one. */
#ifndef QUIPU_PREP_DUMP_H
#define QUIPU_PREP_DUMP_H

#include "prep.h"

/** A row: its attributes, or why it cannot be read. */
typedef struct {
    const char *path;
    int64_t line;           /**< where it begins */
    int64_t number;         /**< of the row, from 1 */
    const void *attributes; /**< of the parser; NULL: it cannot be read */
    int n_attribute;
    const char *damage;
    int64_t n_dropped; /**< characters left out that XML forbids */
} dump_row_t;

/** An attribute's value; data NULL: there is none. Valid while the row is. */
prep_text_t prep_dump_attribute(const dump_row_t *row, const char *name);

/**
 * Hands every row to \a take, in order. Each stands for itself: what is damaged in one does not
 * reach the next. Control characters, as bytes and as references, and bytes that are no UTF-8 are
 * dropped. No row, another encoding, a file that is cut, or more behind the end: QP_INPUT.
 */
qp_error_t prep_dump_read(const char *path, qp_error_t (*take)(void *owner, const dump_row_t *row),
                          void *owner);

#endif
