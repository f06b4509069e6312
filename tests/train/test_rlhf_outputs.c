/* What heads say of a sequence does not depend on what else is in the micro-batch, dropout
 * included; a reward is read at the last real token, an EOS added where it is missing; a step of
 * PPO whose rewards are not finite leaves no trace in what lives over steps. On the tiny model, in
 * fp32. */
#include <float.h>
#include <math.h>

#include "rlhf.h"
#include "train/ppo/ppo_impl.h"

enum { N_SEQ = 6, EOS = 7, OTHER_EOS = 11 };
static const int64_t n_query[N_SEQ] = {2, 30, 1, 9, 20, 5},
                     n_response[N_SEQ] = {1, 12, 7, 1, 33, 4};
/* Of sums in another order, absolute below 1: fp32, a few hundred terms. */
static const double TOGETHER = 1e-5;

static bool near(double a, double b)
{
    return fabs(a - b) <= TOGETHER * fmax(1.0, fabs(b));
}

/* Those of even number end with an EOS, the last of them with another one, and number 1 has one
 * within. */
static void make_rollout(qp_rollout_t *r)
{
    *r = (qp_rollout_t){.n_seq = N_SEQ,
                        .first = QP_NEW("test", int64_t, N_SEQ + 1),
                        .n_query = QP_NEW("test", int64_t, N_SEQ),
                        .cu = QP_NEW("test", int64_t, N_SEQ + 1),
                        .token = QP_NEW("test", int32_t, RLHF_MAX_TOKEN),
                        .logprob = QP_NEW("test", float, RLHF_MAX_TOKEN),
                        .stopped = QP_NEW("test", uint8_t, N_SEQ)};
    for (int64_t s = 0; s < N_SEQ; s++) {
        int32_t *token = r->token + r->first[s];
        const int64_t n = rlhf_tokens("outputs", s, n_query[s] + n_response[s], token);
        for (int64_t t = 0; t < n; t++)
            token[t] += token[t] == EOS || token[t] == OTHER_EOS;
        if (s % 2 == 0)
            token[n - 1] = s == 4 ? OTHER_EOS : EOS;
        if (s == 1)
            token[n - 3] = EOS;
        r->stopped[s] = s % 2 == 0;
        r->n_query[s] = n_query[s];
        r->first[s + 1] = r->first[s] + n;
        r->cu[s + 1] = r->cu[s] + n_response[s];
    }
    r->n_token = r->cu[N_SEQ];
}

/* --- alone and together ----------------------------------------------------------------------- */

/* The sequences [first, end), in descending order if asked for; a value at every token. */
static void run_sequences(rlhf_t *r, const qp_rollout_t *rollout, int64_t first, int64_t end,
                          bool descending, qp_sequences_t *room)
{
    const qp_role_t role = qp_run_role(&r->run);
    const qp_pass_t pass = {.training = true, .key = {.seed = 5, .step = 3}};
    qp_sequences_clear(room);
    for (int64_t i = first; i < end; i++) {
        const int64_t s = descending ? end - 1 - (i - first) : i;
        qp_sequences_add(room, rollout->token + rollout->first[s], qp_rollout_length(rollout, s),
                         rollout->n_query[s], -1, (uint32_t)s);
    }
    memset(room->valued, 1, (size_t)room->n_token);
    const qp_model_batch_t batch = qp_sequences_batch(room);
    const qp_model_outputs_t outputs = {room->logprob, room->entropy, room->value};
    CHECK_OK(qp_model_outputs(r->run.model.ws, &role, &batch, &pass, false, &outputs));
}

