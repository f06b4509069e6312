#include "train/settings.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/duration.h"
#include "base/mem.h"
#include "base/version.h"
#include "compute/device_deck.h"

/* The groups of the deck in the order of the documentation: each is a struct of qp_settings_t. */
#define GROUPS(X)   \
    X(job)          \
    X(base)         \
    X(lora)         \
    X(data)         \
    X(batch)        \
    X(optim)        \
    X(eval)         \
    X(checkpoint)   \
    X(device)       \
    X(generate)     \
    X(samples)      \
    X(prompts)      \
    X(reward)       \
    X(reward_model) \
    X(compare)      \
    X(ppo)          \
    X(dpo)          \
    X(log)
#define GROUP(name) &qp_##name##_deck,
#define OFFSET(name) offsetof(qp_settings_t, name),
static const qp_deck_group_t *const group[] = {GROUPS(GROUP)};
static const size_t offset[] = {GROUPS(OFFSET)};
#undef OFFSET
#undef GROUP
#undef GROUPS
enum { N_GROUP = sizeof group / sizeof group[0] };

#define METHOD_ROW(id, name, trains, kind) [id] = {name, kind, trains},
static const struct {
    const char *name, *shards;
    bool trains;
} method[QP_N_METHOD] = {QP_METHODS(METHOD_ROW)};
#undef METHOD_ROW

const char *qp_method_name(int id)
{
    return method[id].name;
}

bool qp_method_trains(int id)
{
    return method[id].trains;
}

const char *qp_method_shards(int id)
{
    return method[id].shards;
}

const qp_deck_group_t *const *qp_settings_groups(int *n_group)
{
    *n_group = N_GROUP;
    return group;
}

int64_t qp_settings_update_sequences(const qp_settings_t *s)
{
    if (s->job.method != QP_METHOD_PPO || s->ppo.mini_batch_sequences == 0)
        return s->batch.global_sequences;
    return s->ppo.mini_batch_sequences;
}

int64_t qp_settings_n_micro(const qp_settings_t *s)
{
    int64_t micro = s->batch.micro_sequences;
    return (qp_settings_update_sequences(s) + micro - 1) / micro;
}

int64_t qp_settings_max_response(const qp_settings_t *s)
{
    return s->ppo.output_max_length > 0 ? s->ppo.output_max_length : s->generate.max_new_tokens;
}

/* Appends "where: text" as one more message of the report. */
__attribute__((format(printf, 4, 5))) static void
complain(qp_str_t *report, const qp_deck_t *deck, const char *path, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char *where = qp_deck_where(deck, path);
    qp_str_printf(report, "%s%s: %s", report->n > 0 ? QP_ERROR_NEXT : "", where, text);
    qp_free(where);
}

static void check_duration(qp_str_t *report, const qp_deck_t *deck, const char *path,
                           const char *text, double *seconds)
{
    *seconds = -1.0;
    if (text != NULL && strcmp(text, "auto") != 0 && !qp_duration_parse(text, seconds))
        complain(report, deck, path,
                 "\"%s\" is neither \"auto\" nor seconds nor m:ss, h:mm:ss, days-hh, days-hh:mm or "
                 "days-hh:mm:ss with hh below 24 and mm and ss below 60",
                 text);
}

static void check_ppo(qp_str_t *report, const qp_settings_t *s)
{
    const qp_ppo_config_t *ppo = &s->ppo;
    const qp_reward_model_config_t *reward = &s->reward_model;
    const int64_t update = qp_settings_update_sequences(s);
    if (s->batch.global_sequences % update != 0)
        complain(report, s->deck, "ppo.mini_batch_sequences",
                 "%lld does not divide batch.global_sequences = %lld", (long long)update,
                 (long long)s->batch.global_sequences);
    if (update % (ppo->dropped_accumulation * s->batch.micro_sequences) != 0)
        complain(report, s->deck, "ppo.dropped_accumulation",
                 "%lld parts of micro_sequences = %lld do not divide a mini-batch of %lld",
                 (long long)ppo->dropped_accumulation, (long long)s->batch.micro_sequences,
                 (long long)update);
    if (ppo->output_min_length > ppo->output_max_length &&
        (ppo->output_max_length > 0 || ppo->output_min_length > 1))
        complain(report, s->deck, "ppo.output_min_length",
                 "%lld is more than output_max_length = %lld", (long long)ppo->output_min_length,
                 (long long)ppo->output_max_length);
    const bool model = reward->adapter != NULL || reward->base != NULL;
    if (model == (reward->command.n > 0))
        complain(report, s->deck, "reward_model.adapter",
                 model
                     ? "rewards come from a model or from reward_model.command, not from both"
                     : "job.method = \"ppo\" needs rewards: an adapter, a base with a score head, "
                       "or a command");
}

