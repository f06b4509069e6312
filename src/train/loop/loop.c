#include "train/loop/loop.h"

#include <math.h>

#include "base/log.h"
#include "base/mem.h"
#include "train/loop/loop_impl.h"
#include "train/report/plot.h"

/* So many steps without a finite loss and gradient in a row end the run. */
static const int64_t MAX_SKIPPED_IN_ROW = 10;

/* Values of a micro-batch behind the method's: how many ranks have failed, or cut the step short.
 */
enum { FAILED, CUT, N_OWN };

qp_error_t qp_loop_create(qp_run_t *run, const qp_method_t *method, void *owner, qp_loop_t **loop)
{
    qp_loop_t *l = QP_NEW("loop", qp_loop_t, 1);
    int64_t n_micro = qp_settings_n_micro(run->settings), end;
    qp_error_t error = NULL;
    QP_ASSERT(method->n_value + N_OWN <= QP_MAX_VALUE && method->n_metric <= QP_MAX_VALUE &&
              method->n_shown <= method->n_metric && method->n_eval_metric <= QP_MAX_VALUE);
    *l = (qp_loop_t){.run = run, .method = method, .owner = owner, .told_rank = -1};
    qp_tree_range(n_micro, qp_comm_size(run->comm), qp_comm_rank(run->comm), &l->first_leaf, &end);
    qp_leaf_values_init(&l->values, n_micro, method->n_value + N_OWN);
    QP_TRY_DONE(qp_comm_agree(
        run->comm, qp_optim_create(run->device, run->model.adapter->n_param, &l->optim)));
    QP_TRY_DONE(qp_accumulator_create(run->comm, run->model.adapter, n_micro, &l->accumulator));
    qp_stop_init(&l->stop, run->settings, run->folder); /* what is restored may go in there */
    QP_TRY_DONE(qp_loop_restore(l));
    l->first_step = l->progress.step;
done:
    if (error != NULL)
        qp_loop_destroy(&l);
    *loop = l;
    return error;
}

void qp_loop_destroy(qp_loop_t **loop)
{
    qp_loop_t *l = *loop;
    if (l == NULL)
        return;
    qp_loop_report_close(l);
    qp_error_destroy(&l->report_error);
    qp_stop_fini(&l->stop);
    qp_state_destroy(&l->state);
    qp_free(l->checkpoints);
    qp_accumulator_destroy(&l->accumulator);
    qp_optim_destroy(&l->optim);
    qp_leaf_values_fini(&l->values);
    QP_FREE(*loop);
}

qp_work_t qp_loop_work(const qp_run_t *run, const qp_step_batch_t *batch, bool targets)
{
    const bool learns = !targets || batch->n_target_global > 0;
    if (!learns)
        qp_log_warn("step %lld has nothing to learn: none of its %lld tokens counts",
                    (long long)batch->step + 1, (long long)batch->n_token_global);
    return (qp_work_t){.n_update = learns,
                       .n_micro = qp_settings_n_micro(run->settings),
                       .n_token = batch->n_token_global,
                       .epoch = batch->epoch};
}

int64_t qp_loop_step(const qp_loop_t *loop)
{
    return loop->progress.step;
}

/* A micro-batch; none more where the end is near and the step leaves nothing behind but its
 * gradient, which is then not applied. */
static qp_error_t run_micro(void *owner, int64_t i, const qp_pass_t *pass)
{
    qp_loop_t *loop = owner;
    if (qp_stop_hurries() && loop->method->register_state == NULL)
        return QP_ERROR(QP_STOPPED, "the step is cut short");
    return loop->method->training_step(loop->owner, loop->update, i, pass,
                                       qp_leaf_values_at(&loop->values, loop->first_leaf + i));
}

/* Applies the gradient, unless a value or the gradient is not finite: the same decision on all
 * ranks, which hold the same bits. Rank-local. */
static qp_error_t apply(qp_loop_t *loop, const double *total, qp_step_result_t *result)
{
    qp_adapter_t *adapter = loop->run->model.adapter;
    const qp_optim_config_t *config = &loop->run->settings->optim;
    bool skipped = false;
    result->grad_norm = NAN;
    for (int k = 0; k < loop->method->n_value; k++)
        skipped = skipped || !isfinite(total[k]);
    if (!skipped)
        QP_TRY(qp_optim_step(loop->optim, config, loop->progress.step, adapter->param,
                             adapter->copy, adapter->grad, &result->grad_norm, &skipped));
    result->skipped = result->skipped || skipped;
    return NULL;
}

