#include "train/methods/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "formats/json.h"
#include "train/micro/accumulate.h"
#include "train/methods/compare.h"
#include "train/methods/pairs.h"

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
    return qp_model_step(v->run->model.ws, &role, &model_batch, &pass, 0.0f, &value[VALUE_LOSS],
                         NULL);
}

qp_error_t qp_evaluate(qp_run_t *run, qp_evaluation_t *evaluation)
{
    const qp_settings_t *s = run->settings;
    int64_t n_row = qp_plan_n_row(run->given.eval_plan), micro = s->batch.micro_sequences, end;
    double total[N_VALUE];
    visit_t v = {.run = run};
    if (s->data.eval_rows > 0 && s->data.eval_rows < n_row)
        n_row = s->data.eval_rows;
    qp_leaf_values_init(&v.values, (n_row + micro - 1) / micro, N_VALUE);
    qp_tree_range(v.values.n_leaf, qp_comm_size(run->comm), qp_comm_rank(run->comm), &v.leaf, &end);
    qp_error_t error =
        qp_comm_agree(run->comm, qp_plan_visit(run->comm, run->given.eval, run->given.eval_plan,
                                               micro, n_row, visit, &v));
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

static qp_error_t eval_texts(qp_run_t *run, json_t *json)
{
    qp_evaluation_t e;
    QP_TRY(qp_evaluate(run, &e));
    qp_log_info("eval_loss %.6f, perplexity %.4f over %lld targets", e.loss, e.perplexity,
                (long long)e.n_target);
    json_object_set_new(json, "eval_loss", qp_json_real(e.loss));
    json_object_set_new(json, "eval_perplexity", qp_json_real(e.perplexity));
    json_object_set_new(json, "n_target", json_integer(e.n_target));
    return NULL;
}

static qp_error_t eval_pairs(qp_run_t *run, json_t *json)
{
    qp_pair_evaluation_t e;
    QP_TRY(qp_pairs_evaluate(run, &qp_reward_objective, &e));
    qp_log_info("eval_loss %.6f, accuracy %.4f, margin %.4f over %lld pairs", e.mean[QP_PAIR_LOSS],
                e.mean[QP_PAIR_ACCURACY], e.mean[QP_PAIR_MARGIN], (long long)e.n_pair);
    json_object_set_new(json, "eval_loss", qp_json_real(e.mean[QP_PAIR_LOSS]));
    json_object_set_new(json, "eval_accuracy", qp_json_real(e.mean[QP_PAIR_ACCURACY]));
    json_object_set_new(json, "eval_margin", qp_json_real(e.mean[QP_PAIR_MARGIN]));
    json_object_set_new(json, "n_pair", json_integer(e.n_pair));
    json_t *bins = json_array();
    for (int b = 0; b < e.n_bin; b++) {
        qp_log_info("  scores differ by %.3g to %.3g: %lld pairs, accuracy %.4f, expected %.4f",
                    e.bin[b].least, e.bin[b].most, (long long)e.bin[b].n_pair, e.bin[b].accuracy,
                    e.bin[b].confidence);
        json_t *bin = json_object();
        json_object_set_new(bin, "least", qp_json_real(e.bin[b].least));
        json_object_set_new(bin, "most", qp_json_real(e.bin[b].most));
        json_object_set_new(bin, "n_pair", json_integer(e.bin[b].n_pair));
        json_object_set_new(bin, "accuracy", qp_json_real(e.bin[b].accuracy));
        json_object_set_new(bin, "confidence", qp_json_real(e.bin[b].confidence));
        json_array_append_new(bins, bin);
    }
    json_object_set_new(json, "calibration", bins);
    return NULL;
}

static void put_interval(json_t *json, const char *name, double low, double high)
{
    json_t *interval = json_array();
    json_array_append_new(interval, qp_json_real(low));
    json_array_append_new(interval, qp_json_real(high));
    json_object_set_new(json, name, interval);
}

static void report_win_rate(const qp_win_rate_t *w, json_t *json)
{
    qp_log_info("policy against rival: wins %.1f%% (95%%: %.1f to %.1f), reward %+.4f "
                "(95%%: %+.4f to %+.4f)",
                100.0 * w->win_rate, 100.0 * w->win_low, 100.0 * w->win_high, w->difference,
                w->difference_low, w->difference_high);
    json_object_set_new(json, "win_rate", qp_json_real(w->win_rate));
    put_interval(json, "win_rate_95", w->win_low, w->win_high);
    json_object_set_new(json, "difference", qp_json_real(w->difference));
    json_object_set_new(json, "difference_error", qp_json_real(w->difference_error));
    put_interval(json, "difference_95", w->difference_low, w->difference_high);
}

static qp_error_t eval_queries(qp_run_t *run, json_t *json)
{
    const qp_role_t role = qp_run_role(run), rival = {run->model.base, run->model.rival};
    qp_str_t lines = {0};
    qp_answering_t how = {"policy", run->settings->generate.num_return_sequences, &lines};
    qp_answer_statistics_t own, other;
    double *a = NULL, *b = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_reward_answers(run, &role, &how, &a, &own));
    json_object_set_new(json, "n_query", json_integer(own.n_query));
    qp_compare_report("policy", &own, json);
    if (run->given.has_rival) {
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
    qp_error_t (*run)(qp_run_t *run, json_t *json);
} eval_of[] = {{"sft", eval_texts}, {"reward", eval_pairs}, {"prompt", eval_queries}};

/* One line of JSON. Collective. */
static qp_error_t write_json(const qp_run_t *run, const json_t *json)
{
    char *text = json_dumps(json, JSON_PRESERVE_ORDER);
    qp_str_t line = {0};
    QP_ASSERT(text != NULL); /* names of our own and numbers */
    qp_str_printf(&line, "%s\n", text);
    qp_error_t error = write_file(run, "eval.json", &line);
    qp_str_fini(&line);
    free(text);
    return error;
}

qp_error_t qp_method_eval(qp_run_t *run)
{
    const double start = qp_time();
    json_t *json = json_object();
    qp_error_t error = NULL;
    for (size_t i = 0; i < sizeof eval_of / sizeof eval_of[0] && error == NULL; i++)
        if (strcmp(qp_dataset_kind(run->given.eval), eval_of[i].kind) == 0)
            error = eval_of[i].run(run, json);
    if (error == NULL)
        error = write_json(run, json);
    json_decref(json);
    QP_TRY(error);
    qp_log_info("evaluated in %.1f s: %s/eval.json", qp_time() - start, run->folder);
    return NULL;
}
