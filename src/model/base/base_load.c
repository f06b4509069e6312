/*
 * Loading. Each rank reads its share of the items into its ring of the stage; where device
 * addresses are host addresses it also puts them in place, in the arena that the node's ranks
 * share; else every rank puts all of the node's items in place, on a device of its own. So a node
 * reads its file once, however many devices it has.
 */
#include <pthread.h>

#include "base/mem.h"
#include "base/activity.h"
#include "model/base/base_impl.h"
#include "model/base/base_read.h"
#include "model/base/stage.h"

/* One rank at work. */
typedef struct {
    const qp_base_t *base;
    int node_rank, first_ring, n_ring; /* the rings that it takes from */
    qp_base_items_t items;
    qp_stage_t *stage;
    qp_base_reader_t reader; /* the reading thread's, and its error */
    qp_error_t read_error;
    void *registered;  /* with the device; NULL: not yet */
    qp_dptr_t staging; /* a block on the device; none where it sees the slots */
    qp_event_t *done;  /* the device is done with the last block that it was given */
} loader_t;

/* --- reading ---------------------------------------------------------------------------------- */

static void *read_share(void *argument)
{
    loader_t *loader = argument;
    qp_base_piece_t piece = {0};
    const int ring = loader->node_rank;
    while (qp_base_next_piece(&loader->items, ring, &piece) &&
           qp_stage_wait_free(loader->stage, ring, piece.index)) {
        loader->read_error = qp_base_read_piece(&loader->reader, &piece,
                                                qp_stage_slot(loader->stage, ring, piece.index));
        if (loader->read_error != NULL) {
            qp_stage_stop(loader->stage);
            break;
        }
        qp_stage_fill(loader->stage, ring, piece.index);
    }
    return NULL;
}

/* --- putting in place ------------------------------------------------------------------------- */

static qp_error_t place_rows(const loader_t *loader, const qp_base_piece_t *piece, void *slot)
{
    qp_device_t *device = loader->base->device;
    const qp_base_item_t *item = piece->item;
    const qp_mat_t to = qp_mat_rows(item->plain, piece->first, piece->n_row);
    return device->ops->upload_async(qp_device_queue(device), to.data, slot,
                                     qp_bytes(to.n_row * to.n_col, qp_dtype_bytes(to.dtype)));
}

static qp_error_t pack_rows(const loader_t *loader, const qp_base_piece_t *piece, void *slot)
{
    qp_device_t *device = loader->base->device;
    const qp_base_item_t *item = piece->item;
    qp_queue_t *q = qp_device_queue(device);
    qp_dptr_t block = loader->staging;
    if (device->host_addressable)
        block = qp_device_from_host(device, slot);
    else
        QP_TRY(device->ops->upload_async(q, block, slot, piece->n_bytes));
    const qp_dptr_t none = {0};
    return device->ops->weight_pack(q, item->weight, piece->first,
                                    qp_mat(block, item->dtype, piece->n_row, item->n_col),
                                    piece->scale > 0 ? qp_dptr_at(block, piece->scale) : none,
                                    piece->bias > 0 ? qp_dptr_at(block, piece->bias) : none);
}

/* A block that was given to the device: its slot is not free before the device is done with it. */
typedef struct {
    int ring;
    int64_t index;
} given_t;

static qp_error_t place(loader_t *loader, int ring, const qp_base_piece_t *piece, given_t *last)
{
    const qp_ops_t *ops = loader->base->device->ops;
    void *slot = qp_stage_slot(loader->stage, ring, piece->index);
    QP_TRY((piece->item->weight != NULL ? pack_rows : place_rows)(loader, piece, slot));
    if (last->ring >= 0) {
        QP_TRY(ops->event_synchronize(loader->done));
        qp_stage_release(loader->stage, last->ring, last->index);
    }
    *last = (given_t){ring, piece->index};
    return ops->event_record(qp_device_queue(loader->base->device), loader->done);
}

/* False: a rank has given up. */
static bool wait_for_block(loader_t *loader, int ring, int64_t index)
{
    const bool own = ring == loader->node_rank; /* is filled by this process */
    if (!own)
        qp_activity_wait_begin();
    const bool go_on = qp_stage_wait_filled(loader->stage, ring, index);
    if (!own)
        qp_activity_wait_end();
    qp_activity_mark();
    return go_on;
}

/* The next piece of each ring in turn, until there are none. */
static qp_error_t place_all(loader_t *loader)
{
    qp_base_piece_t *at = QP_NEW("base staging", qp_base_piece_t, loader->n_ring);
    given_t last = {.ring = -1};
    qp_error_t error = NULL;
    bool go_on = true;
    for (bool any = true; any && go_on;) {
        any = false;
        for (int i = 0; i < loader->n_ring && go_on; i++) {
            const int ring = loader->first_ring + i;
            if (!qp_base_next_piece(&loader->items, ring, &at[i]))
                continue;
            any = true;
            go_on = wait_for_block(loader, ring, at[i].index);
            if (go_on)
                error = place(loader, ring, &at[i], &last);
            go_on &= error == NULL;
        }
    }
    qp_free(at);
    return error;
}

/* The rotary table is computed. */
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

