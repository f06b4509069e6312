/* The clipped losses of PPO: each branch by hand, sums against a twin without maxima, gradients
 * against the twin's slopes, parts against the whole, and at the edges: ties, an unchanged policy,
 * overflow. */
#include <string.h>

#include "ppo_testing.h"

/* Exact in binary, so that the edges of the ranges can be met. */
static const qp_ppo_clip_t clip = {.cliprange = 0.25, .cliprange_value = 0.5, .vf_coef = 0.125};
enum { N_ALL = 4 };

/* What one token gives: sums and gradients. */
typedef struct {
    float logprob, value, advantage, returns, old_logprob, old_value;
    double sum[QP_N_PPO_SUM];
    float dlogprob, dvalue;
} token_t;

static void loss_of(token_t *token)
{
    const qp_ppo_old_t old = {.logprob = &token->old_logprob,
                              .value = &token->old_value,
                              .advantage = &token->advantage,
                              .returns = &token->returns};
    const float entropy = 0.0f;
    const qp_ppo_now_t now = {.n = 1,
                              .logprob = &token->logprob,
                              .value = &token->value,
                              .entropy = &entropy,
                              .dlogprob = &token->dlogprob,
                              .dvalue = &token->dvalue};
    memset(token->sum, 0, sizeof token->sum);
    qp_ppo_loss(&clip, &old, &now, N_ALL, token->sum);
}

static void test_policy_cases(void)
{
    const double up = exp(0.5), down = exp(-0.5); /* beyond 1.25, below 0.75 */
    const struct {
        float advantage, change;
        double loss, is_clipped, gradient;
    } table[] = {
        {2.0f, 0.0f, -2.0, 0.0, -2.0},
        {-2.0f, 0.0f, 2.0, 0.0, 2.0},
        {2.0f, 0.5f, -2.5, 1.0, 0.0},
        {-2.0f, 0.5f, 2 * up, 0.0, 2 * up},
        {2.0f, -0.5f, -2 * down, 0.0, -2 * down},
        {-2.0f, -0.5f, 1.5, 1.0, 0.0},
        {0.0f, 0.5f, 0.0, 0.0, 0.0}, /* a tie outside the range */
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        token_t token = {.advantage = table[i].advantage,
                         .old_logprob = -1.0f,
                         .logprob = -1.0f + table[i].change};
        loss_of(&token);
        CHECK_NEAR(token.sum[QP_PPO_LOSS_POLICY], table[i].loss, exact);
        CHECK_NEAR(token.sum[QP_PPO_CLIPFRAC], table[i].is_clipped, exact);
        CHECK_NEAR(token.dlogprob, table[i].gradient / N_ALL, rounded);
    }
}

static void test_value_cases(void)
{
    const struct {
        float old, value, returns;
        double loss, is_clipped, gradient;
    } table[] = {
        {1.0f, 1.0f, 2.0f, 0.5, 0.0, -1.0},
        {1.0f, 2.0f, 3.0f, 1.125, 1.0, 0.0}, /* held at 1.5 */
        {1.0f, 2.0f, 0.0f, 2.0, 0.0, 2.0},
        {1.0f, 0.0f, -1.0f, 1.125, 1.0, 0.0}, /* held at 0.5 */
        {1.0f, 0.0f, 3.0f, 4.5, 0.0, -3.0},
        {1.0f, 1.5f, 3.0f, 1.125, 0.0, -1.5},    /* on the edge: both are the same */
        {0.0f, 1.0f, 0.75f, 0.03125, 0.0, 0.25}, /* 1 and 0.5 are as far from 0.75 */
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        token_t token = {
            .old_value = table[i].old, .value = table[i].value, .returns = table[i].returns};
        const double error = (double)table[i].value - (double)table[i].returns;
        loss_of(&token);
        CHECK_NEAR(token.sum[QP_PPO_LOSS_VALUE], table[i].loss, exact);
        CHECK_NEAR(token.sum[QP_PPO_VALUE_CLIPFRAC], table[i].is_clipped, exact);
        CHECK_NEAR(token.sum[QP_PPO_ERROR], error * error, exact);
        CHECK_NEAR(token.dvalue, clip.vf_coef * table[i].gradient / N_ALL, rounded);
    }
}

/* A mini-batch in which every branch is taken. */
typedef struct {
    float logprob[N], value[N], entropy[N];
    float old_logprob[N], old_value[N], advantage[N], returns[N];
    float dlogprob[N], dvalue[N];
    double sum[QP_N_PPO_SUM];
} mini_t;

static void mini_init(mini_t *mini)
{
    memset(mini, 0, sizeof *mini);
    draw(5, -2.0, 1.0, mini->old_logprob);
    draw(6, 0.0, 0.4, mini->logprob);
    draw(7, 0.0, 1.0, mini->old_value);
    draw(8, 0.0, 0.9, mini->value);
    draw(9, 0.0, 1.0, mini->returns);
    draw(10, 0.0, 1.0, mini->advantage);
    draw(11, 2.0, 0.5, mini->entropy);
    for (int i = 0; i < N; i++) {
        mini->logprob[i] += mini->old_logprob[i];
        mini->value[i] += mini->old_value[i];
    }
}

