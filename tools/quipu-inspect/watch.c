/* A run as its folder shows it: used.cfg, metrics.csv, quipu.log and the lock. Nothing is asked of
 * the run itself, so it may be on any machine that writes to the same file system. */
#include <libconfig.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/minmax.h"
#include "base/str.h"
#include "inspect.h"
#include "train/report/csv.h"

enum {
    N_BAR = 40,        /* characters of the bar */
    N_CURVE = 48,      /* of a curve */
    N_CURVES = 14,     /* lines of curves */
    N_LOG = 4,         /* lines of the log */
    N_RECENT = 20,     /* steps that the time left is judged by */
    LOCK_SECONDS = 60, /* a lock that has stood still for so long is nobody's */
    PAUSE_SECONDS = 2
};

typedef struct {
    const char *folder;
    char *method;  /* owned */
    int64_t steps; /* that the run is to make */
    char *metrics; /* owned: the text of metrics.csv */
    char *log;     /* owned */
    bool is_owned; /* somebody works in the folder */
} view_t;

static char *path_of(const view_t *v, const char *name)
{
    return qp_format("%s/%s", v->folder, name);
}

/* The text of a file; "" where there is none. */
static char *text_of(const view_t *v, const char *name)
{
    char *path = path_of(v, name);
    void *text = NULL;
    size_t n = 0;
    qp_error_t error = qp_file_read(path, &text, &n);
    qp_free(path);
    if (error == NULL)
        return text;
    qp_error_destroy(&error);
    return qp_strdup("");
}

static bool has_owner(const view_t *v)
{
    struct stat status;
    char *path = path_of(v, "lock");
    const bool there = stat(path, &status) == 0;
    qp_free(path);
    return there && time(NULL) - status.st_mtime < LOCK_SECONDS;
}

static qp_error_t read_used(view_t *v)
{
    char *path = path_of(v, "used.cfg");
    const char *method = "";
    long long steps = 0;
    qp_error_t error = NULL;
    config_t config;
    config_init(&config);
    if (config_read_file(&config, path) != CONFIG_TRUE)
        error = QP_ERROR(QP_INPUT, "%s: %s: %s is no folder of a run", path,
                         config_error_text(&config), v->folder);
    else if (!config_lookup_string(&config, "job.method", &method) ||
             !config_lookup_int64(&config, "optim.steps", &steps))
        error =
            QP_ERROR(QP_INPUT, "%s: says of no steps: only runs that train can be watched", path);
    v->method = qp_strdup(method);
    v->steps = steps;
    config_destroy(&config);
    qp_free(path);
    return error;
}

static void forget(view_t *v)
{
    qp_free(v->method);
    qp_free(v->metrics);
    qp_free(v->log);
    *v = (view_t){.folder = v->folder};
}

/* --- what a frame is made of ------------------------------------------------------------------ */

/* Behind the bar: "step 12 of 40, 0:01:30 left, 6913 tokens/s". */
static void put_progress(qp_str_t *out, const view_t *v)
{
    const int step = qp_csv_column(v->metrics, "step"),
              step_time = qp_csv_column(v->metrics, "step_time"),
              rate = qp_csv_column(v->metrics, "tokens_per_second");
    double recent[N_RECENT] = {0}, speed = NAN;
    int64_t done = 0, n = 0;
    for (const char *row = qp_csv_next(v->metrics); row != NULL; row = qp_csv_next(row)) {
        done = (int64_t)qp_csv_number(row, step);
        if (isfinite(qp_csv_number(row, step_time)))
            recent[n++ % N_RECENT] = qp_csv_number(row, step_time);
        speed = isfinite(qp_csv_number(row, rate)) ? qp_csv_number(row, rate) : speed;
    }
    const int64_t filled = v->steps > 0 ? qp_min_i64(done * N_BAR / v->steps, N_BAR) : N_BAR;
    qp_str_puts(out, "[");
    for (int64_t i = 0; i < N_BAR; i++)
        qp_str_puts(out, i < filled ? "#" : ".");
    qp_str_printf(out, "] step %lld of %lld", (long long)done, (long long)v->steps);
    if (n > 0 && v->is_owned && done < v->steps) {
        double seconds = 0.0;
        for (int i = 0; i < N_RECENT; i++)
            seconds += recent[i];
        const long long left =
            llround(seconds / (double)qp_min_i64(n, N_RECENT) * (double)(v->steps - done));
        qp_str_printf(out, ", %lld:%02lld:%02lld left", left / 3600, left / 60 % 60, left % 60);
    }
    if (isfinite(speed))
        qp_str_printf(out, ", %.0f tokens/s", speed);
    qp_str_puts(out, "\n");
}

/* The last number of a column. */
static double last_of(const char *metrics, const char *name)
{
    const int column = qp_csv_column(metrics, name);
    double last = NAN;
    if (column < 0)
        return NAN;
    for (const char *row = qp_csv_next(metrics); row != NULL; row = qp_csv_next(row))
        last = isfinite(qp_csv_number(row, column)) ? qp_csv_number(row, column) : last;
    return last;
}

