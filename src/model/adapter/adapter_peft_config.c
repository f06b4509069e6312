#include "model/adapter/adapter_peft_config.h"

#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/json.h"
#include "model/adapter/adapter_peft_names.h"

/* --- the keys --------------------------------------------------------------------------------- */

/* What becomes of a key. Of those that are not supported, PEFT takes some as unused when they are
 * false or empty, others only when they are null: an empty kasa_config is KaSA with its defaults.
 */
typedef enum { READ, WITHOUT_EFFECT, MUST_BE_UNUSED, MUST_BE_NULL } rule_t;

static const struct {
    const char *key;
    rule_t rule;
    const char *meaning;
} KEYS[] = {
    {"peft_type", READ, NULL},
    {"task_type", READ, NULL},
    {"base_model_name_or_path", READ, NULL},
    {"r", READ, NULL},
    {"lora_alpha", READ, NULL},
    {"lora_dropout", READ, NULL},
    {"use_rslora", READ, NULL},
    {"target_modules", READ, NULL},
    {"exclude_modules", READ, NULL},
    {"modules_to_save", READ, NULL},
    {"bias", READ, NULL},
    {"init_lora_weights", READ, NULL},

    {"auto_mapping", WITHOUT_EFFECT, NULL},
    {"revision", WITHOUT_EFFECT, NULL},
    {"inference_mode", WITHOUT_EFFECT, NULL},
    {"peft_version", WITHOUT_EFFECT, NULL},
    {"runtime_config", WITHOUT_EFFECT, NULL},    /* PEFT ignores it in files */
    {"megatron_core", WITHOUT_EFFECT, NULL},     /* says where megatron_config is used */
    {"qalora_group_size", WITHOUT_EFFECT, NULL}, /* belongs to use_qalora */
    {"lora_dtype", WITHOUT_EFFECT, NULL},        /* of ms-swift, as the next two: training only */
    {"lorap_lr_ratio", WITHOUT_EFFECT, NULL},
    {"lorap_emb_lr", WITHOUT_EFFECT, NULL},

    {"layers_to_transform", MUST_BE_NULL, "a list of layers, even of all,"},
    {"layers_pattern", MUST_BE_NULL, "a list of layers, even of all,"},
    {"rank_pattern", MUST_BE_UNUSED, "another rank for some linears"},
    {"alpha_pattern", MUST_BE_UNUSED, "another alpha for some linears"},
    {"use_dora", MUST_BE_UNUSED, "DoRA"},
    {"lora_bias", MUST_BE_UNUSED, "a bias of the adapter"},
    {"fan_in_fan_out", MUST_BE_UNUSED, "weights stored transposed"},
    {"trainable_token_indices", MUST_BE_NULL, "training of single token embeddings"},
    {"target_parameters", MUST_BE_UNUSED, "LoRA on parameters by name"},
    {"layer_replication", MUST_BE_UNUSED, "a model with repeated layers"},
    {"ensure_weight_tying", MUST_BE_UNUSED, "adapters of tied embeddings"},
    {"use_qalora", MUST_BE_UNUSED, "QA-LoRA"},
    {"loftq_config", MUST_BE_UNUSED, "LoftQ"},
    {"megatron_config", MUST_BE_UNUSED, "Megatron's parallel linears"},
    {"eva_config", MUST_BE_NULL, "EVA's choice of ranks"},
    {"corda_config", MUST_BE_NULL, "CorDA"},
    {"lora_ga_config", MUST_BE_NULL, "LoRA-GA"},
    {"monteclora_config", MUST_BE_NULL, "MonteCLoRA"},
    {"velora_config", MUST_BE_NULL, "VeLoRA"},
    {"kasa_config", MUST_BE_NULL, "KaSA"},
    {"arrow_config", MUST_BE_NULL, "Arrow routing"},
    {"use_bdlora", MUST_BE_NULL, "block-diagonal LoRA"},
    {"alora_invocation_tokens", MUST_BE_NULL, "aLoRA"},
};
enum { N_KEY = sizeof KEYS / sizeof KEYS[0] };

static bool is_unused(const json_t *value)
{
    return json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

/* A key that newer versions of PEFT or other programs write: harmless while it is unused. */
static qp_error_t check_unknown(const char *key, const json_t *value)
{
    if (is_unused(value) || (qp_json_is_string(value) && qp_has_suffix(key, "version")))
        return NULL;
    return qp_json_wrong(key, value,
                         "null: Quipu does not know this key; remove it if it changes nothing");
}

static qp_error_t check_key(const char *key, const json_t *value)
{
    int i = 0;
    while (i < N_KEY && strcmp(KEYS[i].key, key) != 0)
        i++;
    if (i == N_KEY)
        return check_unknown(key, value);
    const bool supported =
        KEYS[i].rule == READ || KEYS[i].rule == WITHOUT_EFFECT ||
        (KEYS[i].rule == MUST_BE_UNUSED ? is_unused(value) : json_is_null(value));
    if (supported)
        return NULL;
    char *expected =
        qp_format("%s: %s is not supported",
                  KEYS[i].rule == MUST_BE_NULL ? "null" : "null, false or empty", KEYS[i].meaning);
    qp_error_t error = qp_json_wrong(key, value, expected);
    qp_free(expected);
    return error;
}

static qp_error_t check_keys(const json_t *root)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value)
    {
        QP_TRY(check_key(key, value));
    }
    return NULL;
}

/* --- values ----------------------------------------------------------------------------------- */

