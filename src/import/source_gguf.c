/* A GGUF file of llama.cpp's "llama" architecture: metadata to config, tensors back to HF's layout.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "formats/gguf.h"
#include "formats/map.h"
#include "import/gguf_names.h"
#include "import/source_impl.h"

/* A key of the metadata that stands under the architecture. */
#define KEY(name) QP_GGUF_ARCHITECTURE "." name

static const char rope_factors[] = "rope_freqs.weight";

/* --- config ----------------------------------------------------------------------------------- */

static qp_error_t check_architecture(const qp_gguf_t *gguf)
{
    char *architecture = NULL;
    int64_t n_expert = 0, window = 0;
    qp_error_t error = qp_gguf_get_str(gguf, "general.architecture", &architecture);
    if (error == NULL && strcmp(architecture, QP_GGUF_ARCHITECTURE) != 0)
        error =
            QP_ERROR(QP_INPUT, "%s: the architecture is %s; Quipu supports " QP_GGUF_ARCHITECTURE,
                     qp_gguf_path(gguf), architecture);
    qp_free(architecture);
    QP_TRY(error);
    if (qp_gguf_has(gguf, KEY("expert_count")))
        QP_TRY(qp_gguf_get_i64(gguf, KEY("expert_count"), &n_expert));
    if (qp_gguf_has(gguf, KEY("attention.sliding_window")))
        QP_TRY(qp_gguf_get_i64(gguf, KEY("attention.sliding_window"), &window));
    if (n_expert > 0 || window > 0)
        return QP_ERROR(QP_INPUT, "%s: %s is %lld, which Quipu does not support",
                        qp_gguf_path(gguf),
                        n_expert > 0 ? KEY("expert_count") : KEY("attention.sliding_window"),
                        (long long)(n_expert > 0 ? n_expert : window));
    return NULL;
}

/* Sizes by key; a key with a fallback of -1 must be there. */
static qp_error_t read_sizes(const qp_gguf_t *gguf, qp_llama_config_t *c)
{
    const struct {
        const char *key;
        int64_t *value, max;
        bool required;
    } sizes[] = {
        {KEY("block_count"), &c->n_layer, 10000, true},
        {KEY("embedding_length"), &c->d_model, 1 << 20, true},
        {KEY("feed_forward_length"), &c->d_ff, 1 << 22, true},
        {KEY("attention.head_count"), &c->n_head, 1 << 16, true},
        {KEY("context_length"), &c->max_position, INT32_MAX, true},
        {KEY("attention.head_count_kv"), &c->n_kv_head, 1 << 16, false},
        {KEY("attention.key_length"), &c->head_dim, 1 << 16, false},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (!sizes[i].required && !qp_gguf_has(gguf, sizes[i].key))
            continue;
        QP_TRY(qp_gguf_get_i64(gguf, sizes[i].key, sizes[i].value));
        if (*sizes[i].value < 1 || *sizes[i].value > sizes[i].max)
            return QP_ERROR(QP_INPUT, "%s: %s is %ld, expected 1 to %ld", qp_gguf_path(gguf),
                            sizes[i].key, (long)*sizes[i].value, (long)sizes[i].max);
    }
    return NULL;
}

/* llama.cpp stores llama3 scaling as one divisor per frequency. Every published model uses these
 * three constants; the factor is the largest divisor. The rule must give back the stored numbers.
 */
static qp_error_t derive_llama3(const qp_gguf_t *gguf, const qp_gguf_tensor_t *t,
                                qp_llama_config_t *c)
{
    int64_t half = c->head_dim / 2;
    if (t->dim[0] != half)
        return QP_ERROR(QP_INPUT, "%s: tensor %s has %ld elements, expected %ld",
                        qp_gguf_path(gguf), t->name, (long)t->dim[0], (long)half);
    float *divisor = QP_NEW("rope", float, half), *frequency = QP_NEW("rope", float, half);
    qp_gguf_row(t, 0, divisor);
    float factor = 1.0f;
    for (int64_t i = 0; i < half; i++)
        factor = fmaxf(factor, divisor[i]);
    c->rope_scaling = QP_ROPE_LLAMA3;
    c->rope_factor = (double)factor;
    c->rope_low_freq_factor = 1.0;
    c->rope_high_freq_factor = 4.0;
    c->rope_original_max_position = 8192;
    qp_llama_rope_frequencies(c, frequency);
    bool same = true;
    for (int64_t i = 0; i < half; i++) {
        double plain = pow(c->rope_theta, -2.0 * (double)i / (double)c->head_dim);
        double stored = plain / (double)divisor[i];
        same = same && fabs((double)frequency[i] - stored) <= 1e-5 * stored;
    }
    qp_free(divisor);
    qp_free(frequency);
    if (!same)
        return QP_ERROR(
            QP_INPUT,
            "%s: %s follows no rope scaling that Quipu supports (llama3 with factor %g, low 1, "
            "high 4, 8192 positions does not give it)",
            qp_gguf_path(gguf), t->name, (double)factor);
    return NULL;
}

