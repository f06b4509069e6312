/* Restoring: is it whole, has it the run's entries, then every one of them. Rank 0 alone reads the
 * file, each byte once; the others get what it has verified. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "ckpt/ckpt_impl.h"

/* An entry of the shape that the run has, or none where the file is older than the entry. */
static qp_error_t check_entry(const qp_h5_t *file, int64_t version, const qp_state_item_t *item,
                              bool *present)
{
    const qp_state_entry_t *entry = &item->is;
    qp_h5_shape_t shape;
    *present = qp_h5_exists(file, entry->name);
    if (!*present && version < item->since) {
        qp_log_info("%s is from before %s was kept: it begins anew", qp_h5_path(file), entry->name);
        return NULL;
    }
    QP_TRY(qp_h5_dataset_shape(file, entry->name, &shape));
    if (shape.dtype != entry->dtype || shape.n_dim != 1 || shape.dim[0] != entry->n_global)
        return QP_ERROR(QP_INPUT, "%s: %s: %s of %lld elements, expected %s of %lld",
                        qp_h5_path(file), entry->name, qp_dtype_name(shape.dtype),
                        (long long)shape.dim[0], qp_dtype_name(entry->dtype),
                        (long long)entry->n_global);
    return NULL;
}

static bool is_registered(const qp_state_t *state, const char *name)
{
    for (int64_t i = 0; i < state->n_item; i++)
        if (strcmp(state->item[i].is.name, name) == 0)
            return true;
    return false;
}

/* What a newer program, or another one, has written beside the run's entries. */
static qp_error_t check_unknown(const qp_h5_t *file, const qp_state_t *state)
{
    char **name = NULL;
    int64_t n_name = 0;
    qp_error_t error = NULL;
    QP_TRY(qp_h5_list_datasets(file, &name, &n_name));
    for (int64_t i = 0; i < n_name && error == NULL; i++) {
        if (!qp_has_prefix(name[i], "/state/") || is_registered(state, name[i]))
            continue;
        if (qp_h5_attr_exists(file, name[i], QP_CKPT_IGNORABLE))
            qp_log_info("%s: %s: not known to this program, passed over", qp_h5_path(file),
                        name[i]);
        else
            error = QP_ERROR(QP_INPUT,
                             "%s: %s: a piece of state that this run does not have; another "
                             "version of the program may have written it",
                             qp_h5_path(file), name[i]);
    }
    qp_h5_list_free(&name, n_name);
    return error;
}

/* present [n_item]: what there is to be restored. */
static qp_error_t open_and_check(const char *path, const qp_state_t *state, qp_h5_t **file,
                                 int64_t *step, bool *present)
{
    int64_t version;
    QP_TRY(qp_ckpt_open(path, file, step));
    QP_TRY(qp_h5_attr_get_i64(*file, "/", "format_version", &version));
    for (int64_t i = 0; i < state->n_item; i++)
        QP_TRY(check_entry(*file, version, &state->item[i], &present[i]));
    return check_unknown(*file, state);
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
    bool *present = QP_NEW("ckpt", bool, state->n_item);
    qp_error_t error = NULL;
    *step = 0;
    if (qp_comm_rank(comm) == 0)
        error = open_and_check(path, state, &file, step, present);
    error = qp_comm_agree(comm, error);
    qp_comm_bcast(comm, present, state->n_item, QP_U8, 0);
    for (int64_t i = 0; i < state->n_item && error == NULL; i++)
        if (present[i])
            error = restore(comm, file, &state->item[i].is);
    qp_comm_bcast(comm, step, 1, QP_I64, 0);
    qp_free(present);
    return qp_comm_agree(comm, qp_error_first(error, qp_h5_close(&file)));
}
