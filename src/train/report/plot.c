#include "train/report/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/child.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "train/report/csv.h"

/* The panels that a picture may have, in order: a title and the columns drawn in it. The first
 * MAX_PANEL of which some run has data are drawn. */
enum { MAX_CURVE = 4, MAX_PANEL = 6 };
static const struct {
    const char *title;
    bool log_scale;
    const char *column[MAX_CURVE];
} panel[] = {
    {"reward", false, {"ppo/mean_scores", "eval_reward_mean"}},
    {"KL to the reference", false, {"objective/kl"}},
    {"loss", false, {"loss", "eval_loss", "ppo/loss/total"}},
    {"accuracy",
     false,
     {"accuracy", "eval_accuracy", "rewards/accuracies", "eval_rewards/accuracies"}},
    {"tokens of a response", false, {"tokens/responses_len_mean", "eval_responses_len_mean"}},
    {"entropy", false, {"ppo/policy/entropy"}},
    {"gradient norm", true, {"grad_norm"}},
    {"learning rate", false, {"learning_rate"}},
    {"tokens per second", false, {"tokens_per_second"}},
};
enum { N_PANEL = sizeof panel / sizeof panel[0] };

/* 'text' as a gnuplot string. */
static void quote(qp_str_t *script, const char *text)
{
    qp_str_putc(script, '\'');
    for (; *text != '\0'; text++)
        qp_str_puts(script, *text == '\'' ? "''" : (char[]){*text, '\0'});
    qp_str_putc(script, '\'');
}

/* Name of a run: the folder its metrics.csv stands in. */
static char *run_name(const char *path)
{
    char *copy = qp_strdup(path), *slash = strrchr(copy, '/');
    if (slash == NULL)
        return copy;
    *slash = '\0';
    char *last = strrchr(copy, '/');
    char *name = qp_strdup(last != NULL ? last + 1 : copy);
    qp_free(copy);
    return name;
}

/* One curve after \a separator; curves of few points are drawn with them. */
static void plot_curve(qp_str_t *script, const char *separator, const char *path,
                       const char *column, int index, int64_t n_point)
{
    char *run = run_name(path), *title = qp_format("%s: %s", run, column);
    qp_str_puts(script, separator);
    quote(script, path);
    qp_str_printf(script, " using 1:(valid(%d) ? $%d : NaN) with %s lw 2 title ", index + 1,
                  index + 1, n_point < 50 ? "linespoints pt 7 ps 0.6" : "lines");
    quote(script, title);
    qp_free(run);
    qp_free(title);
}

/* Whether a panel has anything to draw. */
static bool has_data(int p, char *const *text, int n_metrics)
{
    for (int i = 0; i < n_metrics; i++)
        for (int c = 0; c < MAX_CURVE && panel[p].column[c] != NULL; c++)
            if (qp_csv_count(text[i], qp_csv_column(text[i], panel[p].column[c])) > 0)
                return true;
    return false;
}

/* The panels to draw; returns how many. */
static int choose_panels(char *const *text, int n_metrics, int chosen[MAX_PANEL])
{
    int n = 0;
    for (int p = 0; p < N_PANEL && n < MAX_PANEL; p++)
        if (has_data(p, text, n_metrics))
            chosen[n++] = p;
    return n;
}

static void plot_panel(qp_str_t *script, int p, const char *const *metrics, char *const *text,
                       int n_metrics)
{
    const char *separator = "plot ";
    qp_str_printf(script, "set title '%s'\n%s logscale y\n", panel[p].title,
                  panel[p].log_scale ? "set" : "unset");
    for (int i = 0; i < n_metrics; i++)
        for (int c = 0; c < MAX_CURVE && panel[p].column[c] != NULL; c++) {
            int column = qp_csv_column(text[i], panel[p].column[c]);
            int64_t n_point = qp_csv_count(text[i], column);
            if (n_point == 0)
                continue;
            plot_curve(script, separator, metrics[i], panel[p].column[c], column, n_point);
            separator = ", ";
        }
    qp_str_puts(script, "\n");
}

/* Feeds a script to gnuplot's standard input, from a file: it may end early. It warns of every
 * curve that is flat. */
