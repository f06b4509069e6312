/* Random models of a given shape, for planning, benchmarks and tests. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "base/str.h"
#include "import/source_impl.h"

/* Published shapes (Touvron et al. 2023, table 2; Llama 2 and 3 model cards) and one for tests. */
static const struct {
    const char *name;
    int64_t n_layer, d_model, n_head, n_kv_head, d_ff, n_vocab;
    bool tied;
} shapes[] = {
    {"tiny", 2, 64, 4, 2, 160, 320, false},         {"135m", 30, 576, 9, 3, 1536, 49152, true},
    {"1b", 16, 2048, 32, 8, 8192, 128256, true},    {"3b", 28, 3072, 24, 8, 8192, 128256, true},
    {"7b", 32, 4096, 32, 32, 11008, 32000, false},  {"8b", 32, 4096, 32, 8, 14336, 128256, false},
    {"13b", 40, 5120, 40, 40, 13824, 32000, false}, {"30b", 60, 6656, 52, 52, 17920, 32000, false},
    {"65b", 80, 8192, 64, 64, 22016, 32000, false}, {"70b", 80, 8192, 64, 8, 28672, 32000, false},
};
enum { N_SHAPE = sizeof shapes / sizeof shapes[0], N_BYTE = 256 };

/* --- shape ------------------------------------------------------------------------------------ */

static bool set_named(const char *name, qp_llama_config_t *c)
{
    for (int i = 0; i < N_SHAPE; i++)
        if (strcmp(shapes[i].name, name) == 0) {
            c->n_layer = shapes[i].n_layer;
            c->d_model = shapes[i].d_model;
            c->n_head = shapes[i].n_head;
            c->n_kv_head = shapes[i].n_kv_head;
            c->d_ff = shapes[i].d_ff;
            c->n_vocab = shapes[i].n_vocab;
            c->tie_word_embeddings = shapes[i].tied;
            return true;
        }
    return false;
}

/* One "key=value" of a shape. */
static qp_error_t set_key(const char *key, const char *value, qp_llama_config_t *c)
{
    const struct {
        const char *key;
        int64_t *size;
        int64_t max;
    } keys[] = {
        {"n_layer", &c->n_layer, 10000},     {"d_model", &c->d_model, 1 << 20},
        {"n_head", &c->n_head, 1 << 16},     {"n_kv_head", &c->n_kv_head, 1 << 16},
        {"head_dim", &c->head_dim, 1 << 16}, {"d_ff", &c->d_ff, 1 << 22},
        {"n_vocab", &c->n_vocab, 1 << 24},   {"max_position", &c->max_position, INT32_MAX},
    };
    const struct {
        const char *key;
        bool *flag;
    } flags[] = {{"tied", &c->tie_word_embeddings}, {"attention_bias", &c->attention_bias}};
    char *end;
    long long number = strtoll(value, &end, 10);
    bool is_number = end != value && *end == '\0';
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(key, keys[i].key) == 0) {
            *keys[i].size = number;
            if (!is_number || number < 1 || number > keys[i].max)
                return QP_ERROR(QP_INPUT, "shape: %s = \"%s\": expected an integer from 1 to %ld",
                                key, value, (long)keys[i].max);
            return NULL;
        }
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (strcmp(key, flags[i].key) == 0) {
            *flags[i].flag = number != 0;
            if (!is_number || number < 0 || number > 1)
                return QP_ERROR(QP_INPUT, "shape: %s = \"%s\": expected 0 or 1", key, value);
            return NULL;
        }
    return QP_ERROR(
        QP_INPUT,
        "shape: unknown key \"%s\"; keys are n_layer, d_model, n_head, n_kv_head, head_dim, "
        "d_ff, n_vocab, max_position, tied, attention_bias",
        key);
}

static qp_error_t unknown_name(const char *name)
{
    qp_str_t names = {0};
    for (int i = 0; i < N_SHAPE; i++)
        qp_str_printf(&names, "%s%s", i > 0 ? ", " : "", shapes[i].name);
    qp_error_t error = QP_ERROR(QP_INPUT,
                                "shape \"%s\" is unknown; named shapes are %s, or give "
                                "key=value,...",
                                name, names.data);
    qp_str_fini(&names);
    return error;
}

/* \a items is cut at its commas; an item between two of them may not be missing. */
static qp_error_t parse_items(char *items, qp_llama_config_t *c)
{
    for (char *item; (item = strsep(&items, ",")) != NULL;) {
        char *equals = strchr(item, '=');
        if (equals == NULL) {
            if (!set_named(item, c))
                return unknown_name(item);
            continue;
        }
        *equals = '\0';
        QP_TRY(set_key(item, equals + 1, c));
    }
    return NULL;
}

