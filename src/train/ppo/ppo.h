/** \file ppo.h  job.method = "ppo": PPO against rewards, with a KL penalty to the base
 * (doc/rlhf.md). */
#ifndef QP_TRAIN_PPO_PPO_H
#define QP_TRAIN_PPO_PPO_H

#include "train/run/run.h"

/** Collective. */
qp_error_t qp_method_ppo(qp_run_t *run);

#endif
