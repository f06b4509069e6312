#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/adapter.h"
#include "model/adapter_peft.h"

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
    bool target[QP_N_LINEAR];
    QP_TRY(qp_lora_targets(config, target));
    if (peft->r == config->r && peft->alpha == config->alpha &&
        peft->use_rslora == config->use_rslora &&
        memcmp(peft->target, target, sizeof peft->target) == 0)
        return NULL;
    qp_str_t found = {0}, wanted = {0};
    describe(&found, peft->r, peft->alpha, peft->use_rslora, peft->target);
    describe(&wanted, config->r, config->alpha, config->use_rslora, target);
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

qp_error_t qp_lora_check_init(const qp_lora_config_t *config, const qp_llama_config_t *model)
{
    qp_peft_t peft;
    QP_TRY(read_init(config, model, &peft));
    qp_peft_fini(&peft);
    return NULL;
}

qp_error_t qp_lora_init_values(const char *init, qp_str_t *lines)
{
    qp_peft_t peft;
    const char *comma = "";
    QP_TRY(qp_error_context(qp_peft_read_shape(init, &peft), "lora.init"));
    qp_str_printf(lines, "lora.r=%lld\nlora.alpha=%.17g\nlora.use_rslora=%s\nlora.targets=[",
                  (long long)peft.r, peft.alpha, peft.use_rslora ? "true" : "false");
    for (int l = 0; l < QP_N_LINEAR; l++)
        if (peft.target[l]) {
            qp_str_printf(lines, "%s \"%s\"", comma, qp_linear_short_name((qp_linear_t)l));
            comma = ",";
        }
    qp_str_puts(lines, " ]\n");
    qp_peft_fini(&peft);
    return NULL;
}

qp_error_t qp_adapter_read(const qp_adapter_t *adapter, const qp_lora_config_t *config,
                           const qp_llama_config_t *model, float *param)
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
    qp_peft_fini(&peft);
    return NULL;
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
    if (error == NULL)
        error = qp_peft_write(folder, &peft);
    qp_free(peft.pair);
    qp_free(param);
    return error;
}