static qp_error_t parse_shape(const char *shape, qp_llama_config_t *c)
{
    *c = (qp_llama_config_t){.max_position = 4096,
                             .rms_norm_eps = 1e-5f,
                             .rope_theta = 10000.0,
                             .rope_factor = 1.0,
                             .bos_token_id = -1,
                             .pad_token_id = -1};
    set_named("tiny", c);
    char *items = qp_strdup(shape);
    qp_error_t error = parse_items(items, c);
    qp_free(items);
    QP_TRY(error);
    if (c->head_dim == 0)
        c->head_dim = c->d_model / c->n_head;
    if (c->n_vocab > N_BYTE)
        (void)qp_eos_add(&c->eos, N_BYTE);
    static const qp_llama_names_t names = {"d_model", "n_head", "n_kv_head", "head_dim"};
    return qp_error_context(qp_llama_config_check(c, &names), "shape");
}

/* --- tokenizer -------------------------------------------------------------------------------- */

/* The printable character that byte-level BPE writes for a byte (GPT-2's table), as UTF-8 in JSON.
 */
static void put_byte(qp_str_t *json, int byte)
{
    int point = byte, n_shifted = 0;
    bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    if (!printable) {
        for (int i = 0; i < byte; i++)
            n_shifted += !((i >= 33 && i <= 126) || (i >= 161 && i != 173));
        point = 256 + n_shifted;
    }
    if (point == '"' || point == '\\')
        qp_str_printf(json, "\\%c", point);
    else
        qp_str_printf(json, point < 128 ? "%c" : "\\u%04x", point);
}

/* A tokenizer.json with one token per byte and an end of text. */
static void make_tokenizer(qp_tokenizer_files_t *files)
{
    static const char config[] = "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", "
                                 "\"eos_token\": \"<|endoftext|>\"}\n";
    qp_str_t json = {0};
    qp_str_puts(&json, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n"
                       "\"added_tokens\": [{\"id\": 256, \"content\": \"<|endoftext|>\", "
                       "\"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                       "\"normalized\": false, \"special\": true}],\n\"normalizer\": null,\n"
                       "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                       "\"trim_offsets\": true, \"use_regex\": true},\n\"post_processor\": null,\n"
                       "\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                       "\"trim_offsets\": true, \"use_regex\": true},\n"
                       "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
                       "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
                       "\"fuse_unk\": false, \"byte_fallback\": false,\n\"vocab\": {");
    for (int byte = 0; byte < N_BYTE; byte++) {
        qp_str_puts(&json, byte > 0 ? ", \"" : "\"");
        put_byte(&json, byte);
        qp_str_printf(&json, "\": %d", byte);
    }
    qp_str_puts(&json, "},\n\"merges\": []}}\n");
    snprintf(files->kind, sizeof files->kind, "tokenizer.json");
    files->model = json.data;
    files->model_bytes = json.n;
    files->config = qp_strdup(config);
    files->config_bytes = sizeof config - 1;
}

/* --- weights ---------------------------------------------------------------------------------- */

/* Uniform numbers of standard deviation 0.02, eight from one Philox block. */
static void random_row(uint32_t seed, uint32_t spec, uint32_t row, int64_t n_col, float *out)
{
    const float width = 0.02f * 3.4641016f / 65536.0f; /* sqrt(12) times the deviation, per step */
    qp_philox_key_t key = {.seed = seed, .sample = spec, .position = row, .site = QP_SITE_INIT};
    for (int64_t j = 0; j < n_col; j += 8) {
        uint32_t word[4];
        uint16_t half[8];
        qp_philox(&key, (uint32_t)(j / 8), word);
        memcpy(half, word, sizeof half);
        for (int64_t i = 0; i < 8 && j + i < n_col; i++)
            out[j + i] = ((float)half[i] - 32767.5f) * width;
    }
}

static qp_error_t synthetic_rows(qp_source_t *source, int64_t spec, int64_t first, int64_t n_row,
                                 float *rows)
{
    const qp_tensor_spec_t *s = &source->spec[spec];
    uint32_t seed = *(const uint32_t *)source->self;
    if (s->tensor_class == QP_TENSOR_NORM) {
        for (int64_t i = 0; i < n_row; i++)
            rows[i] = 1.0f;
        return NULL;
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_row; i++)
        random_row(seed, (uint32_t)spec, (uint32_t)(first + i), s->n_col, rows + i * s->n_col);
    return NULL;
}

static const char *synthetic_file(const qp_source_t *source, int64_t spec)
{
    (void)spec;
    return source->name;
}

static void synthetic_close(qp_source_t *source)
{
    qp_free(source->self);
}

static const qp_source_kind_t synthetic = {
    .rows = synthetic_rows, .file = synthetic_file, .close = synthetic_close};

qp_error_t qp_source_synthetic(const char *shape, uint32_t seed, qp_source_t **source)
{
    qp_llama_config_t config;
    QP_TRY(parse_shape(shape, &config));
    qp_source_t *s = QP_NEW("source", qp_source_t, 1);
    uint32_t *self = QP_NEW("source", uint32_t, 1);
    *self = seed;
    s->kind = &synthetic;
    s->self = self;
    s->name = qp_format("synthetic %s, seed %u", shape, seed);
    s->config = config;
    qp_llama_tensors(&s->config, &s->spec, &s->n_spec);
    if (config.n_vocab > N_BYTE)
        make_tokenizer(&s->tokenizer);
    *source = s;
    return NULL;
}
