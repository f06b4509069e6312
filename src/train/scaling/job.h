/** \file job.h  From a run that was looked at to the work of its step. */
#ifndef QP_TRAIN_SCALING_JOB_H
#define QP_TRAIN_SCALING_JOB_H

#include "train/run/run.h"
#include "train/scaling/scaling.h"

/** Reads rows of the training data: as many as tell, from the first epoch's beginning. */
qp_error_t qp_scaling_look_at_data(const qp_run_t *run, qp_scaling_data_t *data);
/** The work of the run as it is sized now (qp_run_plan_for()). */
qp_job_t qp_scaling_job(const qp_run_t *run, const qp_scaling_data_t *data);

#endif
