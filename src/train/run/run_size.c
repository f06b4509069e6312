/* How large a run is: rows, answers, adapters, and the memory that they take. */
#include <string.h>

#include "base/mem.h"
#include "base/minmax.h"
#include "base/str.h"
#include "train/micro/accumulate.h"
#include "train/run/run_impl.h"

/* Queries of shards are answered by the policy and the answers get rewards. */
bool qp_run_rolls_out(const qp_run_t *run)
{
    const qp_dataset_t *data = run->given.train != NULL ? run->given.train : run->given.eval;
    return data != NULL && strcmp(qp_dataset_kind(data), "prompt") == 0;
}

int64_t qp_run_max_token(const qp_run_t *run)
{
    return run->settings->batch.micro_sequences * run->size.row_tokens;
}

/* What the engine must serve: prompts, and queries of a step. */
static void size_engine(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    int64_t n_answer = run->given.prompts.n * s->generate.num_return_sequences;
    run->size.generate = s->generate;
    if (run->given.prompts.n > 0)
        run->size.n_generate = run->given.prompts.longest + run->size.answer_tokens;
    run->size.generate.max_new_tokens = run->size.answer_tokens;
    if (qp_run_rolls_out(run)) {
        const int64_t n_rank = run->size.n_rank;
        n_answer = qp_max_i64(n_answer, (s->batch.global_sequences + n_rank - 1) / n_rank);
        run->size.n_generate =
            qp_max_i64(run->size.n_generate, s->data.seq_length + qp_settings_max_response(s));
        run->size.generate.max_new_tokens =
            qp_max_i64(run->size.answer_tokens, qp_settings_max_response(s));
    }
    if (run->size.n_generate > 0 && run->size.generate.max_active > n_answer)
        run->size.generate.max_active = n_answer;
}

/* The longest sequence that attention sees of a data set; with an answer, where there are any. */
static int64_t longest_sequence(const qp_run_t *run, const qp_dataset_t *data)
{
    const qp_data_config_t *config = &run->settings->data;
    if (data == NULL)
        return 0;
    const int64_t longest = qp_dataset_longest(data), cut = config->seq_length;
    if (config->packing == QP_PACK_CONTAMINATED && strcmp(qp_dataset_kind(data), "sft") == 0)
        return cut; /* a row is one sequence */
    return (longest < cut ? longest : cut) +
           (qp_run_rolls_out(run) ? qp_settings_max_response(run->settings) + 1 : 0);
}

