#include <math.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/base.h"

/* Plain tensors larger than this pass in pieces (embeddings). */
static const int64_t PIECE_BYTES = 16 << 20;

static const qp_dtype_t LINEAR_DTYPE[] = {
    [QP_PRECISION_FP32] = QP_F32,
    [QP_PRECISION_BF16] = QP_BF16,
    [QP_PRECISION_INT8] = QP_I8,
    [QP_PRECISION_LLM_INT8] = QP_I8,
};

/* What a rank needs while it reads: the file and host memory for one group of linears. */
typedef struct {
    const qp_base_t *base;
    const qp_h5_t *file;
    void *plain; /* [n_out, n_in] of the largest group */
    size_t plain_bytes;
    float *scale;  /* [n_out] */
    float *vector; /* bias [n_out], or a norm [d_model] */
} reader_t;

static void reader_init(reader_t *reader, const qp_base_t *base, const qp_h5_t *file)
{
    const qp_llama_config_t *config = &base->config;
    size_t element = qp_dtype_bytes(LINEAR_DTYPE[base->precision]);
    int64_t n_vector = config->d_model;
    *reader = (reader_t){.base = base, .file = file, .plain_bytes = (size_t)PIECE_BYTES};
    for (int g = 0; g < QP_N_GROUP; g++) {
        int64_t n_out = qp_group_n_out(config, (qp_group_t)g);
        size_t bytes = qp_bytes(n_out * qp_group_n_in(config, (qp_group_t)g), element);
        n_vector = n_out > n_vector ? n_out : n_vector;
        reader->plain_bytes = bytes > reader->plain_bytes ? bytes : reader->plain_bytes;
    }
    reader->plain = qp_alloc("base staging", reader->plain_bytes);
    reader->scale = QP_NEW("base staging", float, n_vector);
    reader->vector = QP_NEW("base staging", float, n_vector);
}

static void reader_fini(reader_t *reader)
{
    QP_FREE(reader->plain);
    QP_FREE(reader->scale);
    QP_FREE(reader->vector);
}

static qp_error_t check_shape(const reader_t *reader, const char *name, qp_dtype_t dtype,
                              int64_t n_row, int64_t n_col)
{
    qp_h5_shape_t shape;
    QP_TRY(qp_h5_dataset_shape(reader->file, name, &shape));
    int64_t found_cols = shape.n_dim == 2 ? shape.dim[1] : 1;
    if (shape.dtype == dtype && (shape.n_dim == 1 || shape.n_dim == 2) && shape.dim[0] == n_row &&
        found_cols == n_col)
        return NULL;
    return QP_ERROR(QP_INPUT, "%s: %s: found %s [%lld, %lld], expected %s [%lld, %lld]",
                    qp_h5_path(reader->file), name, qp_dtype_name(shape.dtype),
                    (long long)shape.dim[0], (long long)found_cols, qp_dtype_name(dtype),
                    (long long)n_row, (long long)n_col);
}

static qp_error_t check_sum(const reader_t *reader, const char *name, uint64_t found)
{
    uint64_t expected;
    QP_TRY(qp_h5_checksum_get(reader->file, name, &expected));
    if (found == expected)
        return NULL;
    return QP_ERROR(QP_INPUT, "%s: %s: checksum is %016llx, expected %016llx: the file is damaged",
                    qp_h5_path(reader->file), name, (unsigned long long)found,
                    (unsigned long long)expected);
}

/* One whole tensor, checked, into host memory. */
static qp_error_t read_tensor(const reader_t *reader, const char *name, qp_dtype_t dtype,
                              int64_t n_row, int64_t n_col, void *out)
{
    QP_TRY(check_shape(reader, name, dtype, n_row, n_col));
    QP_TRY(qp_h5_read(reader->file, name, dtype, 0, n_row, out));
    return check_sum(reader, name,
                     qp_hash_bytes(out, qp_bytes(n_row * n_col, qp_dtype_bytes(dtype))));
}

/* A fp32 vector whose values must be finite, and not negative where they are scales. */
static qp_error_t read_vector(const reader_t *reader, const char *name, int64_t n, bool is_scale,
                              float *out)
{
    QP_TRY(read_tensor(reader, name, QP_F32, n, 1, out));
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(out[i]) || (is_scale && out[i] < 0.0f))
            return QP_ERROR(QP_INPUT, "%s: %s: element %lld is %g, expected a finite %s",
                            qp_h5_path(reader->file), name, (long long)i, (double)out[i],
                            is_scale ? "scale >= 0" : "number");
    return NULL;
}

