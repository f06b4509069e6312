/* Several places name what ends an answer: config.json, generation_config.json, the tokenizer, GGUF
 * metadata. Each of them does, and exports keep them; so it is with BOS and pad. Ids beyond the
 * model are refused. */
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "formats/json.h"
#include "model/engine/engine.h"
#include "import/source.h"
#include "tiny.h"

enum { N_VOCAB = 260, D = 16, SAYS = 258 };

static char *folder, *base_path;
static qp_comm_t *comm;
static qp_device_t *device;

static void write_text(const char *name, const char *text)
{
    char *path = qp_format("%s/%s", folder, name);
    if (text == NULL)
        unlink(path);
    else
        CHECK_OK(qp_file_write(path, text, strlen(text)));
    qp_free(path);
}

/* A model that says token SAYS whatever it reads: all embeddings are alike, layers add nothing. */
static void write_weights(void)
{
    const struct {
        const char *name;
        int64_t n_row, n_col;
        float value;
    } all[] = {
        {"model.embed_tokens.weight", N_VOCAB, D, 1.0f},
        {"model.layers.0.input_layernorm.weight", D, 1, 1.0f},
        {"model.layers.0.self_attn.q_proj.weight", D, D, 0.0f},
        {"model.layers.0.self_attn.k_proj.weight", D, D, 0.0f},
        {"model.layers.0.self_attn.v_proj.weight", D, D, 0.0f},
        {"model.layers.0.self_attn.o_proj.weight", D, D, 0.0f},
        {"model.layers.0.post_attention_layernorm.weight", D, 1, 1.0f},
        {"model.layers.0.mlp.gate_proj.weight", D, D, 0.0f},
        {"model.layers.0.mlp.up_proj.weight", D, D, 0.0f},
        {"model.layers.0.mlp.down_proj.weight", D, D, 0.0f},
        {"model.norm.weight", D, 1, 1.0f},
        {"lm_head.weight", N_VOCAB, D, 0.0f},
    };
    enum { N = sizeof all / sizeof all[0] };
    qp_tensor_t tensor[N];
    for (int i = 0; i < N; i++) {
        const int64_t n = all[i].n_row * all[i].n_col;
        float *values = QP_NEW("test", float, n);
        for (int64_t k = 0; k < n; k++)
            values[k] = i == N - 1 && k / D == SAYS ? 1.0f : all[i].value;
        tensor[i] = (qp_tensor_t){.name = all[i].name,
                                  .dtype = QP_F32,
                                  .n_dim = all[i].n_col > 1 ? 2 : 1,
                                  .dim = {all[i].n_row, all[i].n_col},
                                  .n_bytes = (size_t)n * sizeof(float),
                                  .data = values};
    }
    char *path = qp_format("%s/model.safetensors", folder);
    CHECK_OK(qp_safetensors_write(path, tensor, N));
    qp_free(path);
    for (int i = 0; i < N; i++)
        qp_free((void *)tensor[i].data);
}

/* The folder with these special tokens; an extra token of the tokenizer has this id. */
static void write_folder(const char *config, const char *generation, const char *tokenizer,
                         int extra)
{
    char *text =
        qp_format("{\"model_type\": \"llama\", \"hidden_size\": %d, \"num_hidden_layers\": 1, "
                  "\"num_attention_heads\": 2, \"intermediate_size\": %d, \"vocab_size\": %d, "
                  "\"max_position_embeddings\": 64%s}",
                  D, D, N_VOCAB, config);
    write_text("config.json", text);
    qp_free(text);
    qp_str_t vocab = {0};
    for (int i = 0; i <= 255; i++)
        qp_str_printf(&vocab, "%s\"%c%.*d\": %d", i > 0 ? ", " : "", 'a' + i % 26, i >= 26, i / 26,
                      i);
    text = qp_format(
        "{\"added_tokens\": [{\"id\": 256, \"content\": \"<end>\", \"special\": true}, "
        "{\"id\": 257, \"content\": \"<other>\", \"special\": true}, "
        "{\"id\": 258, \"content\": \"<turn>\", \"special\": true}, %s"
        "{\"id\": %d, \"content\": \"<extra>\", \"special\": true}], "
        "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, "
        "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": "
        "{%s}, \"merges\": []}}",
        extra > 259 ? "{\"id\": 259, \"content\": \"<next>\"}, " : "", extra, vocab.data);
    qp_str_fini(&vocab);
    write_text("tokenizer.json", text);
    qp_free(text);
    write_text("tokenizer_config.json", tokenizer);
    write_text("generation_config.json", generation);
}

