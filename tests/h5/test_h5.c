/* QP_TEST: ranks=1,2,3,4
 * HDF5 files written and read by all ranks together: slabs, types, attributes, blobs, checksums. */
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "comm/comm.h"
#include "h5/h5.h"
#include "testing.h"

/* One folder for all ranks: that of rank 0. */
static char *shared_path(qp_comm_t *comm, const char *name)
{
    char folder[256] = {0};
    if (qp_comm_rank(comm) == 0)
        snprintf(folder, sizeof folder, "%s", qp_test_folder());
    qp_comm_bcast(comm, folder, sizeof folder, QP_U8, 0);
    return qp_format("%s/%s", folder, name);
}

enum { N_ROW = 103, N_COL = 7 };

/* Rank 0 owns nothing as soon as there are others. */
static void my_rows(const qp_comm_t *comm, int64_t *first, int64_t *n_row)
{
    int rank = qp_comm_rank(comm), size = qp_comm_size(comm);
    int64_t parts = size > 1 ? size - 1 : 1, part = size > 1 ? rank - 1 : 0, end;
    *first = part < 0 ? 0 : N_ROW * part / parts;
    end = part < 0 ? 0 : N_ROW * (part + 1) / parts;
    *n_row = end - *first;
}

static void write_file(qp_comm_t *comm, const char *path)
{
    qp_h5_t *file = NULL;
    if (!CHECK_OK(qp_h5_create(path, comm, &file)))
        return;
    CHECK_OK(qp_h5_format_set(file, "shard", 3));
    const qp_h5_shape_t shape = {QP_F32, 2, {N_ROW, N_COL}};
    CHECK_OK(qp_h5_dataset_create(file, "/a/b/rows", &shape));
    int64_t first, n_row;
    my_rows(comm, &first, &n_row);
    float *rows = n_row > 0 ? QP_NEW("test", float, n_row *N_COL) : NULL;
    for (int64_t i = 0; i < n_row * N_COL; i++)
        rows[i] = (float)(first * N_COL + i);
    CHECK_OK(qp_h5_write_all(file, "/a/b/rows", QP_F32, first, n_row, rows));
    CHECK(strcmp(qp_h5_path(file), path) == 0);
    float *all = QP_NEW("test", float, N_ROW *N_COL);
    for (int64_t i = 0; i < N_ROW * N_COL; i++)
        all[i] = (float)i;
    CHECK_OK(
        qp_h5_checksum_set(file, "/a/b/rows", qp_hash_bytes(all, sizeof(float) * N_ROW * N_COL)));
    qp_free(rows);
    qp_free(all);
    CHECK_OK(qp_h5_attr_set_i64(file, "/a/b/rows", "count", 7));
    CHECK_OK(qp_h5_attr_set_i64(file, "/a/b/rows", "count", INT64_MIN)); /* replaces */
    CHECK_OK(qp_h5_attr_set_f64(file, "/a", "third", 1.0 / 3.0));
    CHECK_OK(qp_h5_attr_set_str(file, "/", "name", "Grüße"));
    CHECK_OK(qp_h5_attr_set_str(file, "/", "empty", ""));
    CHECK_OK(qp_h5_blob_write(file, "/blob", "five!", 5));
    CHECK_OK(qp_h5_blob_write(file, "/nothing", NULL, 0));
    CHECK_FAILS(qp_h5_dataset_create(file, "/a/b/rows", &shape), QP_IO, "/a/b/rows");
    CHECK_OK(qp_h5_close(&file));
    CHECK(file == NULL);
}

