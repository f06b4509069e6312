/**
 * \file tokenizer.h
 * Tokenizers: byte-level BPE from tokenizer.json or GGUF, SentencePiece BPE with byte fallback from
 * tokenizer.model or GGUF. Same ids as HF tokenizers / SentencePiece. Thread-safe after creation:
 * one scratch per thread.
 */
#ifndef QP_TEXT_TOKENIZER_H
#define QP_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

typedef struct qp_tokenizer qp_tokenizer_t;

/**
 * What a base stores of its tokenizer: the model's own file, byte for byte, and its
 * tokenizer_config.json with what other files of the folder add to it; for GGUF a JSON with its
 * metadata. Owned by whoever holds it (qp_tokenizer_files_fini).
 */
typedef struct {
    char kind[32]; /**< "tokenizer.json", "tokenizer.model", "gguf" */
    void *model;   /**< the main file; gguf: a JSON object of its "tokenizer.*" metadata, keys
                        as they are, arrays as arrays, token texts as UTF-8 strings */
    size_t model_bytes;
    void *config; /**< tokenizer_config.json (named and added tokens, chat templates) or NULL */
    size_t config_bytes;
} qp_tokenizer_files_t;

void qp_tokenizer_files_fini(qp_tokenizer_files_t *files);

/**
 * Reads the tokenizer files of an HF folder: tokenizer.json, or tokenizer.model if there is none.
 * As transformers does it, special_tokens_map.json and added_tokens.json count where
 * tokenizer_config.json has no added_tokens_decoder, and chat_template.jinja with the folder
 * additional_chat_templates counts in the place of tokenizer_config.json's chat_template.
 */
qp_error_t qp_tokenizer_files_from_folder(const char *folder, qp_tokenizer_files_t *files);

/**
 * Writes the files into an existing HF folder: as they are, or (gguf) as a tokenizer.json or
 * tokenizer.model and a tokenizer_config.json that give the same ids in transformers.
 */
qp_error_t qp_tokenizer_files_to_folder(const qp_tokenizer_files_t *files, const char *folder);

/** Builds a tokenizer; unsupported kinds name what was found. */
qp_error_t qp_tokenizer_create(const qp_tokenizer_files_t *files, qp_tokenizer_t **tokenizer);
void qp_tokenizer_destroy(qp_tokenizer_t **tokenizer);

/** Growing list of token ids; zero-initialise. */
typedef struct {
    int32_t *id;
    int64_t n, capacity;
} qp_tokens_t;
void qp_tokens_fini(qp_tokens_t *tokens);
void qp_tokens_push(qp_tokens_t *tokens, int32_t id);
/** Makes room for n more. */
void qp_tokens_reserve(qp_tokens_t *tokens, int64_t n);

enum {
    QP_TEXT_ADD_SPECIAL = 1,  /**< BOS/EOS as the model's own files say */
    QP_TEXT_PARSE_SPECIAL = 2 /**< text like "<|im_end|>" becomes the special token (HF default) */
};

/**
 * Appends the ids of n_bytes of UTF-8. Invalid UTF-8: U+FFFD for each maximal ill-formed sequence,
 * as Python's errors="replace" gives HF (SentencePiece: its own replacement). Without PARSE_SPECIAL
 * the text of special tokens is plain text. Not collective.
 */
qp_error_t qp_tokenizer_encode(const qp_tokenizer_t *tokenizer, const char *text, size_t n_bytes,
                               unsigned flags, qp_tokens_t *tokens);

/**
 * Appends the ids of a text that a sequence begins with: BOS first as the model's own files say,
 * but once, also where the text spells it (PARSE_SPECIAL); nothing behind it. Otherwise as
 * encode().
 */
qp_error_t qp_tokenizer_encode_opening(const qp_tokenizer_t *tokenizer, const char *text,
                                       size_t n_bytes, unsigned flags, qp_tokens_t *tokens);

/** Appends the text of ids; skip_special leaves out special tokens. Invalid UTF-8: U+FFFD as HF. */
qp_error_t qp_tokenizer_decode(const qp_tokenizer_t *tokenizer, const int32_t *id, int64_t n,
                               bool skip_special, qp_str_t *text);

/** Highest id + 1, added tokens included; ids may have holes. A model with fewer rows cannot take
 * every text. */
int64_t qp_tokenizer_n_vocab(const qp_tokenizer_t *tokenizer);
int32_t qp_tokenizer_bos(const qp_tokenizer_t *tokenizer); /**< -1: none */
int32_t qp_tokenizer_eos(const qp_tokenizer_t *tokenizer); /**< -1: none */
int32_t qp_tokenizer_pad(const qp_tokenizer_t *tokenizer); /**< -1: none */
/**
 * Appends the ids that end a sequence as far as the tokenizer's files say it, without duplicates:
 * eos_token, and GGUF's eos, eot and eom. config.json and generation_config.json may name more.
 */
void qp_tokenizer_eos_ids(const qp_tokenizer_t *tokenizer, qp_tokens_t *ids);
/** True if encoding with ADD_SPECIAL puts BOS first (the model's own rule). */
bool qp_tokenizer_adds_bos(const qp_tokenizer_t *tokenizer);
/** What encoding with ADD_SPECIAL puts behind a text; owned by the tokenizer. */
const qp_tokens_t *qp_tokenizer_suffix(const qp_tokenizer_t *tokenizer);
/** Id of a token by its exact text, or -1. */
int32_t qp_tokenizer_find(const qp_tokenizer_t *tokenizer, const char *text);
/** The model's chat template (Jinja text, see text/chat.h) or NULL; owned by the tokenizer. */
const char *qp_tokenizer_chat_template(const qp_tokenizer_t *tokenizer);
/** One of several templates by its name ("default", "tool_use", ...), or NULL. */
const char *qp_tokenizer_named_template(const qp_tokenizer_t *tokenizer, const char *name);
/** Text of a token as its vocabulary spells it (byte-level BPE: in the GPT-2 byte alphabet), or
 * NULL. */
const char *qp_tokenizer_token(const qp_tokenizer_t *tokenizer, int32_t id);
/**
 * Identity: shards store it, a run refuses shards of another tokenizer. It is a hash of what
 * decides the ids of a text: the model, normaliser, pre-tokeniser and post-processor, the added
 * tokens with their flags, BOS and EOS and whether they are put around a text. Lengths, padding,
 * truncation, decoders, chat templates, other named tokens and the way the JSON is written do not
 * enter.
 */
uint64_t qp_tokenizer_id(const qp_tokenizer_t *tokenizer);

#endif