static qp_error_t import(void)
{
    qp_source_t *source = NULL;
    qp_error_t error = qp_source_open(folder, &source);
    if (error == NULL)
        error = qp_source_write_base(source, base_path, qp_base_kinds(QP_WEIGHT_F32));
    qp_source_close(&source);
    return error;
}

/* --- answers ---------------------------------------------------------------------------------- */

/* The tokens of an answer of the imported base, ended by what its header and tokenizer say. */
static int64_t answer_length(int64_t min_new_tokens, bool *stopped)
{
    static const int32_t prompt[] = {0, 1};
    const qp_base_config_t config = {.file = base_path, .outlier_threshold = 6.0};
    const qp_generate_config_t generate = {
        .max_new_tokens = 5, .min_new_tokens = min_new_tokens, .max_active = 1, .max_prefill = 8};
    const qp_philox_key_t key = {.seed = 1};
    qp_request_t request = {.prompt = prompt, .n_prompt = 2};
    qp_tokenizer_files_t files = {0};
    qp_tokenizer_t *tokenizer = NULL;
    qp_h5_t *file = NULL;
    qp_base_t *base = NULL;
    qp_engine_t *engine = NULL;
    qp_eos_t eos;
    CHECK_OK(qp_h5_open(base_path, NULL, &file));
    CHECK_OK(qp_base_tokenizer_read(file, &files));
    CHECK_OK(qp_h5_close(&file));
    CHECK_OK(qp_tokenizer_create(&files, &tokenizer));
    CHECK_OK(qp_base_load(comm, device, &config, 7, &base));
    CHECK_OK(qp_llama_eos(&base->config, tokenizer, &eos));
    CHECK_OK(qp_engine_create(base, NULL, &generate, 7, NULL, &engine));
    CHECK_OK(qp_engine_run(engine, &(qp_role_t){base, NULL}, &request, 1, &eos, &key));
    *stopped = request.stopped;
    qp_engine_destroy(&engine);
    qp_base_destroy(comm, &base);
    qp_tokenizer_destroy(&tokenizer);
    qp_tokenizer_files_fini(&files);
    qp_free(request.token);
    qp_free(request.logprob);
    return request.n_token;
}

static const char NO_EOS[] = "{}", END[] = "{\"eos_token\": \"<end>\"}",
                  TURN[] = "{\"eos_token\": {\"content\": \"<turn>\"}}";

static void test_each_place_ends_an_answer(void)
{
    static const struct {
        const char *config, *generation, *tokenizer;
        bool ends;
    } places[] = {
        {", \"eos_token_id\": [256, 258]", NULL, END, true},
        {", \"eos_token_id\": 258", NULL, END, true},
        {", \"eos_token_id\": 256", "{\"eos_token_id\": [256, 258]}", END, true},
        {"", "{\"eos_token_id\": 258, \"x\": 1e999}", NO_EOS, true},
        {", \"eos_token_id\": 256", "{\"eos_token_id\": null}", TURN, true},
        {"", NULL, TURN, true},
        {"", NULL, NO_EOS, false},
        {", \"eos_token_id\": 256", "{}", END, false},
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        bool stopped, late;
        write_folder(places[i].config, places[i].generation, places[i].tokenizer, 259);
        CHECK_OK(import());
        const int64_t n = answer_length(0, &stopped);
        CHECK_MSG(stopped == places[i].ends && n == (places[i].ends ? 1 : 5),
                  "place %d: %d tokens, stopped %d", (int)i, (int)n, (int)stopped);
        CHECK(answer_length(3, &late) == (places[i].ends ? 4 : 5) && late == stopped);
    }
}

/* --- ids -------------------------------------------------------------------------------------- */

static void check_ids(const char *path, qp_eos_t eos, int64_t bos, int64_t pad)
{
    qp_source_t *source = NULL;
    if (!CHECK_OK(qp_source_open(path, &source)))
        return;
    const qp_llama_config_t *c = qp_source_config(source);
    CHECK(memcmp(&c->eos, &eos, sizeof eos) == 0);
    CHECK_MSG(c->bos_token_id == bos && c->pad_token_id == pad, "BOS %d, pad %d",
              (int)c->bos_token_id, (int)c->pad_token_id);
    qp_source_close(&source);
}

