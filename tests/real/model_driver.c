/*
 * Runs a real model once for tests/real/compare_model.py: every row of a token matrix is a
 * sequence. Writes log-probabilities, the gradient of the mean loss for every matrix of an adapter
 * and, where asked, the logits.
 *
 *     model_driver BASE fp32|bf16 ACTIVATION GRADIENT ADAPTER TOKENS OUT [LOGITS]
 *
 * ACTIVATION and GRADIENT: int8 | bf16, as base.activation and base.gradient of a deck.
 * ADAPTER: a PEFT folder. TOKENS: safetensors with int32 "tokens" [n_seq, length].
 * OUT: safetensors. LOGITS: raw fp32 [n_seq, length, n_vocab].
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/timer.h"
#include "formats/safetensors.h"
#include "model/adapter/adapter_peft.h"
#include "model/pass/pass.h"

enum { LOGIT_ROWS = 256 };

typedef struct {
    const char *base, *compute, *activation, *gradient, *adapter, *tokens, *out, *logits;
} arguments_t;

typedef struct {
    qp_comm_t *comm;
    qp_device_t *device;
    qp_base_t *base;
    qp_adapter_t *adapter;
    qp_workspace_t *ws;
    qp_safetensors_t *file;
    const int32_t *token; /* [n_seq, length] */
    int64_t n_seq, length;
    float *logprob, *grad;
} driver_t;

static qp_error_t open_tokens(driver_t *d, const char *path)
{
    QP_TRY(qp_safetensors_open(path, &d->file));
    const qp_tensor_t *tokens = qp_safetensors_find(d->file, "tokens");
    if (tokens == NULL || tokens->n_dim != 2 || tokens->dtype != QP_I32)
        return QP_ERROR(QP_INPUT, "%s: expected int32 tokens [n_seq, length]", path);
    d->token = tokens->data;
    d->n_seq = tokens->dim[0];
    d->length = tokens->dim[1];
    return NULL;
}

/* The deck of the adapter that stands in the folder. */
static qp_error_t lora_of_folder(const char *folder, const qp_llama_config_t *config,
                                 qp_lora_config_t *lora)
{
    qp_peft_t peft;
    QP_TRY(qp_peft_read(folder, config, &peft));
    *lora = (qp_lora_config_t){
        .r = peft.r, .alpha = peft.alpha, .use_rslora = peft.use_rslora, .init = folder};
    memcpy(lora->target, peft.target, sizeof lora->target);
    qp_peft_fini(&peft);
    return NULL;
}

static qp_error_t set_up(driver_t *d, const arguments_t *a)
{
    qp_lora_config_t lora;
    qp_device_config_t device = {.backend = QP_BACKEND_AUTO,
                                 .compute = strcmp(a->compute, "fp32") == 0 ? QP_COMPUTE_FP32
                                                                            : QP_COMPUTE_BF16};
    qp_base_config_t base = {
        .file = a->base,
        .activation = strcmp(a->activation, "int8") == 0 ? QP_PRODUCT_INT8 : QP_PRODUCT_BF16,
        .gradient = strcmp(a->gradient, "int8") == 0 ? QP_PRODUCT_INT8 : QP_PRODUCT_BF16,
        .outlier_threshold = 6.0};
    QP_TRY(qp_comm_create(&d->comm));
    QP_TRY(open_tokens(d, a->tokens));
    QP_TRY(qp_device_open(&device, qp_comm_node_rank(d->comm), qp_comm_node_size(d->comm),
                          &d->device));
    QP_TRY(qp_base_load(d->comm, d->device, &base, d->length, &d->base));
    QP_TRY(lora_of_folder(a->adapter, &d->base->config, &lora));
    QP_TRY(qp_adapter_create(d->comm, d->base, &lora, NULL, 0, &d->adapter));
    QP_TRY(qp_workspace_create(d->base, &lora, d->length, QP_RECOMPUTE_LAYER, &d->ws));
    d->logprob = QP_NEW("driver", float, d->n_seq * d->length);
    d->grad = QP_NEW("driver", float, d->adapter->n_param);
    return NULL;
}

static qp_error_t write_logits(const driver_t *d, FILE *out)
{
    const qp_ops_t *ops = d->device->ops;
    qp_queue_t *q = qp_device_queue(d->device);
    int64_t n_vocab = d->base->config.n_vocab;
    size_t bytes = qp_bytes(LOGIT_ROWS * n_vocab, sizeof(float));
    qp_dptr_t logits;
    float *rows = qp_alloc("driver", bytes);
    QP_TRY(ops->alloc(d->device, "driver", bytes, &logits));
    qp_error_t error = NULL;
    for (int64_t first = 0; first < d->length && error == NULL; first += LOGIT_ROWS) {
        int64_t n = d->length - first < LOGIT_ROWS ? d->length - first : LOGIT_ROWS;
        bytes = qp_bytes(n * n_vocab, sizeof(float));
        QP_TRY_DONE(ops->lm_logits(q, qp_mat(logits, QP_F32, n, n_vocab),
                                   qp_mat_rows(qp_model_hidden(d->ws), first, n),
                                   &d->base->lm_head));
        QP_TRY_DONE(ops->download(q, rows, logits, bytes));
        if (fwrite(rows, 1, bytes, out) != bytes)
            error = QP_ERROR(QP_IO, "cannot write logits");
    }
done:
    ops->release(d->device, &logits);
    qp_free(rows);
    return error;
}

