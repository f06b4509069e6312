#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "train/loop/loop_impl.h"

/* A rank that works so much longer than the mean is told of in the log. */
static const double SLOW = 1.2;

static const char *const column_name[QP_N_COLUMN] = {
    [QP_COLUMN_STEP] = "step",
    [QP_COLUMN_EPOCH] = "epoch",
    [QP_COLUMN_GRAD_NORM] = "grad_norm",
    [QP_COLUMN_LEARNING_RATE] = "learning_rate",
    [QP_COLUMN_NUM_TOKENS] = "num_tokens",
    [QP_COLUMN_TOKENS_PER_SECOND] = "tokens_per_second",
    [QP_COLUMN_STEP_TIME] = "step_time",
    [QP_COLUMN_SKIPPED_STEPS] = "skipped_steps",
    [QP_COLUMN_RANK_MEAN] = "time/rank_mean",
    [QP_COLUMN_RANK_MAX] = "time/rank_max",
    [QP_COLUMN_SLOWEST_RANK] = "time/slowest_rank",
};

static void add_columns(qp_loop_t *loop)
{
    const qp_method_t *method = loop->method;
    for (int i = 0; i < QP_N_COLUMN; i++)
        loop->column[i] = qp_metrics_add(&loop->metrics, column_name[i]);
    loop->first_metric = loop->metrics.n;
    for (int i = 0; i < method->n_metric; i++)
        qp_metrics_add(&loop->metrics, method->metric[i]);
    loop->first_eval_metric = loop->metrics.n;
    for (int i = 0; i < method->n_eval_metric; i++)
        qp_metrics_add(&loop->metrics, method->eval_metric[i]);
}

static qp_error_t open_tensorboard(qp_loop_t *loop, int64_t step)
{
    char *folder = qp_format("%s/tensorboard", loop->run->folder);
    qp_error_t error = qp_tensorboard_open(folder, step, &loop->tensorboard);
    qp_free(folder);
    return error;
}

qp_error_t qp_loop_report_open(qp_loop_t *loop)
{
    const qp_run_t *run = loop->run;
    /* Nothing done yet: all rows of an earlier start go. */
    int64_t step = loop->progress.step > 0 ? loop->progress.step : -1;
    qp_error_t error = NULL;
    add_columns(loop);
    loop->samples_step = loop->eval_step = loop->progress.step > 0 ? loop->progress.step : -1;
    if (qp_comm_rank(run->comm) == 0) {
        char *metrics = qp_format("%s/metrics.csv", run->folder);
        char *samples = qp_format("%s/samples.jsonl", run->folder);
        error = qp_metrics_open(&loop->metrics, metrics, step);
        if (error == NULL && (run->given.prompts.n > 0 || loop->method->samples != NULL))
            error = qp_lines_open(samples, "\"step\":", step, &loop->samples);
        qp_free(metrics);
        qp_free(samples);
        if (error == NULL && run->settings->log.tensorboard)
            error = open_tensorboard(loop, step);
    }
    return qp_comm_agree(run->comm, error);
}

void qp_loop_report_close(qp_loop_t *loop)
{
    qp_metrics_close(&loop->metrics);
    qp_tensorboard_close(&loop->tensorboard);
    if (loop->samples != NULL)
        fclose(loop->samples);
    loop->samples = NULL;
}

static void set(qp_loop_t *loop, qp_column_t column, double value)
{
    qp_metrics_set(&loop->metrics, loop->column[column], value);
}

static void write_row(qp_loop_t *loop)
{
    if (loop->metrics.file == NULL)
        return;
    qp_error_t error = NULL;
    if (loop->tensorboard != NULL)
        error = qp_tensorboard_write(loop->tensorboard, &loop->metrics, loop->progress.step);
    error = qp_error_first(
        error, qp_error_context(qp_metrics_write(&loop->metrics), "%s", loop->run->folder));
    if (loop->report_error == NULL)
        loop->report_error = error;
    else
        qp_error_destroy(&error);
}

void qp_loop_report_eval_row(qp_loop_t *loop)
{
    set(loop, QP_COLUMN_STEP, (double)loop->progress.step);
    write_row(loop);
}

