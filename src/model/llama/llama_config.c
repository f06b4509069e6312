/* HF config.json to qp_llama_config_t: what transformers does with each key, or a refusal. */
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/llama/llama_json.h"

/* --- types ------------------------------------------------------------------------------------ */

enum { INTEGER = 1, REAL = 2, BOOLEAN = 4, STRING = 8, NOTHING = 16, LIST = 32, OBJECT = 64 };

/* A key whose type matters to transformers: it loads no model, or runs none, with another one. */
typedef struct {
    const char *key;
    int types;
} typed_t;

static const typed_t typed[] = {
    {"vocab_size", INTEGER},
    {"hidden_size", INTEGER},
    {"intermediate_size", INTEGER},
    {"num_hidden_layers", INTEGER},
    {"num_attention_heads", INTEGER},
    {"head_dim", INTEGER | NOTHING},
    {"hidden_act", STRING},
    {"max_position_embeddings", INTEGER},
    {"initializer_range", REAL},
    {"rms_norm_eps", REAL},
    {"use_cache", BOOLEAN},
    {"tie_word_embeddings", BOOLEAN},
    {"pad_token_id", INTEGER | NOTHING},
    {"bos_token_id", INTEGER | NOTHING},
    {"eos_token_id", INTEGER | LIST | NOTHING},
    {"return_dict", BOOLEAN},
    {"output_hidden_states", BOOLEAN | INTEGER | NOTHING},
    {"num_labels", INTEGER},
    {"id2label", OBJECT | NOTHING},
};

/* Of one family only; the other one does not look at them. */
static const typed_t typed_llama[] = {
    {"num_key_value_heads", INTEGER | NOTHING},
    {"pretraining_tp", INTEGER | NOTHING},
    {"attention_bias", BOOLEAN},
    {"attention_dropout", INTEGER | REAL | NOTHING},
    {"mlp_bias", BOOLEAN},
};
static const typed_t typed_mistral[] = {
    {"num_key_value_heads", INTEGER},
    {"sliding_window", INTEGER | NOTHING},
    {"attention_dropout", INTEGER | REAL},
};

static bool has_type(const json_t *value, int types)
{
    static const int of[] = {
        [JSON_INTEGER] = INTEGER, [JSON_REAL] = REAL,     [JSON_TRUE] = BOOLEAN,
        [JSON_FALSE] = BOOLEAN,   [JSON_STRING] = STRING, [JSON_NULL] = NOTHING,
        [JSON_ARRAY] = LIST,      [JSON_OBJECT] = OBJECT};
    return (of[json_typeof(value)] & types) != 0;
}

static qp_error_t wrong_type(const typed_t *t, const json_t *value)
{
    static const char *const name[] = {
        "an integer", "a number with a point", "true or false", "a string", "null", "a list",
        "an object"};
    qp_str_t expected = {0};
    for (int i = 0; i < 7; i++)
        if ((t->types & (1 << i)) != 0)
            qp_str_printf(&expected, "%s%s", expected.n > 0 ? " or " : "", name[i]);
    qp_error_t error = qp_json_wrong(t->key, value, expected.data);
    qp_str_fini(&expected);
    return error;
}

static qp_error_t check_types(const json_t *root, const typed_t *t, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const json_t *value = qp_llama_key(root, t[i].key);
        if (value != NULL && !has_type(value, t[i].types))
            return wrong_type(&t[i], value);
    }
    return NULL;
}
#define CHECK_TYPES(root, table) check_types(root, table, sizeof(table) / sizeof *(table))

/* --- numbers ---------------------------------------------------------------------------------- */

qp_error_t qp_llama_positive(const json_t *object, const char *key, double *value)
{
    const json_t *found = qp_llama_key(object, key);
    if (found == NULL)
        return QP_ERROR(QP_INPUT, "%s is missing", key);
    *value = json_number_value(found);
    if (!json_is_number(found) || !(*value > 0.0) || *value >= 0x1p63)
        return qp_json_wrong(key, found, "a number above 0 (and below 2^63)");
    return NULL;
}

