/* QP_TEST: ranks=1,2,3,4
 * Checkpoints: round trip, rotation, the newest whole one, refusals, what other versions wrote. */
#include <fcntl.h>
#include <hdf5.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "base/log.h"
#include "h5/h5.h"
#include "ckpt_testing.h"

static void test_round_trip(qp_comm_t *comm)
{
    const int64_t sizes[] = {1, 2, 1000, 1200000};
    const char *folder = folder_for(comm, "round");
    char path[400];
    check_latest(comm, folder, 0); /* no folder at all */
    for (int i = 0; i < 4; i++) {
        CHECK_OK(write_at(comm, folder, i + 1, 10, sizes[i]));
        snprintf(path, sizeof path, "%s/step-%06d.h5", folder, i + 1);
        int64_t step = 0;
        bool right = false;
        const qp_ckpt_info_t info = info_at(0);
        CHECK_OK(read_from(comm, path, &info, sizes[i], &step, &right));
        CHECK(right && step == i + 1);
        CHECK_OK(qp_ckpt_verify(path));
    }
    check_latest(comm, folder, 4);
}

/* What is in the file does not depend on the rank count: checksums of the whole arrays. */
static void test_contents_do_not_depend_on_ranks(qp_comm_t *comm)
{
    enum { N = 1000 };
    const char *folder = folder_for(comm, "contents");
    CHECK_OK(write_at(comm, folder, 1, 10, N));
    float weights[N];
    uint16_t table[N];
    for (int64_t i = 0; i < N; i++) {
        weights[i] = (float)i * 0.37f;
        table[i] = (uint16_t)(i * 7);
    }
    char path[400];
    snprintf(path, sizeof path, "%s/step-000001.h5", folder);
    qp_h5_t *file = NULL;
    if (CHECK_OK(qp_h5_open(path, NULL, &file))) {
        uint64_t of_weights = 0, of_table = 0;
        CHECK_OK(qp_h5_checksum_get(file, "/state/adapter/param", &of_weights));
        CHECK_OK(qp_h5_checksum_get(file, "/state/table", &of_table));
        CHECK(of_weights == qp_hash_bytes(weights, sizeof weights));
        CHECK(of_table == qp_hash_bytes(table, sizeof table));
        CHECK_OK(qp_h5_verify(file));
    }
    CHECK_OK(qp_h5_close(&file));
    qp_comm_barrier(comm);
}

/* Bytes that this process has read from files so far; -1: the system does not say. */
static int64_t bytes_read(void)
{
    long long n = -1;
    FILE *io = fopen("/proc/self/io", "r");
    if (io != NULL && fscanf(io, "rchar: %lld", &n) != 1)
        n = -1;
    if (io != NULL)
        fclose(io);
    return n;
}

/* To find the newest file reads it once, to restore it once more, whatever the number of ranks. */
static void test_bytes_read(qp_comm_t *comm)
{
    enum { N = 2000000, STATE_BYTES = N * 6 };
    const char *folder = folder_for(comm, "bytes");
    CHECK_OK(write_at(comm, folder, 1, 10, N));
    int64_t step = 0, before = bytes_read();
    char *path = NULL;
    bool right = false;
    const qp_ckpt_info_t info = info_at(0);
    CHECK_OK(qp_ckpt_latest(comm, folder, &path, &step));
    CHECK_OK(read_from(comm, path, &info, N, &step, &right));
    CHECK(right && step == 1);
    int64_t n = bytes_read() - before, unknown = before < 0;
    qp_comm_sum_i64(comm, &n, 1);
    qp_comm_sum_i64(comm, &unknown, 1);
    CHECK_MSG(unknown > 0 || n < 9 * (int64_t)STATE_BYTES / 4, "%lld bytes read of a state of %lld",
              (long long)n, (long long)STATE_BYTES);
    qp_free(path);
    qp_comm_barrier(comm);
}

