#include "train/run/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/env.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/timer.h"

/* How often the owner moves the time stamp. */
enum { HEARTBEAT_SECONDS = 10 };

struct qp_owner {
    char *path;   /* of the lock */
    qp_str_t own; /* what this process writes into it */
    char *before; /* about a dead owner, or NULL */
    pthread_t thread;
    bool running, stop;
    atomic_bool lost;     /* the last look at the lock found another's, or none */
    pthread_mutex_t lock; /* stop */
    pthread_cond_t changed;
};

/* --- who -------------------------------------------------------------------------------------- */

/* When a process began, in clock ticks since its machine did, and its state ('Z': it has ended, and
 * nobody has asked how); false: it cannot be seen. */
static bool look_at_process(long long pid, unsigned long long *ticks, char *state)
{
    char *path = qp_format("/proc/%lld/stat", pid);
    void *text = NULL;
    size_t n_bytes;
    qp_error_t error = qp_file_read(path, &text, &n_bytes);
    const char *behind = error == NULL ? strrchr(text, ')') : NULL; /* its name may hold anything */
    const bool seen = behind != NULL &&
                      sscanf(behind + 1,
                             " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                             "%*s %*s %llu",
                             state, ticks) == 2;
    qp_error_destroy(&error);
    qp_free(text);
    qp_free(path);
    return seen;
}

/* Where process numbers mean the same: one start of one machine, and one container on it. */
static void print_place(qp_str_t *out)
{
    char space[64] = "";
    void *boot = NULL;
    size_t n_boot = 0;
    qp_error_t error = qp_file_read("/proc/sys/kernel/random/boot_id", &boot, &n_boot);
    const ssize_t n_space = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    if (n_boot > 0 && n_space > 0)
        qp_str_printf(out, "%.*s %.*s", (int)strcspn(boot, "\n"), (const char *)boot, (int)n_space,
                      space);
    qp_error_destroy(&error);
    qp_free(boot);
}

static void print_job(qp_str_t *out)
{
    static const char *const job[][2] = {
        {"Slurm job ", "SLURM_JOB_ID"}, {"PBS job ", "PBS_JOBID"}, {"job ", "JOB_ID"}};
    for (size_t i = 0; i < sizeof job / sizeof job[0]; i++)
        if (qp_env(job[i][1]) != NULL) {
            qp_str_printf(out, "%s%s", job[i][0], qp_env(job[i][1]));
            return;
        }
    qp_str_puts(out, "no job");
}

/* The lines of a lock, each "key value". */
static void describe_self(qp_str_t *out)
{
    char host[256] = "", since[32], state;
    unsigned long long ticks = 0;
    const time_t now = time(NULL);
    struct tm tm;
    gethostname(host, sizeof host - 1);
    localtime_r(&now, &tm);
    strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S", &tm);
    look_at_process(getpid(), &ticks, &state);
    qp_str_printf(out, "host %s\npid %lld\nbegan %llu\nplace ", host, (long long)getpid(), ticks);
    print_place(out);
    qp_str_puts(out, "\njob ");
    print_job(out);
    qp_str_printf(out, "\nsince %s\n", since);
}

/* The value of a key, up to the end of its line; "" where the lock does not say. */
static const char *value_of(const char *lines, const char *key, int *n)
{
    const size_t n_key = strlen(key);
    for (const char *line = lines; *line != '\0';
         line += strcspn(line, "\n"), line += *line != '\0')
        if (strncmp(line, key, n_key) == 0 && line[n_key] == ' ') {
            *n = (int)strcspn(line + n_key + 1, "\n");
            return line + n_key + 1;
        }
    *n = 0;
    return "";
}

static bool same_value(const char *a, const char *b, const char *key)
{
    int n_a, n_b;
    const char *of_a = value_of(a, key, &n_a), *of_b = value_of(b, key, &n_b);
    return n_a > 0 && n_a == n_b && memcmp(of_a, of_b, (size_t)n_a) == 0;
}

