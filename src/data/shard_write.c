#include "base/minmax.h"
#include "data/data.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/output.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "data/shard.h"
#include "h5/h5.h"

/* The name that a shard has until it is whole. */
#define TEMPORARY "%s.part"

/* A stream of elements whose number is known only at the end: it waits in an unlinked file. */
typedef struct {
    FILE *file;
    size_t element_bytes;
    int64_t n;
    qp_hash_t *hash;
    uint32_t *sums; /* [qp_shard_n_chunk(n)] when it is stored */
} spool_t;

struct qp_shard_writer {
    char *path, *temporary;
    char *kind, *source;
    qp_shard_info_t info;
    spool_t tokens, loss;
    int64_t n_sample, capacity;
    int64_t max_token_id, n_without_loss; /* as in qp_shard_t */
    int64_t *offset;                      /* [n_sample * sequences_per_sample + 1] */
    int64_t *id;                          /* [n_sample] */
    float *margin;                        /* [n_sample] */
    bool finished;
};

static qp_error_t spool_open(spool_t *spool, const char *path, size_t element_bytes)
{
    spool->element_bytes = element_bytes;
    spool->hash = qp_hash_create();
    return qp_file_scratch(path, &spool->file);
}

static void spool_close(spool_t *spool)
{
    if (spool->file != NULL)
        fclose(spool->file);
    if (spool->hash != NULL)
        qp_hash_destroy(&spool->hash);
    qp_free(spool->sums);
    *spool = (spool_t){0};
}

static qp_error_t spool_add(spool_t *spool, const char *path, const void *data, int64_t n)
{
    if (fwrite(data, spool->element_bytes, (size_t)n, spool->file) != (size_t)n)
        return QP_ERROR(QP_IO, "%s: cannot write beside it: %s", path, strerror(errno));
    qp_hash_update(spool->hash, data, (size_t)n * spool->element_bytes);
    spool->n += n;
    return NULL;
}

static qp_error_t store_array(qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t n,
                              const void *data)
{
    qp_h5_shape_t shape = {.dtype = dtype, .n_dim = 1, .dim = {n}};
    QP_TRY(qp_h5_dataset_create(file, name, &shape));
    QP_TRY(qp_h5_write(file, name, dtype, 0, n, data));
    return qp_h5_checksum_set(file, name, qp_hash_bytes(data, (size_t)n * qp_dtype_bytes(dtype)));
}

/* Elements [first, first + n), of which the first begins a chunk. */
static void sum_chunks(spool_t *spool, int64_t first, int64_t n, const char *block)
{
    for (int64_t at = 0; at < n; at += QP_SHARD_CHUNK) {
        const int64_t n_here = qp_min_i64(n - at, QP_SHARD_CHUNK);
        spool->sums[(first + at) / QP_SHARD_CHUNK] = (uint32_t)qp_hash_bytes(
            block + (size_t)at * spool->element_bytes, qp_bytes(n_here, spool->element_bytes));
    }
}

/* Moves a spool into its data set. */
static qp_error_t spool_store(spool_t *spool, qp_h5_t *file, qp_shard_set_t set)
{
    enum { BLOCK = 256 * QP_SHARD_CHUNK };
    const char *name = qp_shard_sets[set].name;
    const qp_dtype_t dtype = qp_shard_sets[set].dtype;
    qp_error_t error = NULL;
    qp_h5_shape_t shape = {.dtype = dtype, .n_dim = 1, .dim = {spool->n}};
    spool->sums = QP_NEW("shard", uint32_t, qp_shard_n_chunk(spool->n));
    void *block = qp_alloc("shard", (size_t)BLOCK * spool->element_bytes);
    QP_TRY_DONE(qp_h5_dataset_create(file, name, &shape));
    if (fflush(spool->file) != 0 || fseek(spool->file, 0, SEEK_SET) != 0)
        QP_TRY_DONE(
            QP_ERROR(QP_IO, "%s: cannot write beside it: %s", qp_h5_path(file), strerror(errno)));
    for (int64_t first = 0; first < spool->n; first += BLOCK) {
        int64_t n = qp_min_i64(spool->n - first, BLOCK);
        if (fread(block, spool->element_bytes, (size_t)n, spool->file) != (size_t)n)
            QP_TRY_DONE(QP_ERROR(QP_IO, "%s: cannot read back what was written beside it",
                                 qp_h5_path(file)));
        sum_chunks(spool, first, n, block);
        QP_TRY_DONE(qp_h5_write(file, name, dtype, first, n, block));
    }
    QP_TRY_DONE(qp_h5_checksum_set(file, name, qp_hash_value(spool->hash)));
    QP_TRY_DONE(store_array(file, qp_shard_sets[set].sums, QP_U32, qp_shard_n_chunk(spool->n),
                            spool->sums));
done:
    qp_free(block);
    return error;
}