/* What stands behind the last \a word of the log; NULL: nothing. */
static const char *behind_last(const char *log, const char *word)
{
    const char *found = NULL;
    for (const char *next = log; (next = strstr(next, word)) != NULL;)
        found = next += strlen(word);
    return found;
}

/* As the log has said last: what is planned, or at the end what was taken. */
static void put_memory(qp_str_t *out, const char *log)
{
    const char *const planned = behind_last(log, "together  "), *const taken = behind_last(
                                                                    log, "peak memory: ");
    const char *text = taken != NULL && (planned == NULL || taken > planned) ? taken : planned;
    if (text == NULL)
        return;
    text += strspn(text, " ");
    qp_str_printf(out, "memory: %.*s\n", (int)strcspn(text, "\n"), text);
}

static void put_ranks(qp_str_t *out, const char *metrics)
{
    const double rank = last_of(metrics, "time/slowest_rank");
    if (isfinite(rank))
        qp_str_printf(out, "slowest rank: %.0f works %.3g s of a step, the mean of all %.3g s\n",
                      rank, last_of(metrics, "time/rank_max"), last_of(metrics, "time/rank_mean"));
}

/* The mean of a column in each of N_CURVE parts of its rows (NaN: none there), and the last number.
 */
static double summarise(const char *metrics, int column, double mean[N_CURVE])
{
    const int64_t n = qp_csv_count(metrics, column), n_part = qp_min_i64(n, N_CURVE);
    int64_t count[N_CURVE] = {0}, i = 0;
    double last = NAN;
    for (int p = 0; p < N_CURVE; p++)
        mean[p] = 0.0;
    for (const char *row = qp_csv_next(metrics); row != NULL; row = qp_csv_next(row)) {
        const double value = qp_csv_number(row, column);
        if (!isfinite(value))
            continue;
        const int64_t part = i++ * n_part / n;
        mean[part] += value;
        count[part]++;
        last = value;
    }
    for (int p = 0; p < N_CURVE; p++)
        mean[p] = count[p] > 0 ? mean[p] / (double)count[p] : NAN;
    return last;
}

static void put_curve(qp_str_t *out, const char *name, int n_name, const char *metrics, int column)
{
    static const char *const height[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    double mean[N_CURVE], least = INFINITY, most = -INFINITY;
    const double last = summarise(metrics, column, mean);
    for (int p = 0; p < N_CURVE; p++) {
        least = fmin(least, mean[p]);
        most = fmax(most, mean[p]);
    }
    qp_str_printf(out, "%-26.*s %11.5g  ", n_name, name, last);
    for (int p = 0; p < N_CURVE && isfinite(mean[p]); p++)
        qp_str_puts(out,
                    height[most > least ? (int)(7.999 * (mean[p] - least) / (most - least)) : 3]);
    qp_str_puts(out, "\n");
}

/* Columns that say nothing as a curve. */
static bool is_counter(const char *name, size_t n)
{
    static const char *const counter[] = {"step",      "epoch",         "num_tokens",
                                          "step_time", "skipped_steps", "learning_rate"};
    for (size_t i = 0; i < sizeof counter / sizeof counter[0]; i++)
        if (strlen(counter[i]) == n && strncmp(counter[i], name, n) == 0)
            return true;
    return n >= 5 && strncmp(name, "time/", 5) == 0;
}

static void put_curves(qp_str_t *out, const view_t *v)
{
    const char *name;
    size_t n;
    int n_shown = 0;
    for (int i = 0; qp_csv_field(v->metrics, i, &name, &n) && n_shown < N_CURVES; i++)
        if (!is_counter(name, n) && qp_csv_count(v->metrics, i) > 0) {
            put_curve(out, name, (int)n, v->metrics, i);
            n_shown++;
        }
}

/* The last lines of the log. */
static void put_log(qp_str_t *out, const char *log)
{
    const char *start = log + strlen(log);
    for (int i = 0; i <= N_LOG && start > log; i++)
        do
            start--;
        while (start > log && start[-1] != '\n');
    qp_str_puts(out, start);
}

static qp_error_t look(view_t *v, qp_str_t *out)
{
    QP_TRY(read_used(v));
    v->metrics = text_of(v, "metrics.csv");
    v->log = text_of(v, "quipu.log");
    v->is_owned = has_owner(v);
    qp_str_printf(out, "%s: %s, %s\n", v->folder, v->method,
                  v->is_owned ? "running" : "nobody works in it");
    put_progress(out, v);
    put_ranks(out, v->metrics);
    put_memory(out, v->log);
    qp_str_puts(out, "\n");
    put_curves(out, v);
    qp_str_puts(out, "\n");
    put_log(out, v->log);
    return NULL;
}

qp_error_t qp_watch(const char *folder)
{
    const bool terminal = isatty(STDOUT_FILENO);
    bool again = true;
    while (again) {
        view_t view = {.folder = folder};
        qp_str_t frame = {0};
        qp_error_t error = look(&view, &frame);
        if (error == NULL)
            printf("%s%s", terminal ? "\033[H\033[2J" : "", frame.data);
        fflush(stdout);
        again = error == NULL && terminal && view.is_owned;
        qp_str_fini(&frame);
        forget(&view);
        QP_TRY(error);
        if (again)
            sleep(PAUSE_SECONDS);
    }
    return NULL;
}