static void test_rotation(qp_comm_t *comm)
{
    const char *folder = folder_for(comm, "rotation");
    for (int64_t step = 1; step <= 5; step++)
        CHECK_OK(write_at(comm, folder, 10 * step, 2, 100));
    qp_comm_barrier(comm);
    CHECK(exists(folder, "step-000050.h5") && exists(folder, "step-000040.h5"));
    CHECK(!exists(folder, "step-000030.h5") && !exists(folder, "step-000010.h5"));
    qp_comm_barrier(comm);
    char other[400], stale[400];
    snprintf(stale, sizeof stale, "%s/step-000045.h5.part", folder);
    snprintf(other, sizeof other, "%s/notes.txt", folder);
    if (qp_comm_rank(comm) == 0) { /* left by a killed run; the second file is the user's */
        close(open(stale, O_CREAT | O_WRONLY, 0666));
        close(open(other, O_CREAT | O_WRONLY, 0666));
    }
    CHECK_OK(write_at(comm, folder, 20, 2, 100)); /* an older step than those there */
    qp_comm_barrier(comm);
    CHECK(exists(folder, "step-000020.h5") && exists(folder, "step-000050.h5"));
    CHECK(!exists(folder, "step-000040.h5") && !exists(folder, "step-000045.h5.part"));
    CHECK(exists(folder, "notes.txt"));
    check_latest(comm, folder, 50);
}

static void test_refusals(qp_comm_t *comm)
{
    const char *folder = folder_for(comm, "refusals");
    CHECK_OK(write_at(comm, folder, 1, 2, 100));
    char path[400];
    snprintf(path, sizeof path, "%s/step-000001.h5", folder);
    int64_t step;
    bool right;
    qp_ckpt_info_t info = info_at(0);
    info.method = "ppo";
    CHECK_FAILS(read_from(comm, path, &info, 100, &step, &right), QP_INPUT,
                "job.method = \"sft\", this one is \"ppo\"");
    info = info_at(0);
    info.base_id = 5;
    CHECK_FAILS(read_from(comm, path, &info, 100, &step, &right), QP_INPUT,
                "another base (id fedcba9876543210, this base is 0000000000000005)");
    info = info_at(0);
    info.deck_hash = 78;
    info.fingerprint = "a.x = 1\nlora.new = 3\nlora.r = 8\n";
    CHECK_FAILS(read_from(comm, path, &info, 100, &step, &right), QP_INPUT,
                "keys that may not change\n  b.gone: was 2, is not given\n"
                "  lora.new: was not given, is 3\n  lora.r: was 16, is 8");
    /* A key that the file does not know, in the place where each stands; at another value; and one
     * that holds its default where the run had another value. */
    static const struct {
        const char *fingerprint, *at_default, *message;
    } newer[] = {
        {"a.x = 1\nb.gone = 2\nlora.new = 3\nlora.r = 16\n", " lora.new lora.r ", NULL},
        {"a.w = 1\na.x = 1\nb.gone = 2\nlora.r = 16\nz.z = \"z\"\n", " z.z a.w ", NULL},
        {"a.x = 1\nb.gone = 2\nlora.new = 3\nlora.r = 16\n", " lora.r ",
         "lora.new: was not given, is 3"},
        {"a.x = 1\nb.gone = 2\nlora.r = 8\n", " lora.r ", "lora.r: was 16, is 8"},
        {"a.x = 1\nlora.r = 16\n", " b.gone ", "b.gone: was 2, is not given"},
    };
    for (size_t i = 0; i < sizeof newer / sizeof newer[0]; i++) {
        qp_ckpt_found_t found;
        info.fingerprint = newer[i].fingerprint;
        info.at_default = newer[i].at_default;
        qp_error_t error = qp_ckpt_check(comm, path, &info, &found);
        if (newer[i].message == NULL)
            CHECK_OK(error);
        else
            CHECK_FAILS(error, QP_INPUT, newer[i].message);
    }
    info = info_at(0);
    CHECK_FAILS(read_from(comm, path, &info, 101, &step, &right), QP_INPUT,
                "/state/adapter/param: fp32 of 100 elements, expected fp32 of 101");
    CHECK_FAILS(qp_ckpt_verify("/nowhere/step-000001.h5"), QP_INPUT, "/nowhere/step-000001.h5");
    CHECK_OK(read_from(comm, path, &info, 100, &step, &right));
    CHECK(right);
    qp_comm_barrier(comm);
}

