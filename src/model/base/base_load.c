#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/base/base_impl.h"

/* Plain tensors larger than this pass in pieces (embeddings). */
static const int64_t PIECE_BYTES = 16 << 20;

static const qp_dtype_t LINEAR_DTYPE[] = {
    [QP_WEIGHT_F32] = QP_F32,
    [QP_WEIGHT_BF16] = QP_BF16,
    [QP_WEIGHT_INT8] = QP_I8,
    [QP_WEIGHT_LLM_INT8] = QP_I8,
};

/* A part of the base that is read and then put in its place at once. */
typedef enum { ITEM_GROUP, ITEM_VECTOR, ITEM_ROWS, ITEM_ROPE } item_kind_t;

typedef struct {
    item_kind_t kind;
    char name[96];         /* of the tensor; GROUP: what precedes the names of its linears */
    const qp_layer_t *to;  /* GROUP */
    qp_group_t group;      /* GROUP */
    qp_dptr_t vector;      /* VECTOR: where it goes */
    qp_mat_t rows;         /* ROWS: where these rows go */
    int64_t first, n_rows; /* ROWS: of so many */
} item_t;

/* A tensor, or some rows of it, in host memory. */
typedef struct {
    char name[160];
    void *data;
    size_t bytes;
    bool is_vector, is_scale; /* fp32; a scale is >= 0 */
    uint64_t expected, found; /* checksums */
} part_t;

enum { MAX_PART = 9, N_SLOT = 2 };

/* Host memory for one item. */
typedef struct {
    void *plain;   /* [n_out, n_in] of the largest group, or PIECE_BYTES */
    float *scale;  /* [n_out] */
    float *vector; /* bias [n_out], or a norm [d_model] */
    part_t part[MAX_PART];
    int n_part;
    qp_error_t error;
} slot_t;

/* One thread reads item after item, the others put in place what has been read. */
typedef struct {
    const qp_base_t *base;
    const qp_h5_t *file;
    item_t *item;
    int64_t capacity, n_item, n_read, n_used; /* the last two under the lock */
    bool stop;
    size_t plain_bytes;
    slot_t slot[N_SLOT];
    qp_hash_t *hash; /* of ITEM_ROWS so far */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
} reader_t;

/* --- what there is to read -------------------------------------------------------------------- */

static item_t *add_item(reader_t *reader, item_kind_t kind)
{
    if (reader->n_item == reader->capacity) {
        reader->capacity = 2 * reader->capacity + 64;
        reader->item = qp_realloc("base staging", reader->item,
                                  qp_bytes(reader->capacity, sizeof *reader->item));
    }
    item_t *item = &reader->item[reader->n_item++];
    *item = (item_t){.kind = kind};
    return item;
}

static void add_vector(reader_t *reader, qp_dptr_t to, const char *format, int64_t layer)
{
    item_t *item = add_item(reader, ITEM_VECTOR);
    snprintf(item->name, sizeof item->name, format, (long long)layer);
    item->vector = to;
}

static void add_layer(reader_t *reader, int64_t layer)
{
    const qp_layer_t *to = &reader->base->layer[layer];
    for (int g = 0; g < QP_N_GROUP; g++) {
        item_t *item = add_item(reader, ITEM_GROUP);
        item->to = to;
        item->group = (qp_group_t)g;
        snprintf(item->name, sizeof item->name, "/tensors/model.layers.%lld", (long long)layer);
    }
    add_vector(reader, to->input_norm, "/tensors/model.layers.%lld.input_layernorm.weight", layer);
    add_vector(reader, to->post_norm, "/tensors/model.layers.%lld.post_attention_layernorm.weight",
               layer);
}

/* Rows of an embedding or head that are read at once. */
static int64_t piece_rows(qp_mat_t all)
{
    const int64_t n = PIECE_BYTES / (int64_t)qp_bytes(all.n_col, qp_dtype_bytes(all.dtype));
    return n > 0 ? n : 1;
}

static int64_t n_piece(qp_mat_t all)
{
    return (all.n_row + piece_rows(all) - 1) / piece_rows(all);
}

