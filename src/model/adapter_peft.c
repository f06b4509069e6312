/* Reading a PEFT adapter folder: adapter_config.json and adapter_model.safetensors. */
#include "model/adapter_peft.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "formats/convert.h"
#include "formats/safetensors.h"
#include "model/adapter_peft_names.h"

double qp_peft_scaling(const qp_peft_t *peft)
{
    return peft->alpha / (peft->use_rslora ? sqrt((double)peft->r) : (double)peft->r);
}

/* --- adapter_config.json ---------------------------------------------------------------------- */

/* True for what PEFT writes when an option is unused: absent, null, false, "none", {} or []. */
static bool is_unused(const json_t *value)
{
    if (json_is_string(value))
        return strcmp(json_string_value(value), "none") == 0;
    if (json_is_object(value))
        return json_object_size(value) == 0;
    if (json_is_array(value))
        return json_array_size(value) == 0;
    return value == NULL || json_is_null(value) || json_is_false(value);
}

/* Options that change what the adapter computes and that Quipu does not have. */
static qp_error_t check_unused(const char *path, const json_t *root)
{
    static const char *const options[] = {"use_dora",
                                          "bias",
                                          "lora_bias",
                                          "rank_pattern",
                                          "alpha_pattern",
                                          "fan_in_fan_out",
                                          "use_qalora",
                                          "layer_replication",
                                          "loftq_config",
                                          "eva_config",
                                          "target_parameters",
                                          "trainable_token_indices",
                                          "layers_to_transform",
                                          "alora_invocation_tokens"};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (!is_unused(json_object_get(root, options[i])))
            return QP_ERROR(QP_INPUT, "%s: %s is set, which Quipu does not support", path,
                            options[i]);
    const json_t *init = json_object_get(root, "init_lora_weights");
    if (json_is_string(init) && strcmp(json_string_value(init), "gaussian") != 0 &&
        strcmp(json_string_value(init), "eva") != 0 &&
        strcmp(json_string_value(init), "orthogonal") != 0)
        return QP_ERROR(
            QP_INPUT,
            "%s: init_lora_weights is \"%s\": such an adapter belongs to a changed base; "
            "convert it to a plain LoRA with PEFT first",
            path, json_string_value(init));
    return NULL;
}

static qp_error_t check_modules_to_save(const char *path, const json_t *root)
{
    const json_t *modules = json_object_get(root, "modules_to_save"), *module;
    size_t i;
    json_array_foreach(modules, i, module)
    {
        const char *name = json_string_value(module);
        if (name == NULL || (strcmp(name, "score") != 0 && strcmp(name, "classifier") != 0))
            return QP_ERROR(QP_INPUT, "%s: modules_to_save has \"%s\"; Quipu supports \"score\"",
                            path, name != NULL ? name : "?");
    }
    return NULL;
}

static qp_error_t read_numbers(const char *path, const json_t *root, qp_peft_t *peft)
{
    const json_t *r = json_object_get(root, "r"), *alpha = json_object_get(root, "lora_alpha");
    peft->r = (int64_t)json_integer_value(r);
    peft->alpha = json_is_number(alpha) ? json_number_value(alpha) : 8.0;
    peft->dropout = json_number_value(json_object_get(root, "lora_dropout"));
    peft->use_rslora = json_is_true(json_object_get(root, "use_rslora"));
    if (!json_is_integer(r) || peft->r < 1 || peft->r > 65536)
        return QP_ERROR(QP_INPUT, "%s: r must be an integer from 1 to 65536", path);
    if (!isfinite(peft->alpha) || peft->dropout < 0.0 || peft->dropout >= 1.0)
        return QP_ERROR(QP_INPUT, "%s: lora_alpha %g or lora_dropout %g is out of range", path,
                        peft->alpha, peft->dropout);
    return NULL;
}

static qp_error_t read_config(const char *path, const json_t *root, qp_peft_t *peft)
{
    const char *type = json_string_value(json_object_get(root, "peft_type"));
    if (type == NULL || strcmp(type, "LORA") != 0)
        return QP_ERROR(QP_INPUT, "%s: peft_type is %s; Quipu reads LORA", path,
                        type ? type : "absent");
    QP_TRY(check_unused(path, root));
    QP_TRY(check_modules_to_save(path, root));
    return read_numbers(path, root, peft);
}

/* --- tensors ---------------------------------------------------------------------------------- */

/* What peft->owned points to. */
typedef struct {
    float *data; /* all A and B, then the score head */
    int64_t n_used;
    char *base_name;
} owned_t;

