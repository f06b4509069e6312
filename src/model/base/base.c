#include "model/base/base_impl.h"

#include "base/mem.h"
#include "model/base/arena.h"

static const qp_group_linears_t GROUP[QP_N_GROUP] = {
    [QP_GROUP_QKV] = {QP_Q_PROJ, 3},
    [QP_GROUP_O] = {QP_O_PROJ, 1},
    [QP_GROUP_GATE_UP] = {QP_GATE_PROJ, 2},
    [QP_GROUP_DOWN] = {QP_DOWN_PROJ, 1},
};

qp_group_linears_t qp_group_linears(qp_group_t group)
{
    return GROUP[group];
}

qp_group_t qp_linear_group(qp_linear_t linear)
{
    int group = 0;
    while ((int)linear >= (int)GROUP[group].first + GROUP[group].n)
        group++;
    return (qp_group_t)group;
}

int64_t qp_linear_first_out(const qp_llama_config_t *config, qp_linear_t linear)
{
    int64_t first = 0;
    for (qp_linear_t l = GROUP[qp_linear_group(linear)].first; l < linear; l++)
        first += qp_linear_n_out(config, l);
    return first;
}

int64_t qp_group_n_out(const qp_llama_config_t *config, qp_group_t group)
{
    int64_t n_out = 0;
    for (int i = 0; i < GROUP[group].n; i++)
        n_out += qp_linear_n_out(config, (qp_linear_t)((int)GROUP[group].first + i));
    return n_out;
}

int64_t qp_group_n_in(const qp_llama_config_t *config, qp_group_t group)
{
    return qp_linear_n_in(config, GROUP[group].first);
}

bool qp_group_has_bias(const qp_llama_config_t *config, qp_group_t group)
{
    return config->attention_bias && (group == QP_GROUP_QKV || group == QP_GROUP_O);
}

qp_base_t *qp_base_new(qp_device_t *device, const qp_base_info_t *info, qp_linear_mode_t mode)
{
    qp_base_t *base = QP_NEW("base", qp_base_t, 1);
    base->config = info->config;
    base->precision = info->precision;
    base->base_id = info->base_id;
    base->device = device;
    base->layer = QP_NEW("base", qp_layer_t, info->config.n_layer);
    for (int64_t l = 0; l < info->config.n_layer; l++)
        for (int g = 0; g < QP_N_GROUP; g++)
            base->layer[l].group[g] =
                (qp_weight_t){.kind = info->precision,
                              .n_out = qp_group_n_out(&info->config, (qp_group_t)g),
                              .n_in = qp_group_n_in(&info->config, (qp_group_t)g),
                              .mode = mode};
    return base;
}

size_t qp_base_lay_out(qp_base_t *base, int64_t n_position, qp_dptr_t start)
{
    const qp_llama_config_t *config = &base->config;
    const qp_ops_t *ops = base->device->ops;
    qp_dtype_t dtype = base->precision == QP_WEIGHT_F32 ? QP_F32 : QP_BF16;
    qp_arena_t arena = {.start = start};
    base->embedding = qp_arena_mat(&arena, dtype, config->n_vocab, config->d_model);
    base->lm_head = config->tie_word_embeddings
                        ? base->embedding
                        : qp_arena_mat(&arena, dtype, config->n_vocab, config->d_model);
    base->norm = qp_arena_vector(&arena, config->d_model);
    base->rope = qp_arena_mat(&arena, QP_F32, n_position, config->head_dim);
    for (int64_t l = 0; l < config->n_layer; l++) {
        qp_layer_t *layer = &base->layer[l];
        layer->input_norm = qp_arena_vector(&arena, config->d_model);
        layer->post_norm = qp_arena_vector(&arena, config->d_model);
        for (int g = 0; g < QP_N_GROUP; g++) {
            qp_weight_t *w = &layer->group[g];
            w->has_bias = qp_group_has_bias(config, (qp_group_t)g);
            w->storage = qp_arena_take(&arena, ops->weight_bytes(base->device, w));
        }
    }
    return arena.used_bytes;
}

size_t qp_base_bytes(const qp_device_t *device, const qp_base_info_t *info, int64_t n_position)
{
    qp_device_t plan = *device; /* the sizes need its op table only */
    qp_base_t *base = qp_base_new(&plan, info, (qp_linear_mode_t){0});
    size_t bytes = qp_base_lay_out(base, n_position, (qp_dptr_t){0});
    QP_FREE(base->layer);
    QP_FREE(base);
    return bytes;
}

void qp_base_destroy(qp_comm_t *comm, qp_base_t **base)
{
    if (*base == NULL)
        return;
    if ((*base)->shared != NULL)
        qp_shared_destroy(comm, &(*base)->shared);
    else
        (*base)->device->ops->release((*base)->device, &(*base)->storage);
    QP_FREE((*base)->layer);
    QP_FREE(*base);
}
