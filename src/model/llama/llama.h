/**
 * \file llama.h
 * LLaMA's architecture: config.json, special tokens, rotary angles, and the tensors that follow
 * from a config.
 */
#ifndef QP_MODEL_LLAMA_LLAMA_H
#define QP_MODEL_LLAMA_LLAMA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/eos.h"
#include "base/error.h"
#include "text/tokenizer.h"

typedef enum { QP_ROPE_DEFAULT, QP_ROPE_LINEAR, QP_ROPE_LLAMA3 } qp_rope_scaling_t;

/** LlamaForCausalLM; MistralForCausalLM, which may have a window and differs in nothing else. */
typedef enum { QP_FAMILY_LLAMA, QP_FAMILY_MISTRAL } qp_family_t;

typedef struct {
    int family; /**< qp_family_t */
    int64_t n_layer, d_model, n_head, n_kv_head, head_dim, d_ff, n_vocab, max_position;
    float rms_norm_eps;
    double rope_theta;
    int rope_scaling; /**< qp_rope_scaling_t */
    double rope_factor, rope_low_freq_factor, rope_high_freq_factor;
    int64_t rope_original_max_position;
    bool tie_word_embeddings;
    bool attention_bias;                /**< q, k, v and o have a bias */
    int64_t sliding_window;             /**< a token sees so many, itself included; 0: all before */
    int64_t bos_token_id, pad_token_id; /**< -1: none */
    qp_eos_t eos;                       /**< what ends an answer; the tokenizer's own first */
} qp_llama_config_t;

/** "llama"; "LlamaForCausalLM". */
const char *qp_family_type(qp_family_t family);
const char *qp_family_architecture(qp_family_t family);

/**
 * HF config.json to config: each key as transformers (5.24) uses it. What it would refuse, what
 * contradicts itself, other architectures and unsupported options: one QP_INPUT sentence that
 * names the key.
 */
qp_error_t qp_llama_config_from_json(const char *path, const char *text, qp_llama_config_t *config);
/** config.json text that transformers loads (qp_free). */
char *qp_llama_config_to_json(const qp_llama_config_t *config);
/** How a source spells sizes, for messages. */
typedef struct {
    const char *d_model, *n_head, *n_kv_head, *head_dim;
} qp_llama_names_t;
/** Sizes that do not fit each other: QP_INPUT. */
qp_error_t qp_llama_config_check(const qp_llama_config_t *config, const qp_llama_names_t *names);
/** A sequence (\a what, of n_token tokens) that is longer than the window: QP_INPUT. */
qp_error_t qp_llama_check_length(const qp_llama_config_t *config, const char *what,
                                 int64_t n_token);

/** Adds the EOS that a generation_config.json names, and BOS and pad where config has none. */
qp_error_t qp_llama_config_add_generation(const char *path, const char *text,
                                          qp_llama_config_t *config);
/**
 * generation_config.json of an exported model (qp_free): the text that came with it (NULL: none),
 * byte for byte if it names all of config->eos. NULL: there is nothing to say.
 */
char *qp_llama_generation_to_json(const qp_llama_config_t *config, const char *text);
/** All ids that end an answer: the tokenizer's own (NULL: no tokenizer), then the config's. An id
 * that the model does not have: QP_INPUT. */
qp_error_t qp_llama_eos(const qp_llama_config_t *config, const qp_tokenizer_t *tokenizer,
                        qp_eos_t *eos);

/** Angle per position [head_dim / 2] of each rotated pair, with the model's scaling; fp32
 * arithmetic. */
void qp_llama_rope_frequencies(const qp_llama_config_t *config, float *frequency);
/** cos/sin table [n_position, head_dim] fp32 (cos first half, sin second) with the model's scaling.
 */
void qp_llama_rope_table(const qp_llama_config_t *config, int64_t n_position, float *table);

/** The seven linears of a layer, in this order everywhere. */
/*      enum         HF name                 */
#define QP_LINEARS(X)                \
    X(QP_Q_PROJ, "self_attn.q_proj") \
    X(QP_K_PROJ, "self_attn.k_proj") \
    X(QP_V_PROJ, "self_attn.v_proj") \
    X(QP_O_PROJ, "self_attn.o_proj") \
    X(QP_GATE_PROJ, "mlp.gate_proj") \
    X(QP_UP_PROJ, "mlp.up_proj")     \
    X(QP_DOWN_PROJ, "mlp.down_proj")
#define QP_LINEAR_ENUM(id, name) id,
typedef enum { QP_LINEARS(QP_LINEAR_ENUM) QP_N_LINEAR } qp_linear_t;
#undef QP_LINEAR_ENUM

/** "self_attn.q_proj"; and its last part "q_proj" as decks and PEFT targets name it. */
const char *qp_linear_name(qp_linear_t linear);
const char *qp_linear_short_name(qp_linear_t linear);
/** "model.layers.N.self_attn.q_proj.weight", as in the tensor table. */
void qp_linear_tensor_name(int64_t layer, qp_linear_t linear, char name[96]);
/** Output and input features of a linear. */
int64_t qp_linear_n_out(const qp_llama_config_t *config, qp_linear_t linear);
int64_t qp_linear_n_in(const qp_llama_config_t *config, qp_linear_t linear);

/** What a tensor of the table is: decides its stored type. */
typedef enum {
    QP_TENSOR_LINEAR,
    QP_TENSOR_EMBEDDING,
    QP_TENSOR_LM_HEAD,
    QP_TENSOR_NORM,
    QP_TENSOR_BIAS
} qp_tensor_class_t;

/** One row of the tensor table of a config. */
typedef struct {
    char name[96];        /**< HF name */
    int tensor_class;     /**< qp_tensor_class_t */
    int64_t n_row, n_col; /**< n_col 1 for vectors */
} qp_tensor_spec_t;

/** The tensor table: every tensor the model has, in file order, the embedding first. *specs is the
 * caller's (qp_free). */
void qp_llama_tensors(const qp_llama_config_t *config, qp_tensor_spec_t **specs, int64_t *n_spec);

#endif
