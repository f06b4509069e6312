/** \file utf8.h  UTF-8: step, decode, repair. */
#ifndef QP_BASE_UTF8_H
#define QP_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/** Length of the character that starts with this byte, in valid UTF-8. */
static inline size_t qp_utf8_length(char first)
{
    const unsigned char c = (unsigned char)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/** Code point at text (valid UTF-8); *n_bytes is its length. */
uint32_t qp_utf8_decode(const char *text, size_t *n_bytes);

/** Appends a code point. */
void qp_utf8_put(qp_str_t *s, uint32_t code);

/** Bytes at the start of the text that are valid UTF-8 (no surrogates, nothing overlong). */
size_t qp_utf8_valid_prefix(const char *text, size_t n_bytes);

/**
 * Appends the text with every maximal ill-formed sequence replaced by U+FFFD (Unicode 15, 3.9,
 * "substitution of maximal subparts"), as Rust's from_utf8_lossy and Python's errors="replace" do.
 */
void qp_utf8_repair(qp_str_t *s, const char *text, size_t n_bytes);

/** White_Space of Unicode. */
bool qp_utf8_is_space(uint32_t code);

#endif
