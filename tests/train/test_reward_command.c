/* Rewards from a program: what well-behaved and broken programs answer, large texts both ways, the
 * timeout, the end. The programs: reward_programs.h. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/timer.h"
#include "testing.h"
#include "train/answers/reward_command.h"
#include "reward_programs.h"

static const char *self; /* argv[0] */

static qp_reward_command_t *start(const char *name, const char *argument, double timeout)
{
    const char *item[] = {self, "--reward", name, argument};
    const qp_deck_strings_t argv = {argument != NULL ? 4 : 3, item};
    qp_reward_command_t *command;
    CHECK_OK(qp_reward_command_start(&argv, timeout, &command));
    return command;
}

static qp_reward_text_t text_of(const char *prompt, const char *response)
{
    return (qp_reward_text_t){prompt, response, strlen(prompt), strlen(response)};
}

static qp_error_t start_other(int n, const char *const *item, qp_reward_command_t **command)
{
    return qp_reward_command_start(&(qp_deck_strings_t){n, item}, 0.3, command);
}

enum { N_FEW = 4 };
static const double patience = 1000.0; /* seconds: never reached */

/* Asks a fresh program for four short answers and lets it end. */
static qp_error_t score_few(const char *name, const char *argument, double timeout, double *reward)
{
    qp_reward_text_t text[N_FEW];
    for (int i = 0; i < N_FEW; i++)
        text[i] = text_of("p", &"abcd"[i]);
    qp_reward_command_t *command = start(name, argument, timeout);
    qp_error_t error = qp_reward_command_score(command, text, N_FEW, reward);
    qp_reward_command_stop(&command);
    CHECK(command == NULL);
    return error;
}

/* Warnings so far, and whether one contains a text. */
static int count_warnings(const char *part)
{
    void *data;
    size_t n_bytes;
    int count = 0;
    char *path = qp_format("%s/log", qp_test_folder());
    if (CHECK_OK(qp_file_read(path, &data, &n_bytes))) {
        for (const char *at = data; (at = strstr(at, part)) != NULL; at++)
            count++;
        qp_free(data);
    }
    qp_free(path);
    return count;
}

static void wait_for_file(const char *path)
{
    const double end = qp_time() + patience;
    while (access(path, F_OK) != 0 && qp_time() < end)
        pause_seconds(0.01);
    CHECK(access(path, F_OK) == 0);
}

static void test_answers_in_order(void)
{
    const qp_reward_text_t text[] = {text_of("q", "four"), text_of("", ""), text_of("q", "two\n")};
    const double expected[] = {4.0, 0.0, 4.0};
    double reward[3] = {-1.0, -1.0, -1.0};
    qp_reward_command_t *command = start("length", NULL, patience);
    for (int call = 0; call < 3; call++) {
        CHECK_OK(qp_reward_command_score(command, text, 3, reward));
        CHECK(memcmp(reward, expected, sizeof reward) == 0);
        CHECK_OK(qp_reward_command_score(command, text, 0, NULL));
    }
    qp_reward_command_stop(&command);
    command = start("length", NULL, patience);
    qp_reward_command_stop(&command);
    qp_reward_command_stop(&command);
    CHECK(count_warnings("[warn") == 0);
}

/* What a line is, with UTF-8, what is none, control characters and NUL. */
static void test_line(void)
{
    const struct {
        const char *line;
        qp_reward_text_t text;
    } row[] = {
        {"{\"prompt\": \"a \\\"b\\\"\", \"response\": \"\\n\\t\\\\\"}\n",
         text_of("a \"b\"", "\n\t\\")},
        {"{\"prompt\": \"caf\\u00E9\", \"response\": \"\\uD83D\\uDE00\\u2028\"}\n",
         text_of("caf\xc3\xa9", "\xf0\x9f\x98\x80\xe2\x80\xa8")},
        {"{\"prompt\": \"\\uFFFDx\", \"response\": \"a\\uFFFD\\uFFFDb\\uFFFD\"}\n",
         text_of("\xffx", "a\xe2\x82\xc0"
                          "b\xf0\x9f\x98")},
        {"{\"prompt\": \"a\\u0000b\", \"response\": \"\\u0000\"}\n", {"a\0b", "\0", 3, 1}},
        {"{\"prompt\": \"\", \"response\": \"\"}\n", {NULL, NULL, 0, 0}},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        double reward = -1.0;
        qp_reward_command_t *command = start("exact", row[i].line, patience);
        CHECK_OK(qp_reward_command_score(command, &row[i].text, 1, &reward));
        CHECK_MSG(reward == 1.0, "line %zu is another: %s", i, row[i].line);
        qp_reward_command_stop(&command);
    }
}

