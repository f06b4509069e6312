/** \file tokenizer_normal.h  Normalisers: rules that rewrite a text before it is cut into words. */
#ifndef QP_TEXT_TOKENIZER_NORMAL_H
#define QP_TEXT_TOKENIZER_NORMAL_H

#include "base/error.h"
#include "text/tokenizer_slice.h"

typedef enum {
    QP_NORMAL_PREPEND, /**< \a to in front of what is not empty */
    QP_NORMAL_REPLACE, /**< every \a from becomes \a to */
    QP_NORMAL_UNICODE  /**< Unicode normalisation form \a from: NFC, NFD, NFKC, NFKD */
} qp_normal_kind_t;

typedef struct {
    qp_normal_kind_t kind;
    char *from, *to; /**< owned; NULL where the kind has none */
} qp_normal_rule_t;

enum { QP_MAX_RULE = 8, QP_MAX_RULE_TEXT = 8 };

/** Immutable once filled. Zero-initialise. */
typedef struct {
    int n_rule;
    qp_normal_rule_t rule[QP_MAX_RULE];
} qp_normal_t;

void qp_normal_fini(qp_normal_t *normal);

/** Appends a rule, copying its texts. Too many, a long \a to, an unknown form: QP_INPUT. */
qp_error_t qp_normal_add(qp_normal_t *normal, qp_normal_kind_t kind, const char *from,
                         const char *to);

/** The text (valid UTF-8) after all rules; two buffers of working memory, of which one holds it. */
qp_slice_t qp_normal_run(const qp_normal_t *normal, qp_slice_t text, qp_traced_t buffer[2]);

#endif
