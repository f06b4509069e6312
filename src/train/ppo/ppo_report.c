/* What a step of PPO says of itself: the metrics of TRL under their names (doc/rlhf.md,
 * "metrics.csv"). */
#include <math.h>

#include "base/mem.h"
#include "base/moments.h"
#include "formats/json.h"
#include "train/ppo/ppo_impl.h"

static double mean(const qp_moments_t *m)
{
    return m->mean;
}

static double deviation(const qp_moments_t *m)
{
    return sqrt(m->var);
}

/* Everything a metric may want of a step. */
typedef struct {
    const qp_ppo_t *ppo;
    qp_moments_t score, shaped, kl;               /* of sequences */
    qp_moments_t query, response, entropy;        /* of sequences too */
    qp_moments_t non_score, logprob, ref_logprob; /* of tokens */
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

/* What is of sequences, but is no array of the experience. */
static void gather_sequences(const qp_rollout_t *r, const qp_experience_t *e, facts_t *f)
{
    const int64_t n = r->n_seq;
    double *query = QP_NEW("metrics", double, 3 * n), *response = query + n,
           *entropy = response + n;
    for (int64_t s = 0; s < n; s++) {
        query[s] = (double)r->n_query[s];
        response[s] = (double)qp_rollout_n_response(r, s);
        for (int64_t t = r->cu[s]; t < r->cu[s + 1]; t++)
            entropy[s] -= (double)e->logprob[t];
        f->stopped += (double)r->stopped[s] / (double)n;
    }
    f->query = qp_moments(query, QP_F64, n);
    f->response = qp_moments(response, QP_F64, n);
    f->entropy = qp_moments(entropy, QP_F64, n);
    qp_free(query);
}

static facts_t gather(const qp_ppo_t *ppo)
{
    const qp_experience_t *e = &ppo->experience;
    const qp_rollout_t *r = &e->rollout;
    const qp_moments_t returns = qp_moments(e->returns, QP_F32, r->n_token);
    const qp_moments_t value = qp_moments(e->value, QP_F32, r->n_token);
    const double mean_kl = qp_moments(e->kl, QP_F32, r->n_token).mean;
    facts_t f = {.ppo = ppo,
                 .now = qp_time(),
                 .score = qp_moments(e->score, QP_F64, r->n_seq),
                 .shaped = qp_moments(e->shaped, QP_F64, r->n_seq),
                 .kl = qp_moments(e->sequence_kl, QP_F64, r->n_seq),
                 .non_score = {.mean = -ppo->kl_coef * mean_kl},
                 .logprob = qp_moments(e->logprob, QP_F32, r->n_token),
                 .ref_logprob = qp_moments(e->ref_logprob, QP_F32, r->n_token),
                 .returns_mean = returns.mean,
                 .returns_var = returns.var,
                 .value_mean = value.mean,
                 .value_var = value.var};
    gather_sequences(r, e, &f);
    for (int64_t t = 0; t < r->n_token; t++)
        f.difference = fmax(f.difference, fabs((double)(e->logprob[t] - r->logprob[t])));
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

qp_error_t qp_ppo_samples(void *owner, int64_t step, qp_str_t *lines)
{
    const qp_ppo_t *ppo = owner;
    const qp_experience_t *e = &ppo->experience;
    for (int64_t s = 0; s < e->rollout.n_seq; s++) {
        json_t *line = json_object();
        json_object_set_new(line, "step", json_integer(step));
        json_object_set_new(line, "score", qp_json_real(e->score[s]));
        json_object_set_new(line, "kl", qp_json_real(e->sequence_kl[s]));
        QP_TRY(qp_rollout_line(&e->rollout, ppo->run->given.tokenizer, s, line, lines));
    }
    return NULL;
}
