#include "data/shard.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/minmax.h"

const qp_shard_set_info_t qp_shard_sets[] = {
    [QP_SHARD_TOKENS] = {"/tokens", "/tokens_chunks", QP_I32},
    [QP_SHARD_LOSS] = {"/loss", "/loss_chunks", QP_U8},
};

/* What a sample of each kind is made of. */
static const struct {
    const char *kind;
    int64_t sequences_per_sample;
} kinds[] = {{"sft", 1}, {"reward", 2}, {"prompt", 1}};

static qp_error_t check_kind(const qp_shard_t *shard)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(shard->kind, kinds[i].kind) != 0)
            continue;
        if (shard->sequences_per_sample == kinds[i].sequences_per_sample)
            return NULL;
        return QP_ERROR(QP_INPUT, "%s: %lld sequences per \"%s\" sample, expected %lld",
                        qp_h5_path(shard->file), (long long)shard->sequences_per_sample,
                        shard->kind, (long long)kinds[i].sequences_per_sample);
    }
    return QP_ERROR(QP_INPUT, "%s: kind is \"%s\", expected \"sft\", \"reward\" or \"prompt\"",
                    qp_h5_path(shard->file), shard->kind);
}

/* -1 where an older shard does not say. */
static qp_error_t get_known(const qp_h5_t *file, const char *name, int64_t *value)
{
    *value = -1;
    return qp_h5_attr_exists(file, "/", name) ? qp_h5_attr_get_i64(file, "/", name, value) : NULL;
}

static qp_error_t read_attributes(qp_shard_t *shard)
{
    const qp_h5_t *file = shard->file;
    int64_t tokenizer_id = 0;
    QP_TRY(qp_h5_format_check(file, QP_SHARD_FORMAT, QP_SHARD_VERSION));
    QP_TRY(qp_h5_attr_get_str(file, "/", "kind", &shard->kind));
    QP_TRY(qp_h5_attr_get_i64(file, "/", "tokenizer_id", &tokenizer_id));
    QP_TRY(qp_h5_attr_get_i64(file, "/", "n_vocab", &shard->n_vocab));
    QP_TRY(qp_h5_attr_get_i64(file, "/", "sequences_per_sample", &shard->sequences_per_sample));
    QP_TRY(qp_h5_attr_get_i64(file, "/", "n_sample", &shard->n_sample));
    QP_TRY(get_known(file, "max_token_id", &shard->max_token_id));
    QP_TRY(get_known(file, "n_without_loss", &shard->n_without_loss));
    shard->tokenizer_id = (uint64_t)tokenizer_id;
    QP_TRY(check_kind(shard));
    if (shard->n_sample < 0 || shard->n_sample > INT64_MAX / 4)
        return QP_ERROR(QP_INPUT, "%s: n_sample is %lld", qp_h5_path(file),
                        (long long)shard->n_sample);
    return NULL;
}

/* The length of a one-dimensional data set; expected < 0: any. */
static qp_error_t check_length(const qp_h5_t *file, const char *name, qp_dtype_t dtype,
                               int64_t expected, int64_t *found)
{
    qp_h5_shape_t shape;
    QP_TRY(qp_h5_dataset_shape(file, name, &shape));
    if (shape.n_dim != 1 || shape.dtype != dtype)
        return QP_ERROR(QP_INPUT, "%s: %s is %d-dimensional %s, expected 1-dimensional %s",
                        qp_h5_path(file), name, shape.n_dim, qp_dtype_name(shape.dtype),
                        qp_dtype_name(dtype));
    if (expected >= 0 && shape.dim[0] != expected)
        return QP_ERROR(QP_INPUT, "%s: %s has %lld elements, expected %lld", qp_h5_path(file), name,
                        (long long)shape.dim[0], (long long)expected);
    if (found != NULL)
        *found = shape.dim[0];
    return NULL;
}

/* Data sets with a checksum; the last one only where there are pairs. */
static const char *const checked[] = {"/tokens", "/loss", "/offsets", "/id", "/margin"};
enum { N_CHECKED = sizeof checked / sizeof checked[0] };

static int n_checked(const qp_shard_t *shard)
{
    return shard->margin != NULL ? N_CHECKED : N_CHECKED - 1;
}

