/*
 * Direct preference optimisation. With log-probabilities of the two answers under the policy (p)
 * and the reference (q, the policy's base without its adapter) and x = (p_c - p_r) - (q_c - q_r),
 *
 *     sigmoid: -(1 - s) log sigmoid(b x) - s log sigmoid(-b x)      (Rafailov et al. 2023)
 *     hinge:   max(0, 1 - b x)                                      (Zhao et al. 2023)
 *     ipo:     (x - 1 / (2 b))^2, log-probabilities per token       (Azar et al. 2023)
 *
 * and the reward of an answer is b (p - q).
 */
#include "train/methods/dpo.h"

#include <math.h>

#include "train/methods/pairs.h"

/* Loss of one pair and its derivative by x. */
static double pair_loss(const qp_dpo_config_t *config, double x, double *dx)
{
    const double b = config->beta, s = config->label_smoothing, away = x - 0.5 / b;
    switch ((qp_dpo_loss_t)config->loss_type) {
    case QP_DPO_SIGMOID:
        *dx = -(1.0 - s) * b * exp(qp_log_sigmoid(-b * x)) + s * b * exp(qp_log_sigmoid(b * x));
        return -(1.0 - s) * qp_log_sigmoid(b * x) - s * qp_log_sigmoid(-b * x);
    case QP_DPO_HINGE:
        *dx = b * x < 1.0 ? -b : 0.0;
        return fmax(0.0, 1.0 - b * x);
    case QP_DPO_IPO:
        *dx = 2.0 * away;
        return away * away;
    }
    return 0.0;
}

/* What one answer's tokens come to; scale: of its sum of log-probabilities. */
typedef struct {
    double policy, reference, scale;
} side_t;

static side_t sum_side(const qp_dpo_config_t *config, const qp_batch_t *batch,
                       float *const *logprob, int64_t seq)
{
    side_t side = {.scale = 1.0};
    int64_t n = 0;
    for (int32_t t = batch->cu_seqlens[seq]; t < batch->cu_seqlens[seq + 1]; t++) {
        side.policy += (double)logprob[0][t];
        side.reference += (double)logprob[1][t];
        n += batch->target[t] >= 0;
    }
    if (config->loss_type == QP_DPO_IPO && n > 0)
        side.scale = 1.0 / (double)n;
    side.policy *= side.scale;
    side.reference *= side.scale;
    return side;
}

/* Sums and gradient of the pair whose chosen side is sequence \a seq. */
static void add_pair(qp_pairs_t *pairs, const qp_batch_t *batch, int64_t seq, double weight,
                     double *sum, double *reward)
{
    const qp_dpo_config_t *config = &pairs->run->settings->dpo;
    side_t side[QP_N_SIDE];
    double r[QP_N_SIDE], dx = 0.0;
    for (int i = 0; i < QP_N_SIDE; i++) {
        side[i] = sum_side(config, batch, pairs->value, seq + i);
        r[i] = config->beta * (side[i].policy - side[i].reference);
        if (reward != NULL)
            reward[seq + i] = r[i];
    }
    sum[QP_PAIR_LOSS] += pair_loss(config, (r[QP_CHOSEN] - r[QP_REJECTED]) / config->beta, &dx);
    sum[QP_PAIR_ACCURACY] += r[QP_CHOSEN] > r[QP_REJECTED];
    sum[QP_PAIR_MARGIN] += r[QP_CHOSEN] - r[QP_REJECTED];
    sum[QP_PAIR_CHOSEN] += r[QP_CHOSEN];
    sum[QP_PAIR_REJECTED] += r[QP_REJECTED];
    sum[QP_PAIR_SUM_1] += side[QP_CHOSEN].policy;
    sum[QP_PAIR_SUM_2] += side[QP_REJECTED].policy;
    for (int i = 0; i < QP_N_SIDE; i++)
        for (int32_t t = batch->cu_seqlens[seq + i]; t < batch->cu_seqlens[seq + i + 1]; t++)
            pairs->gradient[t] =
                (float)((i == QP_CHOSEN ? 1.0 : -1.0) * weight * dx * side[i].scale);
}

static qp_error_t training_step(qp_pairs_t *pairs, const qp_batch_t *batch, const qp_pass_t *pass,
                                double weight, double *sum, double *reward)
{
    qp_run_t *run = pairs->run;
    const qp_role_t policy = qp_run_role(run), reference = {run->model.base, NULL};
    const qp_model_batch_t view = qp_run_batch(batch);
    const qp_pass_t quiet = {.training = false};
    const qp_model_outputs_t old = {.logprob = pairs->value[1]}, new = {.logprob = pairs->value[0]};
    QP_TRY(qp_model_outputs(run->model.ws, &reference, &view, &quiet, false, &old));
    QP_TRY(qp_model_outputs(run->model.ws, &policy, &view, pass, pass->training, &new));
    for (int64_t seq = 0; seq < batch->n_seq; seq += QP_N_SIDE)
        add_pair(pairs, batch, seq, weight, sum, reward);
    if (!pass->training)
        return NULL;
    return qp_model_outputs_backward(run->model.ws, &policy, &view, pass, pairs->gradient, NULL);
}

static const char *const metric_name[] = {"loss",           "rewards/accuracies", "rewards/margins",
                                          "rewards/chosen", "rewards/rejected",   "logps/chosen",
                                          "logps/rejected"};
static const char *const eval_metric_name[] = {
    "eval_loss",           "eval_rewards/accuracies", "eval_rewards/margins",
    "eval_rewards/chosen", "eval_rewards/rejected",   "eval_logps/chosen",
    "eval_logps/rejected"};

const qp_pair_objective_t qp_dpo_objective = {.name = "dpo",
                                              .metric = metric_name,
                                              .eval_metric = eval_metric_name,
                                              .n_metric = 7,
                                              .targets = true,
                                              .training_step = training_step};

qp_error_t qp_method_dpo(qp_run_t *run)
{
    return qp_pairs_train(run, &qp_dpo_objective);
}