static void check_rows(qp_h5_t *file, qp_comm_t *comm)
{
    int64_t first, n_row;
    my_rows(comm, &first, &n_row);
    float rows[N_ROW * N_COL], last[N_COL];
    memset(rows, 0, sizeof rows);
    CHECK_OK(qp_h5_read_all(file, "a/b/rows", QP_F32, first, n_row, n_row > 0 ? rows : NULL));
    for (int64_t i = 0; i < n_row * N_COL; i++)
        CHECK(rows[i] == (float)(first * N_COL + i));
    /* Rank-local reads need no other rank. */
    if (qp_comm_rank(comm) == 0) {
        CHECK_OK(qp_h5_read(file, "/a/b/rows", QP_F32, N_ROW - 1, 1, last));
        CHECK(last[0] == (float)((N_ROW - 1) * N_COL) &&
              last[N_COL - 1] == (float)(N_ROW * N_COL - 1));
        CHECK_OK(qp_h5_read(file, "/a/b/rows", QP_F32, N_ROW, 0, NULL));
        CHECK_FAILS(qp_h5_read(file, "/a/b/rows", QP_F32, N_ROW - 1, 2, last), QP_INPUT,
                    "rows 102 to 104 wanted, it has 103");
        CHECK_FAILS(qp_h5_read(file, "/a/b/rows", QP_I32, 0, 1, last), QP_INPUT,
                    "stored as fp32, expected int32");
        CHECK_FAILS(qp_h5_read(file, "/a/c/rows", QP_I32, 0, 1, last), QP_INPUT,
                    "no data set /a/c/rows");
    }
    /* One rank's bad request is everyone's error, before anything is moved. */
    int64_t beyond = qp_comm_rank(comm) == qp_comm_size(comm) - 1 ? N_ROW : 0;
    CHECK_FAILS(qp_h5_read_all(file, "a/b/rows", QP_F32, beyond, 1, rows), QP_INPUT,
                "rows 103 to 104 wanted");
}

static void check_attributes(const qp_h5_t *file)
{
    int64_t i = 0;
    double f = 0.0;
    char *s = NULL;
    CHECK_OK(qp_h5_attr_get_i64(file, "/a/b/rows", "count", &i));
    CHECK(i == INT64_MIN);
    CHECK_OK(qp_h5_attr_get_f64(file, "/a", "third", &f));
    CHECK(f == 1.0 / 3.0);
    CHECK_OK(qp_h5_attr_get_str(file, "/", "name", &s));
    CHECK(s != NULL && strcmp(s, "Grüße") == 0);
    qp_free(s);
    CHECK_OK(qp_h5_attr_get_str(file, "/", "empty", &s));
    CHECK(s != NULL && s[0] == '\0');
    qp_free(s);
    CHECK(qp_h5_attr_exists(file, "/a", "third") && !qp_h5_attr_exists(file, "/a", "fourth"));
    CHECK(!qp_h5_attr_exists(file, "/z/y", "third"));
    CHECK_FAILS(qp_h5_attr_get_i64(file, "/a", "third", &i), QP_INPUT, "third is not one integer");
    CHECK_FAILS(qp_h5_attr_get_str(file, "/a", "third", &s), QP_INPUT, "third is not a string");
    CHECK_FAILS(qp_h5_attr_get_i64(file, "/a", "fourth", &i), QP_INPUT, "no attribute fourth");
}

