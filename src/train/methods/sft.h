/** \file sft.h  Supervised fine-tuning: mean cross-entropy over the counted targets of a batch. */
#ifndef QP_TRAIN_METHODS_SFT_H
#define QP_TRAIN_METHODS_SFT_H

#include "train/run/run.h"

/** job.method = "sft". Collective. */
qp_error_t qp_method_sft(qp_run_t *run);

#endif
