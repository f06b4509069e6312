/** \file adapter.h  LoRA adapters and their scalar heads. */
#ifndef QP_MODEL_ADAPTER_ADAPTER_H
#define QP_MODEL_ADAPTER_ADAPTER_H

#include "model/base/base.h"

/** Bounds of what is trained. */
#define QP_LORA_MAX_R 4096
#define QP_LORA_MIN_ALPHA 1e-6
#define QP_LORA_MAX_ALPHA 1e6

typedef struct {
    int64_t r;
    double alpha, dropout;
    bool use_rslora;
    qp_deck_strings_t targets; /**< of the deck: "q_proj", ... or "all-linear" */
    bool target[QP_N_LINEAR];  /**< the linears they name: qp_lora_resolve() */
    const char *init;          /**< adapter folder to start from (PEFT), or NULL */
} qp_lora_config_t;

extern const qp_deck_group_t qp_lora_deck;

/**
 * A scalar head, trained in full beside the LoRA matrices: value = hidden . weight (+ bias), in
 * fp32 on the hidden state after the last norm.
 *   SCORE: of a reward model, as HF's LlamaForSequenceClassification with one label; no bias.
 *   VALUE: of PPO's policy, as TRL's v_head.summary; with bias.
 */
typedef enum { QP_HEAD_NONE, QP_HEAD_SCORE, QP_HEAD_VALUE } qp_head_kind_t;

/** How its weights start: 0; as torch's nn.Linear, U(-1/sqrt(d), 1/sqrt(d)); N(0, init_std). */
typedef enum { QP_HEAD_ZEROS, QP_HEAD_LINEAR, QP_HEAD_NORMAL } qp_head_init_t;

typedef struct {
    int kind;        /**< qp_head_kind_t */
    int init;        /**< qp_head_init_t */
    double init_std; /**< of QP_HEAD_NORMAL */
    bool required;   /**< it must come with lora.init: a fresh one would be of no use */
    double dropout;  /**< of what it reads, in training */
} qp_head_config_t;

/** Parameters of a head. */
int64_t qp_head_n_param(int kind, int64_t d_model);

/** A and B of one target: offsets into the flat arrays. */
typedef struct {
    int layer;
    qp_linear_t linear;
    int64_t n_in, n_out;
    int64_t a, b; /**< element offsets of A [r, n_in] and B [n_out, r] */
} qp_lora_view_t;

/**
 * LoRA adapter (doc/numerics.md, LoRA): all A and B of all targets in one flat fp32 array, layer by
 * layer, so the optimiser, the reduction and the checkpoint each see one array. copy: bf16 working
 * copy (bf16 compute). In a layer the groups follow each other; of a group first the A of its
 * targets, one under the other, then their B. So one product with the stacked A [n_target * r,
 * n_in] serves a group. Behind the last layer stands the scalar head: weight [d_model], then its
 * bias.
 */
typedef struct {
    int64_t r;
    float scaling; /**< alpha / r, or alpha / sqrt(r) */
    float alpha, dropout;
    bool use_rslora;
    bool target[QP_N_LINEAR];
    int64_t n_layer, n_param;
    int64_t n_view;
    qp_lora_view_t *view; /**< layer by layer, in the order of QP_LINEARS */
    int head;             /**< qp_head_kind_t */
    float head_dropout;
    int64_t *layer_first; /**< [n_layer + 2] element offset of each layer's segment, then the
                               head's, then the end */
    qp_device_t *device;
    qp_dptr_t param, grad; /**< [n_param] fp32 */
    qp_dptr_t copy;        /**< [n_param] bf16, or none in fp32 compute */
} qp_adapter_t;

/** Fills config->target from the names of the deck; an unknown one: QP_INPUT with the nearest name.
 * Everything else reads config->target. */
qp_error_t qp_lora_resolve(qp_lora_config_t *config);
/**
 * What the adapter folder \a init fixes, as deck values: lines "lora.r=8" of r, alpha, use_rslora
 * and targets. Rank-local. No adapter there, tensors that its config does not name, r or alpha
 * outside the bounds of training: QP_INPUT.
 */
qp_error_t qp_lora_init_values(const char *init, qp_str_t *lines);
/**
 * The config of the adapter in a PEFT folder, which is its init. Every rank gets what rank 0 reads.
 * Collective.
 */
qp_error_t qp_lora_from_folder(qp_comm_t *comm, const char *folder, qp_lora_config_t *config);
/** Reads the adapter config->init, compares it with the deck and the model, and looks for the head
 * that it is to have, all of which qp_adapter_create() would do later. Rank-local. */
qp_error_t qp_lora_check_init(const qp_lora_config_t *config, const qp_head_config_t *head,
                              const qp_llama_config_t *model);
/** Parameters of an adapter on all layers; for the memory plan. */
int64_t qp_lora_n_param(const qp_llama_config_t *config, const qp_lora_config_t *lora);
/** Bytes of a device that an adapter with so many parameters takes. */
size_t qp_adapter_bytes(const qp_device_t *device, int64_t n_param);

/**
 * A ~ U(-1/sqrt(n_in), 1/sqrt(n_in)) by Philox (PEFT's kaiming_uniform(a = sqrt 5)), B = 0; or from
 * the PEFT folder config->init, whose r, alpha and targets must be the config's. The head (NULL:
 * none) comes from that folder too if it has one of this kind. Collective.
 */
qp_error_t qp_adapter_create(qp_comm_t *comm, const qp_base_t *base, const qp_lora_config_t *config,
                             const qp_head_config_t *head, uint32_t seed, qp_adapter_t **adapter);
/**
 * The score head of a base file that a reward adapter was merged into, as an adapter without LoRA
 * matrices. None there: QP_INPUT. Collective.
 */
qp_error_t qp_adapter_of_merged(qp_comm_t *comm, const qp_base_t *base, const char *path,
                                qp_adapter_t **adapter);
/** Whether such a head is there, for a model of d_model. Rank-local. */
qp_error_t qp_adapter_check_merged(const char *path, int64_t d_model);
void qp_adapter_destroy(qp_adapter_t **adapter);
/** Refreshes the bf16 copy from param (after loading; the optimiser does it itself). */
qp_error_t qp_adapter_refresh(qp_adapter_t *adapter);
/** Where a value head stands in an adapter's folder, which PEFT itself does not look at. */
#define QP_VALUE_HEAD_FILE "value_head.safetensors"
/**
 * PEFT folder: adapter_config.json + adapter_model.safetensors, a score head among the tensors as
 * PEFT saves a SEQ_CLS adapter; a value head in QP_VALUE_HEAD_FILE (v_head.summary.weight,
 * .bias). Rank-local (call on rank 0).
 */
qp_error_t qp_adapter_save(const qp_adapter_t *adapter, const qp_llama_config_t *config,
                           const char *base_name, const char *folder);

#endif
