#include "train/answers/scorer.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/minmax.h"
#include "train/answers/reward_command.h"
#include "train/micro/sequences.h"

struct qp_scorer {
    const qp_reward_model_config_t *config;
    bool own_base;         /* another base than the run's */
    bool has_lora;         /* it has an adapter with matrices */
    qp_lora_config_t lora; /* of the adapter */
    qp_base_info_t info;   /* of its own base */
    /* after load() */
    qp_scorer_host_t host;
    qp_base_t *base;
    qp_adapter_t *adapter;
    qp_workspace_t *ws;
    qp_reward_command_t *command;
};

/* --- files ------------------------------------------------------------------------------------ */

/* The other base must read the same tokens. Rank-local. */
static qp_error_t open_base(qp_scorer_t *s, const qp_tokenizer_t *tokenizer)
{
    qp_tokenizer_t *own = NULL;
    qp_error_t error = qp_base_header_read(s->config->base, &s->info, &own);
    if (error == NULL && qp_tokenizer_id(own) != qp_tokenizer_id(tokenizer))
        error = QP_ERROR(QP_INPUT,
                         "reward_model.base: %s has tokenizer %016llx, base.file has %016llx: "
                         "rewards are read from the policy's own tokens, so both must be the same",
                         s->config->base, (unsigned long long)qp_tokenizer_id(own),
                         (unsigned long long)qp_tokenizer_id(tokenizer));
    qp_tokenizer_destroy(&own);
    return error;
}

qp_error_t qp_scorer_open(qp_comm_t *comm, const qp_settings_t *settings,
                          const qp_tokenizer_t *tokenizer, qp_scorer_t **scorer)
{
    qp_scorer_t *s = *scorer = QP_NEW("reward model", qp_scorer_t, 1);
    s->config = &settings->reward_model;
    if (s->config->adapter == NULL && s->config->base == NULL && s->config->command.n == 0)
        return QP_ERROR(QP_INPUT,
                        "queries want rewards for their answers: name reward_model.adapter, "
                        "reward_model.base or reward_model.command");
    s->own_base = s->config->base != NULL;
    s->has_lora = s->config->adapter != NULL;
    if (s->own_base)
        QP_TRY(qp_comm_agree(comm, open_base(s, tokenizer)));
    if (!s->has_lora)
        return NULL;
    return qp_error_context(qp_lora_from_folder(comm, s->config->adapter, &s->lora),
                            "reward_model.adapter");
}

static const qp_head_config_t score_head = {.kind = QP_HEAD_SCORE, .required = true};

qp_error_t qp_scorer_check_files(const qp_scorer_t *s, const qp_llama_config_t *config)
{
    const qp_llama_config_t *own = s->own_base ? &s->info.config : config;
    if (s->has_lora)
        return qp_error_context(qp_lora_check_init(&s->lora, &score_head, own),
                                "reward_model.adapter");
    return s->own_base ? qp_adapter_check_merged(s->config->base, own->d_model) : NULL;
}

int64_t qp_scorer_n_vocab(const qp_scorer_t *s, int64_t n_vocab)
{
    return s->own_base && s->info.config.n_vocab < n_vocab ? s->info.config.n_vocab : n_vocab;
}

uint64_t qp_scorer_base_id(const qp_scorer_t *s)
{
    return s->info.base_id;
}

const qp_lora_config_t *qp_scorer_shared_lora(const qp_scorer_t *s)
{
    return s->has_lora && !s->own_base ? &s->lora : NULL;
}

const qp_base_info_t *qp_scorer_base(const qp_scorer_t *s, const qp_lora_config_t **lora)
{
    *lora = s->own_base && s->has_lora ? &s->lora : NULL;
    return s->own_base ? &s->info : NULL;
}

qp_error_t qp_scorer_check_length(const qp_scorer_t *s, const char *what, int64_t n_token)
{
    if (!s->own_base)
        return NULL;
    return qp_error_context(qp_llama_check_length(&s->info.config, what, n_token),
                            "reward_model.base");
}

