/* Configs, the rotation and quantisation of rows, and bases made from HF, GGUF and random sources.
 */
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/philox.h"
#include "base/str.h"
#include "import/source.h"
#include "testing.h"

static char *in_folder(const char *name)
{
    return qp_format("%s/%s", qp_test_folder(), name);
}

/* --- rows ------------------------------------------------------------------------------------- */

static void fill_random(float *x, int64_t n)
{
    const qp_philox_key_t key = {.seed = 5};
    for (int64_t i = 0; i < n; i++)
        x[i] = qp_philox_normal(&key, (uint64_t)i);
}

/* H[i][j] = (-1)^popcount(i & j) / sqrt(block): Sylvester's matrix, entry by entry in double. */
static void test_rotation_is_hadamard(void)
{
    static const int64_t sizes[] = {64, 128, 192, 96, 48, 40, 7};
    static const int64_t blocks[] = {64, 64, 64, 32, 16, 8, 1};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        int64_t n = sizes[k], block = qp_hadamard_block(n);
        float x[192], y[192];
        CHECK_MSG(block == blocks[k], "block of %ld is %ld", (long)n, (long)block);
        fill_random(x, n);
        memcpy(y, x, sizeof x);
        qp_hadamard_row(y, n);
        for (int64_t i = 0; i < n; i++) {
            double sum = 0.0;
            int64_t first = i / block * block;
            for (int64_t j = 0; j < block; j++) {
                double sign = __builtin_popcountll((uint64_t)((i - first) & j)) % 2 ? -1.0 : 1.0;
                sum += sign * (double)x[first + j];
            }
            CHECK(fabs(sum / sqrt((double)block) - (double)y[i]) < 1e-5);
        }
        qp_hadamard_row(y, n);
        CHECK(qp_test_relative_error(y, x, n) < 1e-6);
    }
}

static void test_quantise_is_round_to_nearest(void)
{
    enum { N = 203 };
    float x[N], zero[N] = {0};
    int8_t q[N];
    fill_random(x, N);
    x[77] = -4.5f;
    float scale = qp_quantise_row(x, N, q);
    CHECK(scale == 4.5f / 127.0f && q[77] == -127);
    for (int i = 0; i < N; i++) {
        double exact = (double)x[i] * 127.0 / 4.5;
        CHECK(fabs(exact - (double)q[i]) <= 0.5 + 1e-5);
    }
    CHECK(qp_quantise_row(zero, N, q) == 0.0f && q[0] == 0 && q[N - 1] == 0);
    const float ties[] = {127.0f, 0.5f, 1.5f, -2.5f};
    qp_quantise_row(ties, 4, q); /* ties to even */
    CHECK(q[0] == 127 && q[1] == 0 && q[2] == 2 && q[3] == -2);
}

/* --- configs ---------------------------------------------------------------------------------- */

#define SHAPE                                                                     \
    "\"hidden_size\": 64, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, " \
    "\"intermediate_size\": 96, \"vocab_size\": 100"
#define LLAMA3                                                                                  \
    "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, " \
    "\"high_freq_factor\": 4.0"
#define LLAMA "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", " SHAPE

