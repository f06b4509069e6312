/* PEFT adapters: what PEFT wrote, what it merges to, our own folders, refusals. */
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/safetensors.h"
#include "import/source.h"
#include "model/adapter/adapter.h"
#include "testing.h"

static const char gguf[] = "tests/golden/formats/tiny.gguf";
static const char golden[] = "tests/golden/formats/adapter";

static char *in_folder(const char *name)
{
    return qp_format("%s/%s", qp_test_folder(), name);
}

static void test_reads_peft(const qp_llama_config_t *config)
{
    qp_peft_t peft;
    if (!CHECK_OK(qp_peft_read(qp_test_source(golden), config, &peft)))
        return;
    CHECK(peft.r == 4 && peft.alpha == 6.0 && peft.dropout == 0.1 && peft.use_rslora);
    CHECK(qp_peft_scaling(&peft) == 3.0 && strcmp(peft.base_name, "tiny") == 0);
    CHECK(peft.target[QP_Q_PROJ] && peft.target[QP_K_PROJ] && peft.target[QP_O_PROJ] &&
          peft.target[QP_DOWN_PROJ] && !peft.target[QP_V_PROJ] && !peft.target[QP_UP_PROJ]);
    CHECK(peft.n_pair == 8 && peft.score == NULL);
    CHECK(peft.pair[5].layer == 1 && peft.pair[5].linear == QP_K_PROJ && peft.pair[5].n_in == 32 &&
          peft.pair[5].n_out == 32);
    qp_peft_fini(&peft);
}

/* PEFT's own merge_and_unload in fp32 against ours, to the rounding of a sum of four products. */
static void test_merge_equals_peft(qp_source_t *base)
{
    qp_peft_t peft;
    qp_source_t *merged = NULL;
    qp_safetensors_t *expected = NULL;
    int64_t n_spec, n_seen = 0;
    CHECK_OK(qp_peft_read(qp_test_source(golden), qp_source_config(base), &peft));
    CHECK_OK(
        qp_safetensors_open(qp_test_source("tests/golden/formats/merged.safetensors"), &expected));
    qp_source_merged(base, &peft, &merged);
    const qp_tensor_spec_t *spec = qp_source_tensors(merged, &n_spec);
    float *rows = QP_NEW("test", float, qp_source_piece_max(merged));
    for (int64_t i = 0; i < n_spec; i++) {
        const qp_tensor_t *t = qp_safetensors_find(expected, spec[i].name);
        if (t == NULL)
            continue;
        CHECK_OK(qp_source_rows(merged, i, 0, spec[i].n_row, rows));
        CHECK_MSG(qp_test_relative_error(rows, t->data, qp_tensor_n(t)) < 1e-7, "%s", t->name);
        n_seen++;
    }
    CHECK(n_seen == 2);
    qp_free(rows);
    qp_source_close(&merged);
    qp_safetensors_close(&expected);
    qp_peft_fini(&peft);
}

static void check_equal(const qp_peft_t *a, const qp_peft_t *b, int64_t d_model)
{
    CHECK(a->r == b->r && a->alpha == b->alpha && a->dropout == b->dropout &&
          a->use_rslora == b->use_rslora && a->n_pair == b->n_pair && a->n_score == b->n_score &&
          memcmp(a->target, b->target, sizeof a->target) == 0);
    for (int64_t i = 0; i < a->n_pair && i < b->n_pair; i++) {
        const qp_peft_pair_t *p = &a->pair[i], *q = &b->pair[i];
        CHECK(p->layer == q->layer && p->linear == q->linear);
        CHECK(memcmp(p->a, q->a, qp_bytes(a->r * p->n_in, sizeof(float))) == 0);
        CHECK(memcmp(p->b, q->b, qp_bytes(a->r * p->n_out, sizeof(float))) == 0);
    }
    if (a->n_score > 0 && a->n_score == b->n_score)
        CHECK(memcmp(a->score, b->score, qp_bytes(a->n_score * d_model, sizeof(float))) == 0);
}

static void test_round_trip_keeps_the_score_head(const qp_llama_config_t *config)
{
    qp_peft_t peft, again;
    float score[2 * 32];
    char *folder = in_folder("written");
    for (int i = 0; i < 64; i++)
        score[i] = (float)i - 31.5f;
    CHECK_OK(qp_peft_read(qp_test_source(golden), config, &peft));
    CHECK_OK(qp_peft_write(folder, &peft));
    if (CHECK_OK(qp_peft_read(folder, config, &again)))
        check_equal(&peft, &again, 32);
    qp_peft_fini(&again);
    peft.score = score;
    peft.n_score = 2;
    CHECK_OK(qp_peft_write(folder, &peft));
    if (CHECK_OK(qp_peft_read(folder, config, &again)))
        check_equal(&peft, &again, 32);
    qp_peft_fini(&again);
    qp_peft_fini(&peft);
    qp_free(folder);
}

