#include "model/pass/workspace.h"

#include "base/mem.h"
#include "base/minmax.h"

enum { MAX_INNER = 3 }; /* targets of a group: q, k, v */

qp_layer_state_t qp_layer_state_take(qp_arena_t *arena, const qp_base_shape_t *shape,
                                     const bool masked[QP_N_LINEAR], int64_t max_token)
{
    const qp_llama_config_t *config = shape->config;
    qp_dtype_t dtype = qp_device_dtype(shape->device);
    int64_t n_qkv = qp_group_n_out(config, QP_GROUP_QKV);
    qp_layer_state_t state = {0};
    state.mid = qp_arena_mat(arena, QP_F32, max_token, config->d_model);
    state.input_rstd = qp_arena_vector(arena, max_token);
    state.post_rstd = qp_arena_vector(arena, max_token);
    state.qkv = qp_arena_mat(arena, dtype, max_token, n_qkv);
    state.attention = qp_arena_mat(arena, dtype, max_token, config->n_head * config->head_dim);
    state.lse = qp_arena_vector(arena, config->n_head * max_token);
    state.gate_up = qp_arena_mat(arena, dtype, max_token, 2 * config->d_ff);
    for (int l = 0; masked != NULL && l < QP_N_LINEAR; l++) {
        qp_dptr_t *mask = &state.mask[qp_linear_group((qp_linear_t)l)];
        if (masked[l] && qp_dptr_is_null(*mask))
            *mask = qp_arena_take(
                arena, qp_bytes(max_token * qp_mask_words(qp_linear_n_in(config, (qp_linear_t)l)),
                                sizeof(uint64_t)));
    }
    return state;
}

qp_layer_scratch_t qp_layer_scratch_take(qp_arena_t *arena, const qp_base_shape_t *shape,
                                         const qp_lora_config_t *lora, int64_t max_token,
                                         bool backward)
{
    const qp_llama_config_t *config = shape->config;
    qp_dtype_t dtype = qp_device_dtype(shape->device);
    int64_t n_attention = config->n_head * config->head_dim;
    int64_t n_din = n_attention > config->d_model ? n_attention : config->d_model;
    int64_t r = lora != NULL ? lora->r : 0, n_target_in = 0;
    for (int l = 0; lora != NULL && l < QP_N_LINEAR; l++) {
        int64_t n_in = qp_linear_n_in(config, (qp_linear_t)l);
        n_target_in = lora->target[l] && n_in > n_target_in ? n_in : n_target_in;
    }
    qp_layer_scratch_t scratch = {0};
    scratch.adapter_input = qp_arena_mat(arena, dtype, max_token, n_target_in);
    scratch.inner = qp_arena_mat(arena, dtype, max_token, MAX_INNER * r);
    if (!backward)
        return scratch;
    scratch.dinner = qp_arena_mat(arena, dtype, max_token, MAX_INNER * r);
    scratch.dresidual = qp_arena_mat(arena, QP_F32, max_token, config->d_model);
    scratch.dout = qp_arena_mat(arena, dtype, max_token, config->d_model);
    scratch.din = qp_arena_mat(arena, dtype, max_token + 1, n_din);
    scratch.dswiglu = qp_arena_mat(arena, dtype, max_token, config->d_ff);
    scratch.dqkv = qp_arena_mat(arena, dtype, max_token, qp_group_n_out(config, QP_GROUP_QKV));
    return scratch;
}

static void lay_out_layers(qp_workspace_t *ws, const qp_base_shape_t *shape, const bool *masked,
                           qp_arena_t *arena)
{
    int64_t n_layer = shape->config->n_layer, d_model = shape->config->d_model;
    for (int64_t l = 0; l < n_layer; l++) {
        bool own = l == 0 || (ws->backward && ws->recompute == QP_RECOMPUTE_NONE);
        ws->state[l] =
            own ? qp_layer_state_take(arena, shape, masked, ws->max_token) : ws->state[0];
    }
    for (int64_t l = 0; l <= n_layer; l++) /* without backward one residual runs through in place */
        ws->input[l] =
            ws->backward ? qp_arena_mat(arena, QP_F32, ws->max_token, d_model) : ws->state[0].mid;
}

/* token, position, sample, cu_seqlens; row, back, target and the identities of the picked rows */
static size_t descriptor_bytes(int64_t n)
{
    return 8 * qp_descriptor_bytes(n) + qp_descriptor_bytes(n + 1);
}

