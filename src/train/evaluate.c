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
        /* Rows without a target have no loss. */
        evaluation->loss =
            evaluation->n_target > 0 ? total[VALUE_LOSS] / total[VALUE_TARGETS] : (double)NAN;
        evaluation->perplexity = exp(evaluation->loss);
    }
    qp_leaf_values_fini(&v.values);
    return error;
}

/* --- job.method = "eval": what is done follows from what data.eval holds -----------------------
 */

/* Into the run's folder, by rank 0. Collective. */
static qp_error_t write_file(const qp_run_t *run, const char *name, const qp_str_t *text)
{
    qp_error_t error = NULL;
    if (qp_comm_rank(run->comm) == 0) {
        char *path = qp_format("%s/%s", run->folder, name);
        error = qp_file_write(path, text->data, text->n);
        qp_free(path);
    }
    return qp_comm_agree(run->comm, error);
}

static qp_error_t eval_texts(qp_run_t *run, qp_str_t *json)
{
    qp_evaluation_t e;
    QP_TRY(qp_evaluate(run, &e));
    qp_log_info("eval_loss %.6f, perplexity %.4f over %lld targets", e.loss, e.perplexity,
                (long long)e.n_target);
    qp_str_json_number(json, "eval_loss", e.loss);
    qp_str_json_number(json, "eval_perplexity", e.perplexity);
    qp_str_json_number(json, "n_target", (double)e.n_target);
    return NULL;
}

static qp_error_t eval_pairs(qp_run_t *run, qp_str_t *json)
{
    qp_pair_evaluation_t e;
    QP_TRY(qp_pairs_evaluate(run, &qp_reward_objective, &e));
    qp_log_info("eval_loss %.6f, accuracy %.4f, margin %.4f over %lld pairs", e.mean[QP_PAIR_LOSS],
                e.mean[QP_PAIR_ACCURACY], e.mean[QP_PAIR_MARGIN], (long long)e.n_pair);
    qp_str_json_number(json, "eval_loss", e.mean[QP_PAIR_LOSS]);
    qp_str_json_number(json, "eval_accuracy", e.mean[QP_PAIR_ACCURACY]);
    qp_str_json_number(json, "eval_margin", e.mean[QP_PAIR_MARGIN]);
    qp_str_json_number(json, "n_pair", (double)e.n_pair);
    qp_str_puts(json, ", \"calibration\": [");
    for (int b = 0; b < e.n_bin; b++) {
        qp_log_info("  scores differ by %.3g to %.3g: %lld pairs, accuracy %.4f, expected %.4f",
                    e.bin[b].least, e.bin[b].most, (long long)e.bin[b].n_pair, e.bin[b].accuracy,
                    e.bin[b].confidence);
        qp_str_puts(json, b > 0 ? ", {" : "{");
        qp_str_json_number(json, "least", e.bin[b].least);
        qp_str_json_number(json, "most", e.bin[b].most);
        qp_str_json_number(json, "n_pair", (double)e.bin[b].n_pair);
        qp_str_json_number(json, "accuracy", e.bin[b].accuracy);
        qp_str_json_number(json, "confidence", e.bin[b].confidence);
        qp_str_putc(json, '}');
    }
    qp_str_puts(json, "]");
    return NULL;
}

static void put_interval(qp_str_t *json, const char *name, double low, double high)
{
    qp_str_printf(json, ", \"%s\": [", name);
    qp_str_json_number(json, NULL, low);
    qp_str_json_number(json, NULL, high);
    qp_str_putc(json, ']');
}

static void report_win_rate(const qp_win_rate_t *w, qp_str_t *json)
{
    qp_log_info("policy against rival: wins %.1f%% (95%%: %.1f to %.1f), reward %+.4f "
                "(95%%: %+.4f to %+.4f)",
                100.0 * w->win_rate, 100.0 * w->win_low, 100.0 * w->win_high, w->difference,
                w->difference_low, w->difference_high);
    qp_str_json_number(json, "win_rate", w->win_rate);
    put_interval(json, "win_rate_95", w->win_low, w->win_high);
    qp_str_json_number(json, "difference", w->difference);
    qp_str_json_number(json, "difference_error", w->difference_error);
    put_interval(json, "difference_95", w->difference_low, w->difference_high);
}

static qp_error_t eval_queries(qp_run_t *run, qp_str_t *json)
{
    const qp_role_t role = qp_run_role(run), rival = {run->base, run->rival};
    qp_str_t lines = {0};
    qp_answering_t how = {"policy", run->settings->generate.num_return_sequences, &lines};
    qp_answer_statistics_t own, other;
    double *a = NULL, *b = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_reward_answers(run, &role, &how, &a, &own));
    qp_str_json_number(json, "n_query", (double)own.n_query);
    qp_compare_report("policy", &own, json);
    if (run->has_rival) {
        how.name = "rival";
        QP_TRY_DONE(qp_reward_answers(run, &rival, &how, &b, &other));
        qp_compare_report("rival", &other, json);
        const qp_win_rate_t w = qp_win_rate(a, b, own.n_query, how.n_draw);
        report_win_rate(&w, json);
    }
    error = write_file(run, "answers.jsonl", &lines);
done:
    qp_str_fini(&lines);
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
    if (error == NULL)
        error = write_file(run, "eval.json", &json);
    qp_str_fini(&json);
    QP_TRY(error);
    qp_log_info("evaluated in %.1f s: %s/eval.json", qp_time() - start, run->folder);
    return NULL;
}
