#include "train/run/run.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/env.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "train/run/run_impl.h"

static bool trains(const qp_settings_t *settings)
{
    return qp_method_trains(settings->job.method);
}

/* The run's folder, whose owner this run becomes, quipu.log and used.cfg. Rank 0. */
static qp_error_t open_folder(qp_run_t *run)
{
    char *log = qp_format("%s/quipu.log", run->folder);
    char *used = qp_format("%s/used.cfg", run->folder);
    qp_error_t error = qp_folder_make(run->folder);
    if (error == NULL)
        error = qp_owner_take(run->folder, &run->owner);
    if (error == NULL)
        error = qp_log_tee(log);
    if (error == NULL && qp_owner_before(run->owner) != NULL)
        qp_log_info("%s", qp_owner_before(run->owner));
    if (error == NULL)
        error = qp_file_write(used, run->settings->used.data, run->settings->used.n);
    qp_free(log);
    qp_free(used);
    return error;
}

/* The folder, which a dry run leaves as it is. Rank 0. */
static qp_error_t begin(qp_run_t *run, bool dry)
{
    QP_TRY(qp_run_check_outputs(run));
    return dry ? qp_owner_report(run->folder) : open_folder(run);
}

/* Cores for this rank, unless the user has placed its threads, and the device on them. */
static qp_error_t open_device(qp_run_t *run, bool dry)
{
    static const char *const placed_by[] = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"};
    qp_device_config_t config = run->settings->device;
    bool placed = false;
    config.dry = dry;
    for (size_t i = 0; i < sizeof placed_by / sizeof placed_by[0]; i++)
        placed |= qp_env(placed_by[i]) != NULL;
    int n_core = qp_comm_take_cores(run->comm, config.threads, !placed);
    if (config.threads == 0)
        config.threads = n_core;
    int index;
    QP_TRY(qp_device_assign(run->comm, &config, &index));
    return qp_comm_agree(
        run->comm, qp_device_open(&config, index, qp_comm_node_size(run->comm), &run->device));
}

/* What stands in the base's header: architecture and tokenizer. Rank-local. */
static qp_error_t open_base(qp_run_t *run, bool dry)
{
    const char *path = run->settings->base.file;
    qp_run_given_t *given = &run->given;
    QP_TRY(qp_base_header_read(path, &given->info, &given->tokenizer));
    if (!dry)
        QP_TRY(qp_base_check_weights(&given->info, path));
    else if (!given->info.has_weights)
        qp_log_warn("%s: has no weights, it is for dry runs alone", path);
    return qp_error_context(qp_llama_eos(&given->info.config, given->tokenizer, &given->eos), "%s",
                            path);
}

static qp_error_t open_eval_data(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    if (s->data.eval.n == 0)
        return NULL;
    qp_data_config_t config = s->data;
    config.shuffle = false;
    QP_TRY(
        qp_error_context(qp_dataset_open(run->comm, &s->data.eval, qp_method_shards(s->job.method),
                                         qp_tokenizer_id(run->given.tokenizer), &run->given.eval),
                         "data.eval"));
    if (run->given.began_with != NULL)
        qp_dataset_arrange(run->given.eval, "data.eval", run->given.began_with);
    if (strcmp(qp_dataset_kind(run->given.eval), "sft") != 0)
        config.packing = QP_PACK_NONE;
    QP_TRY(
        qp_comm_agree(run->comm, qp_plan_create(run->given.eval, &config, &run->given.eos,
                                                (uint32_t)s->job.seed, 0, &run->given.eval_plan)));
    qp_log_info("data.eval: %lld samples, %lld tokens, %lld rows",
                (long long)qp_dataset_n_sample(run->given.eval),
                (long long)qp_dataset_n_token(run->given.eval),
                (long long)qp_plan_n_row(run->given.eval_plan));
    qp_plan_log(run->given.eval_plan, run->given.eval, &config, "data.eval");
    return NULL;
}