/* Far more than pipes hold, both ways: many lines, and lines larger than a pipe. */
static void test_large_texts(void)
{
    const struct {
        int64_t n;
        size_t n_bytes;
    } row[] = {{4000, 600}, {6, 300000}};
    for (int r = 0; r < 2; r++) {
        char *letters = QP_NEW("test", char, (int64_t)row[r].n_bytes);
        double *reward = QP_NEW("test", double, row[r].n);
        qp_reward_text_t *text = QP_NEW("test", qp_reward_text_t, row[r].n);
        qp_reward_command_t *command = start("echo", NULL, patience);
        memset(letters, 'x', row[r].n_bytes);
        for (int64_t i = 0; i < row[r].n; i++)
            text[i] = (qp_reward_text_t){"", letters, 0, row[r].n_bytes - (size_t)(i % 100)};
        CHECK_OK(qp_reward_command_score(command, text, row[r].n, reward));
        for (int64_t i = 0; i < row[r].n; i++)
            if (!CHECK(reward[i] == (double)text[i].n_response))
                break;
        qp_reward_command_stop(&command);
        qp_free(letters);
        qp_free(reward);
        qp_free(text);
    }
}

static void test_numbers(void)
{
    const struct {
        const char *answer;
        double reward;
    } row[] = {
        {"{\"reward\": 1}\n", 1.0},
        {"  {\"why\": [\"x\\u0000\"], \"reward\":-2.5e-3}\t\r\n", -2.5e-3},
        {"{\"reward\": 100000000000000000000000}\n", 1e23},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        double reward[N_FEW] = {0.0};
        CHECK_OK(score_few("say", row[i].answer, patience, reward));
        CHECK(reward[0] == row[i].reward && reward[N_FEW - 1] == row[i].reward);
    }
}

#define X10 "xxxxxxxxxx"
#define X70 X10 X10 X10 X10 X10 X10 X10

static void test_wrong_answers(void)
{
    static const char expected[] =
        "answer 1 of 4: an object with a number \"reward\" is expected, found: ";
    static const struct {
        const char *answer, *found;
    } row[] = {
        {"hello\n", "hello"},
        {"\n", "(an empty line)"},
        {"{\"reward\": NaN}\n", "{\"reward\": NaN}"},
        {"{\"reward\": Infinity}\n", "{\"reward\": Infinity}"},
        {"{\"reward\": 1e999}\n", "{\"reward\": 1e999}"},
        {"{\"reward\": \"1\"}\n", "{\"reward\": \"1\"}"},
        {"{\"reward\": true}\n", "{\"reward\": true}"},
        {"{\"reward\": null}\n", "{\"reward\": null}"},
        {"{\"Reward\": 1}\n", "{\"Reward\": 1}"},
        {"{\"reward\": 1, \"reward\": 2}\n", "{\"reward\": 1, \"reward\": 2}"},
        {"{\"reward\": 1} 2\n", "{\"reward\": 1} 2"},
        {"[1]\n", "[1]"},
        {"1.5\n", "1.5"},
        {"\x1b[31m \xff \xc3\xa9\n", "?[31m \xef\xbf\xbd \xc3\xa9"},
        {X70 X10 "\n", X70 X10},
        {X70 X10 "y\n", X70 X10 "..."},
        {"\xc3\xa9\xc3\xa9" X70 X10 X10 "\n", "\xc3\xa9\xc3\xa9" X70 "xxxxxxxx..."},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        double reward[N_FEW];
        char *message = qp_format("reward program %s: %s%s", self, expected, row[i].found);
        qp_error_t error = score_few("say", row[i].answer, patience, reward);
        CHECK_MSG(error != NULL && strcmp(error->message, message) == 0, "\"%s\" is not \"%s\"",
                  error != NULL ? error->message : "", message);
        CHECK_FAILS(error, QP_IO, "reward program");
        qp_free(message);
    }
}