static size_t gradient_bytes(int64_t n)
{
    return qp_descriptor_bytes(n) + qp_descriptor_bytes(n + 1);
}

/* Points everything into one device block; returns its size. lora NULL: no targets. */
static size_t lay_out(qp_workspace_t *ws, const qp_base_shape_t *shape,
                      const qp_lora_config_t *lora, qp_dptr_t start)
{
    qp_arena_t arena = {.start = start};
    const int64_t n = ws->max_token, d_model = shape->config->d_model;
    const qp_dtype_t dtype = qp_device_dtype(shape->device);
    lay_out_layers(ws, shape, lora != NULL ? lora->target : NULL, &arena);
    ws->flow.scratch = qp_layer_scratch_take(&arena, shape, lora, n, ws->backward);
    ws->hidden = qp_arena_mat(&arena, dtype, n, d_model);
    ws->picked = qp_arena_mat(&arena, dtype, n, d_model);
    ws->rstd = qp_arena_vector(&arena, n);
    ws->result = qp_arena_vector(&arena, QP_N_RESULT * n + 1);
    ws->descriptor.device = qp_arena_take(&arena, descriptor_bytes(n));
    ws->gradient.device = qp_arena_take(&arena, gradient_bytes(n));
    if (ws->backward)
        ws->head_bits =
            qp_arena_take(&arena, qp_bytes(n * qp_mask_words(d_model), sizeof(uint64_t)));
    return arena.used_bytes;
}

/* Of no base yet. */
static qp_workspace_t *new_workspace(const qp_base_shape_t *shape, const qp_lora_config_t *lora,
                                     int64_t max_token, qp_recompute_t recompute)
{
    QP_ASSERT(recompute != QP_RECOMPUTE_AUTO && max_token > 0);
    qp_workspace_t *ws = QP_NEW("workspace", qp_workspace_t, 1);
    ws->max_token = max_token;
    ws->recompute = recompute;
    ws->backward = lora != NULL;
    ws->input = QP_NEW("workspace", qp_mat_t, shape->config->n_layer + 1);
    ws->state = QP_NEW("workspace", qp_layer_state_t, shape->config->n_layer);
    return ws;
}

size_t qp_workspace_bytes(const qp_base_shape_t *shape, const qp_lora_config_t *lora,
                          int64_t max_token, qp_recompute_t recompute)
{
    qp_workspace_t *ws = new_workspace(shape, lora, max_token, recompute);
    const size_t bytes = lay_out(ws, shape, lora, (qp_dptr_t){0});
    qp_workspace_destroy(&ws);
    return bytes;
}

qp_pass_size_t qp_workspace_pass_size(const qp_base_shape_t *shape, const qp_lora_config_t *lora,
                                      int64_t max_token)
{
    const qp_llama_config_t *c = shape->config;
    qp_pass_size_t size = {
        .n_token = max_token,
        .d_model = c->d_model,
        .n_vocab = c->n_vocab,
        .n_inner = lora != NULL ? MAX_INNER * lora->r : 0,
        .attention = {.n_head = c->n_head, .n_kv_head = c->n_kv_head, .head_dim = c->head_dim},
        .weight = shape->kinds.linear,
        .lm_head = shape->kinds.lm_head,
        .backward = lora != NULL};
    for (int g = 0; g < QP_N_GROUP; g++) {
        size.widest = qp_max_i64(size.widest, qp_group_n_in(c, (qp_group_t)g));
        size.widest = qp_max_i64(size.widest, qp_group_n_out(c, (qp_group_t)g));
    }
    return size;
}

