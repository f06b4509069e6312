/* Writing: everything under a temporary name, the mark of completeness last, then the rename. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/minmax.h"
#include "base/str.h"
#include "base/timer.h"
#include "ckpt/ckpt_impl.h"

/* Bytes of another rank's slab that rank 0 holds at once while it computes a checksum. */
enum { BLOCK_BYTES = 16 << 20 };

static qp_error_t write_info(qp_h5_t *file, const qp_ckpt_info_t *info)
{
    QP_TRY(qp_h5_format_set(file, "checkpoint", QP_CKPT_VERSION));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "step", info->step));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "steps", info->steps));
    QP_TRY(qp_h5_attr_set_str(file, "/", "method", info->method));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "base_id", (int64_t)info->base_id));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "deck_hash", (int64_t)info->deck_hash));
    QP_TRY(qp_h5_attr_set_str(file, "/", "build", info->build));
    QP_TRY(qp_h5_blob_write(file, "/fingerprint", info->fingerprint, strlen(info->fingerprint)));
    return qp_h5_blob_write(file, "/inputs", info->inputs, strlen(info->inputs));
}

/* The slab of one rank: where it starts, how long it is, whose it is. */
typedef struct {
    int64_t first, n, rank;
} slab_t;

static int by_first(const void *a, const void *b)
{
    const slab_t *x = a, *y = b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return (x->n > y->n) - (x->n < y->n); /* empty ones before the one that starts there */
}

/* Slabs of all ranks in the order of the array; they must partition it. */
static qp_error_t gather_slabs(qp_comm_t *comm, const qp_state_item_t *item, slab_t mine,
                               slab_t *slab)
{
    int n_rank = qp_comm_size(comm);
    qp_comm_allgather(comm, &mine, 3, QP_I64, slab);
    qsort(slab, (size_t)n_rank, sizeof *slab, by_first);
    int64_t next = 0;
    for (int r = 0; r < n_rank; r++) {
        if (slab[r].n > 0 && slab[r].first != next)
            return QP_ERROR(QP_INTERNAL, "%s: the slabs of the ranks do not partition it",
                            item->is.name);
        next += slab[r].n;
    }
    if (next != item->is.n_global)
        return QP_ERROR(QP_INTERNAL, "%s: the slabs have %lld elements in all, expected %lld",
                        item->is.name, (long long)next, (long long)item->is.n_global);
    return NULL;
}

/* Rank 0 hashes the slabs in order as they stand in memory, so damage on the way to disk shows
 * later. */
static uint64_t hash_slabs(qp_comm_t *comm, qp_dtype_t dtype, const slab_t *slab, char *data)
{
    int64_t bytes = (int64_t)qp_dtype_bytes(dtype), n_block = BLOCK_BYTES / bytes;
    int rank = qp_comm_rank(comm);
    char *block = rank == 0 ? qp_alloc("ckpt", BLOCK_BYTES) : NULL;
    qp_hash_t *hash = qp_hash_create();
    for (int r = 0; r < qp_comm_size(comm); r++)
        for (int64_t first = 0; first < slab[r].n; first += n_block) {
            int64_t n = qp_min_i64(slab[r].n - first, n_block);
            char *piece = slab[r].rank == rank ? data + first * bytes : block;
            qp_comm_move(comm, piece, n, dtype, (int)slab[r].rank, 0);
            if (rank == 0)
                qp_hash_update(hash, piece, (size_t)(n * bytes));
        }
    uint64_t value = qp_hash_value(hash);
    qp_hash_destroy(&hash);
    qp_free(block);
    qp_comm_bcast(comm, &value, 1, QP_U64, 0);
    return value;
}

static qp_error_t write_item(qp_comm_t *comm, qp_h5_t *file, const qp_state_item_t *item,
                             uint64_t *xxh3)
{
    int rank = qp_comm_rank(comm);
    slab_t mine = {item->is.first, item->is.n_mine, rank};
    if (item->scalar && rank != 0)
        mine = (slab_t){1, 0, rank};
    slab_t *slab = QP_NEW("ckpt", slab_t, qp_comm_size(comm));
    char *data = qp_alloc("ckpt", qp_bytes(mine.n, qp_dtype_bytes(item->is.dtype)));
    qp_error_t error;
    QP_TRY_DONE(gather_slabs(comm, item, mine, slab)); /* the same on every rank */
    error = mine.n > 0 ? item->is.get(item->is.owner, data) : NULL;
    QP_TRY_DONE(qp_comm_agree(comm, qp_error_context(error, "%s", item->is.name)));
    *xxh3 = hash_slabs(comm, item->is.dtype, slab, data);
    QP_TRY_DONE(qp_h5_write_all(file, item->is.name, item->is.dtype, mine.first, mine.n, data));
done:
    qp_free(data);
    qp_free(slab);
    return error;
}