/* As llama.cpp has it: without a type it is linear, without a factor (or with 0) there is none. */
static qp_error_t read_scaling(const qp_gguf_t *gguf, qp_llama_config_t *c)
{
    static const char type_key[] = KEY("rope.scaling.type");
    const char *key = KEY("rope.scaling.factor");
    char *type = NULL;
    double factor = 0.0;
    if (qp_gguf_has(gguf, type_key))
        QP_TRY(qp_gguf_get_str(gguf, type_key, &type));
    const bool none = type != NULL && strcmp(type, "none") == 0;
    const bool linear = type == NULL || strcmp(type, "linear") == 0;
    qp_error_t error = NULL;
    if (!none && !linear)
        error = QP_ERROR(QP_INPUT,
                         "%s: rope scaling is \"%s\"; Quipu supports default, linear and llama3",
                         qp_gguf_path(gguf), type);
    qp_free(type);
    QP_TRY(error);
    if (!qp_gguf_has(gguf, key))
        key = KEY("rope.scale_linear"); /* its old name */
    if (none || !qp_gguf_has(gguf, key))
        return NULL;
    QP_TRY(qp_gguf_get_f64(gguf, key, &factor));
    if (!(factor >= 0.0) || isinf(factor))
        return QP_ERROR(QP_INPUT, "%s: %s is %g, expected a number above 0", qp_gguf_path(gguf),
                        key, factor);
    if (factor > 0.0 && factor != 1.0) {
        c->rope_scaling = QP_ROPE_LINEAR;
        c->rope_factor = factor;
    }
    return NULL;
}

static qp_error_t read_rope(const qp_gguf_t *gguf, qp_llama_config_t *c)
{
    int64_t n_rotated = c->head_dim;
    c->rope_theta = 10000.0;
    c->rope_factor = 1.0;
    if (qp_gguf_has(gguf, KEY("rope.freq_base")))
        QP_TRY(qp_gguf_get_f64(gguf, KEY("rope.freq_base"), &c->rope_theta));
    if (qp_gguf_has(gguf, KEY("rope.dimension_count")))
        QP_TRY(qp_gguf_get_i64(gguf, KEY("rope.dimension_count"), &n_rotated));
    if (n_rotated != c->head_dim || !(c->rope_theta > 0.0))
        return QP_ERROR(QP_INPUT, "%s: rope of %ld of %ld dimensions with base %g is not supported",
                        qp_gguf_path(gguf), (long)n_rotated, (long)c->head_dim, c->rope_theta);
    QP_TRY(read_scaling(gguf, c));
    const qp_gguf_tensor_t *factors = qp_gguf_find(gguf, rope_factors);
    if (factors != NULL && c->rope_scaling != QP_ROPE_DEFAULT)
        return QP_ERROR(QP_INPUT,
                        "%s: has %s beside a rope scaling factor of %g; Quipu supports one",
                        qp_gguf_path(gguf), rope_factors, c->rope_factor);
    return factors != NULL ? derive_llama3(gguf, factors, c) : NULL;
}

/* A special token; -1: none. */
static qp_error_t read_token(const qp_gguf_t *gguf, const char *key, int64_t n_vocab, int64_t *id)
{
    *id = -1;
    if (!qp_gguf_has(gguf, key))
        return NULL;
    QP_TRY(qp_gguf_get_i64(gguf, key, id));
    if (*id < 0 || *id >= n_vocab)
        return QP_ERROR(QP_INPUT, "%s: %s is %lld, the model has tokens 0 to %lld",
                        qp_gguf_path(gguf), key, (long long)*id, (long long)n_vocab - 1);
    return NULL;
}