static qp_error_t read_id(qp_shard_t *shard)
{
    uint64_t checksum[N_CHECKED] = {0};
    for (int i = 0; i < n_checked(shard); i++)
        QP_TRY(qp_h5_checksum_get(shard->file, checked[i], &checksum[i]));
    shard->id = qp_hash_bytes(checksum, sizeof checksum);
    return NULL;
}

static qp_error_t check_offsets(const qp_shard_t *shard, const int64_t *offset, int64_t n_sequence)
{
    if (offset[0] != 0 || offset[n_sequence] != shard->n_token)
        return QP_ERROR(QP_INPUT, "%s: /offsets run from %lld to %lld, expected 0 to %lld",
                        qp_h5_path(shard->file), (long long)offset[0],
                        (long long)offset[n_sequence], (long long)shard->n_token);
    for (int64_t s = 0; s < n_sequence; s++)
        if (offset[s + 1] <= offset[s])
            return QP_ERROR(QP_INPUT, "%s: /offsets do not increase at sequence %lld: %lld, %lld",
                            qp_h5_path(shard->file), (long long)s, (long long)offset[s],
                            (long long)offset[s + 1]);
    return NULL;
}

/* The margins of a shard of pairs. */
static qp_error_t read_margins(qp_shard_t *shard)
{
    if (shard->sequences_per_sample == 1)
        return NULL;
    if (!qp_h5_exists(shard->file, "/margin"))
        return QP_ERROR(QP_INPUT, "%s: no data set /margin, expected one in a \"%s\" shard",
                        qp_h5_path(shard->file), shard->kind);
    QP_TRY(check_length(shard->file, "/margin", QP_F32, shard->n_sample, NULL));
    shard->margin = QP_NEW("dataset", float, shard->n_sample);
    QP_TRY(qp_h5_read(shard->file, "/margin", QP_F32, 0, shard->n_sample, shard->margin));
    for (int64_t i = 0; i < shard->n_sample; i++)
        if (!isfinite(shard->margin[i]))
            return QP_ERROR(QP_INPUT, "%s: /margin[%lld] is %g, expected a finite number",
                            qp_h5_path(shard->file), (long long)i, (double)shard->margin[i]);
    return NULL;
}

/* The checksums of chunks, where the shard has them. */
static qp_error_t read_sums(qp_shard_t *shard)
{
    const int64_t n_chunk = qp_shard_n_chunk(shard->n_token);
    for (int i = 0; i < QP_SHARD_N_SET; i++) {
        const char *name = qp_shard_sets[i].sums;
        if (!qp_h5_exists(shard->file, name))
            continue;
        QP_TRY(check_length(shard->file, name, QP_U32, n_chunk, NULL));
        shard->sums[i] = QP_NEW("dataset", uint32_t, n_chunk);
        QP_TRY(qp_h5_read_verified(shard->file, name, QP_U32, n_chunk, shard->sums[i]));
    }
    return NULL;
}

qp_error_t qp_shard_open(const char *path, qp_shard_t *shard, int64_t **offset)
{
    qp_error_t error = NULL;
    *shard = (qp_shard_t){0};
    *offset = NULL;
    QP_TRY_DONE(qp_h5_open(path, NULL, &shard->file));
    QP_TRY_DONE(read_attributes(shard));
    int64_t n_sequence = shard->n_sample * shard->sequences_per_sample;
    QP_TRY_DONE(check_length(shard->file, "/tokens", QP_I32, -1, &shard->n_token));
    QP_TRY_DONE(check_length(shard->file, "/loss", QP_U8, shard->n_token, NULL));
    QP_TRY_DONE(check_length(shard->file, "/offsets", QP_I64, n_sequence + 1, NULL));
    QP_TRY_DONE(check_length(shard->file, "/id", QP_I64, shard->n_sample, NULL));
    *offset = QP_NEW("dataset", int64_t, n_sequence + 1);
    QP_TRY_DONE(qp_h5_read(shard->file, "/offsets", QP_I64, 0, n_sequence + 1, *offset));
    QP_TRY_DONE(check_offsets(shard, *offset, n_sequence));
    QP_TRY_DONE(read_margins(shard));
    QP_TRY_DONE(read_sums(shard));
    QP_TRY_DONE(read_id(shard));
done:
    if (error != NULL) {
        QP_FREE(*offset);
        qp_shard_close(shard);
    }
    return error;
}

