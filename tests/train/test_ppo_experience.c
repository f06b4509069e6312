/* What the keys of PPO do to a step's experience, by hand on the tiny model in fp32: penalty and
 * baseline of scores, each whitening of advantages, each control of the KL, the KL over the whole
 * vocabulary, updates of which a part learns, and when updates end. */
#include <math.h>

#include "rlhf.h"
#include "train/ppo/ppo_impl.h"

enum { N_SEQ = 6, N_EPOCH = 2, STEP = 3, STEPS = 12, N_VOCAB = 96 };
static const int64_t n_query[N_SEQ] = {2, 30, 1, 9, 20, 5},
                     n_response[N_SEQ] = {1, 12, 7, 1, 33, 4};
static const double score[N_SEQ] = {0.5, -1.25, 2.0, 0.0, -0.5, 1.5};
/* Numbers of arrays are floats; of sums of a few dozen of them. */
static const double FLOAT = 1e-6, SUM = 1e-5;

typedef struct {
    rlhf_t r;
    qp_ppo_t ppo;
} fixture_t;

/* Sequences of even number ended with an EOS. */
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
        r->n_query[s] = n_query[s];
        r->stopped[s] = s % 2 == 0;
        r->first[s + 1] = r->first[s] + rlhf_tokens("experience", s, n_query[s] + n_response[s],
                                                    r->token + r->first[s]);
        r->cu[s + 1] = r->cu[s] + n_response[s];
    }
    r->n_token = r->cu[N_SEQ];
}

static qp_ppo_config_t plain_config(void)
{
    return (qp_ppo_config_t){.ppo_epochs = N_EPOCH,
                             .gamma = 1.0,
                             .lam = 0.95,
                             .vf_coef = 0.1,
                             .cliprange = 0.2,
                             .cliprange_value = 0.2,
                             .init_kl_coef = 0.2,
                             .final_kl_coef = 0.05,
                             .target = 6.0,
                             .horizon = 100.0,
                             .target_kl = 1.0,
                             .ratio_threshold = 10.0,
                             .kl_control = QP_KL_FIXED,
                             .dropped_accumulation = 1};
}

/* A step's experience, as it is before the first update. */
static void begin(fixture_t *f, qp_ppo_config_t config, int64_t micro)
{
    rlhf_open("ppo", QP_HEAD_VALUE, &f->r);
    f->r.settings.batch = (qp_batch_config_t){N_SEQ, micro};
    f->r.settings.job.method = QP_METHOD_PPO;
    f->r.settings.optim = (qp_optim_config_t){.lr = 1e-3, .steps = STEPS};
    f->r.settings.ppo = config;
    f->r.run.size.row_tokens = RLHF_MAX_TOKEN;
    qp_ppo_init(&f->ppo, &f->r.run);
    f->ppo.step = STEP;
    make_rollout(&f->ppo.experience.rollout);
    qp_ppo_init_experience(&f->ppo);
    memcpy(f->ppo.experience.score, score, sizeof score);
    CHECK_OK(qp_ppo_make_experience(&f->ppo));
}

static void end(fixture_t *f)
{
    qp_ppo_fini(&f->ppo);
    rlhf_close(&f->r);
}

/* --- scores ----------------------------------------------------------------------------------- */

static void test_penalty_and_baseline(void)
{
    fixture_t f;
    qp_ppo_config_t config = plain_config();
    config.missing_eos_penalty = 0.75;
    config.reward_baseline = 0.25;
    begin(&f, config, 1);
    const qp_experience_t *e = &f.ppo.experience;
    for (int s = 0; s < N_SEQ; s++) {
        const double shaped = score[s] - 0.25 - (s % 2 == 0 ? 0.0 : 0.75);
        const int64_t last = e->rollout.cu[s + 1] - 1;
        rlhf_check(e->shaped[s], shaped, 1e-15, "the score as it is shaped");
        rlhf_check((double)e->reward[last], shaped - 0.2 * (double)e->kl[last], FLOAT,
                   "the reward of the last token");
    }
    end(&f);
}

/* --- whitening -------------------------------------------------------------------------------- */

/* The whitened advantages of a list of sequences are those of this list alone. */
static void check_whitened(const qp_experience_t *e, const int64_t *seq, int64_t n_seq,
                           const char *what)
{
    const int64_t *cu = e->rollout.cu;
    double n = 0.0, mean = 0.0, var = 0.0;
    for (int64_t i = 0; i < n_seq; i++)
        for (int64_t t = cu[seq[i]]; t < cu[seq[i] + 1]; t++, n++)
            mean += (double)e->advantage[t];
    mean /= n;
    for (int64_t i = 0; i < n_seq; i++)
        for (int64_t t = cu[seq[i]]; t < cu[seq[i] + 1]; t++)
            var += pow((double)e->advantage[t] - mean, 2.0);
    var /= n > 1.0 ? n - 1.0 : 1.0;
    for (int64_t i = 0; i < n_seq; i++)
        for (int64_t t = cu[seq[i]]; t < cu[seq[i] + 1]; t++)
            rlhf_check((double)e->whitened[t], ((double)e->advantage[t] - mean) / sqrt(var + 1e-8),
                       SUM, what);
}