/*
 * Gradient, totals over all ranks, and what follows from them; *go_on: another update may follow.
 * total also says whether a rank has failed or cut the step short: then nothing is applied. The
 * error is this rank's own. Collective.
 */
static qp_error_t do_update(qp_loop_t *loop, qp_step_result_t *result, double *total, bool *go_on)
{
    qp_run_t *run = loop->run;
    const qp_method_t *method = loop->method;
    const int64_t number = loop->progress.step * result->work.n_update + loop->update;
    const qp_pass_t pass = {
        .training = true,
        .key = {.seed = (uint32_t)run->settings->job.seed, .step = (uint32_t)number}};
    qp_update_end_t verdict = QP_UPDATE_APPLY;
    qp_error_t error = NULL;
    qp_leaf_values_clear(&loop->values);
    QP_TIMED(&run->timers, "gradient",
             error =
                 qp_accumulate(loop->accumulator, result->work.n_micro, &pass, run_micro, loop));
    double *own = qp_leaf_values_at(&loop->values, loop->first_leaf) + method->n_value;
    own[FAILED] = error != NULL && error->code != QP_STOPPED;
    own[CUT] = error != NULL && error->code == QP_STOPPED;
    if (own[CUT] > 0.0)
        qp_error_destroy(&error);
    qp_leaf_values_total(run->comm, &loop->values, total);
    result->cut = total[method->n_value + CUT] > 0.0;
    *go_on = total[method->n_value + FAILED] == 0.0 && !result->cut;
    if (!*go_on)
        return error;
    if (method->end_update != NULL)
        verdict = method->end_update(loop->owner, loop->update, total);
    if (verdict != QP_UPDATE_LEAVE_OUT)
        QP_TIMED(&run->timers, "optimiser", error = apply(loop, total, result));
    *go_on = verdict != QP_UPDATE_LAST;
    return error;
}

/* One step; *word is what all ranks agreed on. Collective. */
static qp_error_t do_step(qp_loop_t *loop, qp_step_result_t *result, uint64_t *word)
{
    qp_run_t *run = loop->run;
    double total[QP_MAX_VALUE], start = qp_time(), waited = qp_activity_waited();
    bool go_on = true, any = false;
    qp_error_t error = NULL;
    *result = (qp_step_result_t){
        .grad_norm = NAN, .learning_rate = qp_optim_lr(&run->settings->optim, loop->progress.step)};
    QP_TIMED(&run->timers, "data", error = loop->method->next(loop->owner, &result->work));
    QP_TRY(error);
    for (loop->update = 0; loop->update < result->work.n_update && go_on && error == NULL;
         loop->update++, any = true) {
        error = do_update(loop, result, total, &go_on);
        if (result->work.n_update > 1) /* nobody goes on alone */
            error = qp_comm_agree(run->comm, error);
    }
    result->skipped = result->skipped || result->work.n_update == 0;
    loop->method->finish(loop->owner, any ? total : NULL, result->metric);
    if (error == NULL) {
        error = loop->report_error;
        loop->report_error = NULL;
    }
    if (error == NULL && qp_owner_is_lost(run->owner))
        error = qp_owner_check(run->owner);
    *word = qp_comm_agree_bits(run->comm, qp_stop_bits(&loop->stop, qp_comm_rank(run->comm)) |
                                              (error != NULL ? QP_WORD_FAILED : 0));
    result->seconds = qp_time() - start;
    result->own_seconds = result->seconds - (qp_activity_waited() - waited);
    return *word & QP_WORD_FAILED ? qp_comm_agree(run->comm, error) : NULL;
}

static void count_step(qp_loop_t *loop, const qp_step_result_t *result)
{
    qp_progress_t *p = &loop->progress;
    p->step++;
    p->num_tokens += result->work.n_token;
    p->n_skipped += result->skipped;
    p->n_skipped_in_row = result->skipped ? p->n_skipped_in_row + 1 : 0;
}

static bool is_due(int64_t step, int64_t every)
{
    return every > 0 && step % every == 0;
}

/* What follows a step: evaluation, metrics, samples, a periodic checkpoint. Collective. */
static qp_error_t after_step(qp_loop_t *loop, const qp_step_result_t *result)
{
    const qp_settings_t *s = loop->run->settings;
    int64_t step = loop->progress.step;
    bool done = step == s->optim.steps;
    if (is_due(step, s->eval.every_steps) || (done && s->eval.at_end))
        QP_TRY(qp_loop_evaluate(loop));
    qp_loop_compare_ranks(loop, result);
    qp_loop_report_step(loop, result);
    if (is_due(step, s->samples.every_steps) || done)
        QP_TRY(qp_loop_sample(loop));
    if (is_due(step, s->checkpoint.every_steps) || done)
        QP_TRY(qp_loop_checkpoint(loop));
    if (is_due(step, s->log.every_steps)) {
        qp_timers_report(&loop->run->timers, "phases");
        qp_timers_report(&loop->run->device->timers, "ops");
    }
    return NULL;
}