/* The loss of tokens [first, first + n) of a mini-batch that has n_all. */
static void mini_loss(mini_t *mini, int64_t first, int64_t n, int64_t n_all)
{
    const qp_ppo_old_t old = {.logprob = mini->old_logprob + first,
                              .value = mini->old_value + first,
                              .advantage = mini->advantage + first,
                              .returns = mini->returns + first};
    const qp_ppo_now_t now = {.n = n,
                              .logprob = mini->logprob + first,
                              .value = mini->value + first,
                              .entropy = mini->entropy + first,
                              .dlogprob = mini->dlogprob + first,
                              .dvalue = mini->dvalue + first};
    qp_ppo_loss(&clip, &old, &now, n_all, mini->sum);
}

/* By the sign of the advantage instead of a maximum: a gain counts up to 1 + cliprange, a loss down
 * to 1 - cliprange. */
static double policy_twin(const mini_t *mini, int i, double logprob, double *is_clipped)
{
    const double a = (double)mini->advantage[i];
    const double ratio = exp(logprob - (double)mini->old_logprob[i]);
    const double bound = a > 0.0 ? 1.0 + clip.cliprange : 1.0 - clip.cliprange;
    *is_clipped = a > 0.0 ? ratio > bound : ratio < bound;
    return *is_clipped > 0.0 ? -a * bound : -a * ratio;
}

/* By distances: of the value and of where it would be held, the one farther from the return. */
static double value_twin(const mini_t *mini, int i, double value, double *is_clipped)
{
    const double old = (double)mini->old_value[i], target = (double)mini->returns[i];
    const double move = fmin(fabs(value - old), clip.cliprange_value);
    const double far = fabs(value - target),
                 held = fabs(old + copysign(move, value - old) - target);
    *is_clipped = held > far && fabs(value - old) > clip.cliprange_value;
    return 0.5 * pow(*is_clipped > 0.0 ? held : far, 2.0);
}

static void sums_twin(const mini_t *mini, double *sum)
{
    memset(sum, 0, QP_N_PPO_SUM * sizeof *sum);
    for (int i = 0; i < N; i++) {
        const double logprob = (double)mini->logprob[i], value = (double)mini->value[i];
        const double log_ratio = logprob - (double)mini->old_logprob[i];
        double policy_clipped, value_clipped;
        sum[QP_PPO_LOSS_POLICY] += policy_twin(mini, i, logprob, &policy_clipped);
        sum[QP_PPO_LOSS_VALUE] += value_twin(mini, i, value, &value_clipped);
        sum[QP_PPO_ENTROPY] += (double)mini->entropy[i];
        sum[QP_PPO_APPROXKL] += pow(log_ratio, 2.0) / 2.0;
        sum[QP_PPO_POLICYKL] -= log_ratio;
        sum[QP_PPO_CLIPFRAC] += policy_clipped;
        sum[QP_PPO_ADVANTAGES] += (double)mini->advantage[i];
        sum[QP_PPO_RATIO] += exp(log_ratio);
        sum[QP_PPO_VPRED] += value;
        sum[QP_PPO_ERROR] += pow(value - (double)mini->returns[i], 2.0);
        sum[QP_PPO_VALUE_CLIPFRAC] += value_clipped;
    }
}

static void test_loss_twin(void)
{
    mini_t mini;
    double expected[QP_N_PPO_SUM];
    mini_init(&mini);
    mini_loss(&mini, 0, N, N);
    sums_twin(&mini, expected);
    for (int k = 0; k < QP_N_PPO_SUM; k++)
        CHECK_MSG(near(mini.sum[k], expected[k], exact), "%s: %.12g, not %.12g", qp_ppo_sum_name[k],
                  mini.sum[k], expected[k]);
    CHECK(expected[QP_PPO_CLIPFRAC] >= 3.0 && expected[QP_PPO_CLIPFRAC] <= N - 3.0);
    CHECK(expected[QP_PPO_VALUE_CLIPFRAC] >= 3.0 && expected[QP_PPO_VALUE_CLIPFRAC] <= N - 3.0);
}

/* Slopes of the twins. The numbers drawn lie farther from every tie than the step. */
static void test_gradients(void)
{
    const double h = 1e-5, n_all = 40.0;
    mini_t mini;
    double ignored;
    mini_init(&mini);
    mini_loss(&mini, 0, N, (int64_t)n_all);
    for (int i = 0; i < N; i++) {
        const double x = (double)mini.logprob[i], v = (double)mini.value[i];
        const double policy =
            policy_twin(&mini, i, x + h, &ignored) - policy_twin(&mini, i, x - h, &ignored);
        const double value =
            value_twin(&mini, i, v + h, &ignored) - value_twin(&mini, i, v - h, &ignored);
        CHECK_NEAR(n_all * (double)mini.dlogprob[i], policy / (2.0 * h), slope);
        CHECK_NEAR(n_all * (double)mini.dvalue[i], clip.vf_coef * value / (2.0 * h), slope);
    }
}