/* What no single key can say. */
static qp_error_t check(int n_rank, qp_settings_t *s)
{
    const qp_deck_t *deck = s->deck;
    qp_str_t report = {0};
    qp_checkpoint_config_t *c = &s->checkpoint;
    bool trains = qp_method_trains(s->job.method);
    check_duration(&report, deck, "checkpoint.walltime", c->walltime, &c->walltime_seconds);
    check_duration(&report, deck, "checkpoint.walltime_margin", c->walltime_margin,
                   &c->walltime_margin_seconds);
    if (c->walltime_seconds == 0.0)
        complain(&report, deck, "checkpoint.walltime", "\"%s\" must be longer than 0", c->walltime);
    if (s->job.name[0] == '\0' || s->job.name[0] == '.' || strchr(s->job.name, '/') != NULL)
        complain(&report, deck, "job.name",
                 "\"%s\" must be a folder's name: not empty, no \"/\", no leading \".\"",
                 s->job.name);
    if (trains && s->optim.warmup_steps > s->optim.steps)
        complain(&report, deck, "optim.warmup_steps", "%lld is more than optim.steps = %lld",
                 (long long)s->optim.warmup_steps, (long long)s->optim.steps);
    const int64_t update = qp_settings_update_sequences(s);
    const char *update_name =
        update == s->batch.global_sequences ? "global_sequences" : "ppo.mini_batch_sequences";
    if (trains && update % s->batch.micro_sequences != 0)
        complain(&report, deck, "batch.micro_sequences", "%lld does not divide %s = %lld",
                 (long long)s->batch.micro_sequences, update_name, (long long)update);
    else if (trains && n_rank > qp_settings_n_micro(s))
        complain(&report, deck, "batch.micro_sequences",
                 "%d ranks, but a step has only %lld micro-batches (%s = %lld / "
                 "micro_sequences = %lld): start fewer ranks or make micro_sequences smaller",
                 n_rank, (long long)qp_settings_n_micro(s), update_name, (long long)update,
                 (long long)s->batch.micro_sequences);
    if (s->job.method == QP_METHOD_PPO)
        check_ppo(&report, s);
    if (trains && s->data.train.n == 0)
        complain(&report, deck, "data.train",
                 "job.method = \"%s\" needs it (shards of kind \"%s\")",
                 qp_method_name(s->job.method), qp_method_shards(s->job.method));
    if (s->job.method == QP_METHOD_EVAL && s->data.eval.n == 0)
        complain(&report, deck, "data.eval", "job.method = \"eval\" needs it");
    if (s->generate.min_new_tokens > s->generate.max_new_tokens)
        complain(&report, deck, "generate.min_new_tokens",
                 "%lld is more than max_new_tokens = %lld", (long long)s->generate.min_new_tokens,
                 (long long)s->generate.max_new_tokens);
    if (s->generate.num_return_sequences > 1 && !s->generate.do_sample)
        complain(&report, deck, "generate.num_return_sequences",
                 "%lld answers to a prompt are all the same without do_sample = true",
                 (long long)s->generate.num_return_sequences);
    qp_error_t error = report.n > 0 ? QP_ERROR(QP_INPUT, "%s", report.data) : NULL;
    qp_str_fini(&report);
    return error;
}

/* An adapter to start from states its rank, scale and targets itself: the deck need not. */
static qp_error_t adopt_init(qp_comm_t *comm, qp_deck_t *deck)
{
    qp_lora_config_t lora;
    qp_str_t lines = {0};
    qp_error_t error = NULL;
    qp_deck_fill(deck, &qp_lora_deck, &lora);
    if (lora.init == NULL)
        return NULL;
    if (comm == NULL || qp_comm_rank(comm) == 0)
        error = qp_lora_init_values(lora.init, &lines);
    void *text = lines.data;
    size_t n_bytes = lines.n + 1; /* with its NUL */
    if (comm != NULL)
        error = qp_comm_agree(comm, error);
    if (error == NULL && comm != NULL)
        qp_comm_bcast_block(comm, &text, &n_bytes, 0);
    if (error == NULL)
        error = qp_error_context(qp_deck_adopt(deck, "lora.init", text), "%s", lora.init);
    qp_free(text);
    return error;
}

/* What else a method takes for granted; the deck may say otherwise. */
static qp_error_t adopt_method(qp_deck_t *deck)
{
    static const struct {
        qp_method_id_t method;
        const char *lines;
    } taken[] = {
        {QP_METHOD_REWARD, "data.packing=none\n"},
        {QP_METHOD_DPO, "data.packing=none\ndata.completion_only=true\n"},
        {QP_METHOD_PPO, "data.packing=none\ngenerate.do_sample=true\n"},
    };
    static const char trl_0_4_2[] =
        "ppo.value_head_init=linear\nppo.summary_dropout_prob=0.1\nppo.dropout=true\n"
        "ppo.stop_at_eos=false\nppo.output_min_length=32\nppo.output_max_length=127\n"
        "ppo.early_stopping=true\nppo.target_kl=0.1\nppo.ratio_threshold=0\n"
        "ppo.whiten_advantages=sequence\nppo.dropped_accumulation=8\n"
        "optim.lr=1.4e-5\noptim.schedule=constant\noptim.max_grad_norm=0\n";
    qp_job_config_t job;
    qp_deck_fill(deck, &qp_job_deck, &job);
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
        if (job.method == (int)taken[i].method)
            QP_TRY(qp_deck_adopt(deck, "job.method", taken[i].lines));
    if (job.method != QP_METHOD_PPO)
        return NULL;
    qp_ppo_config_t ppo;
    qp_deck_fill(deck, &qp_ppo_deck, &ppo);
    return ppo.preset == QP_PPO_TRL_0_4_2 ? qp_deck_adopt(deck, "ppo.preset", trl_0_4_2) : NULL;
}

