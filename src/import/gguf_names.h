/** \file gguf_names.h  How llama.cpp names and orders what HF has. */
#ifndef QP_IMPORT_GGUF_NAMES_H
#define QP_IMPORT_GGUF_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/llama/llama.h"

/** llama.cpp's name of what LLaMA and Mistral models are; their keys begin with it. */
#define QP_GGUF_ARCHITECTURE "llama"

/** "model.layers.3.self_attn.q_proj.weight" to "blk.3.attn_q.weight"; the name must be in the
 * table. */
void qp_gguf_tensor_name(const char *hf_name, char *name, size_t n_bytes);

/**
 * llama.cpp rotates interleaved pairs, HF two halves: rows of q_proj and k_proj (weight, bias and
 * LoRA B) are permuted within each head. Gives the row in a GGUF file that holds HF's row \a row.
 */
int64_t qp_gguf_rope_row(int64_t row, int64_t head_dim);

/** True for the tensors that are permuted so. */
bool qp_gguf_is_permuted(const char *hf_name);

#endif