/* Creates every data set first: then the disk has room for all of them, or none has been written.
 */
static qp_error_t write_state(qp_comm_t *comm, qp_h5_t *file, const qp_state_t *state)
{
    for (int64_t i = 0; i < state->n_item; i++) {
        const qp_state_entry_t *entry = &state->item[i].is;
        const qp_h5_shape_t shape = {entry->dtype, 1, {entry->n_global}};
        QP_TRY(qp_h5_dataset_create(file, entry->name, &shape));
        if (state->item[i].ignorable)
            QP_TRY(qp_h5_attr_set_i64(file, entry->name, QP_CKPT_IGNORABLE, 1));
    }
    uint64_t *xxh3 = QP_NEW("ckpt", uint64_t, state->n_item);
    qp_error_t error = NULL;
    for (int64_t i = 0; i < state->n_item && error == NULL; i++)
        error = write_item(comm, file, &state->item[i], &xxh3[i]);
    for (int64_t i = 0; i < state->n_item && error == NULL; i++)
        error = qp_h5_checksum_set(file, state->item[i].is.name, xxh3[i]);
    qp_free(xxh3);
    return error;
}

static qp_error_t write_file(qp_comm_t *comm, const char *path, const qp_ckpt_info_t *info,
                             const qp_state_t *state)
{
    qp_h5_t *file = NULL;
    const double start = qp_time();
    QP_TRY(qp_h5_create(path, comm, &file));
    qp_error_t error;
    QP_TRY_DONE(write_info(file, info));
    QP_TRY_DONE(write_state(comm, file, state));
    QP_TRY_DONE(qp_h5_flush(file)); /* the data are on disk before the mark that vouches for them */
    QP_TRY_DONE(qp_h5_attr_set_f64(file, "/", "write_seconds", qp_time() - start));
    QP_TRY_DONE(qp_h5_attr_set_i64(file, "/", "complete", 1));
done:
    return qp_error_first(error, qp_h5_close(&file));
}

/* What stands under a name that a checkpoint needs, and is no file, is not ours: it steps aside. */
static qp_error_t make_way(const char *path)
{
    struct stat status;
    if (lstat(path, &status) != 0 || S_ISREG(status.st_mode))
        return NULL;
    char *aside = qp_format("%s.aside-%lld", path, (long long)time(NULL));
    qp_error_t error = NULL;
    if (rename(path, aside) != 0)
        error = QP_ERROR(QP_IO, "%s: no file, and cannot be moved away: %s", path, strerror(errno));
    else
        qp_log_warn("%s is no file: it is %s now", path, aside);
    qp_free(aside);
    return error;
}

qp_error_t qp_ckpt_write(qp_comm_t *comm, const qp_ckpt_config_t *config,
                         const qp_ckpt_info_t *info, const qp_state_t *state)
{
    bool first = qp_comm_rank(comm) == 0;
    char *path = qp_format("%s/step-%06lld.h5", config->folder, (long long)info->step);
    char *temporary = qp_format("%s%s", path, QP_CKPT_TEMPORARY);
    qp_error_t error;
    error = first ? qp_folder_make(config->folder) : NULL;
    if (first && error == NULL)
        error = make_way(temporary);
    if (first && error == NULL)
        error = make_way(path);
    QP_TRY_DONE(qp_comm_agree(comm, error));
    error = write_file(comm, temporary, info, state);
    if (error == NULL)
        error = qp_comm_agree(comm, first ? qp_file_commit(temporary, path) : NULL);
    if (error != NULL && first)
        unlink(temporary);
    if (error == NULL && first)
        qp_ckpt_rotate(config->folder, config->keep, path);
    qp_comm_barrier(comm); /* nobody goes on while files come and go */
done:
    qp_free(temporary);
    qp_free(path);
    return error;
}