/* "h:mm:ss" */
static void format_time(double seconds, char *text, size_t n)
{
    long long s = (long long)(seconds + 0.5);
    snprintf(text, n, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
}

/* "ppo/mean_scores" is shown as "mean_scores". */
static const char *short_name(const char *metric)
{
    const char *slash = strrchr(metric, '/');
    return slash != NULL ? slash + 1 : metric;
}

/* "  name value"; where nothing was learnt or looked at there is none. */
static void print_value(qp_str_t *line, const char *name, int decimals, double value)
{
    if (isfinite(value))
        qp_str_printf(line, "  %s %.*f", name, decimals, value);
    else
        qp_str_printf(line, "  %s -", name);
}

static void show_progress(const qp_loop_t *loop, const qp_step_result_t *result, double rate)
{
    const qp_settings_t *s = loop->run->settings;
    int64_t step = loop->progress.step, done = step - loop->first_step;
    char left[32];
    qp_str_t line = {0};
    format_time((qp_time() - loop->start) / (double)done * (double)(s->optim.steps - step), left,
                sizeof left);
    qp_str_printf(&line, "step %lld/%lld", (long long)step, (long long)s->optim.steps);
    for (int i = 0; i < loop->method->n_shown; i++)
        print_value(&line, short_name(loop->method->metric[i]), 4, result->metric[i]);
    qp_str_printf(&line, "  %.0f tokens/s  %s left", rate, left);
    qp_log_progress(line.data);
    print_value(&line, "grad_norm", 4, result->grad_norm);
    if (step % s->log.every_steps == 0 || step == s->optim.steps)
        qp_log_info("%s  lr %.3e  epoch %.3f", line.data, result->learning_rate,
                    result->work.epoch);
    qp_str_fini(&line);
}

void qp_loop_compare_ranks(qp_loop_t *loop, const qp_step_result_t *result)
{
    const int n_rank = qp_comm_size(loop->run->comm);
    const int64_t step = loop->progress.step;
    loop->own_seconds += result->own_seconds;
    loop->n_own_step++;
    if (step % loop->run->settings->log.every_steps != 0)
        return;
    double own = loop->own_seconds / (double)loop->n_own_step, mean = 0.0;
    double *seconds = QP_NEW("loop", double, n_rank);
    int slowest = 0;
    qp_comm_allgather(loop->run->comm, &own, 1, QP_F64, seconds);
    for (int r = 0; r < n_rank; r++) {
        mean += seconds[r] / (double)n_rank;
        slowest = seconds[r] > seconds[slowest] ? r : slowest;
    }
    set(loop, QP_COLUMN_RANK_MEAN, mean);
    set(loop, QP_COLUMN_RANK_MAX, seconds[slowest]);
    set(loop, QP_COLUMN_SLOWEST_RANK, slowest);
    const int slow = seconds[slowest] > SLOW * mean ? slowest : -1;
    if (slow >= 0 && slow != loop->told_rank)
        qp_log_info("step %lld: rank %d is the slowest: it works %.3f s of a step, the mean of all "
                    "ranks is %.3f s",
                    (long long)step, slowest, seconds[slowest], mean);
    qp_free(seconds);
    loop->told_rank = slow;
    loop->own_seconds = 0.0;
    loop->n_own_step = 0;
}

void qp_loop_report_step(qp_loop_t *loop, const qp_step_result_t *result)
{
    double rate = (double)result->work.n_token / result->seconds;
    set(loop, QP_COLUMN_STEP, (double)loop->progress.step);
    set(loop, QP_COLUMN_EPOCH, result->work.epoch);
    set(loop, QP_COLUMN_GRAD_NORM, result->grad_norm);
    set(loop, QP_COLUMN_LEARNING_RATE, result->learning_rate);
    set(loop, QP_COLUMN_NUM_TOKENS, (double)loop->progress.num_tokens);
    set(loop, QP_COLUMN_TOKENS_PER_SECOND, rate);
    set(loop, QP_COLUMN_STEP_TIME, result->seconds);
    set(loop, QP_COLUMN_SKIPPED_STEPS, (double)loop->progress.n_skipped);
    for (int i = 0; i < loop->method->n_metric; i++)
        qp_metrics_set(&loop->metrics, loop->first_metric + i, result->metric[i]);
    write_row(loop);
    show_progress(loop, result, rate);
    if (result->skipped && result->work.n_update > 0) /* else the method has said why */
        qp_log_warn("step %lld skipped: %s %g, gradient norm %g (%lld in a row)",
                    (long long)loop->progress.step, short_name(loop->method->metric[0]),
                    result->metric[0], result->grad_norm,
                    (long long)loop->progress.n_skipped_in_row);
}

qp_error_t qp_loop_evaluate(qp_loop_t *loop)
{
    const qp_method_t *method = loop->method;
    double metric[QP_MAX_VALUE], start = qp_time();
    if (method->evaluate == NULL || loop->run->given.eval == NULL ||
        loop->eval_step == loop->progress.step)
        return NULL;
    loop->eval_step = loop->progress.step;
    qp_error_t error;
    QP_TIMED(&loop->run->timers, "evaluation", error = method->evaluate(loop->owner, metric));
    QP_TRY(error);
    qp_str_t line = {0};
    for (int i = 0; i < method->n_eval_metric; i++) {
        qp_metrics_set(&loop->metrics, loop->first_eval_metric + i, metric[i]);
        print_value(&line, method->eval_metric[i], 5, metric[i]);
    }
    qp_log_info("step %lld:%s  (%.1f s)", (long long)loop->progress.step, line.data,
                qp_time() - start);
    qp_str_fini(&line);
    return NULL;
}

/* Collective. */
static qp_error_t write_samples(qp_loop_t *loop)
{
    qp_run_t *run = loop->run;
    qp_str_t lines = {0};
    qp_error_t error = NULL;
    if (run->given.prompts.n > 0)
        QP_TRY_DONE(qp_run_answer(run, loop->progress.step, &lines, NULL));
    if (loop->method->samples != NULL && loop->progress.step > 0 && loop->samples != NULL)
        error = loop->method->samples(loop->owner, loop->progress.step, &lines);
    QP_TRY_DONE(qp_comm_agree(run->comm, error));
    if (loop->samples != NULL && lines.n > 0 &&
        (fwrite(lines.data, 1, lines.n, loop->samples) != lines.n || fflush(loop->samples) != 0))
        error = QP_ERROR(QP_IO, "%s/samples.jsonl: cannot be written: %s", run->folder,
                         strerror(errno));
    error = qp_comm_agree(run->comm, error);
done:
    qp_str_fini(&lines);
    return error;
}

qp_error_t qp_loop_sample(qp_loop_t *loop)
{
    qp_error_t error;
    if (loop->samples_step == loop->progress.step)
        return NULL;
    loop->samples_step = loop->progress.step;
    QP_TIMED(&loop->run->timers, "samples", error = write_samples(loop));
    return error;
}
