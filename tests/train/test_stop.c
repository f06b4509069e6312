/* What makes a run stop early: signals, the stop file, the wall time of deck, Slurm and PBS. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/env.h"
#include "base/mem.h"
#include "train/loop/stop.h"
#include "testing.h"

static const qp_settings_t no_limit = {
    .checkpoint = {.walltime_seconds = -1.0, .walltime_margin_seconds = -1.0}};

static void test_signals(void)
{
    const int number[] = {SIGTERM, SIGUSR1, SIGINT};
    for (int i = 0; i < 3; i++) {
        qp_stop_t stop;
        qp_stop_catch();
        qp_stop_init(&stop, &no_limit, qp_test_folder());
        CHECK(qp_stop_bits(&stop, 1) == 0 && !qp_stop_hurries());
        raise(number[i]);
        CHECK(qp_stop_bits(&stop, 1) == QP_WORD_SIGNAL);
        CHECK(qp_stop_hurries() == (number[i] != SIGUSR1));
        qp_stop_fini(&stop);
    }
}

/* Ctrl-C, and once more: the process is gone. */
static void test_second_interrupt(void)
{
    int status = 0;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        qp_stop_catch();
        raise(SIGINT);
        raise(SIGINT);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
}

static void test_stop_file(void)
{
    qp_stop_catch();
    qp_stop_t stop;
    qp_stop_init(&stop, &no_limit, qp_test_folder());
    CHECK(qp_stop_bits(&stop, 0) == 0);
    fclose(fopen(stop.file, "w"));
    CHECK(qp_stop_bits(&stop, 0) == QP_WORD_FILE);
    CHECK(qp_stop_bits(&stop, 1) == 0); /* rank 0 looks for all */
    qp_stop_forget_file(&stop);
    CHECK(qp_stop_bits(&stop, 0) == 0);
    qp_stop_fini(&stop);
}

static void test_walltime(void)
{
    qp_settings_t settings = no_limit;
    qp_stop_t stop;
    settings.checkpoint.walltime_seconds = 100.0;
    settings.checkpoint.walltime_margin_seconds = 99.0;
    qp_stop_init(&stop, &settings, qp_test_folder());
    CHECK(qp_stop_bits(&stop, 0) == 0);
    stop.margin = 101.0;
    CHECK(qp_stop_bits(&stop, 0) == QP_WORD_TIME);
    stop.margin = -1.0; /* measured: 2 x 30 + 2 x 10 + 15 < 100 < 2 x 45 + ... */
    stop.checkpoint_seconds = 30.0;
    stop.step_seconds = 10.0;
    CHECK(qp_stop_bits(&stop, 0) == 0);
    stop.checkpoint_seconds = 45.0;
    CHECK(qp_stop_bits(&stop, 0) == QP_WORD_TIME);
    qp_stop_fini(&stop);
}

static void test_batch_systems(void)
{
    const char *source;
    char text[32];
    unsetenv("SLURM_JOB_END_TIME");
    unsetenv("PBS_WALLTIME");
    CHECK(qp_env_walltime(&source) < 0.0);
    setenv("PBS_WALLTIME", "3600", 1);
    CHECK(qp_env_walltime(&source) == 3600.0);
    snprintf(text, sizeof text, "%lld", (long long)time(NULL) + 500);
    setenv("SLURM_JOB_END_TIME", text, 1);
    double left = qp_env_walltime(&source);
    CHECK(left > 490.0 && left <= 500.0);
    setenv("SLURM_JOB_END_TIME", "12", 1); /* long ago */
    CHECK(qp_env_walltime(&source) == 0.0);
    unsetenv("SLURM_JOB_END_TIME");
    setenv("PBS_WALLTIME", "soon", 1);
    CHECK(qp_env_walltime(&source) < 0.0);
    unsetenv("PBS_WALLTIME");
}

int main(void)
{
    test_batch_systems();
    test_signals();
    test_second_interrupt();
    test_stop_file();
    test_walltime();
    CHECK(qp_env_memory_available() > 0);
    return qp_test_end();
}
