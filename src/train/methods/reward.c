/*
 * A reward model: base, adapter, and a score head that reads the last token of a text. Of a pair
 * with rewards r_c (chosen), r_r (rejected) and margin m,
 *
 *     loss = -log sigmoid(r_c - r_r - m) + c (r_c + r_r)^2.
 */
#include "train/methods/reward.h"

#include <math.h>

#include "train/methods/pairs.h"

/* Loss of one pair; d gets its derivatives by the two rewards. */
static double pair_loss(const qp_reward_config_t *config, const double *r, double margin, double *d)
{
    const double x = r[QP_CHOSEN] - r[QP_REJECTED] - (config->margin ? margin : 0.0);
    const double sum = r[QP_CHOSEN] + r[QP_REJECTED], c = config->center_rewards_coefficient;
    const double slope = exp(qp_log_sigmoid(-x));
    d[QP_CHOSEN] = -slope + 2.0 * c * sum;
    d[QP_REJECTED] = slope + 2.0 * c * sum;
    return -qp_log_sigmoid(x) + c * sum * sum;
}

static qp_error_t training_step(qp_pairs_t *pairs, const qp_batch_t *batch, const qp_pass_t *pass,
                                double weight, double *sum, double *reward)
{
    qp_run_t *run = pairs->run;
    const qp_reward_config_t *config = &run->settings->reward;
    const qp_role_t role = qp_run_role(run);
    const qp_model_outputs_t outputs = {.value = pairs->value[0]};
    qp_model_batch_t view = qp_run_batch(batch);
    view.target = pairs->no_target;
    view.valued = pairs->last;
    QP_TRY(qp_model_outputs(run->model.ws, &role, &view, pass, pass->training, &outputs));
    for (int64_t i = 0; i < batch->n_seq; i += QP_N_SIDE) {
        double r[QP_N_SIDE], d[QP_N_SIDE];
        for (int side = 0; side < QP_N_SIDE; side++)
            r[side] = (double)outputs.value[batch->cu_seqlens[i + side + 1] - 1];
        sum[QP_PAIR_LOSS] += pair_loss(config, r, (double)batch->margin[i], d);
        sum[QP_PAIR_ACCURACY] += r[QP_CHOSEN] > r[QP_REJECTED];
        sum[QP_PAIR_MARGIN] += r[QP_CHOSEN] - r[QP_REJECTED];
        sum[QP_PAIR_CHOSEN] += r[QP_CHOSEN];
        sum[QP_PAIR_REJECTED] += r[QP_REJECTED];
        for (int side = 0; side < QP_N_SIDE; side++) {
            pairs->gradient[batch->cu_seqlens[i + side + 1] - 1] = (float)(weight * d[side]);
            if (reward != NULL)
                reward[i + side] = r[side];
        }
    }
    if (!pass->training)
        return NULL;
    return qp_model_outputs_backward(run->model.ws, &role, &view, pass, NULL, pairs->gradient);
}

static const char *const metric_name[] = {"loss", "accuracy", "margin", "rewards/chosen",
                                          "rewards/rejected"};
static const char *const eval_metric_name[] = {"eval_loss", "eval_accuracy", "eval_margin",
                                               "eval_rewards/chosen", "eval_rewards/rejected"};

const qp_pair_objective_t qp_reward_objective = {.name = "reward",
                                                 .metric = metric_name,
                                                 .eval_metric = eval_metric_name,
                                                 .n_metric = 5,
                                                 .training_step = training_step};

qp_error_t qp_method_reward(qp_run_t *run)
{
    return qp_pairs_train(run, &qp_reward_objective);
}
