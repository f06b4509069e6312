#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "formats/convert.h"
#include "formats/safetensors.h"
#include "model/adapter/adapter_impl.h"
#include "model/adapter/adapter_peft.h"

/* --- the value head: PEFT knows none, so it has a file of its own ------------------------------
 */

#define VALUE_WEIGHT "v_head.summary.weight"
#define VALUE_BIAS "v_head.summary.bias"

static qp_error_t take_value_tensor(const qp_safetensors_t *st, const char *path, const char *name,
                                    int64_t n, float *to)
{
    const qp_tensor_t *t = qp_safetensors_find(st, name);
    if (t == NULL || qp_tensor_n(t) != n)
        return QP_ERROR(QP_INPUT, "%s: expected %s with %lld elements, found %s", path, name,
                        (long long)n, t == NULL ? "none" : "another size");
    if (!qp_convert_knows(t->dtype))
        return QP_ERROR(QP_INPUT, "%s: %s has type %s; Quipu reads F32, F16 and BF16", path, name,
                        qp_dtype_name(t->dtype));
    qp_convert_to_f32(t->dtype, t->data, n, to);
    if (qp_find_not_finite(to, n) >= 0)
        return QP_ERROR(QP_INPUT, "%s: %s has elements that are not finite", path, name);
    return NULL;
}

/* head [d_model + 1], left alone where the folder has no value head. */
static qp_error_t read_value_head(const char *folder, int64_t d_model, float *head)
{
    char *path = qp_format("%s/" QP_VALUE_HEAD_FILE, folder);
    qp_safetensors_t *st = NULL;
    qp_error_t error = NULL;
    if (access(path, F_OK) == 0) {
        error = qp_safetensors_open(path, &st);
        if (error == NULL)
            error = take_value_tensor(st, path, VALUE_WEIGHT, d_model, head);
        if (error == NULL)
            error = take_value_tensor(st, path, VALUE_BIAS, 1, head + d_model);
        qp_safetensors_close(&st);
    }
    qp_free(path);
    return error;
}

static qp_error_t write_value_head(const char *folder, int64_t d_model, const float *head)
{
    const qp_tensor_t tensor[] = {
        {.name = VALUE_BIAS,
         .dtype = QP_F32,
         .n_dim = 1,
         .dim = {1},
         .data = head + d_model,
         .n_bytes = sizeof(float)},
        qp_tensor_matrix(VALUE_WEIGHT, head, 1, d_model),
    };
    char *path = qp_format("%s/" QP_VALUE_HEAD_FILE, folder);
    qp_error_t error = qp_safetensors_write(path, tensor, 2);
    qp_free(path);
    return error;
}

/* --- adapters ---------------------------------------------------------------------------------
 */

static void describe(qp_str_t *out, int64_t r, double alpha, bool use_rslora,
                     const bool target[QP_N_LINEAR])
{
    qp_str_printf(out, "r = %lld, alpha = %g%s, targets =", (long long)r, alpha,
                  use_rslora ? " with rsLoRA" : "");
    for (int l = 0; l < QP_N_LINEAR; l++)
        if (target[l])
            qp_str_printf(out, " %s", qp_linear_short_name((qp_linear_t)l));
}

/* The adapter must be the function the deck describes: what it was trained with is not guessed
 * over. */
static qp_error_t check_match(const qp_lora_config_t *config, const qp_peft_t *peft)
{
    if (peft->r == config->r && peft->alpha == config->alpha &&
        peft->use_rslora == config->use_rslora &&
        memcmp(peft->target, config->target, sizeof peft->target) == 0)
        return NULL;
    qp_str_t found = {0}, wanted = {0};
    describe(&found, peft->r, peft->alpha, peft->use_rslora, peft->target);
    describe(&wanted, config->r, config->alpha, config->use_rslora, config->target);
    qp_error_t error =
        QP_ERROR(QP_INPUT, "lora.init: the adapter %s has %s; the deck has %s (leave these out)",
                 config->init, found.data, wanted.data);
    qp_str_fini(&found);
    qp_str_fini(&wanted);
    return error;
}

static qp_error_t read_init(const qp_lora_config_t *config, const qp_llama_config_t *model,
                            qp_peft_t *peft)
{
    QP_TRY(qp_peft_read(config->init, model, peft));
    qp_error_t error = check_match(config, peft);
    if (error != NULL)
        qp_peft_fini(peft);
    return error;
}

/* The head that stands with an adapter; to is left alone where there is none of its kind. */
static qp_error_t read_head(const qp_lora_config_t *config, const qp_head_config_t *head,
                            const qp_peft_t *peft, int64_t d_model, float *to)
{
    if (head == NULL || head->kind == QP_HEAD_NONE)
        return NULL;
    if (head->kind == QP_HEAD_VALUE)
        return read_value_head(config->init, d_model, to);
    if (head->required && peft->score == NULL)
        return QP_ERROR(QP_INPUT,
                        "%s: has no score head (modules_to_save \"score\"): it is no reward model",
                        config->init);
    if (peft->n_score > 1)
        return QP_ERROR(QP_INPUT, "%s: its score head has %lld labels, a reward model has 1",
                        config->init, (long long)peft->n_score);
    if (peft->score != NULL)
        memcpy(to, peft->score, qp_bytes(d_model, sizeof(float)));
    return NULL;
}

qp_error_t qp_lora_check_init(const qp_lora_config_t *config, const qp_head_config_t *head,
                              const qp_llama_config_t *model)
{
    qp_peft_t peft;
    QP_TRY(read_init(config, model, &peft));
    float *unused = QP_NEW("adapter staging", float, model->d_model + 1);
    qp_error_t error = read_head(config, head, &peft, model->d_model, unused);
    qp_free(unused);
    qp_peft_fini(&peft);
    return error;
}

