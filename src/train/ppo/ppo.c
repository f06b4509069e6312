/*
 * Proximal policy optimisation: a step generates answers to queries, makes a forward pass of policy
 * and reference over them, computes rewards and advantages, and then makes several updates. Every
 * rank holds the whole experience of a step, so that rewards and advantages have the same bits
 * everywhere; only the passes of the model are shared out.
 */
#include "train/ppo/ppo.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "train/methods/compare.h"
#include "train/ppo/ppo_impl.h"

/* KL of answers below this cannot be chance: sampling and log-probabilities do not fit together. */
static const double NEGATIVE_KL = -1.0;

void qp_ppo_init(qp_ppo_t *ppo, qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    *ppo = (qp_ppo_t){.run = run, .config = &s->ppo, .kl_coef = s->ppo.init_kl_coef, .update = -1};
    ppo->n_mini = s->batch.global_sequences / qp_settings_update_sequences(s);
    ppo->n_part = qp_settings_update_sequences(s) / s->ppo.dropped_accumulation;
    qp_running_moments_init(&ppo->moments);
    qp_sequences_init(&ppo->room, qp_run_max_token(run));
}

void qp_ppo_fini(qp_ppo_t *ppo)
{
    qp_experience_fini(&ppo->experience);
    qp_sequences_fini(&ppo->room);
}

/* --- experience ------------------------------------------------------------------------------- */

/* Answers this rank's queries of the next global batch; all ranks get all answers. Collective. */
static qp_error_t generate(qp_ppo_t *ppo)
{
    qp_run_t *run = ppo->run;
    const qp_ppo_config_t *config = ppo->config;
    const qp_answerer_t policy = qp_run_answerer(run, qp_run_role(run));
    const int64_t longest = qp_settings_max_response(run->settings);
    qp_step_batch_t rows;
    QP_TRY(qp_loader_next(ppo->loader, &rows));
    ppo->step = rows.step;
    ppo->epoch = rows.epoch;
    const int32_t **id = QP_NEW("rollout", const int32_t *, rows.n_micro);
    int64_t *n_id = QP_NEW("rollout", int64_t, rows.n_micro);
    for (int64_t i = 0; i < rows.n_micro; i++) {
        id[i] = rows.micro[i].token;
        n_id[i] = rows.micro[i].n_token;
    }
    const qp_queries_t queries = {.n = rows.n_micro,
                                  .n_global = run->settings->batch.global_sequences,
                                  .first = rows.first_micro,
                                  .id = id,
                                  .n_id = n_id};
    const qp_rollout_config_t how = {
        .step = (uint32_t)ppo->step,
        .min_length = config->output_max_length > 0 ? config->output_min_length : longest,
        .max_length = longest,
        .stop_at_eos = config->stop_at_eos};
    qp_experience_fini(&ppo->experience);
    qp_error_t error = qp_rollout_run(&policy, &queries, &how, &ppo->experience.rollout);
    qp_free(id);
    qp_free(n_id);
    return qp_error_context(error, "step %lld", (long long)ppo->step + 1);
}

/* As floats, which rewards become. The same on all ranks. */
static bool scores_are_finite(const qp_ppo_t *ppo)
{
    const qp_experience_t *e = &ppo->experience;
    int64_t n_bad = 0;
    for (int64_t s = 0; s < e->rollout.n_seq; s++)
        n_bad += !(fabs(e->score[s]) <= (double)FLT_MAX);
    if (n_bad > 0)
        qp_log_warn("step %lld: %lld of %lld rewards are not finite: no update is made",
                    (long long)ppo->step + 1, (long long)n_bad, (long long)e->rollout.n_seq);
    return n_bad == 0;
}

qp_error_t qp_ppo_make_experience(qp_ppo_t *ppo)
{
    const qp_ppo_config_t *config = ppo->config;
    const double steps = (double)ppo->run->settings->optim.steps;
    if (config->kl_control == QP_KL_LINEAR)
        ppo->kl_coef = config->init_kl_coef +
                       (config->final_kl_coef - config->init_kl_coef) * (double)ppo->step / steps;
    memset(ppo->sum, 0, sizeof ppo->sum);
    ppo->n_sum_token = 0.0;
    ppo->n_done = ppo->n_left_out = 0;
    ppo->update = -1;
    ppo->stopped_early = false;
    ppo->skipped = !scores_are_finite(ppo);
    QP_TRY(qp_ppo_forward_pass(ppo));
    ppo->time[QP_PPO_FORWARD_DONE] = qp_time();
    qp_ppo_compute_rewards(ppo);
    ppo->time[QP_PPO_REWARDS_DONE] = qp_time();
    return NULL;
}

