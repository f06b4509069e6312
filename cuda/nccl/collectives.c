/*
 * Sums by NCCL, on a stream of their own. "tree": each rank collects all contributions to its piece
 * of the array, adds them in the order of comm/tree.c, and the pieces are sent to everybody: the
 * bits of the sum by MPI, and the traffic of a ring. "nccl": ncclAllReduce, whose order follows the
 * machine's topology.
 *
 * A rank that died or a network that stalls would be waited for without end, and to abort NCCL can
 * hang as well: a thread watches, and ends the job.
 */
#include <math.h>
#include <pthread.h>
#include <time.h>

#include "base/activity.h"
#include "base/log.h"
#include "base/timer.h"
#include "compute/collectives.h"
#include "cuda/nccl/fold.h"
#include "cuda/nccl/nccl_library.h"

static const int POLL_NS = 50 * 1000 * 1000;

typedef struct {
    qp_collectives_t base; /* first */
    qp_cuda_device_t *device;
    qp_comm_t *comm;
    qp_nccl_t lib;
    ncclComm_t nccl;
    int rank, size;
    bool all_reduce;
    qp_queue_t *queue;
    cudaEvent_t ready, done;
    qp_dptr_t pieces; /* [size][piece_max]: what the ranks sent for my piece */
    qp_dptr_t merges; /* [size - 1] qp_merge_t */
    qp_error_t error; /* the first since the last wait */
    double timeout;   /* seconds */
    pthread_t watcher;
    bool watching;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t woken;
    double since; /* when what is waited for was queued; 0: nothing is */
    bool stop;
} collectives_t;

static int64_t piece_max(int64_t n_max, int size)
{
    const int64_t n = n_max < QP_CUDA_SUM_CHUNK ? n_max : QP_CUDA_SUM_CHUNK;
    return (n + size - 1) / size;
}

/* --- calls of NCCL ---------------------------------------------------------------------------- */

static qp_error_t nccl_error(const collectives_t *c, ncclResult_t result, const char *what)
{
    return QP_ERROR(QP_IO, "NCCL: %s: %s", what, c->lib.ncclGetErrorString(result));
}

/* Until a call has done its part, or the others do not come. */
static qp_error_t wait_for(const collectives_t *c, ncclResult_t *result, const char *what)
{
    const double start = qp_time();
    while (*result == ncclInProgress) {
        if (qp_time() - start > c->timeout)
            return QP_ERROR(QP_IO,
                            "NCCL: %s: no answer of the other ranks within %.0f seconds "
                            "(device.nccl_timeout)",
                            what, c->timeout);
        ncclResult_t state = ncclSuccess;
        *result = c->lib.ncclCommGetAsyncError(c->nccl, &state);
        if (*result == ncclSuccess)
            *result = state;
        if (*result == ncclInProgress)
            nanosleep(&(struct timespec){.tv_nsec = POLL_NS / 1000}, NULL);
    }
    return NULL;
}

/* Calls return before they have done their part: the next one on the communicator comes after. */
static qp_error_t settle(const collectives_t *c, ncclResult_t result, const char *what)
{
    qp_activity_wait_begin();
    qp_error_t error = wait_for(c, &result, what);
    qp_activity_wait_end();
    QP_TRY(error);
    return result == ncclSuccess ? NULL : nccl_error(c, result, what);
}

#define NCCL(c, name, ...) settle((c), (c)->lib.name(__VA_ARGS__), #name)

