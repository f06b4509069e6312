/* Models that must be refused: one sentence naming file and tensor, and nothing left behind. */
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/safetensors.h"
#include "import/source.h"
#include "testing.h"

static char *in_folder(const char *name)
{
    return qp_format("%s/%s", qp_test_folder(), name);
}

/* Imports a model; whatever happens, no temporary file may stay, and no base after a failure. */
static qp_error_t import(const char *from)
{
    qp_source_t *source = NULL;
    char *to = in_folder("out.h5"), *part = in_folder("out.h5.part");
    qp_error_t error = qp_source_open(from, &source);
    if (error == NULL)
        error = qp_source_write_base(source, to, qp_base_kinds(QP_WEIGHT_INT8));
    qp_source_close(&source);
    CHECK(access(part, F_OK) != 0);
    CHECK((access(to, F_OK) == 0) == (error == NULL));
    unlink(to);
    qp_free(to);
    qp_free(part);
    return error;
}

/* --- HF --------------------------------------------------------------------------------------- */

typedef void (*edit_t)(qp_tensor_t *tensor, int64_t *n);

/* Rewrites the weights of the golden model in folder "hf", edited. */
static void rewrite(edit_t edit)
{
    enum { MAX = 64 };
    qp_safetensors_t *st = NULL;
    char *to = in_folder("hf/model.safetensors");
    if (CHECK_OK(qp_safetensors_open(qp_test_source("tests/golden/formats/hf"), &st))) {
        qp_tensor_t tensor[MAX];
        int64_t n = qp_safetensors_n(st);
        for (int64_t i = 0; i < n && i < MAX; i++)
            tensor[i] = *qp_safetensors_at(st, i);
        if (edit != NULL)
            edit(tensor, &n);
        CHECK_OK(qp_safetensors_write(to, tensor, n));
    }
    qp_safetensors_close(&st);
    qp_free(to);
}

/* Tensors are in name order: 0 is the embedding, the last is model.norm.weight. */
static void drop_last(qp_tensor_t *tensor, int64_t *n)
{
    (void)tensor;
    --*n;
}

static void add_extra(qp_tensor_t *tensor, int64_t *n)
{
    tensor[*n] = tensor[*n - 1];
    tensor[(*n)++].name = "model.extra.weight";
}

static void add_other_head(qp_tensor_t *tensor, int64_t *n)
{
    static uint16_t head[320 * 32];
    tensor[*n] = tensor[0];
    tensor[*n].data = head;
    tensor[(*n)++].name = "lm_head.weight";
}

static void add_same_head(qp_tensor_t *tensor, int64_t *n)
{
    tensor[*n] = tensor[0];
    tensor[(*n)++].name = "lm_head.weight";
}

static void transpose(qp_tensor_t *tensor, int64_t *n)
{
    (void)n;
    tensor[0].dim[0] = 32;
    tensor[0].dim[1] = 320;
}

static void make_integer(qp_tensor_t *tensor, int64_t *n)
{
    static int32_t data[32];
    tensor[*n - 1].dtype = QP_I32;
    tensor[*n - 1].data = data;
    tensor[*n - 1].n_bytes = sizeof data;
}

static void put_infinity(qp_tensor_t *tensor, int64_t *n)
{
    static uint16_t data[32] = {[5] = 0x7f80};
    tensor[*n - 1].data = data;
}

