#include "train/train.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/activity.h"
#include "comm/stall.h"
#include "train/loop/stop.h"
#include "train/methods/dpo.h"
#include "train/methods/evaluate.h"
#include "train/methods/generate.h"
#include "train/ppo/ppo.h"
#include "train/methods/reward.h"
#include "train/run/run.h"
#include "train/methods/sft.h"

static qp_error_t (*const method[])(qp_run_t *run) = {
    [QP_METHOD_SFT] = qp_method_sft,   [QP_METHOD_REWARD] = qp_method_reward,
    [QP_METHOD_DPO] = qp_method_dpo,   [QP_METHOD_PPO] = qp_method_ppo,
    [QP_METHOD_EVAL] = qp_method_eval, [QP_METHOD_GENERATE] = qp_method_generate,
};

qp_error_t qp_train(qp_comm_t *comm, const qp_settings_t *settings, bool dry)
{
    qp_run_t run = {0};
    qp_error_t error = NULL;
    qp_stall_t *stall = NULL;
    if (!dry && qp_method_trains(settings->job.method))
        qp_stop_catch(); /* while the base is loaded, too, and when all is done */
    QP_TRY(qp_stall_watch(comm, (double)settings->job.stall_timeout, &stall));
    QP_PHASE("opening the inputs", error = qp_run_open(comm, settings, dry, &run));
    QP_TRY_DONE(error);
    if (dry) {
        qp_log_info("dry run: everything needed is there");
        goto done;
    }
    QP_PHASE("loading the base", error = qp_run_load(&run));
    QP_TRY_DONE(error);
    QP_PHASE(qp_method_name(settings->job.method), error = method[settings->job.method](&run));
    QP_TRY_DONE(error);
    qp_memory_plan_compare(&run.plan, comm, run.device);
done:
    if (run.timers.n_phase > 0)
        qp_timers_report(&run.timers, "phases");
    if (run.device != NULL && run.device->timers.n_phase > 0)
        qp_timers_report(&run.device->timers, "ops");
    if (!dry)
        qp_mem_report();
    qp_run_close(&run);
    qp_stall_end(&stall);
    return error;
}
