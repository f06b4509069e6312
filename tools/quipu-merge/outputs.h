/** \file outputs.h  What quipu-merge writes. */
#ifndef QP_MERGE_OUTPUTS_H
#define QP_MERGE_OUTPUTS_H

#include "import/source.h"

/**
 * Checks the paths before the long work: a newline in a name, an output that is one of the inputs,
 * one that exists (a folder that is empty may, and a file where a file is written, which is
 * replaced): QP_INPUT. No folder to write it in: QP_IO.
 */
qp_error_t qp_merge_check_paths(const char *const *in, int n_in, const char *out, bool as_folder);

/** A GGUF LoRA as llama.cpp's convert_lora_to_gguf writes it. A score head cannot go there:
 * QP_INPUT. */
qp_error_t qp_merge_write_gguf_lora(const qp_peft_t *peft, const qp_llama_config_t *config,
                                    const char *path);

/**
 * An HF folder that transformers loads: config, weights, tokenizer. Made under a temporary name; an
 * existing \a folder must be empty.
 */
qp_error_t qp_merge_write_hf(qp_source_t *merged, qp_dtype_t dtype, const char *folder);

/** Change of logits on a few prompts; of absolute values. */
typedef struct {
    double mean, max;
} qp_logit_change_t;
/**
 * Runs \a base (a base.h5 with a tokenizer) with the adapter folder, then the merged base, in fp32.
 * Loads one after the other. Starts and ends MPI.
 */
qp_error_t qp_merge_logit_change(qp_source_t *base, const char *adapter, const qp_peft_t *peft,
                                 const char *merged, qp_logit_change_t *change);

#endif
