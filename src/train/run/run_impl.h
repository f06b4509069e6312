/** \file run_impl.h  The inside of run.h, shared by its files: files, sizes and the memory plan. */
#ifndef QP_TRAIN_RUN_RUN_IMPL_H
#define QP_TRAIN_RUN_RUN_IMPL_H

#include "train/run/run.h"

/** Queries of shards are answered by the policy, and the answers get rewards. */
bool qp_run_rolls_out(const qp_run_t *run);

/** Whatever the run writes can be written: its folder, what is in it, prompts.output. QP_INPUT or
 * QP_IO naming the path; leaves nothing behind. Rank 0. */
qp_error_t qp_run_check_outputs(const qp_run_t *run);

/** Rows, answers, and the positions that they take; too many of them: QP_INPUT. Once data sets,
 * prompts and reward models are open. */
qp_error_t qp_run_size(qp_run_t *run);

/** The checkpoint to go on from as job.restart says, and what it was made from. Collective. */
qp_error_t qp_run_find_checkpoint(qp_run_t *run);
/** What the run reads by name; a checkpoint of another run, or made from other inputs, is refused.
 * Once data sets and reward models are open. Collective. */
qp_error_t qp_run_check_checkpoint(qp_run_t *run);

/** Fills the memory plan and chooses what to recompute. The same on all ranks. */
void qp_run_plan(qp_run_t *run);

/**
 * The adapters that share workspace and engine, as one that has the targets of all and the largest
 * rank: the policy's, a rival's, and that of a reward model on the same base.
 */
qp_lora_config_t qp_run_widest_lora(const qp_run_t *run);

#endif
