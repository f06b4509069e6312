/* Queues whose work is done when something waits for it. */
#include "compute/check/check.h"

struct qp_event {
    qp_check_device_t *device;
    const qp_check_queue_t *queue; /* NULL: never recorded */
    uint64_t until;
};

static qp_check_device_t *device_of(qp_queue_t *q)
{
    return (qp_check_device_t *)q->device;
}

/* --- tasks ------------------------------------------------------------------------------------ */

void *qp_check_task(qp_queue_t *q, const char *op, size_t bytes,
                    qp_error_t (*run)(qp_check_task_t *task, qp_queue_t *cpu))
{
    qp_check_task_t *task = qp_alloc("device", bytes);
    task->op = op;
    task->run = run;
    task->device = device_of(q);
    return task;
}

void *qp_check_keep(qp_check_task_t *task, const void *from, size_t bytes)
{
    if (from == NULL)
        return NULL;
    if (task->n_kept == task->capacity) {
        task->capacity += 8;
        task->kept = qp_realloc("device", task->kept, qp_bytes(task->capacity, sizeof *task->kept));
    }
    void *copy = task->kept[task->n_kept++] = qp_alloc("device", bytes);
    memcpy(copy, from, bytes);
    return copy;
}

static void destroy_task(qp_check_task_t *task)
{
    for (int i = 0; i < task->n_kept; i++)
        qp_free(task->kept[i]);
    qp_free(task->kept);
    qp_free(task);
}

static void put(qp_check_queue_t *queue, qp_check_task_t *task)
{
    if (queue->last == NULL)
        queue->first = task;
    else
        queue->last->next = task;
    queue->last = task;
    queue->n_put++;
}

void qp_check_put(qp_queue_t *q, qp_check_task_t *task)
{
    qp_check_device_t *device = device_of(q);
    pthread_mutex_lock(&device->lock);
    put((qp_check_queue_t *)q, task);
    pthread_mutex_unlock(&device->lock);
}

/* --- doing it. All below is called with the lock. --------------------------------------------- */

static bool is_blocked(const qp_check_task_t *task)
{
    return task->after != NULL && task->after->n_done < task->until;
}

/* Does the first task of the queue, which is not blocked. */
static void do_first(qp_check_device_t *device, qp_check_queue_t *queue)
{
    qp_check_task_t *task = queue->first;
    queue->first = task->next;
    if (queue->first == NULL)
        queue->last = NULL;
    ((qp_cpu_device_t *)device->cpu)->op = task->op;
    qp_error_t error = task->run == NULL ? NULL : task->run(task, qp_device_queue(device->cpu));
    device->error = qp_error_first(device->error, qp_error_context(error, "%s", task->op));
    destroy_task(task);
    queue->n_done++;
}

/* The seed's three manners: nothing before it must be, everything as soon as it may be, by chance.
 */
static bool others_go_first(qp_check_device_t *device)
{
    device->draw = device->draw * 6364136223846793005u + 1442695040888963407u;
    const uint64_t manner = device->seed % 3;
    return manner == 1 || (manner == 2 && (device->draw >> 60) < 8);
}

/* Work of the other queues that nothing holds back. */
static void do_others(qp_check_device_t *device, const qp_check_queue_t *queue)
{
    for (qp_check_queue_t *other = device->queue; other != NULL; other = other->next)
        while (other != queue && other->first != NULL && !is_blocked(other->first) &&
               others_go_first(device))
            do_first(device, other);
}

/* Does the work of the queue up to a place; and before, of others, what it waits for. */
static void do_until(qp_check_device_t *device, qp_check_queue_t *queue, uint64_t until)
{
    while (queue->n_done < until) {
        do_others(device, queue);
        const qp_check_task_t *task = queue->first;
        if (is_blocked(task))
            do_until(device, (qp_check_queue_t *)task->after, task->until);
        do_first(device, queue);
    }
}

static qp_error_t take_error(qp_check_device_t *device)
{
    qp_error_t error = device->error;
    device->error = NULL;
    return error;
}

/* --- slots ------------------------------------------------------------------------------------ */

qp_error_t qp_check_wait(qp_queue_t *q)
{
    qp_check_device_t *device = device_of(q);
    qp_check_queue_t *queue = (qp_check_queue_t *)q;
    pthread_mutex_lock(&device->lock);
    do_until(device, queue, queue->n_put);
    qp_error_t error = take_error(device);
    pthread_mutex_unlock(&device->lock);
    return error;
}

qp_error_t qp_check_wait_all(qp_check_device_t *device)
{
    pthread_mutex_lock(&device->lock);
    for (qp_check_queue_t *queue = device->queue; queue != NULL; queue = queue->next)
        do_until(device, queue, queue->n_put);
    qp_error_t error = take_error(device);
    pthread_mutex_unlock(&device->lock);
    return error;
}

qp_error_t qp_check_queue_create(qp_device_t *base, qp_queue_t **out)
{
    qp_check_device_t *device = (qp_check_device_t *)base;
    qp_check_queue_t *queue = QP_NEW("device", qp_check_queue_t, 1);
    queue->base.device = base;
    pthread_mutex_lock(&device->lock);
    queue->next = device->queue;
    device->queue = queue;
    pthread_mutex_unlock(&device->lock);
    *out = &queue->base;
    return NULL;
}

void qp_check_queue_destroy(qp_queue_t **out)
{
    qp_check_queue_t *queue = (qp_check_queue_t *)*out;
    if (queue == NULL)
        return;
    qp_check_device_t *device = device_of(*out);
    pthread_mutex_lock(&device->lock);
    /* Of all queues: a task elsewhere may wait for a place in this one. */
    for (qp_check_queue_t *other = device->queue; other != NULL; other = other->next)
        do_until(device, other, other->n_put);
    qp_check_queue_t **link = &device->queue;
    for (; *link != queue; link = &(*link)->next)
        QP_ASSERT(*link != NULL);
    *link = queue->next;
    pthread_mutex_unlock(&device->lock);
    QP_FREE(queue);
    *out = NULL;
}

qp_error_t qp_check_event_create(qp_device_t *device, qp_event_t **event)
{
    *event = QP_NEW("device", qp_event_t, 1);
    (*event)->device = (qp_check_device_t *)device;
    return NULL;
}

void qp_check_event_destroy(qp_event_t **event)
{
    QP_FREE(*event);
}

qp_error_t qp_check_event_record(qp_queue_t *q, qp_event_t *event)
{
    qp_check_device_t *device = device_of(q);
    pthread_mutex_lock(&device->lock);
    event->queue = (qp_check_queue_t *)q;
    event->until = event->queue->n_put;
    pthread_mutex_unlock(&device->lock);
    return NULL;
}

qp_error_t qp_check_event_wait(qp_queue_t *q, qp_event_t *event)
{
    qp_check_task_t *task = qp_check_task(q, "event_wait", sizeof *task, NULL);
    pthread_mutex_lock(&event->device->lock);
    task->after = event->queue;
    task->until = event->until;
    put((qp_check_queue_t *)q, task);
    pthread_mutex_unlock(&event->device->lock);
    return NULL;
}

qp_error_t qp_check_event_synchronize(qp_event_t *event)
{
    qp_check_device_t *device = event->device;
    pthread_mutex_lock(&device->lock);
    if (event->queue != NULL)
        do_until(device, (qp_check_queue_t *)event->queue, event->until);
    qp_error_t error = take_error(device);
    pthread_mutex_unlock(&device->lock);
    return error;
}