void qp_shard_close(qp_shard_t *shard)
{
    if (shard->file != NULL) {
        qp_error_t error = qp_h5_close(&shard->file); /* nothing was written: nothing can be lost */
        qp_error_destroy(&error);
    }
    qp_free(shard->kind);
    qp_free(shard->margin);
    for (int i = 0; i < QP_SHARD_N_SET; i++)
        qp_free(shard->sums[i]);
    *shard = (qp_shard_t){0};
}

qp_error_t qp_shard_verify(const qp_shard_t *shard)
{
    for (int i = 0; i < n_checked(shard); i++)
        QP_TRY(qp_h5_checksum_verify(shard->file, checked[i]));
    return NULL;
}

/* Touched, but the same: as a copy over itself leaves it. */
static qp_error_t check_touched(const qp_shard_t *shard)
{
    if (!qp_h5_is_touched(shard->file))
        return NULL;
    qp_error_t error = qp_shard_verify(shard);
    if (error == NULL)
        qp_h5_note(shard->file);
    return qp_error_context(error, "%s was written to while it was in use",
                            qp_h5_path(shard->file));
}

/* Elements [first, first + n) of a data set, which are whole chunks, as the file has them now. */
static qp_error_t check_chunks(const qp_shard_t *shard, qp_shard_set_t set, int64_t first,
                               int64_t n, const char *block)
{
    const size_t bytes = qp_dtype_bytes(qp_shard_sets[set].dtype);
    for (int64_t at = 0; at < n; at += QP_SHARD_CHUNK) {
        const int64_t n_here = qp_min_i64(n - at, QP_SHARD_CHUNK);
        const uint64_t hash = qp_hash_bytes(block + (size_t)at * bytes, qp_bytes(n_here, bytes));
        const uint32_t expected = shard->sums[set][(first + at) / QP_SHARD_CHUNK];
        if ((uint32_t)hash != expected)
            return QP_ERROR(QP_INPUT,
                            "%s: %s[%lld to %lld]: damaged: checksum is %08lx, expected %08lx",
                            qp_h5_path(shard->file), qp_shard_sets[set].name,
                            (long long)(first + at), (long long)(first + at + n_here - 1),
                            (unsigned long)(uint32_t)hash, (unsigned long)expected);
    }
    return NULL;
}

static qp_error_t read_set(const qp_shard_t *shard, qp_shard_set_t set, int64_t first, int64_t n,
                           void *to)
{
    const qp_shard_set_info_t *info = &qp_shard_sets[set];
    if (shard->sums[set] == NULL || n == 0)
        return qp_h5_read(shard->file, info->name, info->dtype, first, n, to);
    const size_t bytes = qp_dtype_bytes(info->dtype);
    const int64_t begin = first / QP_SHARD_CHUNK * QP_SHARD_CHUNK;
    const int64_t end = qp_min_i64(qp_shard_n_chunk(first + n) * QP_SHARD_CHUNK, shard->n_token);
    char *block = qp_alloc("dataset", qp_bytes(end - begin, bytes));
    qp_error_t error = qp_h5_read(shard->file, info->name, info->dtype, begin, end - begin, block);
    if (error == NULL)
        error = check_chunks(shard, set, begin, end - begin, block);
    if (error == NULL)
        memcpy(to, block + (size_t)(first - begin) * bytes, qp_bytes(n, bytes));
    qp_free(block);
    return error;
}

qp_error_t qp_shard_read(const qp_shard_t *shard, int64_t first, int64_t n, int32_t *token,
                         uint8_t *loss)
{
    QP_TRY(check_touched(shard)); /* says more than a checksum does */
    QP_TRY(read_set(shard, QP_SHARD_TOKENS, first, n, token));
    QP_TRY(read_set(shard, QP_SHARD_LOSS, first, n, loss));
    if (shard->sums[QP_SHARD_TOKENS] == NULL || shard->sums[QP_SHARD_LOSS] == NULL)
        QP_TRY(check_touched(shard)); /* and if it happened while they were read */
    for (int64_t i = 0; i < n; i++)
        if (token[i] < 0 || token[i] >= shard->n_vocab)
            return QP_ERROR(QP_INPUT,
                            "%s: /tokens[%lld] is %d, outside the vocabulary of %lld tokens",
                            qp_h5_path(shard->file), (long long)(first + i), (int)token[i],
                            (long long)shard->n_vocab);
    return NULL;
}