qp_error_t qp_shard_writer_check(const char *path)
{
    char *temporary = qp_format(TEMPORARY, path);
    qp_error_t error = qp_output_check_file(path);
    if (error == NULL)
        error = qp_output_check_file(temporary);
    qp_free(temporary);
    return error;
}

qp_error_t qp_shard_writer_create(const char *path, const qp_shard_info_t *info, const char *source,
                                  qp_shard_writer_t **writer)
{
    QP_ASSERT(info->sequences_per_sample >= 1);
    qp_shard_writer_t *w = QP_NEW("shard", qp_shard_writer_t, 1);
    w->path = qp_strdup(path);
    w->temporary = qp_format(TEMPORARY, path);
    w->kind = qp_strdup(info->kind);
    w->source = qp_strdup(source);
    w->info = *info;
    w->info.kind = w->kind;
    w->offset = QP_NEW("shard", int64_t, 1);
    w->max_token_id = -1;
    qp_error_t error = NULL;
    QP_TRY_DONE(spool_open(&w->tokens, path, sizeof(int32_t)));
    QP_TRY_DONE(spool_open(&w->loss, path, sizeof(uint8_t)));
done:
    if (error != NULL)
        qp_shard_writer_abandon(&w);
    *writer = w;
    return error;
}

static void reserve_sample(qp_shard_writer_t *w)
{
    if (w->n_sample < w->capacity)
        return;
    w->capacity = 2 * w->capacity + 1024;
    int64_t n_offset = w->capacity * w->info.sequences_per_sample + 1;
    w->offset = qp_realloc("shard", w->offset, qp_bytes(n_offset, sizeof *w->offset));
    w->id = qp_realloc("shard", w->id, qp_bytes(w->capacity, sizeof *w->id));
    w->margin = qp_realloc("shard", w->margin, qp_bytes(w->capacity, sizeof *w->margin));
}

static qp_error_t add_all_ones(spool_t *loss, const char *path, int64_t n)
{
    uint8_t ones[4096];
    memset(ones, 1, sizeof ones);
    for (int64_t left = n; left > 0; left -= (int64_t)sizeof ones) {
        int64_t piece = left < (int64_t)sizeof ones ? left : (int64_t)sizeof ones;
        QP_TRY(spool_add(loss, path, ones, piece));
    }
    return NULL;
}

/* Completion tokens behind the first one: the only ones that are ever predicted. */
static bool has_loss(const uint8_t *loss, int64_t n)
{
    return n > 1 && (loss == NULL || memchr(loss + 1, 1, (size_t)n - 1) != NULL);
}

/* What is asked of a shard before any of it is read. */
static void take_note(qp_shard_writer_t *w, const int32_t *const *tokens,
                      const uint8_t *const *loss, const int64_t *n_token)
{
    bool all = true;
    for (int64_t s = 0; s < w->info.sequences_per_sample; s++) {
        all = all && has_loss(loss != NULL ? loss[s] : NULL, n_token[s]);
        for (int64_t i = 0; i < n_token[s]; i++)
            if (tokens[s][i] > w->max_token_id)
                w->max_token_id = tokens[s][i];
    }
    w->n_without_loss += !all;
}