static void test_config_defaults_and_spellings(void)
{
    qp_llama_config_t c;
    CHECK_OK(qp_llama_config_from_json("c", LLAMA "}", &c));
    CHECK(c.n_kv_head == 4 && c.head_dim == 16 && c.max_position == 2048 &&
          c.rope_theta == 10000.0);
    CHECK(c.rms_norm_eps == 1e-6f && !c.tie_word_embeddings && !c.attention_bias);
    CHECK(c.bos_token_id == -1 && c.pad_token_id == -1 && c.eos.n == 0);
    CHECK(c.rope_scaling == QP_ROPE_DEFAULT && c.family == QP_FAMILY_LLAMA &&
          c.sliding_window == 0);
    CHECK_OK(qp_llama_config_from_json(
        "c",
        LLAMA
        ", \"rope_theta\": 5e5, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
        "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
        "\"original_max_position_embeddings\": 8192}, \"eos_token_id\": [7, 8, 7], "
        "\"pad_token_id\": -1}",
        &c));
    CHECK(c.rope_scaling == QP_ROPE_LLAMA3 && c.rope_factor == 8.0 && c.rope_theta == 5e5);
    CHECK(c.rope_original_max_position == 8192 && c.pad_token_id == -1);
    CHECK(c.eos.n == 2 && c.eos.id[0] == 7 && c.eos.id[1] == 8);
    CHECK_OK(qp_llama_config_from_json("c", LLAMA ", " LLAMA3 "}}", &c));
    CHECK(c.rope_original_max_position == 2048);
    CHECK_OK(qp_llama_config_from_json(
        "c", LLAMA ", \"original_max_position_embeddings\": null, " LLAMA3 "}}", &c));
    CHECK(c.rope_original_max_position == 2048);
    CHECK_OK(qp_llama_config_from_json(
        "c", LLAMA ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}", &c));
    CHECK(c.rope_scaling == QP_ROPE_LINEAR && c.rope_factor == 2.0);
    CHECK_OK(
        qp_llama_config_from_json("c",
                                  "{\"model_type\": \"mistral\", \"sliding_window\": null, " SHAPE
                                  ", \"head_dim\": 32, \"num_key_value_heads\": 2, "
                                  "\"rope_parameters\": {\"rope_type\": \"default\", "
                                  "\"rope_theta\": 1e6}}",
                                  &c));
    CHECK(c.rope_theta == 1e6 && c.head_dim == 32 && c.n_kv_head == 2);
    /* MistralConfig's own default, where a LLaMA has as many as heads */
    CHECK_OK(qp_llama_config_from_json(
        "c",
        "{\"model_type\": \"mistral\", \"vocab_size\": 100, \"hidden_size\": 64, "
        "\"intermediate_size\": 32, \"num_hidden_layers\": 2, \"num_attention_heads\": 16}",
        &c));
    CHECK(c.n_head == 16 && c.n_kv_head == 8 && c.head_dim == 4);
}

static void test_config_refusals(void)
{
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"{", "config.json:1:"},
        {"[]", "is no JSON object"},
        {"{" SHAPE "}", "config.json: model_type is missing"},
        {"{\"model_type\": \"qwen2\"}", "model_type is \"qwen2\"; Quipu supports \"llama\""},
        {"{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"mistral\"}",
         "architectures names LlamaForCausalLM, model_type is \"mistral\""},
        {LLAMA ", \"mlp_bias\": true}", "mlp_bias is true"},
        {LLAMA ", \"hidden_act\": \"gelu\"}", "hidden_act is gelu; Quipu supports silu"},
        {LLAMA ", \"quantization_config\": {}}", "quantization_config is not null"},
        {LLAMA ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2}}",
         "rope scaling is \"yarn\"; Quipu supports default, linear and llama3"},
        {LLAMA ", \"rope_scaling\": {\"type\": \"linear\"}}", "rope_scaling: factor is missing"},
        {LLAMA ", \"rope_scaling\": {\"factor\": 2}}",
         "\"factor\" stands there without a rope_type"},
        {LLAMA ", \"partial_rotary_factor\": 0.5}", "partial_rotary_factor is 0.5"},
        {LLAMA ", \"num_key_value_heads\": 3}", "is no multiple of num_key_value_heads 3"},
        {LLAMA ", \"head_dim\": 15}", "a head has 15 dimensions (head_dim, or"},
        {LLAMA ", \"num_key_value_heads\": 0}",
         "num_key_value_heads is 0, expected an integer from 1"},
        {LLAMA ", \"rms_norm_eps\": \"x\"}", "rms_norm_eps is \"x\", expected a number"},
        {LLAMA ", \"tie_word_embeddings\": \"true\"}", "tie_word_embeddings is \"true\""},
        {LLAMA ", \"eos_token_id\": 100}", "eos_token_id is 100, the model has tokens 0 to 99"},
        {LLAMA ", \"eos_token_id\": [\"2\"]}", "eos_token_id is \"2\", expected a token id"},
        {"{\"model_type\": \"llama\"}", "num_hidden_layers is missing"},
        {"{\"model_type\": \"mistral\", " SHAPE "}", "num_key_value_heads is missing: the default"},
        {LLAMA ", \"original_max_position_embeddings\": 512, " LLAMA3 "}}",
         "original_max_position_embeddings is 512, but none stands there for the rope type"},
        {LLAMA ", \"original_max_position_embeddings\": 512, " LLAMA3
               ", \"original_max_position_embeddings\": 256}}",
         "original_max_position_embeddings is 512, and 256 for the rope type"},
        {LLAMA ", \"rms_norm_eps\": Infinity}", "rms_norm_eps is Infinity, expected"},
        {LLAMA ", \"head_dim\": NaN}", "head_dim is NaN, expected"},
        {LLAMA ", \"hidden_act\": -Infinity}", "hidden_act is -Infinity, expected"},
    };
    qp_llama_config_t c;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_FAILS(qp_llama_config_from_json("config.json", bad[i].text, &c), QP_INPUT,
                    bad[i].message);
}

