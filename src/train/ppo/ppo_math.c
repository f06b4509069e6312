#include "train/ppo/ppo_math.h"

#include <float.h>
#include <math.h>

#include "base/error.h"
#include "base/moments.h"

/* Not fmin() and fmax(): those would make a number of NaN. */
static double clip_to(double x, double low, double high)
{
    return x < low ? low : (x > high ? high : x);
}

/* --- rewards ---------------------------------------------------------------------------------- */

static double kl_k1(double d)
{
    return d;
}

static double kl_mse(double d)
{
    return 0.5 * d * d;
}

/* expm1: of exp(-d) - 1 + d the 1 leaves four digits at d = 1e-6, where training begins. */
static double kl_k3(double d)
{
    return expm1(-d) + d;
}

static double (*const kl_estimator[])(double d) = {
    [QP_KL_K1] = kl_k1,
    [QP_KL_ABS] = fabs,
    [QP_KL_MSE] = kl_mse,
    [QP_KL_K3] = kl_k3,
};

void qp_ppo_kl(qp_kl_penalty_t penalty, const float *logprob, const float *ref_logprob, int64_t n,
               float *kl)
{
    for (int64_t i = 0; i < n; i++)
        kl[i] = (float)kl_estimator[penalty]((double)logprob[i] - (double)ref_logprob[i]);
}

void qp_ppo_rewards(float *reward, const float *kl, const double *score, double kl_coef,
                    const int64_t *cu, int64_t n_seq)
{
    for (int64_t s = 0; s < n_seq; s++) {
        int64_t last = cu[s + 1] - 1;
        QP_ASSERT(last >= cu[s]);
        for (int64_t t = cu[s]; t < last; t++)
            reward[t] = (float)(-kl_coef * (double)kl[t]);
        reward[last] = (float)(-kl_coef * (double)kl[last] + score[s]);
    }
}

/* --- advantages ------------------------------------------------------------------------------- */

void qp_ppo_advantages(float *advantage, float *returns, const float *reward, const float *value,
                       double gamma, double lam, const int64_t *cu, int64_t n_seq)
{
    for (int64_t s = 0; s < n_seq; s++) {
        double next_value = 0.0, next_advantage = 0.0;
        for (int64_t t = cu[s + 1] - 1; t >= cu[s]; t--) {
            double delta = (double)reward[t] + gamma * next_value - (double)value[t];
            next_advantage = delta + gamma * lam * next_advantage;
            next_value = (double)value[t];
            advantage[t] = (float)next_advantage;
            returns[t] = (float)(next_advantage + next_value);
        }
    }
}

void qp_ppo_whiten(float *x, int64_t n, bool keep_mean)
{
    const qp_moments_t m = qp_moments(x, QP_F32, n);
    const double scale = 1.0 / sqrt(m.var + 1e-8), shift = keep_mean ? m.mean : 0.0;
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(((double)x[i] - m.mean) * scale + shift);
}

/* --- losses ----------------------------------------------------------------------------------- */

#define QP_PPO_SUM_NAME(id, name) name,
const char *const qp_ppo_sum_name[QP_N_PPO_SUM] = {QP_PPO_SUMS(QP_PPO_SUM_NAME)};
#undef QP_PPO_SUM_NAME

/* The greater of a loss and its clipped form, of one token. */
typedef struct {
    double loss, gradient;
    double is_clipped; /* 1 or 0, to be summed */
} token_loss_t;

/* Where the clipped form is the greater, its argument lies outside the range and is held there: it
 * has no gradient. Inside the range both forms are the same number. NaN is never clipped. */
static token_loss_t greater(double plain, double gradient, double clipped)
{
    if (clipped > plain)
        return (token_loss_t){.loss = clipped, .gradient = 0.0, .is_clipped = 1.0};
    return (token_loss_t){.loss = plain, .gradient = gradient, .is_clipped = 0.0};
}

/* The gradient is that for log(ratio): d ratio = ratio d log(ratio). */
static token_loss_t policy_loss(double advantage, double ratio, double range)
{
    double plain = -advantage * ratio;
    return greater(plain, plain, -advantage * clip_to(ratio, 1.0 - range, 1.0 + range));
}