static void check_contents(const qp_h5_t *file)
{
    CHECK(qp_h5_exists(file, "/") && qp_h5_exists(file, "/a/b") && qp_h5_exists(file, "a/b/rows"));
    CHECK(!qp_h5_exists(file, "/a/x/rows") && !qp_h5_exists(file, "/x"));
    char **names = NULL;
    int64_t n_name = 0;
    CHECK_OK(qp_h5_list(file, "/", &names, &n_name));
    CHECK(n_name == 3 && strcmp(names[0], "a") == 0 && strcmp(names[1], "blob") == 0 &&
          strcmp(names[2], "nothing") == 0);
    qp_h5_list_free(&names, n_name);
    CHECK_OK(qp_h5_list_datasets(file, &names, &n_name));
    CHECK(n_name == 3 && strcmp(names[0], "/a/b/rows") == 0 && strcmp(names[2], "/nothing") == 0);
    qp_h5_list_free(&names, n_name);
    CHECK_FAILS(qp_h5_list(file, "/x", &names, &n_name), QP_INPUT, "/x");
    qp_h5_shape_t shape;
    CHECK_OK(qp_h5_dataset_shape(file, "/a/b/rows", &shape));
    CHECK(shape.dtype == QP_F32 && shape.n_dim == 2 && shape.dim[0] == N_ROW &&
          shape.dim[1] == N_COL);
    void *data = NULL;
    size_t n_bytes = 0;
    CHECK_OK(qp_h5_blob_read(file, "/blob", &data, &n_bytes));
    CHECK(n_bytes == 5 && memcmp(data, "five!", 6) == 0);
    qp_free(data);
    CHECK_OK(qp_h5_blob_read(file, "/nothing", &data, &n_bytes));
    CHECK(n_bytes == 0 && data != NULL);
    qp_free(data);
    CHECK_FAILS(qp_h5_blob_read(file, "/a/b/rows", &data, &n_bytes), QP_INPUT, "2 dimensions");
    CHECK_OK(qp_h5_checksum_verify(file, "/a/b/rows"));
    CHECK_OK(qp_h5_verify(file));
    CHECK_OK(qp_h5_format_check(file, "shard", 3));
    CHECK_FAILS(qp_h5_format_check(file, "base", 3), QP_INPUT, "is a shard, expected a base");
    CHECK_FAILS(qp_h5_format_check(file, "shard", 2), QP_INPUT, "format version 3");
}

static void test_file(qp_comm_t *comm)
{
    char *path = shared_path(comm, "file.h5");
    write_file(comm, path);
    qp_comm_t *const openers[] = {comm, NULL};
    for (int i = 0; i < 2; i++) {
        qp_h5_t *file = NULL;
        if (!CHECK_OK(qp_h5_open(path, openers[i], &file)))
            continue;
        if (openers[i] != NULL)
            check_rows(file, comm);
        check_attributes(file);
        check_contents(file);
        CHECK_OK(qp_h5_close(&file));
    }
    qp_free(path);
}

/* Whichever of the data sets is damaged, the file is. */
static void test_damage_anywhere(qp_comm_t *comm)
{
    static const char *const name[] = {"/first", "/middle", "/last"};
    const uint8_t data[4] = {1, 2, 3, 4};
    const int64_t n = qp_comm_rank(comm) == 0 ? 4 : 0;
    for (int bad = 0; bad < 3; bad++) {
        char *path = shared_path(comm, "damaged.h5");
        qp_h5_t *file = NULL;
        CHECK_OK(qp_h5_create(path, comm, &file));
        for (int i = 0; i < 3; i++) {
            const qp_h5_shape_t shape = {QP_U8, 1, {4}};
            CHECK_OK(qp_h5_dataset_create(file, name[i], &shape));
            CHECK_OK(qp_h5_write_all(file, name[i], QP_U8, 0, n, data));
            CHECK_OK(qp_h5_checksum_set(file, name[i], qp_hash_bytes(data, 4) + (i == bad)));
        }
        CHECK_OK(qp_h5_close(&file));
        CHECK_OK(qp_h5_open(path, NULL, &file));
        CHECK_FAILS(qp_h5_verify(file), QP_INPUT, name[bad]);
        CHECK_OK(qp_h5_close(&file));
        qp_comm_barrier(comm);
        qp_free(path);
    }
}