/* Cut at sequences and given in order, a mini-batch has the bits of the whole; in another order the
 * sums agree but for rounding. */
static void test_parts_make_the_whole(void)
{
    mini_t whole, parts, backwards;
    mini_init(&whole);
    parts = backwards = whole;
    mini_loss(&whole, 0, N, N);
    for (int s = 0; s < N_SEQ; s++)
        mini_loss(&parts, cu[s], cu[s + 1] - cu[s], N);
    for (int s = N_SEQ - 1; s >= 0; s--)
        mini_loss(&backwards, cu[s], cu[s + 1] - cu[s], N);
    CHECK(same_bits(&whole, &parts, sizeof whole));
    CHECK(same_bits(whole.dlogprob, backwards.dlogprob, sizeof whole.dlogprob));
    for (int k = 0; k < QP_N_PPO_SUM; k++)
        CHECK_NEAR(backwards.sum[k], whole.sum[k], exact);
}

/* The first mini-batch of a step: not a bit of the policy has changed. */
static void test_unchanged_policy(void)
{
    mini_t mini;
    double sum = 0.0;
    mini_init(&mini);
    memcpy(mini.logprob, mini.old_logprob, sizeof mini.logprob);
    memcpy(mini.value, mini.old_value, sizeof mini.value);
    mini_loss(&mini, 0, N, N);
    for (int i = 0; i < N; i++) {
        sum -= (double)mini.advantage[i];
        CHECK(mini.dlogprob[i] == (float)(-(double)mini.advantage[i] / N));
    }
    CHECK(mini.sum[QP_PPO_LOSS_POLICY] == sum && mini.sum[QP_PPO_RATIO] == N);
    CHECK(mini.sum[QP_PPO_APPROXKL] == 0.0 && mini.sum[QP_PPO_POLICYKL] == 0.0);
    CHECK(mini.sum[QP_PPO_CLIPFRAC] == 0.0 && mini.sum[QP_PPO_VALUE_CLIPFRAC] == 0.0);
}

/* Equal, or NaN both. */
static bool same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static void test_overflow(void)
{
    const double inf = (double)INFINITY, nan = (double)NAN;
    const struct {
        float advantage, logprob;
        double ratio, loss, gradient, is_clipped;
    } table[] = {
        {1.0f, 1000.0f, inf, -1.25, 0.0, 1.0},
        {-1.0f, 1000.0f, inf, inf, inf, 0.0},
        {0.0f, 1000.0f, inf, nan, nan, 0.0},
        {1.0f, -1000.0f, 0.0, 0.0, 0.0, 0.0},
        {-1.0f, -1000.0f, 0.0, 0.75, 0.0, 1.0},
        {-1.0f, 100.0f, exp(100.0), exp(100.0), inf, 0.0}, /* too great for float only */
        {-1.0f, INFINITY, inf, inf, inf, 0.0},
        {1.0f, NAN, nan, nan, nan, 0.0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        token_t token = {.advantage = table[i].advantage, .logprob = table[i].logprob};
        loss_of(&token);
        CHECK_MSG(same(token.sum[QP_PPO_RATIO], table[i].ratio) &&
                      same(token.sum[QP_PPO_LOSS_POLICY], table[i].loss) &&
                      same((double)token.dlogprob, table[i].gradient) &&
                      same(token.sum[QP_PPO_CLIPFRAC], table[i].is_clipped),
                  "case %zu: ratio %g, loss %g, gradient %g", i, token.sum[QP_PPO_RATIO],
                  token.sum[QP_PPO_LOSS_POLICY], (double)token.dlogprob);
    }
    token_t token = {.value = NAN};
    loss_of(&token);
    CHECK(isnan(token.sum[QP_PPO_LOSS_VALUE]) && isnan(token.dvalue) &&
          isnan(token.sum[QP_PPO_VPRED]));
}

static void test_names(void)
{
    CHECK(strcmp(qp_ppo_sum_name[QP_PPO_LOSS_POLICY], "ppo/loss/policy") == 0);
    CHECK(strcmp(qp_ppo_sum_name[QP_PPO_VALUE_CLIPFRAC], "ppo/val/clipfrac") == 0);
}

int main(void)
{
    test_policy_cases();
    test_value_cases();
    test_loss_twin();
    test_gradients();
    test_parts_make_the_whole();
    test_unchanged_policy();
    test_overflow();
    test_names();
    return qp_test_end();
}
