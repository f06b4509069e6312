/* A whole step of PPO against TRL's PPOTrainer (tests/golden/make_rlhf.py), in fp32: what is seen
 * before the first update, rewards, advantages, then four updates with their losses, statistics and
 * gradients, and the parameters and the KL coefficient after them. */
#include <math.h>

#include "rlhf.h"
#include "train/ppo/ppo_impl.h"

enum { N_SEQ = 8, N_TOKEN = 45, N_EPOCH = 2, MINI = 4, N_UPDATE = N_EPOCH * N_SEQ / MINI };
static const double VALUE = 1e-4, GRADIENT = 1e-3, PARAMETER = 1e-5;

/* The queries and responses of the maker, as if they had been drawn. */
static void make_rollout(const rlhf_t *r, qp_rollout_t *rollout)
{
    const int32_t *n_query = rlhf_golden(r, "length.query", N_SEQ);
    const int32_t *n_response = rlhf_golden(r, "length.response", N_SEQ);
    *rollout = (qp_rollout_t){.n_seq = N_SEQ,
                              .n_token = N_TOKEN,
                              .first = QP_NEW("test", int64_t, N_SEQ + 1),
                              .n_query = QP_NEW("test", int64_t, N_SEQ),
                              .cu = QP_NEW("test", int64_t, N_SEQ + 1),
                              .token = QP_NEW("test", int32_t, RLHF_MAX_TOKEN),
                              .logprob = QP_NEW("test", float, N_TOKEN),
                              .stopped = QP_NEW("test", uint8_t, N_SEQ)};
    for (int64_t s = 0; s < N_SEQ; s++) {
        int32_t *token = rollout->token + rollout->first[s];
        token += rlhf_tokens("query", s, n_query[s], token);
        rlhf_tokens("response", s, n_response[s], token);
        rollout->n_query[s] = n_query[s];
        rollout->cu[s + 1] = rollout->cu[s] + n_response[s];
        rollout->first[s + 1] = rollout->first[s] + n_query[s] + n_response[s];
    }
    CHECK(rollout->cu[N_SEQ] == N_TOKEN);
}

/* The order in which TRL took the sequences. */
static void set_order(const rlhf_t *r, const char *name, qp_experience_t *e)
{
    const int32_t *order = rlhf_golden(r, name, N_EPOCH * N_SEQ);
    for (int i = 0; i < N_EPOCH * N_SEQ; i++)
        e->order[i] = order[i];
}

static void configure(rlhf_t *r)
{
    r->settings.batch = (qp_batch_config_t){N_SEQ, 2};
    r->settings.optim =
        (qp_optim_config_t){.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .steps = 1};
    r->settings.job.method = QP_METHOD_PPO;
    r->settings.ppo = (qp_ppo_config_t){.ppo_epochs = N_EPOCH,
                                        .mini_batch_sequences = MINI,
                                        .gamma = 1.0,
                                        .lam = 0.95,
                                        .vf_coef = 0.1,
                                        .cliprange = 0.2,
                                        .cliprange_value = 0.2,
                                        .init_kl_coef = 0.2,
                                        .target = 6.0,
                                        .horizon = 10000.0,
                                        .ratio_threshold = 10.0,
                                        .dropped_accumulation = 1};
    r->run.size.row_tokens = RLHF_MAX_TOKEN / 2;
}

static void check_old(const rlhf_t *r, const qp_experience_t *e, const char *prefix)
{
    const struct {
        const char *name;
        const float *found;
    } all[] = {{"logprob", e->logprob}, {"ref_logprob", e->ref_logprob}, {"value", e->value},
               {"kl", e->kl},           {"advantage", e->whitened},      {"returns", e->returns}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char name[48];
        snprintf(name, sizeof name, "%sold.%s", prefix, all[i].name);
        rlhf_check_array(r, all[i].found, name, N_TOKEN, VALUE);
    }
}

