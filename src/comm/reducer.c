/* The tree sum in the background: a helper thread with a communicator of its own. */
#include <pthread.h>

#include "base/mem.h"
#include "comm/comm_impl.h"

typedef struct {
    float *data;
    int64_t n;
} segment_t;

struct qp_reducer {
    MPI_Comm comm;
    qp_tree_t tree;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t begun, finished;
    segment_t
        *queue; /* [capacity]; emptied by every wait, so it stops growing after the first step */
    int64_t n_begun, n_done, capacity;
    bool stop;
};

static void *run(void *argument)
{
    qp_reducer_t *reducer = argument;
    pthread_mutex_lock(&reducer->lock);
    for (;;) {
        while (reducer->n_done == reducer->n_begun && !reducer->stop)
            pthread_cond_wait(&reducer->begun, &reducer->lock);
        if (reducer->n_done == reducer->n_begun)
            break;
        segment_t segment = reducer->queue[reducer->n_done];
        pthread_mutex_unlock(&reducer->lock);
        qp_tree_sum(&reducer->tree, segment.data, segment.n, QP_F32);
        pthread_mutex_lock(&reducer->lock);
        reducer->n_done++;
        pthread_cond_signal(&reducer->finished);
    }
    pthread_mutex_unlock(&reducer->lock);
    return NULL;
}

qp_error_t qp_reducer_create(qp_comm_t *comm, qp_reducer_t **out)
{
    MPI_Comm duplicate;
    QP_TRY(QP_MPI(MPI_Comm_dup(comm->world, &duplicate)));
    qp_reducer_t *reducer = QP_NEW("comm", qp_reducer_t, 1);
    reducer->comm = duplicate;
    qp_tree_init(&reducer->tree, duplicate, true);
    pthread_mutex_init(&reducer->lock, NULL);
    pthread_cond_init(&reducer->begun, NULL);
    pthread_cond_init(&reducer->finished, NULL);
    int status = pthread_create(&reducer->thread, NULL, run, reducer);
    if (status != 0)
        QP_MPI_MUST(MPI_Comm_free(&reducer->comm));
    if (status != 0) {
        qp_tree_fini(&reducer->tree);
        qp_free(reducer);
        return QP_ERROR(QP_INTERNAL, "cannot start the reduction thread (error %d)", status);
    }
    *out = reducer;
    return NULL;
}

void qp_reducer_begin(qp_reducer_t *reducer, float *data, int64_t n)
{
    pthread_mutex_lock(&reducer->lock);
    if (reducer->n_begun == reducer->capacity) {
        reducer->capacity = 2 * reducer->capacity + 64;
        reducer->queue =
            qp_realloc("comm", reducer->queue, qp_bytes(reducer->capacity, sizeof(segment_t)));
    }
    reducer->queue[reducer->n_begun++] = (segment_t){data, n};
    pthread_cond_signal(&reducer->begun);
    pthread_mutex_unlock(&reducer->lock);
}

void qp_reducer_wait(qp_reducer_t *reducer)
{
    pthread_mutex_lock(&reducer->lock);
    while (reducer->n_done < reducer->n_begun)
        pthread_cond_wait(&reducer->finished, &reducer->lock);
    reducer->n_begun = reducer->n_done = 0;
    pthread_mutex_unlock(&reducer->lock);
}

void qp_reducer_destroy(qp_reducer_t **out)
{
    qp_reducer_t *reducer = *out;
    if (reducer == NULL)
        return;
    pthread_mutex_lock(&reducer->lock);
    reducer->stop = true;
    pthread_cond_signal(&reducer->begun);
    pthread_mutex_unlock(&reducer->lock);
    pthread_join(reducer->thread, NULL);
    pthread_cond_destroy(&reducer->begun);
    pthread_cond_destroy(&reducer->finished);
    pthread_mutex_destroy(&reducer->lock);
    QP_MPI_MUST(MPI_Comm_free(&reducer->comm));
    qp_tree_fini(&reducer->tree);
    qp_free(reducer->queue);
    QP_FREE(*out);
}