/* Within a group nothing is in progress yet. */
#define NCCL_IN_GROUP(c, name, ...)                              \
    do {                                                         \
        const ncclResult_t result_ = (c)->lib.name(__VA_ARGS__); \
        if (result_ != ncclSuccess && result_ != ncclInProgress) \
            return nccl_error((c), result_, #name);              \
    } while (0)

/* --- the sum ---------------------------------------------------------------------------------- */

/* Where the piece of a rank begins in an array of n. */
static int64_t begin_of(const collectives_t *c, int64_t n, int rank)
{
    return n * rank / c->size;
}

/* All contributions to my piece come here, those to others go there. */
static qp_error_t scatter(const collectives_t *c, float *data, int64_t n)
{
    const cudaStream_t stream = qp_cuda_stream(c->queue);
    const int64_t mine = begin_of(c, n, c->rank + 1) - begin_of(c, n, c->rank);
    NCCL_IN_GROUP(c, ncclGroupStart);
    for (int r = 0; r < c->size; r++) {
        const int64_t first = begin_of(c, n, r), count = begin_of(c, n, r + 1) - first;
        if (count > 0)
            NCCL_IN_GROUP(c, ncclSend, data + first, (size_t)count, ncclFloat, r, c->nccl, stream);
        if (mine > 0)
            NCCL_IN_GROUP(c, ncclRecv, (float *)c->pieces.address + r * mine, (size_t)mine,
                          ncclFloat, r, c->nccl, stream);
    }
    return NCCL(c, ncclGroupEnd);
}

static qp_error_t gather(const collectives_t *c, float *data, int64_t n)
{
    const cudaStream_t stream = qp_cuda_stream(c->queue);
    const int64_t mine = begin_of(c, n, c->rank + 1) - begin_of(c, n, c->rank);
    NCCL_IN_GROUP(c, ncclGroupStart);
    for (int r = 0; r < c->size; r++) {
        const int64_t first = begin_of(c, n, r), count = begin_of(c, n, r + 1) - first;
        if (mine > 0)
            NCCL_IN_GROUP(c, ncclSend, (float *)c->pieces.address, (size_t)mine, ncclFloat, r,
                          c->nccl, stream);
        if (count > 0)
            NCCL_IN_GROUP(c, ncclRecv, data + first, (size_t)count, ncclFloat, r, c->nccl, stream);
    }
    return NCCL(c, ncclGroupEnd);
}

static qp_error_t sum_chunk(const collectives_t *c, float *data, int64_t n)
{
    const int64_t mine = begin_of(c, n, c->rank + 1) - begin_of(c, n, c->rank);
    if (c->all_reduce)
        return NCCL(c, ncclAllReduce, data, data, (size_t)n, ncclFloat, ncclSum, c->nccl,
                    qp_cuda_stream(c->queue));
    QP_TRY(scatter(c, data, n));
    QP_TRY(qp_cuda_fold(c->queue, (float *)c->pieces.address, mine,
                        (const qp_merge_t *)c->merges.address, c->size - 1));
    return gather(c, data, n);
}

static qp_error_t sum(collectives_t *c, qp_queue_t *q, float *data, int64_t n)
{
    QP_TRY(QP_CUDA(cudaEventRecord(c->ready, qp_cuda_stream(q))));
    QP_TRY(QP_CUDA(cudaStreamWaitEvent(qp_cuda_stream(c->queue), c->ready, 0)));
    for (int64_t first = 0; first < n; first += QP_CUDA_SUM_CHUNK)
        QP_TRY(sum_chunk(c, data + first,
                         n - first < QP_CUDA_SUM_CHUNK ? n - first : QP_CUDA_SUM_CHUNK));
    return NULL;
}

static void sum_begin(qp_collectives_t *base, qp_queue_t *q, qp_dptr_t p, int64_t n)
{
    collectives_t *c = (collectives_t *)base;
    if (c->error == NULL)
        c->error = sum(c, q, (float *)p.address, n);
}

/* Nobody can be asked to agree: the job ends here, with its last checkpoint. The pause lets the
 * launcher pass the message on. */
static void end_job(collectives_t *c, qp_error_t error)
{
    const int code = qp_error_report(&error);
    nanosleep(&(struct timespec){.tv_nsec = 6 * POLL_NS}, NULL);
    qp_comm_abort(c->comm, code);
}

static void set_since(collectives_t *c, double since)
{
    pthread_mutex_lock(&c->lock);
    c->since = since;
    pthread_cond_signal(&c->woken);
    pthread_mutex_unlock(&c->lock);
}

static qp_error_t sum_wait(qp_collectives_t *base, qp_queue_t *q)
{
    collectives_t *c = (collectives_t *)base;
    qp_error_t error = c->error;
    c->error = NULL;
    if (error == NULL)
        error = QP_CUDA(cudaEventRecord(c->done, qp_cuda_stream(c->queue)));
    if (error == NULL)
        error = QP_CUDA(cudaStreamWaitEvent(qp_cuda_stream(q), c->done, 0));
    if (error != NULL && c->size > 1) /* the others wait for this rank's part of the sum */
        end_job(c, error);
    if (error == NULL)
        set_since(c, qp_time());
    return error;
}

/* --- the watcher ------------------------------------------------------------------------------ */

/* What went wrong with sums that were queued, or NULL; *over: they are done. */
static qp_error_t look(const collectives_t *c, double since, bool *over)
{
    ncclResult_t state = ncclSuccess;
    const ncclResult_t result = c->lib.ncclCommGetAsyncError(c->nccl, &state);
    const cudaError_t status = cudaEventQuery(c->done);
    *over = status == cudaSuccess;
    if (result != ncclSuccess || (state != ncclSuccess && state != ncclInProgress))
        return nccl_error(c, result != ncclSuccess ? result : state, "the sum of the gradients");
    if (status != cudaSuccess && status != cudaErrorNotReady)
        return QP_CUDA(status);
    if (!*over && qp_time() - since > c->timeout)
        return QP_ERROR(QP_IO,
                        "NCCL: the sum of the gradients is not there after %.0f seconds "
                        "(device.nccl_timeout): a rank is gone, or the network stalls",
                        c->timeout);
    return NULL;
}

static void *watch(void *argument)
{
    collectives_t *c = argument;
    (void)cudaSetDevice(c->device->index);
    pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        bool over = false;
        const double since = c->since;
        if (since == 0.0) {
            pthread_cond_wait(&c->woken, &c->lock);
            continue;
        }
        pthread_mutex_unlock(&c->lock);
        qp_error_t error = look(c, since, &over);
        if (error != NULL)
            end_job(c, error);
        if (!over)
            nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        pthread_mutex_lock(&c->lock);
        if (over && c->since == since)
            c->since = 0.0;
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static void stop_watching(collectives_t *c)
{
    if (!c->watching)
        return;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_signal(&c->woken);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->watcher, NULL);
}

/* --- making and ending ------------------------------------------------------------------------ */

static void destroy(qp_collectives_t *base)
{
    collectives_t *c = (collectives_t *)base;
    stop_watching(c);
    qp_cuda_queue_destroy(&c->queue); /* finishes what was begun */
    if (c->nccl != NULL)
        (void)c->lib.ncclCommDestroy(c->nccl);
    if (c->ready != NULL)
        (void)cudaEventDestroy(c->ready);
    if (c->done != NULL)
        (void)cudaEventDestroy(c->done);
    qp_cuda_release(&c->device->base, &c->pieces);
    qp_cuda_release(&c->device->base, &c->merges);
    qp_nccl_close(&c->lib);
    pthread_cond_destroy(&c->woken);
    pthread_mutex_destroy(&c->lock);
    qp_error_destroy(&c->error);
    qp_free(c);
}

static const qp_collectives_ops_t tree_table = {
    .name = "tree", .sum_begin = sum_begin, .sum_wait = sum_wait, .destroy = destroy};
static const qp_collectives_ops_t nccl_table = {
    .name = "nccl", .sum_begin = sum_begin, .sum_wait = sum_wait, .destroy = destroy};

/* The additions of the ranks [lo, hi), in the order of comm/tree.c. */
static void list_merges(qp_merge_t **at, int64_t lo, int64_t hi)
{
    if (hi - lo <= 1)
        return;
    const int64_t middle = qp_tree_split(lo, hi);
    list_merges(at, lo, middle);
    list_merges(at, middle, hi);
    *(*at)++ = (qp_merge_t){.to = (int32_t)lo, .from = (int32_t)middle};
}

static qp_error_t make_merges(collectives_t *c)
{
    const size_t bytes = qp_bytes(c->size, sizeof(qp_merge_t));
    qp_merge_t *list = QP_NEW("comm", qp_merge_t, c->size), *end = list;
    list_merges(&end, 0, c->size);
    qp_error_t error = qp_cuda_alloc(&c->device->base, "gradient sums", bytes, &c->merges);
    if (error == NULL)
        error = qp_cuda_upload(c->queue, c->merges, list, bytes);
    qp_free(list);
    return error;
}

/* Rank-local. */
static qp_error_t prepare(collectives_t *c, int64_t n_max)
{
    qp_device_t *device = &c->device->base;
    QP_TRY(qp_nccl_open(&c->lib));
    QP_TRY(qp_cuda_queue_create(device, &c->queue));
    QP_TRY(QP_CUDA(cudaEventCreateWithFlags(&c->ready, cudaEventDisableTiming)));
    QP_TRY(QP_CUDA(cudaEventCreateWithFlags(&c->done, cudaEventDisableTiming)));
    if (c->all_reduce)
        return NULL;
    QP_TRY(make_merges(c));
    return qp_cuda_alloc(device, "gradient sums",
                         qp_bytes(piece_max(n_max, c->size) * c->size, sizeof(float)), &c->pieces);
}

/* The communicator, without waiting longer than the timeout for a rank that does not come. */
static qp_error_t join(collectives_t *c, const ncclUniqueId *id)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    QP_TRY(NCCL(c, ncclCommInitRankConfig, &c->nccl, c->size, *id, c->rank, &config));
    const int status = pthread_create(&c->watcher, NULL, watch, c);
    c->watching = status == 0;
    return status == 0
               ? NULL
               : QP_ERROR(QP_INTERNAL, "cannot start the watching thread (error %d)", status);
}

