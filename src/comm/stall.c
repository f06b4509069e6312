/* The watch over ranks that stand still: each tells one other how it gets on. */
#include "comm/stall.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/minmax.h"
#include "base/timer.h"
#include "comm/comm_impl.h"

/* What a rank says of itself; sent as bytes. */
typedef struct {
    double age;      /* seconds since its last mark */
    int32_t waits;   /* for other ranks */
    int32_t is_last; /* the rank has come to the end of the watch */
    int64_t process;
    char phase[40];
    char host[64];
} beat_t;

struct qp_stall {
    MPI_Comm comm;
    int rank, size;
    double timeout, tick; /* seconds */
    double now;           /* seconds that this process has run since the start of the watch */
    double looked;        /* qp_time() when that was counted last */
    uint64_t n_mark;
    double marked; /* when n_mark was new, as now */
    beat_t own, sent;
    beat_t *beat;  /* [size] of the ranks that this one listens to, and its own */
    double *heard; /* [size] when, as now */
    MPI_Request sending;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    bool ends;
};

/* Rank 0 listens to all others, and rank 1 to rank 0. */
static bool listens(const qp_stall_t *s, int rank)
{
    return s->rank == 0 ? rank != 0 : s->rank == 1 && rank == 0;
}

static int listener(const qp_stall_t *s)
{
    return s->rank == 0 ? 1 : 0;
}

/* --- ending the job --------------------------------------------------------------------------- */

/* The main thread may hang with the locks of stdio, and the disk of the log hang as well: then the
 * alarm ends this process, and the launcher the job. */
__attribute__((noreturn)) static void end_job(const qp_stall_t *s, const char *message)
{
    alarm(30);
    qp_log_at_once(message);
    nanosleep(&(struct timespec){.tv_nsec = 300 * 1000 * 1000},
              NULL); /* the launcher passes it on */
    MPI_Abort(s->comm, QP_IO);
    _exit(QP_IO);
}

static void end_for_rank(const qp_stall_t *s, int rank, const char *what)
{
    const beat_t *b = &s->beat[rank];
    char text[512];
    snprintf(text, sizeof text,
             "rank %d (process %lld on %s) %s for %.0f s (job.stall_timeout), in this phase: %s; "
             "the job ends, start it again to continue from its last checkpoint",
             rank, (long long)b->process, b->host, what, s->timeout, b->phase);
    end_job(s, text);
}

/* --- what this rank knows --------------------------------------------------------------------- */

/* Counts the time since the last look, but for what this process has not run of it. */
static void count_time(qp_stall_t *s)
{
    const double time = qp_time();
    s->now += fmin(time - s->looked, 2.0 * s->tick);
    s->looked = time;
}

static void look_at_self(qp_stall_t *s)
{
    const qp_activity_t activity = qp_activity_read();
    if (activity.n_mark != s->n_mark)
        s->marked = s->now;
    s->n_mark = activity.n_mark;
    s->own.age = s->now - s->marked;
    s->own.waits = activity.waits;
    snprintf(s->own.phase, sizeof s->own.phase, "%s", activity.phase);
    s->beat[s->rank] = s->own;
    s->heard[s->rank] = s->now;
}

/* Unless the last message is still on its way. */
static bool speak(qp_stall_t *s)
{
    int done = 0;
    QP_MPI_MUST(MPI_Test(&s->sending, &done, MPI_STATUS_IGNORE));
    if (!done)
        return false;
    s->sent = s->own;
    QP_MPI_MUST(
        MPI_Isend(&s->sent, (int)sizeof s->sent, MPI_BYTE, listener(s), 0, s->comm, &s->sending));
    return true;
}

static void listen(qp_stall_t *s)
{
    for (int any = 1; any;) {
        MPI_Status status;
        beat_t beat;
        QP_MPI_MUST(MPI_Iprobe(MPI_ANY_SOURCE, 0, s->comm, &any, &status));
        if (!any)
            break;
        QP_MPI_MUST(MPI_Recv(&beat, (int)sizeof beat, MPI_BYTE, status.MPI_SOURCE, 0, s->comm,
                             MPI_STATUS_IGNORE));
        s->beat[status.MPI_SOURCE] = beat;
        s->heard[status.MPI_SOURCE] = s->now;
    }
}

static void judge(const qp_stall_t *s)
{
    int oldest = -1, n_waiting = 0;
    double oldest_age = s->timeout;
    for (int r = 0; r < s->size; r++) {
        if (s->beat[r].is_last || (r != s->rank && !listens(s, r)))
            continue;
        const double silence = s->now - s->heard[r], age = s->beat[r].age + silence;
        if (silence > s->timeout)
            end_for_rank(s, r, "has not been heard of");
        if (!s->beat[r].waits && age > oldest_age) {
            oldest = r;
            oldest_age = age;
        }
        n_waiting += s->beat[r].waits && age > s->timeout;
    }
    if (s->rank == 0 && oldest >= 0)
        end_for_rank(s, oldest, "has stood still");
    if (s->rank == 0 && s->size > 1 && n_waiting == s->size) {
        char text[256];
        snprintf(
            text, sizeof text,
            "all %d ranks have waited for each other for %.0f s (job.stall_timeout), rank 0 in "
            "this phase: %s; the network, the MPI library or a file system stalls",
            s->size, s->timeout, s->own.phase);
        end_job(s, text);
    }
}