/* One update through the micro-batches, as the loop makes it. */
static void check_update(rlhf_t *r, qp_ppo_t *ppo, qp_optim_t *optim, int64_t u, const char *prefix)
{
    static const struct {
        qp_ppo_sum_t sum;
        const char *name;
    } all[] = {{QP_PPO_LOSS_POLICY, "loss_policy"},
               {QP_PPO_LOSS_VALUE, "loss_value"},
               {QP_PPO_ENTROPY, "entropy"},
               {QP_PPO_APPROXKL, "approxkl"},
               {QP_PPO_POLICYKL, "policykl"},
               {QP_PPO_CLIPFRAC, "clipfrac_policy"},
               {QP_PPO_ADVANTAGES, "advantages_mean"},
               {QP_PPO_RATIO, "ratio"},
               {QP_PPO_VPRED, "vpred"},
               {QP_PPO_ERROR, "error"},
               {QP_PPO_VALUE_CLIPFRAC, "clipfrac_value"}};
    const qp_pass_t pass = {.training = true};
    const qp_optim_config_t *config = &r->settings.optim;
    qp_adapter_t *adapter = r->run.model.adapter;
    double total[QP_N_PPO_SUM] = {0}, n = (double)qp_ppo_update_tokens(ppo, u), norm;
    bool skipped;
    char name[64];
    tiny_zero_grad(adapter);
    for (int64_t i = 0; i < MINI / r->settings.batch.micro_sequences; i++)
        CHECK_OK(qp_ppo_method.training_step(ppo, u, i, &pass, total));
    CHECK(qp_ppo_method.end_update(ppo, u, total) == QP_UPDATE_APPLY);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        snprintf(name, sizeof name, "%supdate.%d.%s", prefix, (int)u, all[i].name);
        rlhf_check(total[all[i].sum] / n, (double)rlhf_number(r, name), VALUE, name);
    }
    if (prefix[0] == '\0' && (u == 0 || u == N_UPDATE - 1)) {
        snprintf(name, sizeof name, "grad.%d", (int)u);
        rlhf_check_adapter(r, adapter->grad, name, GRADIENT);
    }
    if (u == 0)
        CHECK(total[QP_PPO_RATIO] == n); /* exactly 1, token by token */
    CHECK_OK(qp_optim_step(optim, config, 0, adapter->param, adapter->copy, adapter->grad, &norm,
                           &skipped));
    CHECK(!skipped);
}

static void check_metrics(const rlhf_t *r, qp_ppo_t *ppo)
{
    static const struct {
        qp_ppo_metric_t metric;
        const char *name;
    } all[] = {{QP_PPO_METRIC_OBJECTIVE_KL, "stats.objective/kl"},
               {QP_PPO_METRIC_OBJECTIVE_ENTROPY, "stats.objective/entropy"},
               {QP_PPO_METRIC_MEAN_NON_SCORE_REWARD, "stats.ppo/mean_non_score_reward"},
               {QP_PPO_METRIC_MEAN_SCORES, "stats.ppo/mean_scores"},
               {QP_PPO_METRIC_STD_SCORES, "stats.ppo/std_scores"}};
    double metric[QP_N_PPO_METRIC];
    qp_ppo_method.finish(ppo, NULL, metric);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        rlhf_check(metric[all[i].metric], (double)rlhf_number(r, all[i].name), VALUE, all[i].name);
}

static void test_step(const char *prefix)
{
    rlhf_t r;
    qp_ppo_t ppo;
    qp_optim_t *optim;
    char name[32];
    const bool main_run = prefix[0] == '\0';
    rlhf_open("ppo", QP_HEAD_VALUE, &r);
    configure(&r);
    if (!main_run) {
        qp_ppo_config_t *c = &r.settings.ppo;
        c->whiten_rewards = c->use_score_scaling = c->use_score_norm = true;
        c->score_clip = 0.5;
        c->kl_penalty = QP_KL_ABS;
        c->cliprange_value = 0.05;
        c->target = 9.0;
    }
    qp_ppo_init(&ppo, &r.run);
    make_rollout(&r, &ppo.experience.rollout);
    qp_ppo_init_experience(&ppo);
    snprintf(name, sizeof name, "%spermutation", prefix);
    set_order(&r, name, &ppo.experience);
    const float *score = rlhf_golden(&r, "score", N_SEQ);
    for (int s = 0; s < N_SEQ; s++)
        ppo.experience.score[s] = (double)score[s];
    CHECK_OK(qp_ppo_make_experience(&ppo));
    check_old(&r, &ppo.experience, prefix);
    CHECK_OK(qp_optim_create(r.run.device, r.run.model.adapter->n_param, &optim));
    for (int64_t u = 0; u < N_UPDATE; u++)
        check_update(&r, &ppo, optim, u, prefix);
    snprintf(name, sizeof name, "%sparam", prefix);
    rlhf_check_adapter(&r, r.run.model.adapter->param, name, PARAMETER);
    if (main_run) {
        check_metrics(&r, &ppo);
    } else {
        double metric[QP_N_PPO_METRIC];
        qp_ppo_method.finish(&ppo, NULL, metric);
    }
    snprintf(name, sizeof name, "%skl_coef", prefix);
    rlhf_check(ppo.kl_coef, (double)((const float *)rlhf_golden(&r, name, 2))[1], 1e-6, name);
    qp_optim_destroy(&optim);
    qp_ppo_fini(&ppo);
    rlhf_close(&r);
}

int main(void)
{
    qp_comm_t *comm; /* keeps MPI alive over the set-ups */
    CHECK_OK(qp_comm_create(&comm));
    test_step("");
    test_step("alt.");
    qp_comm_destroy(&comm);
    return qp_test_end();
}