static qp_error_t open_train_data(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    qp_plan_t *epoch = NULL;
    QP_TRY(
        qp_error_context(qp_dataset_open(run->comm, &s->data.train, qp_method_shards(s->job.method),
                                         qp_tokenizer_id(run->given.tokenizer), &run->given.train),
                         "data.train"));
    if (run->given.began_with != NULL)
        qp_dataset_arrange(run->given.train, "data.train", run->given.began_with);
    QP_TRY(qp_comm_agree(run->comm, qp_plan_create(run->given.train, &s->data, &run->given.eos,
                                                   (uint32_t)s->job.seed, 0, &epoch)));
    int64_t n_row = qp_plan_n_row(epoch), n_left_out = qp_plan_n_left_out(epoch);
    qp_plan_destroy(&epoch);
    if (n_row < s->batch.global_sequences)
        return QP_ERROR(
            QP_INPUT,
            "data.train: an epoch has %lld rows of at most %lld tokens (data.overlong "
            "leaves out %lld of %lld samples), fewer than batch.global_sequences = %lld",
            (long long)n_row, (long long)s->data.seq_length, (long long)n_left_out,
            (long long)qp_dataset_n_sample(run->given.train), (long long)s->batch.global_sequences);
    qp_log_info("data.train: %lld samples, %lld tokens, %lld rows; %lld steps of %lld rows are "
                "%.2f epochs",
                (long long)qp_dataset_n_sample(run->given.train),
                (long long)qp_dataset_n_token(run->given.train), (long long)n_row,
                (long long)s->optim.steps, (long long)s->batch.global_sequences,
                (double)s->optim.steps * (double)s->batch.global_sequences / (double)n_row);
    return NULL;
}

static qp_error_t open_prompts(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    const qp_prompts_model_t model = {.tokenizer = run->given.tokenizer,
                                      .n_vocab = run->given.info.config.n_vocab,
                                      .chat_template = s->prompts.chat_template};
    if (s->job.method == QP_METHOD_GENERATE) {
        QP_TRY(qp_prompts_from_file(run->comm, &model, s->prompts.input, &run->given.prompts));
        qp_log_info("%s: %lld prompts", s->prompts.input, (long long)run->given.prompts.n);
    } else if (trains(s)) {
        QP_TRY(qp_comm_agree(
            run->comm, qp_prompts_from_texts(&model, &s->samples.prompts, &run->given.prompts)));
    }
    run->size.answer_tokens = trains(s) ? s->samples.max_new_tokens : s->generate.max_new_tokens;
    return NULL;
}

/* The scalar head that the method wants of the adapter. */
static void choose_head(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    if (s->job.method == QP_METHOD_REWARD)
        run->given.head = (qp_head_config_t){
            .kind = QP_HEAD_SCORE, .init = QP_HEAD_NORMAL, .init_std = s->reward.score_init_std};
    else if (s->job.method == QP_METHOD_PPO)
        run->given.head = (qp_head_config_t){.kind = QP_HEAD_VALUE,
                                             .init = s->ppo.value_head_init,
                                             .dropout = s->ppo.summary_dropout_prob};
    else if (s->job.method == QP_METHOD_EVAL && run->given.eval != NULL &&
             strcmp(qp_dataset_kind(run->given.eval), "reward") == 0)
        run->given.head = (qp_head_config_t){.kind = QP_HEAD_SCORE, .required = true};
}

/* Whom the policy is compared with. Collective. */
static qp_error_t open_rival(qp_run_t *run)
{
    const char *rival = run->settings->compare.against;
    run->given.has_rival = rival != NULL;
    if (rival == NULL || strcmp(rival, "base") == 0)
        return NULL;
    return qp_error_context(qp_lora_from_folder(run->comm, rival, &run->given.rival_lora),
                            "compare.against");
}

/* Whether the adapters that are read later fit the base. One without weights plans and does no
 * more, and its adapters may be of another size. Collective. */
static qp_error_t check_adapters(const qp_run_t *run)
{
    const qp_run_given_t *given = &run->given;
    const qp_lora_config_t *lora = &run->settings->lora;
    qp_error_t error = NULL;
    if (given->info.has_weights && qp_comm_rank(run->comm) == 0) {
        if (lora->init != NULL)
            error = qp_lora_check_init(lora, &given->head, &given->info.config);
        if (error == NULL && given->rival_lora.init != NULL)
            error =
                qp_error_context(qp_lora_check_init(&given->rival_lora, NULL, &given->info.config),
                                 "compare.against");
        if (error == NULL && given->scorer != NULL)
            error = qp_scorer_check_files(given->scorer, &given->info.config);
    }
    return qp_comm_agree(run->comm, error);
}

