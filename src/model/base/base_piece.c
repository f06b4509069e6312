#include "model/base/base_piece.h"

#include <stdio.h>

#include "base/mem.h"
#include "model/base/base_impl.h"

/* About so many bytes of rows are a piece. */
static const int64_t PIECE_BYTES = 8 << 20;

/* --- items ------------------------------------------------------------------------------------ */

static qp_base_item_t *add_item(qp_base_items_t *items, qp_dtype_t dtype, int64_t n_col)
{
    if (items->n == items->capacity) {
        items->capacity = 2 * items->capacity + 64;
        items->item =
            qp_realloc("base staging", items->item, qp_bytes(items->capacity, sizeof *items->item));
    }
    qp_base_item_t *item = &items->item[items->n++];
    *item = (qp_base_item_t){.dtype = dtype, .n_col = n_col};
    const int64_t fit = PIECE_BYTES / (int64_t)qp_bytes(n_col, qp_dtype_bytes(dtype));
    item->piece_rows = fit < QP_WEIGHT_ROWS ? QP_WEIGHT_ROWS : fit - fit % QP_WEIGHT_ROWS;
    return item;
}

/* The next rows of the item: a data set with the layer's number in its name, where it has one. */
static void add_tensor(qp_base_item_t *item, int64_t n_row, int64_t layer, const char *name)
{
    QP_ASSERT(item->n_tensor < QP_BASE_MAX_STACKED);
    char *to = item->tensor[item->n_tensor].name;
    if (layer < 0)
        snprintf(to, QP_BASE_MAX_NAME, "/tensors/%s", name);
    else
        snprintf(to, QP_BASE_MAX_NAME, "/tensors/model.layers.%lld.%s", (long long)layer, name);
    item->tensor[item->n_tensor++].n_row = n_row;
    item->n_row += n_row;
}

static qp_base_item_t *add_weight(qp_base_items_t *items, const qp_weight_t *w)
{
    qp_base_item_t *item = add_item(items, qp_weight_dtype(w->kind), w->n_in);
    item->weight = w;
    return item;
}

static void add_plain(qp_base_items_t *items, qp_mat_t to, int64_t layer, const char *name)
{
    qp_base_item_t *item = add_item(items, to.dtype, to.n_col);
    item->plain = to;
    add_tensor(item, to.n_row, layer, name);
}

static void add_layer(qp_base_items_t *items, const qp_base_t *base, int64_t l)
{
    const qp_layer_t *layer = &base->layer[l];
    const int64_t d_model = base->config.d_model;
    for (int g = 0; g < QP_N_GROUP; g++) {
        qp_base_item_t *item = add_weight(items, &layer->group[g]);
        const qp_group_linears_t linears = qp_group_linears((qp_group_t)g);
        for (int i = 0; i < linears.n; i++) {
            const qp_linear_t linear = (qp_linear_t)((int)linears.first + i);
            add_tensor(item, qp_linear_n_out(&base->config, linear), l, qp_linear_name(linear));
        }
    }
    add_plain(items, qp_mat(layer->input_norm, QP_F32, d_model, 1), l, "input_layernorm");
    add_plain(items, qp_mat(layer->post_norm, QP_F32, d_model, 1), l, "post_attention_layernorm");
}

/* --- pieces ----------------------------------------------------------------------------------- */

static size_t take(size_t *used, size_t bytes)
{
    const size_t at = *used;
    *used += (bytes + 63) / 64 * 64;
    return at;
}

static qp_base_piece_t cut(const qp_base_item_t *item, int64_t first)
{
    const int64_t left = item->n_row - first;
    const int64_t n = left < item->piece_rows ? left : item->piece_rows;
    qp_base_piece_t piece = {.item = item, .first = first, .n_row = n};
    take(&piece.n_bytes, qp_bytes(n * item->n_col, qp_dtype_bytes(item->dtype)));
    if (item->weight != NULL && item->dtype == QP_I8)
        piece.scale = take(&piece.n_bytes, qp_bytes(n, sizeof(float)));
    if (item->weight != NULL && item->weight->has_bias)
        piece.bias = take(&piece.n_bytes, qp_bytes(n, sizeof(float)));
    return piece;
}

bool qp_base_next_piece(const qp_base_items_t *items, int ring, qp_base_piece_t *piece)
{
    const qp_base_item_t *item = piece->item, *end = items->item + items->n;
    const int64_t index = item == NULL ? 0 : piece->index + 1;
    int64_t first = 0;
    if (item == NULL) {
        item = items->item;
    } else {
        first = piece->first + piece->n_row;
        if (first == item->n_row) {
            first = 0;
            item++;
        }
    }
    while (item < end && item->ring != ring)
        item++;
    if (item == end)
        return false;
    *piece = cut(item, first);
    piece->index = index;
    return true;
}

/* Each item to who has the fewest bytes so far. */
static void deal(qp_base_items_t *items, int n_ring)
{
    size_t *share = QP_NEW("base staging", size_t, n_ring);
    for (int64_t i = 0; i < items->n; i++) {
        qp_base_item_t *item = &items->item[i];
        for (int ring = 1; ring < n_ring; ring++)
            if (share[ring] < share[item->ring])
                item->ring = ring;
        share[item->ring] += qp_bytes(item->n_row * item->n_col, qp_dtype_bytes(item->dtype));
        const qp_base_piece_t largest = cut(item, 0);
        if (largest.n_bytes > items->piece_bytes)
            items->piece_bytes = largest.n_bytes;
    }
    qp_free(share);
}

void qp_base_items_init(const qp_base_t *base, int n_ring, qp_base_items_t *items)
{
    const qp_base_shape_t shape = qp_base_shape(base);
    *items = (qp_base_items_t){0};
    for (int64_t l = 0; l < base->config.n_layer; l++)
        add_layer(items, base, l);
    add_plain(items, base->embedding, -1, "model.embed_tokens");
    if (!qp_base_head_is_embedding(&shape))
        add_tensor(add_weight(items, &base->lm_head), base->lm_head.n_out, -1, "lm_head");
    add_plain(items, qp_mat(base->norm, QP_F32, base->config.d_model, 1), -1, "model.norm");
    deal(items, n_ring);
}

void qp_base_items_fini(qp_base_items_t *items)
{
    QP_FREE(items->item);
    *items = (qp_base_items_t){0};
}

size_t qp_base_staging_bytes(const qp_base_shape_t *shape)
{
    qp_base_t base = {.config = *shape->config,
                      .kinds = shape->kinds,
                      .device = (qp_device_t *)shape->device, /* asked for sizes alone */
                      .layer = QP_NEW("base staging", qp_layer_t, shape->config->n_layer)};
    qp_base_items_t items;
    qp_base_lay_out(&base, (qp_linear_mode_t){0}, 1);
    qp_base_items_init(&base, 1, &items);
    const size_t bytes = items.piece_bytes;
    qp_base_items_fini(&items);
    qp_free(base.layer);
    return bytes;
}
