/* What is in a folder of checkpoints: the newest whole one, verification, rotation. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "ckpt/ckpt_impl.h"

typedef struct {
    char *path;
    int64_t step; /* as the file itself says */
} candidate_t;

typedef struct {
    candidate_t *at;
    size_t n, capacity;
} candidates_t;

qp_error_t qp_ckpt_open(const char *path, qp_h5_t **file, int64_t *step)
{
    QP_TRY(qp_h5_open(path, NULL, file));
    qp_error_t error;
    QP_TRY_DONE(qp_h5_format_check(*file, "checkpoint", QP_CKPT_VERSION));
    QP_TRY_DONE(qp_h5_attr_get_i64(*file, "/", "step", step));
    if (!qp_h5_attr_exists(*file, "/", "complete"))
        error = QP_ERROR(QP_INPUT, "%s: incomplete: its writing was interrupted", path);
done:
    return error == NULL ? NULL : qp_error_first(error, qp_h5_close(file));
}

qp_error_t qp_ckpt_verify(const char *path)
{
    qp_h5_t *file = NULL;
    int64_t step;
    QP_TRY(qp_ckpt_open(path, &file, &step));
    qp_error_t error = qp_h5_verify(file);
    return qp_error_first(error, qp_h5_close(&file));
}

static qp_error_t read_step(const char *path, int64_t *step)
{
    qp_h5_t *file = NULL;
    QP_TRY(qp_ckpt_open(path, &file, step));
    return qp_h5_close(&file);
}

static void warn(qp_error_t error)
{
    qp_log_warn("checkpoint passed over: %s", error->message);
    qp_error_destroy(&error);
}

static void add_candidate(candidates_t *list, const char *path, int64_t step)
{
    if (list->n == list->capacity) {
        list->capacity = 2 * list->capacity + 16;
        list->at = qp_realloc("ckpt", list->at, list->capacity * sizeof *list->at);
    }
    list->at[list->n++] = (candidate_t){qp_strdup(path), step};
}

static void free_candidates(candidates_t *list)
{
    for (size_t i = 0; i < list->n; i++)
        qp_free(list->at[i].path);
    qp_free(list->at);
}

static int newest_first(const void *a, const void *b)
{
    const candidate_t *x = a, *y = b;
    if (x->step != y->step)
        return x->step > y->step ? -1 : 1;
    return strcmp(x->path, y->path);
}

/* Complete checkpoints of a folder, newest first; an absent folder has none. */
static qp_error_t list_complete(const char *folder, candidates_t *list, bool loud)
{
    DIR *entries = opendir(folder);
    if (entries == NULL)
        return errno == ENOENT ? NULL : QP_ERROR(QP_IO, "%s: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (!qp_has_prefix(entry->d_name, "step-") || !qp_has_suffix(entry->d_name, ".h5"))
            continue;
        char *path = qp_format("%s/%s", folder, entry->d_name);
        int64_t step = 0;
        qp_error_t error = read_step(path, &step);
        if (error == NULL)
            add_candidate(list, path, step);
        else if (loud)
            warn(error);
        else
            qp_error_destroy(&error);
        qp_free(path);
    }
    closedir(entries);
    if (list->n > 0)
        qsort(list->at, list->n, sizeof *list->at, newest_first);
    return NULL;
}

/* The newest one whose checksums hold. */
static qp_error_t find_latest(const char *folder, char **path, int64_t *step)
{
    candidates_t list = {0};
    qp_error_t error = list_complete(folder, &list, true);
    for (size_t i = 0; i < list.n && *path == NULL; i++) {
        qp_error_t damage = qp_ckpt_verify(list.at[i].path);
        if (damage != NULL) {
            warn(damage);
            continue;
        }
        *path = qp_strdup(list.at[i].path);
        *step = list.at[i].step;
    }
    free_candidates(&list);
    return error;
}

qp_error_t qp_ckpt_latest(qp_comm_t *comm, const char *folder, char **path, int64_t *step)
{
    bool first = qp_comm_rank(comm) == 0;
    void *found = NULL;
    size_t n_bytes = 0;
    *path = NULL;
    *step = 0;
    QP_TRY(qp_comm_agree(comm, first ? find_latest(folder, path, step) : NULL));
    if (first && *path != NULL) {
        found = *path;
        n_bytes = strlen(*path) + 1;
    }
    qp_comm_bcast(comm, step, 1, QP_I64, 0);
    qp_comm_bcast_block(comm, &found, &n_bytes, 0);
    if (n_bytes > 0)
        *path = found;
    else
        qp_free(found);
    return NULL;
}

static void remove_file(const char *path)
{
    struct stat status;
    if (lstat(path, &status) == 0 && S_ISDIR(status.st_mode))
        return; /* not ours; one that stands in the way is moved when its name is needed */
    if (unlink(path) != 0)
        qp_log_warn("%s: cannot be removed: %s", path, strerror(errno));
}

/* Left behind by a killed run; the file just written has its final name by now. */
static void remove_temporaries(const char *folder)
{
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        if (!qp_has_prefix(entry->d_name, "step-") ||
            !qp_has_suffix(entry->d_name, ".h5" QP_CKPT_TEMPORARY))
            continue;
        char *path = qp_format("%s/%s", folder, entry->d_name);
        remove_file(path);
        qp_free(path);
    }
    if (entries != NULL)
        closedir(entries);
}

void qp_ckpt_rotate(const char *folder, int64_t keep, const char *latest)
{
    candidates_t list = {0};
    qp_error_t error = list_complete(folder, &list, false);
    if (error != NULL)
        warn(error);
    int64_t n_kept = 1; /* the latest, whatever its step */
    for (size_t i = 0; i < list.n; i++) {
        if (strcmp(list.at[i].path, latest) == 0)
            continue;
        if (n_kept < keep)
            n_kept++;
        else
            remove_file(list.at[i].path);
    }
    free_candidates(&list);
    remove_temporaries(folder);
}