static qp_error_t next(void *owner, qp_work_t *work)
{
    qp_ppo_t *ppo = owner;
    qp_run_t *run = ppo->run;
    qp_experience_t *e = &ppo->experience;
    ppo->time[QP_PPO_START] = qp_time();
    qp_error_t error;
    QP_PHASE("rollouts", error = generate(ppo));
    QP_TRY(error);
    ppo->time[QP_PPO_GENERATE_DONE] = qp_time();
    qp_ppo_init_experience(ppo);
    QP_PHASE("rewards", error = qp_scorer_score(run->given.scorer, &e->rollout, e->score));
    QP_TRY(error);
    ppo->time[QP_PPO_SCORE_DONE] = qp_time();
    QP_TRY(qp_ppo_make_experience(ppo));
    *work = (qp_work_t){.n_update = ppo->skipped ? 0 : ppo->config->ppo_epochs * ppo->n_mini,
                        .n_micro = ppo->n_part / run->settings->batch.micro_sequences,
                        .n_token = e->rollout.first[e->rollout.n_seq],
                        .epoch = ppo->epoch};
    return NULL;
}

/* --- updates ---------------------------------------------------------------------------------- */

/* Losses of the sequences in ppo->room, which stand from \a place on in the order, and gradients.
 */
static void take_losses(qp_ppo_t *ppo, int64_t place, int64_t n_all, double *sum)
{
    const qp_ppo_config_t *config = ppo->config;
    const qp_experience_t *e = &ppo->experience;
    const qp_rollout_t *r = &e->rollout;
    const qp_ppo_clip_t clip = {config->cliprange, config->cliprange_value, config->vf_coef};
    qp_sequences_t *room = &ppo->room;
    for (int64_t i = 0; i < room->n_seq; i++) {
        const int64_t seq = e->order[place + i], at = r->cu[seq];
        const int64_t row = room->cu_seqlens[i] + r->n_query[seq] - 1;
        const qp_ppo_old_t old = {e->logprob + at, e->value + at, e->whitened + at,
                                  e->returns + at};
        const qp_ppo_now_t now = {.n = qp_rollout_n_response(r, seq),
                                  .logprob = room->logprob + row,
                                  .value = room->value + row,
                                  .entropy = room->entropy + row,
                                  .dlogprob = room->dlogprob + row,
                                  .dvalue = room->dvalue + row};
        qp_ppo_loss(&clip, &old, &now, n_all, sum);
    }
    /* Of several parts of a mini-batch the one that learns was scaled down with the others. */
    const float share = 1.0f / (float)config->dropped_accumulation;
    for (int64_t t = 0; t < room->n_token && share < 1.0f; t++) {
        room->dlogprob[t] *= share;
        room->dvalue[t] *= share;
    }
}

static qp_error_t training_step(void *owner, int64_t u, int64_t i, const qp_pass_t *pass,
                                double *value)
{
    qp_ppo_t *ppo = owner;
    qp_run_t *run = ppo->run;
    const int64_t micro = run->settings->batch.micro_sequences;
    const qp_role_t policy = qp_run_role(run);
    qp_sequences_t *room = &ppo->room;
    qp_pass_t own = *pass;
    int64_t first, end;
    own.training = ppo->config->dropout;
    qp_tree_range(ppo->n_part / micro, qp_comm_size(run->comm), qp_comm_rank(run->comm), &first,
                  &end);
    qp_ppo_whiten_update(ppo, u);
    const int64_t place = qp_ppo_place(ppo, u) + (first + i) * micro;
    const qp_model_batch_t batch = qp_ppo_batch(ppo, place);
    const qp_model_outputs_t outputs = {room->logprob, room->entropy, room->value};
    QP_TRY(qp_model_outputs(run->model.ws, &policy, &batch, &own, true, &outputs));
    take_losses(ppo, place, qp_ppo_update_tokens(ppo, u), value);
    return qp_model_outputs_backward(run->model.ws, &policy, &batch, &own, room->dlogprob,
                                     room->dvalue);
}

static qp_update_end_t end_update(void *owner, int64_t u, const double *total)
{
    qp_ppo_t *ppo = owner;
    const qp_ppo_config_t *config = ppo->config;
    const double n = (double)qp_ppo_update_tokens(ppo, u);
    for (int k = 0; k < QP_N_PPO_SUM; k++)
        ppo->sum[k] += total[k];
    ppo->n_sum_token += n;
    ppo->n_done++;
    if (config->ratio_threshold > 0.0 && total[QP_PPO_RATIO] / n > config->ratio_threshold) {
        ppo->n_left_out++;
        qp_log_warn("step %lld, update %lld: the mean ratio %.3g exceeds ppo.ratio_threshold: the "
                    "policy has moved far from where it answered (optim.lr too large?); this "
                    "update is left out",
                    (long long)ppo->step + 1, (long long)u + 1, total[QP_PPO_RATIO] / n);
        return QP_UPDATE_LEAVE_OUT;
    }
    ppo->stopped_early =
        config->early_stopping && total[QP_PPO_POLICYKL] / n > 1.5 * config->target_kl;
    return ppo->stopped_early ? QP_UPDATE_LAST : QP_UPDATE_APPLY;
}

