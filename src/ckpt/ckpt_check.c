/* Does a checkpoint belong to this run: its method, base, deck and inputs. */
#include <string.h>

#include "base/log.h"
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

static bool is_same(const char *a, int n_a, const char *b, int n_b)
{
    return n_a == n_b && memcmp(a, b, (size_t)n_a) == 0;
}

static int compare_paths(const line_t *a, const line_t *b)
{
    int n = a->n_path < b->n_path ? a->n_path : b->n_path;
    int order = memcmp(a->path, b->path, (size_t)n);
    return order != 0 ? order : a->n_path - b->n_path;
}

/* In the place of a line that is not there. */
static const line_t absent = {"", "not given", 0, 9};

static void print_change(qp_str_t *out, const line_t *was, const line_t *is)
{
    const line_t *key = was != &absent ? was : is;
    qp_str_printf(out, "\n  %.*s: was %.*s, is %.*s", key->n_path, key->path, was->n_value,
                  was->value, is->n_value, is->value);
}

/* Whether a key is one of " key key ". */
static bool stands_in(const char *keys, const line_t *line)
{
    char *key = qp_format(" %.*s ", line->n_path, line->path);
    const bool found = strstr(keys, key) != NULL;
    qp_free(key);
    return found;
}

/* Merges two sorted fingerprints; a line per key that differs, but for the keys of \a by_content,
 * and for those of \a at_default that only the new one has. */
static void list_changes(const char *old_text, const char *new_text, const char *by_content,
                         const char *at_default, qp_str_t *out)
{
    line_t was, is;
    bool have_was = next_line(&old_text, &was), have_is = next_line(&new_text, &is);
    while (have_was || have_is) {
        int order = !have_was ? 1 : !have_is ? -1 : compare_paths(&was, &is);
        const bool differs = order != 0 || !is_same(was.value, was.n_value, is.value, is.n_value);
        if (differs && !stands_in(by_content, order <= 0 ? &was : &is) &&
            !(order > 0 && stands_in(at_default, &is)))
            print_change(out, order <= 0 ? &was : &absent, order >= 0 ? &is : &absent);
        if (order <= 0)
            have_was = next_line(&old_text, &was);
        if (order >= 0)
            have_is = next_line(&new_text, &is);
    }
}

/* Files of earlier versions do not tell what they were made from. */
static bool has_inputs(const qp_h5_t *file)
{
    return qp_h5_exists(file, "/inputs");
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
    qp_error_t error = NULL;
    list_changes(fingerprint, expected->fingerprint, has_inputs(file) ? expected->by_content : "",
                 expected->at_default, &changes);
    if (changes.n > 0)
        error = QP_ERROR(QP_INPUT,
                         "%s: cannot be continued: the deck, or what its \"auto\" stands for on "
                         "this machine, differs in keys that may not change%s",
                         qp_h5_path(file), changes.data);
    qp_str_fini(&changes);
    qp_free(fingerprint);
    return error;
}

/* An input: "role id name". */
typedef struct {
    const char *role, *id, *name;
    int n_role, n_id, n_name;
} input_t;

static bool next_input(const char **text, input_t *input)
{
    if (**text == '\0')
        return false;
    const size_t n = strcspn(*text, "\n");
    input->role = *text;
    input->n_role = (int)strcspn(*text, " \n");
    input->id = *text + input->n_role + 1;
    input->n_id = (int)strcspn(input->id, " \n");
    input->name = input->id + input->n_id + 1;
    input->n_name = (int)(*text + n - input->name);
    *text += n + 1;
    return true;
}

static int64_t n_of_role(const char *text, const input_t *like)
{
    input_t input;
    int64_t n = 0;
    while (next_input(&text, &input))
        n += is_same(input.role, input.n_role, like->role, like->n_role);
    return n;
}

