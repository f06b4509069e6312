/* Other programs: how they end, what they get of this process, what becomes of those that do not
 * want to end. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/child.h"
#include "base/mem.h"
#include "testing.h"

static qp_error_t start(const char *script, int input, bool apart, qp_child_t *child)
{
    const qp_child_config_t config = {.name = "the script",
                                      .argv = (const char *const[]){"sh", "-c", script, NULL},
                                      .input = input,
                                      .apart = apart};
    return qp_child_start(&config, child);
}

/* All that it writes, until it closes its output. */
static const char *read_all(const qp_child_t *child)
{
    static char text[4096];
    size_t n = 0;
    for (;;) {
        ssize_t got = read(child->from, text + n, sizeof text - 1 - n);
        if (got == 0 || (got < 0 && errno != EAGAIN) || n + 1 == sizeof text)
            break;
        n += got > 0 ? (size_t)got : 0;
        usleep(1000);
    }
    text[n] = '\0';
    return text;
}

static bool has_children(void)
{
    return waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD;
}

static void test_ends(void)
{
    static const struct {
        const char *script, *end;
    } row[] = {{"exit 0", "ended with exit status 0"},
               {"exit 7", "ended with exit status 7"},
               {"kill -9 $$", "was ended by signal 9 (Killed)"},
               {"kill -15 $$; exit 3", "was ended by signal 15 (Terminated)"}};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        qp_child_t child;
        if (!CHECK_OK(start(row[i].script, -1, false, &child)))
            continue;
        CHECK(qp_child_ended(&child, INFINITY) && child.pid == 0);
        char *end = qp_child_describe_end(&child);
        CHECK_MSG(strcmp(end, row[i].end) == 0, "%s: %s", row[i].script, end);
        CHECK((child.status == 0) == (i == 0));
        qp_free(end);
        CHECK(qp_child_stop(&child) == 0 && child.to == -1 && child.from == -1);
        CHECK(!has_children());
    }
    qp_child_t child;
    const qp_child_config_t absent = {
        .name = "the program", .argv = (const char *const[]){"quipu-no-such", NULL}, .input = -1};
    CHECK_FAILS(qp_child_start(&absent, &child), QP_INPUT,
                "the program: cannot be started: No such file");
    CHECK(qp_child_stop(&child) == 0 && !has_children());
}

/* Descriptors that are to be inherited are not, whatever this process has closed of its own. */
static void test_descriptors(void)
{
    static const char list[] = "exec ls /proc/self/fd"; /* which is one more, open in ls */
    const int leaked = open("/dev/null", O_RDONLY), far = fcntl(leaked, F_DUPFD, 100);
    const int own[2] = {fcntl(0, F_DUPFD_CLOEXEC, 50), fcntl(1, F_DUPFD_CLOEXEC, 50)};
    for (int closed = 0; closed < 4; closed++) {
        qp_child_t child;
        for (int i = 0; i < 2; i++)
            if (closed & (1 << i))
                close(i);
        qp_error_t error = start(list, -1, true, &child);
        for (int i = 0; i < 2; i++)
            if (closed & (1 << i))
                CHECK(dup2(own[i], i) == i);
        if (!CHECK_OK(error))
            continue;
        const char *text = read_all(&child);
        CHECK_MSG(strcmp(text, "0\n1\n2\n3\n") == 0, "closed %d: it has %s", closed, text);
        CHECK(fcntl(child.to, F_GETFD) & FD_CLOEXEC && fcntl(child.from, F_GETFD) & FD_CLOEXEC);
        CHECK(qp_child_stop(&child) == 0 && child.status == 0);
    }
    close(leaked);
    close(far);
    close(own[0]);
    close(own[1]);
}

static void test_talk(void)
{
    qp_child_t child;
    if (CHECK_OK(start("read x; echo \"<$x>\"; cat", -1, true, &child))) {
        CHECK(qp_child_write(&child, "one\ntwo\n", 8) == 8);
        qp_child_close(&child.to);
        const char *text = read_all(&child);
        CHECK_MSG(strcmp(text, "<one>\ntwo\n") == 0, "%s", text);
        CHECK(qp_child_stop(&child) == 0 && child.status == 0);
    }
    /* One that does not listen: an error, and this process goes on. */
    if (CHECK_OK(start("exec <&-; sleep 0.1; exit 0", -1, true, &child))) {
        CHECK(qp_child_ended(&child, INFINITY));
        CHECK(qp_child_write(&child, "x", 1) == -1 && errno == EPIPE);
        CHECK(qp_child_stop(&child) == 0);
    }
    /* From a file. */
    FILE *file = tmpfile();
    CHECK(file != NULL && fputs("exit 5", file) >= 0 && fflush(file) == 0);
    rewind(file);
    const qp_child_config_t shell = {.name = "sh",
                                     .argv = (const char *const[]){"sh", NULL},
                                     .input = fileno(file),
                                     .quiet = true};
    if (CHECK_OK(qp_child_start(&shell, &child))) {
        CHECK(child.to == -1 && child.from == -1 && qp_child_ended(&child, INFINITY));
        CHECK(WEXITSTATUS(child.status) == 5);
    }
    fclose(file);
    CHECK(!has_children());
}

/* The end of its input, then a hang-up, then the end; when apart, with what it has started. */
static void test_stubborn(void)
{
    static const struct {
        const char *script;
        int n_signal;
        bool apart;
    } row[] = {{"echo; cat >/dev/null", 0, true},
               {"echo; exec sleep 100", 1, false},
               {"trap '' HUP; echo; exec sleep 100", 2, false},
               {"trap '' HUP; echo; sleep 100; sleep 100", 2, true}};
    for (int i = 0; i < 4; i++) {
        char byte;
        qp_child_t child;
        if (!CHECK_OK(start(row[i].script, -1, row[i].apart, &child)))
            continue;
        while (read(child.from, &byte, 1) != 1) /* it has set its traps */
            usleep(1000);
        const int from = dup(child.from);
        const int n_signal = qp_child_stop(&child);
        CHECK_MSG(n_signal == row[i].n_signal, "%s: %d signals", row[i].script, n_signal);
        ssize_t got = -1; /* the end, as soon as nobody has the other end any more */
        for (int wait = 0; wait < 50000 && (got = read(from, &byte, 1)) < 0; wait++)
            usleep(1000);
        CHECK(got == 0);
        close(from);
        CHECK(!has_children());
    }
}

/* Signals to all processes of a job are blocked, those to its group do not get there. */
static void test_apart(void)
{
    for (int apart = 0; apart < 2; apart++) {
        qp_child_t child;
        if (!CHECK_OK(start("exec grep SigBlk /proc/self/status", -1, apart, &child)))
            continue;
        CHECK((getpgid(child.pid) == child.pid) == apart);
        unsigned long long blocked = 0;
        CHECK(sscanf(read_all(&child), "SigBlk: %llx", &blocked) == 1);
        const unsigned long long wanted =
            1ull << (SIGTERM - 1) | 1ull << (SIGUSR1 - 1) | 1ull << (SIGINT - 1);
        CHECK_MSG((blocked & wanted) == (apart ? wanted : 0), "blocked: %llx", blocked);
        CHECK(qp_child_stop(&child) == 0);
    }
}

int main(void)
{
    test_ends();
    test_descriptors();
    test_talk();
    test_stubborn();
    test_apart();
    return qp_test_end();
}
