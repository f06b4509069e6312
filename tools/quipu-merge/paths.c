/* What can be said of the paths before any weight is read. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "outputs.h"

static qp_error_t refuse_same(const char *in, const char *out)
{
    struct stat a, b;
    if (stat(in, &a) != 0 || stat(out, &b) != 0 || a.st_dev != b.st_dev || a.st_ino != b.st_ino)
        return NULL;
    return QP_ERROR(QP_INPUT, "%s: is what is merged; write to another place", out);
}

static bool is_empty(const char *folder)
{
    DIR *entries = opendir(folder);
    int n = 0;
    while (entries != NULL && readdir(entries) != NULL)
        n++;
    if (entries != NULL)
        closedir(entries);
    return n == 2; /* "." and ".." */
}

static qp_error_t check_existing(const char *out, bool as_folder, mode_t mode)
{
    if (as_folder && !(S_ISDIR(mode) && is_empty(out)))
        return QP_ERROR(QP_INPUT, "%s: exists already", out);
    if (!as_folder && !S_ISREG(mode))
        return QP_ERROR(QP_INPUT, "%s: exists already and is not a file", out);
    return NULL;
}

/* The output is made beside its final name, so the folder it lies in must be writable. */
static qp_error_t check_parent(const char *out)
{
    const char *slash = strrchr(out, '/');
    char *parent = slash == NULL  ? qp_strdup(".")
                   : slash == out ? qp_strdup("/")
                                  : qp_format("%.*s", (int)(slash - out), out);
    qp_error_t error = NULL;
    if (access(parent, W_OK | X_OK) != 0)
        error = QP_ERROR(QP_IO, "%s: cannot be made: %s: %s", out, parent, strerror(errno));
    qp_free(parent);
    return error;
}

qp_error_t qp_merge_check_paths(const char *const *in, int n_in, const char *out, bool as_folder)
{
    struct stat status;
    for (int i = 0; i < n_in; i++)
        QP_TRY(refuse_same(in[i], out));
    /* a link to a file is followed, one to a folder cannot be replaced by a folder */
    if ((as_folder ? lstat(out, &status) : stat(out, &status)) == 0)
        QP_TRY(check_existing(out, as_folder, status.st_mode));
    return check_parent(out);
}
