/*
 * Sums by MPI, in a helper thread. Where device memory is host memory it is summed where it stands;
 * else it takes the way through pinned host memory, on a queue of its own.
 */
#include <pthread.h>

#include "base/mem.h"
#include "base/activity.h"
#include "compute/collectives.h"

/* One sum that was begun. */
typedef struct {
    qp_dptr_t p;
    int64_t n;
    float *host;       /* p itself, or its place in the staging memory */
    qp_event_t *ready; /* what is to be summed is there */
} segment_t;

typedef struct {
    qp_collectives_t base; /* first */
    qp_device_t *device;
    qp_tree_group_t *group; /* a communicator of our own */
    qp_queue_t *queue;      /* copies to the staging memory and back; NULL: there is none */
    qp_event_t *done;       /* of the queue: all sums are back on the device */
    float *staging;         /* [n_max] */
    int64_t n_max, n_staged;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t begun, finished;
    segment_t *segment; /* [capacity]; taken from the start again after each wait */
    int64_t n_begun, n_done, capacity;
    bool stop;
    qp_error_t error;
} collectives_t;

static bool is_staged(const qp_device_t *device)
{
    return !device->host_addressable;
}

/* --- the thread ------------------------------------------------------------------------------- */

/* Every rank sums whatever went wrong on this one, so that none waits for ever. */
static qp_error_t sum(const collectives_t *c, const segment_t *s)
{
    const qp_ops_t *ops = c->device->ops;
    const size_t bytes = qp_bytes(s->n, sizeof(float));
    qp_error_t error = NULL;
    if (c->queue == NULL) {
        error = ops->event_synchronize(s->ready);
        qp_tree_group_sum_f32(c->group, s->host, s->n);
        return error;
    }
    error = ops->event_wait(c->queue, s->ready);
    if (error == NULL)
        error = ops->download_async(c->queue, s->host, s->p, bytes);
    if (error == NULL)
        error = ops->synchronize(c->queue);
    qp_tree_group_sum_f32(c->group, s->host, s->n);
    return error != NULL ? error : ops->upload_async(c->queue, s->p, s->host, bytes);
}

static void *run(void *argument)
{
    collectives_t *c = argument;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (c->n_done == c->n_begun && !c->stop)
            pthread_cond_wait(&c->begun, &c->lock);
        if (c->n_done == c->n_begun)
            break;
        const segment_t segment = c->segment[c->n_done];
        pthread_mutex_unlock(&c->lock);
        qp_error_t error = sum(c, &segment);
        pthread_mutex_lock(&c->lock);
        c->error = qp_error_first(c->error, error);
        c->n_done++;
        pthread_cond_signal(&c->finished);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* --- the table -------------------------------------------------------------------------------- */

/* The next free segment, with its event. Takes the lock. */
static segment_t *next_segment(collectives_t *c)
{
    if (c->n_begun == c->capacity) {
        const int64_t before = c->capacity;
        c->capacity = 2 * before + 64;
        c->segment = qp_realloc("comm", c->segment, qp_bytes(c->capacity, sizeof *c->segment));
        for (int64_t i = before; i < c->capacity; i++)
            c->segment[i] = (segment_t){0};
    }
    segment_t *s = &c->segment[c->n_begun];
    if (s->ready == NULL)
        c->error = qp_error_first(c->error, c->device->ops->event_create(c->device, &s->ready));
    return s;
}

static void sum_begin(qp_collectives_t *base, qp_queue_t *q, qp_dptr_t p, int64_t n)
{
    collectives_t *c = (collectives_t *)base;
    pthread_mutex_lock(&c->lock);
    segment_t *s = next_segment(c);
    s->p = p;
    s->n = n;
    s->host =
        is_staged(c->device) ? c->staging + c->n_staged : (float *)qp_device_to_host(c->device, p);
    c->n_staged += n;
    QP_ASSERT(c->n_staged <= c->n_max);
    if (s->ready != NULL)
        c->error = qp_error_first(c->error, c->device->ops->event_record(q, s->ready));
    c->n_begun++;
    pthread_cond_signal(&c->begun);
    pthread_mutex_unlock(&c->lock);
}

static qp_error_t sum_wait(qp_collectives_t *base, qp_queue_t *q)
{
    collectives_t *c = (collectives_t *)base;
    const qp_ops_t *ops = c->device->ops;
    qp_activity_wait_begin();
    pthread_mutex_lock(&c->lock);
    while (c->n_done < c->n_begun)
        pthread_cond_wait(&c->finished, &c->lock);
    qp_activity_wait_end();
    c->n_begun = c->n_done = c->n_staged = 0;
    qp_error_t error = c->error;
    c->error = NULL;
    pthread_mutex_unlock(&c->lock);
    if (error == NULL && c->queue != NULL)
        error = ops->event_record(c->queue, c->done);
    if (error == NULL && c->queue != NULL)
        error = ops->event_wait(q, c->done);
    return error;
}

static void stop_thread(collectives_t *c)
{
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_signal(&c->begun);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
}

static void release(collectives_t *c)
{
    const qp_ops_t *ops = c->device->ops;
    ops->queue_destroy(&c->queue);
    for (int64_t i = 0; i < c->capacity; i++)
        ops->event_destroy(&c->segment[i].ready);
    ops->event_destroy(&c->done);
    ops->host_release(c->device, c->staging);
    qp_tree_group_destroy(&c->group);
    pthread_cond_destroy(&c->begun);
    pthread_cond_destroy(&c->finished);
    pthread_mutex_destroy(&c->lock);
    qp_error_destroy(&c->error);
    qp_free(c->segment);
    qp_free(c);
}

static void destroy(qp_collectives_t *base)
{
    stop_thread((collectives_t *)base);
    release((collectives_t *)base);
}

static const qp_collectives_ops_t table = {
    .name = "mpi", .sum_begin = sum_begin, .sum_wait = sum_wait, .destroy = destroy};

static qp_error_t start(collectives_t *c, qp_comm_t *comm)
{
    const qp_ops_t *ops = c->device->ops;
    void *staging = NULL;
    QP_TRY(qp_tree_group_create(comm, &c->group));
    QP_TRY(ops->event_create(c->device, &c->done));
    if (is_staged(c->device)) {
        QP_TRY(ops->queue_create(c->device, &c->queue));
        QP_TRY(ops->host_alloc(c->device, "gradient sums", qp_bytes(c->n_max, sizeof(float)),
                               &staging));
        c->staging = staging;
    }
    const int status = pthread_create(&c->thread, NULL, run, c);
    return status == 0
               ? NULL
               : QP_ERROR(QP_INTERNAL, "cannot start the reduction thread (error %d)", status);
}

qp_error_t qp_collectives_mpi_create(qp_comm_t *comm, qp_device_t *device, int64_t n_max,
                                     qp_collectives_t **out)
{
    collectives_t *c = QP_NEW("comm", collectives_t, 1);
    c->base.ops = &table;
    c->device = device;
    c->n_max = n_max;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->begun, NULL);
    pthread_cond_init(&c->finished, NULL);
    qp_error_t error = start(c, comm);
    *out = NULL;
    if (error != NULL)
        release(c);
    else
        *out = &c->base;
    return error;
}