/* An embedding or head: plain on the device, read in pieces. */
static void add_plain(reader_t *reader, const char *name, qp_mat_t all)
{
    for (int64_t i = 0; i < n_piece(all); i++) {
        const int64_t first = i * piece_rows(all), left = all.n_row - first;
        item_t *item = add_item(reader, ITEM_ROWS);
        snprintf(item->name, sizeof item->name, "%s", name);
        item->rows = qp_mat_rows(all, first, left < piece_rows(all) ? left : piece_rows(all));
        item->first = first;
        item->n_rows = all.n_row;
    }
}

/* What is not in a layer, as the units of work after the layers. */
enum { UNIT_EMBEDDING, UNIT_LM_HEAD, UNIT_NORM, UNIT_ROPE, N_UNIT };

static void add_unit(reader_t *reader, int64_t unit)
{
    const qp_base_t *base = reader->base;
    if (unit < base->config.n_layer) {
        add_layer(reader, unit);
        return;
    }
    switch (unit - base->config.n_layer) {
    case UNIT_EMBEDDING:
        add_plain(reader, "/tensors/model.embed_tokens.weight", base->embedding);
        break;
    case UNIT_LM_HEAD:
        if (!base->config.tie_word_embeddings)
            add_plain(reader, "/tensors/lm_head.weight", base->lm_head);
        break;
    case UNIT_NORM:
        add_vector(reader, base->norm, "/tensors/model.norm.weight", 0);
        break;
    default:
        add_item(reader, ITEM_ROPE);
    }
}

/* --- reading ---------------------------------------------------------------------------------- */

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

/* Rows [first, first + rows.n_row) of a tensor of n_row rows; rows says what they are. */
static qp_error_t read_rows(const reader_t *reader, slot_t *slot, const char *name, qp_mat_t rows,
                            int64_t first, int64_t n_row, void *to)
{
    QP_ASSERT(slot->n_part < MAX_PART);
    part_t *part = &slot->part[slot->n_part++];
    *part = (part_t){.data = to,
                     .bytes = qp_bytes(rows.n_row * rows.n_col, qp_dtype_bytes(rows.dtype))};
    snprintf(part->name, sizeof part->name, "%s", name);
    QP_TRY(check_shape(reader, name, rows.dtype, n_row, rows.n_col));
    QP_TRY(qp_h5_read(reader->file, name, rows.dtype, first, rows.n_row, to));
    return qp_h5_checksum_get(reader->file, name, &part->expected);
}

static qp_error_t read_vector(const reader_t *reader, slot_t *slot, const char *name, int64_t n,
                              bool is_scale, float *to)
{
    QP_TRY(read_rows(reader, slot, name, qp_mat((qp_dptr_t){0}, QP_F32, n, 1), 0, n, to));
    part_t *part = &slot->part[slot->n_part - 1];
    part->is_vector = true;
    part->is_scale = is_scale;
    return NULL;
}

/* Rows of one linear, its scales and its bias at their place in the group's host memory. */
static qp_error_t read_linear(const reader_t *reader, slot_t *slot, const char *layer,
                              qp_linear_t linear, bool has_bias)
{
    const qp_base_t *base = reader->base;
    const qp_dtype_t dtype = LINEAR_DTYPE[base->precision];
    const int64_t n_in = qp_linear_n_in(&base->config, linear);
    const int64_t n_out = qp_linear_n_out(&base->config, linear);
    const int64_t first = qp_linear_first_out(&base->config, linear);
    char *rows = (char *)slot->plain + qp_bytes(first * n_in, qp_dtype_bytes(dtype));
    char name[160];
    snprintf(name, sizeof name, "%s.%s.weight", layer, qp_linear_name(linear));
    QP_TRY(
        read_rows(reader, slot, name, qp_mat((qp_dptr_t){0}, dtype, n_out, n_in), 0, n_out, rows));
    snprintf(name, sizeof name, "%s.%s.weight_scale", layer, qp_linear_name(linear));
    if (dtype == QP_I8)
        QP_TRY(read_vector(reader, slot, name, n_out, true, slot->scale + first));
    snprintf(name, sizeof name, "%s.%s.bias", layer, qp_linear_name(linear));
    if (has_bias)
        QP_TRY(read_vector(reader, slot, name, n_out, false, slot->vector + first));
    return NULL;
}

