#include "train/metrics.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

/* Step of a line, or -1 if it has none. */
static int64_t line_step(const char *line, const char *key)
{
    const char *text = key[0] == '\0' ? line : strstr(line, key);
    char *end = NULL;
    if (text == NULL)
        return -1;
    text += strlen(key);
    long long step = strtoll(text, &end, 10);
    return end == text ? -1 : (int64_t)step;
}

/* Copies the lines that stay; an unfinished last line (a crash) goes too. */
static void keep_lines(const char *text, const char *key, int64_t step, qp_str_t *kept)
{
    for (const char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
        if (line_step(line, key) <= step)
            qp_str_append(kept, line, (size_t)(end - line) + 1);
}

qp_error_t qp_lines_open(const char *path, const char *key, int64_t step, FILE **file)
{
    qp_str_t kept = {0};
    void *text = NULL;
    size_t n_bytes;
    qp_error_t error = NULL;
    *file = NULL;
    if (access(path, F_OK) == 0) {
        QP_TRY_DONE(qp_file_read(path, &text, &n_bytes));
        if (step >= 0)
            keep_lines(text, key, step, &kept);
        QP_TRY_DONE(qp_file_write(path, kept.n > 0 ? kept.data : "", kept.n));
    }
    error = qp_file_append(path, file);
done:
    qp_str_fini(&kept);
    qp_free(text);
    return error;
}

int qp_metrics_add(qp_metrics_t *metrics, const char *name)
{
    QP_ASSERT(metrics->n < QP_MAX_METRIC);
    metrics->name[metrics->n] = name;
    return metrics->n++;
}

/* Ends a line and hands it to the system. */
static qp_error_t flush_line(qp_metrics_t *metrics)
{
    if (fputc('\n', metrics->file) == EOF || fflush(metrics->file) != 0)
        return QP_ERROR(QP_IO, "metrics.csv: cannot be written: %s", strerror(errno));
    return NULL;
}

qp_error_t qp_metrics_open(qp_metrics_t *metrics, const char *path, int64_t step)
{
    QP_TRY(qp_lines_open(path, "", step, &metrics->file));
    fseek(metrics->file, 0, SEEK_END);
    if (ftell(metrics->file) > 0)
        return NULL;
    for (int i = 0; i < metrics->n; i++)
        fprintf(metrics->file, "%s%s", i > 0 ? "," : "", metrics->name[i]);
    return flush_line(metrics);
}

void qp_metrics_set(qp_metrics_t *metrics, int column, double value)
{
    metrics->value[column] = value;
    metrics->is_set[column] = true;
}

qp_error_t qp_metrics_write(qp_metrics_t *metrics)
{
    for (int i = 0; i < metrics->n; i++) {
        if (i > 0)
            fputc(',', metrics->file);
        if (metrics->is_set[i] && isfinite(metrics->value[i])) /* else there is no number */
            fprintf(metrics->file, "%.10g", metrics->value[i]);
        metrics->is_set[i] = false;
    }
    return flush_line(metrics);
}

void qp_metrics_close(qp_metrics_t *metrics)
{
    if (metrics->file != NULL)
        fclose(metrics->file);
    metrics->file = NULL;
}
