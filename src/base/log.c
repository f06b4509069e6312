#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/str.h"

static struct {
    qp_log_level_t level;
    int rank;
    FILE *copy;
    size_t progress_width; /* characters of the progress line now on the terminal */
} state = {QP_LOG_INFO, 0, NULL, 0};

static const char *const level_name[] = {"error", "warn", "info", "stat", "debug"};

void qp_log_init(qp_log_level_t level, int rank)
{
    state.level = level;
    state.rank = rank;
}

qp_error_t qp_log_tee(const char *path)
{
    qp_log_fini();
    return qp_file_append(path, &state.copy);
}

void qp_log_fini(void)
{
    if (state.copy != NULL)
        fclose(state.copy);
    state.copy = NULL;
}

qp_log_level_t qp_log_level(void)
{
    return state.level;
}

static void clear_progress(void)
{
    if (state.progress_width > 0)
        fprintf(stderr, "\r%*s\r", (int)state.progress_width, "");
    state.progress_width = 0;
}

/* The message as one line (free). Not in counted memory: its counters speak through here, too.
 * NULL: none is left. */
static char *one_line(const char *format, va_list args)
{
    char *text = NULL;
    size_t n = 0;
    if (vasprintf(&text, format, args) < 0)
        return NULL;
    char *line = malloc(4 * strlen(text) + 1);
    for (const char *c = text; line != NULL && *c != '\0'; c++)
        n += qp_escape(*c, line + n);
    if (line != NULL)
        line[n] = '\0'; /* of an empty one, too */
    free(text);
    return line;
}

/* Lines go on to the terminal where the file takes no more, as on a full disk. */
static void give_up_copy(void)
{
    const int reason = errno;
    qp_log_fini();
    qp_log_warn("the log file cannot be written: %s; what follows stands here alone",
                strerror(reason));
}

void qp_log(qp_log_level_t level, bool every_rank, const char *format, ...)
{
    if (level > state.level || (state.rank != 0 && !every_rank))
        return;
    char stamp[32];
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "%H:%M:%S", &tm);
    va_list args;
    va_start(args, format);
    char *line = one_line(format, args);
    va_end(args);
    clear_progress();
    FILE *const sinks[] = {stderr, state.copy};
    for (int i = 0; i < 2; i++) {
        if (sinks[i] == NULL)
            continue;
        if (state.rank != 0)
            fprintf(sinks[i], "[%s %s rank %d] ", level_name[level], stamp, state.rank);
        else
            fprintf(sinks[i], "[%s %s] ", level_name[level], stamp);
        fprintf(sinks[i], "%s\n", line != NULL ? line : "out of memory");
        if (fflush(sinks[i]) != 0 && sinks[i] == state.copy)
            give_up_copy();
    }
    free(line);
}

void qp_log_at_once(const char *text)
{
    dprintf(STDERR_FILENO, "[error] %s\n", text);
    if (state.copy != NULL)
        dprintf(fileno(state.copy), "[error] %s\n", text);
}

void qp_log_progress(const char *text)
{
    if (state.rank != 0 || state.level < QP_LOG_INFO || !isatty(STDERR_FILENO))
        return;
    size_t width = strlen(text);
    int blank = width < state.progress_width ? (int)(state.progress_width - width) : 0;
    fprintf(stderr, "\r%s%*s", text, blank, "");
    fflush(stderr);
    state.progress_width = width;
}