/* PEFT runs an adapter with any scale; one to train has bounds, which are the deck's. */
static qp_error_t check_bounds(const char *init, const qp_peft_t *peft)
{
    const struct {
        const char *key;
        double value, min, max;
    } bound[] = {{"r", (double)peft->r, 1, QP_LORA_MAX_R},
                 {"lora_alpha", peft->alpha, QP_LORA_MIN_ALPHA, QP_LORA_MAX_ALPHA}};
    for (size_t i = 0; i < sizeof bound / sizeof bound[0]; i++)
        if (!(bound[i].value >= bound[i].min && bound[i].value <= bound[i].max))
            return QP_ERROR(QP_INPUT,
                            "lora.init: %s/adapter_config.json: %s is %g, training takes %g to %g",
                            init, bound[i].key, bound[i].value, bound[i].min, bound[i].max);
    return NULL;
}

qp_error_t qp_lora_init_values(const char *init, qp_str_t *lines)
{
    qp_peft_t peft;
    const char *comma = "";
    QP_TRY(qp_error_context(qp_peft_read_shape(init, &peft), "lora.init"));
    qp_error_t error = check_bounds(init, &peft);
    qp_str_printf(lines, "lora.r=%lld\nlora.alpha=%.17g\nlora.use_rslora=%s\nlora.targets=[",
                  (long long)peft.r, peft.alpha, peft.use_rslora ? "true" : "false");
    for (int l = 0; l < QP_N_LINEAR; l++)
        if (peft.target[l]) {
            qp_str_printf(lines, "%s \"%s\"", comma, qp_linear_short_name((qp_linear_t)l));
            comma = ",";
        }
    qp_str_puts(lines, " ]\n");
    qp_peft_fini(&peft);
    return error;
}

qp_error_t qp_lora_from_folder(qp_comm_t *comm, const char *folder, qp_lora_config_t *config)
{
    qp_peft_t peft = {0};
    qp_error_t error = qp_comm_rank(comm) == 0 ? qp_peft_read_shape(folder, &peft) : NULL;
    QP_TRY(qp_comm_agree(comm, error));
    struct {
        double alpha, dropout;
        int64_t r;
        bool use_rslora, target[QP_N_LINEAR];
    } shape = {.alpha = peft.alpha, .r = peft.r, .use_rslora = peft.use_rslora};
    memcpy(shape.target, peft.target, sizeof shape.target);
    qp_peft_fini(&peft);
    qp_comm_bcast(comm, &shape, sizeof shape, QP_U8, 0);
    *config = (qp_lora_config_t){
        .r = shape.r, .alpha = shape.alpha, .use_rslora = shape.use_rslora, .init = folder};
    memcpy(config->target, shape.target, sizeof config->target);
    return NULL;
}

qp_error_t qp_adapter_read(const qp_adapter_t *adapter, const qp_lora_config_t *config,
                           const qp_head_config_t *head, const qp_llama_config_t *model,
                           float *param)
{
    qp_peft_t peft;
    QP_TRY(read_init(config, model, &peft));
    QP_ASSERT(peft.n_pair == adapter->n_view);
    for (int64_t i = 0; i < adapter->n_view; i++) {
        const qp_lora_view_t *view = &adapter->view[i];
        const qp_peft_pair_t *pair = &peft.pair[i];
        QP_ASSERT(pair->layer == view->layer && pair->linear == view->linear);
        memcpy(param + view->a, pair->a, qp_bytes(adapter->r * view->n_in, sizeof(float)));
        memcpy(param + view->b, pair->b, qp_bytes(adapter->r * view->n_out, sizeof(float)));
    }
    qp_error_t error = read_head(config, head, &peft, model->d_model,
                                 param + adapter->layer_first[adapter->n_layer]);
    qp_peft_fini(&peft);
    return error;
}

qp_error_t qp_adapter_save(const qp_adapter_t *adapter, const qp_llama_config_t *config,
                           const char *base_name, const char *folder)
{
    qp_peft_t peft = {.r = adapter->r,
                      .alpha = (double)adapter->alpha,
                      .dropout = (double)adapter->dropout,
                      .use_rslora = adapter->use_rslora,
                      .n_pair = adapter->n_view,
                      .d_model = config->d_model,
                      .base_name = base_name};
    memcpy(peft.target, adapter->target, sizeof peft.target);
    float *param = QP_NEW("adapter staging", float, adapter->n_param);
    peft.pair = QP_NEW("adapter staging", qp_peft_pair_t, adapter->n_view);
    for (int64_t i = 0; i < adapter->n_view; i++) {
        const qp_lora_view_t *view = &adapter->view[i];
        peft.pair[i] = (qp_peft_pair_t){.layer = view->layer,
                                        .linear = view->linear,
                                        .n_in = view->n_in,
                                        .n_out = view->n_out,
                                        .a = param + view->a,
                                        .b = param + view->b};
    }
    qp_error_t error =
        adapter->device->ops->download(qp_device_queue(adapter->device), param, adapter->param,
                                       qp_bytes(adapter->n_param, sizeof(float)));
    const float *head = param + adapter->layer_first[adapter->n_layer];
    if (adapter->head == QP_HEAD_SCORE) {
        peft.n_score = 1;
        peft.score = head;
    }
    if (error == NULL)
        error = qp_peft_write(folder, &peft);
    if (error == NULL && adapter->head == QP_HEAD_VALUE)
        error = write_value_head(folder, config->d_model, head);
    qp_free(peft.pair);
    qp_free(param);
    return error;
}