static void describe(const qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    const qp_llama_config_t *c = &run->given.info.config;
    qp_log_info("quipu %s: %s, ranks: %d, nodes: %d, %s", qp_version(),
                qp_method_name(s->job.method), qp_comm_size(run->comm), qp_comm_n_node(run->comm),
                qp_device_describe(run->device));
    qp_log_info("base %s: %s, LM head %s; %lld layers, d_model %lld, %lld/%lld heads, %lld tokens "
                "in the vocabulary",
                s->base.file, qp_precision_name(run->given.info.kinds.linear),
                qp_precision_name(run->given.info.kinds.lm_head), (long long)c->n_layer,
                (long long)c->d_model, (long long)c->n_head, (long long)c->n_kv_head,
                (long long)c->n_vocab);
}

/* Tokens that a model does not have, samples that teach nothing: known before the first step. */
static qp_error_t check_tokens(const qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    const bool learns = s->job.method == QP_METHOD_SFT || s->job.method == QP_METHOD_DPO;
    const bool texts =
        run->given.eval != NULL && strcmp(qp_dataset_kind(run->given.eval), "sft") == 0;
    qp_dataset_use_t use = {run->given.info.config.n_vocab, learns, s->data.completion_only};
    if (run->given.scorer != NULL)
        use.n_vocab = qp_scorer_n_vocab(run->given.scorer, use.n_vocab);
    if (run->given.train != NULL)
        QP_TRY(qp_dataset_check(run->comm, run->given.train, &use, "data.train"));
    use.learns = learns || texts;
    if (run->given.eval != NULL)
        QP_TRY(qp_dataset_check(run->comm, run->given.eval, &use, "data.eval"));
    for (int64_t i = 0; i < run->given.prompts.n; i++)
        for (int64_t t = 0; t < run->given.prompts.tokens[i].n; t++)
            if (run->given.prompts.tokens[i].id[t] >= run->given.info.config.n_vocab)
                return QP_ERROR(QP_INPUT, "prompt %lld has token %d, but the model has %lld tokens",
                                (long long)i + 1, (int)run->given.prompts.tokens[i].id[t],
                                (long long)run->given.info.config.n_vocab);
    return NULL;
}

qp_error_t qp_run_look(qp_comm_t *comm, const qp_settings_t *settings, bool dry, qp_run_t *run)
{
    qp_error_t error = NULL;
    *run = (qp_run_t){.comm = comm, .settings = settings, .size = {.n_rank = qp_comm_size(comm)}};
    run->folder = qp_format("%s/%s", settings->job.output, settings->job.name);
    run->given.has_adapter = trains(settings) || settings->lora.init != NULL;
    qp_log_init((qp_log_level_t)settings->log.level, qp_comm_rank(comm));
    if (qp_comm_rank(comm) == 0)
        error = begin(run, dry);
    QP_TRY(qp_comm_agree(comm, error));
    QP_TRY(open_device(run, dry));
    if (qp_log_level() >= QP_LOG_STAT)
        qp_device_time_ops(run->device);
    QP_TRY(qp_comm_agree(comm, qp_error_context(open_base(run, dry), "base.file")));
    describe(run);
    if (trains(settings) && !settings->device.elsewhere) /* the whole run is planned there */
        QP_TRY(qp_run_find_checkpoint(run));
    if (trains(settings))
        QP_TRY(open_train_data(run));
    if (settings->job.method != QP_METHOD_GENERATE)
        QP_TRY(open_eval_data(run));
    QP_TRY(open_prompts(run));
    if (qp_run_rolls_out(run)) {
        QP_TRY(qp_scorer_open(comm, settings, run->given.tokenizer, &run->given.scorer));
        QP_TRY(open_rival(run));
    }
    QP_TRY(check_tokens(run));
    if (trains(settings) && !settings->device.elsewhere)
        QP_TRY(qp_run_check_checkpoint(run));
    choose_head(run);
    QP_TRY(qp_run_size(run));
    return check_adapters(run);
}

qp_error_t qp_run_open(qp_comm_t *comm, const qp_settings_t *settings, bool dry, qp_run_t *run)
{
    QP_TRY(qp_run_look(comm, settings, dry, run));
    QP_TRY(qp_memory_plan_init(&run->plan, comm, run->device));
    qp_run_plan(run);
    qp_memory_plan_print(&run->plan);
    return qp_memory_plan_check(&run->plan);
}

/* The reward model, beside the policy or on its base. Collective. */
static qp_error_t load_scorer(qp_run_t *run)
{
    const qp_scorer_host_t host = {.comm = run->comm,
                                   .device = run->device,
                                   .base_config = &run->settings->base,
                                   .base = run->model.base,
                                   .ws = run->model.ws,
                                   .tokenizer = run->given.tokenizer,
                                   .eos = run->given.eos,
                                   .n_position = run->size.n_position,
                                   .max_token = qp_run_max_token(run),
                                   .micro_sequences = run->settings->batch.micro_sequences};
    return qp_scorer_load(run->given.scorer, &host);
}