/* A size; a fallback of 0 makes the key required. */
static qp_error_t get_size(const json_t *root, const char *key, int64_t fallback, int64_t max,
                           int64_t *size)
{
    if (fallback == 0 && qp_json_get(root, key) == NULL)
        return QP_ERROR(QP_INPUT, "%s is missing", key);
    return qp_json_int(root, key, fallback, 1, max, size);
}

/* --- the family ------------------------------------------------------------------------------- */

static const struct {
    const char *type, *name;
} families[] = {
    [QP_FAMILY_LLAMA] = {"llama", "LlamaForCausalLM"},
    [QP_FAMILY_MISTRAL] = {"mistral", "MistralForCausalLM"},
};
enum { N_FAMILY = sizeof families / sizeof families[0] };

const char *qp_family_type(qp_family_t family)
{
    return families[family].type;
}

const char *qp_family_architecture(qp_family_t family)
{
    return families[family].name;
}

/* model_type chooses the class in transformers; architectures must not say another. */
static qp_error_t read_family(const json_t *root, int *family)
{
    const char *type;
    const json_t *names = qp_json_get(root, "architectures");
    QP_TRY(qp_json_string(root, "model_type", NULL, &type));
    if (names != NULL && !json_is_array(names))
        return qp_json_wrong("architectures", names, "a list");
    for (size_t i = 0; i < json_array_size(names); i++)
        if (!qp_json_is_string(json_array_get(names, i)))
            return qp_json_wrong("architectures", names, "a list of names");
    if (type == NULL)
        return QP_ERROR(QP_INPUT, "model_type is missing; transformers chooses the model by it");
    *family = 0;
    while (*family < N_FAMILY && strcmp(type, families[*family].type) != 0)
        ++*family;
    if (*family == N_FAMILY)
        return QP_ERROR(QP_INPUT,
                        "model_type is \"%s\"; Quipu supports \"llama\" (LlamaForCausalLM) and "
                        "\"mistral\" (MistralForCausalLM)",
                        type);
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (strcmp(name, families[*family].name) != 0)
            return QP_ERROR(QP_INPUT,
                            "architectures names %s, model_type is \"%s\"; Quipu supports %s of it",
                            name, type, families[*family].name);
    }
    return NULL;
}

/* --- what cannot be honoured ------------------------------------------------------------------ */

/* Keys that would make another model of it; only null is nothing. */
static qp_error_t check_others(const json_t *root)
{
    static const struct {
        const char *key, *why;
    } other[] = {
        {"quantization_config", "the model is quantised; import the original weights"},
        {"per_layer_config", "Quipu supports layers that are all alike"},
        {"attention_chunk_size", "Quipu supports attention to all tokens before"},
        {"kv_sharing_modes", "Quipu supports layers with keys and values of their own"},
        {"text_config", "Quipu supports models of text alone"},
        {"decoder", "Quipu supports models of text alone"},
        {"generator", "Quipu supports models of text alone"},
        {"fusion_config", "Quipu supports weights as LlamaForCausalLM names them"},
        {"transformers_weights", "Quipu reads model.safetensors and its index"},
    };
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
        if (qp_json_get(root, other[i].key) != NULL)
            return QP_ERROR(QP_INPUT, "%s is not null: %s", other[i].key, other[i].why);
    return NULL;
}

/* Labels of a classifier, which a causal model does not use; transformers reads them all the same.
 */
static qp_error_t check_labels(const json_t *root)
{
    const char *id;
    json_t *label;
    json_object_foreach(
        (json_t *)qp_json_get(root, "id2label"), id,
        label) if (id[0] == '\0' ||
                   id[strspn(id, "0123456789")] !=
                       '\0') return QP_ERROR(QP_INPUT, "id2label has key \"%s\", expected a number",
                                             id);
    return NULL;
}

