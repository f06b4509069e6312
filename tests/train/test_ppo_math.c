/* Rewards, advantages, KL control and scores of PPO against plain twins, written down from the
 * formulas of doc/rlhf.md in another form where there is one, against numbers worked out by hand,
 * and at the edges: responses of one token, no spread, overflow. */
#include <float.h>
#include <string.h>

#include "ppo_testing.h"

/* --- rewards ---------------------------------------------------------------------------------- */

static void test_kl(void)
{
    const double tiny = ldexp(1.0, -20);
    const struct {
        float d;
        double expected[4]; /* k1, abs, mse, k3 */
    } table[] = {
        {0.0f, {0.0, 0.0, 0.0, 0.0}},
        {2.0f, {2.0, 2.0, 2.0, exp(-2.0) + 1.0}},
        {-1.5f, {-1.5, 1.5, 1.125, exp(1.5) - 2.5}},
        {200.0f, {200.0, 200.0, 20000.0, 199.0}},
        {-1000.0f, {-1000.0, 1000.0, 500000.0, (double)INFINITY}},
    };
    float kl;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (int k = 0; k < 4; k++) {
            const float ref = -3.0f, logprob = ref + table[i].d;
            qp_ppo_kl((qp_kl_penalty_t)k, &logprob, &ref, 1, &kl);
            CHECK_MSG((double)kl == table[i].expected[k] ||
                          near((double)kl, table[i].expected[k], rounded),
                      "estimator %d of %g is %g", k, (double)table[i].d, (double)kl);
        }
    /* k3 of a small difference is its square, not what rounding leaves of 1 - 1. */
    const float ref = -1.0f, logprob = -1.0f + (float)tiny;
    qp_ppo_kl(QP_KL_K3, &logprob, &ref, 1, &kl);
    CHECK_NEAR((double)kl / (tiny * tiny / 2), 1.0 - tiny / 3 + tiny * tiny / 12, rounded);
}

static void test_rewards(void)
{
    const double score[N_SEQ] = {0.5, -2.0, 3.0, 0.0, 1e-3}, kl_coef = 0.3;
    const bool is_last[N] = {[0] = true, [4] = true, [6] = true, [13] = true, [16] = true};
    float kl[N], reward[N];
    draw(1, 0.1, 1.0, kl);
    qp_ppo_rewards(reward, kl, score, kl_coef, cu, N_SEQ);
    for (int t = 0, s = 0; t < N; s += is_last[t++])
        CHECK_NEAR(reward[t], (is_last[t] ? score[s] : 0.0) - kl_coef * (double)kl[t], rounded);
}

/* --- advantages ------------------------------------------------------------------------------- */

/* TD residuals, without recursion: the value after the last token is 0. */
static double residual(const float *reward, const float *value, double gamma, int64_t t,
                       int64_t end)
{
    double next = t + 1 < end ? (double)value[t + 1] : 0.0;
    return (double)reward[t] + gamma * next - (double)value[t];
}

static void test_advantages_twin(void)
{
    const double gamma = 0.9, lam = 0.8;
    float reward[N], value[N], advantage[N], returns[N];
    draw(2, 0.0, 1.0, reward);
    draw(3, 0.3, 0.5, value);
    qp_ppo_advantages(advantage, returns, reward, value, gamma, lam, cu, N_SEQ);
    for (int s = 0; s < N_SEQ; s++)
        for (int64_t t = cu[s]; t < cu[s + 1]; t++) {
            double sum = 0.0;
            for (int64_t k = t; k < cu[s + 1]; k++)
                sum += pow(gamma * lam, (double)(k - t)) *
                       residual(reward, value, gamma, k, cu[s + 1]);
            CHECK_NEAR(advantage[t], sum, rounded);
            CHECK_NEAR(returns[t], sum + (double)value[t], rounded);
        }
}

static void test_advantages_by_hand(void)
{
    const int64_t one[] = {0, 3};
    const float reward[] = {0.0f, 0.0f, 1.0f}, value[] = {0.5f, 0.25f, 0.125f};
    float advantage[3], returns[3];
    qp_ppo_advantages(advantage, returns, reward, value, 1.0, 0.95, one, 1);
    CHECK_NEAR(advantage[2], 0.875, rounded);     /* 1 - 0.125 */
    CHECK_NEAR(advantage[1], 0.70625, rounded);   /* 0.125 - 0.25 + 0.95 x 0.875 */
    CHECK_NEAR(advantage[0], 0.4209375, rounded); /* 0.25 - 0.5 + 0.95 x 0.70625 */
    CHECK_NEAR(returns[0], 0.9209375, rounded);
    CHECK_NEAR(returns[2], 1.0, rounded);
}