/* The score head goes through a merged base and comes out again. */
static void test_merged_base_keeps_the_score_head(qp_source_t *base)
{
    qp_peft_t peft;
    qp_source_t *merged = NULL, *again = NULL;
    int64_t n_score = 0;
    float score[32];
    char *path = in_folder("merged.h5");
    for (int i = 0; i < 32; i++)
        score[i] = (float)(i * i);
    CHECK_OK(qp_peft_read(qp_test_source(golden), qp_source_config(base), &peft));
    peft.score = score;
    peft.n_score = 1;
    qp_source_merged(base, &peft, &merged);
    CHECK_OK(qp_source_write_base(merged, path, qp_base_kinds(QP_WEIGHT_INT8)));
    if (CHECK_OK(qp_source_open(path, &again))) {
        const float *found = qp_source_score(again, &n_score);
        CHECK(found != NULL && n_score == 1 && memcmp(found, score, sizeof score) == 0);
    }
    qp_source_close(&again);
    qp_source_close(&merged);
    qp_peft_fini(&peft);
    qp_free(path);
}

/* --- refusals --------------------------------------------------------------------------------- */

static qp_error_t read_with(const char *config_text, const qp_llama_config_t *config)
{
    qp_peft_t peft;
    char *path = in_folder("bad/adapter_config.json"), *folder = in_folder("bad");
    qp_error_t error = qp_file_write(path, config_text, strlen(config_text));
    if (error == NULL)
        error = qp_peft_read(folder, config, &peft);
    if (error == NULL)
        qp_peft_fini(&peft);
    qp_free(path);
    qp_free(folder);
    return error;
}

#define PLAIN                                                 \
    "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 6, " \
    "\"target_modules\": [\"q_proj\", \"k_proj\", \"o_proj\", \"down_proj\"]"

/* The rest of the keys: test_adapter_corpus.c. */
static void test_config_refusals(const qp_llama_config_t *config)
{
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"{", "adapter_config.json:1:"},
        {"[]", "is no JSON object"},
        {"{\"peft_type\": \"IA3\"}", "peft_type is \"IA3\", expected \"LORA\""},
        {PLAIN ", \"use_dora\": true}",
         "use_dora is true, expected null, false or empty: DoRA is not supported"},
        {PLAIN ", \"bias\": \"all\"}", "bias is \"all\", expected \"none\""},
        {PLAIN ", \"layers_to_transform\": [0]}", "layers_to_transform is [0], expected null: a "
                                                  "list of layers, even of all, is not supported"},
        {PLAIN ", \"target_modules\": \".*layers.1..*proj\"}",
         "chooses q_proj in layer 1, but not in layer 0: LoRA on some layers only"},
        {PLAIN ", \"lora_alpha\": \"16\"}", "lora_alpha is \"16\", expected a number"},
        {PLAIN ", \"lora_alpha\": Infinity}", "lora_alpha is Infinity, expected a number"},
        {PLAIN ", \"lora_alpha\": -1e999}", "lora_alpha is -1e999, expected a number"},
        {PLAIN ", \"lora_dropout\": NaN}", "lora_dropout is NaN, expected a number"},
        {PLAIN ", \"bias\": NaN}", "bias is NaN, expected a string"},
        {PLAIN ", \"use_rslora\": \"true\"}", "use_rslora is \"true\", expected true or false"},
        {PLAIN ", \"r\": 0}", "r is 0, expected an integer from 1 to 65536"},
        {PLAIN ", \"new_option\": true}", "new_option is true, expected null: Quipu does not know"},
        {PLAIN ", \"r\": 8}", "lora_A.weight has 2 dimensions of [4, 32], expected [8, 32]"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_FAILS(read_with(bad[i].text, config), QP_INPUT, bad[i].message);
}

static void test_folder_refusals(const qp_llama_config_t *config)
{
    qp_peft_t peft;
    char *path = in_folder("bad/adapter_model.safetensors"), *folder = in_folder("bad");
    char *pickle = in_folder("bad/adapter_model.bin");
    CHECK_FAILS(qp_peft_read(qp_test_folder(), config, &peft), QP_INPUT,
                "is no PEFT adapter folder");
    unlink(path);
    CHECK_FAILS(read_with(PLAIN "}", config), QP_INPUT, "has no adapter_model.safetensors");
    CHECK_OK(qp_file_write(pickle, "x", 1));
    CHECK_FAILS(read_with(PLAIN "}", config), QP_INPUT, "only a PyTorch pickle");
    CHECK_FAILS(qp_peft_read_shape(folder, &peft), QP_INPUT, "only a PyTorch pickle");
    CHECK_FAILS(read_with(PLAIN ", \"use_dora\": true}", config), QP_INPUT, "use_dora is true");
    qp_free(path);
    qp_free(pickle);
    qp_free(folder);
}

