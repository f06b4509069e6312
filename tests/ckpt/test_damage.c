/* QP_TEST: ranks=1,2,3,4
 * Checkpoints that were damaged, or that could not be written or taken. */
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/log.h"
#include "h5/h5.h"
#include "ckpt_testing.h"

static qp_error_t get_nothing(void *owner, void *slab)
{
    (void)owner;
    (void)slab;
    return QP_ERROR(QP_INTERNAL, "the device is gone");
}

/* --- damage ----------------------------------------------------------------------------------- */

static int64_t size_of(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? (int64_t)status.st_size : -1;
}

static void flip_bit(const char *path, int64_t byte)
{
    int fd = open(path, O_RDWR);
    uint8_t value = 0;
    CHECK(pread(fd, &value, 1, (off_t)byte) == 1);
    value ^= 0x10;
    CHECK(pwrite(fd, &value, 1, (off_t)byte) == 1);
    close(fd);
}

/* The newest file loses its tail: passed over, and refused when named. */
static void test_truncated(qp_comm_t *comm)
{
    const char *folder = folder_for(comm, "truncated");
    CHECK_OK(write_at(comm, folder, 1, 5, 1000));
    CHECK_OK(write_at(comm, folder, 2, 5, 1000));
    char path[400];
    snprintf(path, sizeof path, "%s/step-000002.h5", folder);
    const int64_t lost[] = {1, 500, 1 << 20};
    const qp_ckpt_info_t info = info_at(0);
    for (int i = 0; i < 3; i++) {
        int64_t size = size_of(path) - lost[i];
        qp_comm_barrier(comm);
        if (qp_comm_rank(comm) == 0)
            CHECK(truncate(path, size > 0 ? (off_t)size : 0) == 0);
        check_latest(comm, folder, 1);
        int64_t step;
        bool right;
        CHECK_FAILS(read_from(comm, path, &info, 1000, &step, &right), QP_INPUT, path);
    }
    qp_comm_barrier(comm);
}

/* A bit anywhere in the newest file: either it does not matter to what is read, or it is refused.
 */
static void test_flipped_bits(qp_comm_t *comm)
{
    const char *folder = folder_for(comm, "flipped");
    CHECK_OK(write_at(comm, folder, 1, 5, 300));
    CHECK_OK(write_at(comm, folder, 2, 5, 300));
    char path[400];
    snprintf(path, sizeof path, "%s/step-000002.h5", folder);
    const qp_ckpt_info_t info = info_at(0);
    int64_t size = size_of(path), n_refused = 0, n_try = 40;
    qp_comm_barrier(comm);
    for (int64_t i = 0; i < n_try; i++) {
        int64_t byte = size * i / n_try, step;
        bool right = false;
        if (qp_comm_rank(comm) == 0)
            flip_bit(path, byte);
        qp_comm_barrier(comm);
        qp_error_t error = read_from(comm, path, &info, 300, &step, &right);
        n_refused += error != NULL;
        CHECK_MSG(error != NULL || (right && step == 2), "a flipped bit in byte %lld went unseen",
                  (long long)byte);
        if (error != NULL)
            CHECK_FAILS(error, QP_INPUT, path);
        qp_comm_barrier(comm);
        if (qp_comm_rank(comm) == 0)
            flip_bit(path, byte); /* back */
        qp_comm_barrier(comm);
    }
    CHECK_MSG(n_refused > n_try / 4, "only %lld of %lld flips refused", (long long)n_refused,
              (long long)n_try);
    /* One in the data: the file opens and is complete, its checksum tells. */
    qp_h5_t *file = NULL;
    CHECK_OK(qp_ckpt_verify(path));
    check_latest(comm, folder, 2);
    CHECK_OK(qp_h5_open(path, NULL, &file));
    CHECK_OK(qp_h5_close(&file));
}