/* Checks one tensor and appends its numbers to the owned array. */
static qp_error_t take(owned_t *owned, const qp_tensor_t *t, int64_t n_row, int64_t n_col,
                       const float **data)
{
    if (t->n_dim != 2 || t->dim[0] != n_row || t->dim[1] != n_col)
        return QP_ERROR(
            QP_INPUT, "%s: tensor %s has %d dimensions of [%ld, %ld], expected [%ld, %ld]", t->path,
            t->name, t->n_dim, (long)t->dim[0], (long)t->dim[1], (long)n_row, (long)n_col);
    if (!qp_convert_knows(t->dtype))
        return QP_ERROR(QP_INPUT, "%s: tensor %s has type %s; Quipu reads F32, F16 and BF16",
                        t->path, t->name, qp_dtype_name(t->dtype));
    float *to = owned->data + owned->n_used;
    qp_convert_to_f32(t->dtype, t->data, n_row * n_col, to);
    int64_t bad = qp_find_not_finite(to, n_row * n_col);
    if (bad >= 0)
        return QP_ERROR(QP_INPUT, "%s: tensor %s: the weight in row %ld, column %ld is %g", t->path,
                        t->name, (long)(bad / n_col), (long)(bad % n_col), (double)to[bad]);
    owned->n_used += n_row * n_col;
    *data = to;
    return NULL;
}

static const qp_tensor_t *find(const qp_safetensors_t *st, int64_t layer, qp_linear_t linear,
                               char matrix)
{
    char name[QP_PEFT_NAME_BYTES];
    qp_peft_tensor_name(layer, linear, matrix, name);
    return qp_safetensors_find(st, name);
}

/* A linear is a target if any layer has it; then every layer must. */
static void find_targets(const qp_safetensors_t *st, const qp_llama_config_t *config,
                         qp_peft_t *peft)
{
    int n_target = 0;
    for (int l = 0; l < QP_N_LINEAR; l++) {
        for (int64_t layer = 0; layer < config->n_layer && !peft->target[l]; layer++)
            peft->target[l] = find(st, layer, (qp_linear_t)l, 'A') != NULL;
        n_target += peft->target[l];
    }
    peft->pair = QP_NEW("peft", qp_peft_pair_t, n_target * config->n_layer);
}

static qp_error_t read_pair(const qp_safetensors_t *st, const char *path, owned_t *owned, int64_t r,
                            qp_peft_pair_t *pair)
{
    char missing[QP_PEFT_NAME_BYTES];
    const qp_tensor_t *a = find(st, pair->layer, pair->linear, 'A');
    const qp_tensor_t *b = find(st, pair->layer, pair->linear, 'B');
    if (a == NULL || b == NULL) {
        qp_peft_tensor_name(pair->layer, pair->linear, a == NULL ? 'A' : 'B', missing);
        return QP_ERROR(QP_INPUT, "%s: tensor %s is missing", path, missing);
    }
    QP_TRY(take(owned, a, r, pair->n_in, &pair->a));
    return take(owned, b, pair->n_out, r, &pair->b);
}

static qp_error_t read_pairs(const qp_safetensors_t *st, const char *path,
                             const qp_llama_config_t *config, owned_t *owned, qp_peft_t *peft)
{
    find_targets(st, config, peft);
    for (int64_t layer = 0; layer < config->n_layer; layer++)
        for (int l = 0; l < QP_N_LINEAR; l++) {
            if (!peft->target[l])
                continue;
            qp_peft_pair_t *pair = &peft->pair[peft->n_pair++];
            pair->layer = layer;
            pair->linear = (qp_linear_t)l;
            pair->n_in = qp_linear_n_in(config, pair->linear);
            pair->n_out = qp_linear_n_out(config, pair->linear);
            QP_TRY(read_pair(st, path, owned, peft->r, pair));
        }
    return NULL;
}

/* Every tensor must have been taken: the others are layers too many or kinds we do not know. */
static qp_error_t check_extra(const qp_safetensors_t *st, const qp_peft_t *peft)
{
    int64_t n_expected = 2 * peft->n_pair + (peft->score != NULL);
    for (int64_t i = 0; i < qp_safetensors_n(st) && qp_safetensors_n(st) != n_expected; i++) {
        const qp_tensor_t *t = qp_safetensors_at(st, i);
        bool known = strcmp(t->name, QP_PEFT_SCORE) == 0;
        for (int64_t p = 0; p < peft->n_pair && !known; p++)
            known = find(st, peft->pair[p].layer, peft->pair[p].linear, 'A') == t ||
                    find(st, peft->pair[p].layer, peft->pair[p].linear, 'B') == t;
        if (!known)
            return QP_ERROR(QP_INPUT, "%s: unexpected tensor %s", t->path, t->name);
    }
    return NULL;
}