/* Written by describe_self() to its end, by this or an earlier version. */
static bool is_complete(const char *lines)
{
    static const char *const keys[] = {"host", "pid", "job", "since"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        int n;
        const char *value = value_of(lines, keys[i], &n);
        for (int c = 0; c < n; c++)
            if ((unsigned char)value[c] < ' ' || value[c] == 127)
                return false;
        if (n == 0)
            return false;
    }
    return true;
}

/* "host a, process 7, Slurm job 5, since ..." */
static char *name_of(const char *lines)
{
    int n_host, n_pid, n_job, n_since;
    const char *host = value_of(lines, "host", &n_host), *pid = value_of(lines, "pid", &n_pid);
    const char *job = value_of(lines, "job", &n_job), *since = value_of(lines, "since", &n_since);
    if (!is_complete(lines))
        return qp_strdup("somebody who has not said who");
    return qp_format("host %.*s, process %.*s, %.*s, since %.*s", n_host, host, n_pid, pid, n_job,
                     job, n_since, since);
}

/* --- dead or alive ---------------------------------------------------------------------------- */

/* A lock as it was read. */
typedef struct {
    void *lines;
    int64_t moved_ns; /* its time stamp */
} look_t;

/* What no run has made, and none may remove. */
static qp_error_t refuse(const char *path, const char *what)
{
    return QP_ERROR(QP_INPUT,
                    "%s: is %s, not the lock of a run: remove it, if no run uses this folder", path,
                    what);
}

/* False: there is no lock. Opening asks a network file system for what is new. */
static qp_error_t look_at(const char *path, look_t *look, bool *exists)
{
    struct stat status;
    size_t n_bytes;
    *look = (look_t){0};
    *exists = lstat(path, &status) == 0;
    if (!*exists)
        return NULL;
    if (!S_ISREG(status.st_mode))
        return refuse(path, qp_file_kind(status.st_mode));
    qp_error_t error = qp_file_read(path, &look->lines, &n_bytes);
    if (error != NULL && lstat(path, &status) != 0 && errno == ENOENT) {
        qp_error_destroy(&error); /* gone meanwhile */
        *exists = false;
        return NULL;
    }
    QP_TRY(error);
    *exists = stat(path, &status) == 0;
    look->moved_ns = (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
    return NULL;
}

static void look_fini(look_t *look)
{
    QP_FREE(look->lines);
}

typedef enum { GONE, ALIVE, UNKNOWN } state_t;

/* What can be seen from here; UNKNOWN: it runs elsewhere, or where it cannot be seen. */
static state_t state_of(const char *lines, const char *own)
{
    int n;
    char state;
    unsigned long long now;
    if (!same_value(lines, own, "place"))
        return UNKNOWN;
    const long long pid = strtoll(value_of(lines, "pid", &n), NULL, 10);
    const unsigned long long then = strtoull(value_of(lines, "began", &n), NULL, 10);
    if (pid <= 0 || then == 0)
        return UNKNOWN;
    if (look_at_process(pid, &now, &state))
        return now == then && state != 'Z' && state != 'X' ? ALIVE : GONE;
    return kill((pid_t)pid, 0) == 0 || errno == EPERM ? UNKNOWN : GONE;
}

/* Seconds since a lock moved, by the clock of the file system that it lies in. */
static qp_error_t age_of(const char *path, const look_t *look, double *age)
{
    FILE *file;
    struct stat status;
    QP_TRY(qp_file_scratch(path, &file));
    const bool known =
        fputc('\n', file) != EOF && fflush(file) == 0 && fstat(fileno(file), &status) == 0;
    fclose(file);
    if (!known)
        return QP_ERROR(QP_IO, "%s: cannot write beside it: %s", path, strerror(errno));
    *age = (double)status.st_mtim.tv_sec - (double)look->moved_ns / 1e9;
    return NULL;
}

static void nap(void)
{
    const struct timespec time = {.tv_nsec = 500000000};
    nanosleep(&time, NULL);
}

/* Watches a lock until it moves (*alive), or has not for long enough. */
static qp_error_t watch(const char *path, const look_t *first, const char *name, bool *alive)
{
    double age;
    QP_TRY(age_of(path, first, &age));
    const double start = qp_time();
    *alive = false;
    if (age >= 0.0 && age < QP_OWNER_STALE_SECONDS)
        qp_log_info("%s: of %s: looking for at most %.0f s whether it still moves", path, name,
                    QP_OWNER_STALE_SECONDS - age);
    age = age < 0.0 ? 0.0 : age;
    while (!*alive && age + qp_time() - start < QP_OWNER_STALE_SECONDS) {
        look_t now;
        bool exists;
        nap();
        QP_TRY(look_at(path, &now, &exists));
        if (!exists) /* given back */
            return NULL;
        *alive = now.moved_ns != first->moved_ns || strcmp(now.lines, first->lines) != 0;
        look_fini(&now);
    }
    return NULL;
}

/* --- taking ----------------------------------------------------------------------------------- */

/* Makes the lock; *made: nobody had one. */
static qp_error_t make(const char *path, const qp_str_t *own, bool *made)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    *made = fd >= 0;
    if (fd < 0 && errno == EEXIST)
        return NULL;
    bool ok = fd >= 0 && write(fd, own->data, own->n) == (ssize_t)own->n;
    ok = ok && fsync(fd) == 0;
    const int reason = errno;
    if (fd >= 0 && close(fd) != 0)
        ok = false;
    if (ok)
        return NULL;
    if (*made)
        unlink(path);
    return QP_ERROR(QP_IO, "%s: cannot be written: %s", path, strerror(reason));
}

