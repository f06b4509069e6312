/**
 * \file model.h
 * One frozen base, many roles. A role is base + adapter (or none) + head (or none); switching roles
 * switches pointers.
 */
#ifndef QP_MODEL_MODEL_H
#define QP_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/comm.h"
#include "compute/ops.h"
#include "deck/deck.h"
#include "model/base_file.h"

/* --- base ------------------------------------------------------------------------------------- */

/** Choices of base.activation and base.gradient. */
typedef enum { QP_PRODUCT_INT8, QP_PRODUCT_BF16 } qp_product_t;

typedef struct {
    const char *file;
    int activation; /**< "int8|bf16" (qp_product_t): bf16 is the weight-only mode */
    int gradient;   /**< "int8|bf16" (qp_product_t); int8 in the rotated basis only */
    double outlier_threshold;
} qp_base_config_t;

extern const qp_deck_group_t qp_base_deck;

/**
 * The products of a layer that share an input are one packed weight: qkv = [q; k; v], gate_up =
 * [gate; up]. QP_LINEARS rows address row ranges of these.
 */
typedef enum { QP_GROUP_QKV, QP_GROUP_O, QP_GROUP_GATE_UP, QP_GROUP_DOWN, QP_N_GROUP } qp_group_t;

/** The linears [first, first + n) of a group, in the order of QP_LINEARS. */
typedef struct {
    qp_linear_t first;
    int n;
} qp_group_linears_t;
qp_group_linears_t qp_group_linears(qp_group_t group);
qp_group_t qp_linear_group(qp_linear_t linear);
/** First output feature of a linear inside its group's weight. */
int64_t qp_linear_first_out(const qp_llama_config_t *config, qp_linear_t linear);
/** Output and input features of a group. */
int64_t qp_group_n_out(const qp_llama_config_t *config, qp_group_t group);
int64_t qp_group_n_in(const qp_llama_config_t *config, qp_group_t group);

typedef struct {
    qp_weight_t group[QP_N_GROUP];
    qp_dptr_t input_norm, post_norm; /**< [d_model] fp32 */
} qp_layer_t;

/** The frozen base on this rank's device; read-only after loading. */
typedef struct {
    qp_llama_config_t config;
    qp_weight_kind_t precision;
    uint64_t base_id;
    qp_device_t *device;
    qp_layer_t *layer;   /**< [n_layer] */
    qp_mat_t embedding;  /**< [n_vocab, d_model] bf16 or fp32 */
    qp_mat_t lm_head;    /**< the same when tied */
    qp_dptr_t norm;      /**< [d_model] fp32 */
    qp_mat_t rope;       /**< [max positions used, head_dim] fp32 */
    qp_shared_t *shared; /**< node-shared arena, or NULL: storage is on the device */
    qp_dptr_t storage;
} qp_base_t;

/** Bytes of the arena (per node on the CPU, per rank on a GPU); for the memory plan. */
size_t qp_base_bytes(const qp_device_t *device, const qp_base_info_t *info, int64_t n_position);

/**
 * Loads a base; each tensor is read once per node, packed by the node's ranks together. n_position
 * bounds the positions that will be used. Collective. Damage: QP_INPUT naming file and tensor.
 */
qp_error_t qp_base_load(qp_comm_t *comm, qp_device_t *device, const qp_base_config_t *config,
                        int64_t n_position, qp_base_t **base);
void qp_base_destroy(qp_comm_t *comm, qp_base_t **base);

/* --- adapter ---------------------------------------------------------------------------------- */

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
 * and targets. Rank-local. No adapter there: QP_INPUT.
 */
qp_error_t qp_lora_init_values(const char *init, qp_str_t *lines);
/**
 * The config of the adapter in a PEFT folder, which is its init. Every rank gets what rank 0 reads.
 * Collective.
 */
qp_error_t qp_lora_from_folder(qp_comm_t *comm, const char *folder, qp_lora_config_t *config);
/** Reads the adapter config->init and compares it with the deck and the model. Rank-local. */
qp_error_t qp_lora_check_init(const qp_lora_config_t *config, const qp_llama_config_t *model);
/** Parameters of an adapter on all layers; for the memory plan. */
int64_t qp_lora_n_param(const qp_llama_config_t *config, const qp_lora_config_t *lora);

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

/* --- role, forward, backward ------------------------------------------------------------------ */

typedef struct {
    const qp_base_t *base;
    qp_adapter_t *adapter; /**< NULL: the base alone (the reference model) */
} qp_role_t;

