/** \file engine_state.h  Inside of qp_engine_t. */
#ifndef QP_MODEL_ENGINE_STATE_H
#define QP_MODEL_ENGINE_STATE_H

#include "model/engine.h"
#include "model/layer.h"

enum { QP_KV_BLOCK_LEN = 32 };

/** A place among the sequences that are decoded together. */
typedef struct {
    int64_t request; /**< index, or -1: free */
    int64_t n_past;  /**< tokens in the cache */
    int64_t max_new_tokens;
    int64_t n_block;
    int32_t *block; /**< [table_ld] cache blocks of this sequence */
} qp_slot_t;

struct qp_engine {
    const qp_base_t *base;
    qp_generate_config_t config;
    int64_t max_length, max_token; /**< longest sequence; most tokens of one batch */
    int64_t table_ld;              /**< blocks of the longest sequence */
    int64_t n_block;
    qp_dptr_t storage; /**< one block holds all device memory below */
    qp_flow_t flow;
    qp_kv_t *kv; /**< [n_layer] */
    qp_kv_map_t map;
    qp_layer_state_t state;
    qp_mat_t residual; /**< [max_token, D] fp32 */
    qp_mat_t last;     /**< [max_active, D] fp32: the residual of each sequence's last token */
    qp_mat_t hidden;   /**< [max_active, D] C */
    qp_mat_t logits;   /**< [max_active, V] fp32 */
    qp_dptr_t rstd;    /**< [max_active] */
    qp_dptr_t token, position, sample; /**< [max_token] */
    qp_dptr_t cu_seqlens;              /**< [max_active + 1] */
    qp_dptr_t row;                     /**< [max_active] row of each last token */
    qp_dptr_t drawn, logprob;          /**< [max_active] */
    qp_slot_t *slot;                   /**< [max_active] */
    int32_t *free_block;               /**< [n_block] stack */
    int64_t n_free_block;
    /* the batch being built, host */
    int64_t n_token, n_seq;
    qp_slot_t **batch_slot;                /**< [max_active] */
    int32_t *host_token, *host_position;   /**< [max_token] */
    uint32_t *host_sample;                 /**< [max_token] */
    int32_t *host_cu_seqlens, *host_row;   /**< [max_active + 1], [max_active] */
    int32_t *host_past, *host_table;       /**< [max_active], [max_active, table_ld] */
    uint32_t *draw_sample, *draw_position; /**< [max_active] */
    int32_t *host_drawn;                   /**< [max_active] */
    float *host_logprob;                   /**< [max_active] */
};

/** Gives the slot's sequence cache blocks for n_token tokens in all. */
void qp_engine_grow(qp_engine_t *engine, qp_slot_t *slot, int64_t n_token);
/** Frees the slot and its blocks. */
void qp_engine_release(qp_engine_t *engine, qp_slot_t *slot);

#endif
