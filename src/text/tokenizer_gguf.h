/** \file tokenizer_gguf.h  What GGUF metadata says of a tokenizer; for tokenizer_gguf.c and the
 * writer of HF files. \a root is the JSON object of qp_tokenizer_files_t's "gguf" kind. */
#ifndef QP_TEXT_TOKENIZER_GGUF_H
#define QP_TEXT_TOKENIZER_GGUF_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/str.h"
#include "text/tokenizer_sp_proto.h" /* token types */

/** tokenizer.ggml.pre: how a text is cut, and what llama.cpp sets along with the name. */
typedef struct {
    const char *name;
    const char *pattern[2]; /**< Oniguruma patterns, one after the other; the second may be NULL */
    bool ignore_merges, add_bos;
} qp_gguf_pre_t;

/** The entry that tokenizer.ggml.pre names; unknown: QP_INPUT with the nearest name. */
qp_error_t qp_gguf_pre_find(const json_t *root, const qp_gguf_pre_t **found);

/** Special tokens: "tokenizer.ggml.<gguf>_token_id" is transformers' <hf>. */
typedef struct {
    const char *gguf, *hf;
} qp_gguf_special_t;
enum { QP_GGUF_N_SPECIAL = 7 };
extern const qp_gguf_special_t qp_gguf_specials[QP_GGUF_N_SPECIAL];

/** The id of "tokenizer.ggml.<name>_token_id", -1 if absent. */
qp_error_t qp_gguf_token_id(const json_t *root, const char *name, int64_t *id);
/** Whether BOS and EOS are put around a text. */
qp_error_t qp_gguf_around(const json_t *root, bool bos_otherwise, bool *bos, bool *eos);

/** Appends the SentencePiece ModelProto that metadata of model "llama" amounts to. */
qp_error_t qp_gguf_model_proto(const json_t *root, qp_str_t *proto);

#endif
