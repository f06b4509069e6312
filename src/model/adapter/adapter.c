#include "model/adapter/adapter_impl.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

static const char *const ALL_LINEAR = "all-linear";

static qp_error_t add_target(const char *name, bool target[QP_N_LINEAR])
{
    const char *names[QP_N_LINEAR + 1];
    bool all = strcmp(name, ALL_LINEAR) == 0;
    bool found = all;
    for (int l = 0; l < QP_N_LINEAR; l++) {
        names[l] = qp_linear_short_name((qp_linear_t)l);
        bool same = strcmp(name, names[l]) == 0;
        target[l] = target[l] || all || same;
        found = found || same;
    }
    if (found)
        return NULL;
    names[QP_N_LINEAR] = ALL_LINEAR;
    const char *nearest = qp_nearest(name, names, QP_N_LINEAR + 1);
    return QP_ERROR(
        QP_INPUT,
        "lora.targets: \"%s\" is no linear of the model%s%s%s; there are q_proj, k_proj, "
        "v_proj, o_proj, gate_proj, up_proj, down_proj and all-linear",
        name, nearest ? " (did you mean \"" : "", nearest ? nearest : "", nearest ? "\"?)" : "");
}

qp_error_t qp_lora_resolve(qp_lora_config_t *config)
{
    memset(config->target, 0, sizeof config->target);
    for (int i = 0; i < config->targets.n; i++)
        QP_TRY(add_target(config->targets.item[i], config->target));
    return config->targets.n > 0 ? NULL : QP_ERROR(QP_INPUT, "lora.targets: names no linear");
}

int64_t qp_lora_n_param(const qp_llama_config_t *config, const qp_lora_config_t *lora)
{
    int64_t n = 0;
    for (int l = 0; l < QP_N_LINEAR; l++)
        if (lora->target[l])
            n += lora->r *
                 (qp_linear_n_in(config, (qp_linear_t)l) + qp_linear_n_out(config, (qp_linear_t)l));
    return n * config->n_layer;
}

qp_lora_group_t qp_adapter_group(const qp_adapter_t *adapter, int64_t layer, qp_group_t group)
{
    qp_lora_group_t found = {0};
    qp_group_linears_t linears = qp_group_linears(group);
    for (int l = 0; l < (int)linears.first + linears.n; l++) {
        if (!adapter->target[l])
            continue;
        if (l < (int)linears.first)
            found.first++;
        else
            found.n++;
    }
    int64_t views_per_layer = adapter->n_view / adapter->n_layer;
    found.first += layer * views_per_layer;
    return found;
}

/* Lays out the A and B of one group of one layer from element \a offset on; returns its end. */
static int64_t lay_out_group(qp_adapter_t *adapter, const qp_llama_config_t *config, int64_t layer,
                             qp_group_t group, int64_t offset)
{
    qp_lora_group_t views = qp_adapter_group(adapter, layer, group);
    qp_group_linears_t linears = qp_group_linears(group);
    qp_lora_view_t *view = adapter->view + views.first;
    for (int i = 0; i < linears.n; i++) {
        qp_linear_t linear = (qp_linear_t)((int)linears.first + i);
        if (!adapter->target[linear])
            continue;
        *view++ = (qp_lora_view_t){.layer = (int)layer,
                                   .linear = linear,
                                   .n_in = qp_linear_n_in(config, linear),
                                   .n_out = qp_linear_n_out(config, linear),
                                   .a = offset};
        offset += adapter->r * qp_linear_n_in(config, linear);
    }
    for (view = adapter->view + views.first; view < adapter->view + views.first + views.n; view++) {
        view->b = offset;
        offset += view->n_out * adapter->r;
    }
    return offset;
}

static void lay_out(qp_adapter_t *adapter, const qp_llama_config_t *config)
{
    int64_t per_layer = 0;
    for (int l = 0; l < QP_N_LINEAR; l++)
        per_layer += adapter->target[l];
    adapter->n_layer = config->n_layer;
    adapter->n_view = per_layer * config->n_layer;
    adapter->view = QP_NEW("adapter", qp_lora_view_t, adapter->n_view);
    adapter->layer_first = QP_NEW("adapter", int64_t, config->n_layer + 2);
    for (int64_t l = 0; l < config->n_layer; l++) {
        int64_t offset = adapter->layer_first[l];
        for (int g = 0; g < QP_N_GROUP; g++)
            offset = lay_out_group(adapter, config, l, (qp_group_t)g, offset);
        adapter->layer_first[l + 1] = offset;
    }
    adapter->n_param =
        adapter->layer_first[config->n_layer] + qp_head_n_param(adapter->head, config->d_model);
    adapter->layer_first[config->n_layer + 1] = adapter->n_param;
}