/* --- a rank's part ---------------------------------------------------------------------------- */

/* What the device needs to take blocks from the stage. */
static qp_error_t attach(loader_t *loader)
{
    qp_device_t *device = loader->base->device;
    void *memory = qp_stage_memory(loader->stage);
    QP_TRY(device->ops->event_create(device, &loader->done));
    QP_TRY(device->ops->host_register(device, memory, qp_stage_bytes(loader->stage)));
    loader->registered = memory;
    if (device->host_addressable)
        return NULL;
    return device->ops->alloc(device, "base staging", loader->items.piece_bytes, &loader->staging);
}

static qp_error_t work(loader_t *loader)
{
    const qp_base_t *base = loader->base;
    pthread_t thread;
    QP_TRY(attach(loader));
    const int status = pthread_create(&thread, NULL, read_share, loader);
    if (status != 0)
        return QP_ERROR(QP_INTERNAL, "cannot start the reading thread (error %d)", status);
    qp_error_t error = NULL;
    if (base->shared == NULL || loader->node_rank == 0)
        error = place_rope(base);
    if (error == NULL)
        error = place_all(loader);
    if (error != NULL)
        qp_stage_stop(loader->stage);
    pthread_join(thread, NULL);
    return qp_error_first(error, loader->read_error);
}

static void detach(loader_t *loader)
{
    qp_device_t *device = loader->base->device;
    if (loader->registered != NULL)
        device->ops->host_unregister(device, loader->registered);
    device->ops->release(device, &loader->staging);
    device->ops->event_destroy(&loader->done);
}

/* Collective; every rank comes to the end, whoever failed. */
static qp_error_t load_items(qp_comm_t *comm, qp_base_t *base, const qp_h5_t *file)
{
    const int n_ring = qp_comm_node_size(comm), node_rank = qp_comm_node_rank(comm);
    const bool shared = base->shared != NULL;
    loader_t loader = {.base = base,
                       .node_rank = node_rank,
                       .first_ring = shared ? node_rank : 0,
                       .n_ring = shared ? 1 : n_ring,
                       .reader = {.file = file}};
    qp_base_items_init(base, n_ring, &loader.items);
    qp_error_t error =
        qp_stage_create(comm, loader.items.piece_bytes, loader.n_ring, &loader.stage);
    if (error == NULL) {
        error = work(&loader);
        if (error != NULL)
            qp_stage_stop(loader.stage);
        error =
            qp_error_first(error, base->device->ops->synchronize(qp_device_queue(base->device)));
        detach(&loader);
        error = qp_comm_agree(comm, error);
    }
    base->n_read_bytes = loader.reader.n_bytes;
    qp_base_reader_fini(&loader.reader);
    qp_stage_destroy(comm, &loader.stage);
    qp_base_items_fini(&loader.items);
    return error;
}

static qp_error_t open_info(const char *path, qp_h5_t **file, qp_base_info_t *info)
{
    QP_TRY(qp_h5_open(path, NULL, file));
    QP_TRY(qp_base_info_read(*file, info));
    return qp_base_check_weights(info, path);
}

/* A base without weights, that has room for them. */
static qp_error_t make_room(qp_comm_t *comm, qp_base_t *base, int64_t n_position)
{
    qp_device_t *device = base->device;
    const qp_base_shape_t shape = qp_base_shape(base);
    const size_t bytes = qp_base_bytes(&shape, n_position);
    if (!qp_base_is_shared(device))
        return qp_comm_agree(comm, device->ops->alloc(device, "base", bytes, &base->storage));
    QP_TRY(qp_shared_create(comm, "base", bytes, &base->shared));
    base->storage = qp_device_from_host(device, qp_shared_data(base->shared));
    return NULL;
}

static qp_linear_mode_t linear_mode(const qp_base_config_t *config)
{
    return (qp_linear_mode_t){.int8_activation = config->activation == QP_PRODUCT_INT8,
                              .int8_gradient = config->gradient == QP_PRODUCT_INT8,
                              .outlier_threshold = (float)config->outlier_threshold};
}

qp_error_t qp_base_load(qp_comm_t *comm, qp_device_t *device, const qp_base_config_t *config,
                        int64_t n_position, qp_base_t **out)
{
    qp_h5_t *file = NULL;
    qp_base_info_t info = {0};
    *out = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_comm_agree(comm, open_info(config->file, &file, &info)));
    qp_base_t *base = *out = QP_NEW("base", qp_base_t, 1);
    *base = (qp_base_t){.config = info.config,
                        .kinds = info.kinds,
                        .base_id = info.base_id,
                        .device = device,
                        .layer = QP_NEW("base", qp_layer_t, info.config.n_layer)};
    QP_TRY_DONE(make_room(comm, base, n_position));
    qp_base_lay_out(base, linear_mode(config), n_position);
    QP_TRY_DONE(load_items(comm, base, file));
    if (base->shared != NULL)
        qp_shared_fence(comm, base->shared);
done:
    if (file != NULL)
        error = qp_error_first(error, qp_h5_close(&file));
    qp_base_info_fini(&info);
    if (error != NULL)
        qp_base_destroy(comm, out);
    return error;
}