static void test_config_round_trip(void)
{
    qp_llama_config_t c, d;
    CHECK_OK(qp_llama_config_from_json(
        "c",
        LLAMA ", \"rope_theta\": 123456.789, \"rms_norm_eps\": 1.1e-5, \"attention_bias\": true, "
              "\"tie_word_embeddings\": true, \"bos_token_id\": 3, \"eos_token_id\": [5, 4], "
              "\"pad_token_id\": 0, \"rope_scaling\": {\"rope_type\": "
              "\"llama3\", \"factor\": 32, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
              "\"original_max_position_embeddings\": 8192}}",
        &c));
    char *text = qp_llama_config_to_json(&c);
    CHECK_OK(qp_llama_config_from_json("again", text, &d));
    CHECK(memcmp(&c, &d, sizeof c) == 0);
    qp_free(text);
}

/* What the first bases hold: one EOS, no pad, no window. */
static void test_config_of_old_bases(void)
{
    static const char text[] =
        "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n"
        "  \"hidden_act\": \"silu\",\n  \"mlp_bias\": false,\n  \"num_hidden_layers\": 2,\n"
        "  \"hidden_size\": 64,\n  \"num_attention_heads\": 4,\n  \"num_key_value_heads\": 2,\n"
        "  \"head_dim\": 16,\n  \"intermediate_size\": 160,\n  \"vocab_size\": 320,\n"
        "  \"max_position_embeddings\": 4096,\n  \"rope_theta\": 10000,\n"
        "  \"rope_scaling\": null,\n  \"eos_token_id\": 256,\n  \"attention_bias\": false,\n"
        "  \"tie_word_embeddings\": false,\n  \"rms_norm_eps\": 9.99999975e-06\n}\n";
    qp_llama_config_t c;
    CHECK_OK(qp_llama_config_from_json("base.h5", text, &c));
    CHECK(c.eos.n == 1 && c.eos.id[0] == 256 && c.pad_token_id == -1 && c.sliding_window == 0);
    CHECK(c.rms_norm_eps == 1e-5f && c.rope_theta == 10000.0);
}

#define MISTRAL "{\"model_type\": \"mistral\", \"num_key_value_heads\": 2, " SHAPE

/* Absent is 4096, null is none, use_sliding_window is nothing; and so it is exported. */
static void test_sliding_window(void)
{
    static const struct {
        const char *text;
        int64_t window;
    } window[] = {{MISTRAL "}", 4096},
                  {MISTRAL ", \"sliding_window\": null}", 0},
                  {MISTRAL ", \"sliding_window\": 7, \"use_sliding_window\": false}", 7},
                  {LLAMA ", \"sliding_window\": 7}", 0}};
    for (size_t i = 0; i < sizeof window / sizeof window[0]; i++) {
        qp_llama_config_t c, d;
        CHECK_OK(qp_llama_config_from_json("c", window[i].text, &c));
        CHECK(c.sliding_window == window[i].window);
        char *text = qp_llama_config_to_json(&c);
        CHECK_OK(qp_llama_config_from_json("again", text, &d));
        CHECK(memcmp(&c, &d, sizeof c) == 0);
        qp_free(text);
        if (window[i].window != 7)
            continue;
        CHECK_OK(qp_llama_check_length(&c, "it", 7));
        CHECK_FAILS(qp_llama_check_length(&c, "it", 8), QP_INPUT,
                    "it is 8 tokens, but the base attends to the last 7 only (sliding_window)");
    }
}

/* layer_types decide over a Mistral's window; layers that differ are refused. SHAPE has 2 layers.
 */
