/* Shards come back as they were written; what is damaged or does not fit is refused by name. */
#include <fcntl.h>
#include <glob.h>
#include <math.h>
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
        CHECK(qp_dataset_margin(dataset, 0) == 1.5f);
        qp_free(token);
        qp_free(loss);
        qp_dataset_close(&dataset);
    }
    qp_free(path);
}

/* Over several shards, one of them empty, every pair has its own margin; other kinds have none. */
static void test_margins_come_back(qp_comm_t *comm)
{
    make_shard_of(&made_pairs, qp_test_folder(), "margins-a.h5", 0, 7);
    make_shard_of(&made_pairs, qp_test_folder(), "margins-b.h5", 7, 7);
    make_shard_of(&made_pairs, qp_test_folder(), "margins-c.h5", 7, 20);
    qp_dataset_t *dataset = NULL;
    if (CHECK_OK(open_kind(comm, qp_test_folder(), "margins-*.h5", "reward", &dataset))) {
        CHECK(qp_dataset_n_sample(dataset) == 20);
        for (int64_t i = 0; i < 20; i++)
            CHECK(qp_dataset_margin(dataset, i) == made_margin(i));
        qp_dataset_close(&dataset);
    }
    if (CHECK_OK(open_made(comm, qp_test_folder(), "good-a.h5", &dataset))) {
        CHECK(qp_dataset_margin(dataset, 3) == 0.0f);
        qp_dataset_close(&dataset);
    }
}