/* Whole but for the mark: the writer was killed before the end. */
static void test_incomplete(qp_comm_t *comm)
{
    const char *folder = folder_for(comm, "incomplete");
    CHECK_OK(write_at(comm, folder, 1, 5, 100));
    char path[400];
    snprintf(path, sizeof path, "%s/step-000009.h5", folder);
    qp_h5_t *file = NULL;
    if (CHECK_OK(qp_h5_create(path, comm, &file))) {
        CHECK_OK(qp_h5_format_set(file, "checkpoint", 1));
        CHECK_OK(qp_h5_attr_set_i64(file, "/", "step", 9));
    }
    CHECK_OK(qp_h5_close(&file));
    check_latest(comm, folder, 1);
    const qp_ckpt_info_t info = info_at(0);
    int64_t step;
    bool right;
    CHECK_FAILS(read_from(comm, path, &info, 100, &step, &right), QP_INPUT,
                "incomplete: its writing was interrupted");
}

/* --- failed writes ---------------------------------------------------------------------------- */

/* The older checkpoint is untouched, nothing is left of the failed one, and the next one works. */
static void check_survival(qp_comm_t *comm, const char *folder, int64_t n)
{
    CHECK(!exists(folder, "step-000002.h5") && !exists(folder, "step-000002.h5.part"));
    check_latest(comm, folder, 1);
    char path[400];
    snprintf(path, sizeof path, "%s/step-000001.h5", folder);
    const qp_ckpt_info_t info = info_at(0);
    int64_t step;
    bool right = false;
    CHECK_OK(read_from(comm, path, &info, n, &step, &right));
    CHECK(right);
    qp_comm_barrier(comm);
}

/* Files may not grow beyond a limit: too small for the header, for the structure, for the data. */
static void test_file_size_limit(qp_comm_t *comm)
{
    enum { N = 400000 };
    const char *folder = folder_for(comm, "limit");
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    const int64_t limits[] = {0, 1000, 100000, 1500000};
    for (int i = 0; i < 8; i++) { /* on every rank, then on the last one only */
        bool limited = i < 4 || qp_comm_rank(comm) == qp_comm_size(comm) - 1;
        CHECK_OK(write_at(comm, folder, 1, 5, N));
        small.rlim_cur = (rlim_t)limits[i % 4];
        if (limited)
            setrlimit(RLIMIT_FSIZE, &small);
        qp_error_t error = write_at(comm, folder, 2, 5, N);
        setrlimit(RLIMIT_FSIZE, &old);
        CHECK_FAILS(error, QP_IO, "step-000002.h5");
        check_survival(comm, folder, N);
    }
}

/* Fills a file system with one file until so many bytes are free. */
static void leave_room(const char *folder, const char *filler, int64_t room)
{
    struct statvfs fs;
    CHECK(statvfs(folder, &fs) == 0);
    int64_t length = (int64_t)(fs.f_bavail * fs.f_frsize) - room;
    int fd = open(filler, O_CREAT | O_WRONLY, 0666);
    CHECK(length <= 0 || fallocate(fd, 0, 0, (off_t)length) == 0);
    close(fd);
}

static void remove_step(const char *folder, int step)
{
    char path[400];
    snprintf(path, sizeof path, "%s/step-%06d.h5", folder, step);
    unlink(path);
}