qp_error_t qp_shard_writer_add(qp_shard_writer_t *w, int64_t id, float margin,
                               const int32_t *const *tokens, const uint8_t *const *loss,
                               const int64_t *n_token)
{
    QP_ASSERT(!w->finished);
    reserve_sample(w);
    int64_t first = w->n_sample * w->info.sequences_per_sample;
    for (int64_t s = 0; s < w->info.sequences_per_sample; s++) {
        QP_ASSERT(n_token[s] > 0);
        QP_TRY(spool_add(&w->tokens, w->path, tokens[s], n_token[s]));
        if (loss != NULL)
            QP_TRY(spool_add(&w->loss, w->path, loss[s], n_token[s]));
        else
            QP_TRY(add_all_ones(&w->loss, w->path, n_token[s]));
        w->offset[first + s + 1] = w->offset[first + s] + n_token[s];
    }
    take_note(w, tokens, loss, n_token);
    w->id[w->n_sample] = id;
    w->margin[w->n_sample] = margin;
    w->n_sample++;
    return NULL;
}

static qp_error_t store_attributes(const qp_shard_writer_t *w, qp_h5_t *file)
{
    QP_TRY(qp_h5_format_set(file, QP_SHARD_FORMAT, QP_SHARD_VERSION));
    QP_TRY(qp_h5_attr_set_str(file, "/", "kind", w->kind));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "tokenizer_id", (int64_t)w->info.tokenizer_id));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "n_vocab", w->info.n_vocab));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "sequences_per_sample", w->info.sequences_per_sample));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "n_sample", w->n_sample));
    if (w->n_sample > 0)
        QP_TRY(qp_h5_attr_set_i64(file, "/", "max_token_id", w->max_token_id));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "n_without_loss", w->n_without_loss));
    return qp_h5_attr_set_str(file, "/", "source", w->source);
}

qp_error_t qp_shard_writer_finish(qp_shard_writer_t *w)
{
    qp_error_t error = NULL;
    qp_h5_t *file = NULL;
    int64_t n_sequence = w->n_sample * w->info.sequences_per_sample;
    QP_TRY_DONE(qp_h5_create(w->temporary, NULL, &file));
    QP_TRY_DONE(store_attributes(w, file));
    QP_TRY_DONE(spool_store(&w->tokens, file, QP_SHARD_TOKENS));
    QP_TRY_DONE(spool_store(&w->loss, file, QP_SHARD_LOSS));
    QP_TRY_DONE(store_array(file, "/offsets", QP_I64, n_sequence + 1, w->offset));
    QP_TRY_DONE(store_array(file, "/id", QP_I64, w->n_sample, w->id));
    if (w->info.sequences_per_sample > 1)
        QP_TRY_DONE(store_array(file, "/margin", QP_F32, w->n_sample, w->margin));
    QP_TRY_DONE(qp_h5_close(&file));
    w->finished = true;
done:
    if (error != NULL) {
        if (file != NULL) {
            qp_error_t second = qp_h5_close(&file);
            qp_error_destroy(&second);
        }
        unlink(w->temporary);
    }
    return error;
}

qp_error_t qp_shard_writer_commit(qp_shard_writer_t **writer)
{
    qp_shard_writer_t *w = *writer;
    qp_error_t error = NULL;
    if (!w->finished)
        QP_TRY_DONE(qp_shard_writer_finish(w));
    QP_TRY_DONE(qp_file_commit(w->temporary, w->path));
    w->finished = false; /* nothing is left to remove */
done:
    qp_shard_writer_abandon(writer);
    return error;
}

void qp_shard_writer_abandon(qp_shard_writer_t **writer)
{
    qp_shard_writer_t *w = *writer;
    if (w == NULL)
        return;
    if (w->finished)
        unlink(w->temporary);
    spool_close(&w->tokens);
    spool_close(&w->loss);
    qp_free(w->path);
    qp_free(w->temporary);
    qp_free(w->kind);
    qp_free(w->source);
    qp_free(w->offset);
    qp_free(w->id);
    qp_free(w->margin);
    QP_FREE(*writer);
}
