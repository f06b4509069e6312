/** \file source_impl.h  What a kind of source provides; for source*.c only. */
#ifndef QP_IMPORT_SOURCE_IMPL_H
#define QP_IMPORT_SOURCE_IMPL_H

#include "import/source.h"

typedef struct {
    /** Rows of a tensor in fp32; values are checked by the caller. */
    qp_error_t (*rows)(qp_source_t *source, int64_t spec, int64_t first, int64_t n_row,
                       float *rows);
    /** File that a tensor stands in, for messages. */
    const char *(*file)(const qp_source_t *source, int64_t spec);
    /** Frees self. */
    void (*close)(qp_source_t *source);
} qp_source_kind_t;

struct qp_source {
    const qp_source_kind_t *kind;
    void *self; /**< of the kind */
    char *name;
    qp_llama_config_t config;
    qp_tokenizer_files_t tokenizer;
    qp_tokenizer_t *reader; /**< made of them, or NULL */
    char *generation;       /**< owned text of generation_config.json, or NULL */
    int64_t n_score;
    float *score; /**< owned [n_score, d_model], or NULL */
    int64_t n_spec;
    qp_tensor_spec_t *spec; /**< made by the kind's open from the config */
};

/** Openers fill a zeroed source with kind and name set; on failure the caller closes it, on success
 * it makes the reader of the tokenizer and completes the special tokens of the config. */
qp_error_t qp_source_open_hf(const char *path, qp_source_t *source);
qp_error_t qp_source_open_gguf(const char *path, qp_source_t *source);
qp_error_t qp_source_open_base(const char *path, qp_source_t *source);

extern const qp_source_kind_t qp_source_hf, qp_source_gguf, qp_source_base;

#endif
