/**
 * \file adapter_peft.h
 * LoRA adapters in PEFT's own format: a folder with adapter_config.json and
 * adapter_model.safetensors (doc/numerics.md, LoRA). Here an adapter is plain host memory; nothing
 * is known of devices or training.
 */
#ifndef QP_MODEL_ADAPTER_ADAPTER_PEFT_H
#define QP_MODEL_ADAPTER_ADAPTER_PEFT_H

#include "model/llama/llama.h"

/** A and B of one linear of one layer; they point into memory of whoever made the adapter. */
typedef struct {
    int64_t layer;
    qp_linear_t linear;
    int64_t n_in, n_out;
    const float *a; /**< [r, n_in] */
    const float *b; /**< [n_out, r] */
} qp_peft_pair_t;

typedef struct {
    int64_t r;
    double alpha, dropout;
    bool use_rslora;
    bool target[QP_N_LINEAR];
    int64_t n_pair;
    qp_peft_pair_t *pair;  /**< layer by layer, in the order of QP_LINEARS */
    int64_t d_model;       /**< columns of the score head */
    int64_t n_score;       /**< rows of the score head; 0: none */
    const float *score;    /**< [n_score, d_model], or NULL */
    const char *base_name; /**< base_model_name_or_path, or NULL */
    void *owned; /**< what qp_peft_read allocated; NULL when the caller filled the struct */
} qp_peft_t;

/** alpha / r, or alpha / sqrt(r) with rsLoRA. */
double qp_peft_scaling(const qp_peft_t *peft);

/**
 * Reads an adapter folder and checks it against the model: what this program cannot honour (DoRA,
 * rank patterns, trained biases, other modules_to_save than the score head, ...), a missing or
 * unexpected tensor, a wrong shape, a NaN: QP_INPUT naming file and tensor. Any of F32, F16, BF16.
 */
qp_error_t qp_peft_read(const char *folder, const qp_llama_config_t *config, qp_peft_t *peft);
/** r, alpha, dropout, use_rslora and the targets alone, without a model to compare with. */
qp_error_t qp_peft_read_shape(const char *folder, qp_peft_t *peft);
/** Frees what qp_peft_read allocated; zeroes the struct. */
void qp_peft_fini(qp_peft_t *peft);

/**
 * Writes the folder (made if absent) with fp32 tensors under PEFT's names; each file appears
 * complete or not at all. Rank-local. Failure: QP_IO.
 */
qp_error_t qp_peft_write(const char *folder, const qp_peft_t *peft);

#endif
