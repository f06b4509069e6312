#include "train/evaluate.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "train/accumulate.h"

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

qp_error_t qp_method_eval(qp_run_t *run)
{
    qp_evaluation_t e;
    double start = qp_time();
    QP_TRY(qp_evaluate(run, &e));
    qp_log_info("eval_loss %.6f, perplexity %.4f over %lld targets in %.1f s", e.loss, e.perplexity,
                (long long)e.n_target, qp_time() - start);
    qp_error_t error = NULL;
    if (qp_comm_rank(run->comm) == 0) {
        char *path = qp_format("%s/eval.json", run->folder);
        char *text =
            qp_format("{\"eval_loss\": %.17g, \"eval_perplexity\": %.17g, \"n_target\": %lld}\n",
                      e.loss, e.perplexity, (long long)e.n_target);
        error = qp_file_write(path, text, strlen(text));
        qp_free(path);
        qp_free(text);
    }
    return qp_comm_agree(run->comm, error);
}
