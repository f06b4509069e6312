#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "formats/convert.h"
#include "formats/safetensors.h"
#include "inspect.h"

/* Keys of adapter_config.json worth a line. */
static const char *const keys[] = {"peft_type",  "task_type",      "base_model_name_or_path",
                                   "r",          "lora_alpha",     "lora_dropout",
                                   "use_rslora", "target_modules", "modules_to_save"};

static qp_error_t print_config(const char *folder)
{
    json_error_t where;
    char *path = qp_format("%s/adapter_config.json", folder);
    json_t *root = json_load_file(path, 0, &where);
    qp_error_t error = NULL;
    if (root == NULL)
        error = QP_ERROR(QP_INPUT, "%s: is no PEFT adapter folder: adapter_config.json: %s", folder,
                         where.text);
    for (size_t i = 0; error == NULL && i < sizeof keys / sizeof keys[0]; i++) {
        char *text =
            json_dumps(json_object_get(root, keys[i]), JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        printf("%-24s %s\n", keys[i], text != NULL ? text : "-");
        free(text);
    }
    json_decref(root);
    qp_free(path);
    return error;
}

static qp_error_t open_tensors(const char *folder, qp_safetensors_t **st)
{
    char *path = qp_format("%s/adapter_model.safetensors", folder);
    qp_error_t error = qp_safetensors_open(path, st);
    qp_free(path);
    return error;
}

qp_error_t qp_show_adapter(const char *folder, bool tensors)
{
    qp_safetensors_t *st = NULL;
    double n = 0.0;
    QP_TRY(print_config(folder));
    QP_TRY(open_tensors(folder, &st));
    for (int64_t i = 0; i < qp_safetensors_n(st); i++) {
        const qp_tensor_t *t = qp_safetensors_at(st, i);
        if (tensors)
            printf("%-6s [%ld, %ld] %s\n", qp_dtype_name(t->dtype), (long)t->dim[0],
                   (long)t->dim[1], t->name);
        n += (double)qp_tensor_n(t);
    }
    printf("%-24s %ld, %.0f parameters\n", "tensors", (long)qp_safetensors_n(st), n);
    qp_safetensors_close(&st);
    return NULL;
}

static qp_error_t check_finite(const qp_tensor_t *t)
{
    int64_t n = qp_tensor_n(t);
    if (!qp_convert_knows(t->dtype))
        return QP_ERROR(QP_INPUT, "%s: tensor %s has type %s, expected F32, F16 or BF16", t->path,
                        t->name, qp_dtype_name(t->dtype));
    float *x = QP_NEW("inspect", float, n);
    qp_convert_to_f32(t->dtype, t->data, n, x);
    int64_t bad = qp_find_not_finite(x, n);
    qp_error_t error = NULL;
    if (bad >= 0)
        error = QP_ERROR(QP_INPUT, "%s: tensor %s: element %ld is %g", t->path, t->name, (long)bad,
                         (double)x[bad]);
    qp_free(x);
    return error;
}

qp_error_t qp_verify_adapter(const char *folder)
{
    qp_safetensors_t *st = NULL;
    QP_TRY(open_tensors(folder, &st));
    int64_t n = qp_safetensors_n(st);
    qp_error_t error = NULL;
    for (int64_t i = 0; error == NULL && i < n; i++)
        error = check_finite(qp_safetensors_at(st, i));
    qp_safetensors_close(&st);
    if (error == NULL)
        printf("%-24s all %ld tensors are finite\n", "verified", (long)n);
    return error;
}
