/* Writing a PEFT adapter folder. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/safetensors.h"
#include "model/adapter/adapter_peft.h"
#include "model/adapter/adapter_peft_names.h"

void qp_peft_tensor_name(int64_t layer, qp_linear_t linear, char matrix, const char *adapter,
                         char name[QP_PEFT_NAME_BYTES])
{
    snprintf(name, QP_PEFT_NAME_BYTES, QP_PEFT_LAYER "%s.lora_%c%s.weight", (long)layer,
             qp_linear_name(linear), matrix, adapter);
}

/* What PEFT itself writes for a plain LoRA; the keys of make_config() replace or join these. */
static const char defaults[] =
    "{\"alpha_pattern\": {}, \"auto_mapping\": null, \"bias\": \"none\", \"exclude_modules\": null,"
    " \"fan_in_fan_out\": false, \"inference_mode\": true, \"init_lora_weights\": true,"
    " \"layer_replication\": null, \"layers_pattern\": null, \"layers_to_transform\": null,"
    " \"loftq_config\": {}, \"lora_bias\": false, \"megatron_config\": null, \"modules_to_save\": "
    "null,"
    " \"peft_type\": \"LORA\", \"rank_pattern\": {}, \"revision\": null, \"task_type\": "
    "\"CAUSAL_LM\","
    " \"use_dora\": false}";

/* PEFT declares lora_alpha as an integer; it takes others too. */
static json_t *number(double x)
{
    return x == floor(x) && fabs(x) < 1e9 ? json_integer((json_int_t)x) : json_real(x);
}

static char *make_config(const qp_peft_t *peft)
{
    json_t *root = json_loads(defaults, 0, NULL), *targets = json_array();
    QP_ASSERT(root != NULL);
    for (int l = 0; l < QP_N_LINEAR; l++)
        if (peft->target[l])
            json_array_append_new(targets, json_string(qp_linear_short_name((qp_linear_t)l)));
    json_object_set_new(root, "target_modules", targets);
    json_object_set_new(root, "r", json_integer((json_int_t)peft->r));
    json_object_set_new(root, "lora_alpha", number(peft->alpha));
    json_object_set_new(root, "lora_dropout", json_real(peft->dropout));
    json_object_set_new(root, "use_rslora", json_boolean(peft->use_rslora));
    json_object_set_new(root, "base_model_name_or_path",
                        peft->base_name != NULL ? json_string(peft->base_name) : json_null());
    if (peft->score != NULL) {
        json_object_set_new(root, "task_type", json_string("SEQ_CLS"));
        json_object_set_new(root, "modules_to_save", json_pack("[s]", "score"));
    }
    char *made = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(15));
    json_decref(root);
    char *text = qp_format("%s\n", made);
    free(made);
    return text;
}

static qp_error_t write_tensors(const char *folder, const qp_peft_t *peft)
{
    int64_t n_tensor = 2 * peft->n_pair + (peft->score != NULL);
    qp_tensor_t *tensor = QP_NEW("peft", qp_tensor_t, n_tensor);
    char(*name)[QP_PEFT_NAME_BYTES] = qp_alloc("peft", qp_bytes(n_tensor, sizeof *name));
    for (int64_t i = 0; i < peft->n_pair; i++) {
        const qp_peft_pair_t *p = &peft->pair[i];
        qp_peft_tensor_name(p->layer, p->linear, 'A', "", name[2 * i]);
        qp_peft_tensor_name(p->layer, p->linear, 'B', "", name[2 * i + 1]);
        tensor[2 * i] = qp_tensor_matrix(name[2 * i], p->a, peft->r, p->n_in);
        tensor[2 * i + 1] = qp_tensor_matrix(name[2 * i + 1], p->b, p->n_out, peft->r);
    }
    if (peft->score != NULL)
        tensor[n_tensor - 1] =
            qp_tensor_matrix(QP_PEFT_SCORE, peft->score, peft->n_score, peft->d_model);
    char *path = qp_format("%s/" QP_PEFT_TENSORS, folder);
    qp_error_t error = qp_safetensors_write(path, tensor, n_tensor);
    qp_free(path);
    qp_free(name);
    qp_free(tensor);
    return error;
}

qp_error_t qp_peft_write(const char *folder, const qp_peft_t *peft)
{
    QP_TRY(qp_folder_make(folder));
    QP_TRY(write_tensors(folder, peft));
    char *path = qp_format("%s/" QP_PEFT_CONFIG, folder);
    char *config = make_config(peft);
    qp_error_t error = qp_file_write(path, config, strlen(config));
    qp_free(config);
    qp_free(path);
    return error;
}
