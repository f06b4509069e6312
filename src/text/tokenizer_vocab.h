/** \file tokenizer_vocab.h  The tokens by id: text, surface in decoded text, special or not. */
#ifndef QP_TEXT_TOKENIZER_VOCAB_H
#define QP_TEXT_TOKENIZER_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "text/tokenizer_map.h"

enum { QP_MAX_VOCAB = 1 << 22 }; /* a larger id in a file is damage */

typedef struct {
    size_t text, n_text;       /**< in strings; NUL-terminated */
    size_t surface, n_surface; /**< in strings: what decoding writes */
    bool present, special;
} qp_vocab_entry_t;

/** Zero-initialise. Ids may have holes. */
typedef struct {
    qp_str_t strings;
    qp_vocab_entry_t *entry; /**< [n] */
    int64_t n, capacity;
    qp_textmap_t id_of; /**< text -> id */
} qp_vocab_t;

void qp_vocab_fini(qp_vocab_t *vocab);

/** Sets a token; its surface is its text. An id out of range or taken by another text: QP_INPUT. */
qp_error_t qp_vocab_put(qp_vocab_t *vocab, int64_t id, const char *text, size_t n_text);
void qp_vocab_set_surface(qp_vocab_t *vocab, int64_t id, const char *surface, size_t n_surface);

/** The token, or NULL for a hole or out of range. */
const qp_vocab_entry_t *qp_vocab_get(const qp_vocab_t *vocab, int64_t id);
const char *qp_vocab_text(const qp_vocab_t *vocab, const qp_vocab_entry_t *entry);
const char *qp_vocab_surface(const qp_vocab_t *vocab, const qp_vocab_entry_t *entry);

/** Character of GPT-2's byte alphabet that stands for a byte. */
uint32_t qp_gpt2_alphabet(unsigned char byte);
/** Appends the bytes that a text in the alphabet stands for; false (nothing kept) if it is not in
 * it. */
bool qp_gpt2_bytes(const char *text, size_t n_bytes, qp_str_t *bytes);

#endif
