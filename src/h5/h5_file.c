/* Opening, creating and closing files; what they contain; the lock. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/activity.h"
#include "base/str.h"
#include "comm/mpi_check.h"
#include "h5/h5_impl.h"

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

int qp_h5_lock(void)
{
    pthread_mutex_lock(&lock);
    return 0;
}

void qp_h5_unlock(const int *locked)
{
    (void)locked;
    pthread_mutex_unlock(&lock);
}

/* Keeps the description of the innermost entry of HDF5's error stack. */
static herr_t innermost(unsigned n, const H5E_error2_t *entry, void *text)
{
    if (n == 0)
        qp_str_puts(text, entry->desc);
    return 0;
}

qp_error_t qp_h5_check(const qp_h5_t *file, const char *object, bool failed,
                       const char *source_file, int line)
{
    if (!failed)
        return NULL;
    qp_str_t text = {0};
    if (H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, &text) < 0 || text.n == 0)
        qp_str_puts(&text, "HDF5 failed without a reason");
    const char *separator = object != NULL ? ": " : "";
    qp_error_t error =
        qp_error_create(file->writable ? QP_IO : QP_INPUT, source_file, line, "%s%s%s: %s",
                        file->path, separator, object != NULL ? object : "", text.data);
    qp_str_fini(&text);
    return error;
}

qp_error_t qp_h5_release(const qp_h5_t *file, const char *object, hid_t id, qp_error_t error)
{
    if (id < 0)
        return error;
    return qp_error_first(error, QP_H5(file, object, H5Idec_ref(id)));
}

qp_error_t qp_h5_agree(const qp_h5_t *file, qp_error_t local)
{
    return file->comm != NULL ? qp_comm_agree(file->comm, local) : local;
}

static qp_h5_t *new_file(const char *path, qp_comm_t *comm, bool writable)
{
    qp_h5_t *file = QP_NEW("h5", qp_h5_t, 1);
    *file = (qp_h5_t){.id = -1, .path = qp_strdup(path), .comm = comm, .writable = writable};
    return file;
}

static void free_file(qp_h5_t **file)
{
    qp_free((*file)->path);
    QP_FREE(*file);
}

static int64_t changed_ns(const struct stat *status)
{
    return (int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec;
}

static void stamp(qp_h5_t *file, const struct stat *status)
{
    file->n_bytes = (int64_t)status->st_size;
    file->changed_ns = changed_ns(status);
}

/* What HDF5 would report late, or not at all on the ranks that can see the file. */
static qp_error_t check_readable(qp_h5_t *file)
{
    static const char signature[8] = "\211HDF\r\n\032\n";
    char start[sizeof signature] = {0};
    int fd;
    QP_TRY(qp_file_open(file->path, &fd));
    qp_error_t error = NULL;
    struct stat status;
    if (fstat(fd, &status) != 0)
        error = QP_ERROR(QP_INPUT, "%s: %s", file->path, strerror(errno));
    else if (pread(fd, start, sizeof start, 0) != sizeof start ||
             memcmp(start, signature, sizeof start) != 0)
        error = QP_ERROR(QP_INPUT, "%s: not an HDF5 file", file->path);
    else
        stamp(file, &status);
    close(fd);
    return error;
}

/* Which driver, and how to open. */
typedef enum { CREATE, READ, REOPEN } purpose_t;

/* The formats since HDF5 1.8 have checksums over all metadata, so no flipped bit goes unseen. */
static qp_error_t set_access(const qp_h5_t *file, hid_t access, hid_t *driver)
{
    QP_TRY(QP_H5(file, NULL, H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST)));
    QP_TRY(QP_H5(file, NULL, H5Pset_fclose_degree(access, H5F_CLOSE_STRONG)));
    /* Locks fail on many cluster file systems, and protect nothing here. */
    QP_TRY(QP_H5(file, NULL, H5Pset_file_locking(access, false, true)));
    if (file->shared)
        return QP_H5(
            file, NULL,
            H5Pset_fapl_mpio(access, *(const MPI_Comm *)qp_comm_mpi(file->comm), MPI_INFO_NULL));
    return file->writable ? qp_h5_set_latch(file, access, driver) : NULL;
}

void qp_h5_wait_begin(const qp_h5_t *file)
{
    if (file->shared)
        qp_activity_wait_begin();
}

void qp_h5_wait_end(const qp_h5_t *file)
{
    if (file->shared)
        qp_activity_wait_end();
    else
        qp_activity_mark();
}

