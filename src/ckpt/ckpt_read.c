/* Restoring: is it whole, does it belong to this run, then every entry. */
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "ckpt/ckpt_impl.h"

/* The next "path = value" line of a fingerprint; false at its end. */
typedef struct {
    const char *path, *value;
    int n_path, n_value;
} line_t;

static bool next_line(const char **text, line_t *line)
{
    if (**text == '\0')
        return false;
    size_t n = strcspn(*text, "\n");
    const char *equals = strstr(*text, " = ");
    size_t n_path = equals != NULL && equals < *text + n ? (size_t)(equals - *text) : n;
    size_t n_value = n > n_path ? n - n_path - 3 : 0;
    *line = (line_t){*text, *text + n - n_value, (int)n_path, (int)n_value};
    *text += n + ((*text)[n] == '\n');
    return true;
}

static int compare_paths(const line_t *a, const line_t *b)
{
    int n = a->n_path < b->n_path ? a->n_path : b->n_path;
    int order = memcmp(a->path, b->path, (size_t)n);
    return order != 0 ? order : a->n_path - b->n_path;
}

static void print_change(qp_str_t *out, const line_t *was, const line_t *is)
{
    static const line_t absent = {"", "not given", 0, 9};
    const line_t *key = was != NULL ? was : is;
    was = was != NULL ? was : &absent;
    is = is != NULL ? is : &absent;
    qp_str_printf(out, "\n  %.*s: was %.*s, is %.*s", key->n_path, key->path, was->n_value,
                  was->value, is->n_value, is->value);
}

/* Merges two sorted fingerprints; a line per key that differs. */
static void list_changes(const char *old_text, const char *new_text, qp_str_t *out)
{
    line_t was, is;
    bool have_was = next_line(&old_text, &was), have_is = next_line(&new_text, &is);
    while (have_was || have_is) {
        int order = !have_was ? 1 : !have_is ? -1 : compare_paths(&was, &is);
        if (order != 0)
            print_change(out, order < 0 ? &was : NULL, order < 0 ? NULL : &is);
        else if (was.n_value != is.n_value || memcmp(was.value, is.value, (size_t)was.n_value) != 0)
            print_change(out, &was, &is);
        if (order <= 0)
            have_was = next_line(&old_text, &was);
        if (order >= 0)
            have_is = next_line(&new_text, &is);
    }
}

static qp_error_t check_deck(const qp_h5_t *file, const qp_ckpt_info_t *expected)
{
    int64_t deck_hash;
    QP_TRY(qp_h5_attr_get_i64(file, "/", "deck_hash", &deck_hash));
    if ((uint64_t)deck_hash == expected->deck_hash)
        return NULL;
    void *fingerprint = NULL;
    size_t n_bytes;
    QP_TRY(qp_h5_blob_read(file, "/fingerprint", &fingerprint, &n_bytes));
    qp_str_t changes = {0};
    list_changes(fingerprint, expected->fingerprint, &changes);
    qp_error_t error = QP_ERROR(QP_INPUT,
                                "%s: cannot be continued: the deck, or what its \"auto\" stands "
                                "for on this machine, differs "
                                "in keys that may not change%s",
                                qp_h5_path(file), changes.n > 0 ? changes.data : "");
    qp_str_fini(&changes);
    qp_free(fingerprint);
    return error;
}

static qp_error_t check_belongs(const qp_h5_t *file, const qp_ckpt_info_t *expected)
{
    char *method = NULL;
    int64_t base_id;
    qp_error_t error;
    QP_TRY_DONE(qp_h5_attr_get_str(file, "/", "method", &method));
    QP_TRY_DONE(qp_h5_attr_get_i64(file, "/", "base_id", &base_id));
    if (strcmp(method, expected->method) != 0)
        error = QP_ERROR(QP_INPUT, "%s: is of a run with job.method = \"%s\", this one is \"%s\"",
                         qp_h5_path(file), method, expected->method);
    else if ((uint64_t)base_id != expected->base_id)
        error = QP_ERROR(
            QP_INPUT, "%s: was made with another base (id %016llx, this base is %016llx)",
            qp_h5_path(file), (unsigned long long)base_id, (unsigned long long)expected->base_id);
    else
        error = check_deck(file, expected);
done:
    qp_free(method);
    return error;
}

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

qp_error_t qp_ckpt_read(qp_comm_t *comm, const char *path, const qp_ckpt_info_t *expected,
                        const qp_state_t *state, int64_t *step)
{
    qp_h5_t *file = NULL;
    qp_error_t error;
    QP_TRY_DONE(qp_comm_agree(comm, qp_ckpt_open(path, &file, step)));
    QP_TRY_DONE(qp_comm_agree(comm, check_belongs(file, expected)));
    QP_TRY_DONE(qp_comm_agree(comm, check_entries(file, state)));
    QP_TRY_DONE(qp_comm_agree(comm, verify_share(comm, file, state)));
    QP_TRY_DONE(qp_comm_agree(comm, restore_all(file, state)));
done:
    return qp_error_first(error, qp_h5_close(&file));
}
