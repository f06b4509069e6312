/** \file base.h  The frozen base: packed weights of all layers on this rank's device. */
#ifndef QP_MODEL_BASE_BASE_H
#define QP_MODEL_BASE_BASE_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/comm.h"
#include "compute/ops.h"
#include "deck/deck.h"
#include "model/base/base_file.h"

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
    qp_base_kinds_t kinds;
    uint64_t base_id;
    qp_device_t *device;
    qp_layer_t *layer;   /**< [n_layer] */
    qp_mat_t embedding;  /**< [n_vocab, d_model] bf16 or fp32 */
    qp_weight_t lm_head; /**< [n_vocab, d_model]; in the same memory when it is tied and no int8 */
    qp_dptr_t norm;      /**< [d_model] fp32 */
    qp_mat_t rope;       /**< [max positions used, head_dim] fp32 */
    qp_shared_t *shared; /**< node-shared arena, or NULL: storage is on the device */
    qp_dptr_t storage;
    int64_t n_read_bytes; /**< of tensors that this rank has read of the file */
} qp_base_t;

/** What the sizes of a model's memory follow from; known before its weights are there. */
typedef struct {
    const qp_device_t *device;
    const qp_llama_config_t *config;
    qp_base_kinds_t kinds;
} qp_base_shape_t;

/** QP_INPUT: the device cannot compute with such a base. */
qp_error_t qp_base_info_check(const qp_base_info_t *info, const qp_device_t *device);

/** As the file's header tells. */
static inline qp_base_shape_t qp_base_info_shape(const qp_base_info_t *info,
                                                 const qp_device_t *device)
{
    return (qp_base_shape_t){device, &info->config, info->kinds};
}

static inline qp_base_shape_t qp_base_shape(const qp_base_t *base)
{
    return (qp_base_shape_t){base->device, &base->config, base->kinds};
}

/** Whether the LM head has no memory of its own. */
static inline bool qp_base_head_is_embedding(const qp_base_shape_t *shape)
{
    return shape->config->tie_word_embeddings && shape->kinds.lm_head != QP_WEIGHT_INT8;
}

/** Whether the ranks of a node share one block: where device addresses are host addresses. Else it
 * is on each rank's device. */
bool qp_base_is_shared(const qp_device_t *device);
/** Bytes of the base's one block, for the memory plan. */
size_t qp_base_bytes(const qp_base_shape_t *shape, int64_t n_position);
/** Bytes of the device that loading takes beside it. */
size_t qp_base_staging_bytes(const qp_base_shape_t *shape);

/**
 * Loads a base; each byte of its tensors is read once per node, by the node's ranks together, in
 * pieces. n_position bounds the positions that will be used. Collective; the same error on all
 * ranks. Damage: QP_INPUT naming file and tensor.
 */
qp_error_t qp_base_load(qp_comm_t *comm, qp_device_t *device, const qp_base_config_t *config,
                        int64_t n_position, qp_base_t **base);
void qp_base_destroy(qp_comm_t *comm, qp_base_t **base);

#endif