static void test_layer_types(void)
{
    static const struct {
        const char *text;
        int64_t window; /* -1: refused */
    } types[] = {
        {MISTRAL ", \"sliding_window\": 7, \"layer_types\": null}", 7},
        {MISTRAL ", \"layer_types\": [\"full_attention\", \"full_attention\"]}", 0},
        {MISTRAL ", \"sliding_window\": 7, \"layer_types\": [\"full_attention\", "
                 "\"full_attention\"]}",
         0},
        {MISTRAL ", \"sliding_window\": 7, \"layer_types\": [\"sliding_attention\", "
                 "\"sliding_attention\"]}",
         7},
        {MISTRAL ", \"sliding_window\": 7, \"layer_types\": [\"sliding_attention\", "
                 "\"full_attention\"]}",
         -1},
        {MISTRAL ", \"sliding_window\": null, \"layer_types\": [\"sliding_attention\", "
                 "\"sliding_attention\"]}",
         -1},
        {MISTRAL ", \"layer_types\": [\"full_attention\"]}", -1},
        {MISTRAL ", \"layer_types\": [\"none\", \"none\"]}", -1},
        {MISTRAL ", \"layer_types\": \"full_attention\"}", -1},
        {LLAMA ", \"layer_types\": [\"full_attention\", \"full_attention\"]}", 0},
        {LLAMA ", \"sliding_window\": 7, \"layer_types\": [\"sliding_attention\", "
               "\"sliding_attention\"]}",
         -1},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        qp_llama_config_t c;
        qp_error_t error = qp_llama_config_from_json("c", types[i].text, &c);
        if (types[i].window < 0)
            CHECK_FAILS(error, QP_INPUT, "c: layer_types is ");
        else if (CHECK_OK(error))
            CHECK(c.sliding_window == types[i].window);
    }
}

/* What generation_config.json adds, and what an export says. */
static void test_generation_config(void)
{
    static const char own[] = "{\"eos_token_id\": [9, 7], \"bos_token_id\": 1, \"top_p\": 0.90}\n";
    qp_llama_config_t c;
    CHECK_OK(
        qp_llama_config_from_json("c", LLAMA ", \"eos_token_id\": 7, \"bos_token_id\": 3}", &c));
    char *text = qp_llama_generation_to_json(&c, NULL);
    CHECK(strstr(text, "\"eos_token_id\": 7") != NULL && strstr(text, "pad") == NULL);
    qp_free(text);
    CHECK_OK(qp_llama_config_add_generation("g", own, &c));
    CHECK(c.eos.n == 2 && c.eos.id[0] == 7 && c.eos.id[1] == 9 && c.bos_token_id == 3);
    text = qp_llama_generation_to_json(&c, own);
    CHECK(strcmp(text, own) == 0);
    qp_free(text);
    CHECK(qp_eos_add(&c.eos, 11)); /* as a tokenizer might */
    text = qp_llama_generation_to_json(&c, own);
    qp_llama_config_t d = {.n_vocab = 100, .bos_token_id = -1, .pad_token_id = -1};
    CHECK_OK(qp_llama_config_add_generation("again", text, &d));
    CHECK(memcmp(&d.eos, &c.eos, sizeof d.eos) == 0 && strstr(text, "top_p") != NULL);
    qp_free(text);
    CHECK_FAILS(qp_llama_config_add_generation("g", "{\"eos_token_id\": \"7\"}", &c), QP_INPUT,
                "g: eos_token_id is \"7\", expected a token id");
    CHECK_FAILS(qp_llama_config_add_generation("g", "{\"eos_token_id\": [100]}", &c), QP_INPUT,
                "g: eos_token_id is 100, the model has tokens 0 to 99");
    CHECK_FAILS(qp_llama_config_add_generation("g", "[", &c), QP_INPUT, "g:1: ");
}

