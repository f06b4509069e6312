#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

qp_error_t qp_file_refuse_pointer(const char *path, const void *data, size_t n_bytes)
{
    static const char begin[] = "version https://git-lfs.github.com/spec/";
    if (n_bytes < sizeof begin - 1 || memcmp(data, begin, sizeof begin - 1) != 0)
        return NULL;
    return QP_ERROR(QP_INPUT, "%s: is a Git LFS pointer, not the file itself: run git lfs pull",
                    path);
}

const char *qp_file_kind(mode_t mode)
{
    return S_ISREG(mode)    ? "a file"
           : S_ISDIR(mode)  ? "a folder"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
           : S_ISLNK(mode)  ? "a link"
                            : "a device";
}

/* Opens without waiting for the other end of a pipe; takes regular files only. */
static qp_error_t open_regular(const char *path, int flags, qp_code_t code, int *fd)
{
    struct stat status;
    qp_error_t error = NULL;
    *fd = open(path, flags | O_NONBLOCK | O_CLOEXEC, 0666);
    if (*fd < 0 && errno != ENXIO) /* a pipe that nobody reads */
        return QP_ERROR(code, "%s: cannot be opened: %s", path, strerror(errno));
    if ((*fd >= 0 ? fstat(*fd, &status) : stat(path, &status)) != 0)
        error = QP_ERROR(code, "%s: cannot be read: %s", path, strerror(errno));
    else if (!S_ISREG(status.st_mode))
        error =
            QP_ERROR(code, "%s: not a regular file, but %s", path, qp_file_kind(status.st_mode));
    else if (*fd < 0)
        error = QP_ERROR(code, "%s: cannot be opened", path);
    if (error != NULL && *fd >= 0)
        close(*fd);
    return error;
}

qp_error_t qp_file_open(const char *path, int *fd)
{
    return open_regular(path, O_RDONLY, QP_INPUT, fd);
}

qp_error_t qp_file_append(const char *path, FILE **file)
{
    int fd;
    *file = NULL;
    QP_TRY(open_regular(path, O_WRONLY | O_APPEND | O_CREAT, QP_IO, &fd));
    *file = fdopen(fd, "a");
    QP_ASSERT(*file != NULL);
    return NULL;
}

qp_error_t qp_file_read(const char *path, void **data, size_t *n_bytes)
{
    int fd;
    QP_TRY(qp_file_open(path, &fd));
    qp_str_t content = {0};
    char block[65536];
    ssize_t n;
    while ((n = read(fd, block, sizeof block)) > 0)
        qp_str_append(&content, block, (size_t)n);
    const int reason = errno;
    close(fd);
    if (n < 0) {
        qp_str_fini(&content);
        return QP_ERROR(QP_INPUT, "%s: cannot be read: %s", path, strerror(reason));
    }
    qp_str_append(&content, "", 0); /* an empty file still gets its NUL */
    qp_error_t error = qp_file_refuse_pointer(path, content.data, content.n);
    if (error != NULL) {
        qp_str_fini(&content);
        return error;
    }
    *data = content.data;
    *n_bytes = content.n;
    return NULL;
}

/* Makes a rename in the folder of path survive a power cut; file systems without it are fine. */
static void sync_folder_of(const char *path)
{
    char *folder = qp_strdup(path);
    char *slash = strrchr(folder, '/');
    if (slash != NULL)
        slash[slash == folder ? 1 : 0] = '\0';
    int fd = open(slash != NULL ? folder : ".", O_RDONLY | O_DIRECTORY);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    qp_free(folder);
}

qp_error_t qp_file_commit(const char *temporary, const char *path)
{
    if (rename(temporary, path) != 0)
        return QP_ERROR(QP_IO, "%s: cannot be renamed to %s: %s", temporary, path, strerror(errno));
    sync_folder_of(path);
    return NULL;
}

qp_error_t qp_file_write(const char *path, const void *data, size_t n_bytes)
{
    char *temporary = qp_format("%s.part", path);
    (void)unlink(temporary); /* what was left there, whatever it is */
    FILE *file = fopen(temporary, "wb");
    bool ok = file != NULL && fwrite(data, 1, n_bytes, file) == n_bytes && fflush(file) == 0 &&
              fsync(fileno(file)) == 0;
    int reason = errno;
    if (file != NULL && fclose(file) != 0 && ok) {
        ok = false;
        reason = errno;
    }
    qp_error_t error = ok ? qp_file_commit(temporary, path)
                          : QP_ERROR(QP_IO, "%s: cannot be written: %s", path, strerror(reason));
    if (error != NULL)
        unlink(temporary);
    qp_free(temporary);
    return error;
}

qp_error_t qp_file_scratch(const char *path, FILE **file)
{
    char *name = qp_format("%s.scratch-XXXXXX", path);
    int fd = mkstemp(name);
    int reason = errno;
    *file = fd >= 0 ? fdopen(fd, "w+b") : NULL;
    if (fd >= 0)
        unlink(name);
    qp_free(name);
    if (*file == NULL)
        return QP_ERROR(QP_IO, "%s: no file can be made beside it: %s", path, strerror(reason));
    return NULL;
}

qp_error_t qp_folder_make(const char *path)
{
    char *part = qp_strdup(path);
    qp_error_t error = NULL;
    for (char *slash = part; slash != NULL && error == NULL;) {
        slash = strchr(slash + 1, '/');
        if (slash != NULL)
            *slash = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            error = QP_ERROR(QP_IO, "%s: the folder cannot be made: %s", part, strerror(errno));
        if (slash != NULL)
            *slash = '/';
    }
    qp_free(part);
    return error;
}