/* All that end an answer in llama.cpp: of a text, of a turn, of a message. */
static qp_error_t read_tokens(const qp_gguf_t *gguf, qp_llama_config_t *c)
{
    static const char *const eos[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                      "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < sizeof eos / sizeof eos[0]; i++) {
        int64_t id;
        QP_TRY(read_token(gguf, eos[i], c->n_vocab, &id));
        if (id >= 0)
            (void)qp_eos_add(&c->eos, (int32_t)id); /* there is room for three */
    }
    QP_TRY(read_token(gguf, "tokenizer.ggml.bos_token_id", c->n_vocab, &c->bos_token_id));
    c->pad_token_id = -1;
    if (qp_gguf_has(gguf, "tokenizer.ggml.padding_token_id"))
        QP_TRY(qp_gguf_get_i64(gguf, "tokenizer.ggml.padding_token_id", &c->pad_token_id));
    if (c->pad_token_id >= c->n_vocab) /* it only fills batches; llama.cpp leaves it out too */
        c->pad_token_id = -1;
    return NULL;
}

static qp_error_t read_metadata(const qp_gguf_t *gguf, qp_llama_config_t *c)
{
    QP_TRY(check_architecture(gguf));
    QP_TRY(read_sizes(gguf, c));
    c->n_kv_head = c->n_kv_head > 0 ? c->n_kv_head : c->n_head;
    c->head_dim = c->head_dim > 0 ? c->head_dim : c->d_model / c->n_head;
    if (c->d_model % c->n_head != 0) /* only a Mistral may be so; its tensors are the same */
        c->family = QP_FAMILY_MISTRAL;
    static const qp_llama_names_t names = {KEY("embedding_length"), KEY("attention.head_count"),
                                           KEY("attention.head_count_kv"),
                                           KEY("attention.key_length")};
    QP_TRY(qp_error_context(qp_llama_config_check(c, &names), "%s", qp_gguf_path(gguf)));
    double eps;
    QP_TRY(qp_gguf_get_f64(gguf, KEY("attention.layer_norm_rms_epsilon"), &eps));
    c->rms_norm_eps = (float)eps;
    const qp_gguf_tensor_t *embedding = qp_gguf_find(gguf, "token_embd.weight");
    if (embedding == NULL)
        return QP_ERROR(QP_INPUT, "%s: tensor token_embd.weight is missing", qp_gguf_path(gguf));
    c->n_vocab = embedding->dim[1];
    c->tie_word_embeddings = qp_gguf_find(gguf, "output.weight") == NULL;
    c->attention_bias = qp_gguf_find(gguf, "blk.0.attn_q.bias") != NULL;
    QP_TRY(read_rope(gguf, c));
    return read_tokens(gguf, c);
}

/* --- tensors ---------------------------------------------------------------------------------- */

static const qp_gguf_tensor_t *tensor_of(const qp_source_t *source, int64_t spec)
{
    char name[96];
    qp_gguf_tensor_name(source->spec[spec].name, name, sizeof name);
    return qp_gguf_find(source->self, name);
}

static qp_error_t check_tensor(const qp_source_t *source, int64_t i)
{
    const qp_tensor_spec_t *spec = &source->spec[i];
    const qp_gguf_tensor_t *t = tensor_of(source, i);
    if (t == NULL)
        return QP_ERROR(QP_INPUT, "%s: the tensor of %s is missing", source->name, spec->name);
    bool vector = spec->tensor_class == QP_TENSOR_NORM || spec->tensor_class == QP_TENSOR_BIAS;
    int64_t n_col = vector ? spec->n_row : spec->n_col, n_row = vector ? 1 : spec->n_row;
    if (t->dim[0] != n_col || t->dim[1] != n_row || t->dim[2] != 1 || t->dim[3] != 1)
        return QP_ERROR(QP_INPUT, "%s: tensor %s has shape [%ld, %ld], expected [%ld, %ld]",
                        source->name, t->name, (long)t->dim[1], (long)t->dim[0], (long)n_row,
                        (long)n_col);
    return NULL;
}

