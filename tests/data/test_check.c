/* QP_TEST: ranks=1,3
 * What is known of a data set before the first step: tokens that the model does not have, samples
 * that teach nothing, the identity of shards, names that look like patterns, files that change. */
#include <fcntl.h>
#include <hdf5.h>
#include <sys/stat.h>

#include "base/file.h"
#include "shards.h"

/* A file of one process of rank 0's folder. */
static char *folder;
static qp_comm_t *comm;

/* A sample as a text: a token per letter, capitals are completion. */
static void add_text(qp_shard_writer_t *writer, int64_t id, const char *a, const char *b)
{
    const char *const text[] = {a, b};
    int32_t token[2][16];
    uint8_t loss[2][16];
    int64_t n[2] = {0};
    for (int s = 0; s < 2 && text[s] != NULL; s++)
        for (; text[s][n[s]] != '\0'; n[s]++) {
            token[s][n[s]] = text[s][n[s]];
            loss[s][n[s]] = text[s][n[s]] >= 'A' && text[s][n[s]] <= 'Z';
        }
    CHECK_OK(qp_shard_writer_add(writer, id, 1.0f, (const int32_t *const[]){token[0], token[1]},
                                 (const uint8_t *const[]){loss[0], loss[1]}, n));
}

/* A shard as versions wrote it that did not note what it holds. */
static void forget_notes(const char *path)
{
    static const char *const note[] = {"max_token_id", "n_without_loss"};
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    for (int i = 0; i < 2; i++)
        CHECK(H5Aexists(file, note[i]) <= 0 || H5Adelete(file, note[i]) >= 0);
    H5Fclose(file);
}

/* Samples [n][2] (the second of a pair, or NULL) to folder/name; rank 0. */
static void write_texts(const char *name, const char *const (*sample)[2], int n, bool old)
{
    if (qp_comm_rank(comm) == 0) {
        char *path = qp_format("%s/%s", folder, name);
        const qp_shard_info_t *info = sample[0][1] != NULL ? &made_pairs : &made_info;
        qp_shard_writer_t *writer = NULL;
        CHECK_OK(qp_shard_writer_create(path, info, "texts", &writer));
        for (int i = 0; i < n; i++)
            add_text(writer, 100 + i, sample[i][0], sample[i][1]);
        CHECK_OK(qp_shard_writer_commit(&writer));
        if (old)
            forget_notes(path);
        qp_free(path);
    }
    qp_comm_barrier(comm);
}

/* Checks folder/pattern; message NULL: nothing is wrong. */
static void check_use(const char *pattern, const char *kind, const qp_dataset_use_t *use,
                      const char *message)
{
    qp_dataset_t *dataset = NULL;
    if (!CHECK_OK(open_kind(comm, folder, pattern, kind, &dataset)))
        return;
    if (message == NULL)
        CHECK_OK(qp_dataset_check(comm, dataset, use, "data.train"));
    else
        CHECK_FAILS(qp_dataset_check(comm, dataset, use, "data.train"), QP_INPUT, message);
    qp_dataset_close(&dataset);
    qp_comm_barrier(comm);
}

static void test_tokens(void)
{
    static const char *const few[][2] = {{"abC", NULL}, {"aB", NULL}};
    static const char *const more[][2] = {{"abC", NULL}, {"aB", NULL}, {"aBz", NULL}};
    const qp_dataset_use_t y = {.n_vocab = 'z'}, z = {.n_vocab = 'z' + 1};
    for (int old = 0; old < 2; old++) {
        write_texts("tokens-1.h5", few, 2, old);
        write_texts("tokens-2.h5", more, 3, old);
        check_use("tokens-*.h5", "sft", &z, NULL);
        check_use("tokens-1.h5", "sft", &y, NULL);
        check_use("tokens-*.h5", "sft", &y,
                  "tokens-2.h5: sample 2 (id 102) has token 122, but the model has 122 tokens");
    }
}

