/**
 * \file work.h
 * Operations and bytes of what a run does, counted from the model's shapes as the code does it: the
 * passes of model/pass, the engine, the optimiser. Pure arithmetic; looks at no file and no device.
 *
 * Letters as in layer.h: T tokens, D = d_model, H = n_head, G = n_kv_head, E = head_dim, F = d_ff,
 * V = n_vocab, r the adapter's rank. A multiplication with its addition is two operations.
 */
#ifndef QP_TRAIN_SCALING_WORK_H
#define QP_TRAIN_SCALING_WORK_H

#include "model/adapter/adapter.h"
#include "train/scaling/machine.h"

/** Work: adds up and scales. bytes: what goes to memory and comes from there, at least. */
typedef struct {
    double ops[QP_N_WORK], bytes[QP_N_WORK];
    double n_op; /**< ops of the table */
} qp_work_t;

/** A role, and how it computes. */
typedef struct {
    const qp_llama_config_t *config;
    const qp_lora_config_t *lora;      /**< NULL: the base alone */
    qp_work_class_t forward, backward; /**< of the frozen linears: QP_WORK_INT8 or QP_WORK_FLOAT */
    qp_work_class_t head;              /**< QP_WORK_HEAD, or QP_WORK_INT8 of an int8 head */
    double weight_bytes, head_bytes;   /**< of an element */
    double real_bytes;                 /**< of an activation: 2 or 4 */
    double kv_bytes;                   /**< of an element of the cache */
    double attention_backward;         /**< products of attention's backward: 5, or 7 on a GPU */
    bool recompute;                    /**< device.recompute is "layer" */
} qp_work_model_t;

/** A micro-batch, in the mean. */
typedef struct {
    double n_token;
    double n_pair; /**< of tokens that attention multiplies: sum of n (n + 1) / 2 over sequences */
    double n_picked; /**< tokens that the LM head reads */
} qp_work_batch_t;

qp_work_t qp_work_scaled(qp_work_t work, double times);
void qp_work_add(qp_work_t *sum, qp_work_t work);
double qp_work_ops(const qp_work_t *work);

/**
 * The layers of one pass: 2 T n_in n_out operations for each linear, 4 H E for each pair, and
 * 2 T r (n_in + n_out) for each target of the adapter.
 */
qp_work_t qp_work_forward(const qp_work_model_t *model, const qp_work_batch_t *batch);
/**
 * From the gradient of the hidden states to those of the adapter: of a frozen linear the gradient
 * of its input alone (2 T n_in n_out), 2 H E attention_backward for each pair,
 * 2 T r (3 n_in + 2 n_out) for each target, whose inner activation is computed again. In layer 0
 * nothing below its lowest target; with recompute all but the last layer's forward once more,
 * without its down_proj.
 */
qp_work_t qp_work_backward(const qp_work_model_t *model, const qp_work_batch_t *batch);
/** LM head: 2 V D operations for each token it reads, and as many again with the gradient. */
qp_work_t qp_work_head(const qp_work_model_t *model, double n_picked, bool gradient);
/** One batch of decoding: a token of each of n_active sequences that have n_past, with logits and
 * draws. */
qp_work_t qp_work_decode(const qp_work_model_t *model, double n_active, double n_past);
/** Sums of a micro-batch's gradient: a copy, a zeroing and a merge, 24 bytes a parameter. */
qp_work_t qp_work_leaf(double n_param);
/** The norm of the gradient and AdamW: 38 bytes a parameter. */
qp_work_t qp_work_update(double n_param);

#endif
