/**
 * \file chat.h
 * Chat messages to text. The model's own chat template is Jinja; it is not interpreted but
 * recognised by its markers as one of the well-known ones (ChatML, Llama 2, Llama 3, Mistral,
 * Zephyr), which are written out here. Anything else is refused with the list of the known ones.
 */
#ifndef QP_TEXT_CHAT_H
#define QP_TEXT_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "text/tokenizer.h"

typedef struct {
    const char *role;    /**< "system", "user" or "assistant" */
    const char *content; /**< UTF-8 */
} qp_chat_message_t;

/** A run of bytes of the rendered text. */
typedef struct {
    size_t begin, end; /**< text.data[begin, end) */
    bool completion;   /**< written by the assistant: its answer with the end-of-turn token */
} qp_chat_piece_t;

/** A rendered conversation; zero-initialise. The pieces cover the text without gaps, in order. */
typedef struct {
    qp_str_t text;
    qp_chat_piece_t *piece; /**< owned */
    int64_t n_piece, capacity;
} qp_chat_t;

void qp_chat_fini(qp_chat_t *chat);

/**
 * Renders messages (replacing what \a chat held) as HF's apply_chat_template does for this
 * tokenizer, BOS included where the template writes it; add_generation_prompt ends with the opening
 * of an assistant turn. No template, an unknown template, an unknown role or a wrong order of
 * roles: QP_INPUT. Not collective.
 */
qp_error_t qp_chat_render(const qp_tokenizer_t *tokenizer, const qp_chat_message_t *message,
                          int64_t n_message, bool add_generation_prompt, qp_chat_t *chat);

/**
 * Appends the ids of the rendered text (special tokens parsed, none added) to \a tokens, and to
 * \a completion (may be NULL) one 0 or 1 per id. The text is tokenised as a whole; a piece begins
 * where the ids of the text before it end, so ids are those of HF.
 */
qp_error_t qp_chat_encode(const qp_tokenizer_t *tokenizer, const qp_chat_t *chat,
                          qp_tokens_t *tokens, qp_tokens_t *completion);

#endif