/* Removes the lock that was found stale, and no other: one that came in between is put back. */
static qp_error_t remove_stale(const char *path, const look_t *stale)
{
    char *aside = qp_format("%s.stale-%lld-%lld", path, (long long)getpid(), (long long)time(NULL));
    look_t moved = {0};
    bool exists = false;
    qp_error_t error = NULL;
    if (rename(path, aside) != 0) {
        if (errno != ENOENT) /* else another start was faster */
            error = QP_ERROR(QP_IO, "%s: cannot be removed: %s", path, strerror(errno));
        goto done;
    }
    QP_TRY_DONE(look_at(aside, &moved, &exists));
    if (exists && strcmp(moved.lines, stale->lines) != 0 && link(aside, path) != 0)
        qp_log_warn("%s: two starts at once", path); /* its owner will notice */
    unlink(aside);
done:
    look_fini(&moved);
    qp_free(aside);
    return error;
}

/* An empty lock is one that is just being made, or that a full disk has left; what says something
 * else is not a run's. */
static qp_error_t check_lines(const char *path, const char *lines)
{
    return lines[0] != '\0' && !is_complete(lines) ? refuse(path, "a file of something else")
                                                   : NULL;
}

/* Removes a lock whose owner is dead; refuses where he lives. */
static qp_error_t take_over(qp_owner_t *owner, const char *folder)
{
    const char *path = owner->path;
    look_t look;
    bool exists, alive;
    QP_TRY(look_at(path, &look, &exists));
    if (!exists)
        return NULL;
    char *name = name_of(look.lines);
    const state_t state = state_of(look.lines, owner->own.data);
    qp_error_t error = NULL;
    QP_TRY_DONE(check_lines(path, look.lines));
    alive = state == ALIVE;
    if (state == UNKNOWN)
        QP_TRY_DONE(watch(path, &look, name, &alive));
    if (alive) {
        error = QP_ERROR(QP_INPUT,
                         "%s is in use by %s: a run's folder has one owner; stop that run (touch "
                         "%s/stop) or choose another job.name",
                         folder, name, folder);
        goto done;
    }
    qp_free(owner->before);
    owner->before = qp_format("%s was left by %s, which is gone: taken over", path, name);
    error = remove_stale(path, &look);
done:
    qp_free(name);
    look_fini(&look);
    return error;
}

/* --- showing to be alive ---------------------------------------------------------------------- */

