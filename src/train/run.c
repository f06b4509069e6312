#include "train/run.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/env.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "train/accumulate.h"

static bool trains(const qp_settings_t *settings)
{
    return settings->job.method == QP_METHOD_SFT;
}

/* mkdir -p */
static qp_error_t make_folder(const char *path)
{
    char *part = qp_strdup(path);
    qp_error_t error = NULL;
    for (char *slash = part; slash != NULL && error == NULL;) {
        slash = strchr(slash + 1, '/');
        if (slash != NULL)
            *slash = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            error = QP_ERROR(QP_IO, "%s: the folder cannot be made: %s", part, strerror(errno));
        if (slash != NULL)
            *slash = '/';
    }
    qp_free(part);
    return error;
}

/* The run's folder, quipu.log and used.cfg. Rank 0. */
static qp_error_t open_folder(const qp_run_t *run)
{
    char *log = qp_format("%s/quipu.log", run->folder);
    char *used = qp_format("%s/used.cfg", run->folder);
    qp_error_t error = make_folder(run->folder);
    if (error == NULL && !qp_log_tee(log))
        error = QP_ERROR(QP_IO, "%s: cannot be written: %s", log, strerror(errno));
    if (error == NULL)
        error = qp_file_write(used, run->settings->used.data, run->settings->used.n);
    qp_free(log);
    qp_free(used);
    return error;
}

/* Cores for this rank, unless the user has placed its threads, and the device on them. */
static qp_error_t open_device(qp_run_t *run)
{
    static const char *const placed_by[] = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"};
    qp_device_config_t config = run->settings->device;
    bool placed = false;
    for (size_t i = 0; i < sizeof placed_by / sizeof placed_by[0]; i++)
        placed |= qp_env(placed_by[i]) != NULL;
    int n_core = qp_comm_take_cores(run->comm, config.threads, !placed);
    if (config.threads == 0)
        config.threads = n_core;
    return qp_comm_agree(run->comm, qp_device_open(&config, qp_comm_node_rank(run->comm),
                                                   qp_comm_node_size(run->comm), &run->device));
}

/* What stands in the base's header: architecture and tokenizer. Rank-local. */
static qp_error_t open_base(qp_run_t *run)
{
    const qp_base_config_t *config = &run->settings->base;
    qp_tokenizer_files_t files = {0};
    qp_h5_t *file = NULL;
    qp_error_t error = NULL;
    QP_TRY(qp_h5_open(config->file, NULL, &file));
    QP_TRY_DONE(qp_base_info_read(file, &run->info));
    QP_TRY_DONE(qp_base_tokenizer_read(file, &files));
    QP_TRY_DONE(qp_error_context(qp_tokenizer_create(&files, &run->tokenizer), "%s", config->file));
done:
    qp_tokenizer_files_fini(&files);
    if (error == NULL)
        return qp_h5_close(&file);
    qp_error_t second = qp_h5_close(&file);
    qp_error_destroy(&second);
    return error;
}

static qp_error_t open_eval_data(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    if (s->data.eval.n == 0)
        return NULL;
    qp_data_config_t config = s->data;
    config.shuffle = false;
    QP_TRY(qp_error_context(qp_dataset_open(run->comm, &s->data.eval, "sft",
                                            qp_tokenizer_id(run->tokenizer), &run->eval),
                            "data.eval"));
    QP_TRY(qp_comm_agree(run->comm,
                         qp_plan_create(run->eval, &config, qp_tokenizer_eos(run->tokenizer),
                                        (uint32_t)s->job.seed, 0, &run->eval_plan)));
    qp_log_info("data.eval: %lld samples, %lld tokens, %lld rows",
                (long long)qp_dataset_n_sample(run->eval), (long long)qp_dataset_n_token(run->eval),
                (long long)qp_plan_n_row(run->eval_plan));
    qp_plan_log(run->eval_plan, run->eval, &config, "data.eval");
    return NULL;
}

static qp_error_t open_train_data(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    qp_plan_t *epoch = NULL;
    QP_TRY(qp_error_context(qp_dataset_open(run->comm, &s->data.train, "sft",
                                            qp_tokenizer_id(run->tokenizer), &run->train),
                            "data.train"));
    QP_TRY(qp_comm_agree(run->comm,
                         qp_plan_create(run->train, &s->data, qp_tokenizer_eos(run->tokenizer),
                                        (uint32_t)s->job.seed, 0, &epoch)));
    int64_t n_row = qp_plan_n_row(epoch), n_left_out = qp_plan_n_left_out(epoch);
    qp_plan_destroy(&epoch);
    if (n_row < s->batch.global_sequences)
        return QP_ERROR(
            QP_INPUT,
            "data.train: an epoch has %lld rows of at most %lld tokens (data.overlong "
            "leaves out %lld of %lld samples), fewer than batch.global_sequences = %lld",
            (long long)n_row, (long long)s->data.seq_length, (long long)n_left_out,
            (long long)qp_dataset_n_sample(run->train), (long long)s->batch.global_sequences);
    qp_log_info("data.train: %lld samples, %lld tokens, %lld rows; %lld steps of %lld rows are "
                "%.2f epochs",
                (long long)qp_dataset_n_sample(run->train),
                (long long)qp_dataset_n_token(run->train), (long long)n_row,
                (long long)s->optim.steps, (long long)s->batch.global_sequences,
                (double)s->optim.steps * (double)s->batch.global_sequences / (double)n_row);
    return NULL;
}

