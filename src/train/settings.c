#include "train/settings.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/version.h"
#include "compute/device_deck.h"

/* Every group of the deck and the struct of qp_settings_t it fills. */
static const struct {
    const qp_deck_group_t *group;
    size_t offset;
} part[] = {
    {&qp_job_deck, offsetof(qp_settings_t, job)},
    {&qp_base_deck, offsetof(qp_settings_t, base)},
    {&qp_lora_deck, offsetof(qp_settings_t, lora)},
    {&qp_data_deck, offsetof(qp_settings_t, data)},
    {&qp_batch_deck, offsetof(qp_settings_t, batch)},
    {&qp_optim_deck, offsetof(qp_settings_t, optim)},
    {&qp_eval_deck, offsetof(qp_settings_t, eval)},
    {&qp_checkpoint_deck, offsetof(qp_settings_t, checkpoint)},
    {&qp_device_deck, offsetof(qp_settings_t, device)},
    {&qp_generate_deck, offsetof(qp_settings_t, generate)},
    {&qp_samples_deck, offsetof(qp_settings_t, samples)},
    {&qp_prompts_deck, offsetof(qp_settings_t, prompts)},
    {&qp_log_deck, offsetof(qp_settings_t, log)},
};
enum { N_PART = sizeof part / sizeof part[0] };

static const char *const method_name[] = {"sft", "eval", "generate"};

const char *qp_method_name(int method)
{
    return method_name[method];
}

const qp_deck_group_t *const *qp_settings_groups(int *n_group)
{
    static const qp_deck_group_t *const group[N_PART] = {
        &qp_job_deck,     &qp_base_deck,    &qp_lora_deck,       &qp_data_deck,   &qp_batch_deck,
        &qp_optim_deck,   &qp_eval_deck,    &qp_checkpoint_deck, &qp_device_deck, &qp_generate_deck,
        &qp_samples_deck, &qp_prompts_deck, &qp_log_deck};
    *n_group = N_PART;
    return group;
}

int64_t qp_settings_n_micro(const qp_settings_t *s)
{
    int64_t micro = s->batch.micro_sequences;
    return (s->batch.global_sequences + micro - 1) / micro;
}

bool qp_duration_parse(const char *text, double *seconds)
{
    double a, b, c;
    int used = -1;
    if (strcmp(text, "auto") == 0) {
        *seconds = -1.0;
        return true;
    }
    if (sscanf(text, "%lf:%lf:%lf%n", &a, &b, &c, &used) == 3 && text[used] == '\0')
        *seconds = 3600.0 * a + 60.0 * b + c;
    else if (sscanf(text, "%lf:%lf%n", &a, &b, &used) == 2 && text[used] == '\0')
        *seconds = 60.0 * a + b;
    else if (sscanf(text, "%lf%n", &a, &used) == 1 && text[used] == '\0')
        *seconds = a;
    else
        return false;
    return *seconds >= 0.0;
}

/* Appends "where: text" as one more line of the report. */
__attribute__((format(printf, 4, 5))) static void
complain(qp_str_t *report, const qp_deck_t *deck, const char *path, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char *where = qp_deck_where(deck, path);
    qp_str_printf(report, "%s%s: %s", report->n > 0 ? "\n" : "", where, text);
    qp_free(where);
}

static void check_duration(qp_str_t *report, const qp_deck_t *deck, const char *path,
                           const char *text, double *seconds)
{
    *seconds = -1.0;
    if (text != NULL && !qp_duration_parse(text, seconds))
        complain(report, deck, path, "\"%s\" is neither \"auto\" nor seconds nor h:mm:ss", text);
}

