
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "train/loop/loop_impl.h"

static qp_error_t get_slab(void *owner, void *slab)
{
    const qp_device_array_t *a = owner;
    return a->device->ops->download(qp_device_queue(a->device), slab,
                                    qp_dptr_at(a->data, qp_bytes(a->first, sizeof(float))),
                                    qp_bytes(a->n_mine, sizeof(float)));
}

static qp_error_t put_all(void *owner, const void *data)
{
    const qp_device_array_t *a = owner;
    return a->device->ops->upload(qp_device_queue(a->device), a->data, data,
                                  qp_bytes(a->n, sizeof(float)));
}

static void register_array(qp_loop_t *loop, int i, const char *name, qp_dptr_t data)
{
    int64_t n = loop->run->model.adapter->n_param, end;
    qp_device_array_t *a = &loop->array[i];
    *a = (qp_device_array_t){.device = loop->run->device, .data = data, .n = n};
    qp_tree_range(n, qp_comm_size(loop->run->comm), qp_comm_rank(loop->run->comm), &a->first, &end);
    a->n_mine = end - a->first;
    const qp_state_entry_t entry = {.name = name,
                                    .dtype = QP_F32,
                                    .n_global = n,
                                    .first = a->first,
                                    .n_mine = a->n_mine,
                                    .get = get_slab,
                                    .put = put_all,
                                    .owner = a};
    qp_state_register(loop->state, &entry);
}

static void register_all(qp_loop_t *loop)
{
    loop->state = qp_state_create();
    register_array(loop, 0, "adapter/param", loop->run->model.adapter->param);
    register_array(loop, 1, "optim/m", loop->optim->m);
    register_array(loop, 2, "optim/v", loop->optim->v);
    qp_state_register_i64(loop->state, "optim/n_update", &loop->optim->n_update);
    qp_state_register_i64(loop->state, "progress/num_tokens", &loop->progress.num_tokens);
    qp_state_register_i64(loop->state, "progress/n_skipped", &loop->progress.n_skipped);
    qp_state_register_i64(loop->state, "progress/n_skipped_in_row",
                          &loop->progress.n_skipped_in_row);
    if (loop->method->register_state != NULL)
        loop->method->register_state(loop->owner, loop->state);
}

qp_error_t qp_loop_restore(qp_loop_t *loop)
{
    qp_run_t *run = loop->run;
    qp_error_t error = NULL;
    loop->checkpoint_step = -1;
    loop->checkpoints = qp_format("%s/checkpoints", run->folder);
    register_all(loop);
    if (qp_comm_rank(run->comm) == 0)
        error = qp_folder_make(loop->checkpoints);
    QP_TRY(qp_comm_agree(run->comm, error));
    if (run->given.checkpoint == NULL)
        return NULL;
    QP_TRY(qp_ckpt_read(run->comm, run->given.checkpoint, loop->state, &loop->progress.step));
    QP_TRY(qp_comm_agree(run->comm, qp_adapter_refresh(run->model.adapter)));
    loop->checkpoint_step = loop->progress.step;
    loop->stop.checkpoint_seconds = run->given.write_seconds;
    qp_log_info("continuing after step %lld from %s", (long long)loop->progress.step,
                run->given.checkpoint);
    return NULL;
}

qp_error_t qp_loop_checkpoint(qp_loop_t *loop)
{
    const qp_ckpt_config_t config = {.folder = loop->checkpoints,
                                     .keep = loop->run->settings->checkpoint.keep};
    const qp_ckpt_info_t info = qp_run_describe(loop->run, loop->progress.step);
    double start = qp_time();
    if (loop->checkpoint_step == loop->progress.step)
        return NULL;
    QP_TRY(qp_comm_agree(loop->run->comm, qp_owner_check(loop->run->owner)));
    qp_error_t error;
    QP_TIMED(&loop->run->timers, "checkpoint",
             error = qp_ckpt_write(loop->run->comm, &config, &info, loop->state));
    QP_TRY(error);
    double seconds = qp_time() - start;
    loop->checkpoint_step = loop->progress.step;
    if (seconds > loop->stop.checkpoint_seconds)
        loop->stop.checkpoint_seconds = seconds;
    qp_log_info("checkpoint after step %lld in %.2f s", (long long)loop->progress.step, seconds);
    return NULL;
}