static qp_error_t check_options(const json_t *root)
{
    const char *act;
    bool bias, causal, dict;
    double dropout, range;
    QP_TRY(check_others(root));
    QP_TRY(check_labels(root));
    QP_TRY(qp_json_string(root, "hidden_act", "silu", &act));
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return QP_ERROR(QP_INPUT, "hidden_act is %s; Quipu supports silu (swish)", act);
    QP_TRY(qp_json_bool(root, "mlp_bias", false, &bias));
    if (bias)
        return QP_ERROR(QP_INPUT, "mlp_bias is true, which Quipu does not support");
    QP_TRY(qp_json_bool(root, "is_causal", true, &causal));
    if (!causal)
        return QP_ERROR(QP_INPUT, "is_causal is false; Quipu supports causal attention");
    QP_TRY(qp_json_bool(root, "return_dict", true, &dict));
    QP_TRY(qp_json_number(root, "initializer_range", 0.0, &range));
    if (!dict || range < 0.0 || range > 1.0)
        return QP_ERROR(QP_INPUT, "%s, with which transformers does not run the model",
                        dict ? "initializer_range is outside 0 to 1" : "return_dict is false");
    QP_TRY(qp_json_number(root, "attention_dropout", 0.0, &dropout));
    if (dropout != 0.0)
        return QP_ERROR(QP_INPUT,
                        "attention_dropout is %g, which Quipu would not apply in training; 0.0 "
                        "imports the model without it",
                        dropout);
    return NULL;
}

/* --- the whole -------------------------------------------------------------------------------- */

static qp_error_t read_heads(const json_t *root, qp_llama_config_t *c)
{
    const bool mistral = c->family == QP_FAMILY_MISTRAL;
    QP_TRY(get_size(root, "num_attention_heads", 0, 1 << 16, &c->n_head));
    /* MistralConfig's default; a LLaMA's heads have keys and values of their own. */
    const int64_t n_kv = mistral ? 8 : c->n_head;
    if (c->n_head % n_kv != 0 && qp_json_get(root, "num_key_value_heads") == NULL)
        return QP_ERROR(QP_INPUT,
                        "num_key_value_heads is missing: the default of a Mistral, 8, does not "
                        "divide num_attention_heads %ld",
                        (long)c->n_head);
    QP_TRY(get_size(root, "num_key_value_heads", n_kv, 1 << 16, &c->n_kv_head));
    const int64_t d_head = c->d_model / c->n_head > 0 ? c->d_model / c->n_head : 1;
    QP_TRY(get_size(root, "head_dim", d_head, 1 << 16, &c->head_dim));
    return NULL;
}

qp_error_t qp_llama_config_check(const qp_llama_config_t *c, const qp_llama_names_t *names)
{
    if (c->n_head % c->n_kv_head != 0)
        return QP_ERROR(QP_INPUT, "%s %ld is no multiple of %s %ld", names->n_head, (long)c->n_head,
                        names->n_kv_head, (long)c->n_kv_head);
    if (c->head_dim < 2 || c->head_dim % 2 != 0)
        return QP_ERROR(QP_INPUT,
                        "a head has %ld dimensions (%s, or %s by %s), expected an even "
                        "number",
                        (long)c->head_dim, names->head_dim, names->d_model, names->n_head);
    if (c->family == QP_FAMILY_LLAMA && c->d_model % c->n_head != 0)
        return QP_ERROR(QP_INPUT, "%s %ld is no multiple of %s %ld", names->d_model,
                        (long)c->d_model, names->n_head, (long)c->n_head);
    if (c->family == QP_FAMILY_MISTRAL && c->attention_bias)
        return QP_ERROR(QP_INPUT, "attention_bias is true, which a Mistral does not have");
    return NULL;
}

