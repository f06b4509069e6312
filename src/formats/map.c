#include "formats/map.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

qp_error_t qp_map_open(const char *path, qp_map_t *map)
{
    *map = (qp_map_t){0};
    int fd;
    QP_TRY(qp_file_open(path, &fd));
    struct stat status;
    qp_error_t error = NULL;
    if (fstat(fd, &status) != 0)
        error = QP_ERROR(QP_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    else if (status.st_size > 0) {
        void *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            error = QP_ERROR(QP_IO, "%s: cannot be mapped: %s", path, strerror(errno));
        else
            *map = (qp_map_t){qp_strdup(path), data, (size_t)status.st_size};
        if (error == NULL)
            error = qp_file_refuse_pointer(path, map->data, map->n_bytes);
        if (error != NULL)
            qp_map_close(map);
    } else {
        map->path = qp_strdup(path);
    }
    close(fd);
    return error;
}

void qp_map_close(qp_map_t *map)
{
    if (map->data != NULL)
        munmap((void *)map->data, map->n_bytes);
    qp_free(map->path);
    *map = (qp_map_t){0};
}

void qp_map_drop(const void *data, size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t before = (page - (uintptr_t)data % page) % page; /* bytes of a page begun by others */
    if (n_bytes < before + page)
        return;
    size_t inside = (n_bytes - before) / page * page;
    (void)madvise((char *)data + before, inside, MADV_DONTNEED); /* advice: failure is harmless */
}
