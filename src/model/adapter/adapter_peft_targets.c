/* Which linears get LoRA: target_modules and exclude_modules, matched as PEFT matches them. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "formats/json.h"
#include "formats/pattern.h"
#include "model/adapter/adapter_peft_config.h"

/* What one of the two keys chooses: a list of modules' names or ends of names, or a pattern for
 * whole names. */
typedef struct {
    const char *key;
    json_t *names;
    qp_pattern_t *pattern;
} choice_t;

typedef struct {
    choice_t target, excluded;
} choices_t;

static json_t *all_linears(void)
{
    json_t *names = json_array();
    for (int l = 0; l < QP_N_LINEAR; l++)
        json_array_append_new(names, json_string(qp_linear_short_name((qp_linear_t)l)));
    return names;
}

static qp_error_t begin_names(const json_t *value, choice_t *choice)
{
    const json_t *name;
    size_t i;
    bool strings = json_is_array(value);
    json_array_foreach(value, i, name)
    {
        strings = strings && qp_json_is_string(name);
    }
    if (!strings)
        return qp_json_wrong(choice->key, value, "a list of names or a pattern");
    choice->names = json_incref((json_t *)value);
    return NULL;
}

static qp_error_t begin_choice(const json_t *root, const char *key, choice_t *choice)
{
    const json_t *value = qp_json_get(root, key);
    const char *pattern;
    *choice = (choice_t){.key = key};
    if (value == NULL)
        return NULL;
    if (!json_is_string(value))
        return begin_names(value, choice);
    QP_TRY(qp_json_string(root, key, NULL, &pattern));
    return qp_error_context(qp_pattern_create(pattern, &choice->pattern), "%s", key);
}

static qp_error_t begin_target(const json_t *root, choice_t *choice)
{
    const json_t *value = qp_json_get(root, "target_modules");
    *choice = (choice_t){.key = "target_modules"};
    if (value == NULL)
        choice->names = json_pack("[s, s]", "q_proj", "v_proj"); /* PEFT's default for LLaMA */
    else if (json_is_string(value) && strcasecmp(json_string_value(value), "all-linear") == 0)
        choice->names = all_linears();
    else
        return begin_choice(root, "target_modules", choice);
    return NULL;
}

static void end_choice(choice_t *choice)
{
    json_decref(choice->names);
    qp_pattern_destroy(&choice->pattern);
}

static bool is_or_ends_with(const char *module, const char *name)
{
    const size_t n = strlen(module), m = strlen(name);
    return n >= m && strcmp(module + n - m, name) == 0 && (n == m || module[n - m - 1] == '.');
}

static qp_error_t has_module(const choice_t *choice, const char *module, bool *has)
{
    const json_t *name;
    size_t i;
    *has = false;
    if (choice->pattern != NULL)
        return qp_error_context(qp_pattern_fullmatch(choice->pattern, module, has), "%s",
                                choice->key);
    json_array_foreach(choice->names, i, name)
    {
        *has = *has || is_or_ends_with(module, json_string_value(name));
    }
    return NULL;
}

static qp_error_t is_target(const choices_t *choices, const char *module, bool *target)
{
    bool excluded;
    QP_TRY(has_module(&choices->target, module, target));
    QP_TRY(has_module(&choices->excluded, module, &excluded));
    *target = *target && !excluded;
    return NULL;
}

/* Of a module that is no linear of a layer. */
static qp_error_t refuse_target(const choices_t *choices, const char *module)
{
    bool target;
    QP_TRY(is_target(choices, module, &target));
    if (!target)
        return NULL;
    return QP_ERROR(QP_INPUT,
                    "target_modules chooses the module %s; Quipu supports LoRA on q_proj, k_proj, "
                    "v_proj, o_proj, gate_proj, up_proj and down_proj alone",
                    module);
}

static qp_error_t refuse_others(const choices_t *choices, bool has_score)
{
    static const char *const modules[] = {"model", "model.embed_tokens", "model.layers",
                                          "model.norm", "model.rotary_emb"};
    for (size_t i = 0; i < sizeof modules / sizeof modules[0]; i++)
        QP_TRY(refuse_target(choices, modules[i]));
    return has_score ? NULL : refuse_target(choices, "lm_head"); /* a classifier has none */
}

static qp_error_t refuse_others_of_layer(const choices_t *choices, int64_t layer)
{
    static const char *const modules[] = {
        "", ".self_attn", ".mlp", ".mlp.act_fn", ".input_layernorm", ".post_attention_layernorm"};
    for (size_t i = 0; i < sizeof modules / sizeof modules[0]; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%ld%s", (long)layer, modules[i]);
        QP_TRY(refuse_target(choices, name));
    }
    return NULL;
}

static qp_error_t refuse_some_layers(const choices_t *choices, qp_linear_t linear, int64_t with,
                                     int64_t without)
{
    const bool excludes = choices->excluded.names != NULL || choices->excluded.pattern != NULL;
    return QP_ERROR(QP_INPUT,
                    "target_modules%s chooses %s in layer %ld, but not in layer %ld: LoRA on some "
                    "layers only is not supported",
                    excludes ? " less exclude_modules" : "", qp_linear_short_name(linear),
                    (long)with, (long)without);
}

/* The linears of a layer, which must be those of the layers before. */
static qp_error_t choose_linears(const choices_t *choices, int64_t layer, bool target[QP_N_LINEAR])
{
    for (int l = 0; l < QP_N_LINEAR; l++) {
        char name[96];
        bool chosen;
        snprintf(name, sizeof name, "model.layers.%ld.%s", (long)layer,
                 qp_linear_name((qp_linear_t)l));
        QP_TRY(is_target(choices, name, &chosen));
        if (layer > 0 && chosen != target[l])
            return refuse_some_layers(choices, (qp_linear_t)l, chosen ? layer : 0,
                                      chosen ? 0 : layer);
        target[l] = chosen;
    }
    return NULL;
}

static qp_error_t choose(const choices_t *choices, bool has_score, int64_t n_layer,
                         bool target[QP_N_LINEAR])
{
    memset(target, 0, QP_N_LINEAR * sizeof *target);
    QP_TRY(refuse_others(choices, has_score));
    for (int64_t layer = 0; layer < n_layer; layer++) {
        QP_TRY(refuse_others_of_layer(choices, layer));
        QP_TRY(choose_linears(choices, layer, target));
    }
    for (int l = 0; l < QP_N_LINEAR; l++)
        if (target[l])
            return NULL;
    return QP_ERROR(QP_INPUT, "target_modules chooses no linear of the model's %ld layers",
                    (long)n_layer);
}

qp_error_t qp_peft_config_targets(const qp_peft_config_t *config, int64_t n_layer,
                                  bool target[QP_N_LINEAR])
{
    choices_t choices = {0};
    qp_error_t error = begin_target(config->root, &choices.target);
    if (error == NULL)
        error = begin_choice(config->root, "exclude_modules", &choices.excluded);
    if (error == NULL)
        error = choose(&choices, config->has_score, n_layer, target);
    end_choice(&choices.target);
    end_choice(&choices.excluded);
    return qp_error_context(error, "%s", config->path);
}
