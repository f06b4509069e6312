#include "data/data.h"

#include <pthread.h>

#include "base/mem.h"
#include "data/plan.h"

/* One step's batches: filled by the reader, then lent to the caller of next(). */
typedef struct {
    qp_batch_t *micro; /* [n_micro] */
    double epoch;
    qp_error_t error; /* the reader stops after one */
    bool full;
} slot_t;

enum { N_SLOT = 2 };

struct qp_loader {
    qp_comm_t *comm;
    const qp_dataset_t *dataset;
    qp_data_config_t config;
    qp_batch_config_t batch;
    qp_eos_t eos;
    uint32_t seed;
    int64_t first_micro, n_micro; /* of this rank, in every step */

    /* The reader's own: the epoch that it is in. */
    qp_plan_t *plan;
    int64_t epoch;
    int64_t epoch_row; /* first row of the epoch in the endless sequence */

    int64_t first_step, next_step; /* next_step: of the caller */
    slot_t slot[N_SLOT];           /* step s uses slot s % N_SLOT */
    pthread_t thread;
    bool running, stop;
    pthread_mutex_t lock; /* slot[].full, stop */
    pthread_cond_t changed;
};

/* --- the reader ------------------------------------------------------------------------------- */

/* Makes the plan that holds a row of the endless sequence; rows never go back. */
static qp_error_t go_to_row(qp_loader_t *l, int64_t row)
{
    while (l->plan == NULL || row >= l->epoch_row + l->plan->n_row) {
        if (l->plan != NULL) {
            l->epoch_row += l->plan->n_row;
            l->epoch++;
            qp_plan_destroy(&l->plan);
        }
        QP_TRY(
            qp_plan_create(l->dataset, &l->config, &l->eos, l->seed, (uint32_t)l->epoch, &l->plan));
    }
    return NULL;
}

static qp_error_t read_step(qp_loader_t *l, int64_t step, slot_t *slot)
{
    int64_t n_row = l->batch.global_sequences, first_row = step * n_row;
    for (int64_t m = 0; m < l->n_micro; m++) {
        qp_batch_t *batch = &slot->micro[m];
        qp_batch_clear(batch);
        int64_t place = (l->first_micro + m) * l->batch.micro_sequences;
        int64_t end = place + l->batch.micro_sequences;
        for (; place < end && place < n_row; place++) {
            QP_TRY(go_to_row(l, first_row + place));
            QP_TRY(qp_batch_add_row(batch, l->dataset, l->plan, first_row + place - l->epoch_row,
                                    place));
        }
    }
    QP_TRY(go_to_row(l, first_row + n_row - 1));
    slot->epoch =
        (double)l->epoch + (double)(first_row + n_row - l->epoch_row) / (double)l->plan->n_row;
    return NULL;
}

/* Waits until a slot is as wanted; false: the loader is being destroyed. */
static bool wait_for(qp_loader_t *l, const slot_t *slot, bool full)
{
    pthread_mutex_lock(&l->lock);
    while (slot->full != full && !l->stop)
        pthread_cond_wait(&l->changed, &l->lock);
    bool go_on = !l->stop;
    pthread_mutex_unlock(&l->lock);
    return go_on;
}

