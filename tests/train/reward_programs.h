/**
 * \file reward_programs.h
 * Programs that give rewards, well-behaved and broken, for test_reward_command.c: it is all of them
 * itself, called with "--reward MODE [argument]".
 */
#ifndef QP_REWARD_PROGRAMS_H
#define QP_REWARD_PROGRAMS_H

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void pause_seconds(double seconds)
{
    struct timespec time = {.tv_sec = (time_t)seconds};
    time.tv_nsec = (long)(1e9 * (seconds - (double)time.tv_sec));
    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        continue;
}

static int count_descriptors(void)
{
    int count = 0;
    for (int i = 0; i < 1024; i++)
        count += fcntl(i, F_GETFD) >= 0;
    return count;
}

/* The next question; false at the end. Freed by the call that returns false. */
static bool ask(char **line)
{
    static char *data;
    static size_t capacity;
    *line = data;
    if (getline(&data, &capacity, stdin) > 0) {
        *line = data;
        return true;
    }
    free(data);
    data = NULL;
    return false;
}

static void say(const char *text)
{
    fputs(text, stdout);
    fflush(stdout);
}

static void say_reward(double reward)
{
    printf("{\"reward\": %.17g}\n", reward);
    fflush(stdout);
}

/* Response of a question. */
static json_t *response_of(const char *line)
{
    json_t *object = json_loads(line, JSON_ALLOW_NUL, NULL);
    json_t *response = json_incref(json_object_get(object, "response"));
    json_decref(object);
    return response;
}

static int be_length(const char *argument)
{
    (void)argument;
    for (char *line; ask(&line);) {
        json_t *response = response_of(line);
        say_reward((double)json_string_length(response));
        json_decref(response);
    }
    return 0;
}

static int be_echo(const char *argument)
{
    (void)argument;
    for (char *line; ask(&line);) {
        json_t *response = response_of(line);
        json_t *answer =
            json_pack("{s:O,s:i}", "echo", response, "reward", (int)json_string_length(response));
        json_dumpf(answer, stdout, 0);
        say("\n");
        json_decref(answer);
        json_decref(response);
    }
    return 0;
}

/* 1 for the line that is expected, to the byte. */
static int be_exact(const char *argument)
{
    for (char *line; ask(&line);)
        say_reward(strcmp(line, argument) == 0);
    return 0;
}

static int be_say(const char *argument)
{
    for (char *line; ask(&line);)
        say(argument);
    return 0;
}

/* Creates a file to tell that something has happened. */
static void mark(const char *path)
{
    close(open(path, O_CREAT | O_WRONLY, 0600));
}

/* One answer each, but one more a moment after the first. */
static int be_late(const char *argument)
{
    bool first = true;
    for (char *line; ask(&line); first = false) {
        say_reward(1.0);
        if (first) {
            pause_seconds(0.05);
            say_reward(2.0);
            mark(argument);
        }
    }
    return 0;
}

/* Two answers to the first question; the others are left unread. */
static int be_early(const char *argument)
{
    char *line;
    if (ask(&line))
        say("{\"reward\": 1}\n{\"reward\": 2}\n");
    pause_seconds(strtod(argument, NULL));
    _exit(0);
}

static int be_slow(const char *argument)
{
    for (char *line; ask(&line);) {
        pause_seconds(strtod(argument, NULL));
        say_reward(1.0);
    }
    return 0;
}

static int be_silent(const char *argument)
{
    (void)argument;
    for (char *line; ask(&line);)
        continue;
    return 0;
}

/* Spaces until its input ends. */
static int be_dripping(const char *argument)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char *line;
    (void)argument;
    if (ask(&line))
        while (poll(&input, 1, 20) == 0)
            say(" ");
    _exit(0);
}

static int be_endless(const char *argument)
{
    char *line;
    (void)argument;
    if (ask(&line))
        for (int i = 0; i < 20 << 20; i++)
            putchar(' ');
    _exit(0);
}

static int be_mortal(const char *argument)
{
    char *line;
    for (int i = 0; i < 3 && ask(&line); i++)
        say_reward(i);
    (void)argument;
    _exit(5);
}

static int be_dead(const char *argument)
{
    (void)argument;
    return 7;
}

static int be_killed(const char *argument)
{
    char *line;
    bool asked = ask(&line);
    (void)argument;
    raise(SIGKILL);
    return asked;
}

/* Ends within its second answer. */
static int be_cut_off(const char *argument)
{
    char *line;
    if (ask(&line))
        say_reward(1.0);
    say(argument);
    _exit(0);
}

static int be_deaf(const char *argument)
{
    char *line;
    (void)argument;
    if (ask(&line))
        say_reward(4.0);
    close(STDIN_FILENO);
    pause_seconds(0.8);
    _exit(0);
}

static int be_mute(const char *argument)
{
    close(STDOUT_FILENO);
    return be_silent(argument);
}

/* Bad only at the very end. */
static int be_sorry(const char *argument)
{
    be_length(argument);
    return 3;
}

static const char *marker;

static void mark_signal(int number)
{
    (void)number;
    mark(marker);
}

static int be_stubborn(const char *argument)
{
    marker = argument;
    signal(SIGHUP, mark_signal);
    be_length(NULL);
    pause_seconds(60.0);
    return 0;
}

/* Answers a bit for each thing that it should not have got from the run. */
static int be_guarded(const char *argument)
{
    int bits = 0;
    (void)argument;
    raise(SIGTERM);
    raise(SIGUSR1);
    raise(SIGINT);
    if (count_descriptors() > 3)
        bits |= 1;
    if (getpgrp() != getpid())
        bits |= 2;
    if (signal(SIGPIPE, SIG_DFL) != SIG_DFL)
        bits |= 4;
    for (char *line; ask(&line);)
        say_reward(bits);
    return 0;
}

static const struct {
    const char *name;
    int (*be)(const char *argument);
} mode[] = {
    {"length", be_length},   {"echo", be_echo},       {"exact", be_exact},
    {"say", be_say},         {"late", be_late},       {"early", be_early},
    {"slow", be_slow},       {"silent", be_silent},   {"dripping", be_dripping},
    {"endless", be_endless}, {"mortal", be_mortal},   {"dead", be_dead},
    {"killed", be_killed},   {"cut off", be_cut_off}, {"deaf", be_deaf},
    {"mute", be_mute},       {"sorry", be_sorry},     {"stubborn", be_stubborn},
    {"guarded", be_guarded},
};

static int be_program(const char *name, const char *argument)
{
    for (size_t i = 0; i < sizeof mode / sizeof mode[0]; i++)
        if (strcmp(mode[i].name, name) == 0)
            return mode[i].be(argument);
    return 99;
}

#endif