/* The rule of transformers' _compute_llama3_parameters, in double. */
static void test_rope_table(void)
{
    enum { N_POSITION = 600, DIM = 64 };
    qp_llama_config_t c = {.head_dim = DIM,
                           .rope_theta = 500000.0,
                           .rope_scaling = QP_ROPE_LLAMA3,
                           .rope_factor = 8.0,
                           .rope_low_freq_factor = 1.0,
                           .rope_high_freq_factor = 4.0,
                           .rope_original_max_position = 512};
    float *table = QP_NEW("test", float, N_POSITION *DIM);
    qp_llama_rope_table(&c, N_POSITION, table);
    double worst = 0.0;
    for (int i = 0; i < DIM / 2; i++) {
        double f = pow(500000.0, -2.0 * i / DIM), wavelength = 2.0 * M_PI / f;
        double smooth = (512.0 / wavelength - 1.0) / 3.0;
        if (wavelength > 512.0)
            f /= 8.0;
        else if (wavelength > 128.0)
            f = (1.0 - smooth) * f / 8.0 + smooth * f;
        for (int p = 0; p < N_POSITION; p++) {
            worst = fmax(worst, fabs((double)table[p * DIM + i] - cos(p * f)));
            worst = fmax(worst, fabs((double)table[p * DIM + DIM / 2 + i] - sin(p * f)));
        }
    }
    CHECK_MSG(worst < 600.0 * 2.4e-7, "worst %g",
              worst); /* two fp32 roundings of an angle up to 600 */
    qp_free(table);
}

/* --- bases ------------------------------------------------------------------------------------ */

/* A copy of the golden HF folder with a tokenizer, which the golden one leaves out. */
static char *make_hf_folder(void)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    char *folder = in_folder("hf");
    qp_source_t *random = NULL;
    mkdir(folder, 0777);
    for (int i = 0; i < 2; i++) {
        void *data = NULL;
        size_t n;
        char *from = qp_format("tests/golden/formats/hf/%s", files[i]);
        char *to = qp_format("%s/%s", folder, files[i]);
        if (CHECK_OK(qp_file_read(qp_test_source(from), &data, &n)))
            CHECK_OK(qp_file_write(to, data, n));
        qp_free(data);
        qp_free(from);
        qp_free(to);
    }
    CHECK_OK(qp_source_synthetic("tiny", 1, &random));
    CHECK_OK(qp_tokenizer_files_to_folder(qp_source_tokenizer(random), folder));
    qp_source_close(&random);
    return folder;
}

/* The same sizes and options; what ends an answer is also the tokenizer's to say. */
static bool same_config(const qp_llama_config_t *a, const qp_llama_config_t *b)
{
    qp_llama_config_t one = *a, two = *b;
    one.eos = two.eos = (qp_eos_t){0};
    return memcmp(&one, &two, sizeof one) == 0;
}

/* True if both sources have the same config and the same bits in every tensor. */
static bool same_model(const char *a, const char *b)
{
    qp_source_t *s = NULL, *t = NULL;
    bool same = CHECK_OK(qp_source_open(a, &s)) && CHECK_OK(qp_source_open(b, &t)) &&
                same_config(qp_source_config(s), qp_source_config(t));
    int64_t n_spec = 0, n = same ? qp_source_piece_max(s) : 0;
    const qp_tensor_spec_t *spec = same ? qp_source_tensors(s, &n_spec) : NULL;
    float *x = QP_NEW("test", float, n), *y = QP_NEW("test", float, n);
    for (int64_t i = 0; i < n_spec; i++) {
        CHECK_OK(qp_source_rows(s, i, 0, spec[i].n_row, x));
        CHECK_OK(qp_source_rows(t, i, 0, spec[i].n_row, y));
        size_t bytes = qp_bytes(spec[i].n_row * spec[i].n_col, sizeof *x);
        same = CHECK_MSG(memcmp(x, y, bytes) == 0, "%s", spec[i].name) && same;
    }
    qp_free(x);
    qp_free(y);
    qp_source_close(&s);
    qp_source_close(&t);
    return same;
}

static void import(const char *from, const char *to, qp_weight_kind_t precision)
{
    qp_source_t *source = NULL;
    if (CHECK_OK(qp_source_open(from, &source)))
        CHECK_OK(qp_source_write_base(source, to, qp_base_kinds(precision)));
    qp_source_close(&source);
}

static bool same_eos(const char *path, qp_eos_t eos)
{
    qp_source_t *source = NULL;
    bool same = CHECK_OK(qp_source_open(path, &source)) &&
                memcmp(&qp_source_config(source)->eos, &eos, sizeof eos) == 0;
    qp_source_close(&source);
    return same;
}

/* The same model as HF stores it (bf16, rope in halves) and as llama.cpp does (pairs, other names).
 */
