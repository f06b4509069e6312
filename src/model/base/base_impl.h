/** \file base_impl.h  How a base stands in memory; for its loading. */
#ifndef QP_MODEL_BASE_BASE_IMPL_H
#define QP_MODEL_BASE_BASE_IMPL_H

#include "model/base/base.h"

/** Points all of the base's tensors into its storage, of qp_base_bytes(). */
void qp_base_lay_out(qp_base_t *base, qp_linear_mode_t mode, int64_t n_position);

#endif
