#include "model/base/stage.h"

#include <pthread.h>

#include "base/mem.h"

typedef struct {
    int64_t n_filled;
    int n_left[QP_STAGE_SLOTS]; /* takers that are not yet done */
} ring_t;

/* At the start of the shared block; the slots come behind. */
typedef struct {
    pthread_mutex_t lock; /* around all below */
    pthread_cond_t changed;
    bool stop;
    ring_t ring[];
} board_t;

struct qp_stage {
    qp_shared_t *shared;
    board_t *board;
    char *slots;
    size_t slot_bytes;
    int n_ring, n_taker;
};

enum { PAGE = 4096 };

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

static void init_board(board_t *board)
{
    pthread_mutexattr_t lock;
    pthread_condattr_t changed;
    pthread_mutexattr_init(&lock);
    pthread_condattr_init(&changed);
    pthread_mutexattr_setpshared(&lock, PTHREAD_PROCESS_SHARED);
    pthread_condattr_setpshared(&changed, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&board->lock, &lock);
    pthread_cond_init(&board->changed, &changed);
    pthread_mutexattr_destroy(&lock);
    pthread_condattr_destroy(&changed);
}

qp_error_t qp_stage_create(qp_comm_t *comm, size_t slot_bytes, int n_taker, qp_stage_t **out)
{
    const int n_ring = qp_comm_node_size(comm);
    qp_stage_t *stage = QP_NEW("base staging", qp_stage_t, 1);
    *stage =
        (qp_stage_t){.slot_bytes = whole_pages(slot_bytes), .n_ring = n_ring, .n_taker = n_taker};
    const size_t before =
        whole_pages(sizeof(board_t) + qp_bytes(n_ring, sizeof *stage->board->ring));
    qp_error_t error =
        qp_shared_create(comm, "base staging", before + qp_stage_bytes(stage), &stage->shared);
    if (error != NULL) {
        qp_free(stage);
        return error;
    }
    stage->board = qp_shared_data(stage->shared);
    stage->slots = (char *)stage->board + before;
    if (qp_comm_node_rank(comm) == 0)
        init_board(stage->board);
    qp_shared_fence(comm, stage->shared);
    *out = stage;
    return NULL;
}

void qp_stage_destroy(qp_comm_t *comm, qp_stage_t **stage)
{
    if (*stage == NULL)
        return;
    if (qp_comm_node_rank(comm) == 0) {
        pthread_mutex_destroy(&(*stage)->board->lock);
        pthread_cond_destroy(&(*stage)->board->changed);
    }
    qp_shared_destroy(comm, &(*stage)->shared);
    QP_FREE(*stage);
}

void *qp_stage_memory(const qp_stage_t *stage)
{
    return stage->slots;
}

size_t qp_stage_bytes(const qp_stage_t *stage)
{
    return qp_bytes(stage->n_ring * QP_STAGE_SLOTS, stage->slot_bytes);
}

void *qp_stage_slot(const qp_stage_t *stage, int ring, int64_t index)
{
    return stage->slots +
           qp_bytes(ring * QP_STAGE_SLOTS + index % QP_STAGE_SLOTS, stage->slot_bytes);
}

bool qp_stage_wait_free(qp_stage_t *stage, int ring, int64_t index)
{
    board_t *board = stage->board;
    pthread_mutex_lock(&board->lock);
    while (board->ring[ring].n_left[index % QP_STAGE_SLOTS] > 0 && !board->stop)
        pthread_cond_wait(&board->changed, &board->lock);
    const bool go_on = !board->stop;
    pthread_mutex_unlock(&board->lock);
    return go_on;
}

void qp_stage_fill(qp_stage_t *stage, int ring, int64_t index)
{
    board_t *board = stage->board;
    pthread_mutex_lock(&board->lock);
    QP_ASSERT(board->ring[ring].n_filled == index);
    board->ring[ring].n_filled++;
    board->ring[ring].n_left[index % QP_STAGE_SLOTS] = stage->n_taker;
    pthread_cond_broadcast(&board->changed);
    pthread_mutex_unlock(&board->lock);
}

bool qp_stage_wait_filled(qp_stage_t *stage, int ring, int64_t index)
{
    board_t *board = stage->board;
    pthread_mutex_lock(&board->lock);
    while (board->ring[ring].n_filled <= index && !board->stop)
        pthread_cond_wait(&board->changed, &board->lock);
    const bool go_on = !board->stop;
    pthread_mutex_unlock(&board->lock);
    return go_on;
}

void qp_stage_release(qp_stage_t *stage, int ring, int64_t index)
{
    board_t *board = stage->board;
    pthread_mutex_lock(&board->lock);
    board->ring[ring].n_left[index % QP_STAGE_SLOTS]--;
    pthread_cond_broadcast(&board->changed);
    pthread_mutex_unlock(&board->lock);
}

void qp_stage_stop(qp_stage_t *stage)
{
    pthread_mutex_lock(&stage->board->lock);
    stage->board->stop = true;
    pthread_cond_broadcast(&stage->board->changed);
    pthread_mutex_unlock(&stage->board->lock);
}