static qp_error_t start(collectives_t *c, int64_t n_max)
{
    ncclUniqueId id;
    QP_TRY(qp_comm_agree(c->comm, prepare(c, n_max)));
    qp_error_t error = NULL;
    if (c->rank == 0) {
        const ncclResult_t result = c->lib.ncclGetUniqueId(&id);
        error = result == ncclSuccess ? NULL : nccl_error(c, result, "ncclGetUniqueId");
    }
    QP_TRY(qp_comm_agree(c->comm, error));
    qp_comm_bcast(c->comm, &id, sizeof id, QP_U8, 0);
    return qp_comm_agree(c->comm, join(c, &id));
}

qp_error_t qp_cuda_collectives_create(qp_comm_t *comm, qp_device_t *device, int64_t n_max,
                                      qp_collectives_t **out)
{
    collectives_t *c = QP_NEW("comm", collectives_t, 1);
    c->all_reduce = device->config.allreduce == QP_ALLREDUCE_NCCL;
    c->base.ops = c->all_reduce ? &nccl_table : &tree_table;
    c->device = (qp_cuda_device_t *)device;
    c->comm = comm;
    c->rank = qp_comm_rank(comm);
    c->size = qp_comm_size(comm);
    c->timeout = device->config.nccl_timeout > 0 ? (double)device->config.nccl_timeout : INFINITY;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->woken, NULL);
    const qp_error_t error = start(c, n_max);
    *out = NULL;
    if (error != NULL)
        destroy(&c->base);
    else
        *out = &c->base;
    return error;
}

size_t qp_cuda_collectives_bytes(const qp_device_t *device, int n_rank, int64_t n_max)
{
    if (device->config.allreduce == QP_ALLREDUCE_NCCL)
        return 0;
    return qp_budget_piece(qp_bytes(piece_max(n_max, n_rank) * n_rank, sizeof(float))) +
           qp_budget_piece(qp_bytes(n_rank, sizeof(qp_merge_t)));
}
