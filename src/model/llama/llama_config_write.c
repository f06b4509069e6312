/* qp_llama_config_t to a config.json that transformers loads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/llama/llama_json.h"

/* The old spelling of rope: every transformers reads it. */
static void put_rope(const qp_llama_config_t *c, json_t *root)
{
    json_object_set_new(root, "rope_theta", json_real(c->rope_theta));
    json_t *rope = json_null();
    if (c->rope_scaling != QP_ROPE_DEFAULT) {
        rope = json_object();
        json_object_set_new(rope, "rope_type", json_string(qp_llama_rope_name[c->rope_scaling]));
        json_object_set_new(rope, "factor", json_real(c->rope_factor));
    }
    if (c->rope_scaling == QP_ROPE_LLAMA3) {
        json_object_set_new(rope, "low_freq_factor", json_real(c->rope_low_freq_factor));
        json_object_set_new(rope, "high_freq_factor", json_real(c->rope_high_freq_factor));
        json_object_set_new(rope, "original_max_position_embeddings",
                            json_integer(c->rope_original_max_position));
    }
    json_object_set_new(root, "rope_scaling", rope);
}

/* Keys that only one of the families has. */
static void put_family(const qp_llama_config_t *c, json_t *root)
{
    const qp_family_t family = (qp_family_t)c->family;
    json_object_set_new(root, "architectures", json_pack("[s]", qp_family_architecture(family)));
    json_object_set_new(root, "model_type", json_string(qp_family_type(family)));
    if (family == QP_FAMILY_LLAMA) {
        json_object_set_new(root, "mlp_bias", json_false());
        json_object_set_new(root, "attention_bias", json_boolean(c->attention_bias));
    } else {
        json_object_set_new(root, "sliding_window",
                            c->sliding_window > 0 ? json_integer(c->sliding_window) : json_null());
    }
}

/* The shortest decimal that is this float: 1e-05 stays 1e-05. */
static double decimal(float x)
{
    char text[32];
    for (int n_digit = 1; n_digit <= 9; n_digit++) {
        snprintf(text, sizeof text, "%.*g", n_digit, (double)x);
        if (strtof(text, NULL) == x)
            break;
    }
    return strtod(text, NULL);
}

char *qp_llama_config_to_json(const qp_llama_config_t *c)
{
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {
        {"num_hidden_layers", c->n_layer},  {"hidden_size", c->d_model},
        {"num_attention_heads", c->n_head}, {"num_key_value_heads", c->n_kv_head},
        {"head_dim", c->head_dim},          {"intermediate_size", c->d_ff},
        {"vocab_size", c->n_vocab},         {"max_position_embeddings", c->max_position},
    };
    json_t *root = json_object();
    put_family(c, root);
    json_object_set_new(root, "hidden_act", json_string("silu"));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        json_object_set_new(root, sizes[i].key, json_integer(sizes[i].value));
    put_rope(c, root);
    qp_llama_tokens_to_json(c, root);
    json_object_set_new(root, "tie_word_embeddings", json_boolean(c->tie_word_embeddings));
    json_object_set_new(root, "rms_norm_eps", json_real(decimal(c->rms_norm_eps)));
    char *dumped = json_dumps(root, JSON_INDENT(2)), *text = qp_format("%s\n", dumped);
    free(dumped);
    json_decref(root);
    return text;
}