/* Opens file->id as file->shared says. */
static qp_error_t open_id(qp_h5_t *file, purpose_t purpose)
{
    hid_t access = -1, driver = -1;
    qp_error_t error;
    qp_h5_wait_begin(file);
    if (file->writable && file->shared)
        qp_h5_latch_mpio(&file->failure);
    QP_TRY_DONE(QP_H5(file, NULL, H5Eset_auto2(H5E_DEFAULT, NULL, NULL)));
    QP_TRY_DONE(QP_H5(file, NULL, access = H5Pcreate(H5P_FILE_ACCESS)));
    QP_TRY_DONE(set_access(file, access, &driver));
    if (purpose == CREATE)
        file->id = H5Fcreate(file->path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    else
        file->id = H5Fopen(file->path, purpose == READ ? H5F_ACC_RDONLY : H5F_ACC_RDWR, access);
    error = qp_h5_latched(file, NULL); /* says more than HDF5 does */
    if (error == NULL)
        error = QP_H5(file, NULL, file->id);
done:
    qp_h5_wait_end(file);
    error = qp_h5_release(file, NULL, driver, error);
    return qp_h5_release(file, NULL, access, error);
}

/* Opens on all ranks together, or on those that have to. */
static qp_error_t open_agreed(qp_h5_t *file, purpose_t purpose)
{
    bool mine = file->shared || qp_h5_is_builder(file);
    qp_error_t error = qp_h5_agree(file, mine ? open_id(file, purpose) : NULL);
    if (error != NULL && file->shared && file->id >= 0) {
        /* Closing is collective, and others have not opened. */
        qp_log_error_here("%s", error->message);
        qp_comm_abort(file->comm, (int)error->code);
    }
    return error;
}

static qp_error_t close_id(qp_h5_t *file)
{
    if (file->id < 0)
        return NULL;
    hid_t id = file->id;
    file->id = -1;
    qp_h5_wait_begin(file);
    qp_error_t error = QP_H5(file, NULL, H5Fclose(id));
    qp_h5_wait_end(file);
    if (file->shared)
        qp_h5_latch_mpio(NULL);
    return qp_h5_latched(file, error);
}

bool qp_h5_is_builder(const qp_h5_t *file)
{
    return file->comm == NULL || qp_comm_rank(file->comm) == 0;
}

qp_error_t qp_h5_latched(const qp_h5_t *file, qp_error_t error)
{
    if (error != NULL || file->failure == 0)
        return error;
    return QP_ERROR(QP_IO, "%s: %s", file->path, strerror(file->failure));
}

static qp_error_t start(qp_h5_t *file, purpose_t purpose, qp_h5_t **out)
{
    qp_error_t error = qp_h5_agree(file, purpose == READ ? check_readable(file) : NULL);
    file->shared = purpose == READ && file->comm != NULL;
    if (error == NULL)
        error = open_agreed(file, purpose);
    if (error != NULL) {
        error = qp_error_first(error, close_id(file));
        free_file(&file);
    }
    *out = file;
    return error;
}

qp_error_t qp_h5_open(const char *path, qp_comm_t *comm, qp_h5_t **file)
{
    QP_H5_LOCKED();
    return start(new_file(path, comm, false), READ, file);
}

qp_error_t qp_h5_create(const char *path, qp_comm_t *comm, qp_h5_t **file)
{
    QP_H5_LOCKED();
    return start(new_file(path, comm, true), CREATE, file);
}

/* Syncs what this process has written by path; MPI-IO has synced the other ranks' in its flush. */
static qp_error_t sync_file(const qp_h5_t *file)
{
    int fd = open(file->path, O_RDWR | O_CLOEXEC);
    qp_error_t error = NULL;
    if (fd < 0 || fsync(fd) != 0)
        error = QP_ERROR(QP_IO, "%s: fsync: %s", file->path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return error;
}

qp_error_t qp_h5_flush(qp_h5_t *file)
{
    QP_H5_LOCKED();
    qp_error_t error = NULL;
    qp_h5_wait_begin(file);
    if (file->id >= 0)
        error = qp_h5_latched(file, QP_H5(file, NULL, H5Fflush(file->id, H5F_SCOPE_LOCAL)));
    qp_h5_wait_end(file);
    if (error == NULL && qp_h5_is_builder(file))
        error = sync_file(file);
    return qp_h5_agree(file, error);
}

/* A limit that would fail this rank inside collective calls, where the others wait for it. */
static qp_error_t check_limit(const qp_h5_t *file)
{
    struct stat status;
    struct rlimit limit;
    if (stat(file->path, &status) != 0)
        return QP_ERROR(QP_IO, "%s: %s", file->path, strerror(errno));
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < (rlim_t)status.st_size)
        return QP_ERROR(QP_IO, "%s: has %lld bytes, this process may write %lld (ulimit -f)",
                        file->path, (long long)status.st_size, (long long)limit.rlim_cur);
    return NULL;
}

static qp_error_t change_state(qp_h5_t *file, bool shared)
{
    if (file->comm == NULL || file->shared == shared)
        return NULL;
    qp_error_t error = file->shared ? qp_h5_flush(file) : NULL;
    error = qp_error_first(error, qp_h5_agree(file, close_id(file)));
    file->shared = shared;
    if (error == NULL)
        error = qp_h5_agree(file, check_limit(file));
    return error != NULL ? error : open_agreed(file, REOPEN);
}

qp_error_t qp_h5_enter_structure(qp_h5_t *file)
{
    return change_state(file, false);
}

qp_error_t qp_h5_enter_data(qp_h5_t *file)
{
    return change_state(file, true);
}

qp_error_t qp_h5_close(qp_h5_t **out)
{
    qp_h5_t *file = *out;
    if (file == NULL)
        return NULL;
    QP_H5_LOCKED();
    qp_error_t error = file->writable && file->shared ? qp_h5_flush(file) : NULL;
    error = qp_error_first(error, close_id(file));
    if (error == NULL && file->writable && qp_h5_is_builder(file))
        error = sync_file(file);
    error = qp_h5_agree(file, error);
    free_file(out);
    return error;
}

/* Of the file that is open, whatever its name stands for now. */
static bool status_of(const qp_h5_t *file, struct stat *status)
{
    void *handle = NULL; /* of the serial driver: a descriptor */
    return !file->shared && H5Fget_vfd_handle(file->id, H5P_DEFAULT, &handle) >= 0 &&
           fstat(*(const int *)handle, status) == 0;
}

bool qp_h5_is_touched(const qp_h5_t *file)
{
    QP_H5_LOCKED();
    struct stat status;
    return !status_of(file, &status) || (int64_t)status.st_size != file->n_bytes ||
           changed_ns(&status) != file->changed_ns;
}

void qp_h5_note(qp_h5_t *file)
{
    QP_H5_LOCKED();
    struct stat status;
    if (status_of(file, &status))
        stamp(file, &status);
}

const char *qp_h5_path(const qp_h5_t *file)
{
    return file->path;
}

int qp_h5_lookup(const qp_h5_t *file, const char *name)
{
    QP_H5_LOCKED();
    /* H5Lexists wants every group on the way to exist. */
    char *path = qp_strdup(name);
    int found = 1;
    for (char *end = path; found > 0 && *end != '\0';) {
        end += strspn(end, "/");
        end += strcspn(end, "/");
        char next = *end;
        *end = '\0';
        if (strspn(path, "/") < strlen(path))
            found = H5Lexists(file->id, path, H5P_DEFAULT);
        *end = next;
    }
    qp_free(path);
    return found;
}

bool qp_h5_exists(const qp_h5_t *file, const char *name)
{
    return qp_h5_lookup(file, name) > 0;
}

typedef struct {
    char **name;
    int64_t n, capacity;
} names_t;

static void add_name(names_t *names, char *name)
{
    if (names->n == names->capacity) {
        names->capacity = 2 * names->capacity + 16;
        names->name = qp_realloc("h5", names->name, qp_bytes(names->capacity, sizeof(char *)));
    }
    names->name[names->n++] = name;
}

void qp_h5_list_free(char ***names, int64_t n_name)
{
    for (int64_t i = 0; i < n_name; i++)
        qp_free((*names)[i]);
    QP_FREE(*names);
}

/* Hands the names to the caller, or frees them after an error. */
static qp_error_t give_names(names_t *names, qp_error_t error, char ***out, int64_t *n_name)
{
    if (error != NULL) {
        qp_h5_list_free(&names->name, names->n);
        names->n = 0;
    }
    *out = names->name;
    *n_name = names->n;
    return error;
}

static herr_t add_link(hid_t group, const char *name, const H5L_info_t *info, void *names)
{
    (void)group;
    (void)info;
    add_name(names, qp_strdup(name));
    return 0;
}

qp_error_t qp_h5_list(const qp_h5_t *file, const char *group, char ***out, int64_t *n_name)
{
    QP_H5_LOCKED();
    names_t names = {0};
    hid_t id = -1;
    qp_error_t error;
    QP_TRY_DONE(QP_H5(file, group, id = H5Gopen2(file->id, group, H5P_DEFAULT)));
    QP_TRY_DONE(
        QP_H5(file, group, H5Literate(id, H5_INDEX_NAME, H5_ITER_INC, NULL, add_link, &names)));
done:
    error = qp_h5_release(file, group, id, error);
    return give_names(&names, error, out, n_name);
}

static herr_t add_dataset(hid_t root, const char *name, const H5L_info_t *info, void *names)
{
    (void)info;
    hid_t id = H5Oopen(root, name, H5P_DEFAULT);
    if (id < 0)
        return -1;
    if (H5Iget_type(id) == H5I_DATASET)
        add_name(names, qp_format("/%s", name));
    return H5Oclose(id);
}

qp_error_t qp_h5_list_datasets(const qp_h5_t *file, char ***out, int64_t *n_name)
{
    QP_H5_LOCKED();
    names_t names = {0};
    qp_error_t error =
        QP_H5(file, "/", H5Lvisit(file->id, H5_INDEX_NAME, H5_ITER_INC, add_dataset, &names));
    return give_names(&names, error, out, n_name);
}
