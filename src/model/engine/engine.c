#include "base/mem.h"
#include "base/minmax.h"
#include "model/engine/engine_state.h"
#include "model/pass/workspace.h"

static void lay_out_cache(qp_engine_t *engine, const qp_base_shape_t *shape, qp_arena_t *arena)
{
    const qp_llama_config_t *config = shape->config;
    const bool int8 = engine->config.kv_cache_dtype == QP_KV_CACHE_INT8;
    const qp_dtype_t dtype = int8 ? QP_I8 : qp_device_dtype(shape->device);
    const int64_t n_row = engine->n_block * QP_KV_BLOCK_LEN, n_head = config->n_kv_head;
    for (int64_t l = 0; l < config->n_layer; l++) {
        qp_kv_t *kv = &engine->kv[l];
        *kv = (qp_kv_t){.block_len = QP_KV_BLOCK_LEN};
        kv->k = qp_arena_mat(arena, dtype, n_row, n_head * config->head_dim);
        kv->v = qp_arena_mat(arena, dtype, n_row, n_head * config->head_dim);
        if (int8) {
            kv->k_scale = qp_arena_mat(arena, QP_F32, n_row, n_head);
            kv->v_scale = qp_arena_mat(arena, QP_F32, n_row, n_head);
        }
    }
}

/* token, position, sample; cu_seqlens, past, table; draw_sample, draw_position, draw_forbid,
 * unread, and rows, three numbers each */
static size_t descriptor_bytes(const qp_engine_t *engine)
{
    return 3 * qp_descriptor_bytes(engine->max_token) + qp_descriptor_bytes(engine->max_seq + 1) +
           qp_descriptor_bytes(engine->max_seq) +
           qp_descriptor_bytes(engine->max_seq * engine->table_ld) +
           4 * qp_descriptor_bytes(engine->config.max_active) +
           qp_descriptor_bytes(3 * engine->config.max_active);
}

static size_t lay_out(qp_engine_t *engine, const qp_base_shape_t *shape,
                      const qp_lora_config_t *lora, qp_dptr_t start)
{
    const qp_llama_config_t *config = shape->config;
    int64_t n = engine->max_token, n_seq = engine->config.max_active;
    qp_arena_t arena = {.start = start};
    lay_out_cache(engine, shape, &arena);
    engine->state = qp_layer_state_take(&arena, shape, NULL, n);
    engine->residual = engine->state.mid; /* one residual runs through the layers in place */
    engine->flow.scratch = qp_layer_scratch_take(&arena, shape, lora, n, false);
    engine->hidden = qp_arena_mat(&arena, qp_device_dtype(shape->device), n_seq, config->d_model);
    engine->logits = qp_arena_mat(&arena, QP_F32, n_seq, config->n_vocab);
    engine->rstd = qp_arena_vector(&arena, n_seq);
    engine->result = qp_arena_vector(&arena, 2 * n_seq);
    engine->descriptor.device = qp_arena_take(&arena, descriptor_bytes(engine));
    return arena.used_bytes;
}

static void allocate_host(qp_engine_t *engine)
{
    int64_t n = engine->max_token, n_seq = engine->config.max_active;
    engine->slot = QP_NEW("engine", qp_slot_t, n_seq);
    for (int64_t s = 0; s < n_seq; s++)
        engine->slot[s].block = QP_NEW("engine", int32_t, engine->table_ld);
    engine->free_block = QP_NEW("engine", int32_t, engine->n_block);
    engine->n_holder = QP_NEW("engine", int32_t, engine->n_block);
    engine->host_unread = QP_NEW("engine", int32_t, n_seq);
    engine->host_token = QP_NEW("engine", int32_t, n);
    engine->host_position = QP_NEW("engine", int32_t, n);
    engine->host_sample = QP_NEW("engine", uint32_t, n);
    engine->host_cu_seqlens = QP_NEW("engine", int32_t, engine->max_seq + 1);
    engine->host_past = QP_NEW("engine", int32_t, engine->max_seq);
    engine->host_table = QP_NEW("engine", int32_t, engine->max_seq * engine->table_ld);
    engine->draw_sample = QP_NEW("engine", uint32_t, n_seq);
    engine->draw_position = QP_NEW("engine", uint32_t, n_seq);
    engine->draw_forbid = QP_NEW("engine", uint32_t, n_seq);
    engine->host_rows = QP_NEW("engine", qp_kv_rows_t, n_seq);
    qp_descriptor_init(&engine->descriptor, engine->descriptor.device, descriptor_bytes(engine));
    engine->map.n_past = engine->host_past;
    engine->map.block_table = engine->host_table;
    engine->map.table_ld = engine->table_ld;
}

static qp_error_t allocate_draws(qp_engine_t *engine)
{
    qp_device_t *device = engine->base->device;
    const int64_t n_seq = engine->config.max_active;
    for (int i = 0; i < 2; i++) {
        qp_draws_t *draws = &engine->draws[i];
        void *result = NULL;
        draws->slot = QP_NEW("engine", qp_slot_t *, n_seq);
        draws->request = QP_NEW("engine", qp_request_t *, n_seq);
        QP_TRY(device->ops->host_alloc(device, "engine", qp_bytes(2 * n_seq, sizeof(int32_t)),
                                       &result));
        draws->result = result;
        QP_TRY(device->ops->event_create(device, &draws->read));
    }
    return NULL;
}

