/** \file reward.h  job.method = "reward": a reward model from pairs (doc/rlhf.md). */
#ifndef QP_TRAIN_METHODS_REWARD_H
#define QP_TRAIN_METHODS_REWARD_H

#include "train/run/run.h"

/** Collective. */
qp_error_t qp_method_reward(qp_run_t *run);

#endif
