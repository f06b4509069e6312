/**
 * \file tokenizer_sp_proto.h
 * The fields of a serialised SentencePiece ModelProto (sentencepiece_model.proto) that tell how its
 * texts are encoded: read from tokenizer.model, written for the models that GGUF files embed.
 */
#ifndef QP_TEXT_TOKENIZER_SP_PROTO_H
#define QP_TEXT_TOKENIZER_SP_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

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
    const char *text; /**< not owned, no NUL at its end */
    size_t n_text;
    float score;
    int64_t type;
} qp_sp_piece_t;

typedef struct {
    qp_sp_piece_t *piece; /**< owned */
    int64_t n_piece, capacity;
    int64_t model_type;
    int64_t unk_id, bos_id, eos_id; /**< -1: none; written only */
    bool byte_fallback, whitespace_as_suffix;
    bool charsmap, dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
} qp_sp_proto_t;

void qp_sp_proto_fini(qp_sp_proto_t *proto);
/** Reads the fields; \a model must outlive the proto. */
qp_error_t qp_sp_proto_read(const void *model, size_t n_bytes, qp_sp_proto_t *proto);

/** Appends a piece. */
void qp_sp_proto_push(qp_sp_proto_t *proto, qp_sp_piece_t piece);
/** Appends the serialised model; its normaliser is the identity (charsmap is not written). */
void qp_sp_proto_write(const qp_sp_proto_t *proto, qp_str_t *model);

#endif