/* A of every target as PEFT draws it, keyed by (seed, target, row, column); B stays zero. */
static void draw(const qp_adapter_t *adapter, uint32_t seed, float *param)
{
    for (int64_t i = 0; i < adapter->n_view; i++) {
        const qp_lora_view_t *view = &adapter->view[i];
        float bound = 1.0f / sqrtf((float)view->n_in);
        qp_philox_key_t key = {.seed = seed,
                               .sample = (uint32_t)(view->layer * QP_N_LINEAR + (int)view->linear),
                               .site = QP_SITE_INIT};
        for (int64_t row = 0; row < adapter->r; row++) {
            key.position = (uint32_t)row;
            float *a = param + view->a + row * view->n_in;
            for (int64_t c = 0; c < view->n_in; c++)
                a[c] = bound * (2.0f * qp_philox_uniform(&key, (uint64_t)c) - 1.0f);
        }
    }
}

int64_t qp_head_n_param(int kind, int64_t d_model)
{
    static const int64_t bias[] = {[QP_HEAD_SCORE] = 0, [QP_HEAD_VALUE] = 1};
    return kind == QP_HEAD_NONE ? 0 : d_model + bias[kind];
}

/* The head as it starts; a score head has no bias. */
static void draw_head(const qp_adapter_t *adapter, const qp_head_config_t *config, int64_t d_model,
                      uint32_t seed, float *param)
{
    const qp_philox_key_t key = {.seed = seed, .position = 1, .site = QP_SITE_INIT_HEAD};
    const float bound = 1.0f / sqrtf((float)d_model);
    float *head = param + adapter->layer_first[adapter->n_layer];
    for (int64_t i = 0; i < qp_head_n_param(adapter->head, d_model); i++) {
        if (config->init == QP_HEAD_NORMAL)
            head[i] = (float)config->init_std * qp_philox_normal(&key, (uint64_t)i);
        else if (config->init == QP_HEAD_LINEAR)
            head[i] = bound * (2.0f * qp_philox_uniform(&key, (uint64_t)i) - 1.0f);
        else
            head[i] = 0.0f;
    }
}

size_t qp_adapter_bytes(const qp_device_t *device, int64_t n_param)
{
    const size_t bytes = qp_bytes(n_param, sizeof(float)), param = qp_budget_piece(bytes);
    return 2 * param + (qp_device_dtype(device) == QP_BF16 ? qp_budget_piece(bytes / 2) : 0);
}

/* As the function above says. */
static qp_error_t allocate(qp_adapter_t *adapter)
{
    const qp_ops_t *ops = adapter->device->ops;
    qp_queue_t *q = qp_device_queue(adapter->device);
    size_t bytes = qp_bytes(adapter->n_param, sizeof(float));
    QP_TRY(ops->alloc(adapter->device, "adapter", bytes, &adapter->param));
    QP_TRY(ops->alloc(adapter->device, "adapter", bytes, &adapter->grad));
    if (qp_device_dtype(adapter->device) == QP_BF16)
        QP_TRY(ops->alloc(adapter->device, "adapter", bytes / 2, &adapter->copy));
    return ops->zero(q, adapter->grad, bytes);
}

static qp_error_t set_param(qp_adapter_t *adapter, const float *param)
{
    QP_TRY(adapter->device->ops->upload(qp_device_queue(adapter->device), adapter->param, param,
                                        qp_bytes(adapter->n_param, sizeof(float))));
    return qp_adapter_refresh(adapter);
}

