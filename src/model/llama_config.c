/* HF config.json to qp_llama_config_t and back. */
#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/base_file.h"

/* A config.json being read; every message starts with its path. */
typedef struct {
    const char *path;
    const json_t *root;
} reader_t;

/* The value of a key, or NULL when it is absent or null. */
static const json_t *get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

/* A positive integer; a fallback of 0 makes the key required. */
static qp_error_t get_size(const reader_t *r, const json_t *object, const char *key,
                           int64_t fallback, int64_t max, int64_t *size)
{
    const json_t *value = get(object, key);
    *size = value == NULL ? fallback : (int64_t)json_integer_value(value);
    if (value == NULL && fallback == 0)
        return QP_ERROR(QP_INPUT, "%s: %s is missing", r->path, key);
    if ((value != NULL && !json_is_integer(value)) || *size <= 0 || *size > max)
        return QP_ERROR(QP_INPUT, "%s: %s must be an integer from 1 to %ld", r->path, key,
                        (long)max);
    return NULL;
}

/* A positive number; a fallback of 0 makes the key required. */
static qp_error_t get_number(const reader_t *r, const json_t *object, const char *key,
                             double fallback, double *number)
{
    const json_t *value = get(object, key);
    *number = value == NULL ? fallback : json_number_value(value);
    if (value == NULL && !(fallback > 0.0))
        return QP_ERROR(QP_INPUT, "%s: %s is missing", r->path, key);
    if ((value != NULL && !json_is_number(value)) || !(*number > 0.0))
        return QP_ERROR(QP_INPUT, "%s: %s must be a positive number", r->path, key);
    return NULL;
}

static qp_error_t get_bool(const reader_t *r, const char *key, bool *flag)
{
    const json_t *value = get(r->root, key);
    *flag = json_is_true(value);
    if (value != NULL && !json_is_boolean(value))
        return QP_ERROR(QP_INPUT, "%s: %s must be true or false", r->path, key);
    return NULL;
}

/* A token id, the first of a list of them, or -1. */
static int64_t get_token(const reader_t *r, const char *key)
{
    const json_t *value = get(r->root, key);
    if (json_is_array(value))
        value = json_array_get(value, 0);
    return json_is_integer(value) ? (int64_t)json_integer_value(value) : -1;
}

/* --- what cannot be honoured ------------------------------------------------------------------ */

static qp_error_t check_architecture(const reader_t *r)
{
    const char *type = json_string_value(get(r->root, "model_type"));
    const char *name = json_string_value(json_array_get(get(r->root, "architectures"), 0));
    const char *found = name != NULL ? name : type;
    if (found == NULL)
        return QP_ERROR(QP_INPUT, "%s: names neither architectures nor model_type", r->path);
    bool mistral = strcmp(found, "MistralForCausalLM") == 0 || strcmp(found, "mistral") == 0;
    bool llama = strcmp(found, "LlamaForCausalLM") == 0 || strcmp(found, "llama") == 0;
    if (!mistral && !llama)
        return QP_ERROR(QP_INPUT,
                        "%s: the architecture is %s; Quipu supports LlamaForCausalLM and "
                        "MistralForCausalLM",
                        r->path, found);
    if (get(r->root, "sliding_window") != NULL &&
        !json_is_false(get(r->root, "use_sliding_window")))
        return QP_ERROR(QP_INPUT,
                        "%s: sliding_window is %lld; Quipu supports Mistral only without a sliding "
                        "window (null)",
                        r->path, (long long)json_integer_value(get(r->root, "sliding_window")));
    return NULL;
}

static qp_error_t check_options(const reader_t *r)
{
    if (get(r->root, "quantization_config") != NULL)
        return QP_ERROR(
            QP_INPUT,
            "%s: the model is quantised (quantization_config); import the original weights",
            r->path);
    bool mlp_bias;
    QP_TRY(get_bool(r, "mlp_bias", &mlp_bias));
    if (mlp_bias)
        return QP_ERROR(QP_INPUT, "%s: mlp_bias is true, which Quipu does not support", r->path);
    const json_t *act = get(r->root, "hidden_act");
    if (act != NULL && (!json_is_string(act) || strcmp(json_string_value(act), "silu") != 0))
        return QP_ERROR(QP_INPUT, "%s: hidden_act is %s; Quipu supports silu", r->path,
                        json_is_string(act) ? json_string_value(act) : "no string");
    return NULL;
}

