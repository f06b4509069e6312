/**
 * \file prompts.h
 * Prompts from a deck or a file of rows of JSON, as tokens.
 */
#ifndef QP_TRAIN_ANSWERS_PROMPTS_H
#define QP_TRAIN_ANSWERS_PROMPTS_H

#include "base/str.h"
#include "comm/comm.h"
#include "deck/deck.h"
#include "text/tokenizer.h"

/** Rows and the tokens of their prompts. Same on all ranks; owned. */
typedef struct {
    int64_t n;
    qp_str_t *row;       /**< [n] JSON objects as they stood, each one line: qp_json_compact() */
    qp_tokens_t *tokens; /**< [n] */
    int64_t longest;     /**< tokens */
} qp_prompts_t;

/** What is going to answer. */
typedef struct {
    const qp_tokenizer_t *tokenizer;
    int64_t n_vocab;           /**< a prompt with an id from here on is refused */
    const char *chat_template; /**< file; NULL: the tokenizer's own */
} qp_prompts_model_t;

/** From texts. Rank-local. */
qp_error_t qp_prompts_from_texts(const qp_prompts_model_t *model, const qp_deck_strings_t *texts,
                                 qp_prompts_t *prompts);
/**
 * From the lines of a file (also gzip), or one JSON array, that rank 0 reads. The form of a row
 * follows from the first of these keys that has a value: "prompt" (a text as it is, or messages),
 * "messages", "conversations" (ShareGPT), "instruction" (Alpaca). Messages are written by the chat
 * template, up to the opening of an answer; "tools" and "chat_template_kwargs" are handed to it,
 * and the assistant's turns at the end of "messages" and "conversations" are left out. Wrong rows:
 * QP_INPUT "file:line: ...". A file that cannot be read: QP_INPUT naming the deck's key.
 * Collective.
 */
qp_error_t qp_prompts_from_file(qp_comm_t *comm, const qp_prompts_model_t *model, const char *path,
                                qp_prompts_t *prompts);
void qp_prompts_fini(qp_prompts_t *prompts);

#endif