static qp_error_t read_item(const reader_t *reader, const item_t *item, slot_t *slot)
{
    const qp_llama_config_t *config = &reader->base->config;
    slot->n_part = 0;
    switch (item->kind) {
    case ITEM_GROUP: {
        const bool has_bias = qp_group_has_bias(config, item->group);
        const qp_group_linears_t linears = qp_group_linears(item->group);
        for (int i = 0; i < linears.n; i++)
            QP_TRY(read_linear(reader, slot, item->name, (qp_linear_t)((int)linears.first + i),
                               has_bias));
        return NULL;
    }
    case ITEM_VECTOR:
        return read_vector(reader, slot, item->name, config->d_model, false, slot->vector);
    case ITEM_ROWS:
        return read_rows(reader, slot, item->name, item->rows, item->first, item->n_rows,
                         slot->plain);
    case ITEM_ROPE:
        break;
    }
    return NULL;
}

static void *read_ahead(void *argument)
{
    reader_t *reader = argument;
    pthread_mutex_lock(&reader->lock);
    for (int64_t i = 0; i < reader->n_item; i++) {
        while (i - reader->n_used >= N_SLOT && !reader->stop)
            pthread_cond_wait(&reader->changed, &reader->lock);
        if (reader->stop)
            break;
        pthread_mutex_unlock(&reader->lock);
        slot_t *slot = &reader->slot[i % N_SLOT];
        slot->error = read_item(reader, &reader->item[i], slot);
        pthread_mutex_lock(&reader->lock);
        reader->n_read++;
        pthread_cond_signal(&reader->changed);
    }
    pthread_mutex_unlock(&reader->lock);
    return NULL;
}

/* --- putting in place ------------------------------------------------------------------------- */

static qp_error_t check_sum(const reader_t *reader, const part_t *part)
{
    if (part->found == part->expected)
        return NULL;
    return QP_ERROR(QP_INPUT, "%s: %s: checksum is %016llx, expected %016llx: the file is damaged",
                    qp_h5_path(reader->file), part->name, (unsigned long long)part->found,
                    (unsigned long long)part->expected);
}

/* Vectors must be finite, and not negative where they are scales. */
static qp_error_t check_vector(const reader_t *reader, const part_t *part)
{
    const float *value = part->data;
    for (size_t i = 0; i < part->bytes / sizeof *value; i++)
        if (!isfinite(value[i]) || (part->is_scale && value[i] < 0.0f))
            return QP_ERROR(QP_INPUT, "%s: %s: element %zu is %g, expected a finite %s",
                            qp_h5_path(reader->file), part->name, i, (double)value[i],
                            part->is_scale ? "scale >= 0" : "number");
    return NULL;
}

static qp_error_t check_parts(const reader_t *reader, slot_t *slot)
{
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < slot->n_part; i++)
        slot->part[i].found = qp_hash_bytes(slot->part[i].data, slot->part[i].bytes);
    for (int i = 0; i < slot->n_part; i++) {
        QP_TRY(check_sum(reader, &slot->part[i]));
        if (slot->part[i].is_vector)
            QP_TRY(check_vector(reader, &slot->part[i]));
    }
    return NULL;
}

static qp_error_t place_group(const reader_t *reader, const item_t *item, slot_t *slot)
{
    const qp_base_t *base = reader->base;
    const bool has_scale = LINEAR_DTYPE[base->precision] == QP_I8;
    QP_TRY(check_parts(reader, slot));
    return base->device->ops->weight_pack(
        qp_device_queue(base->device), &item->to->group[item->group], slot->plain,
        has_scale ? slot->scale : NULL,
        qp_group_has_bias(&base->config, item->group) ? slot->vector : NULL);
}

static qp_error_t place_vector(const reader_t *reader, const item_t *item, slot_t *slot)
{
    QP_TRY(check_parts(reader, slot));
    return reader->base->device->ops->upload(qp_device_queue(reader->base->device), item->vector,
                                             slot->part->data, slot->part->bytes);
}