static token_loss_t value_loss(double value, double old_value, double returns, double range)
{
    double error = value - returns;
    double clipped_error = clip_to(value, old_value - range, old_value + range) - returns;
    return greater(0.5 * error * error, error, 0.5 * clipped_error * clipped_error);
}

void qp_ppo_loss(const qp_ppo_clip_t *clip, const qp_ppo_old_t *old, const qp_ppo_now_t *now,
                 int64_t n_all, double *sum)
{
    for (int64_t i = 0; i < now->n; i++) {
        double change = (double)now->logprob[i] - (double)old->logprob[i];
        double ratio = exp(change); /* exactly 1 where nothing changed */
        double advantage = (double)old->advantage[i];
        double v = (double)now->value[i], error = v - (double)old->returns[i];
        token_loss_t p = policy_loss(advantage, ratio, clip->cliprange);
        token_loss_t q =
            value_loss(v, (double)old->value[i], (double)old->returns[i], clip->cliprange_value);
        const double term[QP_N_PPO_SUM] = {
            [QP_PPO_LOSS_POLICY] = p.loss,
            [QP_PPO_LOSS_VALUE] = q.loss,
            [QP_PPO_ENTROPY] = (double)now->entropy[i],
            [QP_PPO_APPROXKL] = 0.5 * change * change,
            [QP_PPO_POLICYKL] = -change,
            [QP_PPO_CLIPFRAC] = p.is_clipped,
            [QP_PPO_ADVANTAGES] = advantage,
            [QP_PPO_RATIO] = ratio,
            [QP_PPO_VPRED] = v,
            [QP_PPO_ERROR] = error * error,
            [QP_PPO_VALUE_CLIPFRAC] = q.is_clipped,
        };
        for (int k = 0; k < QP_N_PPO_SUM; k++)
            sum[k] += term[k];
        now->dlogprob[i] = (float)(p.gradient / (double)n_all);
        now->dvalue[i] = (float)(clip->vf_coef * q.gradient / (double)n_all);
    }
}

/* --- KL control ------------------------------------------------------------------------------- */

double qp_ppo_adapt_kl(double kl_coef, double kl, double target, double horizon, int64_t n_sample)
{
    double error = clip_to(kl / target - 1.0, -0.2, 0.2);
    return kl_coef * (1.0 + error * (double)n_sample / horizon);
}

/* --- scores ----------------------------------------------------------------------------------- */

void qp_running_moments_init(qp_running_moments_t *moments)
{
    *moments = (qp_running_moments_t){.mean = 0.0, .std = 1.0, .var = 1.0, .count = 1e-24};
}

void qp_running_moments_update(qp_running_moments_t *moments, const double *score, int64_t n,
                               double *mean, double *std)
{
    QP_ASSERT(n >= 1);
    const qp_moments_t new = qp_moments(score, QP_F64, n);
    double m = (double)n, count = moments->count, total = count + m;
    double delta = new.mean - moments->mean;
    double all_squares = moments->var * count + delta * delta * count * m / total + new.squares;
    *mean = new.mean;
    *std = sqrt(new.var);
    moments->mean += delta * m / total;
    moments->var = all_squares / total;
    moments->std = total > 1.0 ? sqrt(all_squares / (total - 1.0)) : (double)INFINITY;
    moments->count = total;
}

void qp_ppo_shape_scores(const qp_score_shaping_t *shaping, qp_running_moments_t *moments,
                         double *score, int64_t n)
{
    double mean, std;
    if (shaping->use_score_scaling) {
        qp_running_moments_update(moments, score, n, &mean, &std);
        const double least = (double)FLT_EPSILON * fmax(1.0, fabs(moments->mean));
        const double scale = moments->std <= least ? 1.0 : moments->std + (double)FLT_EPSILON;
        const double shift = shaping->use_score_norm ? moments->mean : 0.0;
        for (int64_t i = 0; i < n; i++)
            score[i] = (score[i] - shift) / scale;
    }
    if (shaping->score_clip > 0.0)
        for (int64_t i = 0; i < n; i++)
            score[i] = clip_to(score[i], -shaping->score_clip, shaping->score_clip);
}