/* Rows of one linear, its scales and its bias at their place in the group's host memory. */
static qp_error_t read_linear(const reader_t *reader, int64_t layer, qp_linear_t linear,
                              bool has_bias)
{
    const qp_base_t *base = reader->base;
    qp_dtype_t dtype = LINEAR_DTYPE[base->precision];
    int64_t n_in = qp_linear_n_in(&base->config, linear);
    int64_t n_out = qp_linear_n_out(&base->config, linear);
    int64_t first = qp_linear_first_out(&base->config, linear);
    char *rows = (char *)reader->plain + qp_bytes(first * n_in, qp_dtype_bytes(dtype));
    char stem[128], name[160];
    snprintf(stem, sizeof stem, "/tensors/model.layers.%lld.%s", (long long)layer,
             qp_linear_name(linear));
    snprintf(name, sizeof name, "%s.weight", stem);
    QP_TRY(read_tensor(reader, name, dtype, n_out, n_in, rows));
    snprintf(name, sizeof name, "%s.weight_scale", stem);
    if (dtype == QP_I8)
        QP_TRY(read_vector(reader, name, n_out, true, reader->scale + first));
    snprintf(name, sizeof name, "%s.bias", stem);
    if (has_bias)
        QP_TRY(read_vector(reader, name, n_out, false, reader->vector + first));
    return NULL;
}

static qp_error_t load_group(const reader_t *reader, int64_t layer, qp_group_t group)
{
    const qp_base_t *base = reader->base;
    bool has_bias = qp_group_has_bias(&base->config, group);
    qp_group_linears_t linears = qp_group_linears(group);
    for (int i = 0; i < linears.n; i++)
        QP_TRY(read_linear(reader, layer, (qp_linear_t)((int)linears.first + i), has_bias));
    bool has_scale = LINEAR_DTYPE[base->precision] == QP_I8;
    return base->device->ops->weight_pack(
        qp_device_queue(base->device), &base->layer[layer].group[group], reader->plain,
        has_scale ? reader->scale : NULL, has_bias ? reader->vector : NULL);
}

static qp_error_t load_vector(const reader_t *reader, const char *name, qp_dptr_t to, int64_t n)
{
    QP_TRY(read_vector(reader, name, n, false, reader->vector));
    return reader->base->device->ops->upload(qp_device_queue(reader->base->device), to,
                                             reader->vector, qp_bytes(n, sizeof(float)));
}

static qp_error_t load_layer(const reader_t *reader, int64_t layer)
{
    const qp_base_t *base = reader->base;
    const qp_layer_t *to = &base->layer[layer];
    char name[128];
    for (int g = 0; g < QP_N_GROUP; g++)
        QP_TRY(load_group(reader, layer, (qp_group_t)g));
    snprintf(name, sizeof name, "/tensors/model.layers.%lld.input_layernorm.weight",
             (long long)layer);
    QP_TRY(load_vector(reader, name, to->input_norm, base->config.d_model));
    snprintf(name, sizeof name, "/tensors/model.layers.%lld.post_attention_layernorm.weight",
             (long long)layer);
    return load_vector(reader, name, to->post_norm, base->config.d_model);
}

/* An embedding or head: plain on the device, read in pieces. */
static qp_error_t load_plain(const reader_t *reader, const char *name, qp_mat_t to)
{
    const qp_ops_t *ops = reader->base->device->ops;
    size_t row_bytes = qp_bytes(to.n_col, qp_dtype_bytes(to.dtype));
    int64_t n_piece = (int64_t)(reader->plain_bytes / row_bytes);
    QP_TRY(check_shape(reader, name, to.dtype, to.n_row, to.n_col));
    qp_hash_t *hash = qp_hash_create();
    qp_error_t error = NULL;
    for (int64_t first = 0; first < to.n_row; first += n_piece) {
        int64_t n = to.n_row - first < n_piece ? to.n_row - first : n_piece;
        qp_dptr_t rows = qp_mat_rows(to, first, n).data;
        QP_TRY_DONE(qp_h5_read(reader->file, name, to.dtype, first, n, reader->plain));
        qp_hash_update(hash, reader->plain, qp_bytes(n, row_bytes));
        QP_TRY_DONE(ops->upload(qp_device_queue(reader->base->device), rows, reader->plain,
                                qp_bytes(n, row_bytes)));
    }
    error = check_sum(reader, name, qp_hash_value(hash));
done:
    qp_hash_destroy(&hash);
    return error;
}