/* A key with a default that null does not mean: PEFT fails on it. */
static qp_error_t refuse_null(const json_t *root, const char *key, const char *expected)
{
    const json_t *value = json_object_get(root, key);
    return json_is_null(value) ? qp_json_wrong(key, value, expected) : NULL;
}

static qp_error_t read_numbers(const json_t *root, qp_peft_config_t *config)
{
    static const char *const numbers[] = {"r", "lora_alpha", "lora_dropout"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        QP_TRY(refuse_null(root, numbers[i], "a number"));
    QP_TRY(qp_json_int(root, "r", 8, 1, 65536, &config->r));
    QP_TRY(qp_json_number(root, "lora_alpha", 8.0, &config->alpha));
    QP_TRY(qp_json_number(root, "lora_dropout", 0.0, &config->dropout));
    if (config->dropout < 0.0 || config->dropout >= 1.0)
        return qp_json_wrong("lora_dropout", json_object_get(root, "lora_dropout"),
                             "a number from 0 to below 1");
    return qp_json_bool(root, "use_rslora", false, &config->use_rslora);
}

/* A string that must be one of these; the list ends with NULL. */
static qp_error_t check_word(const json_t *root, const char *key, const char *const *words,
                             const char *expected)
{
    const char *word;
    QP_TRY(qp_json_string(root, key, words[0], &word));
    for (; *words != NULL; words++)
        if (strcmp(word, *words) == 0)
            return NULL;
    return qp_json_wrong(key, json_object_get(root, key), expected);
}

static qp_error_t check_kind(const json_t *root)
{
    static const char *const lora[] = {"LORA", NULL};
    static const char *const tasks[] = {"CAUSAL_LM", "SEQ_CLS", NULL};
    json_t *type;
    QP_TRY(qp_json_want(root, "peft_type", JSON_STRING, &type));
    QP_TRY(check_word(root, "peft_type", lora, "\"LORA\": Quipu reads no other adapters"));
    return check_word(root, "task_type", tasks, "\"CAUSAL_LM\" or \"SEQ_CLS\"");
}

/* How A and B began matters only where PEFT changes the base's weights along with them, or takes
 * other linears than LoRA's: such an adapter is not the difference to the plain base. */
static qp_error_t check_init(const json_t *root)
{
    static const char *const plain[] = {"gaussian", "eva", "orthogonal", NULL};
    const json_t *init = qp_json_get(root, "init_lora_weights");
    if (init == NULL || json_is_boolean(init))
        return NULL;
    return check_word(root, "init_lora_weights", plain,
                      "true, false, \"gaussian\", \"eva\" or \"orthogonal\": an adapter of a "
                      "changed base is to be converted to plain LoRA with PEFT first");
}

static qp_error_t check_bias(const json_t *root)
{
    static const char *const none[] = {"none", NULL};
    QP_TRY(refuse_null(root, "bias", "\"none\""));
    return check_word(root, "bias", none, "\"none\": trained biases are not supported");
}

/* PEFT's classes of task SEQ_CLS save the head whether it is named or not; of its two names
 * LLaMA has "score". */
static qp_error_t read_head(const json_t *root, bool *has_score)
{
    static const char expected[] = "null or a list with \"score\" alone: whole other modules are "
                                   "not supported";
    const json_t *modules = qp_json_get(root, "modules_to_save"), *module;
    const json_t *task = json_object_get(root, "task_type");
    size_t i;
    *has_score = json_is_string(task) && strcmp(json_string_value(task), "SEQ_CLS") == 0;
    if (modules != NULL && !json_is_array(modules))
        return qp_json_wrong("modules_to_save", modules, expected);
    json_array_foreach(modules, i, module)
    {
        const char *name = qp_json_is_string(module) ? json_string_value(module) : "";
        if (strcmp(name, "score") != 0 && strcmp(name, "classifier") != 0)
            return qp_json_wrong("modules_to_save", modules, expected);
        *has_score = *has_score || strcmp(name, "score") == 0;
    }
    return NULL;
}

static qp_error_t read_values(const json_t *root, qp_peft_config_t *config)
{
    QP_TRY(check_kind(root));
    QP_TRY(check_keys(root));
    QP_TRY(check_init(root));
    QP_TRY(check_bias(root));
    QP_TRY(read_head(root, &config->has_score));
    QP_TRY(qp_json_string(root, "base_model_name_or_path", NULL, &config->base_name));
    return read_numbers(root, config);
}

/* --- the file --------------------------------------------------------------------------------- */

static qp_error_t read_text(qp_peft_config_t *config)
{
    void *text = NULL;
    size_t n;
    QP_TRY(qp_file_read(config->path, &text, &n));
    qp_error_t error = qp_json_parse_object(config->path, text, n, 0, &config->root);
    qp_free(text);
    return error;
}

qp_error_t qp_peft_config_read(const char *folder, qp_peft_config_t *config)
{
    *config = (qp_peft_config_t){.path = qp_format("%s/" QP_PEFT_CONFIG, folder)};
    if (access(config->path, F_OK) != 0)
        return QP_ERROR(QP_INPUT, "%s: is no PEFT adapter folder: it has no " QP_PEFT_CONFIG,
                        folder);
    QP_TRY(read_text(config));
    return qp_error_context(read_values(config->root, config), "%s", config->path);
}

void qp_peft_config_fini(qp_peft_config_t *config)
{
    json_decref(config->root);
    qp_free(config->path);
    *config = (qp_peft_config_t){0};
}
