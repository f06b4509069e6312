/**
 * \file tokenizer_added.h
 * Added tokens: texts that are found in the input before anything else and become one id each, such
 * as "<|im_end|>". The leftmost match wins, then the longest, as in HF tokenizers.
 */
#ifndef QP_TEXT_TOKENIZER_ADDED_H
#define QP_TEXT_TOKENIZER_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t id;
    bool special;        /**< found only when special tokens are parsed; left out by skip_special */
    bool lstrip, rstrip; /**< takes the white space beside it along */
} qp_added_t;

typedef struct qp_added_node qp_added_node_t;

/** A set of them as a trie; zero-initialise. */
typedef struct {
    qp_added_node_t *node;
    int32_t n_node, capacity;
    int32_t first[256]; /**< root's children by byte; 0: none */
} qp_added_set_t;

void qp_added_fini(qp_added_set_t *set);
/** Adds a token by its text (not empty; a second one of the same text replaces the first). */
void qp_added_put(qp_added_set_t *set, const char *text, size_t n_bytes, qp_added_t token);

/** A found token and the bytes it takes. */
typedef struct {
    qp_added_t token;
    size_t begin, end;
} qp_added_match_t;

/** First match at or after \a from; false if there is none. Special ones count only if asked for.
 */
bool qp_added_find(const qp_added_set_t *set, const char *text, size_t n_bytes, size_t from,
                   bool parse_special, qp_added_match_t *match);

#endif
