/* What a run is made from, and the checkpoint that it goes on from. */
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "formats/map.h"
#include "train/run/run_impl.h"

/* --- inputs ----------------------------------------------------------------------------------- */

static void add_input(qp_str_t *lines, const char *role, uint64_t id, const char *name)
{
    qp_str_printf(lines, "%s %016llx %s\n", role, (unsigned long long)id, name);
}

/* The files of a PEFT folder that say what it is. */
static qp_error_t hash_adapter(const char *folder, uint64_t *id)
{
    static const char *const file[] = {"adapter_config.json", "adapter_model.safetensors"};
    qp_hash_t *hash = qp_hash_create();
    qp_error_t error = NULL;
    for (int i = 0; i < 2 && error == NULL; i++) {
        char *path = qp_format("%s/%s", folder, file[i]);
        qp_map_t map;
        error = qp_map_open(path, &map);
        if (error == NULL)
            qp_hash_update(hash, map.data, map.n_bytes);
        qp_map_close(&map);
        qp_free(path);
    }
    *id = qp_hash_value(hash);
    qp_hash_destroy(&hash);
    return error;
}

/*
 * Contents that the steps to come depend on. The base has a check of its own; lora.init has done
 * its work by the time there is a checkpoint; a reward program cannot be looked into.
 */
static qp_error_t list_inputs(const qp_run_t *run, qp_str_t *lines)
{
    const qp_reward_model_config_t *reward = &run->settings->reward_model;
    qp_dataset_inputs(run->given.train, "data.train", lines);
    if (run->given.eval != NULL)
        qp_dataset_inputs(run->given.eval, "data.eval", lines);
    if (run->given.scorer == NULL)
        return NULL;
    if (reward->base != NULL)
        add_input(lines, "reward_model.base", qp_scorer_base_id(run->given.scorer), reward->base);
    if (reward->adapter != NULL) {
        uint64_t id;
        QP_TRY(hash_adapter(reward->adapter, &id));
        add_input(lines, "reward_model.adapter", id, reward->adapter);
    }
    return NULL;
}

/* The same lines on all ranks. */
static qp_error_t agree_on_inputs(qp_run_t *run)
{
    const bool first = qp_comm_rank(run->comm) == 0;
    QP_TRY(qp_comm_agree(run->comm, first ? list_inputs(run, &run->given.inputs) : NULL));
    void *block = run->given.inputs.data;
    size_t n_bytes = run->given.inputs.n;
    qp_comm_bcast_block(run->comm, &block, &n_bytes, 0);
    if (!first) {
        qp_str_append(&run->given.inputs, block, n_bytes);
        qp_free(block);
    }
    return NULL;
}

qp_ckpt_info_t qp_run_describe(const qp_run_t *run, int64_t step)
{
    const qp_settings_t *s = run->settings;
    return (qp_ckpt_info_t){.step = step,
                            .steps = s->optim.steps,
                            .method = qp_method_name(s->job.method),
                            .base_id = run->given.info.base_id,
                            .deck_hash = s->deck_hash,
                            .fingerprint = s->fingerprint.n > 0 ? s->fingerprint.data : "",
                            .inputs = run->given.inputs.n > 0 ? run->given.inputs.data : "",
                            .by_content = " data.train data.eval reward_model.base "
                                          "reward_model.adapter ",
                            .at_default = s->at_default.n > 0 ? s->at_default.data : "",
                            .build = qp_version()};
}

/* --- the checkpoint --------------------------------------------------------------------------- */

/* A learning rate that jumps, or steps that are done already, are what nobody may have meant. */
static void compare_steps(const qp_optim_config_t *now, const qp_ckpt_found_t *found)
{
    qp_optim_config_t then = *now;
    then.steps = found->steps;
    if (now->steps < found->step) {
        qp_log_warn("optim.steps = %lld is less than the %lld steps of the checkpoint: nothing is "
                    "left to do, and the adapter is that of step %lld",
                    (long long)now->steps, (long long)found->step, (long long)found->step);
        return;
    }
    if (found->steps < 0 || now->steps == found->steps || now->steps == found->step)
        return;
    const double was = qp_optim_lr(&then, found->step), is = qp_optim_lr(now, found->step);
    if (was != is)
        qp_log_warn(
            "optim.steps was %lld, is %lld: the schedule stretches with it, so the learning "
            "rate of step %lld is %.3g instead of %.3g",
            (long long)found->steps, (long long)now->steps, (long long)found->step + 1, is, was);
}

static qp_error_t check_policy(const qp_run_t *run, const char *folder)
{
    const int restart = run->settings->job.restart;
    if (run->given.checkpoint != NULL && restart == QP_RESTART_NEVER)
        return QP_ERROR(QP_INPUT,
                        "%s exists, but job.restart = \"never\": choose another job.name, move the "
                        "folder away, or set job.restart = \"auto\" to continue",
                        run->given.checkpoint);
    if (run->given.checkpoint == NULL && restart == QP_RESTART_REQUIRE)
        return QP_ERROR(QP_INPUT, "%s holds no complete checkpoint, but job.restart = \"require\"",
                        folder);
    return NULL;
}

qp_error_t qp_run_find_checkpoint(qp_run_t *run)
{
    int64_t step;
    char *folder = qp_format("%s/checkpoints", run->folder);
    qp_error_t error = qp_ckpt_latest(run->comm, folder, &run->given.checkpoint, &step);
    if (error == NULL)
        error = check_policy(run, folder);
    if (error == NULL && run->given.checkpoint != NULL)
        error = qp_ckpt_inputs(run->comm, run->given.checkpoint, &run->given.began_with);
    qp_free(folder);
    return error;
}

qp_error_t qp_run_check_checkpoint(qp_run_t *run)
{
    qp_ckpt_found_t found;
    QP_TRY(agree_on_inputs(run));
    if (run->given.checkpoint == NULL)
        return NULL;
    const qp_ckpt_info_t info = qp_run_describe(run, 0);
    QP_TRY(qp_ckpt_check(run->comm, run->given.checkpoint, &info, &found));
    run->given.write_seconds = found.write_seconds;
    compare_steps(&run->settings->optim, &found);
    qp_log_info("%s: %lld steps are done", run->given.checkpoint, (long long)found.step);
    return NULL;
}
