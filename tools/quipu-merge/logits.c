/* How far the logits of a merged base are from those of the base with its adapter. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/pass/pass.h"
#include "outputs.h"

static const char *const prompts[] = {
    "Question: How do I read a file line by line in C?\n\nAnswer: ",
    "The quick brown fox jumps over the lazy dog, and then it",
    "Dear all,\n\nthank you for your patience. In 2024 we",
};
enum { N_PROMPT = sizeof prompts / sizeof prompts[0] };

/* The prompts as one ragged batch. */
typedef struct {
    qp_tokens_t token;
    int32_t *target, *position, cu_seqlens[N_PROMPT + 1];
    uint32_t *sample;
} batch_t;

static qp_error_t make_batch(const qp_tokenizer_files_t *files, batch_t *batch)
{
    qp_tokenizer_t *tokenizer = NULL;
    QP_TRY(qp_tokenizer_create(files, &tokenizer));
    qp_error_t error = NULL;
    for (int i = 0; error == NULL && i < N_PROMPT; i++) {
        error = qp_tokenizer_encode(tokenizer, prompts[i], strlen(prompts[i]), QP_TEXT_ADD_SPECIAL,
                                    &batch->token);
        batch->cu_seqlens[i + 1] = (int32_t)batch->token.n;
    }
    qp_tokenizer_destroy(&tokenizer);
    batch->target = QP_NEW("logits", int32_t, batch->token.n);
    batch->position = QP_NEW("logits", int32_t, batch->token.n);
    batch->sample = QP_NEW("logits", uint32_t, batch->token.n);
    for (int i = 0; i < N_PROMPT; i++)
        for (int32_t t = batch->cu_seqlens[i]; t < batch->cu_seqlens[i + 1]; t++) {
            batch->target[t] = -1;
            batch->position[t] = t - batch->cu_seqlens[i];
            batch->sample[t] = (uint32_t)i;
        }
    return error;
}

static void free_batch(batch_t *batch)
{
    qp_tokens_fini(&batch->token);
    qp_free(batch->target);
    qp_free(batch->position);
    qp_free(batch->sample);
}

/* Forward pass of a role; logits [n_token, n_vocab] are downloaded. */
static qp_error_t forward(const qp_role_t *role, const qp_lora_config_t *lora, const batch_t *batch,
                          float *logits)
{
    qp_device_t *device = role->base->device;
    int64_t n_token = batch->token.n, n_vocab = role->base->config.n_vocab;
    size_t bytes = qp_bytes(n_token * n_vocab, sizeof *logits);
    const qp_model_batch_t view = {.n_token = n_token,
                                   .n_seq = N_PROMPT,
                                   .token = batch->token.id,
                                   .target = batch->target,
                                   .position = batch->position,
                                   .cu_seqlens = batch->cu_seqlens,
                                   .sample = batch->sample};
    qp_pass_t pass = {0};
    qp_workspace_t *ws = NULL;
    qp_dptr_t out = {0};
    qp_error_t error;
    QP_TRY_DONE(qp_workspace_create(role->base, lora, n_token, QP_RECOMPUTE_LAYER, &ws));
    QP_TRY_DONE(qp_model_forward(ws, role, &view, &pass));
    QP_TRY_DONE(device->ops->alloc(device, "logits", bytes, &out));
    QP_TRY_DONE(device->ops->lm_logits(qp_device_queue(device),
                                       qp_mat(out, QP_F32, n_token, n_vocab), qp_model_hidden(ws),
                                       &role->base->lm_head));
    QP_TRY_DONE(device->ops->download(qp_device_queue(device), logits, out, bytes));
done:
    device->ops->release(device, &out);
    qp_workspace_destroy(&ws);
    return error;
}

/* Loads a base, with the adapter if lora is given, and runs it: exact products, so that what
 * differs between two bases is the rounding of their weights. */
static qp_error_t run_base(qp_comm_t *comm, qp_device_t *device, const char *path,
                           const qp_lora_config_t *lora, const batch_t *batch, float *logits)
{
    const qp_base_config_t config = {.file = path,
                                     .activation = QP_PRODUCT_BF16,
                                     .gradient = QP_PRODUCT_BF16,
                                     .outlier_threshold = 6.0};
    qp_base_t *base = NULL;
    qp_adapter_t *adapter = NULL;
    qp_error_t error;
    QP_TRY_DONE(qp_base_load(comm, device, &config, batch->token.n, &base));
    if (lora != NULL)
        QP_TRY_DONE(qp_adapter_create(comm, base, lora, NULL, 0, &adapter));
    error = forward(&(qp_role_t){base, adapter}, lora, batch, logits);
done:
    qp_adapter_destroy(&adapter);
    qp_base_destroy(comm, &base);
    return error;
}

static void compare(const float *expected, const float *found, int64_t n, qp_logit_change_t *change)
{
    double sum = 0.0, max = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)found[i] - (double)expected[i]);
        sum += d;
        max = d > max ? d : max;
    }
    *change = (qp_logit_change_t){.mean = sum / (double)n, .max = max};
}

static qp_error_t measure(qp_comm_t *comm, const char *base, const qp_lora_config_t *lora,
                          const char *merged, int64_t n_vocab, const batch_t *batch,
                          qp_logit_change_t *change)
{
    const qp_device_config_t config = {.backend = QP_BACKEND_CPU, .compute = QP_COMPUTE_FP32};
    int64_t n = batch->token.n * n_vocab;
    float *expected = QP_NEW("logits", float, n), *found = QP_NEW("logits", float, n);
    qp_device_t *device = NULL;
    qp_error_t error;
    QP_TRY_DONE(qp_device_open(&config, qp_comm_node_rank(comm), qp_comm_node_size(comm), &device));
    QP_TRY_DONE(run_base(comm, device, base, lora, batch, expected));
    QP_TRY_DONE(run_base(comm, device, merged, NULL, batch, found));
    compare(expected, found, n, change);
done:
    qp_device_close(&device);
    qp_free(expected);
    qp_free(found);
    return error;
}

qp_error_t qp_merge_logit_change(qp_source_t *base, const char *adapter, const qp_peft_t *peft,
                                 const char *merged, qp_logit_change_t *change)
{
    qp_lora_config_t lora = {
        .r = peft->r, .alpha = peft->alpha, .use_rslora = peft->use_rslora, .init = adapter};
    memcpy(lora.target, peft->target, sizeof lora.target);
    batch_t batch = {0};
    qp_comm_t *comm = NULL;
    qp_error_t error = make_batch(qp_source_tokenizer(base), &batch);
    if (error == NULL)
        error = qp_comm_create(&comm);
    if (error == NULL)
        error = measure(comm, qp_source_name(base), &lora, merged, qp_source_config(base)->n_vocab,
                        &batch, change);
    qp_comm_destroy(&comm);
    free_batch(&batch);
    return error;
}
