/** \file markdown_writer.h  Inside of the module: blocks of Markdown, one after another. */
#ifndef QP_MARKDOWN_MARKDOWN_WRITER_H
#define QP_MARKDOWN_MARKDOWN_WRITER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

/*
 * Writes blocks of text. What separates two blocks is only known when the second one writes its
 * first character, so line ends, spaces and opening marks wait until then ("pending").
 */
typedef struct {
    qp_str_t *out;
    size_t start;        /* of our text in out */
    qp_str_t prefix;     /* of every line here: "> ", list indentation */
    size_t blank_prefix; /* length of the prefix on blank lines before the next text */
    int n_newline;       /* pending line ends */
    bool hard_break;     /* pending: the line end is a <br> */
    bool space;          /* pending: one space */
    qp_str_t open;       /* pending: opening marks of emphasis, links, headings */
    qp_str_t marker;     /* pending: the list marker that replaces the end of the prefix */
    int in_table;        /* blocks become spaces */
    int depth;           /* of the elements being rendered */
} qp_md_t;

/** Begins at the end of \a out. */
void qp_md_init(qp_md_t *w, qp_str_t *out);
void qp_md_fini(qp_md_t *w);

/** True as long as no text was written. */
bool qp_md_at_start(const qp_md_t *w);
/** At least n line ends before the next text: 1 a new line, 2 a blank line between. */
void qp_md_block(qp_md_t *w, int n);
/** Writes what is pending, so that text can follow. */
void qp_md_flush(qp_md_t *w);
/** Running text: white space collapses. */
void qp_md_text(qp_md_t *w, const char *text);
/** Text as it stands, without line ends. */
void qp_md_raw(qp_md_t *w, const char *text, size_t n);
/** A new line now, with its prefix (inside code). */
void qp_md_line(qp_md_t *w, const char *text, size_t n);

/** Lines that follow begin with \a text too. */
void qp_md_push(qp_md_t *w, const char *text);
/** The same, but the next line shows \a marker and those after it are indented by its width. */
void qp_md_push_item(qp_md_t *w, const char *marker);
/** Takes the n bytes of the last push off again. */
void qp_md_pop(qp_md_t *w, size_t n);

/* --- markdown_code.c -------------------------------------------------------------------------- */

/** Code in a line; its line ends become spaces, in place. */
void qp_md_code(qp_md_t *w, char *code);
/** A fenced block, with the language that one of the HTML classes names ("lang-c", "language-c").
 */
void qp_md_code_block(qp_md_t *w, const char *text, const char *class_of_pre,
                      const char *class_of_code);

#endif