static void test_whitening(int how)
{
    static const int64_t all[N_SEQ] = {0, 1, 2, 3, 4, 5};
    fixture_t f;
    qp_ppo_config_t config = plain_config();
    config.whiten_advantages = how;
    config.mini_batch_sequences = 2;
    begin(&f, config, 1);
    const qp_experience_t *e = &f.ppo.experience;
    for (int64_t u = 0; u < N_EPOCH * N_SEQ / 2; u++) {
        qp_ppo_whiten_update(&f.ppo, u);
        if (how == QP_WHITEN_BATCH)
            check_whitened(e, all, N_SEQ, "whitened over the batch");
        if (how == QP_WHITEN_MINI_BATCH)
            check_whitened(e, e->order + 2 * u, 2, "whitened over the mini-batch");
        for (int64_t s = 0; s < N_SEQ && how == QP_WHITEN_SEQUENCE; s++)
            check_whitened(e, all + s, 1, "whitened over the sequence");
    }
    end(&f);
}

/* --- the KL ----------------------------------------------------------------------------------- */

static void test_kl_control(int control)
{
    fixture_t f;
    qp_ppo_config_t config = plain_config();
    double metric[QP_N_PPO_METRIC], kl = 0.0;
    config.kl_control = control;
    begin(&f, config, 1);
    /* Three of twelve steps on the way from 0.2 to 0.05. */
    rlhf_check(f.ppo.kl_coef, control == QP_KL_LINEAR ? 0.1625 : 0.2, 1e-15,
               "the KL's coefficient");
    const double before = f.ppo.kl_coef;
    for (int s = 0; s < N_SEQ; s++)
        kl += f.ppo.experience.sequence_kl[s] / N_SEQ;
    qp_ppo_method.finish(&f.ppo, NULL, metric);
    const double error = fmax(-0.2, fmin(0.2, kl / 6.0 - 1.0));
    CHECK(error != 0.0);
    rlhf_check(f.ppo.kl_coef,
               control == QP_KL_ADAPTIVE ? before * (1.0 + error * N_SEQ / 100.0) : before, 1e-15,
               "the coefficient of the next step");
    end(&f);
}

/* The log-probability of token v at every place of the responses. */
static void look_at_token(fixture_t *f, const qp_role_t *role, int32_t v, float *logprob)
{
    const qp_rollout_t *r = &f->ppo.experience.rollout;
    const qp_pass_t quiet = {.training = false};
    qp_sequences_t *room = &f->ppo.room;
    qp_model_batch_t batch = qp_ppo_batch(&f->ppo, 0);
    const qp_model_outputs_t outputs = {.logprob = room->logprob};
    batch.valued = NULL;
    for (int64_t t = 0; t < room->n_token; t++)
        if (room->target[t] >= 0)
            room->target[t] = v;
    CHECK_OK(qp_model_outputs(f->r.run.model.ws, role, &batch, &quiet, false, &outputs));
    for (int64_t i = 0; i < N_SEQ; i++) {
        const int64_t seq = f->ppo.experience.order[i];
        memcpy(logprob + r->cu[seq], room->logprob + room->cu_seqlens[i] + r->n_query[seq] - 1,
               (size_t)(r->cu[seq + 1] - r->cu[seq]) * sizeof *logprob);
    }
}

/* kl_penalty = "full" is the sum over all tokens of p (log p - log q), p of the policy. */
static void test_full_kl(void)
{
    fixture_t f;
    qp_ppo_config_t config = plain_config();
    float p[RLHF_MAX_TOKEN], q[RLHF_MAX_TOKEN];
    double expected[RLHF_MAX_TOKEN] = {0}, difference = 0.0;
    config.kl_penalty = QP_KL_FULL;
    begin(&f, config, N_SEQ);
    const qp_experience_t *e = &f.ppo.experience;
    const qp_role_t policy = {f.r.run.model.base, f.r.run.model.adapter},
                    reference = {f.r.run.model.base, NULL};
    CHECK(f.r.tiny.config.n_vocab == N_VOCAB);
    for (int32_t v = 0; v < N_VOCAB; v++) {
        look_at_token(&f, &policy, v, p);
        look_at_token(&f, &reference, v, q);
        for (int64_t t = 0; t < e->rollout.n_token; t++)
            expected[t] += exp((double)p[t]) * ((double)p[t] - (double)q[t]);
    }
    for (int64_t t = 0; t < e->rollout.n_token; t++) {
        rlhf_check((double)e->kl[t], expected[t], SUM, "the KL over the vocabulary");
        difference += fabs(expected[t] - (double)(e->logprob[t] - e->ref_logprob[t]));
    }
    CHECK(difference > 0.1); /* an estimate would show */
    end(&f);
}

