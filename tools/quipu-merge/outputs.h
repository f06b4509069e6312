/** \file outputs.h  What quipu-merge writes. */
#ifndef QP_MERGE_OUTPUTS_H
#define QP_MERGE_OUTPUTS_H

#include "model/source.h"

/** A GGUF LoRA as llama.cpp's convert_lora_to_gguf writes it. A score head cannot go there:
 * QP_INPUT. */
qp_error_t qp_merge_write_gguf_lora(const qp_peft_t *peft, const qp_llama_config_t *config,
                                    const char *path);

/**
 * An HF folder that transformers loads: config, weights, tokenizer. Made under a temporary name; an
 * existing \a folder is refused.
 */
qp_error_t qp_merge_write_hf(qp_source_t *merged, qp_dtype_t dtype, const char *folder);

#endif
