/*
 * The latch of h5_latch.c for files that are open with MPI-IO: HDF5 is not told of a failed write,
 * for a rank that has seen one leaves its collective calls early, where the others wait for it.
 * MPI's profiling interface is the way in: HDF5 calls these functions, and they call MPI's by its
 * other names. Files that are not latched behave as ever. A write or read of one rank is told to
 * the watch (base/activity.h), since it may hang while the other ranks wait.
 */
#include <errno.h>

#include "base/activity.h"
#include "h5/h5_impl.h"

static int *latched; /* of the file that this process has open for writing; under the lock of h5 */

void qp_h5_latch_mpio(int *failure)
{
    latched = failure;
}

/* What HDF5 hears of a call that ended so, after errno was 0. */
static int latch(int result)
{
    if (result == MPI_SUCCESS || latched == NULL)
        return result;
    if (*latched == 0)
        *latched = errno != 0 ? errno : EIO;
    return MPI_SUCCESS;
}

/* A write that ended so. Open MPI may call one a success of which nothing was written; HDF5 counts,
 * too, and hears what it wants to. */
static int latch_write(int result, int n, MPI_Datatype type, MPI_Status *status)
{
    int size = 0;
    MPI_Count written = 0;
    if (latched == NULL)
        return result;
    PMPI_Type_size(type, &size);
    if (result == MPI_SUCCESS)
        PMPI_Get_elements_x(status, MPI_BYTE, &written);
    if (written == (MPI_Count)n * size)
        return result;
    PMPI_Status_set_elements(status, type, n);
    return latch(result != MPI_SUCCESS ? result : MPI_ERR_IO);
}

/* A read of this rank alone, in the midst of an open that is collective, too: its disk may hang. */
int MPI_File_read_at(MPI_File file, MPI_Offset offset, void *data, int n, MPI_Datatype type,
                     MPI_Status *status)
{
    const int n_wait = qp_activity_work_begin();
    const int result = PMPI_File_read_at(file, offset, data, n, type, status);
    qp_activity_work_end(n_wait);
    return result;
}

/* status is never ignored here: HDF5's calls want it. */
int MPI_File_write_at(MPI_File file, MPI_Offset offset, const void *data, int n, MPI_Datatype type,
                      MPI_Status *status)
{
    const int n_wait = qp_activity_work_begin();
    errno = 0;
    const int result = PMPI_File_write_at(file, offset, data, n, type, status);
    qp_activity_work_end(n_wait);
    return latch_write(result, n, type, status);
}

int MPI_File_write_at_all(MPI_File file, MPI_Offset offset, const void *data, int n,
                          MPI_Datatype type, MPI_Status *status)
{
    errno = 0;
    return latch_write(PMPI_File_write_at_all(file, offset, data, n, type, status), n, type,
                       status);
}

int MPI_File_set_size(MPI_File file, MPI_Offset size)
{
    errno = 0;
    return latch(PMPI_File_set_size(file, size));
}

int MPI_File_sync(MPI_File file)
{
    errno = 0;
    return latch(PMPI_File_sync(file));
}
