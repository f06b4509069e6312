#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/convert.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "inspect.h"
#include "model/adapter/adapter_peft.h"

/* Keys of adapter_config.json worth a line. */
static const char *const keys[] = {"peft_type",  "task_type",      "base_model_name_or_path",
                                   "r",          "lora_alpha",     "lora_dropout",
                                   "use_rslora", "target_modules", "modules_to_save"};

static qp_error_t read_adapter_config(const char *folder, json_t **root)
{
    void *text = NULL;
    size_t n;
    char *path = qp_format("%s/adapter_config.json", folder);
    qp_error_t error = NULL;
    if (access(path, F_OK) != 0)
        error = QP_ERROR(QP_INPUT, "%s: is no PEFT adapter folder: it has no adapter_config.json",
                         folder);
    if (error == NULL)
        error = qp_file_read(path, &text, &n);
    if (error == NULL)
        error = qp_json_parse_object(path, text, n, 0, root);
    qp_free(text);
    qp_free(path);
    return error;
}

static qp_error_t print_config(const char *folder)
{
    json_t *root = NULL;
    QP_TRY(read_adapter_config(folder, &root));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char *text =
            json_dumps(json_object_get(root, keys[i]), JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        printf("%-24s %s\n", keys[i], text != NULL ? text : "-");
        free(text);
    }
    json_decref(root);
    return NULL;
}

static qp_error_t open_tensors(const char *folder, qp_safetensors_t **st)
{
    char *path = qp_format("%s/adapter_model.safetensors", folder);
    qp_error_t error = qp_safetensors_open(path, st);
    qp_free(path);
    return error;
}

static void print_tensor(const qp_tensor_t *t)
{
    printf("%-6s [", qp_dtype_name(t->dtype));
    for (int d = 0; d < t->n_dim; d++)
        printf("%s%ld", d > 0 ? ", " : "", (long)t->dim[d]);
    printf("] %s\n", t->name);
}

/* What a run would refuse is shown as it stands, then refused by the same reader. */
qp_error_t qp_show_adapter(const char *folder, bool tensors)
{
    qp_safetensors_t *st = NULL;
    qp_peft_t shape;
    double n = 0.0;
    QP_TRY(print_config(folder));
    QP_TRY(qp_peft_read_shape(folder, &shape));
    qp_peft_fini(&shape);
    QP_TRY(open_tensors(folder, &st));
    for (int64_t i = 0; i < qp_safetensors_n(st); i++) {
        if (tensors)
            print_tensor(qp_safetensors_at(st, i));
        n += (double)qp_tensor_n(qp_safetensors_at(st, i));
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
