/** \file tokenizer_regex.h  Finding matches of a qp_regex_t; for tokenizer_split.c. */
#ifndef QP_TEXT_TOKENIZER_REGEX_H
#define QP_TEXT_TOKENIZER_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "text/tokenizer_split.h"

/**
 * First match at or after byte \a from; *match is working memory of one caller, made on first use.
 * The limits of PCRE2 (a hostile pattern) are QP_INPUT.
 */
qp_error_t qp_regex_find(const qp_regex_t *regex, void **match, const char *text, size_t n_bytes,
                         size_t from, bool *found, size_t *begin, size_t *end);
void qp_regex_match_destroy(void *match);

#endif
