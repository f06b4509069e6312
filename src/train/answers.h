/**
 * \file answers.h
 * Answers to a list of prompts: shared out over the ranks, gathered in order, as lines of JSON.
 */
#ifndef QP_TRAIN_ANSWERS_H
#define QP_TRAIN_ANSWERS_H

#include "base/str.h"
#include "train/run.h"

/**
 * Answers all prompts. On rank 0 \a lines gets, in order, each prompt's object with "completion",
 * "n_token" and "stopped" (false: cut by length) added, and "step" in front if step >= 0. The
 * answers do not depend on the rank count. n_token (may be NULL) gets the tokens of all answers.
 * Collective.
 */
qp_error_t qp_answer(qp_run_t *run, const qp_prompts_t *prompts, int64_t step, qp_str_t *lines,
                     int64_t *n_token);

#endif