/* The checksum is that of all pieces, one after the other. */
static qp_error_t place_rows(reader_t *reader, const item_t *item, slot_t *slot)
{
    part_t *part = slot->part;
    if (reader->hash == NULL)
        reader->hash = qp_hash_create();
    qp_hash_update(reader->hash, part->data, part->bytes);
    if (item->first + item->rows.n_row == item->n_rows) {
        part->found = qp_hash_value(reader->hash);
        qp_hash_destroy(&reader->hash);
        QP_TRY(check_sum(reader, part));
    }
    return reader->base->device->ops->upload(qp_device_queue(reader->base->device), item->rows.data,
                                             part->data, part->bytes);
}

static qp_error_t place_rope(const qp_base_t *base)
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

static qp_error_t place_item(reader_t *reader, const item_t *item, slot_t *slot)
{
    qp_error_t error = slot->error;
    slot->error = NULL;
    QP_TRY(error);
    switch (item->kind) {
    case ITEM_GROUP:
        return place_group(reader, item, slot);
    case ITEM_VECTOR:
        return place_vector(reader, item, slot);
    case ITEM_ROWS:
        return place_rows(reader, item, slot);
    case ITEM_ROPE:
        break;
    }
    return place_rope(reader->base);
}

/* --- a rank's share --------------------------------------------------------------------------- */

static void reader_init(reader_t *reader, const qp_base_t *base, const qp_h5_t *file)
{
    const qp_llama_config_t *config = &base->config;
    const size_t element = qp_dtype_bytes(LINEAR_DTYPE[base->precision]);
    int64_t n_vector = config->d_model;
    *reader = (reader_t){.base = base, .file = file, .plain_bytes = (size_t)PIECE_BYTES};
    for (int g = 0; g < QP_N_GROUP; g++) {
        int64_t n_out = qp_group_n_out(config, (qp_group_t)g);
        size_t bytes = qp_bytes(n_out * qp_group_n_in(config, (qp_group_t)g), element);
        n_vector = n_out > n_vector ? n_out : n_vector;
        reader->plain_bytes = bytes > reader->plain_bytes ? bytes : reader->plain_bytes;
    }
    for (int i = 0; i < N_SLOT; i++) {
        reader->slot[i].plain = qp_alloc("base staging", reader->plain_bytes);
        reader->slot[i].scale = QP_NEW("base staging", float, n_vector);
        reader->slot[i].vector = QP_NEW("base staging", float, n_vector);
    }
    pthread_mutex_init(&reader->lock, NULL);
    pthread_cond_init(&reader->changed, NULL);
}

static void reader_fini(reader_t *reader)
{
    for (int i = 0; i < N_SLOT; i++) {
        qp_free(reader->slot[i].plain);
        qp_free(reader->slot[i].scale);
        qp_free(reader->slot[i].vector);
        qp_error_destroy(&reader->slot[i].error);
    }
    if (reader->hash != NULL)
        qp_hash_destroy(&reader->hash);
    qp_free(reader->item);
    pthread_mutex_destroy(&reader->lock);
    pthread_cond_destroy(&reader->changed);
}

static qp_error_t place_all(reader_t *reader)
{
    qp_error_t error = NULL;
    for (int64_t i = 0; i < reader->n_item && error == NULL; i++) {
        pthread_mutex_lock(&reader->lock);
        while (reader->n_read <= i)
            pthread_cond_wait(&reader->changed, &reader->lock);
        pthread_mutex_unlock(&reader->lock);
        error = place_item(reader, &reader->item[i], &reader->slot[i % N_SLOT]);
        pthread_mutex_lock(&reader->lock);
        reader->n_used++;
        reader->stop = error != NULL;
        pthread_cond_signal(&reader->changed);
        pthread_mutex_unlock(&reader->lock);
    }
    return error;
}

/* This rank's share of the units: every share_size-th one. */
static qp_error_t load_share(const qp_base_t *base, const qp_h5_t *file, int share, int share_size)
{
    reader_t reader;
    qp_error_t error = NULL;
    reader_init(&reader, base, file);
    for (int64_t unit = share; unit < base->config.n_layer + N_UNIT; unit += share_size)
        add_unit(&reader, unit);
    const int status = pthread_create(&reader.thread, NULL, read_ahead, &reader);
    if (status != 0) {
        error = QP_ERROR(QP_INTERNAL, "cannot start the reading thread (error %d)", status);
    } else {
        error = place_all(&reader);
        pthread_join(reader.thread, NULL);
    }
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
                                              info.precision == QP_WEIGHT_INT8,
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
