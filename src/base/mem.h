/**
 * \file mem.h
 * Counted memory. Every allocation carries a label; what is alive and the peak are known per label
 * and in all, so a leak fails the test that made it and a memory plan can be compared with the
 * truth.
 */
#ifndef QP_BASE_MEM_H
#define QP_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/**
 * Returns \a bytes of zeroed memory aligned to 64 bytes; \a label is a static string. Aborts with a
 * message naming the label when memory is out (bulk memory is refused earlier, by the memory plan).
 * Thread-safe. bytes == 0 gives a valid pointer.
 */
void *qp_alloc(const char *label, size_t bytes);

/** Grows or shrinks; keeps the contents, the label and the alignment; new bytes are not zeroed. */
void *qp_realloc(const char *label, void *pointer, size_t bytes);

/** Frees memory of qp_alloc(); NULL is allowed. */
void qp_free(void *pointer);

/** Copy of a string, owned by the caller (qp_free). NULL gives NULL. */
char *qp_strdup(const char *text);

/** n * size, aborting on overflow. */
size_t qp_bytes(int64_t n, size_t size);

/** An array of n zeroed elements of a type. */
#define QP_NEW(label, type, n) ((type *)qp_alloc((label), qp_bytes((n), sizeof(type))))

/** Frees and nulls. */
#define QP_FREE(pointer)  \
    do {                  \
        qp_free(pointer); \
        (pointer) = NULL; \
    } while (0)

/** Accounts memory that was obtained elsewhere (device, shared window) under a label; negative
 * frees. */
void qp_mem_account(const char *label, int64_t bytes);

/** Bytes alive now (all labels). */
int64_t qp_mem_alive(void);

/** Logs alive and peak bytes per label at level stat. */
void qp_mem_report(void);

/** Logs every label that is still alive as an error; returns their number. */
int qp_mem_check_leaks(void);

/** For the end of main(): \a code, or QP_INTERNAL instead of QP_OK if memory is still alive. */
int qp_mem_exit_code(int code);

#endif