/* A sequence gets the same bits alone, whatever its neighbours are. */
static void test_sequences_are_independent(void)
{
    float reward[N], value[N], advantage[N], returns[N], alone[N], returns_alone[N];
    draw(2, 0.0, 1.0, reward);
    draw(3, 0.3, 0.5, value);
    qp_ppo_advantages(advantage, returns, reward, value, 1.0, 0.95, cu, N_SEQ);
    for (int s = 0; s < N_SEQ; s++) {
        const int64_t n = cu[s + 1] - cu[s], one[] = {0, n};
        const size_t n_bytes = (size_t)n * sizeof(float);
        qp_ppo_advantages(alone, returns_alone, reward + cu[s], value + cu[s], 1.0, 0.95, one, 1);
        CHECK(same_bits(alone, advantage + cu[s], n_bytes));
        CHECK(same_bits(returns_alone, returns + cu[s], n_bytes));
    }
}

/* Half the mean square of all differences: no mean in it, and Bessel's correction without n / (n -
 * 1). */
static double variance_of_pairs(const double *x, int n)
{
    double sum = 0.0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            sum += (x[i] - x[j]) * (x[i] - x[j]);
    return sum / ((double)n * (double)(n - 1));
}

static double mean_of(const double *x, int n)
{
    double sum = 0.0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    return sum / (double)n;
}

static void test_whiten(void)
{
    float x[N], y[N], kept[N];
    double in[N], out[N];
    draw(4, 2.0, 3.0, x);
    memcpy(y, x, sizeof x);
    memcpy(kept, x, sizeof x);
    qp_ppo_whiten(y, N, false);
    qp_ppo_whiten(kept, N, true);
    for (int i = 0; i < N; i++) {
        in[i] = (double)x[i];
        out[i] = (double)y[i];
    }
    const double mean = mean_of(in, N), scale = sqrt(variance_of_pairs(in, N) + 1e-8);
    for (int i = 0; i < N; i++) {
        CHECK_NEAR(y[i], (in[i] - mean) / scale, rounded);
        CHECK_NEAR(kept[i], (in[i] - mean) / scale + mean, rounded);
    }
    CHECK_NEAR(mean_of(out, N), 0.0, rounded);
    CHECK_NEAR(variance_of_pairs(out, N), 1.0, rounded);
}

static void test_whiten_without_spread(void)
{
    float one = 5.0f, kept = 5.0f, small[] = {0.0f, 2e-4f};
    float same[] = {0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 0.1f};
    qp_ppo_whiten(&one, 1, false);
    qp_ppo_whiten(&kept, 1, true);
    qp_ppo_whiten(same, 7, false);
    qp_ppo_whiten(same, 0, false);
    CHECK(one == 0.0f && kept == 5.0f && same[0] == 0.0f && same[6] == 0.0f);
    qp_ppo_whiten(small, 2, false); /* var 2e-8: the 1e-8 beside it counts */
    CHECK_NEAR(small[1], 1.0 / sqrt(3.0), rounded);
}

/* --- KL control and scores -------------------------------------------------------------------- */

static void test_adapt_kl(void)
{
    const double up = 0.2 * (1.0 + 0.2 * 64 / 10000), down = 0.2 * (1.0 - 0.2 * 64 / 10000);
    CHECK_NEAR(qp_ppo_adapt_kl(0.2, 6.0, 6.0, 10000.0, 64), 0.2, exact);
    CHECK_NEAR(qp_ppo_adapt_kl(0.2, 6.6, 6.0, 10000.0, 64), 0.200128, exact); /* 1 + 0.1 x 0.0064 */
    CHECK_NEAR(qp_ppo_adapt_kl(0.2, 60.0, 6.0, 10000.0, 64), up, exact);
    CHECK_NEAR(qp_ppo_adapt_kl(0.2, 0.0, 6.0, 10000.0, 64), down, exact);
    CHECK_NEAR(qp_ppo_adapt_kl(0.2, -5.0, 6.0, 10000.0, 64), down, exact);
    CHECK(isnan(qp_ppo_adapt_kl(0.2, (double)NAN, 6.0, 10000.0, 64)));
}

/* Batch by batch, it knows what one look at all scores so far would tell. */
static void test_running_moments(void)
{
    const double x[] = {3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0, 5.5};
    const int end[] = {1, 3, 8, 9};
    qp_running_moments_t moments;
    double mean, std;
    qp_running_moments_init(&moments);
    CHECK(moments.mean == 0.0 && moments.std == 1.0 && moments.var == 1.0 && moments.count > 0.0);
    for (int i = 0, first = 0; i < 4; first = end[i++]) {
        const int n = end[i], n_new = n - first;
        qp_running_moments_update(&moments, x + first, n_new, &mean, &std);
        CHECK_NEAR(mean, mean_of(x + first, n_new), exact);
        CHECK_NEAR(std, n_new == 1 ? 0.0 : sqrt(variance_of_pairs(x + first, n_new)), exact);
        CHECK_NEAR(moments.mean, mean_of(x, n), exact);
        CHECK_NEAR(moments.count, n, exact);
        if (n == 1) {
            CHECK(isinf(moments.std));
            continue;
        }
        CHECK_NEAR(moments.std, sqrt(variance_of_pairs(x, n)), exact);
        CHECK_NEAR(moments.var, variance_of_pairs(x, n) * (n - 1) / n, exact);
    }
}