/* --- rope ------------------------------------------------------------------------------------- */

static qp_error_t read_llama3(const reader_t *r, const json_t *rope, qp_llama_config_t *c)
{
    QP_TRY(get_number(r, rope, "low_freq_factor", 0.0, &c->rope_low_freq_factor));
    QP_TRY(get_number(r, rope, "high_freq_factor", 0.0, &c->rope_high_freq_factor));
    QP_TRY(get_size(r, rope, "original_max_position_embeddings", 0, INT32_MAX,
                    &c->rope_original_max_position));
    if (!(c->rope_high_freq_factor > c->rope_low_freq_factor))
        return QP_ERROR(QP_INPUT, "%s: high_freq_factor must be larger than low_freq_factor",
                        r->path);
    return NULL;
}

static const char *const rope_names[] = {"default", "linear", "llama3"};

/* `rope_parameters` is the new spelling (theta inside), `rope_scaling` the old one (theta outside).
 */
static qp_error_t read_rope(const reader_t *r, qp_llama_config_t *c)
{
    const json_t *rope = get(r->root, "rope_parameters");
    if (rope == NULL)
        rope = get(r->root, "rope_scaling");
    const json_t *theta_at = get(rope, "rope_theta") != NULL ? rope : r->root;
    QP_TRY(get_number(r, theta_at, "rope_theta", 10000.0, &c->rope_theta));
    c->rope_scaling = QP_ROPE_DEFAULT;
    c->rope_factor = 1.0;
    const json_t *partial = get(r->root, "partial_rotary_factor");
    if (partial == NULL)
        partial = get(rope, "partial_rotary_factor");
    if (partial != NULL && json_number_value(partial) != 1.0)
        return QP_ERROR(QP_INPUT, "%s: partial_rotary_factor is not supported", r->path);
    if (rope == NULL)
        return NULL;
    const char *type = json_string_value(get(rope, "rope_type"));
    if (type == NULL)
        type = json_string_value(get(rope, "type"));
    for (int i = 0; type != NULL && i < 3; i++)
        if (strcmp(type, rope_names[i]) == 0) {
            c->rope_scaling = i;
            if (i != QP_ROPE_DEFAULT)
                QP_TRY(get_number(r, rope, "factor", 0.0, &c->rope_factor));
            return i == QP_ROPE_LLAMA3 ? read_llama3(r, rope, c) : NULL;
        }
    return QP_ERROR(QP_INPUT,
                    "%s: rope scaling is \"%s\"; Quipu supports default, linear and llama3",
                    r->path, type != NULL ? type : "(no rope_type)");
}

/* --- the whole -------------------------------------------------------------------------------- */

static qp_error_t read_shape(const reader_t *r, qp_llama_config_t *c)
{
    double eps;
    QP_TRY(get_size(r, r->root, "num_hidden_layers", 0, 10000, &c->n_layer));
    QP_TRY(get_size(r, r->root, "hidden_size", 0, 1 << 20, &c->d_model));
    QP_TRY(get_size(r, r->root, "num_attention_heads", 0, 1 << 16, &c->n_head));
    QP_TRY(get_size(r, r->root, "num_key_value_heads", c->n_head, 1 << 16, &c->n_kv_head));
    int64_t d_head = c->d_model / c->n_head > 0 ? c->d_model / c->n_head : 1;
    QP_TRY(get_size(r, r->root, "head_dim", d_head, 1 << 16, &c->head_dim));
    QP_TRY(get_size(r, r->root, "intermediate_size", 0, 1 << 22, &c->d_ff));
    QP_TRY(get_size(r, r->root, "vocab_size", 0, 1 << 24, &c->n_vocab));
    QP_TRY(get_size(r, r->root, "max_position_embeddings", 2048, INT32_MAX, &c->max_position));
    QP_TRY(get_number(r, r->root, "rms_norm_eps", 1e-6, &eps));
    c->rms_norm_eps = (float)eps;
    if (c->n_head % c->n_kv_head != 0)
        return QP_ERROR(QP_INPUT,
                        "%s: num_attention_heads %ld is no multiple of num_key_value_heads %ld",
                        r->path, (long)c->n_head, (long)c->n_kv_head);
    if (c->head_dim % 2 != 0)
        return QP_ERROR(QP_INPUT, "%s: head_dim %ld is odd", r->path, (long)c->head_dim);
    return NULL;
}

