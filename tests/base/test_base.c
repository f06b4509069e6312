/* Errors, strings, dtypes, Philox, moments and memory counters. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/dtype.h"
#include "base/duration.h"
#include "base/env.h"
#include "base/file.h"
#include "base/output.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/moments.h"
#include "base/philox.h"
#include "base/str.h"
#include "base/utf8.h"
#include "testing.h"

static void test_errors(void)
{
    qp_error_t error = QP_ERROR(QP_INPUT, "row %d is bad", 7);
    error = qp_error_context(error, "file.h5");
    CHECK(error->code == QP_INPUT);
    CHECK(strcmp(error->message, "file.h5: row 7 is bad") == 0);
    qp_error_destroy(&error);
    CHECK(error == NULL);
    CHECK(qp_error_context(NULL, "nothing") == NULL);
}

static void test_half_precision_round_trips(void)
{
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t)i;
        float f = qp_f16_to_f32(h);
        if (!isnan(f))
            CHECK_MSG(qp_f32_to_f16(f) == h, "fp16 %04x", i);
        float b = qp_bf16_to_f32(h);
        if (!isnan(b))
            CHECK_MSG(qp_f32_to_bf16(b) == h, "bf16 %04x", i);
    }
    CHECK(qp_f32_to_bf16(1.00390625f) == 0x3f80); /* half way: to even */
    CHECK(qp_f32_to_bf16(1.01171875f) == 0x3f82);
    CHECK(qp_f32_to_bf16(1.005f) == 0x3f81 && qp_f32_to_bf16(-1.005f) == 0xbf81);
    CHECK(qp_f32_to_f16(65520.0f) == 0x7c00);
    CHECK(qp_f32_to_f16(65519.0f) == 0x7bff);
}

/* Known answer of Random123's kat_vectors for philox4x32 with ten rounds. */
static void test_philox_known_answer(void)
{
    qp_philox_key_t key = {.seed = 0xa4093822u,
                           .step = 0x299f31d0u,
                           .sample = 0x243f6a88u,
                           .position = 0x85a308d3u,
                           .site = 0x13198a2eu};
    uint32_t out[4];
    qp_philox(&key, 0x03707344u, out);
    const uint32_t expected[4] = {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u};
    CHECK(memcmp(out, expected, sizeof out) == 0);
    double sum = 0.0, sum2 = 0.0;
    for (uint64_t i = 0; i < 20000; i++) {
        double x = qp_philox_normal(&key, i);
        sum += x;
        sum2 += x * x;
    }
    CHECK(fabs(sum / 20000) < 0.03 && fabs(sum2 / 20000 - 1.0) < 0.05);
}

/* The first eight numbers of a stream are made of its first two blocks, word by word. */
static void test_philox_numbers(void)
{
    const qp_philox_key_t key = {.seed = 3, .step = 1, .sample = 4, .position = 1, .site = 5};
    for (uint64_t i = 0; i < 8; i++) {
        uint32_t word[4];
        qp_philox(&key, (uint32_t)(i / 4), word);
        CHECK((double)qp_philox_uniform(&key, i) == floor(word[i % 4] / 256.0) / 16777216.0);
        /* Box and Muller: cosine, then sine, of the pair that the number stands in */
        const uint32_t *pair = word + i % 4 / 2 * 2;
        const double angle = 2.0 * M_PI * pair[1] / 4294967296.0;
        const double radius = sqrt(-2.0 * log((pair[0] + 1.0) / 4294967296.0));
        const double expected = radius * (i % 2 == 0 ? cos(angle) : sin(angle));
        CHECK(fabs((double)qp_philox_normal(&key, i) - expected) < 1e-6);
    }
}

/* The same numbers as floats and doubles; far from 0 nothing cancels. */
static void test_moments(void)
{
    const double far = 1048576.0, x[] = {far + 1.0, far + 2.0, far + 4.0},
                 large[] = {1e15, 1e15 + 2.0};
    const float y[] = {(float)far + 1.0f, (float)far + 2.0f, (float)far + 4.0f};
    const qp_moments_t m = qp_moments(x, QP_F64, 3), f = qp_moments(y, QP_F32, 3);
    CHECK(fabs(m.mean - far - 7.0 / 3.0) < 1e-9 && fabs(m.var - 7.0 / 3.0) < 1e-9); /* 42 / 9 / 2 */
    CHECK(fabs(m.squares - 14.0 / 3.0) < 1e-9);
    CHECK(m.mean == f.mean && m.var == f.var && m.squares == f.squares);
    CHECK(qp_moments(large, QP_F64, 2).var == 2.0);
    const qp_moments_t one = qp_moments(x, QP_F64, 1), none = qp_moments(NULL, QP_F32, 0);
    CHECK(one.mean == x[0] && one.var == 0.0 && none.mean == 0.0 && none.var == 0.0);
    CHECK(isnan(qp_moments((const double[]){NAN, 1.0}, QP_F64, 2).var));
}