/* --- the thread ------------------------------------------------------------------------------- */

/* Until the next look is due, or the watch is to end. */
static bool sleep_for(qp_stall_t *s, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    const double at = (double)until.tv_nsec * 1e-9 + seconds;
    until.tv_sec += (time_t)at;
    until.tv_nsec = (long)((at - floor(at)) * 1e9);
    pthread_mutex_lock(&s->lock);
    while (!s->ends && pthread_cond_clockwait(&s->changed, &s->lock, CLOCK_MONOTONIC, &until) == 0)
        continue;
    const bool ends = s->ends;
    pthread_mutex_unlock(&s->lock);
    return ends;
}

static void look(qp_stall_t *s)
{
    count_time(s);
    look_at_self(s);
    listen(s);
    judge(s);
}

static bool is_over(const qp_stall_t *s)
{
    for (int r = 0; r < s->size; r++)
        if (listens(s, r) && !s->beat[r].is_last)
            return false;
    return true;
}

/* The last words: no message is left behind when the communicator goes. */
static void say_goodbye(qp_stall_t *s)
{
    bool said = s->size == 1;
    int sent = said;
    long pause_ns = 50 * 1000;
    s->own.is_last = 1;
    for (;;) {
        look(s);
        if (!said)
            said = speak(s);
        else if (!sent)
            QP_MPI_MUST(MPI_Test(&s->sending, &sent, MPI_STATUS_IGNORE));
        if (sent && is_over(s))
            break;
        nanosleep(&(struct timespec){.tv_nsec = pause_ns}, NULL);
        pause_ns = qp_min_i64(2 * pause_ns, 100 * 1000 * 1000);
    }
}

static void *watch(void *stall)
{
    qp_stall_t *s = stall;
    while (!sleep_for(s, s->tick)) {
        look(s);
        if (s->size > 1)
            speak(s);
    }
    count_time(s);
    say_goodbye(s);
    return NULL;
}

/* --- start and end ---------------------------------------------------------------------------- */

/* No signal is for this thread. */
static qp_error_t start_thread(qp_stall_t *s)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int status = pthread_create(&s->thread, NULL, watch, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status == 0
               ? NULL
               : QP_ERROR(QP_INTERNAL, "cannot start the watching thread (error %d)", status);
}

static void release(qp_stall_t *s)
{
    if (s->comm != MPI_COMM_NULL)
        QP_MPI_MUST(MPI_Comm_free(&s->comm));
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    qp_free(s->beat);
    qp_free(s->heard);
    qp_free(s);
}

/* Everybody knows everybody's name before the first look. */
static qp_error_t introduce(qp_stall_t *s, const qp_comm_t *comm)
{
    QP_TRY(QP_MPI(MPI_Comm_dup(comm->world, &s->comm)));
    QP_TRY(QP_MPI(MPI_Comm_set_errhandler(s->comm, MPI_ERRORS_RETURN)));
    s->own.process = getpid();
    if (gethostname(s->own.host, sizeof s->own.host - 1) != 0)
        s->own.host[0] = '?';
    s->looked = qp_time();
    look_at_self(s);
    return QP_MPI(MPI_Allgather(&s->own, (int)sizeof s->own, MPI_BYTE, s->beat, (int)sizeof s->own,
                                MPI_BYTE, s->comm));
}

qp_error_t qp_stall_watch(qp_comm_t *comm, double timeout, qp_stall_t **out)
{
    *out = NULL;
    if (timeout <= 0.0)
        return NULL;
    qp_stall_t *s = QP_NEW("comm", qp_stall_t, 1);
    *s = (qp_stall_t){.comm = MPI_COMM_NULL,
                      .rank = comm->rank,
                      .size = comm->size,
                      .timeout = timeout,
                      .tick = fmin(timeout / 8.0, 10.0),
                      .beat = QP_NEW("comm", beat_t, comm->size),
                      .heard = QP_NEW("comm", double, comm->size),
                      .sending = MPI_REQUEST_NULL};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    qp_error_t error = introduce(s, comm);
    if (error == NULL)
        error = start_thread(s);
    if (error != NULL)
        release(s);
    else
        *out = s;
    return error;
}

/* Behind the watch, MPI_Finalize waits for all ranks once more. */
static void on_alarm(int number)
{
    static const char text[] =
        "[error] MPI_Finalize does not return (job.stall_timeout): a rank is gone\n";
    (void)number;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(QP_IO);
}

void qp_stall_end(qp_stall_t **stall)
{
    qp_stall_t *s = *stall;
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    s->ends = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
    qp_activity_wait_begin();
    pthread_join(s->thread, NULL);
    qp_activity_wait_end();
    const double timeout = s->timeout;
    release(s);
    *stall = NULL;
    signal(SIGALRM, on_alarm);
    alarm((unsigned)fmin(ceil(timeout), 1e9));
}