qp_error_t qp_scorer_check(const qp_scorer_t *s, const qp_device_t *device, int64_t n_position)
{
    if (!s->own_base)
        return NULL;
    QP_TRY(qp_error_context(qp_base_info_check(&s->info, device), "reward_model.base"));
    if (n_position <= s->info.config.max_position)
        return NULL;
    return QP_ERROR(
        QP_INPUT,
        "reward_model.base: %s has %lld positions, but data.seq_length with the longest "
        "answer is %lld tokens",
        s->config->base, (long long)s->info.config.max_position, (long long)n_position);
}

/* Without an adapter lora has no targets. */
static int64_t n_param(const qp_scorer_t *s, const qp_llama_config_t *config)
{
    return qp_lora_n_param(config, &s->lora) + qp_head_n_param(QP_HEAD_SCORE, config->d_model);
}

qp_pass_size_t qp_scorer_pass_size(const qp_scorer_t *s, const qp_device_t *device,
                                   int64_t max_token)
{
    const qp_base_shape_t shape = qp_base_info_shape(&s->info, device);
    if (!s->own_base)
        return (qp_pass_size_t){0};
    return qp_workspace_pass_size(&shape, s->has_lora ? &s->lora : NULL, max_token);
}

qp_scorer_bytes_t qp_scorer_bytes(const qp_scorer_t *s, const qp_base_shape_t *shape,
                                  int64_t n_position, int64_t max_token)
{
    qp_scorer_bytes_t bytes = {0};
    if (s->config->command.n > 0)
        return bytes;
    const qp_base_shape_t own = qp_base_info_shape(&s->info, shape->device);
    bytes.adapter =
        qp_adapter_bytes(shape->device, n_param(s, s->own_base ? own.config : shape->config));
    if (!s->own_base)
        return bytes;
    bytes.base = qp_base_bytes(&own, n_position);
    bytes.staging = qp_base_staging_bytes(&own);
    bytes.workspace =
        qp_workspace_bytes(&own, s->has_lora ? &s->lora : NULL, max_token, QP_RECOMPUTE_LAYER);
    return bytes;
}

qp_error_t qp_scorer_load(qp_scorer_t *s, const qp_scorer_host_t *host)
{
    s->host = *host;
    if (s->config->command.n > 0)
        return qp_comm_agree(host->comm, qp_reward_command_start(&s->config->command,
                                                                 s->config->timeout, &s->command));
    const qp_base_t *base = host->base;
    if (s->own_base) {
        qp_base_config_t config = *host->base_config;
        config.file = s->config->base;
        QP_TRY(qp_base_load(host->comm, host->device, &config, host->n_position, &s->base));
        base = s->base;
        QP_TRY(qp_comm_agree(host->comm,
                             qp_workspace_create(base, s->has_lora ? &s->lora : NULL,
                                                 host->max_token, QP_RECOMPUTE_LAYER, &s->ws)));
    }
    if (!s->has_lora)
        return qp_adapter_of_merged(host->comm, base, s->config->base, &s->adapter);
    return qp_error_context(
        qp_adapter_create(host->comm, base, &s->lora, &score_head, 0, &s->adapter),
        "reward_model.adapter");
}

void qp_scorer_destroy(qp_comm_t *comm, qp_scorer_t **scorer)
{
    qp_scorer_t *s = *scorer;
    if (s == NULL)
        return;
    qp_reward_command_stop(&s->command);
    qp_adapter_destroy(&s->adapter);
    qp_workspace_destroy(&s->ws);
    qp_base_destroy(comm, &s->base);
    qp_base_info_fini(&s->info);
    QP_FREE(*scorer);
}

/* --- rewards ---------------------------------------------------------------------------------- */