static qp_error_t check_tensors(const qp_source_t *source)
{
    const qp_gguf_t *gguf = source->self;
    bool *known = QP_NEW("source", bool, qp_gguf_n_tensor(gguf));
    qp_error_t error = NULL;
    for (int64_t i = 0; error == NULL && i < source->n_spec; i++) {
        error = check_tensor(source, i);
        if (error == NULL)
            known[tensor_of(source, i) - qp_gguf_tensor(gguf, 0)] = true;
    }
    for (int64_t i = 0; error == NULL && i < qp_gguf_n_tensor(gguf); i++)
        if (!known[i] && strcmp(qp_gguf_tensor(gguf, i)->name, rope_factors) != 0)
            error = QP_ERROR(QP_INPUT, "%s: unexpected tensor %s", source->name,
                             qp_gguf_tensor(gguf, i)->name);
    qp_free(known);
    return error;
}

/* The tokenizer's metadata as one JSON object. */
static qp_error_t read_tokenizer(const qp_gguf_t *gguf, qp_tokenizer_files_t *files)
{
    qp_str_t json = {0};
    qp_error_t error = qp_gguf_metadata_json(gguf, "tokenizer.", &json);
    if (error == NULL && !qp_gguf_has(gguf, "tokenizer.ggml.tokens"))
        error = QP_ERROR(QP_INPUT, "%s: metadata key tokenizer.ggml.tokens is missing",
                         qp_gguf_path(gguf));
    if (error != NULL) {
        qp_str_fini(&json);
        return error;
    }
    snprintf(files->kind, sizeof files->kind, "gguf");
    files->model = json.data;
    files->model_bytes = json.n;
    return NULL;
}

qp_error_t qp_source_open_gguf(const char *path, qp_source_t *source)
{
    qp_gguf_t *gguf = NULL;
    QP_TRY(qp_gguf_open(path, &gguf));
    source->self = gguf;
    QP_TRY(read_metadata(gguf, &source->config));
    qp_llama_tensors(&source->config, &source->spec, &source->n_spec);
    QP_TRY(check_tensors(source));
    return read_tokenizer(gguf, &source->tokenizer);
}

/* A vector is one row of the file; a permuted matrix is gathered row by row. */
static void read_vector(const qp_source_t *source, int64_t spec, const qp_gguf_tensor_t *t,
                        float *out)
{
    int64_t n = source->spec[spec].n_row;
    if (!qp_gguf_is_permuted(source->spec[spec].name)) {
        qp_gguf_row(t, 0, out);
        return;
    }
    float *row = QP_NEW("source", float, n);
    qp_gguf_row(t, 0, row);
    for (int64_t i = 0; i < n; i++)
        out[i] = row[qp_gguf_rope_row(i, source->config.head_dim)];
    qp_free(row);
}

static qp_error_t gguf_rows(qp_source_t *source, int64_t spec, int64_t first, int64_t n_row,
                            float *rows)
{
    const qp_tensor_spec_t *s = &source->spec[spec];
    const qp_gguf_tensor_t *t = tensor_of(source, spec);
    if (s->n_col == 1) {
        QP_ASSERT(first == 0 && n_row == s->n_row);
        read_vector(source, spec, t, rows);
        return NULL;
    }
    bool permuted = qp_gguf_is_permuted(s->name);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n_row; i++) {
        int64_t row = first + i;
        qp_gguf_row(t, permuted ? qp_gguf_rope_row(row, source->config.head_dim) : row,
                    rows + i * s->n_col);
    }
    size_t row_bytes = t->n_bytes / (size_t)s->n_row;
    qp_map_drop(t->data + (size_t)first * row_bytes, (size_t)n_row * row_bytes);
    return NULL;
}

static const char *gguf_file(const qp_source_t *source, int64_t spec)
{
    (void)spec;
    return source->name;
}

static void gguf_close(qp_source_t *source)
{
    qp_gguf_t *gguf = source->self;
    qp_gguf_close(&gguf);
}

const qp_source_kind_t qp_source_gguf = {.rows = gguf_rows, .file = gguf_file, .close = gguf_close};
