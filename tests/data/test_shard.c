/* QP_TEST: timeout=30
 * Shards come back as they were written; what is damaged or does not fit is refused by name. */
#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "data/shard.h"
#include "shards.h"

static char *in_folder(const char *name)
{
    return qp_format("%s/%s", qp_test_folder(), name);
}

static void check_sample(const qp_dataset_t *dataset, int64_t i)
{
    int32_t *token = NULL;
    uint8_t *loss = NULL;
    int64_t n = 0;
    if (!CHECK_OK(qp_dataset_read(dataset, i, &token, &loss, &n)))
        return;
    CHECK(n == made_length(i));
    for (int64_t p = 0; p < n; p++)
        CHECK_MSG(token[p] == made_token(i, p) && loss[p] == made_loss(i, p), "sample %lld at %lld",
                  (long long)i, (long long)p);
    qp_free(token);
    qp_free(loss);
}

static void test_shards_come_back(qp_comm_t *comm)
{
    make_shard(qp_test_folder(), "good-a.h5", 0, 40);
    make_shard(qp_test_folder(), "good-b.h5", 40, 40); /* nothing in it */
    make_shard(qp_test_folder(), "good-c.h5", 40, 100);
    qp_dataset_t *dataset = NULL;
    char *all = in_folder("good-*.h5"), *again = in_folder("good-a.h5");
    const char *const items[] = {again, all, all};
    qp_deck_strings_t patterns = {3, items};
    if (CHECK_OK(qp_dataset_open(comm, &patterns, "sft", TOKENIZER_ID, &dataset))) {
        int64_t n_token = 0;
        CHECK(qp_dataset_n_sample(dataset) == 100);
        for (int64_t i = 0; i < 100; i++) {
            check_sample(dataset, i);
            n_token += made_length(i);
        }
        CHECK(qp_dataset_n_token(dataset) == n_token);
        qp_dataset_close(&dataset);
    }
    qp_free(all);
    qp_free(again);
}

static void test_pairs_come_back(qp_comm_t *comm)
{
    char *path = in_folder("pairs.h5");
    const qp_shard_info_t info = {"reward", TOKENIZER_ID, 100, 2};
    const int32_t chosen[] = {5, 6, 7}, rejected[] = {5, 9};
    const int64_t n[] = {3, 2};
    qp_shard_writer_t *writer = NULL;
    CHECK_OK(qp_shard_writer_create(path, &info, "made up", &writer));
    CHECK_OK(
        qp_shard_writer_add(writer, 12, 1.5f, (const int32_t *const[]){chosen, rejected}, NULL, n));
    CHECK_OK(qp_shard_writer_commit(&writer));
    qp_deck_strings_t patterns = {1, (const char *const[]){path}};
    qp_dataset_t *dataset = NULL;
    if (CHECK_OK(qp_dataset_open(comm, &patterns, "reward", TOKENIZER_ID, &dataset))) {
        int32_t *token = NULL;
        uint8_t *loss = NULL;
        int64_t n_read[2];
        CHECK_OK(qp_dataset_read(dataset, 0, &token, &loss, n_read));
        CHECK(n_read[0] == 3 && n_read[1] == 2 && token[2] == 7 && token[3] == 5 && token[4] == 9);
        CHECK(loss[0] == 1 && loss[4] == 1);
        qp_free(token);
        qp_free(loss);
        qp_dataset_close(&dataset);
    }
    qp_h5_t *file = NULL;
    float margin = 0.0f;
    CHECK_OK(qp_h5_open(path, NULL, &file));
    CHECK_OK(qp_h5_read(file, "/margin", QP_F32, 0, 1, &margin));
    CHECK_OK(qp_h5_close(&file));
    CHECK(margin == 1.5f);
    qp_free(path);
}

static void test_unfinished_shards_leave_nothing(void)
{
    char *path = in_folder("abandoned.h5"), *all = in_folder("abandoned*");
    qp_shard_writer_t *writer = NULL;
    CHECK_OK(qp_shard_writer_create(path, &made_info, "made up", &writer));
    CHECK_OK(add_made(writer, 1));
    CHECK_OK(qp_shard_writer_finish(writer));
    CHECK(access(path, F_OK) != 0);
    qp_shard_writer_abandon(&writer);
    glob_t found = {0};
    CHECK(glob(all, 0, NULL, &found) == GLOB_NOMATCH);
    globfree(&found);
    qp_free(path);
    qp_free(all);
    CHECK_FAILS(qp_shard_writer_create("/nowhere/x.h5", &made_info, "made up", &writer), QP_IO,
                "/nowhere/x.h5");
}

