/* What can be said of the paths before any weight is read. */
#include <dirent.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/output.h"
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

/* It is made beside its final name, and a link to a folder cannot be replaced by one. */
static qp_error_t check_folder(const char *out)
{
    struct stat status;
    const bool exists = lstat(out, &status) == 0;
    if (exists && !S_ISDIR(status.st_mode))
        return QP_ERROR(QP_INPUT, "%s: exists already and is not a folder, but %s", out,
                        qp_file_kind(status.st_mode));
    if (exists && !is_empty(out))
        return QP_ERROR(QP_INPUT, "%s: exists already and is not empty", out);
    return qp_output_check_beside(out);
}

qp_error_t qp_merge_check_paths(const char *const *in, int n_in, const char *out, bool as_folder)
{
    for (int i = 0; i < n_in; i++)
        QP_TRY(refuse_same(in[i], out));
    return as_folder ? check_folder(out) : qp_output_check_file(out);
}
