/**
 * \file tokenizer_parts.h
 * Inside of qp_tokenizer_t, for the files that build one (tokenizer_json*.c, tokenizer_gguf.c,
 * tokenizer_sp.c) and the one that runs it (tokenizer.c).
 */
#ifndef QP_TEXT_TOKENIZER_PARTS_H
#define QP_TEXT_TOKENIZER_PARTS_H

#include <jansson.h>

#include "formats/json.h"
#include "text/sentencepiece_shim.h"
#include "text/tokenizer.h"
#include "text/tokenizer_added.h"
#include "text/tokenizer_bpe.h"
#include "text/tokenizer_split.h"
#include "text/tokenizer_vocab.h"

/** Normaliser rule: every \a from becomes \a to; an empty from means: put to in front. */
typedef struct {
    char *from, *to; /**< owned */
} qp_normal_rule_t;

enum { QP_MAX_RULE = 4, QP_MAX_RULE_TEXT = 8 };

/** How ids become text, after the surfaces of the tokens. */
typedef struct {
    bool byte_level;      /**< surfaces are bytes: repair UTF-8 at the end */
    bool byte_fallback;   /**< runs of <0xNN> are bytes */
    char *drop_in_first;  /**< owned or NULL: taken out of the first token (Metaspace) */
    int64_t strip_spaces; /**< spaces taken off the start of the whole */
} qp_decoder_t;

struct qp_tokenizer {
    qp_vocab_t vocab;
    qp_added_set_t added;            /**< looked for in the text as it is */
    qp_added_set_t added_normalized; /**< looked for after normalising */
    int n_rule;
    qp_normal_rule_t rule[QP_MAX_RULE];
    qp_split_t split;
    qp_bpe_t bpe;
    qp_decoder_t decoder;
    qp_sp_t *sp;                /**< SentencePiece model, or NULL */
    bool sp_decodes_only;       /**< rule and bpe encode in its place */
    qp_tokens_t prefix, suffix; /**< put around a text with ADD_SPECIAL */
    int32_t bos, eos;           /**< -1: none */
    char *chat_template;        /**< owned or NULL */
    uint64_t id;
};

/** A token that is found in texts before the model runs; also enters the vocabulary. */
qp_error_t qp_tokenizer_add(qp_tokenizer_t *tokenizer, const char *text, bool normalized,
                            qp_added_t token);

/** Text after the normaliser's rules, appended to out. */
void qp_tokenizer_normalize(const qp_tokenizer_t *tokenizer, const char *text, size_t n_bytes,
                            qp_str_t *out);

/** One merge as a file lists it: two texts. */
typedef struct {
    const char *left, *right;
    size_t n_left, n_right;
} qp_merge_t;

/** "a b" to its halves; anything else is QP_INPUT. */
qp_error_t qp_merge_parse(const char *text, qp_merge_t *merge);

/**
 * Completes the BPE model from the vocabulary (no added tokens in it yet) and bpe's flags: byte
 * ids, surfaces, merges in the order of rank, words.
 */
qp_error_t qp_tokenizer_build_bpe(qp_tokenizer_t *tokenizer, int64_t n_merge,
                                  qp_error_t (*merge)(const void *owner, int64_t i,
                                                      qp_merge_t *out),
                                  const void *owner);

/** The kinds of files; *config is the parsed tokenizer_config.json or NULL. */
qp_error_t qp_tokenizer_build_json(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                   const json_t *config);
qp_error_t qp_tokenizer_build_sp(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                 const json_t *config);
qp_error_t qp_tokenizer_build_gguf(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                   const json_t *config);

/** Loads a serialised SentencePiece model and enters its pieces. */
qp_error_t qp_tokenizer_load_sp(qp_tokenizer_t *tokenizer, const void *model, size_t n_bytes);
/** Prefix and suffix from BOS and EOS. */
void qp_tokenizer_set_bos_eos(qp_tokenizer_t *tokenizer, bool add_bos, bool add_eos);

/** The parts of tokenizer.json beside the model. */
qp_error_t qp_tokenizer_read_normalizer(qp_tokenizer_t *tokenizer, const json_t *value);
qp_error_t qp_tokenizer_read_pre_tokenizer(qp_tokenizer_t *tokenizer, const json_t *value);
qp_error_t qp_tokenizer_read_post_processor(qp_tokenizer_t *tokenizer, const json_t *value);
qp_error_t qp_tokenizer_read_decoder(qp_tokenizer_t *tokenizer, const json_t *value);

/** A true/false member, \a otherwise if absent or null. */
bool qp_json_flag(const json_t *object, const char *key, bool otherwise);
/** A text member, "" if absent or no text. */
const char *qp_json_text(const json_t *object, const char *key);

#endif