/* The same contents in the same order; names may differ. */
static qp_error_t compare_inputs(const char *path, const char *was_text, const char *is_text)
{
    const char *const all_was = was_text, *const all_is = is_text;
    input_t was, is;
    for (;;) {
        const bool has_was = next_input(&was_text, &was), has_is = next_input(&is_text, &is);
        if (!has_was && !has_is)
            return NULL;
        if (has_was && has_is && is_same(was.id, was.n_id, is.id, is.n_id) &&
            is_same(was.role, was.n_role, is.role, is.n_role))
            continue;
        if (has_was && has_is && is_same(was.role, was.n_role, is.role, is.n_role))
            return QP_ERROR(QP_INPUT,
                            "%.*s: %.*s (contents %.*s) is not what the run began with, which was "
                            "%.*s (contents %.*s): %s cannot be continued with it",
                            is.n_role, is.role, is.n_name, is.name, is.n_id, is.id, was.n_name,
                            was.name, was.n_id, was.id, path);
        const bool is_new =
            has_is && (!has_was || n_of_role(all_is, &is) > n_of_role(all_was, &is));
        const input_t *one = is_new ? &is : &was;
        return QP_ERROR(QP_INPUT, "%.*s: %.*s (contents %.*s) is %s: %s cannot be continued",
                        one->n_role, one->role, one->n_name, one->name, one->n_id, one->id,
                        is_new ? "not among the files that the run began with"
                               : "missing; the run began with it",
                        path);
    }
}

static qp_error_t check_inputs(const qp_h5_t *file, const char *inputs)
{
    void *was = NULL;
    size_t n_bytes;
    if (!has_inputs(file)) {
        qp_log_info("%s is from before checkpoints knew their data: taken on trust",
                    qp_h5_path(file));
        return NULL;
    }
    QP_TRY(qp_h5_blob_read(file, "/inputs", &was, &n_bytes));
    qp_error_t error = compare_inputs(qp_h5_path(file), was, inputs);
    qp_free(was);
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
    if (error == NULL)
        error = check_inputs(file, expected->inputs);
done:
    qp_free(method);
    return error;
}

static qp_error_t check_alone(const char *path, const qp_ckpt_info_t *expected,
                              qp_ckpt_found_t *found)
{
    qp_h5_t *file = NULL;
    QP_TRY(qp_ckpt_open(path, &file, &found->step));
    qp_error_t error = check_belongs(file, expected);
    found->steps = -1;
    found->write_seconds = 0.0;
    if (error == NULL && qp_h5_attr_exists(file, "/", "steps"))
        error = qp_h5_attr_get_i64(file, "/", "steps", &found->steps);
    if (error == NULL && qp_h5_attr_exists(file, "/", "write_seconds"))
        error = qp_h5_attr_get_f64(file, "/", "write_seconds", &found->write_seconds);
    return qp_error_first(error, qp_h5_close(&file));
}

qp_error_t qp_ckpt_check(qp_comm_t *comm, const char *path, const qp_ckpt_info_t *expected,
                         qp_ckpt_found_t *found)
{
    qp_error_t error = NULL;
    if (qp_comm_rank(comm) == 0)
        error = check_alone(path, expected, found);
    QP_TRY(qp_comm_agree(comm, error));
    qp_comm_bcast(comm, &found->step, 1, QP_I64, 0);
    qp_comm_bcast(comm, &found->steps, 1, QP_I64, 0);
    qp_comm_bcast(comm, &found->write_seconds, 1, QP_F64, 0);
    return NULL;
}

static qp_error_t read_inputs(const char *path, void **inputs, size_t *n_bytes)
{
    qp_h5_t *file = NULL;
    int64_t step;
    QP_TRY(qp_ckpt_open(path, &file, &step));
    qp_error_t error = NULL;
    if (has_inputs(file))
        error = qp_h5_blob_read(file, "/inputs", inputs, n_bytes);
    else
        *inputs = qp_strdup("");
    ++*n_bytes; /* with its NUL */
    return qp_error_first(error, qp_h5_close(&file));
}

qp_error_t qp_ckpt_inputs(qp_comm_t *comm, const char *path, char **inputs)
{
    void *block = NULL;
    size_t n_bytes = 0;
    QP_TRY(
        qp_comm_agree(comm, qp_comm_rank(comm) == 0 ? read_inputs(path, &block, &n_bytes) : NULL));
    qp_comm_bcast_block(comm, &block, &n_bytes, 0);
    *inputs = block;
    return NULL;
}
