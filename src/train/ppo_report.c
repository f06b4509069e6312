/* What a step of PPO says of itself: the metrics of TRL under their names (recipe D8). */
#include <jansson.h>
#include <math.h>

#include "base/mem.h"
#include "train/ppo_impl.h"

/* Mean and standard deviation of a list as it grows. */
typedef struct {
    double n, sum, sum2;
} moments_t;

static void take(moments_t *m, double x)
{
    m->n += 1.0;
    m->sum += x;
    m->sum2 += x * x;
}

static double mean(const moments_t *m)
{
    return m->n > 0.0 ? m->sum / m->n : 0.0;
}

/* With Bessel's correction, as torch. */
static double deviation(const moments_t *m)
{
    return m->n > 1.0 ? sqrt(fmax(0.0, m->sum2 - m->sum * m->sum / m->n) / (m->n - 1.0)) : 0.0;
}

/* Everything a metric may want of a step. */
typedef struct {
    const qp_ppo_t *ppo;
    moments_t score, shaped, query, response, kl, entropy, non_score, logprob, ref_logprob;
    double returns_mean, returns_var, value_mean, value_var, stopped, difference, now;
} facts_t;

static double of_update(const facts_t *f, qp_ppo_sum_t sum)
{
    return f->ppo->n_sum_token > 0.0 ? f->ppo->sum[sum] / f->ppo->n_sum_token : NAN;
}

/* Share of the returns' variance that the values explain; where there is none, none of it. */
static double explained(const facts_t *f)
{
    const double error = of_update(f, QP_PPO_ERROR);
    return f->returns_var == 0.0 && error == 0.0 ? 0.0 : 1.0 - error / f->returns_var;
}

static double lasted(const facts_t *f, qp_ppo_time_t from, qp_ppo_time_t to)
{
    return f->ppo->time[to] - f->ppo->time[from];
}

#define NAME(id, name, value) name,
const char *const qp_ppo_metric[QP_N_PPO_METRIC] = {QP_PPO_METRICS(NAME)};
#undef NAME

static facts_t gather(const qp_ppo_t *ppo)
{
    const qp_experience_t *e = &ppo->experience;
    const qp_rollout_t *r = &e->rollout;
    facts_t f = {.ppo = ppo, .now = qp_time()};
    for (int64_t s = 0; s < r->n_seq; s++) {
        double entropy = 0.0;
        for (int64_t t = r->cu[s]; t < r->cu[s + 1]; t++) {
            entropy -= (double)e->logprob[t];
            take(&f.logprob, (double)e->logprob[t]);
            take(&f.ref_logprob, (double)e->ref_logprob[t]);
            take(&f.non_score, -ppo->kl_coef * (double)e->kl[t]);
            f.difference = fmax(f.difference, fabs((double)(e->logprob[t] - r->logprob[t])));
        }
        take(&f.entropy, entropy);
        take(&f.kl, e->sequence_kl[s]);
        take(&f.score, e->score[s]);
        take(&f.shaped, e->shaped[s]);
        take(&f.query, (double)r->n_query[s]);
        take(&f.response, (double)qp_rollout_n_response(r, s));
        f.stopped += (double)r->stopped[s] / (double)r->n_seq;
    }
    qp_ppo_mean_var(e->returns, r->n_token, &f.returns_mean, &f.returns_var);
    qp_ppo_mean_var(e->value, r->n_token, &f.value_mean, &f.value_var);
    return f;
}

void qp_ppo_report(qp_ppo_t *ppo, double *metric)
{
    const facts_t facts = gather(ppo), *f = &facts;
#define SET(id, name, value) metric[id] = value;
    QP_PPO_METRICS(SET)
#undef SET
}

/* --- samples.jsonl ---------------------------------------------------------------------------- */

/* JSON has no number that is not finite. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

qp_error_t qp_ppo_samples(void *owner, int64_t step, qp_str_t *lines)
{
    const qp_ppo_t *ppo = owner;
    const qp_experience_t *e = &ppo->experience;
    for (int64_t s = 0; s < e->rollout.n_seq; s++) {
        json_t *line = json_object();
        json_object_set_new(line, "step", json_integer(step));
        json_object_set_new(line, "score", number(e->score[s]));
        json_object_set_new(line, "kl", number(e->sequence_kl[s]));
        QP_TRY(qp_rollout_line(&e->rollout, ppo->run->tokenizer, s, line, lines));
    }
    return NULL;
}
