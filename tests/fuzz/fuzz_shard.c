/* libFuzzer: a shard whose parts do not fit each other is refused, and one that is not refused can
 * be planned and read. The bytes decide what stands in the parts: HDF5's own parser is not the
 * target (damaged bytes meet the checksums first), ours is what comes behind it.
 *
 * Input: n_sample, sequences_per_sample, the number of elements of /tokens, /loss, /offsets and /id
 * as signed bytes, a byte of switches, with REWARD the number of elements of /margin, then the
 * offsets (two bytes each), the tokens and the margins (one byte each, -128: not a number). */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "data/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { OTHER_TYPE = 1, NO_CHECKSUM = 2, BAD_VOCABULARY = 4, MISSING_PART = 8, REWARD = 16 };

typedef struct {
    const uint8_t *next, *end;
} bytes_t;

static int64_t take(bytes_t *bytes)
{
    return bytes->next < bytes->end ? (int8_t)*bytes->next++ : 0;
}

static int64_t take_count(bytes_t *bytes)
{
    int64_t n = take(bytes);
    return n < 0 ? -n / 8 : n;
}

static qp_error_t put(qp_h5_t *file, const char *name, qp_dtype_t dtype, int64_t n,
                      const void *value, bool with_checksum)
{
    qp_h5_shape_t shape = {.dtype = dtype, .n_dim = 1, .dim = {n}};
    QP_TRY(qp_h5_dataset_create(file, name, &shape));
    QP_TRY(qp_h5_write(file, name, dtype, 0, n, value));
    if (with_checksum)
        QP_TRY(qp_h5_checksum_set(file, name,
                                  qp_hash_bytes(value, (size_t)n * qp_dtype_bytes(dtype))));
    return NULL;
}

/* The shard that the bytes describe; every call must work, since HDF5 takes any numbers. */
static qp_error_t build(const char *path, bytes_t *bytes)
{
    enum { MOST = 128 };
    int64_t offset[MOST] = {0}, id[MOST] = {0};
    int32_t token[MOST] = {0};
    float margin[MOST] = {0};
    const uint8_t loss[MOST] = {0};
    qp_h5_t *file = NULL;
    int64_t n_sample = take(bytes), n_sequence = take(bytes);
    int64_t n_token = take_count(bytes), n_loss = take_count(bytes);
    int64_t n_offset = take_count(bytes), n_id = take_count(bytes);
    int64_t switches = take(bytes);
    int64_t n_margin = switches & REWARD ? take_count(bytes) : 0;
    bool checksum = (switches & NO_CHECKSUM) == 0;
    for (int64_t i = 0; i < n_offset; i++) {
        offset[i] = take(bytes);
        offset[i] += 256 * take(bytes);
    }
    for (int64_t i = 0; i < n_token; i++)
        token[i] = (int32_t)take(bytes);
    for (int64_t i = 0; i < n_margin; i++) {
        int64_t eighths = take(bytes);
        margin[i] = eighths == INT8_MIN ? NAN : (float)eighths / 8.0f;
    }
    QP_TRY(qp_h5_create(path, NULL, &file));
    QP_TRY(qp_h5_format_set(file, QP_SHARD_FORMAT, QP_SHARD_VERSION));
    QP_TRY(qp_h5_attr_set_str(file, "/", "kind", switches & REWARD ? "reward" : "sft"));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "tokenizer_id", 1));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "n_vocab", switches & BAD_VOCABULARY ? 16 : 128));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "sequences_per_sample", n_sequence));
    QP_TRY(qp_h5_attr_set_i64(file, "/", "n_sample", n_sample));
    QP_TRY(put(file, "/tokens", switches & OTHER_TYPE ? QP_U32 : QP_I32, n_token, token, checksum));
    QP_TRY(put(file, "/loss", QP_U8, n_loss, loss, checksum));
    QP_TRY(put(file, "/offsets", QP_I64, n_offset, offset, checksum));
    if ((switches & MISSING_PART) == 0)
        QP_TRY(put(file, "/id", QP_I64, n_id, id, checksum));
    if ((switches & REWARD) != 0)
        QP_TRY(put(file, "/margin", QP_F32, n_margin, margin, checksum));
    return qp_h5_close(&file);
}

/* What a shard that opens promises: every run of tokens can be read, or is refused by its ids. */
static void use(const char *path)
{
    qp_shard_t shard;
    int64_t *offset = NULL;
    qp_error_t error = qp_shard_open(path, &shard, &offset);
    if (error == NULL) {
        int64_t n_sequence = shard.n_sample * shard.sequences_per_sample;
        error = qp_shard_verify(&shard);
        QP_ASSERT((shard.margin != NULL) == (shard.sequences_per_sample == 2));
        for (int64_t i = 0; shard.margin != NULL && i < shard.n_sample; i++)
            QP_ASSERT(isfinite(shard.margin[i]));
        for (int64_t s = 0; s < n_sequence && error == NULL; s++) {
            int64_t n = offset[s + 1] - offset[s];
            QP_ASSERT(n > 0 && offset[s + 1] <= shard.n_token);
            int32_t *token = QP_NEW("fuzz", int32_t, n);
            uint8_t *loss = QP_NEW("fuzz", uint8_t, n);
            error = qp_shard_read(&shard, offset[s], n, token, loss);
            for (int64_t i = 0; i < n && error == NULL; i++)
                QP_ASSERT(token[i] >= 0 && token[i] < shard.n_vocab);
            qp_free(token);
            qp_free(loss);
        }
        qp_free(offset);
        qp_shard_close(&shard);
    }
    QP_ASSERT(error == NULL || error->code == QP_INPUT);
    qp_error_destroy(&error);
    QP_ASSERT(qp_mem_alive() == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    bytes_t bytes = {data, data + n_bytes};
    int fd = memfd_create("shard", 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    qp_error_t error = build(path, &bytes);
    QP_ASSERT(error == NULL);
    use(path);
    close(fd);
    return 0;
}
