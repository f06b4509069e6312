/*
 * Node-shared memory. Open MPI keeps the segments of MPI_Win_allocate_shared in /dev/shm, and a
 * full /dev/shm means SIGBUS, not an error. So its room is looked at first; where it is too small,
 * the first rank of the node makes a memfd and the others open it through /proc/PID/fd/N; each rank
 * reserves its own stripe of it, so that shortage is an error here. A rank alone on its node takes
 * memory of its own, in large pages. Nothing is written here: clearing pages takes time that is
 * better spent while the file is being read, and who fills them gets them from the memory next to
 * it. The kernel frees all kinds however the job ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/env.h"
#include "base/mem.h"
#include "base/str.h"
#include "comm/comm_impl.h"

enum { PAGE = 4096 };

/* Left free in /dev/shm for MPI's own queues. */
static const uint64_t SHM_MARGIN = (uint64_t)64 << 20;

struct qp_shared {
    const char *label;
    size_t bytes;
    bool counted; /* under label, by the node's first rank */
    void *data;
    MPI_Win window;      /* MPI_WIN_NULL: data is a mapping */
    size_t mapped_bytes; /* of that mapping */
};

/* This rank's share of the block, in whole pages. */
static void stripe(const qp_comm_t *comm, size_t bytes, size_t *offset, size_t *n_bytes)
{
    size_t n_page = (bytes + PAGE - 1) / PAGE, n = (size_t)comm->node_size;
    size_t first = n_page * (size_t)comm->node_rank / n * PAGE;
    size_t end = n_page * ((size_t)comm->node_rank + 1) / n * PAGE;
    end = end < bytes ? end : bytes;
    *offset = first;
    *n_bytes = end > first ? end - first : 0;
}

static qp_error_t create_window(qp_comm_t *comm, qp_shared_t *shared)
{
    MPI_Aint mine = comm->node_rank == 0 ? (MPI_Aint)(shared->bytes + PAGE) : 0;
    void *base = NULL;
    QP_TRY(QP_MPI(
        MPI_Win_allocate_shared(mine, 1, MPI_INFO_NULL, comm->node, &base, &shared->window)));
    QP_TRY(QP_MPI(MPI_Win_set_errhandler(shared->window, MPI_ERRORS_RETURN)));
    int unit = 0;
    QP_TRY(QP_MPI(MPI_Win_shared_query(shared->window, 0, &mine, &unit, &base)));
    QP_TRY(QP_MPI(MPI_Win_lock_all(MPI_MODE_NOCHECK, shared->window)));
    /* Mappings start on pages, so rounding up gives the same place on every rank. */
    shared->data = (char *)base + (PAGE - (uintptr_t)base % PAGE) % PAGE;
    if (comm->node_size == 1) /* from the heap, as it was left */
        memset(shared->data, 0, shared->bytes);
    return NULL;
}

/* A memfd of the node's first rank, opened by this rank; -1 and an error otherwise. */
static qp_error_t open_memfd(qp_comm_t *comm, size_t bytes, int *own, int *fd)
{
    int64_t where[2] = {getpid(), -1}; /* process and descriptor of the first rank */
    int failure = 0;
    if (comm->node_rank == 0) {
        *own = memfd_create("quipu", MFD_CLOEXEC);
        failure = *own < 0 || ftruncate(*own, (off_t)bytes) != 0 ? errno : 0;
        where[1] = failure ? -1 : *own;
    }
    QP_TRY(QP_MPI(MPI_Bcast(where, 2, MPI_INT64_T, 0, comm->node)));
    if (failure != 0)
        return QP_ERROR(QP_IO, "memfd of %zu bytes: %s", bytes, strerror(failure));
    if (where[1] < 0)
        return NULL; /* the first rank reports it */
    char *path = qp_format("/proc/%lld/fd/%lld", (long long)where[0], (long long)where[1]);
    *fd = open(path, O_RDWR | O_CLOEXEC);
    qp_error_t error = NULL;
    if (*fd < 0)
        error = QP_ERROR(QP_IO, "%s (node-shared memory): %s", path, strerror(errno));
    qp_free(path);
    return error;
}