static void test_hf(const char *folder)
{
    static const struct {
        edit_t edit;
        const char *message;
    } bad[] = {
        {drop_last, "tensor model.norm.weight is missing"},
        {add_extra, "model.safetensors: unexpected tensor model.extra.weight"},
        {add_other_head, "tensor lm_head.weight differs from the embedding"},
        {transpose, "model.safetensors: tensor model.embed_tokens.weight has shape [32, 320]"},
        {make_integer, "model.safetensors: tensor model.norm.weight has type int32"},
        {put_infinity,
         "model.safetensors: tensor model.norm.weight: the weight in row 5, column 0 is inf"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        rewrite(bad[i].edit);
        CHECK_FAILS(import(folder), QP_INPUT, bad[i].message);
    }
    rewrite(add_same_head);
    CHECK_OK(import(folder));
    rewrite(NULL);
    CHECK_OK(import(folder));
    char *weights = in_folder("hf/model.safetensors"), *config = in_folder("hf/config.json");
    CHECK(truncate(weights, 50000) == 0);
    CHECK_FAILS(import(folder), QP_INPUT, "model.safetensors: the file is truncated: tensor");
    unlink(config);
    CHECK_FAILS(import(folder), QP_INPUT, "config.json: cannot be opened");
    CHECK_FAILS(import("/nowhere"), QP_INPUT, "/nowhere: expected an HF model folder");
    qp_free(weights);
    qp_free(config);
}

static char *make_folder(void)
{
    char *folder = in_folder("hf"), *config = in_folder("hf/config.json");
    void *text = NULL;
    size_t n;
    qp_source_t *random = NULL;
    mkdir(folder, 0777);
    if (CHECK_OK(qp_file_read(qp_test_source("tests/golden/formats/hf/config.json"), &text, &n)))
        CHECK_OK(qp_file_write(config, text, n));
    CHECK_OK(qp_source_synthetic("tiny", 1, &random));
    CHECK_OK(qp_tokenizer_files_to_folder(qp_source_tokenizer(random), folder));
    qp_source_close(&random);
    qp_free(text);
    qp_free(config);
    return folder;
}

/* --- GGUF ------------------------------------------------------------------------------------- */

/* Writes the golden file with texts in it, in pairs, replaced by others of the same length. */
static char *write_changed(const char *const *change, int n_change)
{
    char *bytes = NULL, *path = in_folder("changed.gguf");
    size_t n = 0;
    CHECK_OK(qp_file_read(qp_test_source("tests/golden/formats/tiny.gguf"), (void **)&bytes, &n));
    for (int i = 0; i < n_change; i++) {
        const char *from = change[2 * i], *to = change[2 * i + 1];
        char *at = bytes != NULL ? memmem(bytes, n, from, strlen(from)) : NULL;
        if (CHECK_MSG(at != NULL, "%s", from))
            memcpy(at, to, strlen(to));
    }
    CHECK_OK(qp_file_write(path, bytes, n));
    qp_free(bytes);
    return path;
}

static qp_error_t import_changed(const char *from, const char *to)
{
    char *path = write_changed((const char *const[]){from, to}, 1);
    qp_error_t error = import(path);
    qp_free(path);
    return error;
}

/* A factor without a type is linear; its old key is read where there is no new one. */
static void test_gguf_rope(void)
{
    static const char *const change[] = {"llama.rope.scaling.type",   "llama.rope.scaling.tyqe",
                                         "llama.rope.scaling.factor", "llama.rope.scaling.faktor",
                                         "llama.rope.scaling.tyqe",   "llama.rope.scale_linear"};
    static const double factor[] = {2.0, 2.0, 1.0};
    for (int n = 0; n < 3; n++) {
        qp_source_t *source = NULL;
        char *path = write_changed(change, n);
        if (CHECK_OK(qp_source_open(path, &source))) {
            const qp_llama_config_t *c = qp_source_config(source);
            CHECK(c->rope_factor == factor[n]);
            CHECK(c->rope_scaling == (n < 2 ? QP_ROPE_LINEAR : QP_ROPE_DEFAULT));
        }
        qp_source_close(&source);
        qp_free(path);
    }
    char *path = write_changed(change, 3);
    CHECK_FAILS(import(path), QP_INPUT, "llama.rope.scale_linear");
    qp_free(path);
}

static void test_gguf(void)
{
    static const struct {
        const char *from, *to, *message;
    } bad[] = {
        {"general.architecture", "general.architectura", "general.architecture is missing"},
        {"llama.block_count", "llama.block_coums", "llama.block_count is missing"},
        {"linear", "yarnnn", "rope scaling is \"yarnnn\""},
        {"blk.1.ffn_up.weight", "blk.1.ffn_xx.weight", "layers.1.mlp.up_proj.weight is missing"},
        {"tokenizer.ggml.tokens", "tokenizer.ggml.tokenz", "tokenizer.ggml.tokens is missing"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_FAILS(import_changed(bad[i].from, bad[i].to), QP_INPUT, bad[i].message);
    CHECK_FAILS(import_changed("llama", "qwenx"), QP_INPUT, "the architecture is qwenx");
    CHECK_OK(import_changed("llama", "llama"));
}

int main(void)
{
    char *folder = make_folder();
    test_hf(folder);
    test_gguf();
    test_gguf_rope();
    qp_free(folder);
    return qp_test_end();
}