/* A file that cannot be made is refused now, not after all the work. */
static qp_error_t check_output(const qp_run_t *run)
{
    const char *output = run->settings->prompts.output;
    FILE *file;
    if (output == NULL || qp_comm_rank(run->comm) != 0)
        return NULL;
    QP_TRY(qp_error_context(qp_file_scratch(output, &file), "prompts.output"));
    fclose(file);
    return NULL;
}

static qp_error_t open_prompts(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    run->generate = s->generate;
    if (s->job.method == QP_METHOD_GENERATE) {
        QP_TRY(qp_comm_agree(run->comm, check_output(run)));
        QP_TRY(qp_prompts_from_file(run->comm, run->tokenizer, s->prompts.input, &run->prompts));
        qp_log_info("%s: %lld prompts", s->prompts.input, (long long)run->prompts.n);
    } else if (trains(s)) {
        QP_TRY(qp_comm_agree(
            run->comm, qp_prompts_from_texts(run->tokenizer, &s->samples.prompts, &run->prompts)));
        run->generate.max_new_tokens = s->samples.max_new_tokens;
    }
    int64_t n_answer = run->prompts.n * run->generate.num_return_sequences;
    if (run->prompts.n > 0 && run->generate.max_active > n_answer)
        run->generate.max_active = n_answer;
    return NULL;
}

/* Longest prompt + answer; 0 without prompts. */
static int64_t answer_length(const qp_run_t *run)
{
    return run->prompts.n > 0 ? run->prompts.longest + run->generate.max_new_tokens : 0;
}

static qp_error_t check_positions(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    int64_t answer = answer_length(run), most = run->info.config.max_position;
    int64_t row = s->job.method == QP_METHOD_GENERATE ? 0 : s->data.seq_length;
    run->n_position = answer > row ? answer : row;
    if (run->n_position > most)
        return QP_ERROR(QP_INPUT, "%s is %lld tokens, but the base has %lld positions",
                        row > answer ? "data.seq_length" : "the longest prompt with its answer",
                        (long long)run->n_position, (long long)most);
    return NULL;
}

/* What the backend keeps besides what it is given. */
static size_t scratch_bytes(const qp_run_t *run, int64_t n_token)
{
    const qp_llama_config_t *c = &run->info.config;
    qp_pass_size_t size = {
        .n_token = n_token,
        .d_model = c->d_model,
        .n_vocab = c->n_vocab,
        .attention = {.n_head = c->n_head, .n_kv_head = c->n_kv_head, .head_dim = c->head_dim},
        .backward = trains(run->settings),
        .outliers = run->info.precision == QP_PRECISION_LLM_INT8};
    for (int g = 0; g < QP_N_GROUP; g++) {
        int64_t n_in = qp_group_n_in(c, (qp_group_t)g), n_out = qp_group_n_out(c, (qp_group_t)g);
        int64_t n = n_in > n_out ? n_in : n_out;
        size.widest = n > size.widest ? n : size.widest;
    }
    return run->device->ops->scratch_bytes(run->device, &size);
}

/* Fills the memory plan and chooses what to recompute. */
static qp_error_t make_plan(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    qp_memory_plan_t *plan = &run->plan;
    bool target[QP_N_LINEAR];
    /* The sizes follow from the header of the base; its tensors are not there yet. */
    const qp_base_t sketch = {.config = run->info.config,
                              .precision = run->info.precision,
                              .base_id = run->info.base_id,
                              .device = run->device};
    int64_t max_token = s->batch.micro_sequences * s->data.seq_length;
    QP_TRY(qp_lora_targets(&s->lora, target));
    run->n_param = qp_lora_n_param(&run->info.config, target, s->lora.r);
    qp_memory_plan_add(plan, "base", qp_base_bytes(run->device, &run->info, run->n_position),
                       run->device->host_addressable);
    if (run->has_adapter)
        qp_memory_plan_add(plan, "adapter", qp_bytes(run->n_param, 2 * sizeof(float) + 2), false);
    if (trains(s)) {
        qp_memory_plan_add(plan, "optimiser", qp_optim_bytes(run->n_param), false);
        qp_memory_plan_add(
            plan, "gradient sums",
            qp_accumulator_bytes(qp_comm_size(run->comm), qp_settings_n_micro(s), run->n_param),
            false);
    }
    if (run->prompts.n > 0)
        qp_memory_plan_add(plan, "KV cache",
                           qp_engine_bytes(&sketch, &s->lora, &run->generate, answer_length(run)),
                           false);
    bool computes_rows = s->job.method != QP_METHOD_GENERATE;
    qp_memory_plan_add(
        plan, "scratch",
        scratch_bytes(run, computes_rows ? max_token
                                         : qp_engine_max_token(&run->generate, answer_length(run))),
        false);
    if (!computes_rows)
        return NULL;
    run->recompute = (qp_recompute_t)s->device.recompute;
    if (run->recompute == QP_RECOMPUTE_AUTO) {
        size_t all = qp_workspace_bytes(&sketch, &s->lora, max_token, QP_RECOMPUTE_NONE);
        run->recompute =
            qp_memory_plan_fits(plan, run->comm, all) ? QP_RECOMPUTE_NONE : QP_RECOMPUTE_LAYER;
    }
    qp_memory_plan_add(plan, "workspace",
                       qp_workspace_bytes(&sketch, &s->lora, max_token, run->recompute), false);
    return NULL;
}