static void test_hf_and_gguf_give_the_same_base(const char *hf)
{
    char *from_hf = in_folder("hf.h5"), *from_gguf = in_folder("gguf.h5");
    import(hf, from_hf, QP_WEIGHT_F32);
    import(qp_test_source("tests/golden/formats/tiny.gguf"), from_gguf, QP_WEIGHT_F32);
    CHECK(same_model(hf, from_hf));
    CHECK(same_model(from_hf, from_gguf));
    CHECK(same_eos(from_hf, (qp_eos_t){2, {256, 2}})); /* the tokenizer's own, then the config's */
    CHECK(same_eos(from_gguf, (qp_eos_t){1, {2}}));
    qp_free(from_hf);
    qp_free(from_gguf);
}

/* The distance of a stored model from its source, in units of the mean weight. */
static double mean_change(const char *from, qp_weight_kind_t precision)
{
    char *path = in_folder("precision.h5");
    qp_source_t *exact = NULL, *stored = NULL;
    qp_rounding_t rounding = {0};
    import(from, path, precision);
    if (CHECK_OK(qp_source_open(from, &exact)) && CHECK_OK(qp_source_open(path, &stored)))
        CHECK_OK(qp_source_rounding(exact, stored, &rounding));
    qp_source_close(&exact);
    qp_source_close(&stored);
    qp_free(path);
    return rounding.mean_change / rounding.mean_weight;
}

/* Uniform rounding of a normal row of 32 to 64: absmax about 2.3 deviations, step absmax / 127,
 * mean error step / 4, mean weight 0.8 deviations: 0.57%. The model is bf16 already. */
static void test_precisions(const char *hf)
{
    CHECK(mean_change(hf, QP_WEIGHT_BF16) == 0.0);
    double llm = mean_change(hf, QP_WEIGHT_LLM_INT8), rotated = mean_change(hf, QP_WEIGHT_INT8);
    CHECK_MSG(llm > 0.004 && llm < 0.008, "%g", llm);
    CHECK_MSG(rotated > 0.004 && rotated < 0.008, "%g", rotated);
}

/* A head in int8 is read back near what it was; a tied one is stored beside the embedding, which
 * the model keeps. */
static void test_int8_head(bool tied)
{
    static float was[300 * 64], is[300 * 64];
    char *path = in_folder("head.h5");
    qp_source_t *exact = NULL, *stored = NULL;
    qp_h5_t *file = NULL;
    qp_h5_shape_t shape = {0};
    int64_t n_spec;
    const qp_base_kinds_t kinds = {QP_WEIGHT_BF16, QP_WEIGHT_INT8};
    CHECK_OK(qp_source_synthetic(tied ? "tiny,tied=1,n_vocab=300" : "tiny,n_vocab=300", 5, &exact));
    CHECK_OK(qp_source_write_base(exact, path, kinds));
    if (CHECK_OK(qp_h5_open(path, NULL, &file))) {
        CHECK_OK(qp_h5_dataset_shape(file, "/tensors/lm_head.weight", &shape));
        CHECK(shape.dtype == QP_I8 && shape.dim[0] == 300 && shape.dim[1] == 64);
        CHECK_OK(qp_h5_checksum_verify(file, "/tensors/lm_head.weight_scale"));
        CHECK_OK(qp_h5_close(&file));
    }
    if (CHECK_OK(qp_source_open(path, &stored))) {
        double change = 0.0, size = 0.0;
        qp_source_tensors(exact, &n_spec);
        const int64_t head = tied ? 0 : n_spec - 1;
        CHECK_OK(qp_source_rows(exact, head, 0, 300, was));
        CHECK_OK(qp_source_rows(stored, head, 0, 300, is));
        for (int i = 0; i < 300 * 64; i++) {
            change += fabs((double)is[i] - (double)was[i]);
            size += fabs((double)was[i]);
        }
        CHECK_MSG(tied ? change / size < 2e-3 : change / size > 2e-3 && change / size < 1e-2,
                  "%s: changed by %g", tied ? "tied" : "apart", change / size);
    }
    qp_source_close(&exact);
    qp_source_close(&stored);
    qp_free(path);
}

