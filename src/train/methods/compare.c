#include "train/methods/compare.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/moments.h"
#include "formats/json.h"
#include "train/answers/rollout.h"
#include "train/answers/scorer.h"

/* Random numbers of evaluations are those of no step. */
static const uint32_t EVALUATION_STEP = 0xffffffffu;

/* --- this rank's queries ---------------------------------------------------------------------- */

typedef struct {
    int64_t n;
    qp_tokens_t *query; /* [n] */
} gathered_t;

static qp_error_t take_query(void *owner, const qp_batch_t *batch)
{
    gathered_t *g = owner;
    qp_tokens_t *query = &g->query[g->n++];
    qp_tokens_reserve(query, batch->n_token);
    for (int64_t t = 0; t < batch->n_token; t++)
        qp_tokens_push(query, batch->token[t]);
    return NULL;
}

static int64_t n_query_of(const qp_run_t *run)
{
    const int64_t n_row = qp_plan_n_row(run->given.eval_plan), most = run->settings->data.eval_rows;
    return most > 0 && most < n_row ? most : n_row;
}

/* --- statistics ------------------------------------------------------------------------------- */

/* Share of 3-grams that stood in the response before. */
static double repetition(const int32_t *token, int64_t n)
{
    int64_t n_again = 0;
    for (int64_t i = 1; i + 2 < n; i++) {
        bool again = false;
        for (int64_t j = 0; j < i && !again; j++)
            again = memcmp(token + i, token + j, 3 * sizeof *token) == 0;
        n_again += again;
    }
    return n > 2 ? (double)n_again / (double)(n - 2) : 0.0;
}

static void count_answers(const qp_rollout_t *r, qp_answer_statistics_t *s)
{
    const double n = (double)(s->n_query * s->n_draw);
    for (int64_t q = 0; q < r->n_seq; q++) {
        const int64_t n_response = qp_rollout_n_response(r, q);
        s->length += (double)n_response / n;
        s->repetition += repetition(r->token + r->first[q] + r->n_query[q], n_response) / n;
        s->stopped += (double)r->stopped[q] / n;
    }
}

/* Mean of n numbers and its standard error. */
static double mean_error(const double *x, int64_t n, double *error)
{
    const qp_moments_t m = qp_moments(x, QP_F64, n);
    *error = sqrt(m.var / (double)n);
    return m.mean;
}

static void count_rewards(const double *reward, qp_answer_statistics_t *s)
{
    double *mean = QP_NEW("rewards", double, s->n_query);
    for (int64_t q = 0; q < s->n_query; q++) {
        double best = -INFINITY;
        for (int64_t d = 0; d < s->n_draw; d++) {
            mean[q] += reward[q * s->n_draw + d] / (double)s->n_draw;
            best = fmax(best, reward[q * s->n_draw + d]);
        }
        s->best += (isnan(mean[q]) ? mean[q] : best) / (double)s->n_query;
    }
    s->reward = mean_error(mean, s->n_query, &s->reward_error);
    qp_free(mean);
}

/* --- answers ---------------------------------------------------------------------------------- */

/* A line for each answer of a draw. */
static qp_error_t add_lines(const qp_run_t *run, const qp_answering_t *how, int64_t draw,
                            const qp_rollout_t *rollout, const double *reward)
{
    for (int64_t q = 0; q < rollout->n_seq; q++) {
        json_t *line = json_object();
        json_object_set_new(line, "role", json_string(how->name));
        json_object_set_new(line, "answer", json_integer(draw));
        json_object_set_new(line, "score", qp_json_real(reward[q]));
        QP_TRY(qp_rollout_line(rollout, run->given.tokenizer, q, line, how->lines));
    }
    return NULL;
}

/* One answer to each query; its rewards to column \a draw of reward. Collective. */
static qp_error_t answer_once(qp_run_t *run, const qp_role_t *role, const qp_queries_t *queries,
                              const qp_answering_t *answering, int64_t draw, double *reward,
                              qp_answer_statistics_t *s)
{
    const int64_t longest = qp_settings_max_response(run->settings);
    const qp_answerer_t who = qp_run_answerer(run, *role);
    const qp_rollout_config_t how = {.step = EVALUATION_STEP,
                                     .draw = (uint32_t)draw,
                                     .min_length = longest,
                                     .max_length = longest,
                                     .stop_at_eos = run->settings->ppo.stop_at_eos};
    qp_rollout_t rollout;
    double *one = QP_NEW("rewards", double, s->n_query);
    qp_error_t error = qp_rollout_run(&who, queries, &how, &rollout);
    if (error == NULL)
        error = qp_scorer_score(run->given.scorer, &rollout, one);
    if (error == NULL)
        count_answers(&rollout, s);
    if (error == NULL && answering->lines != NULL)
        error = add_lines(run, answering, draw, &rollout, one);
    for (int64_t q = 0; q < s->n_query && error == NULL; q++)
        reward[q * s->n_draw + draw] = one[q];
    qp_rollout_fini(&rollout);
    qp_free(one);
    return error;
}

