#include "train/answers/reward_command.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/child.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/timer.h"
#include "base/utf8.h"

enum {
    MAX_SHOWN = 80,            /* characters of a line that messages show */
    MAX_LINE_BYTES = 16 << 20, /* what never ends its line must not fill the memory */
    READ_BYTES = 64 << 10      /* a pipe holds as much */
};

/* A program that closes a pipe is most often about to end; its status says more than the pipe. */
static const double ending_seconds = 0.5;

struct qp_reward_command {
    char *name; /* "reward program x" */
    double timeout;
    qp_child_t child;
    bool failed;
    int64_t n_asked, n_answered; /* lines, since the start */
    qp_str_t in;                 /* of the line that is being read */

    /* Of one call of score. */
    qp_str_t out; /* all lines */
    size_t n_sent_bytes;
    int64_t n, n_taken;
    double *reward;
    double deadline;
};

qp_error_t qp_reward_command_start(const qp_deck_strings_t *argv, double timeout,
                                   qp_reward_command_t **command)
{
    QP_ASSERT(timeout > 0.0);
    *command = NULL;
    if (argv->n < 1)
        return QP_ERROR(QP_INPUT, "reward program: its name is expected, found an empty list");
    qp_reward_command_t *c = QP_NEW("reward program", qp_reward_command_t, 1);
    *c = (qp_reward_command_t){.name = qp_format("reward program %s", argv->item[0]),
                               .timeout = timeout};
    const char **args = QP_NEW("reward program", const char *, argv->n + 1);
    memcpy(args, argv->item, qp_bytes(argv->n, sizeof *args));
    const qp_child_config_t config = {.name = c->name, .argv = args, .input = -1, .apart = true};
    qp_error_t error = qp_child_start(&config, &c->child);
    qp_free(args);
    if (error != NULL)
        qp_reward_command_stop(&c);
    *command = c;
    return error;
}

/* A line as a message can hold it; the caller's. */
static char *show(const qp_str_t *line)
{
    /* So many bytes are more than MAX_SHOWN characters, whatever they are. */
    const size_t n_bytes = line->n < 4 * MAX_SHOWN + 4 ? line->n : 4 * MAX_SHOWN + 4;
    qp_str_t repaired = {0}, shown = {0};
    size_t at = 0;
    qp_utf8_repair(&repaired, line->data, n_bytes);
    for (int i = 0; i < MAX_SHOWN && at < repaired.n; i++) {
        const char *character = repaired.data + at;
        size_t n = qp_utf8_length(*character);
        bool control = (unsigned char)*character < 0x20 || *character == 0x7f;
        qp_str_append(&shown, control ? "?" : character, n);
        at += n;
    }
    qp_str_puts(&shown, line->n == 0 ? "(an empty line)" : at < repaired.n ? "..." : "");
    qp_str_fini(&repaired);
    return shown.data;
}

/* "after 3 of 10 answers (23 since its start)"; the caller's. */
static char *describe_progress(const qp_reward_command_t *c)
{
    return qp_format("after %lld of %lld answers (%lld since its start)", (long long)c->n_taken,
                     (long long)c->n, (long long)c->n_answered);
}

/* The program has closed a pipe. */
static qp_error_t fail_closed(qp_reward_command_t *c, const char *closed)
{
    char *how = c->child.pid == 0 ? qp_child_describe_end(&c->child)
                                  : qp_format("closed its standard %s", closed);
    char *progress = describe_progress(c), *line = show(&c->in);
    bool partial = c->in.n > 0;
    qp_error_t error = QP_ERROR(QP_IO, "%s: %s %s%s%s", c->name, how, progress,
                                partial ? ", within the line: " : "", partial ? line : "");
    qp_free(how);
    qp_free(progress);
    qp_free(line);
    return error;
}

static qp_error_t fail_silent(qp_reward_command_t *c)
{
    /* What it has started may hold its output open. */
    if (qp_child_ended(&c->child, 0.0))
        return fail_closed(c, "output");
    char *progress = describe_progress(c), *line = show(&c->in);
    bool partial = c->in.n > 0;
    qp_error_t error = QP_ERROR(QP_IO,
                                "%s: no answer within %g s %s; for each line of "
                                "its input one line is expected, flushed at once%s%s",
                                c->name, c->timeout, progress, partial ? ", found only: " : "",
                                partial ? line : "");
    qp_free(progress);
    qp_free(line);
    return error;
}

static qp_error_t fail_surplus(const qp_reward_command_t *c)
{
    char *line = show(&c->in);
    qp_error_t error = QP_ERROR(QP_IO,
                                "%s: one line for each line of its input is "
                                "expected, found one more after %lld: %s",
                                c->name, (long long)c->n_answered, line);
    qp_free(line);
    return error;
}

/* Takes the line that has been read. */
static qp_error_t take_line(qp_reward_command_t *c)
{
    if (c->n_answered == c->n_asked)
        return fail_surplus(c);
    const size_t flags = JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES;
    json_t *answer = json_loadb(c->in.data, c->in.n, flags, NULL);
    const json_t *reward = json_object_get(answer, "reward");
    qp_error_t error = NULL;
    if (json_is_real(reward)) {
        c->reward[c->n_taken++] = json_real_value(reward);
        c->n_answered++;
        c->deadline = qp_time() + c->timeout;
        qp_activity_mark();
    } else {
        char *line = show(&c->in);
        error = QP_ERROR(QP_IO,
                         "%s: answer %lld of %lld: an object with a number "
                         "\"reward\" is expected, found: %s",
                         c->name, (long long)c->n_taken + 1, (long long)c->n, line);
        qp_free(line);
    }
    json_decref(answer);
    return error;
}

