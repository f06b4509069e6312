/* Restoring: is it whole, has it the same entries, then every one of them. */
#include "base/mem.h"
#include "ckpt/ckpt_impl.h"

/* The same entries with the same shapes, no more and no fewer. */
static qp_error_t check_entries(const qp_h5_t *file, const qp_state_t *state)
{
    int64_t n_state;
    QP_TRY(qp_h5_attr_get_i64(file, "/", "n_state", &n_state));
    for (int64_t i = 0; i < state->n_item; i++) {
        const qp_state_entry_t *entry = &state->item[i].is;
        qp_h5_shape_t shape;
        QP_TRY(qp_h5_dataset_shape(file, entry->name, &shape));
        if (shape.dtype != entry->dtype || shape.n_dim != 1 || shape.dim[0] != entry->n_global)
            return QP_ERROR(QP_INPUT, "%s: %s: %s of %lld elements, expected %s of %lld",
                            qp_h5_path(file), entry->name, qp_dtype_name(shape.dtype),
                            (long long)shape.dim[0], qp_dtype_name(entry->dtype),
                            (long long)entry->n_global);
    }
    if (n_state != state->n_item)
        return QP_ERROR(QP_INPUT, "%s: holds %lld pieces of state, this run has %lld",
                        qp_h5_path(file), (long long)n_state, (long long)state->n_item);
    return NULL;
}

/* The ranks share the work of verifying. */
static qp_error_t verify_share(qp_comm_t *comm, const qp_h5_t *file, const qp_state_t *state)
{
    for (int64_t i = qp_comm_rank(comm); i < state->n_item; i += qp_comm_size(comm))
        QP_TRY(qp_h5_checksum_verify(file, state->item[i].is.name));
    return NULL;
}

static qp_error_t restore(const qp_h5_t *file, const qp_state_entry_t *entry)
{
    void *data = qp_alloc("ckpt", qp_bytes(entry->n_read, qp_dtype_bytes(entry->dtype)));
    qp_error_t error =
        qp_h5_read(file, entry->name, entry->dtype, entry->read_first, entry->n_read, data);
    if (error == NULL)
        error = entry->put(entry->owner, data);
    qp_free(data);
    return error;
}

static qp_error_t restore_all(const qp_h5_t *file, const qp_state_t *state)
{
    for (int64_t i = 0; i < state->n_item; i++)
        QP_TRY(restore(file, &state->item[i].is));
    return NULL;
}

qp_error_t qp_ckpt_read(qp_comm_t *comm, const char *path, const qp_state_t *state, int64_t *step)
{
    qp_h5_t *file = NULL;
    qp_error_t error;
    QP_TRY_DONE(qp_comm_agree(comm, qp_ckpt_open(path, &file, step)));
    QP_TRY_DONE(qp_comm_agree(comm, check_entries(file, state)));
    QP_TRY_DONE(qp_comm_agree(comm, verify_share(comm, file, state)));
    QP_TRY_DONE(qp_comm_agree(comm, restore_all(file, state)));
done:
    return qp_error_first(error, qp_h5_close(&file));
}
