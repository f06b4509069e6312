/** \file str.h  A growing byte string, formatted strings and nearest-name search. */
#ifndef QP_BASE_STR_H
#define QP_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/** Growing byte buffer; always followed by a NUL that is not counted. Zero-initialise to start. */
typedef struct {
    char *data; /**< owned; NULL while empty */
    size_t n, capacity;
} qp_str_t;

void qp_str_fini(qp_str_t *s);
void qp_str_clear(qp_str_t *s);
void qp_str_append(qp_str_t *s, const void *bytes, size_t n);
void qp_str_puts(qp_str_t *s, const char *text);
void qp_str_putc(qp_str_t *s, char c);
__attribute__((format(printf, 2, 3))) void qp_str_printf(qp_str_t *s, const char *format, ...);

/** Formatted string owned by the caller (qp_free). */
__attribute__((format(printf, 1, 2))) char *qp_format(const char *format, ...);

/** The candidate with the smallest edit distance to \a name, or NULL if none is near (<= 1/3). */
const char *qp_nearest(const char *name, const char *const *candidates, int n_candidate);

/** A byte as messages show it: control characters as C writes them. Returns the bytes of \a out,
 * which ends with a NUL. */
size_t qp_escape(char c, char out[5]);
/** Appends text as C and decks write it: in double quotes, control characters escaped. */
void qp_str_quote(qp_str_t *s, const char *text);

/** Control characters, such as a newline: no name of a file should have any. */
bool qp_has_control(const char *text);

bool qp_has_prefix(const char *text, const char *prefix);
bool qp_has_suffix(const char *text, const char *suffix);

#endif