static qp_error_t run_gnuplot(const qp_str_t *script, const char *output)
{
    FILE *input;
    qp_child_t gnuplot;
    QP_TRY(qp_file_scratch(output, &input));
    const bool written =
        fwrite(script->data, 1, script->n, input) == script->n && fflush(input) == 0;
    rewind(input);
    const qp_child_config_t config = {.name = "gnuplot",
                                      .argv = (const char *const[]){"gnuplot", NULL},
                                      .input = fileno(input),
                                      .quiet = true};
    qp_error_t error = qp_child_start(&config, &gnuplot);
    fclose(input);
    QP_TRY(qp_error_context(error, "%s: not drawn", output));
    qp_child_ended(&gnuplot, INFINITY);
    return written && gnuplot.status == 0 ? NULL : QP_ERROR(QP_IO, "%s: gnuplot failed", output);
}

/* Takes what gnuplot has drawn, if it is whole: gnuplot does not say that it could not write. */
static qp_error_t take_picture(const char *temporary, const char *output)
{
    void *data = NULL;
    size_t n = 0;
    qp_error_t error = qp_file_read(temporary, &data, &n);
    const bool whole = error == NULL &&
                       (memmem(data, n, "</svg>", 6) != NULL || memmem(data, n, "IEND", 4) != NULL);
    qp_error_destroy(&error); /* there is none: that is not all of it, either */
    qp_free(data);
    return whole ? qp_file_commit(temporary, output)
                 : QP_ERROR(QP_IO, "%s: gnuplot could not write all of it", output);
}

qp_error_t qp_plot(const char *const *metrics, int n_metrics, const char *output)
{
    bool png = qp_has_suffix(output, ".png");
    qp_str_t script = {0};
    qp_error_t error = NULL;
    int chosen[MAX_PANEL];
    if (!png && !qp_has_suffix(output, ".svg"))
        return QP_ERROR(QP_INPUT, "%s: the name must end in .svg or .png", output);
    char *temporary = qp_format("%s.part", output);
    char **text = QP_NEW("plot", char *, n_metrics);
    for (int i = 0; i < n_metrics; i++) {
        void *data;
        size_t n_bytes;
        QP_TRY_DONE(qp_file_read(metrics[i], &data, &n_bytes));
        text[i] = data;
        if (qp_csv_column(text[i], "step") != 0) {
            error = QP_ERROR(QP_INPUT, "%s: not a metrics.csv: its first column is not step",
                             metrics[i]);
            goto done;
        }
    }
    const int n_panel = choose_panels(text, n_metrics, chosen);
    if (n_panel == 0) {
        error = QP_ERROR(QP_INPUT, "%s: holds nothing to draw", metrics[0]);
        goto done;
    }
    qp_str_printf(&script, "set terminal %s\nset output ",
                  png ? "png size 1200,800" : "svg size 1200,800 background 'white'");
    quote(&script, temporary);
    qp_str_puts(&script,
                "\nset termoption noenhanced\nset datafile separator ','\n"
                "set key autotitle columnhead above\nset grid lc rgb '#dddddd'\nset border 3\n"
                "set tics nomirror\nset xlabel 'step'\n");
    qp_str_printf(&script, "set multiplot layout %d,2\n", (n_panel + 1) / 2);
    for (int p = 0; p < n_panel; p++)
        plot_panel(&script, chosen[p], metrics, text, n_metrics);
    qp_str_puts(&script, "unset multiplot\n");
    error = run_gnuplot(&script, output);
    if (error == NULL)
        error = take_picture(temporary, output);
done:
    unlink(temporary);
    qp_free(temporary);
    for (int i = 0; i < n_metrics; i++)
        qp_free(text[i]);
    qp_free(text);
    qp_str_fini(&script);
    return error;
}

void qp_plot_try(const char *const *metrics, int n_metrics, const char *output)
{
    qp_error_t error = qp_plot(metrics, n_metrics, output);
    if (error == NULL)
        qp_log_info("curves: %s", output);
    else if (error->code == QP_IO)
        qp_log_warn("%s", error->message);
    else
        qp_log_info("%s", error->message); /* there is no gnuplot, or nothing to draw */
    qp_error_destroy(&error);
}
