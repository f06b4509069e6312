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

static bool group_has_bias(const qp_llama_config_t *config, qp_group_t group)
{
    return config->attention_bias && (group == QP_GROUP_QKV || group == QP_GROUP_O);
}

/* A gradient in int8 takes the rotated basis. */
static void put_weight(const qp_base_shape_t *shape, qp_linear_mode_t mode, qp_weight_t *w,
                       qp_arena_t *arena)
{
    w->mode = mode;
    w->mode.int8_gradient = mode.int8_gradient && w->kind == QP_WEIGHT_INT8;
    w->storage = qp_arena_take(arena, shape->device->ops->weight_bytes(shape->device, w));
}

/* What is not in a layer. */
typedef struct {
    qp_mat_t embedding, rope;
    qp_weight_t lm_head;
    qp_dptr_t norm;
} ends_t;

static ends_t lay_out_ends(const qp_base_shape_t *shape, qp_linear_mode_t mode, int64_t n_position,
                           qp_arena_t *arena)
{
    const qp_llama_config_t *config = shape->config;
    const qp_dtype_t dtype = qp_weight_dtype(qp_base_kind(shape->kinds, QP_TENSOR_EMBEDDING));
    ends_t ends = {.embedding = qp_arena_mat(arena, dtype, config->n_vocab, config->d_model)};
    ends.lm_head = (qp_weight_t){.kind = shape->kinds.lm_head,
                                 .n_out = config->n_vocab,
                                 .n_in = config->d_model,
                                 .is_head = true,
                                 .storage = ends.embedding.data};
    if (!qp_base_head_is_embedding(shape))
        put_weight(shape, mode, &ends.lm_head, arena);
    ends.norm = qp_arena_vector(arena, config->d_model);
    ends.rope = qp_arena_mat(arena, QP_F32, n_position, config->head_dim);
    return ends;
}

static qp_layer_t lay_out_layer(const qp_base_shape_t *shape, qp_linear_mode_t mode,
                                qp_arena_t *arena)
{
    const qp_llama_config_t *config = shape->config;
    qp_layer_t layer = {.input_norm = qp_arena_vector(arena, config->d_model)};
    layer.post_norm = qp_arena_vector(arena, config->d_model);
    for (int g = 0; g < QP_N_GROUP; g++) {
        qp_weight_t *w = &layer.group[g];
        *w = (qp_weight_t){.kind = shape->kinds.linear,
                           .n_out = qp_group_n_out(config, (qp_group_t)g),
                           .n_in = qp_group_n_in(config, (qp_group_t)g),
                           .has_bias = group_has_bias(config, (qp_group_t)g)};
        put_weight(shape, mode, w, arena);
    }
    return layer;
}

bool qp_base_is_shared(const qp_device_t *device)
{
    return device->host_addressable;
}

qp_error_t qp_base_info_check(const qp_base_info_t *info, const qp_device_t *device)
{
    if (device->max_head_dim == 0 || info->config.head_dim <= device->max_head_dim)
        return NULL;
    return QP_ERROR(QP_INPUT,
                    "heads of %lld features, but attention on \"%s\" has %lld at most: set "
                    "device.backend = \"cpu\"",
                    (long long)info->config.head_dim, device->ops->name,
                    (long long)device->max_head_dim);
}

size_t qp_base_bytes(const qp_base_shape_t *shape, int64_t n_position)
{
    qp_arena_t arena = {0};
    const qp_linear_mode_t mode = {0};
    (void)lay_out_ends(shape, mode, n_position, &arena);
    for (int64_t l = 0; l < shape->config->n_layer; l++)
        (void)lay_out_layer(shape, mode, &arena);
    return arena.used_bytes;
}

void qp_base_lay_out(qp_base_t *base, qp_linear_mode_t mode, int64_t n_position)
{
    const qp_base_shape_t shape = qp_base_shape(base);
    qp_arena_t arena = {.start = base->storage};
    const ends_t ends = lay_out_ends(&shape, mode, n_position, &arena);
    base->embedding = ends.embedding;
    base->lm_head = ends.lm_head;
    base->norm = ends.norm;
    base->rope = ends.rope;
    for (int64_t l = 0; l < base->config.n_layer; l++)
        base->layer[l] = lay_out_layer(&shape, mode, &arena);
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
