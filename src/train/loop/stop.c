#include "train/loop/stop.h"

#include <math.h>
#include <signal.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"

static const int caught[] = {SIGTERM, SIGUSR1, SIGINT};
enum { N_CAUGHT = sizeof caught / sizeof caught[0] };

/* What a handler can reach: any signal has come; one that is followed by the end; Ctrl-C. */
static volatile sig_atomic_t signalled, hurried, interrupted;

static void on_signal(int number)
{
    signalled = 1;
    hurried |= number != SIGUSR1;
    if (number == SIGINT &&
        interrupted) { /* the second: whoever sits there does not want to wait */
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    interrupted |= number == SIGINT;
}

void qp_stop_catch(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    signalled = hurried = interrupted = 0;
    for (int i = 0; i < N_CAUGHT; i++)
        sigaction(caught[i], &action, NULL);
}

bool qp_stop_hurries(void)
{
    return hurried;
}

void qp_stop_init(qp_stop_t *stop, const qp_settings_t *settings, const char *folder)
{
    const char *source = "checkpoint.walltime";
    double walltime = settings->checkpoint.walltime_seconds;
    if (walltime < 0.0)
        walltime = qp_env_walltime(&source);
    *stop = (qp_stop_t){
        .file = qp_format("%s/stop", folder),
        .deadline = walltime < 0.0 ? INFINITY : qp_time() + walltime,
        .margin = settings->checkpoint.walltime_margin_seconds,
    };
    if (walltime >= 0.0)
        qp_log_info("wall time: %.0f s left (%s)", walltime, source);
}

void qp_stop_fini(qp_stop_t *stop)
{
    QP_FREE(stop->file);
}

double qp_stop_margin(const qp_stop_t *stop)
{
    /* Two checkpoints and two steps, since both vary, and some time to write the adapter and end.
     */
    const double unmeasured = 60.0, end = 15.0;
    double checkpoint = stop->checkpoint_seconds > 0.0 ? stop->checkpoint_seconds : unmeasured;
    return stop->margin >= 0.0 ? stop->margin : 2.0 * checkpoint + 2.0 * stop->step_seconds + end;
}

uint64_t qp_stop_bits(const qp_stop_t *stop, int rank)
{
    uint64_t bits = signalled ? QP_WORD_SIGNAL : 0;
    if (rank != 0)
        return bits;
    if (access(stop->file, F_OK) == 0)
        bits |= QP_WORD_FILE;
    if (qp_time() + qp_stop_margin(stop) >= stop->deadline)
        bits |= QP_WORD_TIME;
    return bits;
}

const char *qp_stop_reason(uint64_t word)
{
    static const struct {
        uint64_t bit;
        const char *text;
    } reason[] = {
        {QP_WORD_SIGNAL, "a signal"},
        {QP_WORD_FILE, "the stop file"},
        {QP_WORD_TIME, "the wall time runs out"},
        {QP_WORD_STEPS, "checkpoint.stop_after_steps"},
    };
    for (size_t i = 0; i < sizeof reason / sizeof reason[0]; i++)
        if (word & reason[i].bit)
            return reason[i].text;
    return "nothing";
}

void qp_stop_forget_file(const qp_stop_t *stop)
{
    if (unlink(stop->file) == 0)
        qp_log_info("%s removed", stop->file);
}
