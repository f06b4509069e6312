/* quipu-merge --to gguf-lora, read back: llama.cpp's names, its scale, and its order of the rows of
 * q_proj and k_proj, where the two halves of a head stand interleaved. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "testing.h"

enum { R = 4, HEAD_DIM = 16, MAX_COL = 512 };
static const double ALPHA = 6.0; /* with rsLoRA: the scale is alpha / sqrt(r) */

static const struct {
    const char *peft, *gguf;
    bool interleaved;
} linear[] = {
    {"self_attn.q_proj", "attn_q", true},
    {"self_attn.k_proj", "attn_k", true},
    {"self_attn.o_proj", "attn_output", false},
    {"mlp.down_proj", "ffn_down", false},
};

/* Where llama.cpp has a row: (half, i) of a head at 2 i + half. */
static int64_t place_of(int64_t row, bool interleaved)
{
    const int64_t in_head = row % HEAD_DIM, half = in_head / (HEAD_DIM / 2),
                  i = in_head % (HEAD_DIM / 2);
    return interleaved ? row - in_head + 2 * i + half : row;
}

static void check_matrix(const qp_gguf_t *gguf, const qp_safetensors_t *peft, int layer, int l,
                         char which)
{
    char *name = qp_format("base_model.model.model.layers.%d.%s.lora_%c.weight", layer,
                           linear[l].peft, which);
    char *gguf_name =
        qp_format("blk.%d.%s.weight.lora_%c", layer, linear[l].gguf, which == 'A' ? 'a' : 'b');
    const qp_tensor_t *from = qp_safetensors_find(peft, name);
    const qp_gguf_tensor_t *to = qp_gguf_find(gguf, gguf_name);
    const bool interleaved = which == 'B' && linear[l].interleaved;
    float row[MAX_COL];
    if (CHECK_MSG(from != NULL && to != NULL, "%s, %s", name, gguf_name) &&
        CHECK(to->dim[1] == from->dim[0] && to->dim[0] == from->dim[1] && from->dim[1] <= MAX_COL))
        for (int64_t r = 0; r < from->dim[0]; r++) {
            qp_gguf_row(to, place_of(r, interleaved), row);
            CHECK_MSG(memcmp(row, (const float *)from->data + r * from->dim[1],
                             (size_t)from->dim[1] * sizeof *row) == 0,
                      "%s, row %lld", gguf_name, (long long)r);
        }
    qp_free(gguf_name);
    qp_free(name);
}

int main(void)
{
    const char *adapter = qp_test_source("tests/golden/formats/adapter");
    char *command =
        qp_format("cd %s && %s/quipu-import %s base.h5 >log 2>&1 && "
                  "%s/quipu-merge --to gguf-lora base.h5 %s lora.gguf >>log 2>&1",
                  qp_test_folder(), qp_env("QUIPU_BIN"),
                  qp_test_source("tests/golden/formats/tiny.gguf"), qp_env("QUIPU_BIN"), adapter);
    char *path = qp_format("%s/lora.gguf", qp_test_folder());
    char *text = NULL;
    qp_gguf_t *gguf = NULL;
    qp_safetensors_t *peft = NULL;
    double alpha = 0.0;
    CHECK(system(command) == 0);
    CHECK_OK(qp_gguf_open(path, &gguf));
    CHECK_OK(qp_safetensors_open(
        qp_test_source("tests/golden/formats/adapter/adapter_model.safetensors"), &peft));
    CHECK_OK(qp_gguf_get_f64(gguf, "adapter.lora.alpha", &alpha));
    CHECK_MSG(fabs(alpha / R - ALPHA / sqrt(R)) < 1e-6, "alpha is %g", alpha);
    CHECK_OK(qp_gguf_get_str(gguf, "adapter.type", &text));
    CHECK(text != NULL && strcmp(text, "lora") == 0);
    for (int layer = 0; layer < 2; layer++)
        for (size_t l = 0; l < sizeof linear / sizeof linear[0]; l++) {
            check_matrix(gguf, peft, layer, (int)l, 'A');
            check_matrix(gguf, peft, layer, (int)l, 'B');
        }
    qp_free(text);
    qp_safetensors_close(&peft);
    qp_gguf_close(&gguf);
    qp_free(path);
    qp_free(command);
    return qp_test_end();
}