qp_error_t qp_owner_check(const qp_owner_t *owner)
{
    look_t look;
    bool exists;
    if (owner == NULL)
        return NULL;
    QP_TRY(look_at(owner->path, &look, &exists));
    qp_error_t error = NULL;
    if (!exists)
        error = QP_ERROR(QP_IO, "%s is gone: the run no longer owns its folder", owner->path);
    else if (strcmp(look.lines, owner->own.data) != 0) {
        char *name = name_of(look.lines);
        error = QP_ERROR(QP_IO, "%s is now of %s: the run no longer owns its folder", owner->path,
                         name);
        qp_free(name);
    }
    look_fini(&look);
    return error;
}

static void move(qp_owner_t *owner)
{
    qp_error_t error = qp_owner_check(owner);
    atomic_store(&owner->lost, error != NULL);
    if (error == NULL)
        (void)utimensat(AT_FDCWD, owner->path, NULL, 0); /* the next time, if not now */
    qp_error_destroy(&error);                            /* said by the run itself */
}

const char *qp_owner_before(const qp_owner_t *owner)
{
    return owner->before;
}

bool qp_owner_is_lost(const qp_owner_t *owner)
{
    return owner != NULL && atomic_load(&owner->lost);
}

static void *heart(void *argument)
{
    qp_owner_t *owner = argument;
    pthread_mutex_lock(&owner->lock);
    while (!owner->stop) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += HEARTBEAT_SECONDS;
        if (pthread_cond_timedwait(&owner->changed, &owner->lock, &until) != ETIMEDOUT)
            continue;
        pthread_mutex_unlock(&owner->lock);
        move(owner);
        pthread_mutex_lock(&owner->lock);
    }
    pthread_mutex_unlock(&owner->lock);
    return NULL;
}

/* The thread leaves all signals to the others. */
static qp_error_t start_heart(qp_owner_t *owner)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    owner->running = pthread_create(&owner->thread, NULL, heart, owner) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return owner->running ? NULL : QP_ERROR(QP_INTERNAL, "the lock's thread cannot be started");
}

qp_error_t qp_owner_take(const char *folder, qp_owner_t **out)
{
    qp_owner_t *owner = QP_NEW("lock", qp_owner_t, 1);
    bool made = false;
    qp_error_t error = NULL;
    pthread_mutex_init(&owner->lock, NULL);
    pthread_cond_init(&owner->changed, NULL);
    owner->path = qp_format("%s/lock", folder);
    describe_self(&owner->own);
    QP_TRY_DONE(make(owner->path, &owner->own, &made));
    while (!made) {
        QP_TRY_DONE(take_over(owner, folder));
        QP_TRY_DONE(make(owner->path, &owner->own, &made));
    }
    error = start_heart(owner);
done:
    if (error != NULL)
        qp_owner_release(&owner);
    *out = owner;
    return error;
}

void qp_owner_release(qp_owner_t **out)
{
    qp_owner_t *owner = *out;
    if (owner == NULL)
        return;
    if (owner->running) {
        pthread_mutex_lock(&owner->lock);
        owner->stop = true;
        pthread_cond_signal(&owner->changed);
        pthread_mutex_unlock(&owner->lock);
        pthread_join(owner->thread, NULL);
    }
    qp_error_t error = qp_owner_check(owner);
    if (error == NULL)
        unlink(owner->path);
    qp_error_destroy(&error); /* another's, then */
    pthread_cond_destroy(&owner->changed);
    pthread_mutex_destroy(&owner->lock);
    qp_str_fini(&owner->own);
    qp_free(owner->before);
    qp_free(owner->path);
    QP_FREE(*out);
}

qp_error_t qp_owner_report(const char *folder)
{
    char *path = qp_format("%s/lock", folder);
    qp_str_t own = {0};
    look_t look;
    bool exists = false;
    describe_self(&own);
    qp_error_t error = look_at(path, &look, &exists);
    if (error == NULL && exists)
        error = check_lines(path, look.lines);
    if (error == NULL && exists) {
        char *name = name_of(look.lines);
        qp_log_info("%s is %s %s", folder,
                    state_of(look.lines, own.data) == GONE ? "left behind by" : "in use by", name);
        qp_free(name);
    }
    look_fini(&look);
    qp_str_fini(&own);
    qp_free(path);
    return error;
}
