#include "train/scaling/job.h"

#include <string.h>

#include "base/minmax.h"
#include "compute/collectives.h"
#include "train/ppo/ppo_math.h"

/* Rows of the data that are looked at, at most; numbers that a micro-batch says of itself, about.
 */
enum { ROWS = 512, VALUES = 12 };

/* --- data ------------------------------------------------------------------------------------- */

typedef struct {
    double n_token, n_pair, n_target, n_seq, n_answer;
} visit_t;

static qp_error_t visit(void *owner, const qp_batch_t *batch)
{
    visit_t *v = owner;
    for (int64_t s = 0; s < batch->n_seq; s++) {
        const double n = (double)(batch->cu_seqlens[s + 1] - batch->cu_seqlens[s]) + v->n_answer;
        v->n_token += n;
        v->n_pair += n * (n + 1.0) / 2.0;
    }
    v->n_seq += (double)batch->n_seq;
    v->n_target += (double)batch->n_target;
    return NULL;
}

/* Tokens of an answer: the mean of what lengths are drawn from, else the most: nobody knows before
 * when it will end by itself. */
static double answer_tokens(const qp_settings_t *s)
{
    const double most = (double)qp_settings_max_response(s);
    const bool drawn = s->ppo.output_max_length > 0;
    return drawn ? ((double)s->ppo.output_min_length + most) / 2.0 : most;
}

qp_error_t qp_scaling_look_at_data(const qp_run_t *run, qp_scaling_data_t *data)
{
    const qp_settings_t *s = run->settings;
    const bool ppo = s->job.method == QP_METHOD_PPO;
    visit_t v = {.n_answer = ppo ? answer_tokens(s) : 0.0};
    qp_plan_t *plan = NULL;
    QP_TRY(qp_plan_create(run->given.train, &s->data, &run->given.eos, (uint32_t)s->job.seed, 0,
                          &plan));
    const int64_t n = qp_min_i64(ROWS, qp_plan_n_row(plan));
    qp_error_t error = qp_plan_visit(run->comm, run->given.train, plan, 1, n, visit, &v);
    qp_plan_destroy(&plan);
    *data = (qp_scaling_data_t){.n_row = n,
                                .n_token = v.n_token / (double)n,
                                .n_pair = v.n_pair / (double)n,
                                .n_picked = ppo ? v.n_answer : v.n_target / (double)n,
                                .n_prompt = v.n_token / v.n_seq - v.n_answer,
                                .n_answer = v.n_answer};
    if (s->job.method == QP_METHOD_REWARD)
        data->n_picked = 0.0;
    return error;
}

/* --- roles ------------------------------------------------------------------------------------ */

static double element_bytes(qp_weight_kind_t kind)
{
    return (double)qp_dtype_bytes(qp_weight_dtype(kind));
}

/* Of base and deck: which operands are int8. */
static void choose_products(const qp_base_config_t *base, qp_weight_kind_t kind,
                            qp_work_model_t *model)
{
    const bool int8 = kind == QP_WEIGHT_INT8 || kind == QP_WEIGHT_LLM_INT8;
    const bool forward = int8 && base->activation == QP_PRODUCT_INT8;
    const bool backward = kind == QP_WEIGHT_INT8 && base->gradient == QP_PRODUCT_INT8;
    model->forward = forward ? QP_WORK_INT8 : QP_WORK_FLOAT;
    model->backward = forward && backward ? QP_WORK_INT8 : QP_WORK_FLOAT;
}

static qp_work_model_t model_of(const qp_run_t *run, const qp_base_info_t *info,
                                const qp_lora_config_t *lora)
{
    const qp_dtype_t dtype = qp_device_dtype(run->device);
    const bool int8_cache = run->size.generate.kv_cache_dtype == QP_KV_CACHE_INT8;
    qp_work_model_t model = {
        .config = &info->config,
        .lora = lora,
        .head = info->kinds.lm_head == QP_WEIGHT_INT8 ? QP_WORK_INT8 : QP_WORK_HEAD,
        .weight_bytes = element_bytes(info->kinds.linear),
        .head_bytes = element_bytes(info->kinds.lm_head),
        .real_bytes = (double)qp_dtype_bytes(dtype),
        .kv_bytes = int8_cache ? 1.0 : (double)qp_dtype_bytes(dtype),
        .attention_backward = run->device->config.backend == QP_BACKEND_CUDA ? 7.0 : 5.0,
        .recompute = run->size.recompute == QP_RECOMPUTE_LAYER};
    choose_products(&run->settings->base, info->kinds.linear, &model);
    return model;
}

/* --- micro-batches ---------------------------------------------------------------------------- */

/* A pass that learns nothing: forward, and the head where it reads something. */
static qp_work_t look(const qp_work_model_t *model, const qp_work_batch_t *batch)
{
    qp_work_t work = qp_work_forward(model, batch);
    qp_work_add(&work, qp_work_head(model, batch->n_picked, false));
    return work;
}

