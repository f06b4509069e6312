#include "import/gguf_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *hf, *gguf;
} global_names[] =
    {
        {"model.embed_tokens.weight", "token_embd.weight"},
        {"model.norm.weight", "output_norm.weight"},
        {"lm_head.weight", "output.weight"},
},
  layer_names[] = {
      {"input_layernorm.", "attn_norm."}, {"post_attention_layernorm.", "ffn_norm."},
      {"self_attn.q_proj.", "attn_q."},   {"self_attn.k_proj.", "attn_k."},
      {"self_attn.v_proj.", "attn_v."},   {"self_attn.o_proj.", "attn_output."},
      {"mlp.gate_proj.", "ffn_gate."},    {"mlp.up_proj.", "ffn_up."},
      {"mlp.down_proj.", "ffn_down."},
};

void qp_gguf_tensor_name(const char *hf_name, char *name, size_t n_bytes)
{
    static const char layers[] = "model.layers.";
    if (strncmp(hf_name, layers, sizeof layers - 1) == 0) {
        char *rest;
        long layer = strtol(hf_name + sizeof layers - 1, &rest, 10);
        for (size_t i = 0; i < sizeof layer_names / sizeof layer_names[0]; i++) {
            size_t n = strlen(layer_names[i].hf);
            if (strncmp(rest + 1, layer_names[i].hf, n) == 0) {
                snprintf(name, n_bytes, "blk.%ld.%s%s", layer, layer_names[i].gguf, rest + 1 + n);
                return;
            }
        }
    }
    const size_t n_global = sizeof global_names / sizeof global_names[0];
    size_t i = 0;
    while (i < n_global && strcmp(hf_name, global_names[i].hf) != 0)
        i++;
    QP_ASSERT(i < n_global); /* only names of the tensor table come here */
    snprintf(name, n_bytes, "%s", global_names[i].gguf);
}

int64_t qp_gguf_rope_row(int64_t row, int64_t head_dim)
{
    int64_t head = row / head_dim, i = row % head_dim, half = head_dim / 2;
    return head * head_dim + 2 * (i % half) + i / half;
}

bool qp_gguf_is_permuted(const char *hf_name)
{
    return strstr(hf_name, ".q_proj.") != NULL || strstr(hf_name, ".k_proj.") != NULL;
}
