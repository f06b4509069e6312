/** \file base_impl.h  How a base stands in memory; shared by its planning and its loading. */
#ifndef QP_MODEL_BASE_BASE_IMPL_H
#define QP_MODEL_BASE_BASE_IMPL_H

#include "model/base/base.h"

/** A base without storage: sizes, kinds and modes of its weights. */
qp_base_t *qp_base_new(qp_device_t *device, const qp_base_info_t *info, qp_linear_mode_t mode);

/** Points all of the base's tensors into the block at \a start; returns the bytes they take. */
size_t qp_base_lay_out(qp_base_t *base, int64_t n_position, qp_dptr_t start);

/** Do the linears of a group have a bias? */
bool qp_group_has_bias(const qp_llama_config_t *config, qp_group_t group);

#endif