static void test_shape_scores(void)
{
    const double s = sqrt(2.0) + (double)FLT_EPSILON; /* of {1, 3}: mean 2 */
    const double s100 = 100 * sqrt(2.0) + (double)FLT_EPSILON;
    const struct {
        qp_score_shaping_t shaping;
        double score[2], expected[2];
    } table[] = {
        {{.score_clip = 0.0}, {1.0, 300.0}, {1.0, 300.0}},
        {{.score_clip = 2.0}, {-5.0, 1.5}, {-2.0, 1.5}},
        {{.use_score_norm = true}, {1.0, 3.0}, {1.0, 3.0}}, /* nothing without scaling */
        {{.use_score_scaling = true}, {1.0, 3.0}, {1.0 / s, 3.0 / s}},
        {{.use_score_scaling = true, .use_score_norm = true}, {1.0, 3.0}, {-1.0 / s, 1.0 / s}},
        {{.use_score_scaling = true, .score_clip = 1.0}, {100.0, 300.0}, {100.0 / s100, 1.0}},
        {{.use_score_scaling = true, .use_score_norm = true}, {3.0, 3.0}, {0.0, 0.0}},
        {{.use_score_scaling = true, .score_clip = 5.0}, {3.0, 3.0}, {3.0, 3.0}},
        {{.use_score_scaling = true}, {1e7 + 1.0, 1e7}, {1e7 + 1.0, 1e7}}, /* less than a float */
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        qp_running_moments_t moments, before;
        double score[] = {table[i].score[0], table[i].score[1]};
        qp_running_moments_init(&moments);
        before = moments;
        qp_ppo_shape_scores(&table[i].shaping, &moments, score, 2);
        CHECK_NEAR(score[0], table[i].expected[0], exact);
        CHECK_NEAR(score[1], table[i].expected[1], exact);
        CHECK(same_bits(&moments, &before, sizeof moments) != table[i].shaping.use_score_scaling);
    }
}

/* A later batch is measured with all scores so far, its own among them. */
static void test_scores_of_two_steps(void)
{
    const qp_score_shaping_t norm = {.use_score_scaling = true, .use_score_norm = true};
    const double s = sqrt(20.0 / 3.0) + (double)FLT_EPSILON; /* of {1, 3, 5, 7}: mean 4 */
    qp_running_moments_t moments;
    double first[] = {1.0, 3.0}, second[] = {5.0, 7.0};
    qp_running_moments_init(&moments);
    qp_ppo_shape_scores(&norm, &moments, first, 2);
    qp_ppo_shape_scores(&norm, &moments, second, 2);
    CHECK_NEAR(second[0], 1.0 / s, exact);
    CHECK_NEAR(second[1], 3.0 / s, exact);
}

/* One score alone has no scale: it counts for nothing. Equal ones stay what they are, until there
 * is one that differs. */
static void test_scores_without_spread(void)
{
    const qp_score_shaping_t scaling = {.use_score_scaling = true};
    qp_running_moments_t moments;
    double lone = 0.1, equal[] = {0.1, 0.1, 0.1}, nan[] = {(double)NAN, 1.0};
    qp_running_moments_init(&moments);
    qp_ppo_shape_scores(&scaling, &moments, &lone, 1);
    CHECK(lone == 0.0);
    qp_ppo_shape_scores(&scaling, &moments, equal, 3);
    CHECK(equal[1] == 0.1);
    CHECK(moments.std > 0.0); /* of the 1e-24 that the moments start with */
    double other = 0.6;       /* {0.1, 0.1, 0.1, 0.1, 0.6} */
    qp_ppo_shape_scores(&scaling, &moments, &other, 1);
    CHECK_NEAR(other, 0.6 / (sqrt(0.05) + (double)FLT_EPSILON), 1e-12);
    qp_ppo_shape_scores(&(qp_score_shaping_t){.score_clip = 1.0}, &moments, nan, 2);
    CHECK(isnan(nan[0]) && nan[1] == 1.0);
}

int main(void)
{
    test_kl();
    test_rewards();
    test_advantages_twin();
    test_advantages_by_hand();
    test_sequences_are_independent();
    test_whiten();
    test_whiten_without_spread();
    test_adapt_kl();
    test_running_moments();
    test_shape_scores();
    test_scores_of_two_steps();
    test_scores_without_spread();
    return qp_test_end();
}