/* The tokenizer's EOS first; BOS and pad of the first place that has one. */
static void test_order_of_places(void)
{
    const qp_eos_t both = {2, {256, 258}}, three = {3, {258, 7, 256}};
    write_folder(", \"eos_token_id\": [258, 256], \"bos_token_id\": 3",
                 "{\"bos_token_id\": 4, \"pad_token_id\": 5}",
                 "{\"eos_token\": \"<end>\", \"pad_token\": \"<extra>\"}", 259);
    check_ids(folder, both, 3, 5);
    CHECK_OK(import());
    check_ids(base_path, both, 3, 5);
    write_folder(", \"eos_token_id\": 7", "{\"eos_token_id\": [256]}",
                 "{\"eos_token\": \"<turn>\", \"pad_token\": {\"content\": \"<extra>\"}, "
                 "\"bos_token\": \"<end>\"}",
                 259);
    check_ids(folder, three, 256, 259);
    write_folder("", NULL, "{\"pad_token\": \"<extra>\"}", N_VOCAB); /* it only fills batches */
    check_ids(folder, (qp_eos_t){0}, -1, -1);
}

static void test_ids_beyond_the_model(void)
{
    static const struct {
        const char *config, *generation, *tokenizer, *message;
    } bad[] = {
        {", \"eos_token_id\": 260", NULL, END, "config.json: eos_token_id is 260, the model has"},
        {", \"eos_token_id\": [256, -1]", NULL, END, "config.json: eos_token_id is -1"},
        {", \"bos_token_id\": 260", NULL, END, "config.json: bos_token_id is 260"},
        {"", "{\"eos_token_id\": [256, 260]}", END, "generation_config.json: eos_token_id is 260"},
        {"", NULL, "{\"eos_token\": \"<extra>\"}", "the tokenizer's EOS is token 260"},
        {"", NULL, "{\"bos_token\": \"<extra>\"}", "the tokenizer's BOS is token 260"},
        {"", "[]", END, "generation_config.json: is no JSON object"},
        {"", NULL, "{\"eos_token\": \"<nothing>\"}", "eos_token '<nothing>' is not in the"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_folder(bad[i].config, bad[i].generation, bad[i].tokenizer, N_VOCAB);
        CHECK_FAILS(import(), QP_INPUT, bad[i].message);
    }
}

/* --- exports ---------------------------------------------------------------------------------- */

static char *read_export(const char *name)
{
    void *text = NULL;
    size_t n_bytes;
    char *path = qp_format("%s/export/%s", folder, name);
    if (access(path, F_OK) == 0)
        CHECK_OK(qp_file_read(path, &text, &n_bytes));
    qp_free(path);
    return text;
}

static void export(void)
{
    qp_source_t *source = NULL;
    char *to = qp_format("%s/export", folder), *old = qp_format("%s/generation_config.json", to);
    mkdir(to, 0777);
    unlink(old);
    if (CHECK_OK(qp_source_open(base_path, &source)))
        CHECK_OK(qp_source_write_hf(source, to, QP_F32, QP_HF_SHARD_BYTES));
    qp_source_close(&source);
    qp_free(old);
    qp_free(to);
}

static bool same_ids(const char *text, const char *key, const char *expected)
{
    json_t *root = NULL, *wanted = json_loads(expected, JSON_DECODE_ANY, NULL);
    CHECK_OK(qp_json_parse_object("export", text, strlen(text), 0, &root));
    const bool same = json_equal(json_object_get(root, key), wanted) != 0;
    json_decref(root);
    json_decref(wanted);
    return same;
}

static void test_exports_keep_them(void)
{
    static const char own[] = "{ \"eos_token_id\":[258,256], \"temperature\": 0.60 }\n";
    write_folder(", \"eos_token_id\": 256, \"pad_token_id\": 0", own, END, 259);
    CHECK_OK(import());
    export();
    char *config = read_export("config.json"), *generation = read_export("generation_config.json");
    CHECK(same_ids(config, "eos_token_id", "[256, 258]") && same_ids(config, "pad_token_id", "0"));
    CHECK(generation != NULL && strcmp(generation, own) == 0); /* as it came */
    qp_free(config);
    qp_free(generation);
    write_folder(", \"eos_token_id\": 258", "{\"top_k\": 7, \"eos_token_id\": 258}", END, 259);
    CHECK_OK(import());
    export();
    generation = read_export("generation_config.json");
    CHECK(same_ids(generation, "eos_token_id", "[256, 258]") && same_ids(generation, "top_k", "7"));
    qp_free(generation);
    write_folder(", \"eos_token_id\": 258", NULL, NO_EOS, 259);
    CHECK_OK(import());
    export();
    generation = read_export("generation_config.json");
    CHECK(same_ids(generation, "eos_token_id", "258"));
    qp_free(generation);
    write_folder("", NULL, NO_EOS, 259);
    CHECK_OK(import());
    export();
    CHECK(read_export("generation_config.json") == NULL); /* there is nothing to say */
}

/* transformers reads a score at the last token that is no pad: a pad that ends texts would move it.
 */
static void test_classifiers_have_a_pad(void)
{
    static const struct {
        const char *config, *pad;
    } model[] = {{", \"pad_token_id\": 0, \"bos_token_id\": 1, \"eos_token_id\": 2", "0"},
                 {", \"bos_token_id\": 1, \"eos_token_id\": 2", "1"},
                 {", \"pad_token_id\": 2, \"bos_token_id\": 1, \"eos_token_id\": 2", "1"},
                 {", \"eos_token_id\": [3, 2]", "3"}};
    for (size_t i = 0; i < sizeof model / sizeof model[0]; i++) {
        const float score[D] = {0};
        qp_source_t *source = NULL;
        write_folder(model[i].config, NULL, NO_EOS, 259);
        if (!CHECK_OK(qp_source_open(folder, &source)))
            continue;
        qp_peft_t peft = {.n_score = 1, .score = (float *)score};
        qp_source_t *merged = NULL;
        qp_source_merged(source, &peft, &merged);
        char *to = qp_format("%s/export", folder);
        CHECK_OK(qp_source_write_hf(merged, to, QP_F32, QP_HF_SHARD_BYTES));
        char *config = read_export("config.json");
        CHECK(same_ids(config, "pad_token_id", model[i].pad));
        CHECK(same_ids(config, "architectures", "[\"LlamaForSequenceClassification\"]"));
        qp_free(config);
        qp_free(to);
        qp_source_close(&merged);
        qp_source_close(&source);
    }
}

/* --- GGUF ------------------------------------------------------------------------------------- */

/* eot and eom end an answer too; keys of the golden file are renamed in place. */
static void test_gguf(void)
{
    static const struct {
        const char *key;
        qp_eos_t eos;
        int64_t bos;
    } named[] = {{"tokenizer.ggml.bos_token_id", {1, {2}}, 1},
                 {"tokenizer.ggml.eot_token_id", {2, {2, 1}}, -1},
                 {"tokenizer.ggml.eom_token_id", {2, {2, 1}}, -1}};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        char *bytes = NULL, *path = qp_format("%s/tiny.gguf", folder);
        size_t n = 0;
        CHECK_OK(
            qp_file_read(qp_test_source("tests/golden/formats/tiny.gguf"), (void **)&bytes, &n));
        char *at = memmem(bytes, n, named[0].key, strlen(named[0].key));
        if (CHECK(at != NULL))
            memcpy(at, named[i].key, strlen(named[i].key));
        CHECK_OK(qp_file_write(path, bytes, n));
        check_ids(path, named[i].eos, named[i].bos, -1);
        qp_free(bytes);
        qp_free(path);
    }
}

int main(void)
{
    const qp_device_config_t config = {
        .backend = QP_BACKEND_AUTO, .compute = QP_COMPUTE_FP32, .threads = 1};
    CHECK_OK(qp_comm_create(&comm));
    CHECK_OK(qp_device_open(&config, 0, 1, &device));
    folder = qp_format("%s/hf", qp_test_folder());
    base_path = qp_format("%s/base.h5", qp_test_folder());
    mkdir(folder, 0777);
    write_weights();
    test_each_place_ends_an_answer();
    test_order_of_places();
    test_ids_beyond_the_model();
    test_exports_keep_them();
    test_classifiers_have_a_pad();
    test_gguf();
    qp_free(folder);
    qp_free(base_path);
    qp_device_close(&device);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