/* --- updates ---------------------------------------------------------------------------------- */

/* The gradient of one update, of the micro-batches that learn. */
static float *gradient_of_update(fixture_t *f, int64_t u, int64_t n_micro)
{
    const qp_pass_t pass = {.training = true};
    double total[QP_N_PPO_SUM] = {0};
    tiny_zero_grad(f->r.run.model.adapter);
    for (int64_t i = 0; i < n_micro; i++)
        CHECK_OK(qp_ppo_method.training_step(&f->ppo, u, i, &pass, total));
    return tiny_download(f->r.run.device, f->r.run.model.adapter->grad,
                         f->r.run.model.adapter->n_param);
}

/* Of a mini-batch in two parts the last one learns, by half: as half of a mini-batch of its own. */
static void test_dropped_accumulation(void)
{
    fixture_t parts, whole;
    qp_ppo_config_t config = plain_config();
    config.dropped_accumulation = 2;
    begin(&parts, config, 1);
    const int64_t n = parts.r.run.model.adapter->n_param;
    float *found = gradient_of_update(&parts, 1, N_SEQ / 2);
    end(&parts);
    config.dropped_accumulation = 1;
    config.mini_batch_sequences = N_SEQ / 2;
    begin(&whole, config, 1);
    float *expected = gradient_of_update(&whole, 3, N_SEQ / 2);
    end(&whole);
    int64_t n_wrong = 0, n_zero = 0;
    for (int64_t i = 0; i < n; i++) {
        n_wrong += fabsf(found[i] - 0.5f * expected[i]) > 1e-6f * fmaxf(1e-3f, fabsf(expected[i]));
        n_zero += expected[i] == 0.0f;
    }
    CHECK_MSG(n_wrong == 0 && n_zero < n / 2, "%lld of %lld elements differ", (long long)n_wrong,
              (long long)n);
    qp_free(found);
    qp_free(expected);
}

/* Beyond 1.5 target_kl an update is the last, beyond the threshold of the ratio it is left out. */
static void test_verdicts(void)
{
    static const struct {
        double kl, ratio;
        bool early_stopping;
        qp_update_end_t verdict;
    } row[] = {
        {1.45, 1.0, true, QP_UPDATE_APPLY},     {1.55, 1.0, true, QP_UPDATE_LAST},
        {1.55, 1.0, false, QP_UPDATE_APPLY},    {-9.0, 1.0, true, QP_UPDATE_APPLY},
        {0.0, 10.5, true, QP_UPDATE_LEAVE_OUT}, {0.0, 9.5, true, QP_UPDATE_APPLY},
    };
    fixture_t f;
    begin(&f, plain_config(), 1);
    const double n = (double)qp_ppo_update_tokens(&f.ppo, 0);
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        const double total[QP_N_PPO_SUM] = {
            [QP_PPO_POLICYKL] = row[i].kl * n, [QP_PPO_RATIO] = row[i].ratio * n};
        f.r.settings.ppo.early_stopping = row[i].early_stopping;
        CHECK_MSG(qp_ppo_method.end_update(&f.ppo, 0, total) == row[i].verdict, "row %zu", i);
    }
    end(&f);
}

/* The share of the returns' variance that the values explain, from what else is reported. */
static void test_explained_variance(void)
{
    fixture_t f;
    double metric[QP_N_PPO_METRIC], total[QP_N_PPO_SUM] = {0};
    begin(&f, plain_config(), 1);
    const double n = (double)qp_ppo_update_tokens(&f.ppo, 0);
    total[QP_PPO_ERROR] = 0.75 * n;
    (void)qp_ppo_method.end_update(&f.ppo, 0, total);
    qp_ppo_method.finish(&f.ppo, NULL, metric);
    CHECK(metric[QP_PPO_METRIC_RETURNS_VAR] > 0.0);
    rlhf_check(metric[QP_PPO_METRIC_VAL_ERROR], 0.75, 1e-12, "the values' error");
    rlhf_check(metric[QP_PPO_METRIC_VAL_VAR_EXPLAINED],
               1.0 - 0.75 / metric[QP_PPO_METRIC_RETURNS_VAR], 1e-12, "the variance explained");
    end(&f);
}

int main(void)
{
    qp_comm_t *comm; /* keeps MPI alive over the set-ups */
    CHECK_OK(qp_comm_create(&comm));
    test_penalty_and_baseline();
    test_whitening(QP_WHITEN_BATCH);
    test_whitening(QP_WHITEN_MINI_BATCH);
    test_whitening(QP_WHITEN_SEQUENCE);
    test_kl_control(QP_KL_ADAPTIVE);
    test_kl_control(QP_KL_LINEAR);
    test_kl_control(QP_KL_FIXED);
    test_full_kl();
    test_dropped_accumulation();
    test_verdicts();
    test_explained_variance();
    qp_comm_destroy(&comm);
    return qp_test_end();
}
