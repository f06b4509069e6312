#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

qp_error_t qp_file_read(const char *path, void **data, size_t *n_bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return QP_ERROR(QP_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    qp_str_t content = {0};
    char block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof block, file)) > 0)
        qp_str_append(&content, block, n);
    bool failed = ferror(file) != 0;
    int reason = errno;
    fclose(file);
    if (failed) {
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
    FILE *file = fopen(temporary, "wb");
    bool ok = file != NULL && fwrite(data, 1, n_bytes, file) == n_bytes && fflush(file) == 0 &&
              fsync(fileno(file)) == 0;
    int reason = errno;
    if (file != NULL && fclose(file) != 0 && ok) {
        ok = false;
        reason = errno;
    }
    qp_error_t error = NULL;
    if (!ok) {
        unlink(temporary);
        error = QP_ERROR(QP_IO, "%s: cannot be written: %s", path, strerror(reason));
    } else {
        error = qp_file_commit(temporary, path);
    }
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
