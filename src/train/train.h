/** \file train.h  One call for the program: from a checked deck to the finished run. */
#ifndef QP_TRAIN_TRAIN_H
#define QP_TRAIN_TRAIN_H

#include "train/settings.h"

/**
 * Runs what the deck asks for; with \a dry all checks and the memory plan, then nothing.
 * Collective; every rank returns the same.
 */
qp_error_t qp_train(qp_comm_t *comm, const qp_settings_t *settings, bool dry);

#endif