/* Programs that end or close a pipe before all is answered. */
static void test_early_ends(void)
{
    static const struct {
        const char *mode, *argument, *message;
    } row[] = {
        {"mortal", NULL, ": ended with exit status 5 after 3 of 4 answers (3 since its start)"},
        {"dead", NULL, ": ended with exit status 7 after 0 of 4 answers (0 since its start)"},
        {"killed", NULL, ": was ended by signal 9 (Killed) after 0 of 4 answers"},
        {"cut off", "{\"rew",
         "status 0 after 1 of 4 answers (1 since its start), within the line: "
         "{\"rew"},
        {"mute", NULL, ": closed its standard output after 0 of 4 answers"},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        double reward[N_FEW];
        CHECK_FAILS(score_few(row[i].mode, row[i].argument, patience, reward), QP_IO,
                    row[i].message);
    }
    CHECK(count_warnings("[warn") == 0); /* the error has said it */
}

/* More is to be written than fits when the reader goes: no SIGPIPE, neither now nor later. */
static void test_broken_pipe(void)
{
    static const char *const leaving[] = {
        "sh", "-c", "sleep 0.4 2>&- & exec <&-; sleep 0.1; exit 4"}; /* its output stays open */
    enum { N_BYTES = 1 << 20 };
    double reward[2];
    sigset_t before, after, pending;
    char *letters = QP_NEW("test", char, N_BYTES);
    memset(letters, 'x', N_BYTES);
    const qp_reward_text_t text[2] = {text_of("", "short"), {"", letters, 0, N_BYTES}};
    sigprocmask(SIG_BLOCK, NULL, &before);
    qp_reward_command_t *command = start("dead", NULL, patience);
    CHECK_FAILS(qp_reward_command_score(command, text, 2, reward), QP_IO,
                "exit status 7 after 0 of 2");
    qp_reward_command_stop(&command);
    command = start("deaf", NULL, patience);
    CHECK_FAILS(qp_reward_command_score(command, text, 2, reward), QP_IO,
                "closed its standard input after 1 of 2");
    qp_reward_command_stop(&command);
    CHECK_OK(start_other(3, leaving, &command));
    CHECK_FAILS(qp_reward_command_score(command, text, 2, reward), QP_IO,
                "ended with exit status 4");
    qp_reward_command_stop(&command);
    sigprocmask(SIG_BLOCK, NULL, &after);
    sigpending(&pending);
    CHECK(sigismember(&before, SIGPIPE) == 0 && sigismember(&after, SIGPIPE) == 0);
    CHECK(sigismember(&pending, SIGPIPE) == 0);
    qp_free(letters);
}

/* It counts from one answer to the next; what is no whole line does not count. */
static void test_timeout(void)
{
    qp_reward_text_t text[10];
    double reward[10], begin = qp_time();
    for (int i = 0; i < 10; i++)
        text[i] = text_of("p", "r");
    qp_reward_command_t *command = start("slow", "0.5", 4.0);
    CHECK_OK(qp_reward_command_score(command, text, 10, reward));
    CHECK(qp_time() - begin > 4.0);
    qp_reward_command_stop(&command);
    begin = qp_time();
    CHECK_FAILS(score_few("silent", NULL, 0.2, reward), QP_IO,
                ": no answer within 0.2 s after 0 of 4 answers (0 since its start); for each line "
                "of its input one line is expected, flushed at once");
    CHECK(qp_time() - begin >= 0.2);
    command = start("dripping", NULL, 0.3);
    begin = qp_time();
    CHECK_FAILS(qp_reward_command_score(command, text, 1, reward), QP_IO,
                "flushed at once, found only:  ");
    CHECK(qp_time() - begin >= 0.3);
    qp_reward_command_stop(&command);
    CHECK_FAILS(score_few("endless", NULL, patience, reward), QP_IO, "at most 16777216 bytes");
}

