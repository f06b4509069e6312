#include "train/evaluate.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "train/accumulate.h"
#include "train/compare.h"
#include "train/pairs.h"

/* What each micro-batch leaves behind. */
enum { VALUE_LOSS, VALUE_TARGETS, N_VALUE };

typedef struct {
    qp_run_t *run;
    int64_t leaf; /* of the next micro-batch */
    qp_leaf_values_t values;
} visit_t;

static qp_error_t visit(void *owner, const qp_batch_t *batch)
{
    visit_t *v = owner;
    const qp_role_t role = qp_run_role(v->run);
    const qp_pass_t pass = {.training = false};
    const qp_model_batch_t model_batch = qp_run_batch(batch);
    double *value = qp_leaf_values_at(&v->values, v->leaf++);
    value[VALUE_TARGETS] = (double)batch->n_target;
    return qp_model_step(v->run->ws, &role, &model_batch, &pass, 0.0f, &value[VALUE_LOSS], NULL);
}

qp_error_t qp_evaluate(qp_run_t *run, qp_evaluation_t *evaluation)
{
    const qp_settings_t *s = run->settings;
    int64_t n_row = qp_plan_n_row(run->eval_plan), micro = s->batch.micro_sequences, end;
    double total[N_VALUE];
    visit_t v = {.run = run};
    if (s->data.eval_rows > 0 && s->data.eval_rows < n_row)
        n_row = s->data.eval_rows;
    qp_leaf_values_init(&v.values, (n_row + micro - 1) / micro, N_VALUE);
    qp_tree_range(v.values.n_leaf, qp_comm_size(run->comm), qp_comm_rank(run->comm), &v.leaf, &end);
    qp_error_t error = qp_comm_agree(
        run->comm, qp_plan_visit(run->comm, run->eval, run->eval_plan, micro, n_row, visit, &v));
    if (error == NULL) {
        QP_ASSERT(v.leaf == end);
        qp_leaf_values_total(run->comm, &v.values, total);
        evaluation->n_target = (int64_t)total[VALUE_TARGETS];
        evaluation->loss = total[VALUE_LOSS] / total[VALUE_TARGETS];
        evaluation->perplexity = exp(evaluation->loss);
    }
    qp_leaf_values_fini(&v.values);
    return error;
}

/* --- job.method = "eval": what is done follows from what data.eval holds -----------------------
 */

static qp_error_t eval_texts(qp_run_t *run, qp_str_t *json)
{
    qp_evaluation_t e;
    QP_TRY(qp_evaluate(run, &e));
    qp_log_info("eval_loss %.6f, perplexity %.4f over %lld targets", e.loss, e.perplexity,
                (long long)e.n_target);
    qp_str_printf(json, "\"eval_loss\": %.17g, \"eval_perplexity\": %.17g, \"n_target\": %lld",
                  e.loss, e.perplexity, (long long)e.n_target);
    return NULL;
}

static qp_error_t eval_pairs(qp_run_t *run, qp_str_t *json)
{
    qp_pair_evaluation_t e;
    QP_TRY(qp_pairs_evaluate(run, &qp_reward_objective, &e));
    qp_log_info("eval_loss %.6f, accuracy %.4f, margin %.4f over %lld pairs", e.mean[QP_PAIR_LOSS],
                e.mean[QP_PAIR_ACCURACY], e.mean[QP_PAIR_MARGIN], (long long)e.n_pair);
    qp_str_printf(json,
                  "\"eval_loss\": %.17g, \"eval_accuracy\": %.17g, \"eval_margin\": %.17g, "
                  "\"n_pair\": %lld, \"calibration\": [",
                  e.mean[QP_PAIR_LOSS], e.mean[QP_PAIR_ACCURACY], e.mean[QP_PAIR_MARGIN],
                  (long long)e.n_pair);
    for (int b = 0; b < e.n_bin; b++) {
        qp_log_info("  scores differ by %.3g to %.3g: %lld pairs, accuracy %.4f, expected %.4f",
                    e.bin[b].least, e.bin[b].most, (long long)e.bin[b].n_pair, e.bin[b].accuracy,
                    e.bin[b].confidence);
        qp_str_printf(json,
                      "%s{\"least\": %.9g, \"most\": %.9g, \"n_pair\": %lld, \"accuracy\": %.17g, "
                      "\"confidence\": %.17g}",
                      b > 0 ? ", " : "", e.bin[b].least, e.bin[b].most, (long long)e.bin[b].n_pair,
                      e.bin[b].accuracy, e.bin[b].confidence);
    }
    qp_str_puts(json, "]");
    return NULL;
}

static qp_error_t eval_queries(qp_run_t *run, qp_str_t *json)
{
    const int64_t n_draw = run->settings->generate.num_return_sequences;
    const qp_role_t role = qp_run_role(run), rival = {run->base, run->rival};
    qp_answer_statistics_t own, other;
    double *a = NULL, *b = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_reward_answers(run, &role, n_draw, &a, &own));
    qp_str_printf(json, "\"n_query\": %lld, ", (long long)own.n_query);
    qp_compare_report("policy", &own, json);
    if (run->has_rival) {
        QP_TRY_DONE(qp_reward_answers(run, &rival, n_draw, &b, &other));
        qp_str_puts(json, ", ");
        qp_compare_report("rival", &other, json);
        const qp_win_rate_t w = qp_win_rate(a, b, own.n_query, n_draw);
        qp_log_info("policy against rival: wins %.1f%% (95%%: %.1f to %.1f), reward %+.4f +- %.4f",
                    100.0 * w.win_rate, 100.0 * w.win_low, 100.0 * w.win_high, w.difference,
                    w.difference_error);
        qp_str_printf(json,
                      ", \"win_rate\": %.17g, \"win_rate_95\": [%.17g, %.17g], "
                      "\"difference\": %.17g, \"difference_error\": %.17g",
                      w.win_rate, w.win_low, w.win_high, w.difference, w.difference_error);
    }
done:
    qp_free(a);
    qp_free(b);
    return error;
}

static const struct {
    const char *kind;
    qp_error_t (*run)(qp_run_t *run, qp_str_t *json);
} eval_of[] = {{"sft", eval_texts}, {"reward", eval_pairs}, {"prompt", eval_queries}};

qp_error_t qp_method_eval(qp_run_t *run)
{
    const double start = qp_time();
    qp_str_t json = {0};
    qp_error_t error = NULL;
    qp_str_puts(&json, "{");
    for (size_t i = 0; i < sizeof eval_of / sizeof eval_of[0] && error == NULL; i++)
        if (strcmp(qp_dataset_kind(run->eval), eval_of[i].kind) == 0)
            error = eval_of[i].run(run, &json);
    qp_str_puts(&json, "}\n");
    if (error == NULL && qp_comm_rank(run->comm) == 0) {
        char *path = qp_format("%s/eval.json", run->folder);
        error = qp_file_write(path, json.data, json.n);
        qp_free(path);
    }
    qp_str_fini(&json);
    QP_TRY(qp_comm_agree(run->comm, error));
    qp_log_info("evaluated in %.1f s: %s/eval.json", qp_time() - start, run->folder);
    return NULL;
}