/*
 * device.backend and device.compute, where "auto", become what they stand for, so that they are in
 * used.cfg and the compute type is in a checkpoint's fingerprint. Where the nodes differ, all
 * compute on and as the least of them.
 */
static qp_error_t adopt_device(qp_comm_t *comm, qp_deck_t *deck)
{
    static const char *const name[] = {
        [QP_BACKEND_CPU] = "cpu", [QP_BACKEND_CUDA] = "cuda", [QP_BACKEND_CHECK] = "check"};
    qp_device_config_t asked, here;
    const char *why;
    qp_deck_fill(deck, &qp_device_deck, &asked);
    here = asked;
    QP_TRY(qp_device_resolve(&here, &why));
    uint64_t not_cuda = here.backend == QP_BACKEND_CUDA ? 0 : 1;
    if (comm != NULL)
        not_cuda = qp_comm_agree_bits(comm, not_cuda);
    if (why != NULL && not_cuda && here.backend == QP_BACKEND_CUDA) {
        const char *none;
        why = "another node has no GPU that this program can use";
        here = asked;
        here.backend = QP_BACKEND_CPU;
        QP_TRY(qp_device_resolve(&here, &none));
    }
    if (why != NULL) {
        char *line = qp_format("device.backend=%s", name[here.backend]);
        qp_error_t error = qp_deck_adopt(deck, why, line);
        qp_free(line);
        QP_TRY(error);
    }
    if (asked.compute != QP_COMPUTE_AUTO)
        return NULL;
    uint64_t fp32 = here.compute == QP_COMPUTE_FP32;
    if (comm != NULL)
        fp32 = qp_comm_agree_bits(comm, fp32);
    return qp_deck_adopt(deck,
                         here.backend == QP_BACKEND_CUDA ? "auto on a GPU" : "auto on this CPU",
                         fp32 ? "device.compute=fp32" : "device.compute=bf16");
}

/* What a deck says, and what follows from it on this machine, or on another one that takes values
 * for granted (NULL: on this one). Collective. */
static qp_error_t read_deck(qp_comm_t *comm, const char *taken, const char *path,
                            const char *const *sets, int n_set, qp_deck_t **deck)
{
    int n_group;
    const qp_deck_group_t *const *groups = qp_settings_groups(&n_group);
    QP_TRY(qp_deck_read(comm, path, groups, n_group, sets, n_set, deck));
    QP_TRY(adopt_init(comm, *deck));
    QP_TRY(adopt_method(*deck));
    if (taken != NULL)
        QP_TRY(qp_deck_adopt(*deck, "--plan-for", taken));
    return adopt_device(comm, *deck);
}

static qp_error_t fill(int n_rank, const char *command, qp_settings_t *settings)
{
    for (int i = 0; i < N_GROUP; i++)
        qp_deck_fill(settings->deck, group[i], (char *)settings + offset[i]);
    settings->deck_hash = qp_deck_hash(settings->deck);
    qp_deck_fingerprint(settings->deck, &settings->fingerprint);
    qp_deck_at_default(settings->deck, &settings->at_default);
    char *header = qp_format("quipu %s\n%s", qp_version(), command);
    qp_deck_echo(settings->deck, header, &settings->used);
    qp_free(header);
    QP_TRY(qp_lora_resolve(&settings->lora));
    return check(n_rank, settings);
}

qp_error_t qp_settings_read_for(qp_comm_t *comm, const char *taken, const char *path,
                                const char *const *sets, int n_set, const char *command,
                                qp_settings_t *settings)
{
    *settings = (qp_settings_t){0};
    qp_error_t error = read_deck(comm, taken, path, sets, n_set, &settings->deck);
    if (error == NULL)
        error = fill(comm != NULL ? qp_comm_size(comm) : 1, command, settings);
    if (error != NULL)
        qp_settings_fini(settings);
    return error;
}

qp_error_t qp_settings_read(qp_comm_t *comm, const char *path, const char *const *sets, int n_set,
                            const char *command, qp_settings_t *settings)
{
    return qp_settings_read_for(comm, NULL, path, sets, n_set, command, settings);
}

void qp_settings_fini(qp_settings_t *settings)
{
    qp_deck_destroy(&settings->deck);
    qp_str_fini(&settings->fingerprint);
    qp_str_fini(&settings->at_default);
    qp_str_fini(&settings->used);
}