qp_error_t qp_run_load(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    QP_TRY(qp_memory_plan_take(&run->plan, run->comm, run->device));
    double start = qp_time();
    QP_TRY(qp_base_load(run->comm, run->device, &s->base, run->size.n_position, &run->model.base));
    const double seconds = qp_time() - start;
    const qp_base_shape_t shape = qp_base_shape(run->model.base);
    const size_t bytes = qp_base_bytes(&shape, run->size.n_position);
    qp_log_info("base loaded in %.2f s (%.2f GB/s)", seconds, (double)bytes / 1e9 / seconds);
    if (run->given.head.required && s->lora.init == NULL) {
        QP_TRY(qp_adapter_of_merged(run->comm, run->model.base, s->base.file, &run->model.adapter));
    } else if (run->given.has_adapter) {
        QP_TRY(qp_adapter_create(run->comm, run->model.base, &s->lora, &run->given.head,
                                 (uint32_t)s->job.seed, &run->model.adapter));
        qp_log_info("adapter: r = %lld, %lld parameters", (long long)run->model.adapter->r,
                    (long long)run->model.adapter->n_param);
    }
    if (run->given.rival_lora.init != NULL)
        QP_TRY(
            qp_error_context(qp_adapter_create(run->comm, run->model.base, &run->given.rival_lora,
                                               NULL, 0, &run->model.rival),
                             "compare.against"));
    qp_error_t error = NULL;
    const qp_lora_config_t widest = qp_run_widest_lora(run);
    if (qp_run_max_token(run) > 0)
        error = qp_workspace_create(run->model.base, &widest, qp_run_max_token(run),
                                    run->size.recompute, &run->model.ws);
    if (error == NULL && run->size.n_generate > 0)
        error = qp_engine_create(run->model.base, &widest, &run->size.generate,
                                 run->size.n_generate, run->model.ws, &run->model.engine);
    QP_TRY(qp_comm_agree(run->comm, error));
    return run->given.scorer != NULL ? load_scorer(run) : NULL;
}

void qp_run_close(qp_run_t *run)
{
    qp_scorer_destroy(run->comm, &run->given.scorer);
    qp_engine_destroy(&run->model.engine);
    qp_workspace_destroy(&run->model.ws);
    qp_adapter_destroy(&run->model.adapter);
    qp_adapter_destroy(&run->model.rival);
    qp_base_destroy(run->comm, &run->model.base);
    qp_prompts_fini(&run->given.prompts);
    qp_plan_destroy(&run->given.eval_plan);
    qp_dataset_close(&run->given.eval);
    qp_dataset_close(&run->given.train);
    qp_tokenizer_destroy(&run->given.tokenizer);
    qp_base_info_fini(&run->given.info);
    qp_device_close(&run->device);
    qp_owner_release(&run->owner);
    qp_str_fini(&run->given.inputs);
    QP_FREE(run->given.began_with);
    QP_FREE(run->given.checkpoint);
    QP_FREE(run->folder);
}

qp_role_t qp_run_role(const qp_run_t *run)
{
    return (qp_role_t){run->model.base, run->model.adapter};
}

qp_answerer_t qp_run_answerer(const qp_run_t *run, qp_role_t role)
{
    return (qp_answerer_t){.comm = run->comm,
                           .engine = run->model.engine,
                           .role = role,
                           .tokenizer = run->given.tokenizer,
                           .eos = run->given.eos,
                           .seed = (uint32_t)run->settings->job.seed};
}

qp_error_t qp_run_answer(const qp_run_t *run, int64_t step, qp_str_t *lines,
                         qp_answer_count_t *count)
{
    const qp_answerer_t who = qp_run_answerer(run, qp_run_role(run));
    const qp_answer_config_t config = {.n_answer = run->size.generate.num_return_sequences,
                                       .max_new_tokens = run->size.answer_tokens,
                                       .step = step};
    return qp_answer(&who, &run->given.prompts, &config, lines, count);
}

qp_model_batch_t qp_run_batch(const qp_batch_t *batch)
{
    return (qp_model_batch_t){.n_token = batch->n_token,
                              .n_seq = batch->n_seq,
                              .token = batch->token,
                              .target = batch->target,
                              .position = batch->position,
                              .cu_seqlens = batch->cu_seqlens,
                              .sample = batch->sample};
}
