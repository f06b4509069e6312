/** \file shards.h  Made-up shards for the tests of the data module: every token tells where it
 * stood. */
#ifndef QP_TESTS_DATA_SHARDS_H
#define QP_TESTS_DATA_SHARDS_H

#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/philox.h"
#include "base/str.h"
#include "data/data.h"
#include "testing.h"

enum { EOS = 1, MAX_LENGTH = 300, TOKENIZER_ID = 77, N_VOCAB = 1 << 24 };

/** What ends a sample: EOS is one of two. */
static const qp_eos_t END = {2, {EOS + 8, EOS}};

/** Length of made-up sample i: 1 to MAX_LENGTH tokens, mostly short. */
static inline int64_t made_length(int64_t i)
{
    qp_philox_key_t key = {.seed = 5, .sample = (uint32_t)i};
    double x = qp_philox_uniform(&key, 0);
    return 1 + (int64_t)(x * x * x * (MAX_LENGTH - 1));
}

/** Token p of sample i: unique in the data set; the last one is EOS. */
static inline int32_t made_token(int64_t i, int64_t p)
{
    return p + 1 == made_length(i) ? EOS : (int32_t)(1000 + i * MAX_LENGTH + p);
}

/** The first third of a sample is its prompt. */
static inline uint8_t made_loss(int64_t i, int64_t p)
{
    return p >= made_length(i) / 3;
}

/** Margin of made-up pair i, whose sequences are those of samples 2i and 2i + 1. */
static inline float made_margin(int64_t i)
{
    return 0.5f + (float)i / 8.0f;
}

/** Appends sample i of n_sequence sequences (2: a pair). */
static inline qp_error_t add_made_of(qp_shard_writer_t *writer, int64_t n_sequence, int64_t i)
{
    int32_t token[2][MAX_LENGTH];
    uint8_t loss[2][MAX_LENGTH];
    int64_t n[2] = {0};
    for (int64_t s = 0; s < n_sequence; s++) {
        n[s] = made_length(i * n_sequence + s);
        for (int64_t p = 0; p < n[s]; p++) {
            token[s][p] = made_token(i * n_sequence + s, p);
            loss[s][p] = made_loss(i * n_sequence + s, p);
        }
    }
    return qp_shard_writer_add(writer, i, n_sequence > 1 ? made_margin(i) : 0.0f,
                               (const int32_t *const[]){token[0], token[1]},
                               (const uint8_t *const[]){loss[0], loss[1]}, n);
}

static inline qp_error_t add_made(qp_shard_writer_t *writer, int64_t i)
{
    return add_made_of(writer, 1, i);
}

static const qp_shard_info_t made_info = {"sft", TOKENIZER_ID, N_VOCAB, 1};
static const qp_shard_info_t made_pairs = {"reward", TOKENIZER_ID, N_VOCAB, 2};
static const qp_shard_info_t made_prompts = {"prompt", TOKENIZER_ID, N_VOCAB, 1};

/** Writes samples [first, end) of a kind to folder/name. */
static inline void make_shard_of(const qp_shard_info_t *info, const char *folder, const char *name,
                                 int64_t first, int64_t end)
{
    char *path = qp_format("%s/%s", folder, name);
    qp_shard_writer_t *writer = NULL;
    CHECK_OK(qp_shard_writer_create(path, info, "made up", &writer));
    for (int64_t i = first; i < end; i++)
        CHECK_OK(add_made_of(writer, info->sequences_per_sample, i));
    CHECK_OK(qp_shard_writer_commit(&writer));
    CHECK(writer == NULL);
    qp_free(path);
}

static inline void make_shard(const char *folder, const char *name, int64_t first, int64_t end)
{
    make_shard_of(&made_info, folder, name, first, end);
}

/** Opens folder/pattern as data of a kind. */
static inline qp_error_t open_kind(qp_comm_t *comm, const char *folder, const char *pattern,
                                   const char *kind, qp_dataset_t **dataset)
{
    char *path = qp_format("%s/%s", folder, pattern);
    const char *const items[] = {path};
    qp_deck_strings_t patterns = {1, items};
    qp_error_t error = qp_dataset_open(comm, &patterns, kind, TOKENIZER_ID, dataset);
    qp_free(path);
    return error;
}

static inline qp_error_t open_made(qp_comm_t *comm, const char *folder, const char *pattern,
                                   qp_dataset_t **dataset)
{
    return open_kind(comm, folder, pattern, "sft", dataset);
}

/** The folder of rank 0's test on every rank (qp_free). */
static inline char *common_folder(qp_comm_t *comm)
{
    void *folder = qp_comm_rank(comm) == 0 ? qp_strdup(qp_test_folder()) : NULL;
    size_t n = folder != NULL ? strlen(folder) + 1 : 0;
    qp_comm_bcast_block(comm, &folder, &n, 0);
    return folder;
}

#endif
