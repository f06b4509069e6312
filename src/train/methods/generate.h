/** \file generate.h  job.method = "generate": prompts from a file of JSON lines, answers to
 * another. */
#ifndef QP_TRAIN_METHODS_GENERATE_H
#define QP_TRAIN_METHODS_GENERATE_H

#include "train/run/run.h"

/** Answers prompts.input into prompts.output, in order. Collective. */
qp_error_t qp_method_generate(qp_run_t *run);

#endif