/* A model with a sliding window is computed without it while nothing is longer. */
static qp_error_t check_windows(const qp_run_t *run)
{
    const char *with_answer = qp_run_rolls_out(run) ? " with its answer" : "";
    const struct {
        const char *what, *with;
        int64_t n_token;
    } all[] = {
        {"the longest sequence of data.train", with_answer,
         longest_sequence(run, run->given.train)},
        {"the longest sequence of data.eval", with_answer, longest_sequence(run, run->given.eval)},
        {"the longest prompt with its answer", "",
         run->given.prompts.n > 0 ? run->given.prompts.longest + run->size.answer_tokens : 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char *what = qp_format("%s%s", all[i].what, all[i].with);
        qp_error_t error = qp_llama_check_length(&run->given.info.config, what, all[i].n_token);
        if (error == NULL && i < 2 && run->given.scorer != NULL)
            error = qp_scorer_check_length(run->given.scorer, what, all[i].n_token);
        qp_free(what);
        QP_TRY(error);
    }
    return NULL;
}

/* Rows, answers, and the positions that they take. */
qp_error_t qp_run_size(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    const qp_dataset_t *data = run->given.train != NULL ? run->given.train : run->given.eval;
    int64_t row = data != NULL ? s->data.seq_length : 0, most = run->given.info.config.max_position;
    size_engine(run);
    if (qp_run_rolls_out(run)) /* a reward model may want an EOS behind an answer */
        row += qp_settings_max_response(s) + 1;
    run->size.row_tokens = data != NULL ? row * qp_dataset_sequences_per_sample(data) : 0;
    run->size.n_position = qp_max_i64(run->size.n_generate, row);
    if (run->size.n_position > most)
        return QP_ERROR(QP_INPUT, "%s is %lld tokens, but the base has %lld positions",
                        qp_run_rolls_out(run)        ? "data.seq_length with the longest answer"
                        : row > run->size.n_generate ? "data.seq_length"
                                                     : "the longest prompt with its answer",
                        (long long)run->size.n_position, (long long)most);
    QP_TRY(qp_error_context(qp_base_info_check(&run->given.info, run->device), "base.file"));
    QP_TRY(check_windows(run));
    return run->given.scorer != NULL ? qp_scorer_check(run->given.scorer, run->device, row) : NULL;
}

qp_lora_config_t qp_run_widest_lora(const qp_run_t *run)
{
    const qp_lora_config_t *const others[] = {
        run->given.rival_lora.init != NULL ? &run->given.rival_lora : NULL,
        run->given.scorer != NULL ? qp_scorer_shared_lora(run->given.scorer) : NULL};
    qp_lora_config_t widest = run->settings->lora;
    for (int i = 0; i < 2; i++) {
        if (others[i] == NULL)
            continue;
        widest.r = qp_max_i64(widest.r, others[i]->r);
        for (int l = 0; l < QP_N_LINEAR; l++)
            widest.target[l] |= others[i]->target[l];
    }
    return widest;
}

/* What the backend keeps for the passes of the workspace, of the engine and of a reward model's own
 * base. */
static size_t scratch_bytes(const qp_run_t *run, const qp_base_shape_t *shape,
                            const qp_lora_config_t *lora, int64_t max_token)
{
    qp_pass_size_t size[3];
    int n = 0;
    if (max_token > 0)
        size[n++] = qp_workspace_pass_size(shape, lora, max_token);
    if (run->size.n_generate > 0)
        size[n++] = qp_engine_pass_size(shape, lora, &run->size.generate, run->size.n_generate);
    if (run->given.scorer != NULL)
        size[n++] = qp_scorer_pass_size(run->given.scorer, run->device, max_token);
    return run->device->ops->scratch_bytes(run->device, size, n);
}

/* Chooses what to recompute; returns the bytes of the workspace. An engine that does not fit into
 * it comes beside it. */
static size_t choose_workspace(qp_run_t *run, const qp_base_shape_t *shape,
                               const qp_lora_config_t *lora, int64_t max_token, size_t engine)
{
    run->size.recompute = (qp_recompute_t)run->settings->device.recompute;
    if (run->size.recompute == QP_RECOMPUTE_AUTO) {
        const size_t all = qp_workspace_bytes(shape, lora, max_token, QP_RECOMPUTE_NONE);
        const size_t beside = engine > all ? engine : 0;
        run->size.recompute =
            qp_memory_plan_fits(&run->plan, all + beside) ? QP_RECOMPUTE_NONE : QP_RECOMPUTE_LAYER;
    }
    return qp_workspace_bytes(shape, lora, max_token, run->size.recompute);
}

/* Bases and what they are loaded through: a device gets them piece by piece. */
static void plan_bases(qp_run_t *run, const qp_base_shape_t *shape, const qp_scorer_bytes_t *scorer)
{
    const bool shared = qp_base_is_shared(run->device);
    const qp_place_t place = shared ? QP_PLACE_NODE : QP_PLACE_DEVICE;
    size_t staging = qp_base_staging_bytes(shape);
    staging = scorer->staging > staging ? scorer->staging : staging;
    qp_memory_plan_add(&run->plan, "base", qp_base_bytes(shape, run->size.n_position), place);
    if (scorer->base > 0)
        qp_memory_plan_add_as(&run->plan, "reward base", "base", scorer->base, place);
    if (!shared)
        qp_memory_plan_add(&run->plan, "base staging", staging, QP_PLACE_DEVICE);
}

/* The adapters of policy, rival and reward model; each with its gradient. */
static void plan_adapters(qp_run_t *run, const qp_scorer_bytes_t *scorer)
{
    const qp_llama_config_t *config = &run->given.info.config;
    const qp_run_given_t *given = &run->given;
    const bool merged = given->head.required && run->settings->lora.init == NULL;
    const int64_t n_param =
        merged ? qp_head_n_param(given->head.kind, config->d_model) : run->size.n_param;
    if (merged || given->has_adapter)
        qp_memory_plan_add(&run->plan, "adapter", qp_adapter_bytes(run->device, n_param),
                           QP_PLACE_DEVICE);
    if (given->rival_lora.init != NULL)
        qp_memory_plan_add_as(
            &run->plan, "rival adapter", "adapter",
            qp_adapter_bytes(run->device, qp_lora_n_param(config, &given->rival_lora)),
            QP_PLACE_DEVICE);
    if (scorer->adapter > 0)
        qp_memory_plan_add_as(&run->plan, "reward adapter", "adapter", scorer->adapter,
                              QP_PLACE_DEVICE);
}

static void plan_training(qp_run_t *run)
{
    qp_memory_plan_t *plan = &run->plan;
    const int n_rank = run->size.n_rank;
    const int64_t n_param = run->size.n_param, n_micro = qp_settings_n_micro(run->settings);
    const size_t staged = qp_accumulator_host_bytes(run->device, n_rank, n_param);
    qp_memory_plan_add(plan, "optimiser", qp_optim_bytes(n_param), QP_PLACE_DEVICE);
    qp_memory_plan_add(plan, "gradient sums",
                       qp_accumulator_bytes(run->device, n_rank, n_micro, n_param),
                       QP_PLACE_DEVICE);
    if (staged > 0) /* where sums are made in host memory */
        qp_memory_plan_add(plan, "gradient sums", staged, QP_PLACE_RANK);
}

/* Fills the memory plan and chooses what to recompute. */
void qp_run_plan(qp_run_t *run)
{
    qp_memory_plan_t *plan = &run->plan;
    const qp_base_shape_t shape = qp_base_info_shape(&run->given.info, run->device);
    const int64_t max_token = qp_run_max_token(run);
    const qp_lora_config_t widest = qp_run_widest_lora(run);
    qp_scorer_bytes_t scorer = {0};
    if (run->given.scorer != NULL)
        scorer = qp_scorer_bytes(run->given.scorer, &shape, run->size.n_position, max_token);
    run->size.n_param = qp_lora_n_param(&run->given.info.config, &run->settings->lora) +
                        qp_head_n_param(run->given.head.kind, run->given.info.config.d_model);
    plan_bases(run, &shape, &scorer);
    plan_adapters(run, &scorer);
    if (qp_method_trains(run->settings->job.method))
        plan_training(run);
    if (scorer.workspace > 0)
        qp_memory_plan_add_as(plan, "reward model", "workspace", scorer.workspace, QP_PLACE_DEVICE);
    int64_t scratch = (int64_t)scratch_bytes(run, &shape, &widest, max_token);
    qp_comm_max_i64(run->comm, &scratch, 1); /* GPUs may be of several kinds */
    qp_memory_plan_add(plan, "scratch", (size_t)scratch, QP_PLACE_DEVICE);
    const size_t engine =
        run->size.n_generate > 0
            ? qp_engine_bytes(&shape, &widest, &run->size.generate, run->size.n_generate)
            : 0;
    size_t workspace = 0;
    if (max_token > 0)
        workspace = choose_workspace(run, &shape, &widest, max_token, engine);
    if (engine > workspace) /* else it takes the workspace's memory */
        qp_memory_plan_add(plan, "KV cache", engine, QP_PLACE_DEVICE);
    if (max_token > 0)
        qp_memory_plan_add(plan, "workspace", workspace, QP_PLACE_DEVICE);
}

qp_error_t qp_run_plan_for(qp_run_t *run, int n_rank, int n_node_rank, int64_t host_bytes)
{
    run->size.n_rank = n_rank;
    QP_TRY(qp_run_size(run));
    QP_TRY(qp_memory_plan_init(&run->plan, run->comm, run->device));
    qp_memory_plan_move(&run->plan, run->device, n_rank, n_node_rank, host_bytes);
    qp_run_plan(run);
    return NULL;
}
