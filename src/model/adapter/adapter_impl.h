/** \file adapter_impl.h  The parts of an adapter that the forward and backward passes address. */
#ifndef QP_MODEL_ADAPTER_ADAPTER_IMPL_H
#define QP_MODEL_ADAPTER_ADAPTER_IMPL_H

#include "model/adapter/adapter.h"

/** The targets of one group of one layer: adapter->view[first, first + n). */
typedef struct {
    int64_t first, n;
} qp_lora_group_t;
qp_lora_group_t qp_adapter_group(const qp_adapter_t *adapter, int64_t layer, qp_group_t group);

/** Reads config->init (PEFT) into host memory param [n_param]; it must match the deck. A head that
 * is not there is left as it is, unless it is required. Rank-local. */
qp_error_t qp_adapter_read(const qp_adapter_t *adapter, const qp_lora_config_t *config,
                           const qp_head_config_t *head, const qp_llama_config_t *model,
                           float *param);

#endif
