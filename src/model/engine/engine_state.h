/** \file engine_state.h  Inside of qp_engine_t. */
#ifndef QP_MODEL_ENGINE_ENGINE_STATE_H
#define QP_MODEL_ENGINE_ENGINE_STATE_H

#include "model/engine/engine.h"
#include "model/pass/descriptor.h"
#include "model/pass/layer.h"

enum { QP_KV_BLOCK_LEN = 32 };

/**
 * A place among the sequences that are decoded together. A finished sequence leaves its blocks
 * there for the prompts that follow, until the slot is used again.
 */
typedef struct {
    qp_request_t *request; /**< whose rows its blocks hold; NULL: nobody's yet */
    bool active;           /**< the request is not finished */
    int64_t turn;          /**< of the request; -1: none yet */
    int64_t n_past;        /**< tokens in the cache */
    /** The draws that its last token is among, the host having not read them; or NULL. */
    const struct qp_draws *unread;
    int64_t at; /**< its place there */
    int64_t n_block;
    int32_t *block; /**< [table_ld] cache blocks of this sequence */
} qp_slot_t;

/** What is drawn from one batch. */
typedef struct qp_draws {
    int64_t n;
    qp_slot_t **slot; /**< [max_active] */
    qp_request_t **request;
    int32_t *result;  /**< [2 max_active] pinned: n tokens, then their log-probabilities */
    qp_event_t *read; /**< result is there */
} qp_draws_t;

struct qp_engine {
    const qp_base_t *base;
    qp_generate_config_t config;
    int64_t max_length, max_token; /**< longest sequence; most tokens of one batch */
    int64_t max_seq;               /**< of one batch: 2 max_active */
    int64_t table_ld;              /**< blocks of the longest sequence */
    int64_t n_block;
    qp_dptr_t storage; /**< one block holds all device memory below */
    size_t storage_bytes;
    bool borrowed; /**< it is a workspace's, which has no use for it while the engine runs */
    qp_flow_t flow;
    qp_kv_t *kv; /**< [n_layer] */
    qp_kv_map_t map;
    qp_layer_state_t state;
    qp_mat_t residual;          /**< [max_token, D] fp32 */
    qp_mat_t hidden;            /**< [max_active, D] C */
    qp_mat_t logits;            /**< [max_active, V] fp32 */
    qp_dptr_t rstd;             /**< [max_active] */
    qp_descriptor_t descriptor; /**< of the batch: what follows, and flow.batch and map */
    qp_dptr_t token;            /**< [n_token] */
    qp_dptr_t rows, unread;     /**< [n_copy], [n_unread] */
    qp_dptr_t draw_sample_at, draw_position_at, draw_forbid_at; /**< [n_draw] */
    qp_dptr_t result;    /**< [2 max_active]: n_draw drawn tokens, then their log-probabilities */
    qp_slot_t *slot;     /**< [max_active] */
    int32_t *free_block; /**< [n_block] stack */
    int64_t n_free_block;
    int32_t *n_holder; /**< [n_block] slots that a block is part of */
    /* the batch, host: first the last token of every active slot, then what else is new */
    int64_t n_token, n_seq, n_draw, n_unread, n_copy;
    qp_draws_t draws[2];                   /**< of this batch and the one before, by turns */
    int32_t *host_unread;                  /**< [max_active] places of unread tokens, [n_unread] */
    int32_t *host_token, *host_position;   /**< [max_token] */
    uint32_t *host_sample;                 /**< [max_token] */
    int32_t *host_cu_seqlens;              /**< [max_seq + 1] */
    int32_t *host_past, *host_table;       /**< [max_seq], [max_seq, table_ld] */
    uint32_t *draw_sample, *draw_position; /**< [max_active] */
    uint32_t *draw_forbid;                 /**< [max_active] 1: EOS would come too early */
    qp_kv_rows_t *host_rows;               /**< [max_active] of shared blocks, [n_copy] used */
};

/* --- engine_blocks.c: a block is part of several slots where no slot writes to it any more -----
 */

/** Empties the cache. */
void qp_engine_clear(qp_engine_t *engine);
/**
 * The slot's sequence starts with the first \a n tokens of \a from, which may be the slot itself;
 * its own blocks are given up.
 */
void qp_engine_share(qp_engine_t *engine, qp_slot_t *slot, const qp_slot_t *from, int64_t n);
/** Blocks for n_token tokens in all: the rows from token n_past on are the slot's alone. What is to
 * be copied for that, before the batch, is noted in host_rows: of blocks that keep other holders.
 */
void qp_engine_take_blocks(qp_engine_t *engine, qp_slot_t *slot, int64_t n_token);

/* --- engine_admit.c: whose turn it is --------------------------------------------------------- */

/** A request in the order of their prompts. */
typedef struct {
    qp_request_t *request; /**< NULL: has had its turn */
    int64_t n_common; /**< tokens that its prompt starts with as that of the turn before does */
    qp_slot_t *slot;  /**< whose blocks hold its sequence, or NULL */
} qp_turn_t;

/** One run: the requests and how far they are. */
typedef struct {
    qp_engine_t *engine;
    qp_request_t *request;
    int64_t n_request;
    qp_turn_t *turn; /**< [n_request] */
    int64_t next;    /**< first that has not had its turn */
    int64_t end;     /**< none from here on has */
    int64_t n_active;
    const qp_eos_t *eos;
    qp_philox_key_t key;
} qp_engine_run_t;

/** Requests in the order in which they get their turns; free it. */
qp_turn_t *qp_engine_turns(qp_request_t *request, int64_t n_request);
/** Gives free slots to the requests that come next, as many as fit into a batch. */
void qp_engine_admit(qp_engine_run_t *run);
/** Tokens that the request may get. */
int64_t qp_engine_longest_answer(const qp_engine_t *engine, const qp_request_t *request);

#endif