/* A micro-batch that learns, with what its method does beside it. */
static void count_leaf(const qp_run_t *run, const qp_work_model_t *policy,
                       const qp_work_batch_t *batch, qp_job_t *job)
{
    qp_work_model_t reference = *policy;
    reference.lora = NULL;
    job->leaf = qp_work_forward(policy, batch);
    qp_work_add(&job->leaf, qp_work_head(policy, batch->n_picked, true));
    job->leaf_backward = qp_work_backward(policy, batch);
    qp_work_add(&job->leaf, job->leaf_backward);
    qp_work_add(&job->leaf, qp_work_leaf((double)run->size.n_param));
    if (run->settings->job.method == QP_METHOD_DPO)
        qp_work_add(&job->leaf, look(&reference, batch));
}

/* PPO before its first update: policy, reference, rewards of a model. */
static qp_work_t experience_of(const qp_run_t *run, const qp_work_model_t *policy,
                               const qp_work_batch_t *batch)
{
    const qp_scorer_t *scorer = run->given.scorer;
    const qp_lora_config_t *lora, *shared = qp_scorer_shared_lora(scorer);
    const qp_base_info_t *own = qp_scorer_base(scorer, &lora);
    const qp_work_model_t judge =
        own != NULL ? model_of(run, own, lora) : model_of(run, &run->given.info, shared);
    qp_work_model_t reference = *policy;
    reference.lora = NULL;
    qp_work_t work = look(policy, batch);
    qp_work_add(&work, look(&reference, batch));
    if (run->settings->ppo.kl_penalty == QP_KL_FULL) /* logits of both once more */
        qp_work_add(&work, qp_work_scaled(qp_work_head(policy, batch->n_picked, false), 2.0));
    if (own != NULL || shared != NULL)
        qp_work_add(&work, qp_work_forward(&judge, batch));
    return work;
}

static void count_ppo(const qp_run_t *run, const qp_scaling_data_t *data,
                      const qp_work_model_t *policy, const qp_work_batch_t *batch, qp_job_t *job)
{
    const qp_settings_t *s = run->settings;
    const int64_t n_row = s->batch.global_sequences, update = qp_settings_update_sequences(s);
    job->n_update = s->ppo.ppo_epochs * (n_row / update);
    job->n_leaf = update / s->ppo.dropped_accumulation / s->batch.micro_sequences;
    job->n_experience = n_row / s->batch.micro_sequences;
    job->experience = experience_of(run, policy, batch);
    job->generation = (qp_generation_t){.model = *policy,
                                        .n_query = n_row,
                                        .max_active = run->size.generate.max_active,
                                        .n_prompt = data->n_prompt,
                                        .n_new = data->n_answer};
    /* tokens and log-probabilities of answers; four sums of a number a token, in two exchanges */
    job->n_gathered = (double)n_row * (data->n_prompt + data->n_answer * (2.0 + 4.0 * 2.0));
}

qp_job_t qp_scaling_job(const qp_run_t *run, const qp_scaling_data_t *data)
{
    const qp_settings_t *s = run->settings;
    const double micro = (double)s->batch.micro_sequences;
    const qp_base_info_t *info = &run->given.info;
    const qp_base_shape_t shape = qp_base_info_shape(info, run->device);
    const qp_work_model_t policy = model_of(run, info, &s->lora);
    const qp_work_batch_t batch = {micro * data->n_token, micro * data->n_pair,
                                   micro * data->n_picked};
    const int64_t n_lora = qp_lora_n_param(&info->config, &s->lora);
    const qp_lora_config_t *unused;
    qp_job_t job = {.n_leaf = qp_settings_n_micro(s),
                    .n_update = 1,
                    .n_value = VALUES,
                    .update = qp_work_update((double)run->size.n_param),
                    .sums = {.n_segment = info->config.n_layer,
                             .n_layer = (double)n_lora / (double)info->config.n_layer,
                             .n_head = (double)(run->size.n_param - n_lora),
                             .chunk = (double)qp_collectives_chunk(run->device)},
                    .n_token = (double)s->batch.global_sequences * data->n_token,
                    .load_bytes = (double)qp_base_bytes(&shape, run->size.n_position),
                    .checkpoint_bytes =
                        12.0 * (double)run->size.n_param, /* parameters and two moments */
                    .n_step = s->optim.steps,
                    .checkpoint_every = s->checkpoint.every_steps,
                    .fp32 = qp_device_dtype(run->device) == QP_F32};
    count_leaf(run, &policy, &batch, &job);
    if (s->job.method != QP_METHOD_PPO)
        return job;
    count_ppo(run, data, &policy, &batch, &job);
    const qp_base_info_t *own = qp_scorer_base(run->given.scorer, &unused);
    if (own != NULL) {
        const qp_base_shape_t other = qp_base_info_shape(own, run->device);
        job.load_bytes += (double)qp_base_bytes(&other, run->size.n_position);
    }
    return job;
}
