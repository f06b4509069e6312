#include "train/report/metrics.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
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

static void put_header(const qp_metrics_t *metrics, qp_str_t *header)
{
    for (int i = 0; i < metrics->n; i++)
        qp_str_printf(header, "%s%s", i > 0 ? "," : "", metrics->name[i]);
    qp_str_putc(header, '\n');
}

/* Puts a file aside whose header is not this one. */
static qp_error_t keep_other(const char *path, const qp_str_t *header, int64_t step)
{
    void *text = NULL;
    size_t n_bytes;
    qp_error_t error = NULL;
    if (step < 0 || access(path, F_OK) != 0)
        return NULL;
    QP_TRY(qp_file_read(path, &text, &n_bytes));
    if (n_bytes > 0 && (n_bytes < header->n || memcmp(text, header->data, header->n) != 0)) {
        char *aside = qp_format("%s.until-%lld", path, (long long)step);
        error = qp_file_commit(path, aside);
        if (error == NULL)
            qp_log_warn("%s has other columns than this version writes: it is %s now", path, aside);
        qp_free(aside);
    }
    qp_free(text);
    return error;
}

qp_error_t qp_metrics_open(qp_metrics_t *metrics, const char *path, int64_t step)
{
    qp_str_t header = {0};
    put_header(metrics, &header);
    qp_error_t error = keep_other(path, &header, step);
    if (error == NULL)
        error = qp_lines_open(path, "", step, &metrics->file);
    if (error == NULL) {
        fseek(metrics->file, 0, SEEK_END);
        if (ftell(metrics->file) == 0 &&
            (fputs(header.data, metrics->file) == EOF || fflush(metrics->file) != 0))
            error = QP_ERROR(QP_IO, "%s: cannot be written: %s", path, strerror(errno));
    }
    qp_str_fini(&header);
    return error;
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
