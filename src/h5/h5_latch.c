/*
 * An HDF5 file driver on pwrite() that never tells HDF5 of a failed write. HDF5 cannot give up a
 * file whose metadata it fails to write: the file stays half open, and the library crashes when the
 * process ends. So the first failure is kept for the caller of h5, who stops and closes the file
 * cleanly.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "h5/h5_impl.h"

typedef struct {
    H5FD_t is; /* HDF5's part; first */
    int fd;
    haddr_t eoa, eof;
    int *failure; /* errno of the first failed write, in the qp_h5_t */
} latch_t;

static void latch(latch_t *file, bool ok)
{
    if (!ok && *file->failure == 0)
        *file->failure = errno != 0 ? errno : EIO;
}

static H5FD_t *latch_open(const char *path, unsigned flags, hid_t access, haddr_t max_address)
{
    int *const *failure = H5Pget_driver_info(access);
    int mode = (flags & H5F_ACC_RDWR ? O_RDWR : O_RDONLY) | (flags & H5F_ACC_TRUNC ? O_TRUNC : 0) |
               (flags & H5F_ACC_CREAT ? O_CREAT : 0) | (flags & H5F_ACC_EXCL ? O_EXCL : 0);
    int fd = open(path, mode | O_CLOEXEC, 0666);
    off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
    (void)max_address;
    if (end < 0) {
        **failure = errno;
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    latch_t *file = QP_NEW("h5", latch_t, 1);
    file->fd = fd;
    file->eof = (haddr_t)end;
    file->failure = *failure;
    return &file->is;
}

static herr_t latch_close(H5FD_t *is)
{
    latch_t *file = (latch_t *)is;
    latch(file, close(file->fd) == 0);
    qp_free(file);
    return 0;
}

static herr_t latch_query(const H5FD_t *is, unsigned long *flags)
{
    (void)is;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t latch_get_eoa(const H5FD_t *is, H5FD_mem_t type)
{
    (void)type;
    return ((const latch_t *)is)->eoa;
}

static herr_t latch_set_eoa(H5FD_t *is, H5FD_mem_t type, haddr_t address)
{
    (void)type;
    ((latch_t *)is)->eoa = address;
    return 0;
}

static haddr_t latch_get_eof(const H5FD_t *is, H5FD_mem_t type)
{
    (void)type;
    return ((const latch_t *)is)->eof;
}

static herr_t latch_read(H5FD_t *is, H5FD_mem_t type, hid_t properties, haddr_t address,
                         size_t n_bytes, void *buffer)
{
    const latch_t *file = (const latch_t *)is;
    (void)type;
    (void)properties;
    for (size_t done = 0; done < n_bytes;) {
        ssize_t n = pread(file->fd, (char *)buffer + done, n_bytes - done, (off_t)(address + done));
        if (n < 0 && errno != EINTR)
            return -1;
        if (n == 0) { /* allocated, never written */
            memset((char *)buffer + done, 0, n_bytes - done);
            break;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static herr_t latch_write(H5FD_t *is, H5FD_mem_t type, hid_t properties, haddr_t address,
                          size_t n_bytes, const void *buffer)
{
    latch_t *file = (latch_t *)is;
    (void)type;
    (void)properties;
    for (size_t done = 0; done < n_bytes && *file->failure == 0;) {
        ssize_t n =
            pwrite(file->fd, (const char *)buffer + done, n_bytes - done, (off_t)(address + done));
        latch(file, n > 0 || (n < 0 && errno == EINTR));
        done += n > 0 ? (size_t)n : 0;
    }
    if (file->eof < address + n_bytes)
        file->eof = address + n_bytes;
    return 0;
}

static herr_t latch_truncate(H5FD_t *is, hid_t properties, hbool_t closing)
{
    latch_t *file = (latch_t *)is;
    (void)properties;
    (void)closing;
    if (file->eof != file->eoa && *file->failure == 0)
        latch(file, ftruncate(file->fd, (off_t)file->eoa) == 0);
    file->eof = file->eoa;
    return 0;
}

qp_error_t qp_h5_set_latch(const qp_h5_t *file, hid_t access, hid_t *driver)
{
    static const H5FD_class_t driver_class = {
#ifdef H5FD_CLASS_VERSION /* since HDF5 1.14 */
        .version = H5FD_CLASS_VERSION,
        .value = (H5FD_class_value_t)H5_VFD_RESERVED + 1,
#endif
        .name = "quipu_latch",
        .maxaddr = (haddr_t)INT64_MAX,
        .fc_degree = H5F_CLOSE_STRONG,
        .fapl_size = sizeof(int *),
        .open = latch_open,
        .close = latch_close,
        .query = latch_query,
        .get_eoa = latch_get_eoa,
        .set_eoa = latch_set_eoa,
        .get_eof = latch_get_eof,
        .read = latch_read,
        .write = latch_write,
        .truncate = latch_truncate,
        .fl_map = H5FD_FLMAP_DICHOTOMY,
    };
    const int *failure = &file->failure;
    QP_TRY(QP_H5(file, NULL, *driver = H5FDregister(&driver_class)));
    return QP_H5(file, NULL, H5Pset_driver(access, *driver, &failure));
}
