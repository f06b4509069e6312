/**
 * \file tokenizer_sp_proto.h
 * The few fields of a serialised SentencePiece ModelProto (sentencepiece_model.proto) that decide
 * whether its texts can be encoded by qp_bpe_t, which is faster than the library.
 */
#ifndef QP_TEXT_TOKENIZER_SP_PROTO_H
#define QP_TEXT_TOKENIZER_SP_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/** Piece types; GGUF's token types are the same numbers. */
enum {
    QP_SP_NORMAL = 1,
    QP_SP_UNKNOWN = 2,
    QP_SP_CONTROL = 3,
    QP_SP_USER_DEFINED = 4,
    QP_SP_UNUSED = 5,
    QP_SP_BYTE = 6
};
enum { QP_SP_MODEL_BPE = 2 };

typedef struct {
    const char *text; /**< in the model's bytes, no NUL at its end */
    size_t n_text;
    float score;
    int64_t type;
} qp_sp_piece_t;

typedef struct {
    qp_sp_piece_t *piece; /**< owned */
    int64_t n_piece, capacity;
    int64_t model_type;
    bool byte_fallback, whitespace_as_suffix;
    bool charsmap, dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
} qp_sp_proto_t;

void qp_sp_proto_fini(qp_sp_proto_t *proto);
/** Reads the fields; \a model must outlive the proto. */
qp_error_t qp_sp_proto_read(const void *model, size_t n_bytes, qp_sp_proto_t *proto);

#endif
