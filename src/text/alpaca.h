/**
 * \file alpaca.h
 * Rows as Alpaca has them: "instruction", "input" (none, where it is empty), and, as others added
 * to them, "system" and "history" (pairs of an earlier instruction and its answer). The answer,
 * "output", is not read here. A value of another type: QP_INPUT. Not collective, thread-safe.
 */
#ifndef QP_TEXT_ALPACA_H
#define QP_TEXT_ALPACA_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/str.h"

/** Appends the messages up to the user's last one, for models with a chat template. */
qp_error_t qp_alpaca_messages(const json_t *row, json_t *messages);

/** Appends the prompt of the Alpaca models, for models without a template. *has_more: there is a
 * system prompt or a history, for which it has no place; then it is QP_INPUT. */
qp_error_t qp_alpaca_text(const json_t *row, qp_str_t *prompt, bool *has_more);

#endif