static void set_full(qp_loader_t *l, slot_t *slot, bool full)
{
    pthread_mutex_lock(&l->lock);
    slot->full = full;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static void *reader(void *loader)
{
    qp_loader_t *l = loader;
    for (int64_t step = l->first_step;; step++) {
        slot_t *slot = &l->slot[step % N_SLOT];
        if (!wait_for(l, slot, false))
            return NULL;
        slot->error = read_step(l, step, slot);
        bool failed = slot->error != NULL;
        set_full(l, slot, true);
        if (failed)
            return NULL;
    }
}

/* --- the caller's side ------------------------------------------------------------------------ */

static qp_error_t check_size(qp_loader_t *l)
{
    QP_TRY(go_to_row(l, 0));
    if (l->plan->n_row < l->batch.global_sequences)
        return QP_ERROR(QP_INPUT,
                        "too few training samples for one step: found %lld rows of up to %lld "
                        "tokens (%lld samples, of which data.overlong leaves out %lld), needed "
                        "batch.global_sequences = %lld",
                        (long long)l->plan->n_row, (long long)l->plan->row_tokens,
                        (long long)qp_dataset_n_sample(l->dataset), (long long)l->plan->n_left_out,
                        (long long)l->batch.global_sequences);
    return NULL;
}

static qp_error_t start_reader(qp_loader_t *l)
{
    for (int i = 0; i < N_SLOT; i++) {
        l->slot[i].micro = QP_NEW("batch", qp_batch_t, l->n_micro);
        for (int64_t m = 0; m < l->n_micro; m++)
            qp_batch_init(&l->slot[i].micro[m], l->batch.micro_sequences, l->plan->row_tokens);
    }
    if (pthread_create(&l->thread, NULL, reader, l) != 0)
        return QP_ERROR(QP_INTERNAL, "the data reader's thread cannot be started");
    l->running = true;
    return NULL;
}

qp_error_t qp_loader_create(qp_comm_t *comm, const qp_dataset_t *dataset,
                            const qp_data_config_t *config, const qp_batch_config_t *batch,
                            const qp_eos_t *eos, uint32_t seed, int64_t first_step,
                            qp_loader_t **loader)
{
    qp_loader_t *l = QP_NEW("loader", qp_loader_t, 1);
    *l = (qp_loader_t){.comm = comm,
                       .dataset = dataset,
                       .config = *config,
                       .batch = *batch,
                       .eos = *eos,
                       .seed = seed,
                       .first_step = first_step,
                       .next_step = first_step};
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    int64_t n_micro =
        (batch->global_sequences + batch->micro_sequences - 1) / batch->micro_sequences;
    int64_t end;
    qp_tree_range(n_micro, qp_comm_size(comm), qp_comm_rank(comm), &l->first_micro, &end);
    l->n_micro = end - l->first_micro;
    qp_error_t error = check_size(l);
    if (error == NULL) {
        qp_plan_log(l->plan, dataset, config, "data.train");
        error = start_reader(l);
    }
    error = qp_comm_agree(comm, error);
    if (error != NULL)
        qp_loader_destroy(&l);
    *loader = l;
    return error;
}

void qp_loader_destroy(qp_loader_t **loader)
{
    qp_loader_t *l = *loader;
    if (l == NULL)
        return;
    if (l->running) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    for (int i = 0; i < N_SLOT; i++) {
        for (int64_t m = 0; l->slot[i].micro != NULL && m < l->n_micro; m++)
            qp_batch_fini(&l->slot[i].micro[m]);
        qp_free(l->slot[i].micro);
        qp_error_destroy(&l->slot[i].error);
    }
    qp_plan_destroy(&l->plan);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    QP_FREE(*loader);
}

qp_error_t qp_loader_next(qp_loader_t *l, qp_step_batch_t *batch)
{
    int64_t step = l->next_step;
    if (step > l->first_step) /* what was lent last time is given back */
        set_full(l, &l->slot[(step - 1) % N_SLOT], false);
    slot_t *slot = &l->slot[step % N_SLOT];
    wait_for(l, slot, true);
    qp_error_t error = slot->error;
    slot->error = NULL;
    QP_TRY(qp_comm_agree(l->comm, error));

    int64_t count[2] = {0, 0}; /* targets, tokens */
    for (int64_t m = 0; m < l->n_micro; m++) {
        count[0] += slot->micro[m].n_target;
        count[1] += slot->micro[m].n_token;
    }
    qp_comm_sum_i64(l->comm, count, 2);
    *batch = (qp_step_batch_t){.step = step,
                               .epoch = slot->epoch,
                               .first_micro = l->first_micro,
                               .n_micro = l->n_micro,
                               .micro = slot->micro,
                               .n_target_global = count[0],
                               .n_token_global = count[1]};
    l->next_step = step + 1;
    return NULL;
}
