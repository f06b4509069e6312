#include "testing.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

static struct {
    int n_check, n_failure;
    char folder[256];
} state;

bool qp_test_check(bool condition, const char *file, int line, const char *format, ...)
{
    state.n_check++;
    if (condition)
        return true;
    state.n_failure++;
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s:%d: failed: ", file, line);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return false;
}

bool qp_test_ok(qp_error_t error, const char *file, int line)
{
    bool ok = qp_test_check(error == NULL, file, line, "unexpected error: %s",
                            error ? error->message : "");
    qp_error_destroy(&error);
    return ok;
}

bool qp_test_fails(qp_error_t error, qp_code_t code, const char *text, const char *file, int line)
{
    bool ok = qp_test_check(error != NULL, file, line, "expected an error containing \"%s\"", text);
    if (error != NULL) {
        ok = qp_test_check(error->code == code && strstr(error->message, text) != NULL, file, line,
                           "expected code %d and \"%s\", got %d and \"%s\"", (int)code, text,
                           (int)error->code, error->message);
        qp_error_destroy(&error);
    }
    return ok;
}

double qp_test_relative_error(const float *a, const float *b, int64_t n)
{
    double difference = 0.0, norm = 0.0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference) / (sqrt(norm) + 1e-300);
}

const char *qp_test_folder(void)
{
    if (state.folder[0] == '\0') {
        snprintf(state.folder, sizeof state.folder, "/tmp/quipu-test-XXXXXX");
        if (mkdtemp(state.folder) == NULL)
            abort();
    }
    return state.folder;
}

const char *qp_test_source(const char *relative)
{
    static char ring[4][1024];
    static int next;
    const char *root = getenv("QUIPU_SOURCE");
    char *path = ring[next++ % 4];
    snprintf(path, sizeof ring[0], "%s/%s", root ? root : ".", relative);
    return path;
}

const char *qp_test_shared(const char *relative)
{
    char beside[512];
    snprintf(beside, sizeof beside, "../shared/%s", relative);
    const char *path = qp_test_source(beside);
    return access(path, R_OK) == 0 ? path : NULL;
}

int qp_test_end(void)
{
    if (state.folder[0] != '\0') {
        char command[300];
        snprintf(command, sizeof command, "rm -rf '%s'", state.folder);
        if (system(command) != 0)
            state.n_failure++;
    }
    state.n_failure += qp_mem_check_leaks();
    printf("%d checks, %d failures\n", state.n_check, state.n_failure);
    return state.n_failure > 0 ? 1 : 0;
}