static void test_info_and_tokenizer(const char *hf)
{
    char *path = in_folder("int8.h5");
    qp_h5_t *file = NULL;
    qp_base_info_t one = {0}, two = {0};
    qp_tokenizer_files_t files = {0};
    import(hf, path, QP_WEIGHT_INT8);
    if (CHECK_OK(qp_h5_open(path, NULL, &file)) && CHECK_OK(qp_base_info_read(file, &one))) {
        CHECK(one.kinds.linear == QP_WEIGHT_INT8 && one.config.d_model == 32 && one.base_id != 0);
        CHECK(strcmp(one.source, hf) == 0);
        CHECK_OK(qp_base_tokenizer_read(file, &files));
        CHECK(strcmp(files.kind, "tokenizer.json") == 0 && files.model_bytes > 1000);
        CHECK_OK(qp_h5_checksum_verify(file, "/tensors/model.layers.1.mlp.up_proj.weight"));
        CHECK_OK(qp_h5_checksum_verify(file, "/tensors/model.layers.1.mlp.up_proj.weight_scale"));
        CHECK_OK(qp_h5_checksum_verify(file, "/tokenizer/model"));
        CHECK_OK(qp_h5_close(&file));
    }
    import(hf, path, QP_WEIGHT_INT8);
    if (CHECK_OK(qp_h5_open(path, NULL, &file)) && CHECK_OK(qp_base_info_read(file, &two))) {
        CHECK(one.base_id == two.base_id); /* the same weights, the same identity */
        CHECK_OK(qp_h5_close(&file));
    }
    qp_tokenizer_files_fini(&files);
    qp_base_info_fini(&one);
    qp_base_info_fini(&two);
    qp_free(path);
}

static void test_synthetic(void)
{
    qp_source_t *source = NULL;
    int64_t n_spec;
    CHECK_OK(qp_source_synthetic("tiny,n_layer=1,tied=1,n_vocab=300", 9, &source));
    const qp_llama_config_t *c = qp_source_config(source);
    CHECK(c->n_layer == 1 && c->tie_word_embeddings && c->n_vocab == 300 && c->d_model == 64);
    qp_source_tensors(source, &n_spec);
    CHECK(n_spec == 11);
    float *rows = QP_NEW("test", float, qp_source_piece_max(source));
    CHECK_OK(qp_source_rows(source, 0, 0, 300, rows));
    double sum = 0.0, square = 0.0;
    for (int i = 0; i < 300 * 64; i++) {
        sum += (double)rows[i];
        square += (double)rows[i] * (double)rows[i];
    }
    CHECK(fabs(sum / 19200.0) < 1e-3 && fabs(sqrt(square / 19200.0) - 0.02) < 5e-4);
    float again[64];
    CHECK_OK(qp_source_rows(source, 0, 17, 1, again));
    CHECK(memcmp(again, rows + 17 * 64, sizeof again) == 0);
    qp_free(rows);
    qp_source_close(&source);
    CHECK_FAILS(qp_source_synthetic("9b", 1, &source), QP_INPUT, "shape \"9b\" is unknown");
    static const char *const lists[] = {"", "tiny,", ",tiny", "tiny,,n_layer=1"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        CHECK_FAILS(qp_source_synthetic(lists[i], 1, &source), QP_INPUT, "shape \"\" is unknown");
    CHECK_FAILS(qp_source_synthetic("n_head=3", 1, &source), QP_INPUT,
                "shape: n_head 3 is no multiple of n_kv_head 2");
    CHECK_FAILS(qp_source_synthetic("n_layers=3", 1, &source), QP_INPUT,
                "unknown key \"n_layers\"");
    CHECK_FAILS(qp_source_synthetic("n_layer=x", 1, &source), QP_INPUT,
                "expected an integer from 1");
}

int main(void)
{
    test_rotation_is_hadamard();
    test_quantise_is_round_to_nearest();
    test_config_defaults_and_spellings();
    test_config_refusals();
    test_config_round_trip();
    test_config_of_old_bases();
    test_sliding_window();
    test_layer_types();
    test_generation_config();
    test_rope_table();
    char *hf = make_hf_folder();
    test_hf_and_gguf_give_the_same_base(hf);
    test_precisions(hf);
    test_info_and_tokenizer(hf);
    test_int8_head(false);
    test_int8_head(true);
    test_synthetic();
    qp_free(hf);
    return qp_test_end();
}