static void check_inputs(qp_comm_t *comm, const char *path, const char *inputs, const char *message)
{
    qp_ckpt_info_t info = info_at(0);
    qp_ckpt_found_t found;
    info.inputs = inputs;
    if (message != NULL)
        CHECK_FAILS(qp_ckpt_check(comm, path, &info, &found), QP_INPUT, message);
    else if (CHECK_OK(qp_ckpt_check(comm, path, &info, &found)))
        CHECK(found.step == 1 && found.steps == 50);
}

/* What the run reads: the contents count, in their order, and not the names. */
static void test_inputs(qp_comm_t *comm)
{
    const char *folder = folder_for(comm, "inputs");
    CHECK_OK(write_at(comm, folder, 1, 2, 100));
    char path[400];
    snprintf(path, sizeof path, "%s/step-000001.h5", folder);
    check_inputs(comm, path,
                 "data.train 00000000000000a1 moved.h5\ndata.train 00000000000000a2 data/two.h5\n"
                 "data.eval 00000000000000e1 else where.h5\n",
                 NULL);
    check_inputs(
        comm, path,
        "data.train 00000000000000a1 data/x one.h5\ndata.train 00000000000000b2 data/two.h5\n"
        "data.eval 00000000000000e1 data/eval.h5\n",
        "data.train: data/two.h5 (contents 00000000000000b2) is not what the run began with, "
        "which was data/two.h5 (contents 00000000000000a2)");
    check_inputs(comm, path, "data.train 00000000000000a1 a.h5\ndata.eval 00000000000000e1 e.h5\n",
                 "data.train: data/two.h5 (contents 00000000000000a2) is missing");
    check_inputs(comm, path,
                 "data.train 00000000000000a1 a.h5\ndata.train 00000000000000a2 b.h5\n"
                 "data.train 00000000000000a3 c.h5\ndata.eval 00000000000000e1 e.h5\n",
                 "data.train: c.h5 (contents 00000000000000a3) is not among the files");
    check_inputs(comm, path, "data.train 00000000000000a1 a.h5\ndata.train 00000000000000a2 b.h5\n",
                 "data.eval: data/eval.h5 (contents 00000000000000e1) is missing");
    /* A key whose contents are known may have another name in the deck. */
    qp_ckpt_info_t info = info_at(0);
    qp_ckpt_found_t found;
    info.deck_hash = 78;
    info.fingerprint = "a.x = 9\nb.gone = 2\nlora.r = 16\n";
    CHECK_OK(qp_ckpt_check(comm, path, &info, &found));
    info.by_content = "";
    CHECK_FAILS(qp_ckpt_check(comm, path, &info, &found), QP_INPUT, "a.x: was 1, is 9");
    info.by_content = " a.x ";
    /* A file of a version that kept no inputs: taken, but then names are all there is to go by. */
    qp_comm_barrier(comm);
    if (qp_comm_rank(comm) == 0) {
        const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        CHECK(H5Ldelete(file, "/inputs", H5P_DEFAULT) >= 0 && H5Adelete(file, "steps") >= 0);
        H5Fclose(file);
    }
    qp_comm_barrier(comm);
    CHECK_FAILS(qp_ckpt_check(comm, path, &info, &found), QP_INPUT, "a.x: was 1, is 9");
    info = info_at(0);
    info.inputs = "data.train 00000000000000ff other.h5\n";
    if (CHECK_OK(qp_ckpt_check(comm, path, &info, &found)))
        CHECK(found.step == 1 && found.steps == -1);
    qp_comm_barrier(comm);
}

