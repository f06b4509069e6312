/**
 * \file chat.h
 * Chat messages to text and tokens, as HF's apply_chat_template does it: the model's own template
 * is run (jinja/jinja.h), and the tokens that the assistant writes are marked.
 *
 * Which those are: where the template has {% generation %} blocks, what stands in them, as
 * transformers' return_assistant_tokens_mask. Elsewhere what a model would have to write after the
 * generation prompt: an answer begins where the text of the messages before it with
 * add_generation_prompt ends (as TRL: at the end of what the two texts have in common), and ends
 * with the token that ends the turn.
 */
#ifndef QP_TEXT_CHAT_H
#define QP_TEXT_CHAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "text/tokenizer.h"

/** A template made ready for a tokenizer, which must outlive it. Thread-safe once made. */
typedef struct qp_chat_template qp_chat_template_t;

/**
 * Compiles \a text (\a name stands in messages), or the tokenizer's own template where text is
 * NULL: "default", and "tool_use" for what comes with tools. No template, or one that is not UTF-8
 * or cannot be run here: QP_INPUT. Not collective.
 */
qp_error_t qp_chat_template_create(const qp_tokenizer_t *tokenizer, const char *name,
                                   const char *text, qp_chat_template_t **chat_template);
void qp_chat_template_destroy(qp_chat_template_t **chat_template);

/** What is rendered; all JSON stays the caller's. */
typedef struct {
    /** Array of objects with at least "role"; all keys reach the template as they are ("content"
     * text or list of parts, "tool_calls", "reasoning_content", ...). */
    const json_t *messages;
    const json_t *tools;     /**< array of tool schemas, or NULL */
    const json_t *variables; /**< object of further variables ("enable_thinking", ...), or NULL */
    bool add_generation_prompt;
} qp_chat_input_t;

/** A run of bytes of the rendered text. */
typedef struct {
    size_t begin, end; /**< text.data[begin, end) */
    bool completion;   /**< written by the assistant */
} qp_chat_piece_t;

/** A rendered conversation; zero-initialise. The pieces cover the text without gaps, in order. */
typedef struct {
    qp_str_t text;
    qp_chat_piece_t *piece; /**< owned */
    int64_t n_piece, capacity;
} qp_chat_t;

void qp_chat_fini(qp_chat_t *chat);

/**
 * Renders (replacing what \a chat held) in time linear in the messages. What the template refuses,
 * and answers whose place cannot be told: QP_INPUT. Not collective.
 */
qp_error_t qp_chat_render(const qp_chat_template_t *chat_template, const qp_chat_input_t *input,
                          qp_chat_t *chat);

/**
 * Appends the ids of the rendered text (special tokens parsed, none added: the template writes BOS
 * itself) to \a tokens, and to \a completion (may be NULL) one 0 or 1 per id. A token that lies
 * across a border belongs to the answer, as transformers' char_to_token has it. Linear.
 */
qp_error_t qp_chat_encode(const qp_tokenizer_t *tokenizer, const qp_chat_t *chat,
                          qp_tokens_t *tokens, qp_tokens_t *completion);

#endif
