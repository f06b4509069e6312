/** \file adapter_peft_names.h  File and tensor names of PEFT; for adapter_peft*.c. */
#ifndef QP_MODEL_ADAPTER_ADAPTER_PEFT_NAMES_H
#define QP_MODEL_ADAPTER_ADAPTER_PEFT_NAMES_H

#include "model/llama/llama.h"

#define QP_PEFT_CONFIG "adapter_config.json"
#define QP_PEFT_TENSORS "adapter_model.safetensors"
#define QP_PEFT_PICKLE "adapter_model.bin"
#define QP_PEFT_LAYER "base_model.model.model.layers.%ld." /* beginning of a name, to scan */
#define QP_PEFT_SCORE "base_model.model.score.weight"

enum { QP_PEFT_NAME_BYTES = 128 };

/** "base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight"; matrix is 'A' or 'B', adapter
 * what stands before ".weight": "" in files of PEFT. */
void qp_peft_tensor_name(int64_t layer, qp_linear_t linear, char matrix, const char *adapter,
                         char name[QP_PEFT_NAME_BYTES]);

#endif