static void expect_refusal(qp_comm_t *comm, const char *name, const char *kind,
                           uint64_t tokenizer_id, const char *message)
{
    char *path = in_folder(name);
    qp_deck_strings_t patterns = {1, (const char *const[]){path}};
    qp_dataset_t *dataset = NULL;
    CHECK_FAILS(qp_dataset_open(comm, &patterns, kind, tokenizer_id, &dataset), QP_INPUT, message);
    CHECK(dataset == NULL);
    qp_free(path);
}

static void test_misfits_are_refused(qp_comm_t *comm)
{
    qp_deck_strings_t none = {0, NULL};
    qp_dataset_t *dataset = NULL;
    CHECK_FAILS(qp_dataset_open(comm, &none, "sft", TOKENIZER_ID, &dataset), QP_INPUT, "no shards");
    expect_refusal(comm, "absent-*.h5", "sft", TOKENIZER_ID, "absent-*.h5: no such shard");
    expect_refusal(comm, "good-b.h5", "sft", TOKENIZER_ID, "hold no sample");
    expect_refusal(comm, "good-a.h5", "reward", TOKENIZER_ID,
                   "holds \"sft\" samples, expected \"reward\"");
    expect_refusal(comm, "good-a.h5", "sft", 78,
                   "tokenizer 000000000000004d, the base has 000000000000004e");
    char *path = in_folder("text.h5");
    FILE *file = fopen(path, "w");
    fputs("not HDF5", file);
    fclose(file);
    expect_refusal(comm, "text.h5", "sft", TOKENIZER_ID, "text.h5");
    qp_free(path);
}

/* Where a byte pattern stands in a file, or -1. */
static long find_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *file = fopen(path, "rb");
    char window[8];
    long at = -1;
    for (long i = 0; at < 0 && fseek(file, i, SEEK_SET) == 0 && fread(window, 1, n, file) == n; i++)
        if (memcmp(window, bytes, n) == 0)
            at = i;
    fclose(file);
    return at;
}

