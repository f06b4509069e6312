/* Adapter to GGUF LoRA: llama.cpp's names, and its order of rows in q_proj and k_proj. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "formats/gguf_write.h"
#include "import/gguf_names.h"
#include "outputs.h"

enum { NAME_BYTES = 128 };

/* B [n_out, r] with its rows where llama.cpp wants them. */
static void permute_rows(const qp_peft_pair_t *pair, int64_t r, int64_t head_dim, float *out)
{
    for (int64_t row = 0; row < pair->n_out; row++)
        memcpy(out + qp_gguf_rope_row(row, head_dim) * r, pair->b + row * r,
               (size_t)r * sizeof *out);
}

/* The two tensors of a pair; b is room for a permuted B. */
static void make_pair(const qp_peft_pair_t *pair, int64_t r, int64_t head_dim, float *b,
                      char name[2][NAME_BYTES], qp_tensor_t tensor[2])
{
    char hf[96], gguf[96];
    qp_linear_tensor_name(pair->layer, pair->linear, hf);
    qp_gguf_tensor_name(hf, gguf, sizeof gguf);
    snprintf(name[0], NAME_BYTES, "%s.lora_a", gguf);
    snprintf(name[1], NAME_BYTES, "%s.lora_b", gguf);
    bool permuted = qp_gguf_is_permuted(hf);
    if (permuted)
        permute_rows(pair, r, head_dim, b);
    tensor[0] = qp_tensor_matrix(name[0], pair->a, r, pair->n_in);
    tensor[1] = qp_tensor_matrix(name[1], permuted ? b : pair->b, pair->n_out, r);
}

qp_error_t qp_merge_write_gguf_lora(const qp_peft_t *peft, const qp_llama_config_t *config,
                                    const char *path)
{
    if (peft->score != NULL)
        return QP_ERROR(QP_INPUT, "%s: a GGUF LoRA cannot hold the adapter's score head", path);
    /* llama.cpp multiplies by alpha / r: with rsLoRA alpha is set so that this gives the scaling.
     */
    const qp_gguf_key_t key[] = {
        {"general.architecture", QP_GGUF_ARCHITECTURE, 0.0f},
        {"general.type", "adapter", 0.0f},
        {"adapter.type", "lora", 0.0f},
        {"adapter.lora.alpha", NULL, (float)(qp_peft_scaling(peft) * (double)peft->r)},
    };
    int64_t n_b = 0;
    for (int64_t i = 0; i < peft->n_pair; i++)
        n_b += peft->pair[i].n_out * peft->r;
    float *b = QP_NEW("gguf lora", float, n_b), *next = b;
    qp_tensor_t *tensor = QP_NEW("gguf lora", qp_tensor_t, 2 * peft->n_pair);
    char(*name)[NAME_BYTES] = qp_alloc("gguf lora", qp_bytes(2 * peft->n_pair, sizeof *name));
    for (int64_t i = 0; i < peft->n_pair; i++) {
        make_pair(&peft->pair[i], peft->r, config->head_dim, next, name + 2 * i, tensor + 2 * i);
        next += peft->pair[i].n_out * peft->r;
    }
    qp_error_t error =
        qp_gguf_write(path, key, sizeof key / sizeof key[0], tensor, 2 * peft->n_pair);
    qp_free(b);
    qp_free(tensor);
    qp_free(name);
    return error;
}
