/**
 * \file answers.h
 * Answers to a list of prompts: shared out over the ranks, gathered in order, as lines of JSON.
 */
#ifndef QP_TRAIN_ANSWERS_ANSWERS_H
#define QP_TRAIN_ANSWERS_ANSWERS_H

#include "base/str.h"
#include "train/answers/answerer.h"
#include "train/answers/prompts.h"

/** Sums over all answers. */
typedef struct {
    int64_t n_answer, n_token;
    int64_t n_prompt_token, n_shared; /**< n_shared of them were computed for another prompt */
} qp_answer_count_t;

/** How prompts are answered, besides the engine's own config. */
typedef struct {
    int64_t n_answer; /**< to each prompt */
    int64_t max_new_tokens;
    int64_t step; /**< of the random numbers, and in the lines; -1: none */
} qp_answer_config_t;

/**
 * Answers all prompts. On rank 0 \a lines gets, in order, each
 * prompt's object with "completion", "n_token" and "stopped" (false: cut by length) added, "answer"
 * (its number) if there are several, and "step" in front if step >= 0. The answers do not depend on
 * the rank count, and the first ones not on how many there are. \a count may be NULL. Collective.
 */
qp_error_t qp_answer(const qp_answerer_t *who, const qp_prompts_t *prompts,
                     const qp_answer_config_t *config, qp_str_t *lines, qp_answer_count_t *count);

#endif