static void test_nothing_to_learn(void)
{
    static const char *const none[][2] = {{"abc", NULL}, {"Ab", NULL}, {"D", NULL}};
    static const char *const some[][2] = {{"abc", NULL}, {"aB", NULL}, {"AB", NULL}};
    static const char *const lone[][2] = {{"A", NULL}, {"B", NULL}};
    static const char *const pairs[][2] = {{"aB", "ac"}, {"ab", "aC"}};
    static const char *const half[][2] = {{"aB", "ac"}, {"aBc", "aC"}};
    const qp_dataset_use_t completion = {1000, true, true}, all = {1000, true, false};
    const qp_dataset_use_t rated = {1000, false, true};
    for (int old = 0; old < 2; old++) {
        write_texts("none.h5", none, 3, old);
        write_texts("some.h5", some, 3, old);
        write_texts("lone.h5", lone, 2, old);
        write_texts("pairs.h5", pairs, 2, old);
        write_texts("half.h5", half, 2, old);
        check_use("none.h5", "sft", &completion,
                  "none.h5: nothing to learn: none of the 3 samples has a token of a completion");
        check_use("none.h5", "sft", &all, NULL);
        check_use("none.h5", "sft", &rated, NULL);
        check_use("some.h5", "sft", &completion, NULL);
        check_use("[ns]o[nm]e.h5", "sft", &completion, NULL);
        check_use("lone.h5", "sft", &all,
                  "lone.h5: nothing to learn: none of the 2 samples has more than one token");
        check_use("pairs.h5", "reward", &completion, "none of the 2 samples has a token of a");
        check_use("pairs.h5", "reward", &rated, NULL);
        check_use("half.h5", "reward", &completion, NULL);
    }
}

/* "role id name" of each shard; without the names. */
static char *ids_of(const char *pattern)
{
    qp_dataset_t *dataset = NULL;
    qp_str_t lines = {0}, ids = {0};
    if (CHECK_OK(open_made(comm, folder, pattern, &dataset))) {
        qp_dataset_inputs(dataset, "data.eval", &lines);
        for (const char *line = lines.data; *line != '\0'; line = strchr(line, '\n') + 1) {
            CHECK(strncmp(line, "data.eval ", 10) == 0);
            qp_str_append(&ids, line + 10, 16);
        }
        qp_dataset_close(&dataset);
    }
    qp_str_fini(&lines);
    return ids.data;
}

static void move(const char *from, const char *to)
{
    if (qp_comm_rank(comm) == 0) {
        char *a = qp_format("%s/%s", folder, from), *b = qp_format("%s/%s", folder, to);
        CHECK(rename(a, b) == 0);
        qp_free(a);
        qp_free(b);
    }
    qp_comm_barrier(comm);
}

/* An identity is of the contents: not of the name, not of when it was made. */
static void test_identity(void)
{
    static const char *const a[][2] = {{"abC", NULL}}, *const b[][2] = {{"abc", NULL}};
    write_texts("id-1.h5", a, 1, false);
    write_texts("id-2.h5", b, 1, false);
    char *both = ids_of("id-*.h5");
    CHECK(strlen(both) == 32 && memcmp(both, both + 16, 16) != 0); /* the loss alone differs */
    move("id-1.h5", "id-0.h5");
    char *moved = ids_of("id-*.h5");
    CHECK(strcmp(both, moved) == 0);
    write_texts("id-0.h5", a, 1, true);
    char *again = ids_of("id-0.h5");
    CHECK(memcmp(both, again, 16) == 0 && strlen(again) == 16);
    qp_free(both);
    qp_free(moved);
    qp_free(again);
}

/* A name that is there is that file, whatever a pattern would make of it. */
static void test_names(void)
{
    static const char *const one[][2] = {{"abC", NULL}};
    static const char *const name[] = {"a[1].h5", "b*.h5", "c?.h5", "d\\[x].h5", "e[.h5"};
    write_texts("a1.h5", one, 1, false);
    write_texts("bb.h5", one, 1, false);
    write_texts("cc.h5", one, 1, false);
    for (int i = 0; i < 5; i++) {
        write_texts(name[i], one, 1, false);
        qp_dataset_t *dataset = NULL;
        if (CHECK_OK(open_made(comm, folder, name[i], &dataset)))
            CHECK_MSG(qp_dataset_n_sample(dataset) == 1, "%s is one file", name[i]);
        qp_dataset_close(&dataset);
        qp_comm_barrier(comm);
    }
    qp_dataset_t *dataset = NULL;
    CHECK_OK(open_made(comm, folder, "[abc][1bc].h5", &dataset));
    CHECK(dataset != NULL && qp_dataset_n_sample(dataset) == 3);
    qp_dataset_close(&dataset);
}

