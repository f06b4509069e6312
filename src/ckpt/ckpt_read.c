/* Restoring: is it whole, has it the same entries, then every one of them. Rank 0 alone reads the
 * file, each byte once; the others get what it has verified. */
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

static qp_error_t open_and_check(const char *path, const qp_state_t *state, qp_h5_t **file,
                                 int64_t *step)
{
    QP_TRY(qp_ckpt_open(path, file, step));
    return check_entries(*file, state);
}

/* file: on rank 0. */
static qp_error_t restore(qp_comm_t *comm, const qp_h5_t *file, const qp_state_entry_t *entry)
{
    const int64_t n = entry->n_global;
    void *data = qp_alloc("ckpt", qp_bytes(n, qp_dtype_bytes(entry->dtype)));
    qp_error_t error = NULL;
    if (file != NULL)
        error = qp_h5_read_verified(file, entry->name, entry->dtype, n, data);
    error = qp_comm_agree(comm, error);
    if (error == NULL) {
        qp_comm_bcast(comm, data, n, entry->dtype, 0);
        error = qp_comm_agree(comm, entry->put(entry->owner, data));
    }
    qp_free(data);
    return error;
}

qp_error_t qp_ckpt_read(qp_comm_t *comm, const char *path, const qp_state_t *state, int64_t *step)
{
    qp_h5_t *file = NULL;
    qp_error_t error = NULL;
    *step = 0;
    if (qp_comm_rank(comm) == 0)
        error = open_and_check(path, state, &file, step);
    error = qp_comm_agree(comm, error);
    for (int64_t i = 0; i < state->n_item && error == NULL; i++)
        error = restore(comm, file, &state->item[i].is);
    qp_comm_bcast(comm, step, 1, QP_I64, 0);
    return qp_comm_agree(comm, qp_error_first(error, qp_h5_close(&file)));
}