/**
 * Activations and scratch for micro-batches up to max_token tokens; made once, before the loop.
 * lora NULL: for the base alone, no backward. recompute (definite, not AUTO):
 *   LAYER keeps the input of each layer, the rest of a layer is recomputed in backward;
 *   NONE  keeps of each layer also the residual after attention, q k v after rope, the output of
 *         attention and its lse, and gate_up. Both give the same bits.
 */
typedef struct qp_workspace qp_workspace_t;
size_t qp_workspace_bytes(const qp_base_t *base, const qp_lora_config_t *lora, int64_t max_token,
                          qp_recompute_t recompute);
qp_error_t qp_workspace_create(const qp_base_t *base, const qp_lora_config_t *lora,
                               int64_t max_token, qp_recompute_t recompute, qp_workspace_t **ws);
void qp_workspace_destroy(qp_workspace_t **ws);

/** A ragged batch of host arrays; see qp_batch_t of the data module for the meaning. */
typedef struct {
    int64_t n_token, n_seq;
    const int32_t *token, *target, *position, *cu_seqlens;
    const uint32_t *sample;
    const uint8_t *valued; /**< [n_token] 1: the scalar head reads this token; NULL: none */
} qp_model_batch_t;

/** What the heads of a role say of a batch: host arrays [n_token], each may be NULL. */
typedef struct {
    float *logprob; /**< of the target; 0 where there is none */
    float *entropy; /**< of the distribution over the vocabulary; 0 likewise */
    float *value;   /**< of the scalar head; 0 where batch->valued does not ask */
} qp_model_outputs_t;

typedef struct {
    bool training;       /**< dropout on */
    qp_philox_key_t key; /**< seed and step of dropout */
    /** Called when the gradients of layer \a layer are final in this backward (adapter->grad
     * segment). */
    void (*layer_done)(void *owner, int64_t layer);
    void *owner;
} qp_pass_t;

/** Final hidden states (after the last norm) of every token, in ws: [n_token, d_model]. */
qp_error_t qp_model_forward(qp_workspace_t *ws, const qp_role_t *role,
                            const qp_model_batch_t *batch, const qp_pass_t *pass);
qp_mat_t qp_model_hidden(const qp_workspace_t *ws);
/**
 * Backward of the last forward, once, from dhidden (after the last norm); adds to
 * role->adapter->grad. Layer 0 is followed down to its lowest adapter only.
 */
qp_error_t qp_model_backward(qp_workspace_t *ws, const qp_role_t *role, qp_mat_t dhidden,
                             const qp_pass_t *pass);

/**
 * Forward and heads of one micro-batch; each head sees only the rows that ask for it. With
 * \a backward the next call may be qp_model_outputs_backward().
 */
qp_error_t qp_model_outputs(qp_workspace_t *ws, const qp_role_t *role,
                            const qp_model_batch_t *batch, const qp_pass_t *pass, bool backward,
                            const qp_model_outputs_t *outputs);
/**
 * KL over the whole vocabulary. keep() puts aside the rows whose log-probabilities the last outputs
 * gave (without backward); after the outputs of another role on the same batch, kl [n_token] gets
 * the KL of the kept distributions to these, 0 where there is no target.
 */
qp_error_t qp_model_keep(qp_workspace_t *ws);
qp_error_t qp_model_kl(qp_workspace_t *ws, const qp_model_batch_t *batch, float *kl);
/**
 * Backward of the last qp_model_outputs(), once, from the gradients of its outputs: host arrays
 * [n_token] or NULL, of which only what was asked for counts. Adds to adapter->grad. Calls
 * layer_done for each layer in any case.
 */
qp_error_t qp_model_outputs_backward(qp_workspace_t *ws, const qp_role_t *role,
                                     const qp_model_batch_t *batch, const qp_pass_t *pass,
                                     const float *dlogprob, const float *dvalue);

/**
 * Forward, cross-entropy and (unless weight == 0) backward of one micro-batch. loss_sum = sum over
 * counted targets of -log p; the gradient added to adapter->grad is of weight * loss_sum.
 * logprob: host [n_token] or NULL, 0 where nothing is counted. The head sees only rows with a
 * target. An empty batch or one without targets gives 0 and still calls layer_done for each layer.
 */
qp_error_t qp_model_step(qp_workspace_t *ws, const qp_role_t *role, const qp_model_batch_t *batch,
                         const qp_pass_t *pass, float weight, double *loss_sum, float *logprob);

#endif