static void describe(const qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    const qp_llama_config_t *c = &run->info.config;
    qp_log_info("quipu %s: %s, ranks: %d, nodes: %d, %s", qp_version(),
                qp_method_name(s->job.method), qp_comm_size(run->comm), qp_comm_n_node(run->comm),
                qp_device_describe(run->device));
    qp_log_info(
        "base %s: %s, %lld layers, d_model %lld, %lld/%lld heads, %lld tokens in the vocabulary",
        s->base.file, qp_precision_name(run->info.precision), (long long)c->n_layer,
        (long long)c->d_model, (long long)c->n_head, (long long)c->n_kv_head,
        (long long)c->n_vocab);
}

qp_error_t qp_run_open(qp_comm_t *comm, const qp_settings_t *settings, bool dry, qp_run_t *run)
{
    qp_error_t error = NULL;
    *run = (qp_run_t){.comm = comm, .settings = settings};
    run->folder = qp_format("%s/%s", settings->job.output, settings->job.name);
    run->has_adapter = trains(settings) || settings->lora.init != NULL;
    qp_log_init((qp_log_level_t)settings->log.level, qp_comm_rank(comm));
    if (!dry && qp_comm_rank(comm) == 0)
        error = open_folder(run);
    QP_TRY(qp_comm_agree(comm, error));
    QP_TRY(open_device(run));
    if (qp_log_level() >= QP_LOG_STAT)
        qp_device_time_ops(run->device);
    QP_TRY(qp_comm_agree(comm, open_base(run)));
    describe(run);
    if (settings->lora.init != NULL && qp_comm_rank(comm) == 0)
        error = qp_lora_check_init(&settings->lora, &run->info.config);
    QP_TRY(qp_comm_agree(comm, error));
    if (trains(settings))
        QP_TRY(open_train_data(run));
    if (settings->job.method != QP_METHOD_GENERATE)
        QP_TRY(open_eval_data(run));
    QP_TRY(open_prompts(run));
    QP_TRY(check_positions(run));
    qp_memory_plan_init(&run->plan, comm);
    QP_TRY(qp_comm_agree(comm, make_plan(run)));
    qp_memory_plan_print(&run->plan, comm);
    return qp_memory_plan_check(&run->plan, comm);
}

qp_error_t qp_run_load(qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    double start = qp_time();
    QP_TRY(qp_base_load(run->comm, run->device, &s->base, run->n_position, &run->base));
    const double seconds = qp_time() - start;
    const size_t bytes = qp_base_bytes(run->device, &run->info, run->n_position);
    qp_log_info("base loaded in %.2f s (%.2f GB/s)", seconds, (double)bytes / 1e9 / seconds);
    if (run->has_adapter) {
        QP_TRY(qp_adapter_create(run->comm, run->base, &s->lora, (uint32_t)s->job.seed,
                                 &run->adapter));
        qp_log_info("adapter: r = %lld, %lld parameters", (long long)run->adapter->r,
                    (long long)run->adapter->n_param);
    }
    qp_error_t error = NULL;
    if (s->job.method != QP_METHOD_GENERATE)
        error =
            qp_workspace_create(run->base, &s->lora, s->batch.micro_sequences * s->data.seq_length,
                                run->recompute, &run->ws);
    if (error == NULL && run->prompts.n > 0)
        error =
            qp_engine_create(run->base, &s->lora, &run->generate, answer_length(run), &run->engine);
    return qp_comm_agree(run->comm, error);
}

void qp_run_close(qp_run_t *run)
{
    qp_engine_destroy(&run->engine);
    qp_workspace_destroy(&run->ws);
    qp_adapter_destroy(&run->adapter);
    qp_base_destroy(run->comm, &run->base);
    qp_prompts_fini(&run->prompts);
    qp_plan_destroy(&run->eval_plan);
    qp_dataset_close(&run->eval);
    qp_dataset_close(&run->train);
    qp_tokenizer_destroy(&run->tokenizer);
    qp_base_info_fini(&run->info);
    qp_device_close(&run->device);
    QP_FREE(run->folder);
}

qp_role_t qp_run_role(const qp_run_t *run)
{
    return (qp_role_t){run->base, run->adapter};
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