/* Every size of disk from too small for the header to nearly enough. */
static void test_full_disk(qp_comm_t *comm)
{
    enum { N = 100000 };
    const char *folder = folder_for(comm, "disk");
    bool mine = qp_comm_rank(comm) == 0;
    uint64_t cannot = 0;
    if (mine) {
        CHECK(mkdir(folder, 0777) == 0);
        cannot = mount("tmpfs", folder, "tmpfs", 0, "size=8m") != 0;
    }
    if (qp_comm_agree_bits(comm, cannot) != 0) {
        qp_log_info("full disk: not tested, no right to mount");
        return;
    }
    char filler[400];
    snprintf(filler, sizeof filler, "%s/filler", folder);
    CHECK_OK(write_at(comm, folder, 1, 5, N));
    int n_failed = 0, n_done = 0;
    for (int64_t room = 0; room < 3 << 20; room += 200000) {
        if (mine)
            leave_room(folder, filler, room);
        qp_comm_barrier(comm);
        qp_error_t error = write_at(comm, folder, 2, 5, N);
        if (error != NULL) {
            CHECK_FAILS(error, QP_IO, "step-000002.h5");
            check_survival(comm, folder, N);
        }
        n_failed += error != NULL;
        n_done += error == NULL;
        qp_comm_barrier(comm);
        if (mine) {
            unlink(filler);
            remove_step(folder, 2);
        }
    }
    CHECK(n_failed > 3 && n_done > 3);
    qp_comm_barrier(comm);
    if (mine)
        CHECK(umount(folder) == 0);
}

static void test_failing_owner(qp_comm_t *comm)
{
    const char *folder = folder_for(comm, "owner");
    int last = qp_comm_size(comm) - 1, mine = qp_comm_rank(comm) == last;
    const qp_state_entry_t entry = {.name = "broken",
                                    .dtype = QP_F32,
                                    .n_global = 4,
                                    .n_mine = mine ? 4 : 0,
                                    .get = get_nothing};
    qp_state_t *state = qp_state_create();
    qp_state_register(state, &entry);
    char path[300];
    snprintf(path, sizeof path, "%s", folder);
    const qp_ckpt_config_t config = {.folder = path, .keep = 2};
    const qp_ckpt_info_t info = info_at(1);
    CHECK_FAILS(qp_ckpt_write(comm, &config, &info, state), QP_INTERNAL,
                "/state/broken: the device is gone");
    CHECK(!exists(folder, "step-000001.h5.part"));
    qp_state_destroy(&state);
    qp_comm_barrier(comm);
}

static qp_error_t put_nothing(void *owner, const void *data)
{
    (void)data;
    return *(const bool *)owner ? QP_ERROR(QP_INTERNAL, "the device is full") : NULL;
}

/* One rank cannot take what it is given: all hear of it. */
static void test_failing_put(qp_comm_t *comm)
{
    const char *folder = folder_for(comm, "put");
    CHECK_OK(write_at(comm, folder, 1, 2, 100));
    char path[400];
    snprintf(path, sizeof path, "%s/step-000001.h5", folder);
    run_t run;
    int64_t step;
    bool mine = qp_comm_rank(comm) == qp_comm_size(comm) - 1;
    run_init(comm, &run, 100, false);
    qp_state_t *state = qp_state_create();
    qp_state_entry_t entry = {.name = "table",
                              .dtype = QP_BF16,
                              .n_global = 100,
                              .get = get_table,
                              .put = put_nothing,
                              .owner = &mine};
    qp_state_register(state, &entry);
    qp_state_register_f32(state, comm, "adapter/param", run.weights, run.n);
    qp_state_register_i64(state, "progress/counter", &run.counter);
    qp_state_register_f64(state, "progress/loss", &run.loss);
    CHECK_FAILS(qp_ckpt_read(comm, path, state, &step), QP_INTERNAL, "the device is full");
    qp_state_destroy(&state);
    run_fini(&run);
    qp_comm_barrier(comm);
}

int main(void)
{
    qp_comm_t *comm = NULL;
    if (CHECK_OK(qp_comm_create(&comm))) {
        qp_log_init(QP_LOG_ERROR, qp_comm_rank(comm)); /* warnings are expected here */
        test_truncated(comm);
        test_flipped_bits(comm);
        test_incomplete(comm);
        test_file_size_limit(comm);
        test_full_disk(comm);
        test_failing_owner(comm);
        test_failing_put(comm);
    }
    qp_comm_destroy(&comm);
    return qp_test_end();
}
