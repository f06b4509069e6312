/**
 * \file llama_json.h
 * The parts of reading a config.json, for llama_*.c only. Messages start with the key; the caller
 * puts the file in front.
 */
#ifndef QP_MODEL_LLAMA_LLAMA_JSON_H
#define QP_MODEL_LLAMA_LLAMA_JSON_H

#include "formats/json.h"
#include "model/llama/llama.h"

/** The value of a key that is there, be it null; NULL where it is absent. */
static inline const json_t *qp_llama_key(const json_t *object, const char *key)
{
    return json_object_get(object, key);
}

/** A number above 0 that must be there. */
qp_error_t qp_llama_positive(const json_t *object, const char *key, double *value);

/** rope_parameters, rope_scaling and the keys about them; config->max_position is known. */
qp_error_t qp_llama_rope_from_json(const json_t *root, qp_llama_config_t *config);

/**
 * bos_token_id, eos_token_id (one or a list) and pad_token_id, as config.json and
 * generation_config.json name them: EOS are added to those that are there, BOS and pad are set
 * where there is none yet. config->n_vocab is known; an id beyond it: QP_INPUT.
 */
qp_error_t qp_llama_tokens_from_json(const json_t *root, qp_llama_config_t *config);

/** Sets the keys of the tokens that the model has. */
void qp_llama_tokens_to_json(const qp_llama_config_t *config, json_t *root);

/** Names of qp_rope_scaling_t, as rope_type spells them. */
extern const char *const qp_llama_rope_name[];

#endif