static qp_error_t before_first_step(qp_loop_t *loop)
{
    const qp_settings_t *s = loop->run->settings;
    if (loop->progress.step > 0)
        return NULL;
    if (s->eval.at_start && loop->run->given.eval != NULL) {
        QP_TRY(qp_loop_evaluate(loop));
        qp_loop_report_eval_row(loop);
    }
    return qp_loop_sample(loop);
}

/* The adapter in PEFT's format, and the picture of the run. Collective. */
static qp_error_t export(qp_loop_t *loop)
{
    const qp_run_t *run = loop->run;
    qp_error_t error = NULL;
    qp_metrics_close(&loop->metrics);
    if (qp_comm_rank(run->comm) == 0) {
        char *folder = qp_format("%s/adapter", run->folder);
        char *metrics = qp_format("%s/metrics.csv", run->folder);
        char *curves = qp_format("%s/curves.svg", run->folder);
        error = qp_adapter_save(run->model.adapter, &run->given.info.config, run->given.info.source,
                                folder);
        if (error == NULL)
            qp_log_info("adapter: %s", folder);
        if (error == NULL)
            qp_plot_try((const char *const[]){metrics}, 1, curves);
        qp_free(folder);
        qp_free(metrics);
        qp_free(curves);
    }
    return qp_comm_agree(run->comm, error);
}

/* Ends a run that was told to stop: a good checkpoint, then QP_STOPPED. Collective. */
static qp_error_t stop_early(qp_loop_t *loop, uint64_t word)
{
    QP_TRY(qp_loop_checkpoint(loop));
    QP_TRY(export(loop));
    if (qp_comm_rank(loop->run->comm) == 0)
        qp_stop_forget_file(&loop->stop);
    return QP_ERROR(QP_STOPPED, "stopped after step %lld of %lld (%s); start again to continue",
                    (long long)loop->progress.step, (long long)loop->run->settings->optim.steps,
                    qp_stop_reason(word));
}

static qp_error_t give_up(qp_loop_t *loop)
{
    QP_TRY(qp_loop_checkpoint(loop));
    return QP_ERROR(
        QP_INPUT,
        "%lld steps in a row had nothing to learn, or a loss, reward or gradient that is not "
        "finite; "
        "stopped after step %lld with a checkpoint (a smaller optim.lr, or device.compute = "
        "\"fp32\", may help against the latter)",
        (long long)loop->progress.n_skipped_in_row, (long long)loop->progress.step);
}

static qp_error_t run_steps(qp_loop_t *loop)
{
    const qp_settings_t *s = loop->run->settings;
    int64_t most = s->checkpoint.stop_after_steps;
    while (loop->progress.step < s->optim.steps) {
        qp_step_result_t result;
        uint64_t word;
        double start = qp_time();
        QP_TRY(do_step(loop, &result, &word));
        if (result.cut)
            return stop_early(loop, QP_WORD_SIGNAL);
        count_step(loop, &result);
        QP_TRY(after_step(loop, &result));
        loop->stop.step_seconds = fmax(loop->stop.step_seconds, qp_time() - start);
        if (loop->progress.n_skipped_in_row >= MAX_SKIPPED_IN_ROW)
            return give_up(loop);
        if (most > 0 && loop->progress.step - loop->first_step >= most)
            word |= QP_WORD_STEPS;
        if (word != 0 && loop->progress.step < s->optim.steps)
            return stop_early(loop, word);
    }
    return NULL;
}

qp_error_t qp_loop_run(qp_loop_t *loop)
{
    QP_TRY(qp_loop_report_open(loop));
    if (loop->progress.step >= loop->run->settings->optim.steps)
        qp_log_info("all %lld steps are done already", (long long)loop->progress.step);
    QP_TRY(before_first_step(loop));
    loop->start = qp_time();
    QP_TRY(run_steps(loop));
    qp_error_t error = loop->report_error; /* of the last step's row */
    loop->report_error = NULL;
    QP_TRY(qp_comm_agree(loop->run->comm, error));
    QP_TRY(export(loop));
    qp_log_info("done: %lld steps in %.1f s", (long long)(loop->progress.step - loop->first_step),
                qp_time() - loop->start);
    return NULL;
}
