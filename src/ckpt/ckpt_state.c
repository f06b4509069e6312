/* The registry of state. */
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "ckpt/ckpt_impl.h"

qp_state_t *qp_state_create(void)
{
    return QP_NEW("ckpt", qp_state_t, 1);
}

void qp_state_destroy(qp_state_t **state)
{
    if (*state == NULL)
        return;
    for (int64_t i = 0; i < (*state)->n_item; i++) {
        qp_free((char *)(*state)->item[i].is.name);
        qp_free((*state)->item[i].shorthand);
    }
    qp_free((*state)->item);
    QP_FREE(*state);
}

static qp_state_item_t *add_item(qp_state_t *state, const qp_state_entry_t *entry)
{
    if (state->n_item == state->capacity) {
        state->capacity = 2 * state->capacity + 8;
        state->item =
            qp_realloc("ckpt", state->item, qp_bytes(state->capacity, sizeof(qp_state_item_t)));
    }
    qp_state_item_t *item = &state->item[state->n_item++];
    *item = (qp_state_item_t){.is = *entry};
    item->is.name = qp_format("/state/%s", entry->name);
    return item;
}

void qp_state_register(qp_state_t *state, const qp_state_entry_t *entry)
{
    QP_ASSERT(entry->first >= 0 && entry->n_mine >= 0 &&
              entry->first + entry->n_mine <= entry->n_global);
    add_item(state, entry);
}

void qp_state_since(qp_state_t *state, int64_t version)
{
    QP_ASSERT(state->n_item > 0 && version <= QP_CKPT_VERSION);
    state->item[state->n_item - 1].since = version;
}

void qp_state_ignorable(qp_state_t *state)
{
    QP_ASSERT(state->n_item > 0);
    state->item[state->n_item - 1].ignorable = true;
}

static qp_error_t get_scalar(void *owner, void *slab)
{
    memcpy(slab, owner, sizeof(int64_t));
    return NULL;
}

static qp_error_t put_scalar(void *owner, const void *data)
{
    memcpy(owner, data, sizeof(int64_t));
    return NULL;
}

static void register_scalar(qp_state_t *state, const char *name, qp_dtype_t dtype, void *value)
{
    _Static_assert(sizeof(double) == sizeof(int64_t), "both kinds of scalars have 8 bytes");
    const qp_state_entry_t entry = {.name = name,
                                    .dtype = dtype,
                                    .n_global = 1,
                                    .n_mine = 1,
                                    .get = get_scalar,
                                    .put = put_scalar,
                                    .owner = value};
    add_item(state, &entry)->scalar = true;
}

void qp_state_register_i64(qp_state_t *state, const char *name, int64_t *value)
{
    register_scalar(state, name, QP_I64, value);
}

void qp_state_register_f64(qp_state_t *state, const char *name, double *value)
{
    register_scalar(state, name, QP_F64, value);
}

typedef struct {
    float *data;
    int64_t n, first, n_mine;
} array_t;

static qp_error_t get_array(void *owner, void *slab)
{
    const array_t *array = owner;
    memcpy(slab, array->data + array->first, qp_bytes(array->n_mine, sizeof(float)));
    return NULL;
}

static qp_error_t put_array(void *owner, const void *data)
{
    const array_t *array = owner;
    memcpy(array->data, data, qp_bytes(array->n, sizeof(float)));
    return NULL;
}

void qp_state_register_f32(qp_state_t *state, qp_comm_t *comm, const char *name, float *data,
                           int64_t n)
{
    int64_t first, end;
    qp_tree_range(n, qp_comm_size(comm), qp_comm_rank(comm), &first, &end);
    array_t *array = QP_NEW("ckpt", array_t, 1);
    *array = (array_t){data, n, first, end - first};
    const qp_state_entry_t entry = {.name = name,
                                    .dtype = QP_F32,
                                    .n_global = n,
                                    .first = first,
                                    .n_mine = end - first,
                                    .get = get_array,
                                    .put = put_array,
                                    .owner = array};
    add_item(state, &entry)->shorthand = array;
}
