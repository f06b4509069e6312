/**
 * \file stop.h
 * When to stop early. Each rank contributes what it alone can see (a signal); rank 0 adds the stop
 * file and the clock; one reduced word decides for all.
 */
#ifndef QP_TRAIN_LOOP_STOP_H
#define QP_TRAIN_LOOP_STOP_H

#include <stdbool.h>
#include <stdint.h>

#include "train/settings.h"

/** Bits of the decision word of a step. */
typedef enum {
    QP_WORD_FAILED = 1, /**< some rank holds an error: agree on it */
    QP_WORD_SIGNAL = 2, /**< SIGTERM, SIGUSR1 or SIGINT */
    QP_WORD_FILE = 4,   /**< <run>/stop exists */
    QP_WORD_TIME = 8,   /**< the wall time runs out */
    QP_WORD_STEPS = 16  /**< checkpoint.stop_after_steps are done */
} qp_word_t;

typedef struct {
    char *file;      /**< the stop file, owned */
    double deadline; /**< on qp_time()'s clock; infinite when there is no limit */
    double margin;   /**< seconds; negative: from the two measurements below */
    double checkpoint_seconds, step_seconds; /**< longest so far (a step: with its evaluation; a
                                                checkpoint: that of the start before, too) */
} qp_stop_t;

/** Catches the signals from here on, to the end of the process: handlers only set flags, but that a
 * second SIGINT ends it. Those that came before count no more. */
void qp_stop_catch(void);
/** Whether SIGTERM or SIGINT has come to this rank: mpirun kills two seconds behind them. */
bool qp_stop_hurries(void);

/** Works out the deadline. */
void qp_stop_init(qp_stop_t *stop, const qp_settings_t *settings, const char *folder);
void qp_stop_fini(qp_stop_t *stop);

/** This rank's bits now. Rank-local: OR them over ranks. */
uint64_t qp_stop_bits(const qp_stop_t *stop, int rank);

/** Seconds before the deadline at which the run stops. */
double qp_stop_margin(const qp_stop_t *stop);

/** "a signal", "the stop file", ... for the log. */
const char *qp_stop_reason(uint64_t word);

/** Removes the stop file, so that the continued run does not stop at once. Rank 0. */
void qp_stop_forget_file(const qp_stop_t *stop);

#endif
