#include "train/methods/pairs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "train/micro/accumulate.h"

double qp_log_sigmoid(double x)
{
    return x < 0.0 ? x - log1p(exp(x)) : -log1p(exp(-x));
}

/* --- room ------------------------------------------------------------------------------------- */

static void init(qp_pairs_t *pairs, qp_run_t *run)
{
    const int64_t n = qp_run_max_token(run);
    *pairs = (qp_pairs_t){.run = run,
                          .no_target = QP_NEW("pairs", int32_t, n),
                          .last = QP_NEW("pairs", uint8_t, n),
                          .value = {QP_NEW("pairs", float, n), QP_NEW("pairs", float, n)},
                          .gradient = QP_NEW("pairs", float, n)};
    for (int64_t t = 0; t < n; t++)
        pairs->no_target[t] = -1;
}

static void fini(qp_pairs_t *pairs)
{
    qp_free(pairs->no_target);
    qp_free(pairs->last);
    qp_free(pairs->value[0]);
    qp_free(pairs->value[1]);
    qp_free(pairs->gradient);
}

static qp_error_t run_micro(qp_pairs_t *pairs, const qp_pair_objective_t *objective,
                            const qp_batch_t *batch, const qp_pass_t *pass, double weight,
                            double *sum, double *reward)
{
    memset(pairs->last, 0, (size_t)batch->n_token);
    memset(pairs->gradient, 0, qp_bytes(batch->n_token, sizeof(float)));
    for (int64_t seq = 0; seq < batch->n_seq; seq++)
        pairs->last[batch->cu_seqlens[seq + 1] - 1] = 1;
    return objective->training_step(pairs, batch, pass, weight, sum, reward);
}

/* --- training --------------------------------------------------------------------------------- */

typedef struct {
    qp_pairs_t pairs;
    const qp_pair_objective_t *objective;
} training_t;

static qp_error_t next(void *owner, qp_work_t *work)
{
    qp_pairs_t *pairs = &((training_t *)owner)->pairs;
    QP_TRY(qp_loader_next(pairs->loader, &pairs->batch));
    *work = qp_loop_work(pairs->run, &pairs->batch, ((training_t *)owner)->objective->targets);
    return NULL;
}

static qp_error_t training_step(void *owner, int64_t u, int64_t i, const qp_pass_t *pass,
                                double *value)
{
    training_t *t = owner;
    const double weight = 1.0 / (double)t->pairs.run->settings->batch.global_sequences;
    (void)u;
    return run_micro(&t->pairs, t->objective, &t->pairs.batch.micro[i], pass, weight, value, NULL);
}

static void finish(void *owner, const double *total, double *metric)
{
    const training_t *t = owner;
    const double n = (double)t->pairs.run->settings->batch.global_sequences;
    for (int k = 0; k < t->objective->n_metric; k++)
        metric[k] = total != NULL ? total[k] / n : (double)NAN;
}

static qp_error_t evaluate(void *owner, double *metric)
{
    const training_t *t = owner;
    qp_pair_evaluation_t e;
    QP_TRY(qp_pairs_evaluate(t->pairs.run, t->objective, &e));
    memcpy(metric, e.mean, (size_t)t->objective->n_metric * sizeof *metric);
    return NULL;
}

qp_error_t qp_pairs_train(qp_run_t *run, const qp_pair_objective_t *objective)
{
    const qp_settings_t *s = run->settings;
    const qp_method_t method = {.name = objective->name,
                                .metric = objective->metric,
                                .n_metric = objective->n_metric,
                                .n_shown = 3,
                                .eval_metric = objective->eval_metric,
                                .n_eval_metric = objective->n_metric,
                                .n_value = QP_N_PAIR_SUM,
                                .next = next,
                                .training_step = training_step,
                                .finish = finish,
                                .evaluate = evaluate};
    training_t training = {.objective = objective};
    qp_loop_t *loop = NULL;
    qp_error_t error = NULL;
    init(&training.pairs, run);
    QP_TRY_DONE(qp_loop_create(run, &method, &training, &loop));
    QP_TRY_DONE(qp_loader_create(run->comm, run->given.train, &s->data, &s->batch, &run->given.eos,
                                 (uint32_t)s->job.seed, qp_loop_step(loop),
                                 &training.pairs.loader));
    QP_TRY_DONE(qp_loop_run(loop));
done:
    qp_loader_destroy(&training.pairs.loader);
    qp_loop_destroy(&loop);
    fini(&training.pairs);
    return error;
}