static qp_error_t map_memfd(qp_comm_t *comm, qp_shared_t *shared, int fd)
{
    size_t offset, n_bytes;
    stripe(comm, shared->bytes, &offset, &n_bytes);
    if (n_bytes > 0 && fallocate(fd, 0, (off_t)offset, (off_t)n_bytes) != 0)
        return QP_ERROR(QP_IO, "%s: no room for %zu bytes of node-shared memory: %s", shared->label,
                        shared->bytes, strerror(errno));
    void *data = mmap(NULL, shared->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return QP_ERROR(QP_IO, "%s: mapping %zu bytes of node-shared memory: %s", shared->label,
                        shared->bytes, strerror(errno));
    shared->data = data;
    return NULL;
}

static qp_error_t create_memfd(qp_comm_t *comm, qp_shared_t *shared)
{
    int own = -1, fd = -1;
    shared->mapped_bytes = (shared->bytes / PAGE + 1) * PAGE; /* never empty */
    qp_error_t error = open_memfd(comm, shared->mapped_bytes, &own, &fd);
    if (fd >= 0 && error == NULL)
        error = map_memfd(comm, shared, fd);
    /* The first rank keeps its descriptor until all have opened it. */
    error = qp_comm_agree(comm, error);
    if (fd >= 0)
        close(fd);
    if (own >= 0)
        close(own);
    return error;
}

static qp_error_t create_own(qp_shared_t *shared)
{
    shared->mapped_bytes = (shared->bytes / PAGE + 1) * PAGE; /* never empty */
    void *data = mmap(NULL, shared->mapped_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return QP_ERROR(QP_IO, "%s: mapping %zu bytes: %s", shared->label, shared->bytes,
                        strerror(errno));
    madvise(data, shared->mapped_bytes, MADV_HUGEPAGE); /* where the system has them */
    shared->data = data;
    return NULL;
}

/* More than the node has would end in a signal or in the kernel's hunt for memory. First rank only.
 */
static qp_error_t check_memory(const qp_comm_t *comm, const char *label, size_t bytes)
{
    int64_t available = comm->node_rank == 0 ? qp_env_memory_available() : -1;
    if (available < 0 || (uint64_t)available >= bytes)
        return NULL;
    return QP_ERROR(QP_IO, "%s: no room for %zu bytes of node-shared memory: %lld are free", label,
                    bytes, (long long)available);
}

/* Decided by the node's first rank. */
static qp_error_t fits_dev_shm(qp_comm_t *comm, size_t bytes, bool *fits)
{
    struct statvfs fs;
    int answer = 0;
    if (comm->node_rank == 0 && statvfs("/dev/shm", &fs) == 0)
        answer = (uint64_t)fs.f_bavail * fs.f_frsize >= (uint64_t)bytes + SHM_MARGIN;
    QP_TRY(QP_MPI(MPI_Bcast(&answer, 1, MPI_INT, 0, comm->node)));
    *fits = answer != 0;
    return NULL;
}

qp_error_t qp_shared_create(qp_comm_t *comm, const char *label, size_t bytes, qp_shared_t **shared)
{
    bool fits = false;
    QP_TRY(qp_comm_agree(comm, fits_dev_shm(comm, bytes, &fits)));
    qp_shared_kind_t kind = fits ? QP_SHARED_WINDOW : QP_SHARED_MEMFD;
    return qp_shared_create_as(comm, label, bytes, comm->node_size == 1 ? QP_SHARED_OWN : kind,
                               shared);
}

qp_error_t qp_shared_create_as(qp_comm_t *comm, const char *label, size_t bytes,
                               qp_shared_kind_t kind, qp_shared_t **out)
{
    QP_TRY(qp_comm_agree(comm, check_memory(comm, label, bytes)));
    qp_shared_t *shared = QP_NEW("comm", qp_shared_t, 1);
    *shared = (qp_shared_t){.label = label, .bytes = bytes, .window = MPI_WIN_NULL};
    /* Nodes may differ in kind; each kind ends in exactly one agreement of all ranks. */
    qp_error_t error;
    QP_ASSERT(kind != QP_SHARED_OWN || comm->node_size == 1);
    if (kind == QP_SHARED_MEMFD)
        error = create_memfd(comm, shared);
    else
        error = qp_comm_agree(comm, kind == QP_SHARED_OWN ? create_own(shared)
                                                          : create_window(comm, shared));
    if (error == NULL && comm->node_rank == 0) {
        qp_mem_account(label, (int64_t)bytes);
        shared->counted = true;
    }
    if (error != NULL)
        qp_shared_destroy(comm, &shared);
    else
        qp_shared_fence(comm, shared);
    *out = shared;
    return error;
}

void *qp_shared_data(const qp_shared_t *shared)
{
    return shared->data;
}

void qp_shared_fence(qp_comm_t *comm, qp_shared_t *shared)
{
    bool window = shared->window != MPI_WIN_NULL;
    __sync_synchronize();
    if (window)
        QP_MPI_MUST(MPI_Win_sync(shared->window));
    QP_MPI_MUST(MPI_Barrier(comm->node));
    if (window)
        QP_MPI_MUST(MPI_Win_sync(shared->window));
    __sync_synchronize();
}

void qp_shared_destroy(qp_comm_t *comm, qp_shared_t **out)
{
    qp_shared_t *shared = *out;
    if (shared == NULL)
        return;
    (void)comm;
    if (shared->window != MPI_WIN_NULL) {
        QP_MPI_MUST(MPI_Win_unlock_all(shared->window));
        QP_MPI_MUST(MPI_Win_free(&shared->window));
    } else if (shared->data != NULL) {
        munmap(shared->data, shared->mapped_bytes);
    }
    if (shared->counted)
        qp_mem_account(shared->label, -(int64_t)shared->bytes);
    QP_FREE(*out);
}