static void test_nearest(void)
{
    const char *const names[] = {"lora.r", "lora.alpha", "optim.lr"};
    CHECK(strcmp(qp_nearest("lora.alhpa", names, 3), "lora.alpha") == 0);
    CHECK(qp_nearest("zzzzzzzzzz", names, 3) == NULL);
}

static void test_memory_counts(void)
{
    int64_t before = qp_mem_alive();
    char *p = qp_alloc("test", 100);
    CHECK(qp_mem_alive() == before + 100 && (uintptr_t)p % 64 == 0 && p[99] == 0);
    p = qp_realloc("test", p, 200);
    CHECK(qp_mem_alive() == before + 200);
    QP_FREE(p);
    CHECK(p == NULL && qp_mem_alive() == before);
}

static void test_durations(void)
{
    static const struct {
        const char *text;
        double seconds; /* negative: refused */
    } row[] = {
        {"90", 90.0},
        {"1.5", 1.5},
        {"2:05", 125.0},
        {"1:00:30", 3630.0},
        {"90:00", 5400.0},
        {"0", 0.0},
        {"1-00:00:00", 86400.0},
        {"1-12", 129600.0},
        {"2-01:30", 178200.0},
        {"0-0:0:1", 1.0},
        {"7-00:00:00", 604800.0},
        {"", -1.0},
        {"soon", -1.0},
        {"10 min", -1.0},
        {"-5", -1.0},
        {"1:2:3:4", -1.0},
        {"1:", -1.0},
        {"1-", -1.0},
        {"1-2-3", -1.0},
        {"1:2-3", -1.0},
        {"1-2:3:4:5", -1.0},
        {" 5", -1.0},
        {"1e3", -1.0},
        {"inf", -1.0},
        {"auto", -1.0},
        {"1.5:00", -1.0},
        {"0x10", -1.0},
        {"1.", -1.0},
        {"90:00", 5400.0},
        {"100:00:00", 360000.0},
        {"1:59:59", 7199.0},
        {"1:60:00", -1.0},
        {"1:00:60", -1.0},
        {"5:60", -1.0},
        {"5:59.5", 359.5},
        {"5:60.5", -1.0},
        {"1-23:59:59", 172799.0},
        {"1-24", -1.0},
        {"1-24:00:00", -1.0},
        {"1-12:60", -1.0},
        {"1-12:00:60", -1.0},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        double seconds = -1.0;
        bool ok = qp_duration_parse(row[i].text, &seconds);
        CHECK_MSG(ok == (row[i].seconds >= 0.0) && seconds == row[i].seconds, "\"%s\": %g",
                  row[i].text, seconds);
    }
}

static void test_walltime(void)
{
    const char *source;
    unsetenv("SLURM_JOB_END_TIME");
    unsetenv("PBS_WALLTIME");
    CHECK(qp_env_walltime(&source) < 0.0);
    setenv("PBS_WALLTIME", "600", 1);
    CHECK(qp_env_walltime(&source) == 600.0 && strcmp(source, "PBS_WALLTIME") == 0);
    setenv("PBS_WALLTIME", "1-00:00:00", 1);
    CHECK(qp_env_walltime(&source) == 86400.0);
    setenv("PBS_WALLTIME", "01:30:10", 1);
    CHECK(qp_env_walltime(&source) == 5410.0);
    setenv("PBS_WALLTIME", "a while", 1);
    CHECK(qp_env_walltime(&source) < 0.0);
    unsetenv("PBS_WALLTIME");
}