static void compare(const qp_sequences_t *one, const qp_sequences_t *all, int64_t place, int64_t s)
{
    const struct {
        const char *name;
        const float *one, *all;
    } output[] = {{"logprob", one->logprob, all->logprob},
                  {"entropy", one->entropy, all->entropy},
                  {"value", one->value, all->value}};
    const int64_t at = all->cu_seqlens[place], n = all->cu_seqlens[place + 1] - at;
    CHECK(n == one->n_token);
    for (size_t i = 0; i < sizeof output / sizeof output[0]; i++)
        for (int64_t t = 0; t < n; t++)
            CHECK_MSG(near((double)output[i].all[at + t], (double)output[i].one[t]),
                      "%s of token %lld of sequence %lld: %.9g together, %.9g alone",
                      output[i].name, (long long)t, (long long)s, (double)output[i].all[at + t],
                      (double)output[i].one[t]);
}

static void test_alone_and_together(float dropout)
{
    rlhf_t r;
    qp_rollout_t rollout;
    qp_sequences_t one, all;
    rlhf_open("ppo", QP_HEAD_VALUE, &r);
    r.run.model.adapter->dropout = dropout;
    make_rollout(&rollout);
    qp_sequences_init(&one, RLHF_MAX_TOKEN);
    qp_sequences_init(&all, RLHF_MAX_TOKEN);
    for (int descending = 0; descending < 2; descending++) {
        run_sequences(&r, &rollout, 0, N_SEQ, descending, &all);
        CHECK(all.logprob[all.n_token - 2] < 0.0f && all.entropy[all.n_token - 2] > 0.0f);
        for (int64_t s = 0; s < N_SEQ; s++) {
            run_sequences(&r, &rollout, s, s + 1, false, &one);
            compare(&one, &all, descending ? N_SEQ - 1 - s : s, s);
        }
    }
    qp_sequences_fini(&all);
    qp_sequences_fini(&one);
    qp_rollout_fini(&rollout);
    rlhf_close(&r);
}

/* --- where a reward is read ------------------------------------------------------------------- */

/* The score head at the last of these tokens, alone in its batch. */
static double score_of(rlhf_t *r, const int32_t *token, int64_t n)
{
    const qp_role_t role = qp_run_role(&r->run);
    const qp_pass_t pass = {.training = false};
    qp_sequences_t room;
    qp_sequences_init(&room, RLHF_MAX_TOKEN);
    qp_sequences_add(&room, token, n, n, -1, 0);
    room.valued[n - 1] = 1;
    const qp_model_batch_t batch = qp_sequences_batch(&room);
    const qp_model_outputs_t outputs = {.value = room.value};
    CHECK_OK(qp_model_outputs(r->run.model.ws, &role, &batch, &pass, false, &outputs));
    const double score = (double)room.value[n - 1];
    qp_sequences_fini(&room);
    return score;
}

static void test_reward_is_read_at_the_last_token(void)
{
    rlhf_t r;
    qp_rollout_t rollout;
    double expected[N_SEQ], reward[N_SEQ];
    const char *folder = qp_test_folder();
    rlhf_open("reward", QP_HEAD_SCORE, &r);
    CHECK_OK(qp_adapter_save(r.run.model.adapter, &r.tiny.config, NULL, folder));
    r.settings.reward_model.adapter = folder;
    make_rollout(&rollout);
    for (int64_t s = 0; s < N_SEQ; s++) {
        int32_t token[RLHF_MAX_TOKEN];
        int64_t n = qp_rollout_length(&rollout, s);
        memcpy(token, rollout.token + rollout.first[s], (size_t)n * sizeof *token);
        if (s % 2 != 0)
            token[n++] = EOS;
        expected[s] = score_of(&r, token, n);
        CHECK(!near(score_of(&r, token, n - 1), expected[s])); /* another place shows */
    }
    const int64_t micro[] = {1, 2, 4, N_SEQ}; /* 4: the last micro-batch is smaller */
    for (int i = 0; i < 4; i++) {
        const qp_scorer_host_t host = {.comm = r.run.comm,
                                       .device = r.run.device,
                                       .base = r.run.model.base,
                                       .ws = r.run.model.ws,
                                       .eos = {2, {EOS, OTHER_EOS}},
                                       .max_token = RLHF_MAX_TOKEN / micro[i] * micro[i],
                                       .micro_sequences = micro[i]};
        qp_scorer_t *scorer = NULL;
        CHECK_OK(qp_scorer_open(r.run.comm, &r.settings, NULL, &scorer));
        CHECK_OK(qp_scorer_load(scorer, &host));
        CHECK_OK(qp_scorer_score(scorer, &rollout, reward));
        qp_scorer_destroy(r.run.comm, &scorer);
        for (int64_t s = 0; s < N_SEQ; s++)
            CHECK_MSG(near(reward[s], expected[s]),
                      "micro %lld, sequence %lld: %.9g, expected %.9g", (long long)micro[i],
                      (long long)s, reward[s], expected[s]);
    }
    qp_rollout_fini(&rollout);
    rlhf_close(&r);
}

