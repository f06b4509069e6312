/**
 * \file shard.h
 * Inside of the data module: one open shard, and runs of tokens of a data set.
 */
#ifndef QP_DATA_SHARD_H
#define QP_DATA_SHARD_H

#include <stdatomic.h>

#include "data/data.h"
#include "h5/h5.h"

#define QP_SHARD_FORMAT "shard"
enum {
    QP_SHARD_VERSION = 1,
    QP_SHARD_CHUNK = 4096 /**< elements with a checksum of their own: what is read is compared */
};

/** What a token has in a shard. */
typedef enum { QP_SHARD_TOKENS, QP_SHARD_LOSS, QP_SHARD_N_SET } qp_shard_set_t;
typedef struct {
    const char *name;
    const char *sums; /**< data set: uint32, the lower half of XXH3-64 of each chunk */
    qp_dtype_t dtype;
} qp_shard_set_info_t;
extern const qp_shard_set_info_t qp_shard_sets[QP_SHARD_N_SET];

static inline int64_t qp_shard_n_chunk(int64_t n_token)
{
    return (n_token + QP_SHARD_CHUNK - 1) / QP_SHARD_CHUNK;
}

/** A shard open for reading; zero-initialise. */
typedef struct {
    qp_h5_t *file;
    char *kind; /**< owned */
    uint64_t tokenizer_id;
    int64_t n_vocab, sequences_per_sample, n_sample, n_token;
    int64_t max_token_id;   /**< largest one; -1: an older shard does not say */
    int64_t n_without_loss; /**< samples with a sequence that has no completion token behind its
                                 first; -1 likewise */
    uint64_t id;            /**< of its contents: hash of all checksums */
    float *margin;          /**< [n_sample], owned; NULL unless the shard holds pairs */
    uint32_t *sums[QP_SHARD_N_SET]; /**< of each chunk, owned; NULL: an older shard has none */
} qp_shard_t;

struct qp_dataset {
    int n_shard;
    qp_shard_t *shard;       /**< [n_shard] */
    int64_t *first_sequence; /**< [n_shard + 1] of each shard */
    int64_t *offset;         /**< [n_sequence + 1] into all tokens, shard after shard */
    int64_t n_sample, sequences_per_sample;
    atomic_llong *n_read; /**< outside, since reading leaves a data set as it is */
};

/**
 * Opens a shard by itself (serial, rank-local) and checks that its parts fit each other; *offset
 * gets its offsets [n_sample * sequences_per_sample + 1], strictly increasing from 0 to n_token
 * (qp_free). Anything wrong: QP_INPUT naming the file.
 */
qp_error_t qp_shard_open(const char *path, qp_shard_t *shard, int64_t **offset);
void qp_shard_close(qp_shard_t *shard);
/** Compares all checksums: QP_INPUT naming the file and the data set. */
qp_error_t qp_shard_verify(const qp_shard_t *shard);
/** Reads tokens [first, first + n) and their loss bytes. Chunks that are not what was written, ids
 * outside the vocabulary, or a file that was written to since it was opened, unless its checksums
 * still hold: QP_INPUT. */
qp_error_t qp_shard_read(const qp_shard_t *shard, int64_t first, int64_t n, int32_t *token,
                         uint8_t *loss);

int64_t qp_dataset_n_sequence(const qp_dataset_t *dataset);
/** Tokens of a sequence (global index). */
int64_t qp_dataset_length(const qp_dataset_t *dataset, int64_t sequence);
/** Reads tokens [start, start + n) of a sequence and their loss bytes. Rank-local, thread-safe. */
qp_error_t qp_dataset_read_run(const qp_dataset_t *dataset, int64_t sequence, int64_t start,
                               int64_t n, int32_t *token, uint8_t *loss);
/** File that holds a sequence, for messages. */
const char *qp_dataset_path(const qp_dataset_t *dataset, int64_t sequence);

#endif
