/**
 * \file engine.h
 * The generation engine: continuous batching of ragged sequences over a paged KV cache. A batch is
 * one token of every active sequence and the prompts that take the places of finished ones. What a
 * prompt has in common with another is computed once. It serves job.method = "generate",
 * samples.jsonl and rollouts.
 */
#ifndef QP_MODEL_ENGINE_ENGINE_H
#define QP_MODEL_ENGINE_ENGINE_H

#include "model/pass/pass.h"

typedef enum { QP_KV_CACHE_AUTO, QP_KV_CACHE_INT8 } qp_kv_cache_dtype_t;

typedef struct {
    int64_t max_new_tokens;
    int64_t min_new_tokens; /**< EOS is not drawn before so many */
    double temperature, top_p;
    int64_t top_k;
    bool do_sample;      /**< false: greedy */
    int64_t max_active;  /**< sequences decoded together */
    int64_t max_prefill; /**< prompt tokens per batch */
    int kv_cache_dtype;  /**< qp_kv_cache_dtype_t: "auto|int8"; auto: as products are computed */
    int64_t num_return_sequences; /**< answers to each prompt; the engine itself takes requests */
} qp_generate_config_t;

extern const qp_deck_group_t qp_generate_deck;

typedef struct qp_engine qp_engine_t;
/**
 * max_length: longest prompt + answer. Cache for max_active sequences. With a workspace (of the
 * same device, or NULL) that is large enough, the engine uses its memory: nothing in there outlives
 * a pass and its backward, and nothing of the engine outlives a run.
 */
qp_error_t qp_engine_create(const qp_base_t *base, const qp_lora_config_t *lora,
                            const qp_generate_config_t *config, int64_t max_length,
                            const qp_workspace_t *ws, qp_engine_t **engine);
void qp_engine_destroy(qp_engine_t **engine);
size_t qp_engine_bytes(const qp_base_shape_t *shape, const qp_lora_config_t *lora,
                       const qp_generate_config_t *config, int64_t max_length);
/** The largest pass, for which qp_engine_create() reserves scratch. */
qp_pass_size_t qp_engine_pass_size(const qp_base_shape_t *shape, const qp_lora_config_t *lora,
                                   const qp_generate_config_t *config, int64_t max_length);
/** Most tokens of one batch. */
int64_t qp_engine_max_token(const qp_generate_config_t *config, int64_t max_length);

typedef struct {
    const int32_t *prompt;
    int64_t n_prompt;
    int64_t max_new_tokens; /**< 0: the config's */
    uint32_t sample;        /**< random-number identity */
    /* results, owned by the request (qp_free) */
    int32_t *token;
    float *logprob; /**< of each generated token, unwarped distribution */
    int64_t n_token;
    /** Prompt tokens that another prompt's computation gave; like max_active, it matters here that
     *  an EOS is seen one batch late where the device queues its work. */
    int64_t n_shared;
    bool stopped; /**< ended by EOS (kept as the last token) rather than by length */
} qp_request_t;

/**
 * Answers all requests; results do not depend on what else is in the batch nor on max_active, bit
 * for bit, as far as rows of products stand alone (ops.h). The token at position p of a sequence is
 * drawn with {seed, step} of \a key, the request's sample and p. Each id of \a eos ends an answer.
 * Prompts are taken in lexicographic order, so that those with a common prefix meet. Where the
 * device queues its work, the next batch is queued before a draw is read: the token is put into it
 * on the device, and what follows an EOS is thrown away. Rank-local.
 */
qp_error_t qp_engine_run(qp_engine_t *engine, const qp_role_t *role, qp_request_t *request,
                         int64_t n_request, const qp_eos_t *eos, const qp_philox_key_t *key);

#endif