/* A folder, pipes, a link to nowhere, a foreign file: nothing is waited for, nothing is lost. */
static void test_foreign(qp_comm_t *comm)
{
    const char *folder = folder_for(comm, "foreign");
    char path[400];
    CHECK_OK(write_at(comm, folder, 1, 9, 100));
    if (qp_comm_rank(comm) == 0) {
        static const char *const pipe[] = {"step-000008.h5", "step-000002.h5.part",
                                           "step-000005.h5.part"};
        for (int i = 0; i < 3; i++) {
            snprintf(path, sizeof path, "%s/%s", folder, pipe[i]);
            CHECK(mkfifo(path, 0600) == 0);
        }
        snprintf(path, sizeof path, "%s/step-000002.h5", folder);
        CHECK(mkdir(path, 0700) == 0);
        snprintf(path, sizeof path, "%s/step-000007.h5", folder);
        CHECK(symlink("absent", path) == 0);
        snprintf(path, sizeof path, "%s/step-000006.h5", folder);
        close(open(path, O_CREAT | O_WRONLY, 0666));
    }
    check_latest(comm, folder, 1);
    CHECK_OK(write_at(comm, folder, 2, 9, 100)); /* its name is taken */
    check_latest(comm, folder, 2);
    CHECK_OK(write_at(comm, folder, 3, 1, 100));
    check_latest(comm, folder, 3);
    CHECK(!exists(folder, "step-000001.h5") && exists(folder, "step-000008.h5"));
    qp_comm_barrier(comm);
}

/* Another set of entries than the file has. */
static void test_other_entries(qp_comm_t *comm)
{
    const char *folder = folder_for(comm, "entries");
    CHECK_OK(write_at(comm, folder, 1, 2, 100));
    char path[400];
    snprintf(path, sizeof path, "%s/step-000001.h5", folder);
    int64_t value = 0, step;
    qp_state_t *state = qp_state_create();
    qp_state_register_i64(state, "progress/counter", &value);
    CHECK_FAILS(qp_ckpt_read(comm, path, state, &step), QP_INPUT,
                "/state/adapter/param: a piece of state that this run does not have");
    qp_state_register_i64(state, "progress/new", &value);
    CHECK_FAILS(qp_ckpt_read(comm, path, state, &step), QP_INPUT,
                "no data set /state/progress/new");
    qp_state_destroy(&state);
    qp_comm_barrier(comm);
}

/* Makes a file look like one of another version. */
static void set_version(qp_comm_t *comm, const char *path, int64_t version)
{
    qp_comm_barrier(comm);
    if (qp_comm_rank(comm) == 0) {
        const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        const hid_t attribute = H5Aopen(file, "format_version", H5P_DEFAULT);
        CHECK(H5Awrite(attribute, H5T_NATIVE_INT64, &version) >= 0);
        H5Aclose(attribute);
        H5Fclose(file);
    }
    qp_comm_barrier(comm);
}

/* The state of a later version: one entry more of each kind. */
typedef struct {
    run_t run;
    int64_t count;
    double margin;
    float moment[3];
} later_t;

static qp_state_t *register_later(qp_comm_t *comm, later_t *later, int which, bool ignorable)
{
    qp_state_t *state = register_run(comm, &later->run);
    for (int i = 0; i < 3; i++) {
        if ((which & (1 << i)) == 0)
            continue;
        if (i == 0)
            qp_state_register_i64(state, "later/count", &later->count);
        else if (i == 1)
            qp_state_register_f64(state, "later/margin", &later->margin);
        else
            qp_state_register_f32(state, comm, "later/moment", later->moment, 3);
        qp_state_since(state, QP_CKPT_VERSION);
        if (ignorable)
            qp_state_ignorable(state);
    }
    return state;
}