qp_error_t qp_workspace_create(const qp_base_t *base, const qp_lora_config_t *lora,
                               int64_t max_token, qp_recompute_t recompute, qp_workspace_t **ws)
{
    const qp_base_shape_t shape = qp_base_shape(base);
    const size_t bytes = qp_workspace_bytes(&shape, lora, max_token, recompute);
    const qp_pass_size_t size = qp_workspace_pass_size(&shape, lora, max_token);
    *ws = new_workspace(&shape, lora, max_token, recompute);
    (*ws)->base = base;
    (*ws)->flow = qp_flow(base);
    qp_error_t error = base->device->ops->reserve(base->device, &size);
    if (error == NULL)
        error = base->device->ops->alloc(base->device, "workspace", bytes, &(*ws)->storage);
    if (error != NULL) {
        qp_workspace_destroy(ws);
        return error;
    }
    (*ws)->storage_bytes = bytes;
    lay_out(*ws, &shape, lora, (*ws)->storage);
    qp_descriptor_init(&(*ws)->descriptor, (*ws)->descriptor.device, descriptor_bytes(max_token));
    qp_descriptor_init(&(*ws)->gradient, (*ws)->gradient.device, gradient_bytes(max_token));
    (*ws)->host_row = QP_NEW("workspace", int32_t, max_token);
    (*ws)->host_real = QP_NEW("workspace", float, QP_N_RESULT *max_token + 1);
    (*ws)->host_weight = QP_NEW("workspace", float, max_token);
    return NULL;
}

void qp_workspace_destroy(qp_workspace_t **ws)
{
    if (*ws == NULL)
        return;
    if ((*ws)->base != NULL)
        (*ws)->base->device->ops->release((*ws)->base->device, &(*ws)->storage);
    QP_FREE((*ws)->input);
    QP_FREE((*ws)->state);
    qp_descriptor_fini(&(*ws)->descriptor);
    qp_descriptor_fini(&(*ws)->gradient);
    QP_FREE((*ws)->host_row);
    QP_FREE((*ws)->host_real);
    QP_FREE((*ws)->host_weight);
    QP_FREE(*ws);
}

qp_error_t qp_model_check_batch(const qp_base_t *base, const qp_model_batch_t *batch)
{
    for (int64_t t = 0; t < batch->n_token; t++) {
        int32_t token = batch->token[t], position = batch->position[t];
        if (token < 0 || token >= base->config.n_vocab)
            return QP_ERROR(QP_INPUT, "token %lld of a batch is %d, the model has %lld tokens",
                            (long long)t, token, (long long)base->config.n_vocab);
        if (position < 0 || position >= base->rope.n_row)
            return QP_ERROR(QP_INPUT, "position %d in a batch, the base was loaded for %lld",
                            position, (long long)base->rope.n_row);
    }
    return NULL;
}

/* The rows that heads read, and for each row of the batch its place among them. */
static void put_picked(qp_workspace_t *ws, const qp_model_batch_t *batch)
{
    qp_descriptor_t *d = &ws->descriptor;
    const int64_t n = ws->n_picked;
    void *target, *back, *sample, *position;
    ws->row = qp_descriptor_put(d, ws->host_row, n);
    ws->target = qp_descriptor_take(d, n, &target);
    ws->back = qp_descriptor_take(d, batch->n_token, &back);
    ws->picked_sample = qp_descriptor_take(d, n, &sample);
    ws->picked_position = qp_descriptor_take(d, n, &position);
    for (int64_t t = 0; t < batch->n_token; t++) /* most get the zero row */
        ((int32_t *)back)[t] = (int32_t)n;
    for (int64_t i = 0; i < n; i++) {
        const int32_t t = ws->host_row[i];
        ((int32_t *)back)[t] = (int32_t)i;
        ((int32_t *)target)[i] = batch->target[t];
        ((uint32_t *)sample)[i] = batch->sample[t];
        ((int32_t *)position)[i] = batch->position[t];
    }
}

qp_error_t qp_workspace_upload(qp_workspace_t *ws, const qp_model_batch_t *batch)
{
    qp_descriptor_t *d = &ws->descriptor;
    QP_ASSERT(batch->n_token > 0 && batch->n_token <= ws->max_token);
    QP_ASSERT(batch->n_seq > 0 && batch->n_seq <= batch->n_token);
    QP_TRY(qp_model_check_batch(ws->base, batch));
    qp_descriptor_clear(d);
    ws->token = qp_descriptor_put(d, batch->token, batch->n_token);
    ws->flow.batch =
        (qp_ragged_t){.n_token = batch->n_token,
                      .n_seq = batch->n_seq,
                      .cu_seqlens_host = batch->cu_seqlens,
                      .cu_seqlens = qp_descriptor_put(d, batch->cu_seqlens, batch->n_seq + 1),
                      .position = qp_descriptor_put(d, batch->position, batch->n_token),
                      .sample = qp_descriptor_put(d, batch->sample, batch->n_token)};
    if (ws->n_picked > 0)
        put_picked(ws, batch);
    return qp_descriptor_send(d, ws->flow.q);
}
