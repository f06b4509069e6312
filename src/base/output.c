#include "base/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

/* What a link names, for messages (qp_free). */
static char *target_of(const char *path)
{
    char target[4096];
    const ssize_t n = readlink(path, target, sizeof target);
    return qp_format("%.*s", n > 0 ? (int)n : 0, target);
}

/* What stands under this name, through links; *exists false: nothing. */
static qp_error_t look_at(const char *path, bool *exists, mode_t *mode)
{
    struct stat status;
    *exists = lstat(path, &status) == 0;
    *mode = *exists ? status.st_mode : 0;
    if (!*exists || !S_ISLNK(status.st_mode))
        return NULL;
    if (stat(path, &status) != 0) {
        char *target = target_of(path);
        qp_error_t error = QP_ERROR(QP_INPUT, "%s: is a link to %s (%s): remove it, or make that",
                                    path, target, strerror(errno));
        qp_free(target);
        return error;
    }
    *mode = status.st_mode;
    return NULL;
}

/* Makes a file there, which is the only proof, and removes it. */
static qp_error_t check_writable(const char *path, const char *folder)
{
    char *name = qp_format("%s/.quipu-XXXXXX", folder);
    const int fd = mkstemp(name);
    qp_error_t error = NULL;
    if (fd < 0) {
        error = QP_ERROR(QP_IO, "%s: cannot be made in %s: %s", path, folder, strerror(errno));
    } else {
        close(fd);
        unlink(name);
    }
    qp_free(name);
    return error;
}

/* The folder that this name lies in (qp_free). */
static char *parent_of(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n > 0 && path[n - 1] != '/')
        n--;
    while (n > 1 && path[n - 1] == '/')
        n--;
    return n > 0 ? qp_format("%.*s", (int)n, path) : qp_strdup(".");
}

qp_error_t qp_output_check_beside(const char *path)
{
    char *parent = parent_of(path);
    qp_error_t error = check_writable(path, parent);
    qp_free(parent);
    return error;
}

qp_error_t qp_output_check_file(const char *path)
{
    bool exists;
    mode_t mode;
    QP_TRY(look_at(path, &exists, &mode));
    if (exists && !S_ISREG(mode))
        return QP_ERROR(QP_INPUT, "%s: exists already and is not a file, but %s", path,
                        qp_file_kind(mode));
    return qp_output_check_beside(path);
}

qp_error_t qp_output_check_folder(const char *path)
{
    char *folder = qp_strdup(path);
    bool exists = false;
    mode_t mode = 0;
    qp_error_t error = NULL;
    for (;;) { /* up to what is there */
        QP_TRY_DONE(look_at(folder, &exists, &mode));
        if (exists || strcmp(folder, ".") == 0 || strcmp(folder, "/") == 0)
            break;
        char *parent = parent_of(folder);
        qp_free(folder);
        folder = parent;
    }
    if (!S_ISDIR(mode))
        error = QP_ERROR(QP_INPUT, "%s: exists already and is not a folder, but %s", folder,
                         qp_file_kind(mode));
    else
        error = check_writable(path, folder);
done:
    qp_free(folder);
    return error;
}