static void refused(const char *name, const char *message)
{
    qp_dataset_t *dataset = NULL;
    CHECK_FAILS(open_made(comm, folder, name, &dataset), QP_INPUT, message);
    qp_comm_barrier(comm);
}

/* What is no file is said to be so; nobody waits. */
static void test_no_files(void)
{
    static const char *const one[][2] = {{"abC", NULL}};
    write_texts("good\nname.h5", one, 1, false);
    if (qp_comm_rank(comm) == 0) {
        char *pipe = qp_format("%s/pipe.h5", folder), *sub = qp_format("%s/sub.h5", folder);
        char *link = qp_format("%s/link.h5", folder);
        CHECK(mkfifo(pipe, 0600) == 0 && mkdir(sub, 0700) == 0 && symlink("absent", link) == 0);
        qp_free(pipe);
        qp_free(sub);
        qp_free(link);
    }
    qp_comm_barrier(comm);
    refused("pipe.h5", "pipe.h5: not a regular file, but a pipe");
    refused("sub.h5", "sub.h5: not a regular file, but a folder");
    refused("link.h5", "link.h5: cannot be opened: No such file");
    refused("good*.h5", "a shard's name holds a control character");
}

static qp_error_t read_first(const qp_dataset_t *dataset)
{
    int32_t *token = NULL;
    uint8_t *loss = NULL;
    int64_t n;
    qp_error_t error = qp_dataset_read(dataset, 0, &token, &loss, &n);
    qp_free(token);
    qp_free(loss);
    return error;
}

/* While it is open: touched is harmless, replaced too, written into is not. */
static void test_changes(void)
{
    static const char *const a[][2] = {{"abC", NULL}}, *const b[][2] = {{"xyZ", NULL}};
    char *path = qp_format("%s/live.h5", folder), *other = qp_format("%s/other.h5", folder);
    qp_dataset_t *dataset = NULL;
    write_texts("live.h5", a, 1, false);
    CHECK_OK(open_made(comm, folder, "live.h5", &dataset));
    CHECK_OK(read_first(dataset));
    qp_comm_barrier(comm);
    if (qp_comm_rank(comm) == 0)
        CHECK(utimensat(AT_FDCWD, path, (const struct timespec[]){{5, 0}, {5, 0}}, 0) == 0);
    qp_comm_barrier(comm);
    CHECK_OK(read_first(dataset));
    CHECK_OK(read_first(dataset));
    qp_comm_barrier(comm);
    write_texts("live.h5", b, 1, false); /* under the same name: another file */
    CHECK_OK(read_first(dataset));
    qp_dataset_close(&dataset);
    CHECK_OK(open_made(comm, folder, "live.h5", &dataset));
    write_texts("other.h5", a, 1, false);
    if (qp_comm_rank(comm) == 0) { /* over it, as cp does */
        void *bytes = NULL;
        size_t n = 0;
        CHECK_OK(qp_file_read(other, &bytes, &n));
        const int fd = open(path, O_WRONLY);
        CHECK(pwrite(fd, bytes, n, 0) == (ssize_t)n);
        close(fd);
        qp_free(bytes);
    }
    qp_comm_barrier(comm);
    CHECK_FAILS(read_first(dataset), QP_INPUT, "live.h5 was written to while it was in use");
    qp_dataset_close(&dataset);
    qp_free(path);
    qp_free(other);
}

int main(void)
{
    if (!CHECK_OK(qp_comm_create(&comm)))
        return 1;
    folder = common_folder(comm);
    test_tokens();
    test_nothing_to_learn();
    test_identity();
    test_names();
    test_no_files();
    test_changes();
    qp_comm_barrier(comm);
    qp_free(folder);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
