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
#include "text/tokenizer_normal.h"
#include "text/tokenizer_split.h"
#include "text/tokenizer_vocab.h"

/** How ids become text, after the surfaces of the tokens. */
typedef struct {
    bool byte_level;      /**< surfaces are bytes: repair UTF-8 at the end */
    bool byte_fallback;   /**< runs of <0xNN> are bytes */
    char *drop_in_first;  /**< owned or NULL: taken out of the first token (Metaspace) */
    int64_t strip_spaces; /**< spaces taken off the start of the whole */
} qp_decoder_t;

/** A token that is found in texts before the model runs. */
typedef struct {
    char *text;      /**< owned */
    bool normalized; /**< looked for after normalising, in its normalised form */
    qp_added_t token;
} qp_added_text_t;

/** What a post-processor takes off the offsets of a token: the white space at its ends. */
typedef struct {
    bool trim, add_prefix_space;
} qp_trim_t;

struct qp_tokenizer {
    qp_vocab_t vocab;
    qp_added_text_t *added_text; /**< [n_added], owned */
    int64_t n_added, added_capacity;
    qp_added_set_t added;            /**< of these, looked for in the text as it is */
    qp_added_set_t added_normalized; /**< looked for after normalising */
    qp_normal_t normal;
    qp_split_t split;
    qp_bpe_t bpe;
    qp_decoder_t decoder;
    qp_trim_t trim;
    qp_sp_t *sp;                /**< SentencePiece model, or NULL */
    bool sp_decodes_only;       /**< normal and bpe encode in its place */
    bool add_bos, add_eos;      /**< put BOS and EOS around a text (kinds without post-processor) */
    qp_tokens_t prefix, suffix; /**< put around a text with ADD_SPECIAL */
    int32_t bos, eos, pad;      /**< -1: none */
    qp_tokens_t more_eos;       /**< further tokens that end a sequence */
    json_t *special;            /**< owned: text by name, as special_tokens_map of transformers */
    json_t *chat_template;      /**< owned: text by name, "default" is the usual one */
    uint64_t id;
};

/** Enters an added token; one of the same text is replaced. Ends with qp_tokenizer_index_added().
 */
qp_error_t qp_tokenizer_add(qp_tokenizer_t *tokenizer, const char *text, bool normalized,
                            qp_added_t token);
/** The added token of this text, or NULL. */
const qp_added_text_t *qp_tokenizer_added(const qp_tokenizer_t *tokenizer, const char *text);
/** Makes the sets that texts are searched with. */
void qp_tokenizer_index_added(qp_tokenizer_t *tokenizer);

/** Bytes of the given text that tokens come from, as HF tokenizers' offsets; zero-initialise. */
typedef struct {
    qp_origin_t *span; /**< owned */
    int64_t n, capacity;
} qp_spans_t;
void qp_spans_fini(qp_spans_t *spans);

/** qp_tokenizer_encode() that also appends each id's place to \a spans (may be NULL); the text is
 * valid UTF-8 of less than 4 GiB then. */
qp_error_t qp_tokenizer_encode_spans(const qp_tokenizer_t *tokenizer, const char *text,
                                     size_t n_bytes, unsigned flags, qp_tokens_t *tokens,
                                     qp_spans_t *spans);

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

/** The kinds of files; \a config is the parsed tokenizer_config.json. They set the id to a hash of
 * what they read. */
qp_error_t qp_tokenizer_build_json(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                   const json_t *config);
qp_error_t qp_tokenizer_build_sp(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                 const json_t *config);
qp_error_t qp_tokenizer_build_gguf(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                   const json_t *config);

/** Takes the message of the shim: QP_INTERNAL, or NULL for none. */
qp_error_t qp_sp_failure(char *message);
/** Loads a serialised SentencePiece model and enters its pieces. */
qp_error_t qp_tokenizer_load_sp(qp_tokenizer_t *tokenizer, const void *model, size_t n_bytes);

/**
 * Classes of transformers 5 that tokenizer_config.json may name and that have rules of their own,
 * whatever the files beside the vocabulary say. Both are false where the files decide; a class
 * whose rules are not known here is QP_INPUT. LlamaTokenizer: BPE with byte fallback, U+2581 in
 * front of the first text ("legacy": of each text between added tokens; "add_prefix_space" false:
 * of none). GPT2Tokenizer, Qwen2Tokenizer: byte-level BPE with a normaliser and a pattern of their
 * own.
 */
qp_error_t qp_tokenizer_class(const json_t *config, bool *is_llama, bool *is_byte_level);
/** Sets the rules of LlamaTokenizer; the vocabulary is not read yet. */
qp_error_t qp_tokenizer_set_llama(qp_tokenizer_t *tokenizer, const json_t *config);
/** The decoder and the named tokens that go with them; the vocabulary is complete. */
qp_error_t qp_tokenizer_finish_llama(qp_tokenizer_t *tokenizer, const json_t *config);
/** Puts the rules of a byte-level class in the place of those in tokenizer.json, \a root. */
qp_error_t qp_tokenizer_rebuild(json_t *root, const json_t *config);
/** Names the tokens that the class names where the config does not, of those that there are. */
qp_error_t qp_tokenizer_name_by_class(qp_tokenizer_t *tokenizer, const json_t *config);

/** Names a special token ("bos_token", ...); it becomes an added token if it is none yet. */
qp_error_t qp_tokenizer_name(qp_tokenizer_t *tokenizer, const char *key, const char *text);

/**
 * What tokenizer_config.json says beside the kind's own file: named special tokens, added tokens,
 * chat templates. A token that the vocabulary lacks is appended as transformers does it.
 */
qp_error_t qp_tokenizer_configure(qp_tokenizer_t *tokenizer, const json_t *config);

/** Replaces a text in what decoding writes for every token; \a to is not longer than \a from. */
qp_error_t qp_tokenizer_replace_in_surfaces(qp_vocab_t *vocab, const char *from, const char *to);

/** The parts of tokenizer.json beside the model. */
qp_error_t qp_tokenizer_read_normalizer(qp_tokenizer_t *tokenizer, const json_t *value);
qp_error_t qp_tokenizer_read_pre_tokenizer(qp_tokenizer_t *tokenizer, const json_t *value);
qp_error_t qp_tokenizer_read_post_processor(qp_tokenizer_t *tokenizer, const json_t *value);
qp_error_t qp_tokenizer_read_decoder(qp_tokenizer_t *tokenizer, const json_t *value);

#endif