/* Sequences [first, end) through the model, as one micro-batch. Rank-local. */
static qp_error_t score_by_model(const qp_scorer_t *s, const qp_rollout_t *rollout,
                                 qp_sequences_t *room, int64_t first, int64_t end, double *reward)
{
    qp_workspace_t *ws = s->ws != NULL ? s->ws : s->host.ws;
    const qp_role_t role = {s->base != NULL ? s->base : s->host.base, s->adapter};
    const qp_eos_t *eos = &s->host.eos;
    const qp_pass_t pass = {.training = false};
    qp_sequences_clear(room);
    for (int64_t seq = first; seq < end; seq++) {
        const int32_t *token = rollout->token + rollout->first[seq];
        const int64_t n = qp_rollout_length(rollout, seq);
        const int32_t added = qp_eos_has(eos, token[n - 1]) ? -1 : qp_eos_first(eos);
        qp_sequences_add(room, token, n, n, added, (uint32_t)seq);
        room->valued[room->cu_seqlens[room->n_seq] - 1] = 1;
    }
    const qp_model_batch_t batch = qp_sequences_batch(room);
    const qp_model_outputs_t outputs = {.value = room->value};
    QP_TRY(qp_model_outputs(ws, &role, &batch, &pass, false, &outputs));
    for (int64_t seq = first; seq < end; seq++)
        reward[seq] = (double)room->value[room->cu_seqlens[seq - first + 1] - 1];
    return NULL;
}

/* Sequences [first, end) by the command. Rank-local. */
static qp_error_t score_by_command(const qp_scorer_t *s, const qp_rollout_t *rollout, int64_t first,
                                   int64_t end, double *reward)
{
    const qp_tokenizer_t *tokenizer = s->host.tokenizer;
    const int64_t n = end - first;
    qp_str_t *text = QP_NEW("rewards", qp_str_t, 2 * n);
    qp_reward_text_t *pair = QP_NEW("rewards", qp_reward_text_t, n);
    qp_error_t error = NULL;
    for (int64_t i = 0; i < n; i++) {
        qp_str_t *prompt = &text[2 * i], *response = &text[2 * i + 1];
        QP_TRY_DONE(qp_rollout_text(rollout, tokenizer, first + i, false, prompt));
        QP_TRY_DONE(qp_rollout_text(rollout, tokenizer, first + i, true, response));
        pair[i] = (qp_reward_text_t){prompt->n > 0 ? prompt->data : "",
                                     response->n > 0 ? response->data : "", prompt->n, response->n};
    }
    error = qp_reward_command_score(s->command, pair, n, reward + first);
done:
    for (int64_t i = 0; i < 2 * n; i++)
        qp_str_fini(&text[i]);
    qp_free(text);
    qp_free(pair);
    return error;
}

qp_error_t qp_scorer_score(qp_scorer_t *s, const qp_rollout_t *rollout, double *reward)
{
    qp_comm_t *comm = s->host.comm;
    const int64_t micro = s->host.micro_sequences, n = rollout->n_seq;
    int64_t first, end;
    qp_sequences_t room;
    qp_error_t error = NULL;
    qp_sequences_init(&room, s->host.max_token);
    memset(reward, 0, qp_bytes(n, sizeof *reward));
    qp_tree_range((n + micro - 1) / micro, qp_comm_size(comm), qp_comm_rank(comm), &first, &end);
    if (s->command != NULL && end > first)
        error = score_by_command(s, rollout, first * micro, qp_min_i64(end * micro, n), reward);
    for (int64_t leaf = first; leaf < end && s->command == NULL && error == NULL; leaf++)
        error = score_by_model(s, rollout, &room, leaf * micro, qp_min_i64((leaf + 1) * micro, n),
                               reward);
    QP_TRY_DONE(qp_comm_agree(comm, error));
    error = NULL;
    qp_tree_sum_f64(comm, reward, n); /* exact: one rank knows each, the others have zeros */
done:
    qp_sequences_fini(&room);
    return error;
}
