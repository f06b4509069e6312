#include "train/methods/sft.h"

#include <math.h>

#include "train/methods/evaluate.h"
#include "train/loop/loop.h"

enum { VALUE_LOSS, N_VALUE };
static const char *const metric_name[] = {"loss"};
static const char *const eval_metric_name[] = {"eval_loss", "eval_perplexity"};

typedef struct {
    qp_run_t *run;
    qp_loader_t *loader;
    qp_step_batch_t batch;
} sft_t;

static qp_error_t next(void *owner, qp_work_t *work)
{
    sft_t *sft = owner;
    QP_TRY(qp_loader_next(sft->loader, &sft->batch));
    *work = qp_loop_work(sft->run, &sft->batch, true);
    return NULL;
}

/* Mean over the targets of the global batch, so that the cut into micro-batches does not matter. */
static qp_error_t training_step(void *owner, int64_t u, int64_t i, const qp_pass_t *pass,
                                double *value)
{
    (void)u;
    sft_t *sft = owner;
    const qp_role_t role = qp_run_role(sft->run);
    const qp_model_batch_t batch = qp_run_batch(&sft->batch.micro[i]);
    float weight = (float)(1.0 / (double)sft->batch.n_target_global);
    return qp_model_step(sft->run->model.ws, &role, &batch, pass, weight, &value[VALUE_LOSS], NULL);
}

static void finish(void *owner, const double *total, double *metric)
{
    const sft_t *sft = owner;
    metric[0] =
        total != NULL ? total[VALUE_LOSS] / (double)sft->batch.n_target_global : (double)NAN;
}

static qp_error_t evaluate(void *owner, double *metric)
{
    const sft_t *sft = owner;
    qp_evaluation_t e;
    QP_TRY(qp_evaluate(sft->run, &e));
    metric[0] = e.loss;
    metric[1] = e.perplexity;
    return NULL;
}

static const qp_method_t method = {
    .name = "sft",
    .metric = metric_name,
    .n_metric = 1,
    .n_shown = 1,
    .eval_metric = eval_metric_name,
    .n_eval_metric = 2,
    .n_value = N_VALUE,
    .next = next,
    .training_step = training_step,
    .finish = finish,
    .evaluate = evaluate,
};

qp_error_t qp_method_sft(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    sft_t sft = {.run = run};
    qp_loop_t *loop = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_loop_create(run, &method, &sft, &loop));
    QP_TRY_DONE(qp_loader_create(run->comm, run->given.train, &s->data, &s->batch, &run->given.eos,
                                 (uint32_t)s->job.seed, qp_loop_step(loop), &sft.loader));
    QP_TRY_DONE(qp_loop_run(loop));
done:
    qp_loader_destroy(&sft.loader);
    qp_loop_destroy(&loop);
    return error;
}