qp_error_t qp_adapter_create(qp_comm_t *comm, const qp_base_t *base, const qp_lora_config_t *config,
                             const qp_head_config_t *head, uint32_t seed, qp_adapter_t **out)
{
    qp_adapter_t *adapter = *out = QP_NEW("adapter", qp_adapter_t, 1);
    adapter->r = config->r;
    adapter->alpha = (float)config->alpha;
    adapter->dropout = (float)config->dropout;
    adapter->use_rslora = config->use_rslora;
    double divisor = config->use_rslora ? sqrt((double)config->r) : (double)config->r;
    adapter->scaling = (float)(config->alpha / divisor);
    adapter->head = head != NULL ? head->kind : QP_HEAD_NONE;
    adapter->head_dropout = head != NULL ? (float)head->dropout : 0.0f;
    adapter->device = base->device;
    memcpy(adapter->target, config->target, sizeof adapter->target);
    lay_out(adapter, &base->config);

    float *param = QP_NEW("adapter staging", float, adapter->n_param);
    qp_error_t error = NULL;
    if (head != NULL && head->kind != QP_HEAD_NONE)
        draw_head(adapter, head, base->config.d_model, seed, param);
    if (config->init == NULL)
        draw(adapter, seed, param);
    else if (qp_comm_rank(comm) == 0)
        error = qp_adapter_read(adapter, config, head, &base->config, param);
    QP_TRY_DONE(qp_comm_agree(comm, error));
    if (config->init != NULL)
        qp_comm_bcast(comm, param, adapter->n_param, QP_F32, 0);
    QP_TRY_DONE(qp_comm_agree(comm, allocate(adapter)));
    error = qp_comm_agree(comm, set_param(adapter, param));
done:
    qp_free(param);
    if (error != NULL)
        qp_adapter_destroy(out);
    return error;
}

/* score [d_model]; NULL: whether it is there is all that is asked. */
static qp_error_t read_merged_score(const char *path, int64_t d_model, float *score)
{
    static const char name[] = "/score/weight";
    qp_h5_t *file = NULL;
    QP_TRY(qp_h5_open(path, NULL, &file));
    qp_h5_shape_t shape = {0};
    qp_error_t error = NULL;
    if (!qp_h5_exists(file, name))
        error = QP_ERROR(
            QP_INPUT, "%s: has no score head: no reward adapter was merged into this base", path);
    if (error == NULL)
        error = qp_h5_dataset_shape(file, name, &shape);
    if (error == NULL && (shape.n_dim != 2 || shape.dim[0] != 1 || shape.dim[1] != d_model))
        error = QP_ERROR(QP_INPUT, "%s: %s is not [1, %lld]", path, name, (long long)d_model);
    if (error == NULL && score != NULL)
        error = qp_h5_checksum_verify(file, name);
    if (error == NULL && score != NULL)
        error = qp_h5_read(file, name, QP_F32, 0, 1, score);
    qp_error_t closing = qp_h5_close(&file);
    qp_error_destroy(&closing); /* nothing was written */
    return error;
}

qp_error_t qp_adapter_check_merged(const char *path, int64_t d_model)
{
    return read_merged_score(path, d_model, NULL);
}

qp_error_t qp_adapter_of_merged(qp_comm_t *comm, const qp_base_t *base, const char *path,
                                qp_adapter_t **out)
{
    const int64_t d_model = base->config.d_model;
    qp_adapter_t *adapter = *out = QP_NEW("adapter", qp_adapter_t, 1);
    adapter->device = base->device;
    adapter->head = QP_HEAD_SCORE;
    lay_out(adapter, &base->config);
    float *score = QP_NEW("adapter staging", float, adapter->n_param);
    qp_error_t error = qp_comm_rank(comm) == 0 ? read_merged_score(path, d_model, score) : NULL;
    QP_TRY_DONE(qp_comm_agree(comm, error));
    qp_comm_bcast(comm, score, adapter->n_param, QP_F32, 0);
    QP_TRY_DONE(qp_comm_agree(comm, allocate(adapter)));
    error = qp_comm_agree(comm, set_param(adapter, score));
done:
    qp_free(score);
    if (error != NULL)
        qp_adapter_destroy(out);
    return error;
}

void qp_adapter_destroy(qp_adapter_t **adapter)
{
    qp_adapter_t *a = *adapter;
    if (a == NULL)
        return;
    a->device->ops->release(a->device, &a->param);
    a->device->ops->release(a->device, &a->grad);
    a->device->ops->release(a->device, &a->copy);
    QP_FREE(a->view);
    QP_FREE(a->layer_first);
    QP_FREE(*adapter);
}

qp_error_t qp_adapter_refresh(qp_adapter_t *adapter)
{
    if (qp_dptr_is_null(adapter->copy))
        return NULL;
    return adapter->device->ops->axpby(qp_device_queue(adapter->device), 1.0f,
                                       qp_mat(adapter->param, QP_F32, 1, adapter->n_param), 0.0f,
                                       qp_mat(adapter->copy, QP_BF16, 1, adapter->n_param));
}