static void free_draws(qp_engine_t *engine)
{
    if (engine->base == NULL) /* only its sizes were wanted */
        return;
    qp_device_t *device = engine->base->device;
    for (int i = 0; i < 2; i++) {
        qp_draws_t *draws = &engine->draws[i];
        qp_free(draws->slot);
        qp_free(draws->request);
        if (draws->result != NULL)
            device->ops->host_release(device, draws->result);
        if (draws->read != NULL)
            device->ops->event_destroy(&draws->read);
    }
}

/* A prompt that is longer than max_prefill is computed alone; the rest is decoding. */
int64_t qp_engine_max_token(const qp_generate_config_t *config, int64_t max_length)
{
    return qp_max_i64(config->max_prefill, max_length) + config->max_active;
}

/* Of no base yet, without memory. */
static qp_engine_t *new_engine(const qp_base_shape_t *shape, const qp_generate_config_t *config,
                               int64_t max_length)
{
    qp_engine_t *engine = QP_NEW("engine", qp_engine_t, 1);
    engine->config = *config;
    engine->max_length = max_length;
    engine->max_token = qp_engine_max_token(config, max_length);
    engine->max_seq = 2 * config->max_active;
    engine->table_ld = (max_length + QP_KV_BLOCK_LEN - 1) / QP_KV_BLOCK_LEN;
    engine->n_block = engine->table_ld * config->max_active;
    engine->kv = QP_NEW("engine", qp_kv_t, shape->config->n_layer);
    return engine;
}

size_t qp_engine_bytes(const qp_base_shape_t *shape, const qp_lora_config_t *lora,
                       const qp_generate_config_t *config, int64_t max_length)
{
    qp_engine_t *engine = new_engine(shape, config, max_length);
    const size_t bytes = lay_out(engine, shape, lora, (qp_dptr_t){0});
    qp_engine_destroy(&engine);
    return bytes;
}

qp_pass_size_t qp_engine_pass_size(const qp_base_shape_t *shape, const qp_lora_config_t *lora,
                                   const qp_generate_config_t *config, int64_t max_length)
{
    qp_pass_size_t size =
        qp_workspace_pass_size(shape, lora, qp_engine_max_token(config, max_length));
    size.backward = false;
    size.n_key = max_length;
    size.n_decode = config->max_active;
    return size;
}

/* Memory of its own, unless the workspace has enough. The cache gets its pages now, not token by
 * token. */
static qp_error_t allocate(qp_engine_t *engine, const qp_workspace_t *ws, size_t bytes)
{
    qp_device_t *device = engine->base->device;
    engine->storage_bytes = bytes;
    engine->borrowed = ws != NULL && ws->storage_bytes >= bytes;
    if (engine->borrowed) {
        engine->storage = ws->storage;
        return NULL;
    }
    QP_TRY(device->ops->alloc(device, "KV cache", bytes, &engine->storage));
    return device->ops->zero(qp_device_queue(device), engine->storage, bytes);
}

qp_error_t qp_engine_create(const qp_base_t *base, const qp_lora_config_t *lora,
                            const qp_generate_config_t *config, int64_t max_length,
                            const qp_workspace_t *ws, qp_engine_t **engine)
{
    const qp_base_shape_t shape = qp_base_shape(base);
    *engine = NULL;
    if (max_length > base->rope.n_row)
        return QP_ERROR(QP_INPUT,
                        "answers of up to %lld tokens with their prompts, but the base "
                        "was loaded for %lld positions",
                        (long long)max_length, (long long)base->rope.n_row);
    const qp_pass_size_t size = qp_engine_pass_size(&shape, lora, config, max_length);
    QP_TRY(base->device->ops->reserve(base->device, &size));
    const size_t bytes = qp_engine_bytes(&shape, lora, config, max_length);
    *engine = new_engine(&shape, config, max_length);
    (*engine)->base = base;
    (*engine)->flow = qp_flow(base);
    qp_error_t error = allocate(*engine, ws, bytes);
    if (error == NULL)
        error = allocate_draws(*engine);
    if (error != NULL) {
        qp_engine_destroy(engine);
        return error;
    }
    lay_out(*engine, &shape, lora, (*engine)->storage);
    allocate_host(*engine);
    return NULL;
}

void qp_engine_destroy(qp_engine_t **out)
{
    qp_engine_t *engine = *out;
    if (engine == NULL)
        return;
    if (engine->base != NULL && !engine->borrowed)
        engine->base->device->ops->release(engine->base->device, &engine->storage);
    for (int64_t s = 0; engine->slot != NULL && s < engine->config.max_active; s++)
        qp_free(engine->slot[s].block);
    void *host[] = {engine->slot,        engine->free_block,      engine->n_holder,
                    engine->host_unread, engine->host_token,      engine->host_position,
                    engine->host_sample, engine->host_cu_seqlens, engine->host_past,
                    engine->host_table,  engine->draw_sample,     engine->draw_position,
                    engine->draw_forbid, engine->host_rows,       engine->kv};
    free_draws(engine);
    qp_descriptor_fini(&engine->descriptor);
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        qp_free(host[i]);
    QP_FREE(*out);
}
