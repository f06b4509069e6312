/* What a step learns from: the passes before the first update, and the arithmetic on them. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "train/ppo/ppo_impl.h"

/* The order of sequences is none of the data's. */
static const uint32_t ORDER_SEED = 0x50504f00u;

void qp_experience_fini(qp_experience_t *e)
{
    void *all[] = {e->logprob, e->ref_logprob, e->value, e->kl,     e->reward,      e->advantage,
                   e->returns, e->whitened,    e->score, e->shaped, e->sequence_kl, e->order};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        qp_free(all[i]);
    qp_rollout_fini(&e->rollout);
    *e = (qp_experience_t){0};
}

void qp_ppo_init_experience(qp_ppo_t *ppo)
{
    qp_experience_t *e = &ppo->experience;
    const int64_t n = e->rollout.n_token, n_seq = e->rollout.n_seq;
    const int64_t n_epoch = ppo->config->ppo_epochs;
    const uint32_t seed = (uint32_t)ppo->run->settings->job.seed ^ ORDER_SEED;
    float **of_tokens[] = {&e->logprob, &e->ref_logprob, &e->value,   &e->kl,
                           &e->reward,  &e->advantage,   &e->returns, &e->whitened};
    for (size_t i = 0; i < sizeof of_tokens / sizeof *of_tokens; i++)
        *of_tokens[i] = QP_NEW("experience", float, n);
    e->score = QP_NEW("experience", double, n_seq);
    e->shaped = QP_NEW("experience", double, n_seq);
    e->sequence_kl = QP_NEW("experience", double, n_seq);
    e->order = QP_NEW("experience", int64_t, n_epoch * n_seq);
    for (int64_t epoch = 0; epoch < n_epoch; epoch++)
        for (int64_t i = 0; i < n_seq; i++)
            e->order[epoch * n_seq + i] =
                qp_permute(seed, (uint32_t)(ppo->step * n_epoch + epoch), n_seq, i);
}

/* --- the sequences of updates ----------------------------------------------------------------- */

int64_t qp_ppo_place(const qp_ppo_t *ppo, int64_t u)
{
    /* Of the parts of a mini-batch the last one learns; there mostly is one only. */
    return (u + 1) * (ppo->experience.rollout.n_seq / ppo->n_mini) - ppo->n_part;
}

int64_t qp_ppo_update_tokens(const qp_ppo_t *ppo, int64_t u)
{
    const qp_experience_t *e = &ppo->experience;
    const int64_t *seq = e->order + qp_ppo_place(ppo, u);
    int64_t n = 0;
    for (int64_t i = 0; i < ppo->n_part; i++)
        n += qp_rollout_n_response(&e->rollout, seq[i]);
    return n;
}

qp_model_batch_t qp_ppo_batch(qp_ppo_t *ppo, int64_t place)
{
    const qp_rollout_t *r = &ppo->experience.rollout;
    qp_sequences_t *room = &ppo->room;
    qp_sequences_clear(room);
    for (int64_t i = 0; i < ppo->run->settings->batch.micro_sequences; i++) {
        const int64_t seq = ppo->experience.order[place + i];
        qp_sequences_add(room, r->token + r->first[seq], qp_rollout_length(r, seq), r->n_query[seq],
                         -1, (uint32_t)seq);
    }
    for (int64_t t = 0; t < room->n_token; t++)
        room->valued[t] = room->target[t] >= 0;
    return qp_sequences_batch(room);
}

/* --- before the first update ------------------------------------------------------------------ */

/* Outputs at the rows of a batch to the tokens of its sequences. */
static void collect(const qp_ppo_t *ppo, int64_t place, const float *from, float *to)
{
    const qp_rollout_t *r = &ppo->experience.rollout;
    const qp_sequences_t *room = &ppo->room;
    for (int64_t i = 0; i < room->n_seq; i++) {
        const int64_t seq = ppo->experience.order[place + i], n = qp_rollout_n_response(r, seq);
        memcpy(to + r->cu[seq], from + room->cu_seqlens[i] + r->n_query[seq] - 1,
               qp_bytes(n, sizeof *to));
    }
}

static qp_error_t batched_forward_pass(qp_ppo_t *ppo, int64_t place)
{
    qp_run_t *run = ppo->run;
    qp_experience_t *e = &ppo->experience;
    qp_sequences_t *room = &ppo->room;
    const qp_role_t policy = qp_run_role(run), reference = {run->model.base, NULL};
    const qp_pass_t pass = {.training = ppo->config->dropout,
                            .key = {.seed = (uint32_t)run->settings->job.seed ^ ORDER_SEED,
                                    .step = (uint32_t)ppo->step}};
    const qp_pass_t quiet = {.training = false};
    const qp_model_outputs_t both = {.logprob = room->logprob, .value = room->value};
    const qp_model_outputs_t one = {.logprob = room->logprob};
    qp_model_batch_t batch = qp_ppo_batch(ppo, place);
    QP_TRY(qp_model_outputs(run->model.ws, &policy, &batch, &pass, false, &both));
    collect(ppo, place, room->logprob, e->logprob);
    collect(ppo, place, room->value, e->value);
    if (ppo->config->kl_penalty == QP_KL_FULL)
        QP_TRY(qp_model_keep(run->model.ws));
    batch.valued = NULL;
    QP_TRY(qp_model_outputs(run->model.ws, &reference, &batch, &quiet, false, &one));
    collect(ppo, place, room->logprob, e->ref_logprob);
    if (ppo->config->kl_penalty == QP_KL_FULL) {
        QP_TRY(qp_model_kl(run->model.ws, &batch, room->logprob));
        collect(ppo, place, room->logprob, e->kl);
    }
    return NULL;
}