/* One row of the matrix, as a batch of its own. */
static qp_error_t run_row(const driver_t *d, int64_t row, FILE *logits, double *loss_sum)
{
    int64_t n = d->length;
    const int32_t *token = d->token + row * n;
    int32_t *target = QP_NEW("driver", int32_t, n), *position = QP_NEW("driver", int32_t, n);
    uint32_t *sample = QP_NEW("driver", uint32_t, n);
    int32_t cu_seqlens[2] = {0, (int32_t)n};
    double loss = 0.0;
    for (int64_t t = 0; t < n; t++) {
        position[t] = (int32_t)t;
        target[t] = t + 1 < n ? token[t + 1] : -1;
    }
    qp_model_batch_t batch = {.n_token = n,
                              .n_seq = 1,
                              .token = token,
                              .target = target,
                              .position = position,
                              .cu_seqlens = cu_seqlens,
                              .sample = sample};
    qp_role_t role = {d->base, d->adapter};
    qp_pass_t pass = {.training = true};
    float weight = 1.0f / (float)(d->n_seq * (n - 1));
    qp_error_t error =
        qp_model_step(d->ws, &role, &batch, &pass, weight, &loss, d->logprob + row * n);
    if (error == NULL && logits != NULL)
        error = write_logits(d, logits);
    *loss_sum += loss;
    qp_free(target);
    qp_free(position);
    qp_free(sample);
    return error;
}

static qp_error_t write_out(const driver_t *d, const char *path)
{
    const qp_adapter_t *adapter = d->adapter;
    qp_tensor_t *tensor = QP_NEW("driver", qp_tensor_t, 2 * adapter->n_view + 1);
    int64_t n = 0;
    tensor[n++] = (qp_tensor_t){.name = "logprob",
                                .dtype = QP_F32,
                                .n_dim = 2,
                                .dim = {d->n_seq, d->length},
                                .data = d->logprob};
    for (int64_t v = 0; v < adapter->n_view; v++) {
        const qp_lora_view_t *w = &adapter->view[v];
        const char *name = qp_linear_short_name(w->linear);
        tensor[n++] = (qp_tensor_t){.name = qp_format("%d.%s.A", w->layer, name),
                                    .dtype = QP_F32,
                                    .n_dim = 2,
                                    .dim = {adapter->r, w->n_in},
                                    .data = d->grad + w->a};
        tensor[n++] = (qp_tensor_t){.name = qp_format("%d.%s.B", w->layer, name),
                                    .dtype = QP_F32,
                                    .n_dim = 2,
                                    .dim = {w->n_out, adapter->r},
                                    .data = d->grad + w->b};
    }
    for (int64_t i = 0; i < n; i++)
        tensor[i].n_bytes = qp_bytes(tensor[i].dim[0] * tensor[i].dim[1], sizeof(float));
    qp_error_t error = qp_safetensors_write(path, tensor, n);
    for (int64_t i = 1; i < n; i++)
        qp_free((void *)(uintptr_t)tensor[i].name);
    qp_free(tensor);
    return error;
}

static qp_error_t run(driver_t *d, const arguments_t *a)
{
    double loss = 0.0;
    QP_TRY(set_up(d, a));
    FILE *logits = a->logits ? fopen(a->logits, "wb") : NULL;
    if (a->logits != NULL && logits == NULL)
        return QP_ERROR(QP_IO, "cannot create %s", a->logits);
    double start = qp_time();
    qp_error_t error = NULL;
    for (int64_t row = 0; row < d->n_seq && error == NULL; row++)
        error = run_row(d, row, logits, &loss);
    if (logits != NULL && fclose(logits) != 0 && error == NULL)
        error = QP_ERROR(QP_IO, "cannot write %s", a->logits);
    QP_TRY(error);
    printf("%s: loss %.6f, %.0f tokens/s\n", qp_device_describe(d->device),
           loss / (double)(d->n_seq * (d->length - 1)),
           (double)(d->n_seq * d->length) / (qp_time() - start));
    QP_TRY(d->device->ops->download(qp_device_queue(d->device), d->grad, d->adapter->grad,
                                    qp_bytes(d->adapter->n_param, sizeof(float))));
    return write_out(d, a->out);
}

int main(int argc, char **argv)
{
    if (argc < 8 || argc > 9) {
        fprintf(stderr, "usage: %s BASE COMPUTE ACTIVATION GRADIENT ADAPTER TOKENS OUT [LOGITS]\n",
                argv[0]);
        return QP_INPUT;
    }
    arguments_t a = {argv[1], argv[2], argv[3], argv[4],
                     argv[5], argv[6], argv[7], argc == 9 ? argv[8] : NULL};
    driver_t d = {0};
    qp_error_t error = run(&d, &a);
    int code = qp_error_report(&error);
    qp_workspace_destroy(&d.ws);
    qp_adapter_destroy(&d.adapter);
    qp_base_destroy(d.comm, &d.base);
    qp_device_close(&d.device);
    qp_safetensors_close(&d.file);
    qp_free(d.logprob);
    qp_free(d.grad);
    qp_comm_destroy(&d.comm);
    return code;
}