/* Rewrites the tensors of the golden adapter: \a edit may change one, \a n_dropped are left out. */
static void rewrite(void (*edit)(qp_tensor_t *tensor, int64_t n), int64_t n_dropped)
{
    qp_safetensors_t *st = NULL;
    char *from = qp_format("%s/adapter_model.safetensors", golden);
    char *to = in_folder("bad/adapter_model.safetensors");
    if (CHECK_OK(qp_safetensors_open(qp_test_source(from), &st))) {
        qp_tensor_t tensor[16];
        int64_t n = qp_safetensors_n(st);
        for (int64_t i = 0; i < n && i < 16; i++)
            tensor[i] = *qp_safetensors_at(st, i);
        if (edit != NULL)
            edit(tensor, n);
        CHECK_OK(qp_safetensors_write(to, tensor, n - n_dropped));
    }
    qp_safetensors_close(&st);
    qp_free(from);
    qp_free(to);
}

static void rename_tensor(qp_tensor_t *tensor, int64_t n)
{
    (void)n;
    tensor[2].name = "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight";
}

static void strip_prefix(qp_tensor_t *tensor, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        tensor[i].name += strlen("base_model.model.");
}

static void put_nan(qp_tensor_t *tensor, int64_t n)
{
    (void)n;
    static float data[4 * 48];
    data[40] = NAN;
    tensor[2].data = data;
}

static void test_tensor_refusals(const qp_llama_config_t *config)
{
    rewrite(rename_tensor, 0);
    CHECK_FAILS(read_with(PLAIN "}", config), QP_INPUT,
                "layers.0.self_attn.k_proj.lora_A.weight is missing");
    rewrite(NULL, 1);
    CHECK_FAILS(read_with(PLAIN "}", config), QP_INPUT,
                "layers.1.self_attn.q_proj.lora_B.weight is missing");
    rewrite(put_nan, 0);
    CHECK_FAILS(read_with(PLAIN "}", config), QP_INPUT, "the weight in row 1, column 8 is nan");
    qp_llama_config_t smaller = *config;
    smaller.n_layer = 1;
    rewrite(NULL, 0);
    CHECK_FAILS(read_with(PLAIN "}", &smaller), QP_INPUT,
                "unexpected tensor base_model.model.model.layers.1.");
}

/* What training takes of a folder, without its base: judged by the names of the files. */
static void test_init_refusals(void)
{
    char *folder = in_folder("bad");
    qp_str_t lines = {0};
    static const struct {
        const char *config, *message;
    } bad[] = {
        {PLAIN ", \"lora_alpha\": 0}", "adapter_config.json: lora_alpha is 0, training takes "},
        {PLAIN ", \"lora_alpha\": -8}", "adapter_config.json: lora_alpha is -8, training takes "},
        {PLAIN ", \"r\": 5000}", "adapter_config.json: r is 5000, training takes "},
    };
    char *path = in_folder("bad/adapter_config.json");
    rewrite(NULL, 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_OK(qp_file_write(path, bad[i].config, strlen(bad[i].config)));
        CHECK_FAILS(qp_lora_init_values(folder, &lines), QP_INPUT, bad[i].message);
    }
    CHECK_OK(qp_file_write(path, PLAIN "}", strlen(PLAIN "}")));
    CHECK_OK(qp_lora_init_values(folder, &lines));
    rewrite(strip_prefix, 0);
    CHECK_FAILS(qp_lora_init_values(folder, &lines), QP_INPUT,
                "layers.0.self_attn.q_proj.lora_A.weight is missing");
    qp_str_fini(&lines);
    qp_free(path);
    qp_free(folder);
}

int main(void)
{
    qp_source_t *base = NULL;
    if (CHECK_OK(qp_source_open(qp_test_source(gguf), &base))) {
        const qp_llama_config_t *config = qp_source_config(base);
        char *bad = in_folder("bad");
        mkdir(bad, 0777);
        qp_free(bad);
        test_reads_peft(config);
        test_merge_equals_peft(base);
        test_round_trip_keeps_the_score_head(config);
        test_merged_base_keeps_the_score_head(base);
        rewrite(NULL, 0);
        test_config_refusals(config);
        test_tensor_refusals(config);
        test_init_refusals();
        test_folder_refusals(config);
    }
    qp_source_close(&base);
    return qp_test_end();
}