/* Reads once and takes all lines that are now complete; *n_bytes: what came. */
static qp_error_t receive(qp_reward_command_t *c, size_t *n_bytes)
{
    char bytes[READ_BYTES];
    ssize_t n = read(c->child.from, bytes, sizeof bytes);
    *n_bytes = n > 0 ? (size_t)n : 0;
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return QP_ERROR(QP_IO, "%s: reading failed: %s", c->name, strerror(errno));
    if (n == 0) {
        qp_child_ended(&c->child, ending_seconds);
        return fail_closed(c, "output");
    }
    const char *start = bytes, *const end = bytes + *n_bytes;
    for (const char *newline; (newline = memchr(start, '\n', (size_t)(end - start))) != NULL;) {
        qp_str_append(&c->in, start, (size_t)(newline - start));
        QP_TRY(take_line(c));
        qp_str_clear(&c->in);
        start = newline + 1;
    }
    qp_str_append(&c->in, start, (size_t)(end - start));
    if (c->in.n > MAX_LINE_BYTES)
        return QP_ERROR(QP_IO,
                        "%s: lines of at most %d bytes are expected, found "
                        "one that is longer",
                        c->name, (int)MAX_LINE_BYTES);
    return NULL;
}

/* Writes as much as the pipe takes. */
static qp_error_t feed(qp_reward_command_t *c)
{
    const char *bytes = c->out.data + c->n_sent_bytes;
    ssize_t n = qp_child_write(&c->child, bytes, c->out.n - c->n_sent_bytes);
    if (n < 0 && errno == EPIPE) {
        /* The answers that it gave before count. */
        qp_child_ended(&c->child, ending_seconds);
        for (size_t n_bytes = 1; n_bytes > 0;)
            QP_TRY(receive(c, &n_bytes));
        return fail_closed(c, "input");
    }
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return QP_ERROR(QP_IO, "%s: writing failed: %s", c->name, strerror(errno));
    for (ssize_t i = 0; i < n; i++)
        c->n_asked += bytes[i] == '\n';
    c->n_sent_bytes += n > 0 ? (size_t)n : 0;
    return NULL;
}

static int milliseconds_left(double deadline)
{
    const double most = 1e6, left = 1e3 * (deadline - qp_time());
    return left <= 0.0 ? 0 : (int)ceil(left < most ? left : most);
}

/* Sends the lines of this call and takes their answers, whichever can be done. */
static qp_error_t exchange(qp_reward_command_t *c)
{
    size_t n_bytes;
    QP_TRY(receive(c, &n_bytes)); /* nothing has been asked yet */
    if (c->in.n > 0)
        return fail_surplus(c);
    c->deadline = qp_time() + c->timeout;
    while (c->n_taken < c->n) {
        struct pollfd ends[] = {
            {.fd = c->child.from, .events = POLLIN},
            {.fd = c->n_sent_bytes < c->out.n ? c->child.to : -1, .events = POLLOUT}};
        if (poll(ends, 2, milliseconds_left(c->deadline)) < 0 && errno != EINTR)
            return QP_ERROR(QP_IO, "%s: poll: %s", c->name, strerror(errno));
        if (ends[1].revents != 0)
            QP_TRY(feed(c));
        if (ends[0].revents != 0)
            QP_TRY(receive(c, &n_bytes));
        if (c->n_taken < c->n && qp_time() >= c->deadline)
            return fail_silent(c);
    }
    return c->in.n > 0 ? fail_surplus(c) : NULL;
}

static json_t *text_value(const char *text, size_t n_bytes)
{
    qp_str_t repaired = {0};
    qp_str_puts(&repaired, "");
    qp_utf8_repair(&repaired, text, n_bytes);
    json_t *value = json_stringn(repaired.data, repaired.n);
    qp_str_fini(&repaired);
    return value;
}

static int append_to(const char *bytes, size_t n_bytes, void *text)
{
    qp_str_append(text, bytes, n_bytes);
    return 0;
}

static void append_line(qp_str_t *out, const qp_reward_text_t *text)
{
    json_t *line = json_object();
    int failed = 0;
    failed |= json_object_set_new(line, "prompt", text_value(text->prompt, text->n_prompt));
    failed |= json_object_set_new(line, "response", text_value(text->response, text->n_response));
    failed |= json_dump_callback(line, append_to, out, JSON_ENSURE_ASCII);
    QP_ASSERT(failed == 0);
    json_decref(line);
    qp_str_putc(out, '\n');
}

qp_error_t qp_reward_command_score(qp_reward_command_t *command, const qp_reward_text_t *text,
                                   int64_t n, double *reward)
{
    QP_ASSERT(!command->failed);
    qp_str_clear(&command->out);
    for (int64_t i = 0; i < n; i++)
        append_line(&command->out, &text[i]);
    command->n_sent_bytes = 0;
    command->n = n;
    command->n_taken = 0;
    command->reward = reward;
    qp_error_t error = exchange(command);
    command->failed = error != NULL;
    return error;
}

void qp_reward_command_stop(qp_reward_command_t **command)
{
    qp_reward_command_t *c = *command;
    if (c == NULL)
        return;
    if (c->failed) /* it may be writing what nobody reads */
        qp_child_close(&c->child.from);
    int n_signal = qp_child_stop(&c->child);
    if (c->child.status != 0 && !c->failed) {
        char *how = qp_child_describe_end(&c->child);
        qp_log(QP_LOG_WARN, true, "%s: %s%s", c->name,
               n_signal > 0 ? "did not end with its input; " : "", how);
        qp_free(how);
    }
    qp_str_fini(&c->in);
    qp_str_fini(&c->out);
    qp_free(c->name);
    qp_free(c);
    *command = NULL;
}