/* Without a kind asked for, the data set is of the kind of its shards. */
static void test_kinds_are_told(qp_comm_t *comm)
{
    static const qp_shard_info_t *const infos[] = {&made_info, &made_pairs, &made_prompts};
    for (int i = 0; i < 3; i++) {
        qp_dataset_t *dataset = NULL;
        make_shard_of(infos[i], qp_test_folder(), "any-1.h5", 0, 5);
        make_shard_of(infos[i], qp_test_folder(), "any-2.h5", 5, 9);
        if (!CHECK_OK(open_kind(comm, qp_test_folder(), "any-*.h5", NULL, &dataset)))
            continue;
        CHECK(strcmp(qp_dataset_kind(dataset), infos[i]->kind) == 0);
        CHECK(qp_dataset_n_sample(dataset) == 9);
        CHECK(qp_dataset_sequences_per_sample(dataset) == infos[i]->sequences_per_sample);
        qp_dataset_close(&dataset);
    }
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
    make_shard(qp_test_folder(), "any-0.h5", 0, 5); /* the others hold prompts */
    expect_refusal(comm, "any-*.h5", NULL, TOKENIZER_ID,
                   "any-1.h5: holds \"prompt\" samples, but ");
    expect_refusal(comm, "any-*.h5", NULL, TOKENIZER_ID, "any-0.h5 holds \"sft\"");
    expect_refusal(comm, "any-1.h5", NULL, 78,
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

/* Flips bit 2 of the first byte of a value that stands in a file. */
static void flip(const char *path, const void *value, size_t n)
{
    long at = find_bytes(path, value, n);
    CHECK(at > 0);
    int fd = open(path, O_RDWR);
    uint8_t byte = (uint8_t)(*(const uint8_t *)value ^ 4);
    CHECK(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
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
    flip(flipped, &token, sizeof token);
    expect_refusal(comm, "flipped.h5", "sft", TOKENIZER_ID, "/tokens");
    struct stat info;
    CHECK(stat(cut, &info) == 0 && truncate(cut, info.st_size / 2) == 0);
    expect_refusal(comm, "cut.h5", "sft", TOKENIZER_ID, "cut.h5");
    qp_free(flipped);
    qp_free(cut);
}

static void test_damaged_margins_are_refused(qp_comm_t *comm)
{
    make_shard_of(&made_pairs, qp_test_folder(), "margin.h5", 0, 9);
    char *path = in_folder("margin.h5");
    const float both[] = {made_margin(4), made_margin(5)};
    flip(path, both, sizeof both);
    expect_refusal(comm, "margin.h5", "reward", TOKENIZER_ID, "margin.h5: /margin");
    qp_free(path);
}

/* The storage loses a block of the file while it is in use; size and time are as they were. */
static void test_lost_blocks_are_seen(qp_comm_t *comm)
{
    enum { N_SAMPLE = 400, LOST = 512 };
    static const uint8_t nothing[LOST];
    make_shard(qp_test_folder(), "lost.h5", 0, N_SAMPLE);
    char *path = in_folder("lost.h5");
    const int32_t token[] = {made_token(200, 0), made_token(200, 1)};
    const long at = find_bytes(path, token, made_length(200) > 2 ? sizeof token : sizeof token[0]);
    qp_dataset_t *dataset = NULL;
    struct stat info;
    CHECK(at > 0 && stat(path, &info) == 0);
    if (!CHECK_OK(open_made(comm, qp_test_folder(), "lost.h5", &dataset)))
        return;
    const int fd = open(path, O_RDWR);
    CHECK(pwrite(fd, nothing, LOST, at) == LOST);
    CHECK(futimens(fd, (const struct timespec[]){info.st_atim, info.st_mtim}) == 0);
    close(fd);
    int n_refused = 0;
    for (int64_t i = 0; i < N_SAMPLE; i++) {
        int32_t *got = NULL;
        uint8_t *loss = NULL;
        int64_t n;
        qp_error_t error = qp_dataset_read(dataset, i, &got, &loss, &n);
        if (error == NULL)
            CHECK(got[0] == made_token(i, 0));
        else
            CHECK(error->code == QP_INPUT && strstr(error->message, "lost.h5: /tokens[") != NULL &&
                  strstr(error->message, "damaged: checksum is") != NULL);
        n_refused += error != NULL;
        qp_error_destroy(&error);
        qp_free(got);
        qp_free(loss);
    }
    /* those of its chunk */
    CHECK_MSG(n_refused > 0 && n_refused < N_SAMPLE / 2, "%d samples refused", n_refused);
    qp_dataset_close(&dataset);
    qp_free(path);
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

/* Contents of a shard as they are, with correct checksums. */
typedef struct {
    const char *kind;
    int64_t n_sequence; /* per sample */
    const int32_t *token;
    int64_t n_token;
    const int64_t *offset;
    int64_t n_offset, n_sample;
    const float *margin; /* NULL: none */
    int64_t n_margin;
} raw_t;

static void make_raw_of(const char *name, const raw_t *raw)
{
    char *path = in_folder(name);
    const uint8_t loss[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    const int64_t id[8] = {0};
    const struct {
        const char *name;
        qp_dtype_t dtype;
        int64_t n;
        const void *data;
    } parts[] = {{"/tokens", QP_I32, raw->n_token, raw->token},
                 {"/loss", QP_U8, raw->n_token, loss},
                 {"/offsets", QP_I64, raw->n_offset, raw->offset},
                 {"/id", QP_I64, raw->n_sample, id},
                 {"/margin", QP_F32, raw->n_margin, raw->margin}};
    qp_h5_t *file = NULL;
    CHECK_OK(qp_h5_create(path, NULL, &file));
    CHECK_OK(qp_h5_format_set(file, QP_SHARD_FORMAT, QP_SHARD_VERSION));
    CHECK_OK(qp_h5_attr_set_str(file, "/", "kind", raw->kind));
    CHECK_OK(qp_h5_attr_set_i64(file, "/", "tokenizer_id", TOKENIZER_ID));
    CHECK_OK(qp_h5_attr_set_i64(file, "/", "n_vocab", 100));
    CHECK_OK(qp_h5_attr_set_i64(file, "/", "sequences_per_sample", raw->n_sequence));
    CHECK_OK(qp_h5_attr_set_i64(file, "/", "n_sample", raw->n_sample));
    for (size_t p = 0; p < sizeof parts / sizeof parts[0] && parts[p].data != NULL; p++) {
        qp_h5_shape_t shape = {.dtype = parts[p].dtype, .n_dim = 1, .dim = {parts[p].n}};
        CHECK_OK(qp_h5_dataset_create(file, parts[p].name, &shape));
        CHECK_OK(qp_h5_write(file, parts[p].name, parts[p].dtype, 0, parts[p].n, parts[p].data));
        size_t n_bytes = (size_t)parts[p].n * qp_dtype_bytes(parts[p].dtype);
        CHECK_OK(qp_h5_checksum_set(file, parts[p].name, qp_hash_bytes(parts[p].data, n_bytes)));
    }
    CHECK_OK(qp_h5_close(&file));
    qp_free(path);
}

static void make_raw(const char *name, const int32_t *token, int64_t n_token, const int64_t *offset,
                     int64_t n_offset, int64_t n_sample)
{
    make_raw_of(name, &(raw_t){"sft", 1, token, n_token, offset, n_offset, n_sample, NULL, 0});
}

/* Two pairs with these margins must be refused. */
static void refuse_margins(qp_comm_t *comm, const float *margin, int64_t n_margin,
                           const char *message)
{
    const int32_t token[] = {4, 5, 6, 7};
    const int64_t offset[] = {0, 1, 2, 3, 4};
    make_raw_of("margins.h5", &(raw_t){"reward", 2, token, 4, offset, 5, 2, margin, n_margin});
    expect_refusal(comm, "margins.h5", "reward", TOKENIZER_ID, message);
}

static void test_wrong_margins_are_refused(qp_comm_t *comm)
{
    refuse_margins(comm, NULL, 0, "margins.h5: no data set /margin, expected one in a \"reward\"");
    refuse_margins(comm, (const float[]){1.0f}, 1,
                   "margins.h5: /margin has 1 elements, expected 2");
    refuse_margins(comm, (const float[]){1.0f, 2.0f, 3.0f}, 3,
                   "margins.h5: /margin has 3 elements, expected 2");
    refuse_margins(comm, (const float[]){1.0f, NAN}, 2,
                   "margins.h5: /margin[1] is nan, expected a finite number");
    refuse_margins(comm, (const float[]){-INFINITY, 1.0f}, 2,
                   "margins.h5: /margin[0] is -inf, expected a finite number");
}

static void test_wrong_kinds_are_refused(qp_comm_t *comm)
{
    const int32_t token[] = {4, 5, 6, 7};
    const int64_t offset[] = {0, 1, 2, 3, 4};
    make_raw_of("kind.h5", &(raw_t){"sft", 2, token, 4, offset, 5, 2, NULL, 0});
    expect_refusal(comm, "kind.h5", "sft", TOKENIZER_ID,
                   "kind.h5: 2 sequences per \"sft\" sample, expected 1");
    make_raw_of("kind.h5", &(raw_t){"reward", 1, token, 4, offset, 5, 4, NULL, 0});
    expect_refusal(comm, "kind.h5", "reward", TOKENIZER_ID,
                   "kind.h5: 1 sequences per \"reward\" sample, expected 2");
    make_raw_of("kind.h5", &(raw_t){"dpo", 2, token, 4, offset, 5, 2, NULL, 0});
    expect_refusal(comm, "kind.h5", "dpo", TOKENIZER_ID,
                   "kind.h5: kind is \"dpo\", expected \"sft\", \"reward\" or \"prompt\"");
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
    test_margins_come_back(comm);
    test_kinds_are_told(comm);
    test_unfinished_shards_leave_nothing();
    test_misfits_are_refused(comm);
    test_damage_is_refused(comm);
    test_damaged_margins_are_refused(comm);
    test_lost_blocks_are_seen(comm);
    test_no_flip_passes_unnoticed(comm);
    test_nonsense_is_refused(comm);
    test_wrong_margins_are_refused(comm);
    test_wrong_kinds_are_refused(comm);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
