/* Before the first step: tokens that no model has, and samples that teach nothing. */
#include "base/log.h"
#include "base/mem.h"
#include "base/minmax.h"
#include "data/shard.h"

enum { BLOCK = 1 << 20 };

/* What a scan of a shard finds. */
typedef struct {
    const qp_dataset_t *dataset;
    int shard;
    int64_t n_vocab;
    int64_t sequence;        /* of the data set: the one that the scan is in */
    bool in_sequence, found; /* found: it has a completion token behind its first */
    bool whole;              /* so have those before it of its sample */
    int64_t n_without_loss;
} scan_t;

static int64_t sample_of(const scan_t *scan)
{
    return (scan->sequence - scan->dataset->first_sequence[scan->shard]) /
           scan->dataset->shard[scan->shard].sequences_per_sample;
}

static qp_error_t beyond(const scan_t *scan, int64_t token)
{
    const qp_h5_t *file = scan->dataset->shard[scan->shard].file;
    const int64_t sample = sample_of(scan);
    int64_t id = -1;
    QP_TRY(qp_h5_read(file, "/id", QP_I64, sample, 1, &id));
    return QP_ERROR(QP_INPUT,
                    "%s: sample %lld (id %lld) has token %lld, but the model has %lld tokens: "
                    "prepare the data again, without what it does not know",
                    qp_h5_path(file), (long long)sample, (long long)id, (long long)token,
                    (long long)scan->n_vocab);
}

static void end_sequence(scan_t *scan)
{
    const int64_t k = scan->dataset->shard[scan->shard].sequences_per_sample;
    const int64_t place = (scan->sequence - scan->dataset->first_sequence[scan->shard]) % k;
    scan->whole = (place == 0 || scan->whole) && scan->found;
    if (place == k - 1)
        scan->n_without_loss += !scan->whole;
    scan->sequence++;
    scan->found = false;
}

/* Tokens [first, first + n) of the data set, which are in the scan's shard. */
static qp_error_t scan_block(scan_t *scan, int64_t first, int64_t n, const int32_t *token,
                             const uint8_t *loss)
{
    const int64_t *offset = scan->dataset->offset;
    for (int64_t i = 0; i < n; i++) {
        if (token[i] >= scan->n_vocab)
            return beyond(scan, token[i]);
        scan->found = scan->found || (loss[i] == 1 && first + i > offset[scan->sequence]);
        if (first + i + 1 == offset[scan->sequence + 1])
            end_sequence(scan);
    }
    return NULL;
}

static qp_error_t scan_shard(scan_t *scan)
{
    const qp_dataset_t *d = scan->dataset;
    const qp_shard_t *shard = &d->shard[scan->shard];
    int32_t *token = qp_alloc("dataset", BLOCK * sizeof *token);
    uint8_t *loss = qp_alloc("dataset", BLOCK);
    qp_error_t error = NULL;
    scan->sequence = d->first_sequence[scan->shard];
    const int64_t start = d->offset[scan->sequence];
    for (int64_t first = 0; first < shard->n_token && error == NULL; first += BLOCK) {
        const int64_t left = shard->n_token - first, n = qp_min_i64(left, BLOCK);
        error = qp_shard_read(shard, first, n, token, loss);
        if (error == NULL)
            error = scan_block(scan, start + first, n, token, loss);
    }
    qp_free(token);
    qp_free(loss);
    return error;
}

/* This rank's share of the shards: *n_without_loss of their samples. */
static qp_error_t check_share(const qp_dataset_t *d, const qp_dataset_use_t *use, int rank,
                              int n_rank, int64_t *n_without_loss)
{
    *n_without_loss = 0;
    for (int i = rank; i < d->n_shard; i += n_rank) {
        const qp_shard_t *shard = &d->shard[i];
        scan_t scan = {.dataset = d,
                       .shard = i,
                       .n_vocab = use->n_vocab,
                       .n_without_loss = shard->n_without_loss};
        const bool known = shard->max_token_id >= 0 && shard->n_without_loss >= 0;
        if (shard->n_sample > 0 && (!known || shard->max_token_id >= use->n_vocab)) {
            scan.n_without_loss = 0;
            QP_TRY(scan_shard(&scan));
        }
        *n_without_loss += shard->n_sample > 0 ? scan.n_without_loss : 0;
    }
    return NULL;
}

/* Samples with a sequence of one token: nothing is predicted there. */
static int64_t n_lone(const qp_dataset_t *d)
{
    int64_t n = 0;
    for (int64_t sample = 0; sample < d->n_sample; sample++) {
        bool lone = false;
        for (int64_t s = 0; s < d->sequences_per_sample; s++)
            lone |= qp_dataset_length(d, sample * d->sequences_per_sample + s) == 1;
        n += lone;
    }
    return n;
}

qp_error_t qp_dataset_check(qp_comm_t *comm, const qp_dataset_t *d, const qp_dataset_use_t *use,
                            const char *what)
{
    int64_t n;
    QP_TRY(qp_comm_agree(
        comm, qp_error_context(check_share(d, use, qp_comm_rank(comm), qp_comm_size(comm), &n),
                               "%s", what)));
    qp_comm_sum_i64(comm, &n, 1);
    if (!use->completion_only)
        n = n_lone(d);
    if (use->learns && n == d->n_sample)
        return QP_ERROR(QP_INPUT, "%s: %s: nothing to learn: none of the %lld samples has %s", what,
                        qp_dataset_path(d, 0), (long long)n,
                        use->completion_only
                            ? "a token of a completion (data.completion_only = true)"
                            : "more than one token");
    if (use->learns && n > 0)
        qp_log_info("%s: %lld of %lld samples have nothing to learn%s", what, (long long)n,
                    (long long)d->n_sample,
                    use->completion_only ? " (no token of a completion)" : " (a single token)");
    return NULL;
}