static void test_surplus(void)
{
    static const char *const argument[] = {"{\"reward\": 1}\n{\"reward\": 2}\n",
                                           "{\"reward\": 1}\n{"};
    static const char *const found[] = {"more after 1: {\"reward\": 2}", "more after 1: {"};
    const qp_reward_text_t text = text_of("p", "r");
    double reward[N_FEW];
    for (int i = 0; i < 2; i++) {
        qp_reward_command_t *command = start("say", argument[i], patience);
        CHECK_FAILS(qp_reward_command_score(command, &text, 1, reward), QP_IO, found[i]);
        qp_reward_command_stop(&command);
    }
    for (int n = 0; n < 2; n++) { /* seen when it is asked again, or for nothing */
        char *path = qp_format("%s/late%d", qp_test_folder(), n);
        qp_reward_command_t *command = start("late", path, patience);
        CHECK_OK(qp_reward_command_score(command, &text, 1, reward));
        wait_for_file(path);
        CHECK_FAILS(qp_reward_command_score(command, &text, n, reward), QP_IO,
                    ": one line for each line of its input is expected, found one more after 1: "
                    "{\"reward\": 2}");
        qp_reward_command_stop(&command);
        qp_free(path);
    }
}

/* As many answers as questions, but one before its question was written. */
static void test_answer_before_question(void)
{
    enum { N_BYTES = 1 << 20 };
    double reward[2];
    char *letters = QP_NEW("test", char, N_BYTES);
    memset(letters, 'x', N_BYTES);
    const qp_reward_text_t text[2] = {text_of("", "short"), {"", letters, 0, N_BYTES}};
    qp_reward_command_t *command = start("early", "0.3", patience);
    CHECK_FAILS(qp_reward_command_score(command, text, 2, reward), QP_IO,
                "found one more after 1: {\"reward\": 2}");
    qp_reward_command_stop(&command);
    qp_free(letters);
}

static void test_other_programs(void)
{
    static const char *const absent[] = {"quipu-no-such-program"}, *const none[] = {""};
    static const char *const two[] = {"sh", "-c",
                                      "while read -r line; do echo '{\"reward\": 2}'; done"};
    static const char *const device[] = {"sed", "-u", "s/.*/{\"reward\": 3}/", "/dev/stdin"};
    static const char *const holder[] = {"sh", "-c", "sleep 0.6 2>&- & read -r line; exit 4"};
    const qp_reward_text_t text = text_of("p", "r");
    double reward = 0.0;
    qp_reward_command_t *command;
    char *path = qp_format("%s/not-executable", qp_test_folder());
    mark(path);
    CHECK_FAILS(start_other(1, absent, &command), QP_INPUT,
                "reward program quipu-no-such-program: cannot be started: No such file");
    CHECK_FAILS(start_other(1, none, &command), QP_INPUT, "cannot be started");
    CHECK_FAILS(start_other(0, none, &command), QP_INPUT, "found an empty list");
    CHECK_FAILS(start_other(1, (const char *[]){path}, &command), QP_INPUT, "Permission denied");
    CHECK(command == NULL);
    CHECK_OK(start_other(3, two, &command));
    CHECK_OK(qp_reward_command_score(command, &text, 1, &reward));
    CHECK(reward == 2.0);
    qp_reward_command_stop(&command);
    CHECK_OK(start_other(4, device, &command));
    CHECK_OK(qp_reward_command_score(command, &text, 1, &reward));
    CHECK(reward == 3.0);
    qp_reward_command_stop(&command);
    CHECK_OK(start_other(3, holder, &command)); /* what it started holds its output open */
    CHECK_FAILS(qp_reward_command_score(command, &text, 1, &reward), QP_IO,
                "reward program sh: ended with exit status 4 after 0 of 1");
    qp_reward_command_stop(&command);
    qp_free(path);
}

