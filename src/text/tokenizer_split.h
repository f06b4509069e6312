/**
 * \file tokenizer_split.h
 * Pre-tokenisation: a chain of steps that cuts a text into words. Regular expressions are
 * Oniguruma's (what HF tokenizers uses), run by PCRE2 after a small translation of the classes that
 * differ.
 */
#ifndef QP_TEXT_TOKENIZER_SPLIT_H
#define QP_TEXT_TOKENIZER_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/str.h"
#include "text/tokenizer_slice.h"

typedef struct qp_regex qp_regex_t;

/** \a literal: the pattern is plain text. A pattern PCRE2 cannot compile is QP_INPUT. */
qp_error_t qp_regex_create(const char *pattern, bool literal, qp_regex_t **regex);
void qp_regex_destroy(qp_regex_t **regex);

/** GPT-2's pattern, which ByteLevel with use_regex splits by. */
#define QP_GPT2_PATTERN \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

typedef enum {
    QP_SPLIT_REGEX,    /**< cut at the bounds of every match; matches or gaps may be left out */
    QP_SPLIT_PREFIX,   /**< put a space in front of a piece that has none (add_prefix_space) */
    QP_SPLIT_METASPACE /**< ' ' becomes the replacement, with one in front as \a prepend says */
} qp_split_kind_t;

typedef enum { QP_PREPEND_NEVER, QP_PREPEND_FIRST, QP_PREPEND_ALWAYS } qp_prepend_t;

typedef struct {
    qp_split_kind_t kind;
    qp_regex_t *regex; /**< owned */
    bool drop_match, drop_gap;
    char replacement[5];
    qp_prepend_t prepend;
} qp_split_step_t;

enum { QP_MAX_SPLIT = 16 };

/** The chain; immutable once filled. Zero-initialise. */
typedef struct {
    int n_step;
    qp_split_step_t step[QP_MAX_SPLIT];
} qp_split_t;

void qp_split_fini(qp_split_t *split);

/** Adds a step (its regex is owned from here on, also on failure). */
qp_error_t qp_split_add(qp_split_t *split, qp_split_step_t step);

/** Working memory of one caller; zero-initialise. */
typedef struct {
    void *match[QP_MAX_SPLIT];
    qp_traced_t buffer[QP_MAX_SPLIT];
} qp_split_scratch_t;
void qp_split_scratch_fini(qp_split_scratch_t *scratch);

/** What is called with each word, in order. */
typedef void (*qp_split_visit_t)(void *owner, qp_slice_t word);

/** Cuts a text (valid UTF-8); \a first: it begins where the whole text does. */
qp_error_t qp_split_run(const qp_split_t *split, qp_slice_t text, bool first,
                        qp_split_scratch_t *scratch, qp_split_visit_t visit, void *owner);

#endif