qp_error_t qp_reward_answers(qp_run_t *run, const qp_role_t *role, const qp_answering_t *how,
                             double **reward, qp_answer_statistics_t *s)
{
    const int64_t n_query = n_query_of(run), n_draw = how->n_draw;
    int64_t first, end;
    qp_tree_range(n_query, qp_comm_size(run->comm), qp_comm_rank(run->comm), &first, &end);
    gathered_t mine = {.query = QP_NEW("rewards", qp_tokens_t, end - first)};
    const int32_t **id = QP_NEW("rewards", const int32_t *, end - first);
    int64_t *n_id = QP_NEW("rewards", int64_t, end - first);
    *reward = QP_NEW("rewards", double, n_query *n_draw);
    *s = (qp_answer_statistics_t){.n_query = n_query, .n_draw = n_draw};
    qp_error_t error =
        qp_comm_agree(run->comm, qp_plan_visit(run->comm, run->given.eval, run->given.eval_plan, 1,
                                               n_query, take_query, &mine));
    for (int64_t i = 0; i < mine.n; i++) {
        id[i] = mine.query[i].id;
        n_id[i] = mine.query[i].n;
    }
    const qp_queries_t queries = {
        .n = mine.n, .n_global = n_query, .first = first, .id = id, .n_id = n_id};
    for (int64_t draw = 0; draw < n_draw && error == NULL; draw++)
        error = answer_once(run, role, &queries, how, draw, *reward, s);
    if (error == NULL)
        count_rewards(*reward, s);
    else
        QP_FREE(*reward);
    for (int64_t i = 0; i < end - first; i++)
        qp_tokens_fini(&mine.query[i]);
    qp_free(mine.query);
    qp_free(id);
    qp_free(n_id);
    return error;
}

/* --- one against another ---------------------------------------------------------------------- */

/* Student's t that 97.5% lie below, n - 1 degrees of freedom: exact for few, else the first terms
 * of its expansion in 1 / (n - 1) around the normal one (Abramowitz and Stegun 26.7.5). */
static double student_975(int64_t n)
{
    static const double few[] = {INFINITY, INFINITY, 12.706205, 4.302653,
                                 3.182446, 2.776445, 2.570582,  2.446912};
    const double z = 1.959964, z2 = z * z, f = (double)(n - 1);
    if (n < (int64_t)(sizeof few / sizeof few[0]))
        return few[n];
    return z * (1.0 + (z2 + 1.0) / (4.0 * f) + ((5.0 * z2 + 16.0) * z2 + 3.0) / (96.0 * f * f) +
                (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / (384.0 * f * f * f));
}

qp_win_rate_t qp_win_rate(const double *a, const double *b, int64_t n_query, int64_t n_draw)
{
    const double z = 1.959964, n = (double)n_query;
    double *difference = QP_NEW("rewards", double, n_query), won = 0.0;
    qp_win_rate_t w;
    for (int64_t i = 0; i < n_query * n_draw; i++) {
        const double x = a[i] - b[i];
        difference[i / n_draw] += x / (double)n_draw;
        won += isnan(x) ? x : x > 0.0 ? 1.0 : x == 0.0 ? 0.5 : 0.0;
    }
    w.win_rate = won / (n * (double)n_draw);
    const double middle = (w.win_rate + z * z / (2.0 * n)) / (1.0 + z * z / n);
    const double spread =
        z / (1.0 + z * z / n) * sqrt(w.win_rate * (1.0 - w.win_rate) / n + z * z / (4.0 * n * n));
    w.win_low = middle - spread;
    w.win_high = middle + spread;
    w.difference = mean_error(difference, n_query, &w.difference_error);
    const double reach =
        n_query > 1 ? student_975(n_query) * w.difference_error : student_975(n_query);
    w.difference_low = w.difference - reach;
    w.difference_high = w.difference + reach;
    qp_free(difference);
    return w;
}

void qp_compare_report(const char *name, const qp_answer_statistics_t *s, json_t *json)
{
    qp_log_info("%s: reward %.4f +- %.4f, best of %lld %.4f; %.1f tokens, %.1f%% ended by EOS, "
                "repetition %.3f",
                name, s->reward, s->reward_error, (long long)s->n_draw, s->best, s->length,
                100.0 * s->stopped, s->repetition);
    json_t *of = json_object();
    json_object_set_new(of, "reward_mean", qp_json_real(s->reward));
    json_object_set_new(of, "reward_error", qp_json_real(s->reward_error));
    json_object_set_new(of, "best_of", json_integer(s->n_draw));
    json_object_set_new(of, "best_mean", qp_json_real(s->best));
    json_object_set_new(of, "length_mean", qp_json_real(s->length));
    json_object_set_new(of, "stopped", qp_json_real(s->stopped));
    json_object_set_new(of, "repetition", qp_json_real(s->repetition));
    json_object_set_new(json, name, of);
}