/* Signals for the run, its descriptors and its dispositions do not reach the program. */
static void test_guarded(void)
{
    double reward[N_FEW] = {-1.0};
    int leaked = fcntl(STDERR_FILENO, F_DUPFD, 100);
    void (*before)(int) = signal(SIGPIPE, SIG_IGN);
    CHECK_OK(score_few("guarded", NULL, patience, reward));
    CHECK_MSG(reward[0] == 0.0, "bits %g", reward[0]);
    signal(SIGPIPE, before);
    close(leaked);
}

/* A run without standard input and output: the pipes would be 0 and 1, and what the run prints
 * would reach the program. */
static void test_low_descriptors(void)
{
    double reward[N_FEW] = {-1.0};
    fflush(stdout);
    int input = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 10);
    int output = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 10);
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    qp_reward_text_t text = text_of("p", "four");
    qp_reward_command_t *command = start("length", NULL, 1.0);
    CHECK(write(STDOUT_FILENO, "printed\n", 8) < 0);
    CHECK_OK(qp_reward_command_score(command, &text, 1, reward));
    CHECK(reward[0] == 4.0);
    qp_reward_command_stop(&command);
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    close(input);
    close(output);
}

/* Ends badly although all was answered: only a warning. */
static void test_bad_end(void)
{
    double reward[N_FEW];
    int before = count_warnings("[warn");
    CHECK_OK(score_few("sorry", NULL, patience, reward));
    CHECK(count_warnings("[warn") == before + 1);
    CHECK(count_warnings(": ended with exit status 3\n") == 1);
}

/* Heeds neither the end of its input nor SIGHUP; takes 3 s, so beside the other tests. */
static void *end_stubborn(void *argument)
{
    char *path = qp_format("%s/hung-up", qp_test_folder());
    qp_reward_text_t text = text_of("p", "four");
    double reward = -1.0, begin;
    qp_reward_command_t *command = start("stubborn", path, patience);
    CHECK_OK(qp_reward_command_score(command, &text, 1, &reward));
    CHECK(reward == 4.0);
    begin = qp_time();
    qp_reward_command_stop(&command);
    CHECK(qp_time() - begin >= 3.0);
    CHECK(access(path, F_OK) == 0); /* was asked before it was killed */
    qp_free(path);
    return argument;
}

static void test_all(void)
{
    pthread_t stubborn;
    const int n_open = count_descriptors();
    test_answers_in_order();
    test_line();
    test_early_ends();
    test_low_descriptors();
    if (!CHECK(pthread_create(&stubborn, NULL, end_stubborn, NULL) == 0))
        return;
    test_large_texts();
    test_numbers();
    test_wrong_answers();
    test_broken_pipe();
    test_timeout();
    test_surplus();
    test_answer_before_question();
    test_other_programs();
    test_guarded();
    pthread_join(stubborn, NULL);
    CHECK(count_warnings("[warn") == 1);
    CHECK(count_warnings("did not end with its input; was ended by signal 9 (Killed)\n") == 1);
    test_bad_end();
    CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD); /* all are reaped */
    CHECK(count_descriptors() == n_open);
}

int main(int argc, char **argv)
{
    if (argc >= 3 && strcmp(argv[1], "--reward") == 0)
        return be_program(argv[2], argc > 3 ? argv[3] : NULL);
    self = argv[0];
    char *path = qp_format("%s/log", qp_test_folder());
    CHECK_OK(qp_log_tee(path));
    test_all();
    qp_log_fini();
    qp_free(path);
    return qp_test_end();
}