static qp_error_t write_later(qp_comm_t *comm, char *folder, int64_t step, int which,
                              bool ignorable)
{
    later_t later = {.count = 5, .margin = 0.5, .moment = {1.0f, 2.0f, 3.0f}};
    run_init(comm, &later.run, 100, true);
    qp_state_t *state = register_later(comm, &later, which, ignorable);
    const qp_ckpt_config_t config = {.folder = folder, .keep = 99};
    const qp_ckpt_info_t info = info_at(step);
    qp_error_t error = qp_ckpt_write(comm, &config, &info, state);
    qp_state_destroy(&state);
    run_fini(&later.run);
    return error;
}

/* Reads as a program that has the entries \a which; those in \a found must come back, the others
 * stay as they are. */
static qp_error_t read_later(qp_comm_t *comm, const char *path, int which, int found)
{
    later_t later = {.count = -5, .margin = -0.5, .moment = {-1.0f, -2.0f, -3.0f}};
    int64_t step;
    run_init(comm, &later.run, 100, false);
    qp_state_t *state = register_later(comm, &later, which, false);
    qp_error_t error = qp_ckpt_read(comm, path, state, &step);
    if (error == NULL) {
        CHECK(later.count == (found & 1 ? 5 : -5) && later.margin == (found & 2 ? 0.5 : -0.5));
        CHECK(later.moment[2] == (found & 4 ? 3.0f : -3.0f));
        CHECK(later.run.counter == 42 && later.run.weights[99] == 99.0f * 0.37f);
    }
    qp_state_destroy(&state);
    run_fini(&later.run);
    return error;
}

/* Files of other versions: older ones lack entries, newer ones have more. */
static void test_versions(qp_comm_t *comm)
{
    static const char *const name[] = {"/state/later/count", "/state/later/margin",
                                       "/state/later/moment"};
    char folder[300], path[400];
    snprintf(folder, sizeof folder, "%s", folder_for(comm, "versions"));
    for (int had = 0; had < 8; had++) {
        CHECK_OK(write_later(comm, folder, 1 + had, had, false));
        CHECK_OK(write_later(comm, folder, 11 + had, had, true));
        for (int has = 0; has < 8; has++) {
            int lacks = 0, unknown = 0;
            for (int i = 2; i >= 0; i--) {
                lacks = has & ~had & (1 << i) ? i + 1 : lacks;
                unknown = had & ~has & (1 << i) ? i + 1 : unknown;
            }
            for (int ignorable = 0; ignorable < 2; ignorable++) {
                snprintf(path, sizeof path, "%s/step-%06d.h5", folder, 1 + had + 10 * ignorable);
                set_version(comm, path, QP_CKPT_VERSION); /* not old enough to lack anything */
                if (lacks > 0)
                    CHECK_FAILS(read_later(comm, path, has, had), QP_INPUT, name[lacks - 1]);
                set_version(comm, path, QP_CKPT_VERSION - 1);
                if (unknown > 0 && !ignorable)
                    CHECK_FAILS(read_later(comm, path, has, had), QP_INPUT, name[unknown - 1]);
                else
                    CHECK_OK(read_later(comm, path, has, has & had));
            }
        }
    }
    set_version(comm, path, QP_CKPT_VERSION + 1);
    CHECK_FAILS(read_later(comm, path, 7, 7), QP_INPUT, "version");
    qp_comm_barrier(comm);
}

int main(void)
{
    qp_comm_t *comm = NULL;
    if (CHECK_OK(qp_comm_create(&comm))) {
        qp_log_init(QP_LOG_ERROR, qp_comm_rank(comm)); /* warnings are expected here */
        test_round_trip(comm);
        test_contents_do_not_depend_on_ranks(comm);
        test_bytes_read(comm);
        test_rotation(comm);
        test_refusals(comm);
        test_inputs(comm);
        test_foreign(comm);
        test_other_entries(comm);
        test_versions(comm);
    }
    qp_comm_destroy(&comm);
    return qp_test_end();
}