qp_error_t qp_ppo_forward_pass(qp_ppo_t *ppo)
{
    qp_comm_t *comm = ppo->run->comm;
    qp_experience_t *e = &ppo->experience;
    const int64_t micro = ppo->run->settings->batch.micro_sequences, n = e->rollout.n_token;
    int64_t leaf, end;
    qp_error_t error = NULL;
    qp_tree_range(e->rollout.n_seq / micro, qp_comm_size(comm), qp_comm_rank(comm), &leaf, &end);
    for (; leaf < end && error == NULL; leaf++)
        error = batched_forward_pass(ppo, leaf * micro);
    QP_TRY(qp_comm_agree(comm, error));
    /* Exact: one rank knows each number, the others have zeros. */
    qp_tree_sum_f32(comm, e->logprob, n);
    qp_tree_sum_f32(comm, e->ref_logprob, n);
    qp_tree_sum_f32(comm, e->value, n);
    qp_tree_sum_f32(comm, e->kl, n); /* zeros where it is estimated later */
    return NULL;
}

/* --- rewards and advantages ------------------------------------------------------------------- */

static void shape_scores(qp_ppo_t *ppo)
{
    const qp_ppo_config_t *config = ppo->config;
    const qp_score_shaping_t shaping = {.use_score_scaling = config->use_score_scaling,
                                        .use_score_norm = config->use_score_norm,
                                        .score_clip = config->score_clip};
    qp_experience_t *e = &ppo->experience;
    for (int64_t s = 0; s < e->rollout.n_seq; s++)
        e->shaped[s] = e->score[s] - config->reward_baseline -
                       (e->rollout.stopped[s] ? 0.0 : config->missing_eos_penalty);
    qp_ppo_shape_scores(&shaping, &ppo->moments, e->shaped, e->rollout.n_seq);
}

/* What does not change from update to update. */
static void whiten_advantages(qp_ppo_t *ppo)
{
    qp_experience_t *e = &ppo->experience;
    const qp_rollout_t *r = &e->rollout;
    memcpy(e->whitened, e->advantage, qp_bytes(r->n_token, sizeof *e->whitened));
    if (ppo->config->whiten_advantages == QP_WHITEN_BATCH)
        qp_ppo_whiten(e->whitened, r->n_token, false);
    if (ppo->config->whiten_advantages == QP_WHITEN_SEQUENCE)
        for (int64_t s = 0; s < r->n_seq; s++)
            qp_ppo_whiten(e->whitened + r->cu[s], qp_rollout_n_response(r, s), false);
}

void qp_ppo_whiten_update(qp_ppo_t *ppo, int64_t u)
{
    qp_experience_t *e = &ppo->experience;
    const qp_rollout_t *r = &e->rollout;
    const int64_t *seq = e->order + qp_ppo_place(ppo, u);
    if (ppo->update == u || ppo->config->whiten_advantages != QP_WHITEN_MINI_BATCH)
        return;
    ppo->update = u;
    float *x = QP_NEW("experience", float, r->n_token);
    int64_t n = 0;
    for (int64_t i = 0; i < ppo->n_part; n += qp_rollout_n_response(r, seq[i++]))
        memcpy(x + n, e->advantage + r->cu[seq[i]],
               qp_bytes(qp_rollout_n_response(r, seq[i]), sizeof *x));
    qp_ppo_whiten(x, n, false);
    n = 0;
    for (int64_t i = 0; i < ppo->n_part; n += qp_rollout_n_response(r, seq[i++]))
        memcpy(e->whitened + r->cu[seq[i]], x + n,
               qp_bytes(qp_rollout_n_response(r, seq[i]), sizeof *x));
    qp_free(x);
}

void qp_ppo_compute_rewards(qp_ppo_t *ppo)
{
    const qp_ppo_config_t *config = ppo->config;
    qp_experience_t *e = &ppo->experience;
    const qp_rollout_t *r = &e->rollout;
    if (config->kl_penalty != QP_KL_FULL)
        qp_ppo_kl((qp_kl_penalty_t)config->kl_penalty, e->logprob, e->ref_logprob, r->n_token,
                  e->kl);
    for (int64_t s = 0; s < r->n_seq; s++)
        for (int64_t t = r->cu[s]; t < r->cu[s + 1]; t++)
            e->sequence_kl[s] += (double)e->kl[t];
    memcpy(e->shaped, e->score, qp_bytes(r->n_seq, sizeof *e->shaped));
    if (ppo->skipped)
        return;
    shape_scores(ppo);
    qp_ppo_rewards(e->reward, e->kl, e->shaped, ppo->kl_coef, r->cu, r->n_seq);
    if (config->whiten_rewards)
        qp_ppo_whiten(e->reward, r->n_token, true);
    qp_ppo_advantages(e->advantage, e->returns, e->reward, e->value, config->gamma, config->lam,
                      r->cu, r->n_seq);
    whiten_advantages(ppo);
}
