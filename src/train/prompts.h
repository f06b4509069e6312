/**
 * \file prompts.h
 * Prompts from a deck or a file of JSON lines, as tokens.
 */
#ifndef QP_TRAIN_PROMPTS_H
#define QP_TRAIN_PROMPTS_H

#include <jansson.h>

#include "comm/comm.h"
#include "deck/deck.h"
#include "text/tokenizer.h"

/** One line each: a JSON object with "prompt" or "messages", and the prompt's tokens. Same on all
 * ranks; owned. */
typedef struct {
    int64_t n;
    json_t **object;     /**< [n] */
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
 * From the lines of a file (also gzip) that rank 0 reads: {"prompt"} as text, {"prompt"} or
 * {"messages"} as a list of messages that the chat template writes, up to the opening of an answer;
 * "tools" and "chat_template_kwargs" are handed to it. Wrong lines: QP_INPUT "file:line: ...".
 * Collective.
 */
qp_error_t qp_prompts_from_file(qp_comm_t *comm, const qp_prompts_model_t *model, const char *path,
                                qp_prompts_t *prompts);
void qp_prompts_fini(qp_prompts_t *prompts);

#endif
