/* Reward model and DPO against PEFT and TRL (tests/golden/make_rlhf.py): rewards,
 * log-probabilities, losses and every gradient, in fp32. */
#include <math.h>

#include "rlhf.h"
#include "train/methods/pairs.h"

enum { N_PAIR = 4, N_SEQ = 2 * N_PAIR };
static const double VALUE = 1e-5, GRADIENT = 1e-4;

typedef struct {
    int32_t token[RLHF_MAX_TOKEN], target[RLHF_MAX_TOKEN], position[RLHF_MAX_TOKEN];
    int32_t cu_seqlens[N_SEQ + 1];
    uint32_t sample[RLHF_MAX_TOKEN];
    uint8_t completion[RLHF_MAX_TOKEN], last[RLHF_MAX_TOKEN];
    float margin[N_SEQ];
    int32_t no_target[RLHF_MAX_TOKEN];
    float value[2][RLHF_MAX_TOKEN], gradient[RLHF_MAX_TOKEN];
    qp_batch_t batch;
    qp_pairs_t pairs;
} fixture_t;

/* Chosen and rejected of each pair; completions are targets. */
static void fill(const rlhf_t *r, fixture_t *f)
{
    const int32_t *n_prompt = rlhf_golden(r, "length.prompt", N_PAIR);
    const int32_t *n_side[] = {rlhf_golden(r, "length.chosen", N_PAIR),
                               rlhf_golden(r, "length.rejected", N_PAIR)};
    static const char *const set[] = {"chosen", "rejected"};
    int64_t n = 0;
    memset(f, 0, sizeof *f);
    for (int64_t s = 0; s < N_SEQ; s++) {
        const int64_t first = n, pair = s / 2;
        n += rlhf_tokens("prompt", pair, n_prompt[pair], f->token + n);
        n += rlhf_tokens(set[s % 2], pair, n_side[s % 2][pair], f->token + n);
        for (int64_t t = first; t < n; t++) {
            f->position[t] = (int32_t)(t - first);
            f->target[t] = t + 1 < n && t + 1 >= first + n_prompt[pair] ? f->token[t + 1] : -1;
        }
        f->cu_seqlens[s + 1] = (int32_t)n;
        f->last[n - 1] = 1;
    }
    for (int64_t t = 0; t < RLHF_MAX_TOKEN; t++)
        f->no_target[t] = -1;
    f->batch = (qp_batch_t){.n_token = n,
                            .n_seq = N_SEQ,
                            .token = f->token,
                            .target = f->target,
                            .position = f->position,
                            .sample = f->sample,
                            .completion = f->completion,
                            .cu_seqlens = f->cu_seqlens,
                            .margin = f->margin};
}

static void run(rlhf_t *r, fixture_t *f, const qp_pair_objective_t *objective, double *sum,
                double *reward)
{
    const qp_pass_t pass = {.training = true};
    f->pairs = (qp_pairs_t){.run = &r->run,
                            .no_target = f->no_target,
                            .last = f->last,
                            .value = {f->value[0], f->value[1]},
                            .gradient = f->gradient};
    memset(f->gradient, 0, sizeof f->gradient);
    memset(sum, 0, QP_N_PAIR_SUM * sizeof *sum);
    tiny_zero_grad(r->run.model.adapter);
    CHECK_OK(objective->training_step(&f->pairs, &f->batch, &pass, 1.0 / N_PAIR, sum, reward));
}

static void test_reward(void)
{
    static const struct {
        const char *name;
        qp_reward_config_t config;
    } loss[] = {{"plain", {.margin = false}},
                {"margin", {.margin = true}},
                {"center", {.center_rewards_coefficient = 0.01}}};
    rlhf_t r;
    fixture_t f;
    rlhf_open("reward", QP_HEAD_SCORE, &r);
    fill(&r, &f);
    const float *margin = rlhf_golden(&r, "margin", N_PAIR);
    const float *expected[] = {rlhf_golden(&r, "reward.chosen", N_PAIR),
                               rlhf_golden(&r, "reward.rejected", N_PAIR)};
    for (int s = 0; s < N_SEQ; s++)
        f.margin[s] = margin[s / 2];
    for (size_t i = 0; i < sizeof loss / sizeof loss[0]; i++) {
        double sum[QP_N_PAIR_SUM], reward[N_SEQ], right = 0.0;
        char name[32];
        r.settings.reward = loss[i].config;
        run(&r, &f, &qp_reward_objective, sum, reward);
        for (int s = 0; s < N_SEQ; s++)
            rlhf_check(reward[s], (double)expected[s % 2][s / 2], VALUE, "reward");
        for (int p = 0; p < N_PAIR; p++)
            right += expected[0][p] > expected[1][p];
        CHECK(sum[QP_PAIR_ACCURACY] == right);
        snprintf(name, sizeof name, "loss.%s", loss[i].name);
        rlhf_check(sum[QP_PAIR_LOSS] / N_PAIR, (double)rlhf_number(&r, name), VALUE, name);
        snprintf(name, sizeof name, "grad.%s", loss[i].name);
        rlhf_check_adapter(&r, r.run.model.adapter->grad, name, GRADIENT);
    }
    rlhf_close(&r);
}

static void test_dpo(void)
{
    static const struct {
        const char *name;
        qp_dpo_config_t config;
    } loss[] = {{"sigmoid", {0.1, 0.0, QP_DPO_SIGMOID}},
                {"smoothed", {0.1, 0.1, QP_DPO_SIGMOID}},
                {"hinge", {0.1, 0.0, QP_DPO_HINGE}},
                {"ipo", {0.1, 0.0, QP_DPO_IPO}}};
    rlhf_t r;
    fixture_t f;
    rlhf_open("dpo", QP_HEAD_NONE, &r);
    fill(&r, &f);
    for (size_t i = 0; i < sizeof loss / sizeof loss[0]; i++) {
        double sum[QP_N_PAIR_SUM], reward[N_SEQ];
        char name[32];
        r.settings.dpo = loss[i].config;
        run(&r, &f, &qp_dpo_objective, sum, reward);
        for (int side = 0; side < 2; side++) {
            snprintf(name, sizeof name, "%s.%s_rewards", loss[i].name,
                     side == 0 ? "chosen" : "rejected");
            const float *expected = rlhf_golden(&r, name, N_PAIR);
            for (int p = 0; p < N_PAIR; p++)
                rlhf_check(reward[2 * p + side], (double)expected[p], VALUE, name);
        }
        snprintf(name, sizeof name, "%s.loss", loss[i].name);
        rlhf_check(sum[QP_PAIR_LOSS] / N_PAIR, (double)rlhf_number(&r, name), VALUE, name);
        snprintf(name, sizeof name, "grad.%s", loss[i].name);
        rlhf_check_adapter(&r, r.run.model.adapter->grad, name, GRADIENT);
    }
    rlhf_close(&r);
}

int main(void)
{
    qp_comm_t *comm; /* keeps MPI alive over the set-ups */
    CHECK_OK(qp_comm_create(&comm));
    test_reward();
    test_dpo();
    qp_comm_destroy(&comm);
    return qp_test_end();
}