static qp_error_t load_rope(const qp_base_t *base)
{
    qp_mat_t rope = base->rope;
    size_t bytes = qp_bytes(rope.n_row * rope.n_col, sizeof(float));
    float *table = qp_alloc("base staging", bytes);
    qp_llama_rope_table(&base->config, rope.n_row, table);
    qp_error_t error =
        base->device->ops->upload(qp_device_queue(base->device), rope.data, table, bytes);
    qp_free(table);
    return error;
}

/* What is not in a layer, as the units of work after the layers. */
enum { UNIT_EMBEDDING, UNIT_LM_HEAD, UNIT_NORM, UNIT_ROPE, N_UNIT };

static qp_error_t load_unit(const reader_t *reader, int64_t unit)
{
    const qp_base_t *base = reader->base;
    if (unit < base->config.n_layer)
        return load_layer(reader, unit);
    switch (unit - base->config.n_layer) {
    case UNIT_EMBEDDING:
        return load_plain(reader, "/tensors/model.embed_tokens.weight", base->embedding);
    case UNIT_LM_HEAD:
        return base->config.tie_word_embeddings
                   ? NULL
                   : load_plain(reader, "/tensors/lm_head.weight", base->lm_head);
    case UNIT_NORM:
        return load_vector(reader, "/tensors/model.norm.weight", base->norm, base->config.d_model);
    default:
        return load_rope(base);
    }
}

/* This rank's share of the units: every share_size-th one. */
static qp_error_t load_share(const qp_base_t *base, const qp_h5_t *file, int share, int share_size)
{
    reader_t reader;
    reader_init(&reader, base, file);
    qp_error_t error = NULL;
    for (int64_t unit = share; unit < base->config.n_layer + N_UNIT && error == NULL;
         unit += share_size)
        error = load_unit(&reader, unit);
    if (error == NULL)
        error = base->device->ops->synchronize(qp_device_queue(base->device));
    reader_fini(&reader);
    return error;
}

static qp_error_t open_info(const char *path, qp_h5_t **file, qp_base_info_t *info)
{
    QP_TRY(qp_h5_open(path, NULL, file));
    return qp_base_info_read(*file, info);
}

static qp_error_t allocate(qp_comm_t *comm, qp_base_t *base, int64_t n_position)
{
    qp_device_t *device = base->device;
    size_t bytes = qp_base_lay_out(base, n_position, (qp_dptr_t){0});
    if (device->host_addressable) {
        QP_TRY(qp_shared_create(comm, "base", bytes, &base->shared));
        base->storage = qp_device_from_host(device, qp_shared_data(base->shared));
    } else {
        QP_TRY(qp_comm_agree(comm, device->ops->alloc(device, "base", bytes, &base->storage)));
    }
    qp_base_lay_out(base, n_position, base->storage);
    return NULL;
}

qp_error_t qp_base_load(qp_comm_t *comm, qp_device_t *device, const qp_base_config_t *config,
                        int64_t n_position, qp_base_t **base)
{
    qp_h5_t *file = NULL;
    qp_base_info_t info = {0};
    *base = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_comm_agree(comm, open_info(config->file, &file, &info)));
    qp_linear_mode_t mode = {.int8_activation = config->activation == QP_PRODUCT_INT8,
                             .int8_gradient = config->gradient == QP_PRODUCT_INT8 &&
                                              info.precision == QP_PRECISION_INT8,
                             .outlier_threshold = (float)config->outlier_threshold};
    *base = qp_base_new(device, &info, mode);
    QP_TRY_DONE(allocate(comm, *base, n_position));
    bool shared = (*base)->shared != NULL;
    error = load_share(*base, file, shared ? qp_comm_node_rank(comm) : 0,
                       shared ? qp_comm_node_size(comm) : 1);
    QP_TRY_DONE(qp_comm_agree(comm, error));
    if (shared)
        qp_shared_fence(comm, (*base)->shared);
done:
    if (file != NULL) {
        qp_error_t closing = qp_h5_close(&file);
        if (error == NULL)
            error = closing;
        else
            qp_error_destroy(&closing);
    }
    qp_base_info_fini(&info);
    if (error != NULL)
        qp_base_destroy(comm, base);
    return error;
}