static qp_error_t read_config(const reader_t *r, qp_llama_config_t *c)
{
    QP_TRY(check_architecture(r));
    QP_TRY(check_options(r));
    QP_TRY(read_shape(r, c));
    QP_TRY(read_rope(r, c));
    QP_TRY(get_bool(r, "tie_word_embeddings", &c->tie_word_embeddings));
    QP_TRY(get_bool(r, "attention_bias", &c->attention_bias));
    c->bos_token_id = get_token(r, "bos_token_id");
    c->eos_token_id = get_token(r, "eos_token_id");
    return NULL;
}

qp_error_t qp_llama_config_from_json(const char *path, const char *text, qp_llama_config_t *config)
{
    json_error_t where;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL)
        return QP_ERROR(QP_INPUT, "%s:%d: %s", path, where.line, where.text);
    *config = (qp_llama_config_t){0};
    qp_error_t error = NULL;
    if (json_is_object(root))
        error = read_config(&(reader_t){path, root}, config);
    else
        error = QP_ERROR(QP_INPUT, "%s: is no JSON object", path);
    json_decref(root);
    return error;
}

static void put_token(qp_str_t *json, const char *key, int64_t id)
{
    if (id >= 0)
        qp_str_printf(json, "  \"%s\": %ld,\n", key, (long)id);
}

/* The old spelling of rope: every transformers reads it. */
static void put_rope(qp_str_t *json, const qp_llama_config_t *c)
{
    qp_str_printf(json, "  \"rope_theta\": %.17g,\n", c->rope_theta);
    if (c->rope_scaling == QP_ROPE_DEFAULT) {
        qp_str_puts(json, "  \"rope_scaling\": null,\n");
        return;
    }
    qp_str_printf(json, "  \"rope_scaling\": {\n    \"rope_type\": \"%s\",\n    \"factor\": %.17g",
                  rope_names[c->rope_scaling], c->rope_factor);
    if (c->rope_scaling == QP_ROPE_LLAMA3)
        qp_str_printf(json,
                      ",\n    \"low_freq_factor\": %.17g,\n    \"high_freq_factor\": %.17g,\n"
                      "    \"original_max_position_embeddings\": %ld",
                      c->rope_low_freq_factor, c->rope_high_freq_factor,
                      (long)c->rope_original_max_position);
    qp_str_puts(json, "\n  },\n");
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
    qp_str_t json = {0};
    qp_str_puts(&json,
                "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n"
                "  \"hidden_act\": \"silu\",\n  \"mlp_bias\": false,\n");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        qp_str_printf(&json, "  \"%s\": %ld,\n", sizes[i].key, (long)sizes[i].value);
    put_rope(&json, c);
    put_token(&json, "bos_token_id", c->bos_token_id);
    put_token(&json, "eos_token_id", c->eos_token_id);
    qp_str_printf(&json, "  \"attention_bias\": %s,\n  \"tie_word_embeddings\": %s,\n",
                  c->attention_bias ? "true" : "false", c->tie_word_embeddings ? "true" : "false");
    qp_str_printf(&json, "  \"rms_norm_eps\": %.9g\n}\n", (double)c->rms_norm_eps);
    return json.data;
}

/* --- precisions ------------------------------------------------------------------------------- */

static const char *const precision_names[] = {
    [QP_PRECISION_FP32] = "fp32",
    [QP_PRECISION_BF16] = "bf16",
    [QP_PRECISION_INT8] = "int8",
    [QP_PRECISION_LLM_INT8] = "llm_int8",
};

const char *qp_precision_name(qp_precision_t precision)
{
    return precision_names[precision];
}

qp_error_t qp_precision_parse(const char *name, qp_precision_t *precision)
{
    for (int i = 0; i <= QP_PRECISION_LLM_INT8; i++)
        if (strcmp(name, precision_names[i]) == 0) {
            *precision = (qp_precision_t)i;
            return NULL;
        }
    return QP_ERROR(QP_INPUT, "precision \"%s\": expected int8, llm_int8, bf16 or fp32", name);
}