/* --- evaluation ------------------------------------------------------------------------------- */

/* Of every pair: its sums, margin and number. */
enum { VALUE_MARGIN = QP_N_PAIR_SUM, VALUE_DIFFERENCE, N_VALUE };

typedef struct {
    qp_pairs_t pairs;
    const qp_pair_objective_t *objective;
    qp_leaf_values_t values; /* a leaf is a pair */
    int64_t leaf;
    double *reward; /* [micro_sequences, QP_N_SIDE] */
} visit_t;

/* The objective sums over a micro-batch: the sums stand at its first pair, the rest at each. */
static qp_error_t visit(void *owner, const qp_batch_t *batch)
{
    visit_t *v = owner;
    const qp_pass_t pass = {.training = false};
    QP_TRY(run_micro(&v->pairs, v->objective, batch, &pass, 0.0,
                     qp_leaf_values_at(&v->values, v->leaf), v->reward));
    for (int64_t seq = 0; seq < batch->n_seq; seq += QP_N_SIDE) {
        double *value = qp_leaf_values_at(&v->values, v->leaf++);
        value[VALUE_MARGIN] = (double)batch->margin[seq];
        value[VALUE_DIFFERENCE] = v->reward[seq + QP_CHOSEN] - v->reward[seq + QP_REJECTED];
    }
    return NULL;
}

static int compare_margins(const void *a, const void *b)
{
    const double *p = a, *q = b;
    return (p[0] > q[0]) - (p[0] < q[0]);
}

/* Quarters of the pairs by margin; pairs of the same margin stay together. */
static void calibrate(const qp_leaf_values_t *values, qp_pair_evaluation_t *e)
{
    const int64_t n = values->n_leaf;
    double(*pair)[2] = qp_alloc("pairs", qp_bytes(n, sizeof *pair));
    for (int64_t i = 0; i < n; i++) {
        pair[i][0] = values->value[i * values->n_value + VALUE_MARGIN];
        pair[i][1] = values->value[i * values->n_value + VALUE_DIFFERENCE];
    }
    qsort(pair, (size_t)n, sizeof *pair, compare_margins);
    e->n_bin = 0;
    for (int64_t first = 0, end; first < n; first = end) {
        end = (int64_t)(e->n_bin + 1) * n / 4;
        end = end <= first ? first + 1 : end;
        while (end < n && pair[end][0] == pair[end - 1][0])
            end++;
        const int b = e->n_bin++;
        e->bin[b].least = pair[first][0];
        e->bin[b].most = pair[end - 1][0];
        e->bin[b].n_pair = end - first;
        double right = 0.0, confidence = 0.0;
        for (int64_t i = first; i < end; i++) {
            right += pair[i][1] > 0.0;
            confidence += 1.0 / (1.0 + exp(-pair[i][1]));
        }
        e->bin[b].accuracy = right / (double)(end - first);
        e->bin[b].confidence = confidence / (double)(end - first);
    }
    qp_free(pair);
}

qp_error_t qp_pairs_evaluate(qp_run_t *run, const qp_pair_objective_t *objective,
                             qp_pair_evaluation_t *e)
{
    const qp_settings_t *s = run->settings;
    const int64_t micro = s->batch.micro_sequences;
    int64_t n_row = qp_plan_n_row(run->given.eval_plan), first, end;
    if (s->data.eval_rows > 0 && s->data.eval_rows < n_row)
        n_row = s->data.eval_rows;
    visit_t v = {.objective = objective, .reward = QP_NEW("pairs", double, micro *QP_N_SIDE)};
    init(&v.pairs, run);
    qp_leaf_values_init(&v.values, n_row, N_VALUE);
    qp_tree_range((n_row + micro - 1) / micro, qp_comm_size(run->comm), qp_comm_rank(run->comm),
                  &first, &end);
    v.leaf = first * micro;
    qp_error_t error =
        qp_comm_agree(run->comm, qp_plan_visit(run->comm, run->given.eval, run->given.eval_plan,
                                               micro, n_row, visit, &v));
    if (error == NULL) {
        double total[N_VALUE];
        qp_leaf_values_total(run->comm, &v.values, total);
        *e = (qp_pair_evaluation_t){.n_pair = n_row};
        for (int k = 0; k < QP_N_PAIR_SUM; k++)
            e->mean[k] = total[k] / (double)n_row;
        calibrate(&v.values, e);
    }
    qp_leaf_values_fini(&v.values);
    qp_free(v.reward);
    fini(&v.pairs);
    return error;
}