/* Targets that the config names one by one must be there. */
static qp_error_t check_named_targets(const char *path, const json_t *root, const qp_peft_t *peft)
{
    const json_t *names = json_object_get(root, "target_modules"), *name;
    size_t i;
    json_array_foreach(names, i, name)
    {
        for (int l = 0; l < QP_N_LINEAR && json_is_string(name); l++)
            if (strcmp(json_string_value(name), qp_linear_short_name((qp_linear_t)l)) == 0 &&
                !peft->target[l])
                return QP_ERROR(QP_INPUT,
                                "%s: target_modules has \"%s\", but there is no such tensor", path,
                                json_string_value(name));
    }
    if (peft->n_pair == 0)
        return QP_ERROR(QP_INPUT, "%s: the adapter has no LoRA tensor of this model's layers",
                        path);
    return NULL;
}

static qp_error_t read_tensors(const char *path, const qp_llama_config_t *config,
                               const json_t *root, qp_peft_t *peft)
{
    qp_safetensors_t *st = NULL;
    QP_TRY(qp_safetensors_open(path, &st));
    owned_t *owned = peft->owned;
    int64_t n = 0;
    for (int64_t i = 0; i < qp_safetensors_n(st); i++)
        n += qp_tensor_n(qp_safetensors_at(st, i));
    owned->data = QP_NEW("peft", float, n);
    qp_error_t error = read_pairs(st, path, config, owned, peft);
    const qp_tensor_t *score = qp_safetensors_find(st, QP_PEFT_SCORE);
    if (error == NULL && score != NULL) {
        peft->n_score = score->dim[0];
        error = take(owned, score, peft->n_score, config->d_model, &peft->score);
    }
    if (error == NULL)
        error = check_extra(st, peft);
    if (error == NULL)
        error = check_named_targets(path, root, peft);
    qp_safetensors_close(&st);
    return error;
}

/* The folder's two files, open. */
typedef struct {
    char *config_path, *tensor_path;
    json_t *config;
} folder_t;

static void close_folder(folder_t *f)
{
    json_decref(f->config);
    qp_free(f->config_path);
    qp_free(f->tensor_path);
}

/* Opens the folder and reads its config; the folder is to be closed in any case. */
static qp_error_t open_folder(const char *folder, folder_t *f, qp_peft_t *peft)
{
    json_error_t where;
    *f = (folder_t){qp_format("%s/" QP_PEFT_CONFIG, folder),
                    qp_format("%s/" QP_PEFT_TENSORS, folder), NULL};
    if (access(f->config_path, R_OK) != 0)
        return QP_ERROR(QP_INPUT, "%s: is no PEFT adapter folder: it has no adapter_config.json",
                        folder);
    if (access(f->tensor_path, R_OK) != 0)
        return QP_ERROR(QP_INPUT, "%s: has no adapter_model.safetensors", folder);
    f->config = json_load_file(f->config_path, 0, &where);
    if (!json_is_object(f->config))
        return QP_ERROR(QP_INPUT, "%s:%d: %s", f->config_path, where.line,
                        f->config == NULL ? where.text : "no JSON object");
    return read_config(f->config_path, f->config, peft);
}

qp_error_t qp_peft_read(const char *folder, const qp_llama_config_t *config, qp_peft_t *peft)
{
    folder_t f;
    *peft = (qp_peft_t){.d_model = config->d_model};
    qp_error_t error = open_folder(folder, &f, peft);
    if (error == NULL) {
        owned_t *owned = QP_NEW("peft", owned_t, 1);
        peft->owned = owned;
        owned->base_name =
            qp_strdup(json_string_value(json_object_get(f.config, "base_model_name_or_path")));
        peft->base_name = owned->base_name;
        error = read_tensors(f.tensor_path, config, f.config, peft);
    }
    close_folder(&f);
    if (error != NULL)
        qp_peft_fini(peft);
    return error;
}

/* The tensors of the first layer tell the targets; qp_peft_read() checks that all layers agree. */
static qp_error_t read_targets(const char *path, qp_peft_t *peft)
{
    qp_safetensors_t *st = NULL;
    QP_TRY(qp_safetensors_open(path, &st));
    for (int l = 0; l < QP_N_LINEAR; l++)
        peft->target[l] = find(st, 0, (qp_linear_t)l, 'A') != NULL;
    qp_safetensors_close(&st);
    return NULL;
}

qp_error_t qp_peft_read_shape(const char *folder, qp_peft_t *peft)
{
    folder_t f;
    *peft = (qp_peft_t){0};
    qp_error_t error = open_folder(folder, &f, peft);
    if (error == NULL)
        error = read_targets(f.tensor_path, peft);
    close_folder(&f);
    return error;
}

void qp_peft_fini(qp_peft_t *peft)
{
    owned_t *owned = peft->owned;
    if (owned != NULL) {
        qp_free(owned->data);
        qp_free(owned->base_name);
        qp_free(owned);
        qp_free(peft->pair);
    }
    *peft = (qp_peft_t){0};
}