/* What is UTF-8 (Unicode, table 3-7), and what is put in the place of the rest. */
static void test_utf8(void)
{
    static const struct {
        const char *text;
        size_t n_valid;
        const char *repaired;
    } row[] = {
        {"a\xc3\xa4", 3, "a\xc3\xa4"},
        {"\xed\x9f\xbf", 3, "\xed\x9f\xbf"},
        {"\xed\xa0\x80", 0, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* half of a surrogate pair */
        {"x\xc0\x80", 1, "x\xef\xbf\xbd\xef\xbf\xbd"},               /* longer than need be */
        {"\xe0\x9f\x80", 0, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x8f\xbf\xbf", 4, "\xf4\x8f\xbf\xbf"},
        {"\xf4\x90\x80\x80", 0,
         "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* beyond the last */
        {"eight..\xe2\x82", 7, "eight..\xef\xbf\xbd"},        /* cut off: one mark */
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        qp_str_t repaired = {0};
        CHECK_MSG(qp_utf8_valid_prefix(row[i].text, strlen(row[i].text)) == row[i].n_valid,
                  "row %zu", i);
        qp_utf8_repair(&repaired, row[i].text, strlen(row[i].text));
        CHECK_MSG(strcmp(repaired.data, row[i].repaired) == 0, "row %zu: %s", i, repaired.data);
        qp_str_fini(&repaired);
    }
}

static void test_quoting(void)
{
    qp_str_t quoted = {0};
    qp_str_quote(&quoted, "a\n\"b\\\x01");
    CHECK(strcmp(quoted.data, "\"a\\n\\\"b\\\\\\x01\"") == 0);
    qp_str_fini(&quoted);
    CHECK(qp_has_control("a\nb") && qp_has_control("\x7f") &&
          !qp_has_control("data/\xc3\xa4 [1].h5"));
}

/* Names and rows of the user stand in messages: none of them ends the line, or moves the cursor. */
static void test_a_message_is_one_line(void)
{
    char *path = qp_format("%s/log", qp_test_folder());
    void *data = NULL;
    size_t n;
    CHECK_OK(qp_log_tee(path));
    qp_log_error("a\nb\r\x1b[2J\tc \xc3\xa4 \\ \"%s\"", "\x7f");
    qp_log_info("%s", "");
    qp_log_fini();
    if (CHECK_OK(qp_file_read(path, &data, &n))) {
        CHECK(strstr(data, "] a\\nb\\x0d\\x1b[2J\\x09c \xc3\xa4 \\ \"\\x7f\"\n[info") != NULL);
        CHECK(n > 3 && strcmp((char *)data + n - 3, "] \n") == 0);
    }
    qp_free(data);
    qp_free(path);
}

/* A place that no file can be made in is known before there is anything to write. */
static void test_places(void)
{
    static const struct {
        const char *name, *message;
        qp_code_t code;
    } cases[] = {{"folder", "exists already and is not a file, but a folder", QP_INPUT},
                 {"fifo", "exists already and is not a file, but a pipe", QP_INPUT},
                 {"broken", "broken: is a link to nowhere (No such file", QP_INPUT},
                 {"absent/x", "/absent: No such file", QP_IO},
                 {"file/x", "/file: Not a directory", QP_IO}};
    char *command =
        qp_format("cd %s && mkdir folder && mkfifo fifo && touch file && ln -s nowhere broken",
                  qp_test_folder());
    CHECK(system(command) == 0);
    qp_free(command);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = qp_format("%s/%s", qp_test_folder(), cases[i].name);
        CHECK_FAILS(qp_output_check_file(path), cases[i].code, cases[i].message);
        qp_free(path);
    }
    static const char *const fine[] = {"file", "new", "folder/new"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        char *path = qp_format("%s/%s", qp_test_folder(), fine[i]);
        CHECK_OK(qp_output_check_file(path));
        qp_free(path);
    }
    CHECK_OK(qp_output_check_file("new")); /* in the working folder */
}

/* A level shows its own lines and those of the levels before it. */
static void test_log_levels(void)
{
    for (int level = QP_LOG_ERROR; level <= QP_LOG_DEBUG; level++) {
        char *path = qp_format("%s/level-%d.log", qp_test_folder(), level);
        void *text = NULL;
        size_t n;
        qp_log_init((qp_log_level_t)level, 0);
        CHECK_OK(qp_log_tee(path));
        for (int line = QP_LOG_ERROR; line <= QP_LOG_DEBUG; line++)
            qp_log((qp_log_level_t)line, false, "line of level %d", line);
        qp_log_fini();
        CHECK_OK(qp_file_read(path, &text, &n));
        for (int line = QP_LOG_ERROR; line <= QP_LOG_DEBUG; line++) {
            char *expected = qp_format("line of level %d\n", line);
            CHECK((strstr(text, expected) != NULL) == (line <= level));
            qp_free(expected);
        }
        qp_free(text);
        qp_free(path);
    }
    qp_log_init(QP_LOG_INFO, 0);
}

/* What is no regular file is said to be so, and nobody waits for the other end of a pipe. */
static void test_not_a_file(void)
{
    char *pipe = qp_format("%s/pipe", qp_test_folder()),
         *link = qp_format("%s/link", qp_test_folder());
    void *data = NULL;
    size_t n;
    FILE *file;
    CHECK(mkfifo(pipe, 0600) == 0 && symlink("absent", link) == 0);
    CHECK_FAILS(qp_file_read(pipe, &data, &n), QP_INPUT, "pipe: not a regular file, but a pipe");
    CHECK_FAILS(qp_file_read(qp_test_folder(), &data, &n), QP_INPUT, "but a folder");
    CHECK_FAILS(qp_file_read("/dev/null", &data, &n), QP_INPUT, "but a device");
    CHECK_FAILS(qp_file_read(link, &data, &n), QP_INPUT, "link: cannot be opened: No such file");
    CHECK_FAILS(qp_file_append(pipe, &file), QP_IO, "but a pipe");
    CHECK_FAILS(qp_file_append(qp_test_folder(), &file), QP_IO, "Is a directory");
    qp_free(pipe);
    qp_free(link);
}

int main(void)
{
    test_durations();
    test_walltime();
    test_utf8();
    test_quoting();
    test_a_message_is_one_line();
    test_places();
    test_not_a_file();
    test_log_levels();
    test_errors();
    test_half_precision_round_trips();
    test_philox_known_answer();
    test_philox_numbers();
    test_moments();
    test_nearest();
    test_memory_counts();
    return qp_test_end();
}