static void test_all_types(qp_comm_t *comm)
{
    char *path = shared_path(comm, "types.h5");
    uint8_t out[16], in[16];
    for (uint8_t i = 0; i < 16; i++)
        out[i] = (uint8_t)(17 * i);
    qp_h5_t *file = NULL;
    if (CHECK_OK(qp_h5_create(path, comm, &file)))
        for (int t = 0; t < QP_N_DTYPE; t++) {
            const qp_h5_shape_t shape = {(qp_dtype_t)t, 1, {2}};
            CHECK_OK(qp_h5_dataset_create(file, qp_dtype_name((qp_dtype_t)t), &shape));
            int64_t n = qp_comm_rank(comm) == 0 ? 2 : 0;
            CHECK_OK(qp_h5_write_all(file, qp_dtype_name((qp_dtype_t)t), (qp_dtype_t)t, 0, n, out));
        }
    CHECK_OK(qp_h5_close(&file));
    if (CHECK_OK(qp_h5_open(path, comm, &file)))
        for (int t = 0; t < QP_N_DTYPE; t++) {
            qp_h5_shape_t shape;
            CHECK_OK(qp_h5_dataset_shape(file, qp_dtype_name((qp_dtype_t)t), &shape));
            CHECK_MSG(shape.dtype == (qp_dtype_t)t, "%s", qp_dtype_name((qp_dtype_t)t));
            CHECK_OK(qp_h5_read_all(file, qp_dtype_name((qp_dtype_t)t), (qp_dtype_t)t, 0, 2, in));
            CHECK(memcmp(in, out, 2 * qp_dtype_bytes((qp_dtype_t)t)) == 0);
        }
    CHECK_OK(qp_h5_close(&file));
    CHECK_OK(qp_h5_close(&file)); /* nothing to do */
    qp_free(path);
}

static void test_failing_opens(qp_comm_t *comm)
{
    qp_h5_t *file = NULL;
    char *path = shared_path(comm, "absent.h5");
    CHECK_FAILS(qp_h5_open(path, comm, &file), QP_INPUT,
                "absent.h5: cannot be opened: No such file");
    CHECK_FAILS(qp_h5_open(path, NULL, &file), QP_INPUT,
                "absent.h5: cannot be opened: No such file");
    qp_free(path);
    path = shared_path(comm, "no/such/folder.h5");
    CHECK_FAILS(qp_h5_create(path, comm, &file), QP_IO, "no/such/folder.h5");
    CHECK_FAILS(qp_h5_create(path, NULL, &file), QP_IO, "no/such/folder.h5");
    qp_free(path);
    CHECK_FAILS(qp_h5_open("/tmp", comm, &file), QP_INPUT, "/tmp: not a regular file");
    CHECK_FAILS(qp_h5_open(qp_test_source("tests/h5/test_h5.c"), comm, &file), QP_INPUT,
                "test_h5.c: not an HDF5 file");
    CHECK(file == NULL);
}

/* A full disk while this process writes alone: an error, and a clean close and end of the process.
 */
static void test_failing_writes(void)
{
    enum { N = 200000 };
    const rlim_t limits[] = {0, 40, 1000, N, 2 * N + 2000};
    struct rlimit old, small;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    char *path = qp_format("%s/full.h5", qp_test_folder()), *data = qp_alloc("test", N);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        small.rlim_cur = limits[i];
        setrlimit(RLIMIT_FSIZE, &small);
        qp_h5_t *file = NULL;
        qp_error_t error = qp_h5_create(path, NULL, &file);
        for (int k = 0; k < 4 && error == NULL; k++) {
            char name[2] = {(char)('a' + k), '\0'};
            const qp_h5_shape_t shape = {QP_U8, 1, {N}};
            error = qp_h5_dataset_create(file, name, &shape);
            if (error == NULL)
                error = qp_h5_write(file, name, QP_U8, 0, N, data);
        }
        qp_error_t closing = qp_h5_close(&file);
        setrlimit(RLIMIT_FSIZE, &old);
        if (error == NULL) { /* HDF5 kept it all in memory until the end */
            error = closing;
            closing = NULL;
        }
        CHECK_FAILS(error, QP_IO, "full.h5: File too large");
        qp_error_destroy(&closing);
        CHECK(file == NULL);
    }
    qp_free(path);
    qp_free(data);
}

int main(void)
{
    qp_comm_t *comm = NULL;
    if (CHECK_OK(qp_comm_create(&comm))) {
        test_file(comm);
        test_damage_anywhere(comm);
        test_all_types(comm);
        test_failing_opens(comm);
        if (qp_comm_rank(comm) == 0)
            test_failing_writes();
        qp_comm_barrier(comm); /* the folder goes with rank 0 */
    }
    qp_comm_destroy(&comm);
    return qp_test_end();
}
