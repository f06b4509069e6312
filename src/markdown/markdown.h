/** \file markdown.h  HTML (of posts, manuals) to Markdown that a language model can read. */
#ifndef QP_MARKDOWN_MARKDOWN_H
#define QP_MARKDOWN_MARKDOWN_H

#include <stddef.h>

#include "base/error.h"
#include "base/str.h"

/**
 * Appends the Markdown of \a n_bytes of HTML (a fragment or a page; UTF-8) to \a markdown, without
 * leading or trailing white space; the result is always valid UTF-8.
 *
 * Headings "#", paragraphs, "-" and "1." lists (nested), "> " quotes, fenced code blocks with their
 * language, inline code, emphasis, links, images, line breaks (two spaces), rules, tables with
 * pipes; sub, sup and kbd stay tags, as Stack Exchange's own Markdown has them. Text is not
 * escaped: LaTeX and code-like words reach the model as the author saw them. A link that has no
 * meaning outside its page (relative, or "#...") keeps only its text. Scripts, styles and comments
 * are left out. Broken HTML is mended as browsers do; below 400 elements text stays, but not its
 * form. Too large, or more than libxml2 can read: QP_INPUT, never a part. Not collective,
 * thread-safe.
 */
qp_error_t qp_markdown_from_html(const char *html, size_t n_bytes, qp_str_t *markdown);

#endif