/* --- rewards that are not finite -------------------------------------------------------------- */

static void test_skipped_step_leaves_no_trace(double bad)
{
    rlhf_t r;
    qp_ppo_t ppo;
    double metric[QP_N_PPO_METRIC];
    rlhf_open("ppo", QP_HEAD_VALUE, &r);
    r.settings.batch = (qp_batch_config_t){N_SEQ, 1};
    r.settings.job.method = QP_METHOD_PPO;
    r.settings.optim = (qp_optim_config_t){.lr = 1e-3, .steps = 1};
    r.settings.ppo = (qp_ppo_config_t){.ppo_epochs = 2,
                                       .init_kl_coef = 0.2,
                                       .target = 1e-3,
                                       .horizon = 10.0,
                                       .use_score_scaling = true,
                                       .dropped_accumulation = 1};
    r.run.size.row_tokens = RLHF_MAX_TOKEN;
    qp_ppo_init(&ppo, &r.run);
    for (int step = 0; step < 2; step++) {
        qp_running_moments_t before = ppo.moments;
        const double kl_coef = ppo.kl_coef;
        qp_experience_fini(&ppo.experience);
        make_rollout(&ppo.experience.rollout);
        qp_ppo_init_experience(&ppo);
        for (int s = 0; s < N_SEQ; s++)
            ppo.experience.score[s] = (double)s;
        if (step == 0)
            ppo.experience.score[N_SEQ - 1] = bad;
        CHECK_OK(qp_ppo_make_experience(&ppo));
        CHECK(ppo.skipped == (step == 0));
        qp_ppo_method.finish(&ppo, NULL, metric);
        CHECK((memcmp(&before, &ppo.moments, sizeof before) == 0) == (step == 0));
        CHECK((ppo.kl_coef == kl_coef) == (step == 0));
        CHECK(isfinite(metric[QP_PPO_METRIC_OBJECTIVE_KL]) &&
              metric[QP_PPO_METRIC_OBJECTIVE_KL] != 0.0);
        CHECK(isfinite(ppo.kl_coef) && isfinite(ppo.moments.std));
    }
    /* A KL that is none, as of a policy that has diverged, leaves the coefficient alone too. */
    const double kl_coef = ppo.kl_coef;
    ppo.experience.sequence_kl[0] = (double)NAN;
    qp_ppo_method.finish(&ppo, NULL, metric);
    CHECK(ppo.kl_coef == kl_coef);
    qp_ppo_fini(&ppo);
    rlhf_close(&r);
}

int main(void)
{
    qp_comm_t *comm; /* keeps MPI alive over the set-ups */
    CHECK_OK(qp_comm_create(&comm));
    test_alone_and_together(0.0f);
    test_alone_and_together(0.25f);
    test_reward_is_read_at_the_last_token();
    test_skipped_step_leaves_no_trace((double)NAN);
    test_skipped_step_leaves_no_trace((double)-INFINITY);
    test_skipped_step_leaves_no_trace(1e300); /* no reward that a float holds */
    qp_comm_destroy(&comm);
    return qp_test_end();
}
