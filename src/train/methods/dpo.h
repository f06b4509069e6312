/** \file dpo.h  job.method = "dpo": direct preference optimisation (Rafailov et al. 2023). */
#ifndef QP_TRAIN_METHODS_DPO_H
#define QP_TRAIN_METHODS_DPO_H

#include "train/run/run.h"

/** Collective. */
qp_error_t qp_method_dpo(qp_run_t *run);

#endif
