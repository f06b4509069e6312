/**
 * \file reward_command.h
 * Rewards from an external program, started once per rank. For each answer it gets one line of JSON
 * on its standard input, {"prompt": "...", "response": "..."}, and owes one line of JSON on its
 * standard output, {"reward": 1.5}, in the same order, flushed at once; other members are ignored.
 * Its standard error is the run's.
 *
 * The lines are ASCII (other characters as \uXXXX), so that the program's locale does not matter;
 * bytes that are no UTF-8 arrive as U+FFFD. The program gets no other descriptor of the run. It is
 * in a process group of its own and starts with SIGTERM, SIGUSR1 and SIGINT blocked: they ask the
 * run for a checkpoint and must not end the program before.
 */
#ifndef QP_TRAIN_ANSWERS_REWARD_COMMAND_H
#define QP_TRAIN_ANSWERS_REWARD_COMMAND_H

#include "deck/deck.h"

typedef struct qp_reward_command qp_reward_command_t;

/**
 * Starts the program argv[0] (found by PATH; no shell). timeout: seconds that the answer to one
 * line may take. It cannot be started: QP_INPUT; no pipes: QP_IO. Rank-local.
 */
qp_error_t qp_reward_command_start(const qp_deck_strings_t *argv, double timeout,
                                   qp_reward_command_t **command);

/** A prompt and its response: UTF-8, not NUL-terminated, NUL is a character like others. */
typedef struct {
    const char *prompt, *response;
    size_t n_prompt, n_response;
} qp_reward_text_t;

/**
 * Rewards of n pairs of texts, all finite. All lines are written while answers are read, so that
 * neither side waits for the other with full pipes. The clock of the timeout starts with the call
 * (for the first one the program may still be loading) and again with each complete answer. QP_IO:
 * - the program died or closed its input or output; exit status, how many answers it gave and a
 *   line it left unfinished are named;
 * - it is silent for longer than the timeout;
 * - it answers something else than an object with a number "reward" ("NaN" is no JSON); the line is
 *   shown, cut to 80 characters;
 * - it wrote more than was asked for, now or since the call before.
 * The command is then of no more use but for qp_reward_command_stop(). Rank-local.
 */
qp_error_t qp_reward_command_score(qp_reward_command_t *command, const qp_reward_text_t *text,
                                   int64_t n, double *reward);

/**
 * Closes the program's standard input and gives it 2 s to end; then SIGHUP and 1 s; then SIGKILL.
 * A status other than 0 is a warning, unless the command has already failed. NULL is allowed.
 */
void qp_reward_command_stop(qp_reward_command_t **command);

#endif
