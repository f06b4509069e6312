/**
 * \file adapter_peft_config.h
 * adapter_config.json as PEFT's LoraConfig reads it. Every key is used as PEFT uses it, without
 * effect in PEFT too, or refused by name; nothing is known of tensors. For adapter_peft*.c.
 */
#ifndef QP_MODEL_ADAPTER_ADAPTER_PEFT_CONFIG_H
#define QP_MODEL_ADAPTER_ADAPTER_PEFT_CONFIG_H

#include <jansson.h>

#include "model/llama/llama.h"

typedef struct {
    char *path;   /**< of the file, for messages */
    json_t *root; /**< owns base_name */
    int64_t r;
    double alpha, dropout;
    bool use_rslora;
    bool has_score;        /**< the head is part of the adapter: modules_to_save, or SEQ_CLS */
    const char *base_name; /**< base_model_name_or_path, or NULL */
} qp_peft_config_t;

/** Reads the file of an adapter folder; to be ended by _fini in any case. QP_INPUT on failure. */
qp_error_t qp_peft_config_read(const char *folder, qp_peft_config_t *config);
void qp_peft_config_fini(qp_peft_config_t *config);

/**
 * The linears that get LoRA in a model of \a n_layer layers, by target_modules and exclude_modules
 * as PEFT matches them with the names of modules. One that gets it in some layers only, or another
 * module than a linear of a layer: QP_INPUT.
 */
qp_error_t qp_peft_config_targets(const qp_peft_config_t *config, int64_t n_layer,
                                  bool target[QP_N_LINEAR]);

#endif
