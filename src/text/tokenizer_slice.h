/**
 * \file tokenizer_slice.h
 * A text on its way through a tokenizer that knows, where somebody asks, which bytes of the text
 * that was given each of its bytes comes from.
 */
#ifndef QP_TEXT_TOKENIZER_SLICE_H
#define QP_TEXT_TOKENIZER_SLICE_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/** Bytes [begin, end) of the text that was given: one character, or what became one. */
typedef struct {
    uint32_t begin, end;
} qp_origin_t;

typedef struct {
    const char *text;
    size_t n;
    const qp_origin_t *origin; /**< [n], or NULL: nobody asks */
} qp_slice_t;

static inline qp_slice_t qp_slice_part(qp_slice_t slice, size_t begin, size_t end)
{
    return (qp_slice_t){.text = slice.text + begin,
                        .n = end - begin,
                        .origin = slice.origin != NULL ? slice.origin + begin : NULL};
}

/** Where all of a slice comes from; of an empty one, nothing. */
static inline qp_origin_t qp_slice_origin(qp_slice_t slice)
{
    if (slice.origin == NULL || slice.n == 0)
        return (qp_origin_t){0};
    return (qp_origin_t){slice.origin[0].begin, slice.origin[slice.n - 1].end};
}

/** A text that is being made from a slice; zero-initialise. */
typedef struct {
    qp_str_t text, origin; /**< origin: qp_origin_t of each byte, empty if nobody asks */
} qp_traced_t;

static inline void qp_traced_fini(qp_traced_t *traced)
{
    qp_str_fini(&traced->text);
    qp_str_fini(&traced->origin);
}

static inline void qp_traced_clear(qp_traced_t *traced)
{
    qp_str_clear(&traced->text);
    qp_str_clear(&traced->origin);
}

/** Appends a slice as it is. */
static inline void qp_traced_copy(qp_traced_t *traced, qp_slice_t slice)
{
    qp_str_append(&traced->text, slice.text, slice.n);
    if (slice.origin != NULL)
        qp_str_append(&traced->origin, slice.origin, slice.n * sizeof *slice.origin);
}

/** Appends a text that stands for all of \a from. */
static inline void qp_traced_put(qp_traced_t *traced, const char *text, size_t n, qp_slice_t from)
{
    const qp_origin_t origin = qp_slice_origin(from);
    qp_str_append(&traced->text, text, n);
    for (size_t i = 0; i < n && from.origin != NULL; i++)
        qp_str_append(&traced->origin, &origin, sizeof origin);
}

static inline qp_slice_t qp_traced_slice(const qp_traced_t *traced)
{
    return (qp_slice_t){.text = traced->text.n > 0 ? traced->text.data : "",
                        .n = traced->text.n,
                        .origin = (const qp_origin_t *)(const void *)traced->origin.data};
}

#endif