static void test_damage_is_refused(qp_comm_t *comm)
{
    make_shard(qp_test_folder(), "flipped.h5", 0, 40);
    make_shard(qp_test_folder(), "cut.h5", 0, 40);
    char *flipped = in_folder("flipped.h5"), *cut = in_folder("cut.h5");
    int64_t i = 0;
    while (made_length(i) < 3)
        i++;
    int32_t token = made_token(i, 1);
    long at = find_bytes(flipped, &token, sizeof token);
    CHECK(at > 0);
    int fd = open(flipped, O_RDWR);
    uint8_t byte = (uint8_t)(token ^ 4);
    CHECK(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
    expect_refusal(comm, "flipped.h5", "sft", TOKENIZER_ID, "/tokens");
    struct stat info;
    CHECK(stat(cut, &info) == 0 && truncate(cut, info.st_size / 2) == 0);
    expect_refusal(comm, "cut.h5", "sft", TOKENIZER_ID, "cut.h5");
    qp_free(flipped);
    qp_free(cut);
}

/* Wherever a bit flips: the shard is refused, or its tokens are what they were. */
static void test_no_flip_passes_unnoticed(qp_comm_t *comm)
{
    enum { N_FLIP = 300, N_SAMPLE = 10 };
    make_shard(qp_test_folder(), "flips.h5", 0, N_SAMPLE);
    char *path = in_folder("flips.h5");
    struct stat info;
    CHECK(stat(path, &info) == 0);
    int fd = open(path, O_RDWR), n_refused = 0;
    for (uint32_t i = 0; i < N_FLIP; i++) {
        qp_philox_key_t key = {.seed = 11, .sample = i};
        off_t at = (off_t)((double)qp_philox_uniform(&key, 0) * (double)info.st_size);
        uint8_t byte = 0, flipped = 0;
        CHECK(pread(fd, &byte, 1, at) == 1);
        flipped = (uint8_t)(byte ^ (1u << (i % 8)));
        CHECK(pwrite(fd, &flipped, 1, at) == 1);
        qp_dataset_t *dataset = NULL;
        qp_error_t error = open_made(comm, qp_test_folder(), "flips.h5", &dataset);
        if (error == NULL) {
            for (int64_t sample = 0; sample < N_SAMPLE; sample++)
                check_sample(dataset, sample);
            qp_dataset_close(&dataset);
        }
        CHECK(error == NULL || error->code == QP_INPUT);
        n_refused += error != NULL;
        qp_error_destroy(&error);
        CHECK(pwrite(fd, &byte, 1, at) == 1);
    }
    CHECK_MSG(n_refused > N_FLIP * 8 / 10, "%d of %d refused", n_refused, (int)N_FLIP);
    close(fd);
    qp_free(path);
}

/* A shard with given contents and correct checksums. */
static void make_raw(const char *name, const int32_t *token, int64_t n_token, const int64_t *offset,
                     int64_t n_offset, int64_t n_sample)
{
    char *path = in_folder(name);
    const uint8_t loss[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    const int64_t id[8] = {0};
    const struct {
        const char *name;
        qp_dtype_t dtype;
        int64_t n;
        const void *data;
    } parts[] = {{"/tokens", QP_I32, n_token, token},
                 {"/loss", QP_U8, n_token, loss},
                 {"/offsets", QP_I64, n_offset, offset},
                 {"/id", QP_I64, n_sample, id}};
    qp_h5_t *file = NULL;
    CHECK_OK(qp_h5_create(path, NULL, &file));
    CHECK_OK(qp_h5_format_set(file, QP_SHARD_FORMAT, QP_SHARD_VERSION));
    CHECK_OK(qp_h5_attr_set_str(file, "/", "kind", "sft"));
    CHECK_OK(qp_h5_attr_set_i64(file, "/", "tokenizer_id", TOKENIZER_ID));
    CHECK_OK(qp_h5_attr_set_i64(file, "/", "n_vocab", 100));
    CHECK_OK(qp_h5_attr_set_i64(file, "/", "sequences_per_sample", 1));
    CHECK_OK(qp_h5_attr_set_i64(file, "/", "n_sample", n_sample));
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        qp_h5_shape_t shape = {.dtype = parts[p].dtype, .n_dim = 1, .dim = {parts[p].n}};
        CHECK_OK(qp_h5_dataset_create(file, parts[p].name, &shape));
        CHECK_OK(qp_h5_write(file, parts[p].name, parts[p].dtype, 0, parts[p].n, parts[p].data));
        size_t n_bytes = (size_t)parts[p].n * qp_dtype_bytes(parts[p].dtype);
        CHECK_OK(qp_h5_checksum_set(file, parts[p].name, qp_hash_bytes(parts[p].data, n_bytes)));
    }
    CHECK_OK(qp_h5_close(&file));
    qp_free(path);
}

static void test_nonsense_is_refused(qp_comm_t *comm)
{
    const int32_t good[] = {4, 5, 6, 7}, bad[] = {4, 5, 100, 7};
    make_raw("down.h5", good, 4, (const int64_t[]){0, 3, 2, 4}, 4, 3);
    expect_refusal(comm, "down.h5", "sft", TOKENIZER_ID, "do not increase at sequence 1: 3, 2");
    make_raw("short.h5", good, 4, (const int64_t[]){0, 3}, 2, 1);
    expect_refusal(comm, "short.h5", "sft", TOKENIZER_ID, "run from 0 to 3, expected 0 to 4");
    make_raw("count.h5", good, 4, (const int64_t[]){0, 2, 4}, 3, 1);
    expect_refusal(comm, "count.h5", "sft", TOKENIZER_ID, "/offsets has 3 elements, expected 2");
    make_raw("vocabulary.h5", bad, 4, (const int64_t[]){0, 2, 4}, 3, 2);
    qp_dataset_t *dataset = NULL;
    if (CHECK_OK(open_made(comm, qp_test_folder(), "vocabulary.h5", &dataset))) {
        int32_t *token = NULL;
        uint8_t *loss = NULL;
        int64_t n;
        CHECK_FAILS(qp_dataset_read(dataset, 1, &token, &loss, &n), QP_INPUT,
                    "/tokens[2] is 100, outside the vocabulary of 100");
        CHECK(token == NULL && loss == NULL);
        qp_dataset_close(&dataset);
    }
}

int main(void)
{
    qp_comm_t *comm = NULL;
    if (!CHECK_OK(qp_comm_create(&comm)))
        return 1;
    test_shards_come_back(comm);
    test_pairs_come_back(comm);
    test_unfinished_shards_leave_nothing();
    test_misfits_are_refused(comm);
    test_damage_is_refused(comm);
    test_no_flip_passes_unnoticed(comm);
    test_nonsense_is_refused(comm);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
