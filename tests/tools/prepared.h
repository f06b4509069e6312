/** \file prepared.h  Support of the tests of quipu-prep: programs are run, and the samples of their
 * shards come back as text. Programs run first, MPI starts in the process of the test after them.
 */
#ifndef QP_TESTS_TOOLS_PREPARED_H
#define QP_TESTS_TOOLS_PREPARED_H

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/env.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "comm/comm.h"
#include "data/data.h"
#include "testing.h"
#include "text/tokenizer.h"

enum { MAX_SAMPLE = 64 };

/** How a completion ends in a sample as text. */
#define END "<|im_end|>]"

/** The folder of the test as the working folder of the programs. */
static inline int run(const char *launcher, const char *arguments)
{
    char *command =
        qp_format("cd %s && { %s %s/quipu-prep %s >log 2>&1 || { cat log >&2; false; }; }",
                  qp_test_folder(), launcher, qp_env("QUIPU_BIN"), arguments);
    int status = system(command);
    qp_free(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/** The same on one, two and three ranks: how to start it, and how its shards end. */
static const char *const on_ranks[] = {"", "mpirun --oversubscribe -n 2",
                                       "mpirun --oversubscribe -n 3"};
static const char *const shards_of_ranks[] = {"", "-*-of-00002", "-*-of-00003"};

static inline void write_file(const char *name, const char *text)
{
    char *path = qp_format("%s/%s", qp_test_folder(), name);
    CHECK_OK(qp_file_write(path, text, strlen(text)));
    qp_free(path);
}

static inline qp_tokenizer_t *load_tokenizer(const char *name)
{
    char *folder = qp_format("%s/%s", qp_test_folder(), name);
    qp_tokenizer_files_t files = {0};
    qp_tokenizer_t *tokenizer = NULL;
    CHECK_OK(qp_tokenizer_files_from_folder(folder, &files));
    CHECK_OK(qp_tokenizer_create(&files, &tokenizer));
    qp_tokenizer_files_fini(&files);
    qp_free(folder);
    return tokenizer;
}

/** A folder "hf" with a small byte-level tokenizer: EOS <|im_end|>, no BOS, ChatML. */
static inline qp_tokenizer_t *make_tokenizer(void)
{
    char *command =
        qp_format("mkdir -p %s/hf && cp %s %s/hf/tokenizer.json", qp_test_folder(),
                  qp_test_source("tests/golden/tokenizers/smollm.json"), qp_test_folder());
    CHECK(system(command) == 0);
    qp_free(command);
    write_file(
        "hf/tokenizer_config.json",
        "{\"eos_token\": \"<|im_end|>\", \"chat_template\": \"{% for message in messages "
        "%}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
        "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\\n'}}{% endif "
        "%}\"}");
    return load_tokenizer("hf");
}

/** Lines of the last program's log that contain a text. */
static inline int64_t n_logged(const char *text)
{
    char *path = qp_format("%s/log", qp_test_folder());
    void *data = NULL;
    size_t n_bytes;
    int64_t n = 0;
    CHECK_OK(qp_file_read(path, &data, &n_bytes));
    char *log = qp_format("%.*s", (int)n_bytes, (const char *)data);
    for (const char *at = log; (at = strstr(at, text)) != NULL; at++)
        n++;
    qp_free(log);
    qp_free(data);
    qp_free(path);
    return n;
}

/* --- samples as text: "prompt[completion]", for pairs one after another and "+margin" ----------
 */

typedef struct {
    int64_t n;
    char *text[MAX_SAMPLE];
} samples_t;

static inline int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline void append_sequence(const qp_tokenizer_t *tokenizer, const int32_t *token,
                                   const uint8_t *loss, int64_t n, qp_str_t *text)
{
    for (int64_t first = 0, end; first < n; first = end) {
        for (end = first; end < n && loss[end] == loss[first]; end++)
            ;
        qp_str_puts(text, loss[first] ? "[" : "");
        CHECK_OK(qp_tokenizer_decode(tokenizer, token + first, end - first, false, text));
        qp_str_puts(text, loss[first] ? "]" : "");
    }
}

/** All samples of the shards that match, sorted. */
static inline samples_t read_samples(qp_comm_t *comm, const qp_tokenizer_t *tokenizer,
                                     const char *kind, const char *pattern)
{
    samples_t samples = {0};
    char *path = qp_format("%s/%s", qp_test_folder(), pattern);
    qp_deck_strings_t patterns = {1, (const char *const[]){path}};
    qp_dataset_t *dataset = NULL;
    CHECK_OK(qp_dataset_open(comm, &patterns, kind, qp_tokenizer_id(tokenizer), &dataset));
    qp_free(path);
    if (dataset == NULL)
        return samples;
    samples.n = qp_dataset_n_sample(dataset);
    CHECK(samples.n <= MAX_SAMPLE);
    for (int64_t i = 0; i < samples.n; i++) {
        int32_t *token = NULL;
        uint8_t *loss = NULL;
        int64_t n[2], at = 0;
        qp_str_t text = {0};
        CHECK_OK(qp_dataset_read(dataset, i, &token, &loss, n));
        for (int64_t s = 0; s < qp_dataset_sequences_per_sample(dataset); at += n[s++])
            append_sequence(tokenizer, token + at, loss + at, n[s], &text);
        if (qp_dataset_sequences_per_sample(dataset) == 2)
            qp_str_printf(&text, "%+g", (double)qp_dataset_margin(dataset, i));
        samples.text[i] = text.data;
        qp_free(token);
        qp_free(loss);
    }
    qsort(samples.text, (size_t)samples.n, sizeof(char *), compare_texts);
    qp_dataset_close(&dataset);
    return samples;
}

static inline void free_samples(samples_t *samples)
{
    for (int64_t i = 0; i < samples->n; i++)
        qp_free(samples->text[i]);
}

static inline void expect_samples(qp_comm_t *comm, const qp_tokenizer_t *tokenizer,
                                  const char *kind, const char *pattern,
                                  const char *const *expected, int64_t n_expected)
{
    samples_t found = read_samples(comm, tokenizer, kind, pattern);
    CHECK_MSG(found.n == n_expected, "%s: %lld samples, expected %lld", pattern, (long long)found.n,
              (long long)n_expected);
    for (int64_t i = 0; i < found.n && i < n_expected; i++)
        CHECK_MSG(strcmp(found.text[i], expected[i]) == 0, "%s: found\n%s\nexpected\n%s", pattern,
                  found.text[i], expected[i]);
    free_samples(&found);
}

#define EXPECT(comm, tokenizer, kind, pattern, ...)                        \
    do {                                                                   \
        const char *const expected_[] = {__VA_ARGS__};                     \
        expect_samples(comm, tokenizer, kind, pattern, expected_,          \
                       (int64_t)(sizeof expected_ / sizeof expected_[0])); \
    } while (0)

#endif
