/**
 * \file tokenizer_bpe.h
 * Byte-pair encoding of one word: symbols are joined in the order of the merges' ranks, leftmost
 * first. Byte-level (GPT-2: a symbol is a byte) or by characters with byte fallback (LLaMA 2).
 */
#ifndef QP_TEXT_TOKENIZER_BPE_H
#define QP_TEXT_TOKENIZER_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/tokenizer.h"
#include "text/tokenizer_map.h"

/** U+2581, the space of SentencePiece's vocabularies. */
#define QP_METASPACE "\xe2\x96\x81"

/** The model; immutable once filled. Zero-initialise. */
typedef struct {
    bool byte_level;      /**< symbols are bytes, not characters */
    bool byte_fallback;   /**< a character without a token becomes the tokens of its bytes */
    bool fuse_unk;        /**< neighbouring unknown symbols become one unk */
    bool ignore_merges;   /**< a word that is a token is that token, whatever the merges say */
    int32_t unk;          /**< -1: unknown symbols are dropped */
    int32_t byte_id[256]; /**< token of a byte (alphabet of byte_level, or <0xNN>); -1: none */
    bool cut_words;    /**< no token holds U+2581 after another character: words can be cut there */
    qp_textmap_t word; /**< words that become one token, so most need no merging */
    qp_pairmap_t merge;
} qp_bpe_t;

/** Working memory of one caller; zero-initialise. */
typedef struct {
    void *symbol, *heap;
    size_t symbol_bytes, heap_bytes;
} qp_bpe_scratch_t;

void qp_bpe_fini(qp_bpe_t *bpe);
void qp_bpe_scratch_fini(qp_bpe_scratch_t *scratch);

/** Fills byte_id from the tokens of single bytes: byte_level's alphabet, or <0xNN>. */
void qp_bpe_find_bytes(qp_bpe_t *bpe, const qp_textmap_t *id_of);

/**
 * Makes the word table when byte_id and merge are filled: token i is text[i], n_bytes[i] bytes as
 * they stand in a text (NULL: cannot occur there).
 */
void qp_bpe_init_words(qp_bpe_t *bpe, const char *const *text, const size_t *n_bytes, int64_t n);

/**
 * Bytes of each unk that encoding the word gives, in their order (qp_free); the bytes of all other
 * ids are known from their texts.
 */
int32_t *qp_bpe_unknown_lengths(const qp_bpe_t *bpe, const char *word, size_t n_bytes);

/** Appends the ids of a word (valid UTF-8). Time O(n log n) whatever the word. */
void qp_bpe_encode(const qp_bpe_t *bpe, const char *word, size_t n_bytes, qp_bpe_scratch_t *scratch,
                   qp_tokens_t *tokens);

#endif