/* What no single key can say. */
static qp_error_t check(int n_rank, qp_settings_t *s)
{
    const qp_deck_t *deck = s->deck;
    qp_str_t report = {0};
    qp_checkpoint_config_t *c = &s->checkpoint;
    bool trains = s->job.method == QP_METHOD_SFT;
    check_duration(&report, deck, "checkpoint.walltime", c->walltime, &c->walltime_seconds);
    check_duration(&report, deck, "checkpoint.walltime_margin", c->walltime_margin,
                   &c->walltime_margin_seconds);
    if (s->job.name[0] == '\0' || s->job.name[0] == '.' || strchr(s->job.name, '/') != NULL)
        complain(&report, deck, "job.name",
                 "\"%s\" must be a folder's name: not empty, no \"/\", no leading \".\"",
                 s->job.name);
    if (trains && s->optim.warmup_steps > s->optim.steps)
        complain(&report, deck, "optim.warmup_steps", "%lld is more than optim.steps = %lld",
                 (long long)s->optim.warmup_steps, (long long)s->optim.steps);
    if (trains && s->batch.global_sequences % s->batch.micro_sequences != 0)
        complain(&report, deck, "batch.micro_sequences",
                 "%lld does not divide global_sequences = %lld",
                 (long long)s->batch.micro_sequences, (long long)s->batch.global_sequences);
    else if (trains && n_rank > qp_settings_n_micro(s))
        complain(&report, deck, "batch.micro_sequences",
                 "%d ranks, but a step has only %lld micro-batches (global_sequences = %lld / "
                 "micro_sequences = %lld): start fewer ranks or make micro_sequences smaller",
                 n_rank, (long long)qp_settings_n_micro(s), (long long)s->batch.global_sequences,
                 (long long)s->batch.micro_sequences);
    if (trains && s->data.train.n == 0)
        complain(&report, deck, "data.train", "job.method = \"%s\" needs it",
                 qp_method_name(s->job.method));
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

/*
 * device.compute = "auto" becomes what it stands for, so that it is in used.cfg and in a
 * checkpoint's fingerprint. Where the nodes differ, all compute as the least of them.
 */
static qp_error_t adopt_compute(qp_comm_t *comm, qp_deck_t *deck)
{
    qp_device_config_t device;
    qp_deck_fill(deck, &qp_device_deck, &device);
    if (device.compute != QP_COMPUTE_AUTO)
        return NULL;
    uint64_t fp32 = qp_device_auto_compute() == QP_COMPUTE_FP32;
    if (comm != NULL)
        fp32 = qp_comm_agree_bits(comm, fp32);
    return qp_deck_adopt(deck, "auto on this CPU",
                         fp32 ? "device.compute=fp32" : "device.compute=bf16");
}

qp_error_t qp_settings_read(qp_comm_t *comm, const char *path, const char *const *sets, int n_set,
                            const char *command, qp_settings_t *settings)
{
    int n_group;
    const qp_deck_group_t *const *groups = qp_settings_groups(&n_group);
    *settings = (qp_settings_t){0};
    QP_TRY(qp_deck_read(comm, path, groups, n_group, sets, n_set, &settings->deck));
    qp_error_t error = adopt_init(comm, settings->deck);
    if (error == NULL)
        error = adopt_compute(comm, settings->deck);
    if (error != NULL) {
        qp_settings_fini(settings);
        return error;
    }
    for (int i = 0; i < N_PART; i++)
        qp_deck_fill(settings->deck, part[i].group, (char *)settings + part[i].offset);
    settings->deck_hash = qp_deck_hash(settings->deck);
    qp_deck_fingerprint(settings->deck, &settings->fingerprint);
    char *header = qp_format("quipu %s\n%s", qp_version(), command);
    qp_deck_echo(settings->deck, header, &settings->used);
    qp_free(header);
    error = check(comm != NULL ? qp_comm_size(comm) : 1, settings);
    if (error != NULL)
        qp_settings_fini(settings);
    return error;
}

void qp_settings_fini(qp_settings_t *settings)
{
    qp_deck_destroy(&settings->deck);
    qp_str_fini(&settings->fingerprint);
    qp_str_fini(&settings->used);
}