static qp_error_t read_shape(const json_t *root, qp_llama_config_t *c)
{
    double eps = 1e-6;
    const int64_t n_position = c->family == QP_FAMILY_MISTRAL ? 131072 : 2048;
    QP_TRY(get_size(root, "num_hidden_layers", 0, 10000, &c->n_layer));
    QP_TRY(get_size(root, "hidden_size", 0, 1 << 20, &c->d_model));
    QP_TRY(read_heads(root, c));
    QP_TRY(get_size(root, "intermediate_size", 0, 1 << 22, &c->d_ff));
    QP_TRY(get_size(root, "vocab_size", 0, 1 << 24, &c->n_vocab));
    QP_TRY(get_size(root, "max_position_embeddings", n_position, INT32_MAX, &c->max_position));
    if (qp_llama_key(root, "rms_norm_eps") != NULL)
        QP_TRY(qp_llama_positive(root, "rms_norm_eps", &eps));
    c->rms_norm_eps = (float)eps;
    QP_TRY(qp_json_bool(root, "tie_word_embeddings", false, &c->tie_word_embeddings));
    QP_TRY(qp_json_bool(root, "attention_bias", false, &c->attention_bias));
    static const qp_llama_names_t names = {"hidden_size", "num_attention_heads",
                                           "num_key_value_heads", "head_dim"};
    return qp_llama_config_check(c, &names);
}

/* MistralConfig's default is 4096, null is none, use_sliding_window is not looked at; a LLaMA has
 * no window, whatever the key says. */
static qp_error_t read_window(const json_t *root, qp_llama_config_t *c)
{
    static const char key[] = "sliding_window";
    int64_t window = 0;
    if (!json_is_null(qp_llama_key(root, key)))
        QP_TRY(qp_json_int(root, key, 4096, 1, INT32_MAX, &window));
    c->sliding_window = c->family == QP_FAMILY_MISTRAL ? window : 0;
    return NULL;
}

static size_t count_word(const json_t *list, const char *word)
{
    const json_t *item;
    size_t i, n = 0;
    json_array_foreach(list, i, item) n +=
        json_is_string(item) && strcmp(json_string_value(item), word) == 0;
    return n;
}

/* A Mistral with layer_types is a Ministral to transformers: a layer has the window only where its
 * type says so. */
static qp_error_t read_layer_types(const json_t *root, qp_llama_config_t *c)
{
    const json_t *types = qp_json_get(root, "layer_types");
    const size_t n = (size_t)c->n_layer;
    const bool full = count_word(types, "full_attention") == n;
    const bool sliding = c->sliding_window > 0 && count_word(types, "sliding_attention") == n;
    if (types == NULL)
        return NULL;
    if (json_array_size(types) != n || !(full || sliding))
        return qp_json_wrong("layer_types", types,
                             c->sliding_window > 0
                                 ? "\"full_attention\" once per layer, or \"sliding_attention\" "
                                   "once per layer: Quipu supports layers that are all alike"
                                 : "\"full_attention\" once per layer: Quipu supports no other "
                                   "without a sliding_window");
    c->sliding_window = full ? 0 : c->sliding_window;
    return NULL;
}

static qp_error_t read_config(const json_t *root, qp_llama_config_t *c)
{
    QP_TRY(read_family(root, &c->family));
    QP_TRY(CHECK_TYPES(root, typed));
    if (c->family == QP_FAMILY_LLAMA)
        QP_TRY(CHECK_TYPES(root, typed_llama));
    else
        QP_TRY(CHECK_TYPES(root, typed_mistral));
    QP_TRY(read_shape(root, c));
    QP_TRY(qp_llama_rope_from_json(root, c));
    QP_TRY(read_window(root, c));
    QP_TRY(read_layer_types(root, c));
    QP_TRY(check_options(root));
    return qp_llama_tokens_from_json(root, c);
}

qp_error_t qp_llama_config_from_json(const char *path, const char *text, qp_llama_config_t *config)
{
    json_t *root;
    *config = (qp_llama_config_t){.bos_token_id = -1, .pad_token_id = -1};
    QP_TRY(qp_json_parse_object(path, text, strlen(text), 0, &root));
    qp_error_t error = qp_error_context(read_config(root, config), "%s", path);
    json_decref(root);
    return error;
}

qp_error_t qp_llama_check_length(const qp_llama_config_t *config, const char *what, int64_t n_token)
{
    if (config->sliding_window > 0 && n_token > config->sliding_window)
        return QP_ERROR(QP_INPUT,
                        "%s is %lld tokens, but the base attends to the last %lld only "
                        "(sliding_window), which Quipu supports for sequences that are not longer",
                        what, (long long)n_token, (long long)config->sliding_window);
    return NULL;
}