/* --- the end of a step ------------------------------------------------------------------------ */

static double mean_kl(const qp_experience_t *e)
{
    double sum = 0.0;
    for (int64_t s = 0; s < e->rollout.n_seq; s++)
        sum += e->sequence_kl[s];
    return sum / (double)e->rollout.n_seq;
}

static void finish(void *owner, const double *total, double *metric)
{
    qp_ppo_t *ppo = owner;
    const qp_ppo_config_t *config = ppo->config;
    const int64_t n_seq = ppo->experience.rollout.n_seq;
    (void)total;
    ppo->learning_rate = qp_optim_lr(&ppo->run->settings->optim, ppo->step);
    qp_ppo_report(ppo, metric);
    if (ppo->skipped)
        return;
    const double kl = mean_kl(&ppo->experience);
    if (kl < NEGATIVE_KL)
        qp_log_warn("step %lld: the KL is %.3g: answers are not drawn from the distribution that "
                    "is scored; use plain sampling (generate.do_sample, temperature 1, top_k 0, "
                    "top_p 1, min_new_tokens 0)%s",
                    (long long)ppo->step + 1, kl,
                    config->dropout ? "; ppo.dropout makes it noisy, too" : "");
    if (config->kl_control == QP_KL_ADAPTIVE && isfinite(kl))
        ppo->kl_coef = qp_ppo_adapt_kl(ppo->kl_coef, kl, config->target, config->horizon, n_seq);
}

static qp_error_t evaluate(void *owner, double *metric)
{
    const qp_ppo_t *ppo = owner;
    const qp_role_t policy = qp_run_role(ppo->run);
    const qp_answering_t how = {.name = "policy", .n_draw = 1};
    qp_answer_statistics_t s;
    double *reward;
    QP_TRY(qp_reward_answers(ppo->run, &policy, &how, &reward, &s));
    qp_free(reward);
    metric[0] = s.reward;
    metric[1] = s.length;
    metric[2] = s.repetition;
    return NULL;
}

static const char *const eval_metric[] = {"eval_reward_mean", "eval_responses_len_mean",
                                          "eval_repetition"};

static void register_state(void *owner, qp_state_t *state)
{
    qp_ppo_t *ppo = owner;
    qp_state_register_f64(state, "ppo/kl_coef", &ppo->kl_coef);
    qp_state_register_f64(state, "ppo/score_mean", &ppo->moments.mean);
    qp_state_register_f64(state, "ppo/score_std", &ppo->moments.std);
    qp_state_register_f64(state, "ppo/score_var", &ppo->moments.var);
    qp_state_register_f64(state, "ppo/score_count", &ppo->moments.count);
}

/* Sampling that is not plain makes the estimate of the KL wrong: trl#235. */
static void warn_of_sampling(const qp_run_t *run)
{
    const qp_generate_config_t *g = &run->settings->generate;
    if (!g->do_sample || g->temperature != 1.0 || g->top_k != 0 || g->top_p < 1.0 ||
        g->min_new_tokens > 0)
        qp_log_warn("PPO expects plain sampling (generate.do_sample = true, temperature 1, top_k "
                    "0, top_p 1, min_new_tokens 0): with another, KL and ratios are biased");
}

const qp_method_t qp_ppo_method = {
    .name = "ppo",
    .metric = qp_ppo_metric,
    .n_metric = QP_N_PPO_METRIC,
    .n_shown = 3,
    .eval_metric = eval_metric,
    .n_eval_metric = 3,
    .n_value = QP_N_PPO_SUM,
    .register_state = register_state,
    .next = next,
    .training_step = training_step,
    .end_update = end_update,
    .finish = finish,
    .evaluate = evaluate,
    .samples = qp_ppo_samples,
};

qp_error_t qp_method_ppo(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    const qp_batch_config_t rows = {s->batch.global_sequences, 1};
    qp_ppo_t ppo;
    qp_loop_t *loop = NULL;
    qp_error_t error = NULL;
    qp_ppo_init(&ppo, run);
    warn_of_sampling(run);
    QP_TRY_DONE(qp_loop_create(run, &qp_ppo_method, &ppo, &loop));
    QP_TRY_DONE(qp_loader_create(run->comm, run->given.train, &s->data, &rows, &run->given.eos,
                                 (uint32_t)s->job.seed, qp_loop_step(loop), &ppo.loader));
    QP_TRY_DONE(qp_loop_run(loop));
done:
    qp_loader_destroy(&ppo.loader);
    qp_loop_destroy(&loop);
    qp_ppo_fini(&ppo);
    return error;
}
