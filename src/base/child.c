#include "base/child.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "base/timer.h"

extern char **environ;

enum { FIRST_FREE_DESCRIPTOR = 3 /* after standard input, output and error */ };

/* How a program is brought to its end: what it is sent and how long it then has. */
static const struct {
    int signal; /* 0: the end of its standard input */
    double seconds;
} ending[] = {{0, 2.0}, {SIGHUP, 1.0}, {SIGKILL, INFINITY}};
enum { N_ENDING = sizeof ending / sizeof ending[0] };

void qp_child_close(int *end)
{
    if (*end >= 0)
        close(*end);
    *end = -1;
}

/* A pipe none of whose ends is a standard stream, even if this process has closed its own: what is
 * printed would go to the program, and one end could overwrite the other in the child. */
static qp_error_t open_pipe(const char *name, int ends[2])
{
    int low[2];
    if (pipe2(low, O_CLOEXEC) != 0)
        return QP_ERROR(QP_IO, "%s: no pipe: %s", name, strerror(errno));
    for (int i = 0; i < 2; i++)
        ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, FIRST_FREE_DESCRIPTOR);
    int failed = errno;
    close(low[0]);
    close(low[1]);
    if (ends[0] >= 0 && ends[1] >= 0)
        return NULL;
    qp_child_close(&ends[0]);
    qp_child_close(&ends[1]);
    return QP_ERROR(QP_IO, "%s: no pipe: %s", name, strerror(failed));
}

static int close_others(posix_spawn_file_actions_t *actions)
{
    int failed = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL)
        return errno;
    for (struct dirent *entry; failed == 0 && (entry = readdir(folder)) != NULL;) {
        int descriptor = (int)strtol(entry->d_name, NULL, 10); /* "." and ".." are 0 */
        if (descriptor >= FIRST_FREE_DESCRIPTOR)
            failed = posix_spawn_file_actions_addclose(actions, descriptor);
    }
    closedir(folder);
    return failed;
}

/* SIGPIPE may be ignored here, which a program would inherit. */
static void set_attributes(posix_spawnattr_t *attributes, bool apart)
{
    sigset_t blocked, defaults;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGINT);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_setsigmask(attributes, &blocked);
    posix_spawnattr_setsigdefault(attributes, &defaults);
    posix_spawnattr_setpgroup(attributes, 0);
    const int of_apart = apart ? POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP : 0;
    posix_spawnattr_setflags(attributes, (short)(POSIX_SPAWN_SETSIGDEF | of_apart));
}

/* 0 or an errno. output: -1, or what it writes to. */
static int spawn(const qp_child_config_t *config, int input, int output, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    set_attributes(&attributes, config->apart);
    int failed = posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    if (failed == 0 && output >= 0)
        failed = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    if (failed == 0 && config->quiet)
        failed =
            posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (failed == 0)
        failed = close_others(&actions);
    if (failed == 0) /* it takes strings that it does not change */
        failed = posix_spawnp(pid, config->argv[0], &actions, &attributes,
                              (char *const *)config->argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

qp_error_t qp_child_start(const qp_child_config_t *config, qp_child_t *child)
{
    int input[2] = {-1, -1}, output[2] = {-1, -1}, failed;
    const bool pipes = config->input < 0;
    qp_error_t error = NULL;
    *child = (qp_child_t){.to = -1, .from = -1, .apart = config->apart};
    if (pipes) {
        QP_TRY_DONE(open_pipe(config->name, input));
        QP_TRY_DONE(open_pipe(config->name, output));
    }
    failed = spawn(config, pipes ? input[0] : config->input, output[1], &child->pid);
    if (failed != 0) {
        child->pid = 0;
        error = QP_ERROR(QP_INPUT, "%s: cannot be started: %s", config->name, strerror(failed));
        goto done;
    }
    if (pipes) {
        fcntl(input[1], F_SETFL, O_NONBLOCK);
        fcntl(output[0], F_SETFL, O_NONBLOCK);
    }
    child->to = input[1];
    child->from = output[0];
    input[1] = output[0] = -1;
done:
    for (int i = 0; i < 2; i++) {
        qp_child_close(&input[i]);
        qp_child_close(&output[i]);
    }
    return error;
}

bool qp_child_ended(qp_child_t *child, double seconds)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    const double end = qp_time() + seconds;
    while (child->pid != 0) {
        pid_t got = waitpid(child->pid, &child->status, WNOHANG);
        if (got == child->pid || (got < 0 && errno != EINTR))
            child->pid = 0;
        else if (qp_time() >= end)
            return false;
        else
            nanosleep(&pause, NULL);
    }
    return true;
}

char *qp_child_describe_end(const qp_child_t *child)
{
    if (WIFSIGNALED(child->status))
        return qp_format("was ended by signal %d (%s)", WTERMSIG(child->status),
                         strsignal(WTERMSIG(child->status)));
    return qp_format("ended with exit status %d", WEXITSTATUS(child->status));
}

/* (A socket can do that by itself, but programs may open /dev/stdin, which sockets refuse.) */
ssize_t qp_child_write(const qp_child_t *child, const void *bytes, size_t n_bytes)
{
    const struct timespec now = {0};
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    sigpending(&pending);
    ssize_t n = write(child->to, bytes, n_bytes);
    int failed = errno;
    if (n < 0 && failed == EPIPE && !sigismember(&pending, SIGPIPE))
        sigtimedwait(&pipe_signal, NULL, &now);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = failed;
    return n;
}

int qp_child_stop(qp_child_t *child)
{
    int i = 0;
    qp_child_close(&child->to);
    while (!qp_child_ended(child, ending[i].seconds) && i + 1 < N_ENDING)
        kill(child->apart ? -child->pid : child->pid, ending[++i].signal);
    qp_child_close(&child->from);
    return i;
}
