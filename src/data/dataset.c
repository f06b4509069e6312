#include "data/data.h"

#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/str.h"
#include "data/shard.h"

/* --- which files ------------------------------------------------------------------------------ */

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Every character of a name that exists means itself. */
static char *literally(const char *name)
{
    qp_str_t pattern = {0};
    for (; *name != '\0'; name++)
        qp_str_printf(&pattern, strchr("*?[]\\", *name) != NULL ? "\\%c" : "%c", *name);
    return pattern.data;
}

/* Adds the file of that name, or else the files that match it as a pattern. */
static qp_error_t expand(const char *name, glob_t *found)
{
    struct stat status;
    char *pattern = lstat(name, &status) == 0 ? literally(name) : qp_strdup(name);
    const int failure = glob(pattern, found->gl_pathc > 0 ? GLOB_APPEND : 0, NULL, found);
    qp_free(pattern);
    if (failure == GLOB_NOMATCH)
        return QP_ERROR(QP_INPUT, "%s: no such shard", name);
    if (failure != 0)
        return QP_ERROR(QP_IO, "%s: the folder cannot be read: %s", name, strerror(errno));
    return NULL;
}

/* Paths that match, sorted and without duplicates, one after another with a NUL behind each. */
static qp_error_t match(const qp_deck_strings_t *patterns, qp_str_t *paths)
{
    if (patterns->n == 0)
        return QP_ERROR(QP_INPUT, "no shards given");
    glob_t found = {0};
    qp_error_t error = NULL;
    for (int i = 0; i < patterns->n && error == NULL; i++)
        error = expand(patterns->item[i], &found);
    if (error == NULL && found.gl_pathc > 1)
        qsort(found.gl_pathv, found.gl_pathc, sizeof(char *), compare_paths);
    for (size_t i = 0; i < found.gl_pathc && error == NULL; i++)
        if (qp_has_control(found.gl_pathv[i]))
            error = QP_ERROR(QP_INPUT, "a shard's name holds a control character: %s",
                             found.gl_pathv[i]);
        else if (i == 0 || strcmp(found.gl_pathv[i], found.gl_pathv[i - 1]) != 0)
            qp_str_append(paths, found.gl_pathv[i], strlen(found.gl_pathv[i]) + 1);
    globfree(&found);
    return error;
}

/* Every rank gets the list that rank 0 sees. Collective. */
static qp_error_t agree_on_paths(qp_comm_t *comm, const qp_deck_strings_t *patterns,
                                 qp_str_t *paths)
{
    qp_error_t error = qp_comm_rank(comm) == 0 ? match(patterns, paths) : NULL;
    QP_TRY(qp_comm_agree(comm, error));
    void *block = paths->data;
    size_t n_bytes = paths->n;
    qp_comm_bcast_block(comm, &block, &n_bytes, 0);
    if (qp_comm_rank(comm) != 0) {
        qp_str_append(paths, block, n_bytes);
        qp_free(block);
    }
    return NULL;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* What was asked for (kind NULL: what the first shard is) against what the shard says of itself. */
static qp_error_t check_fit(const qp_dataset_t *d, const qp_shard_t *shard, const char *kind,
                            uint64_t tokenizer_id)
{
    const char *path = qp_h5_path(shard->file);
    const qp_shard_t *first = &d->shard[0];
    if (kind != NULL && strcmp(shard->kind, kind) != 0)
        return QP_ERROR(QP_INPUT, "%s: holds \"%s\" samples, expected \"%s\"", path, shard->kind,
                        kind);
    if (strcmp(shard->kind, first->kind) != 0)
        return QP_ERROR(QP_INPUT, "%s: holds \"%s\" samples, but %s holds \"%s\"", path,
                        shard->kind, qp_h5_path(first->file), first->kind);
    if (shard->tokenizer_id != tokenizer_id)
        return QP_ERROR(QP_INPUT,
                        "%s: was made with tokenizer %016llx, the base has %016llx; prepare the "
                        "data again with this base",
                        path, (unsigned long long)shard->tokenizer_id,
                        (unsigned long long)tokenizer_id);
    return NULL;
}

/* Opens shard i and appends its offsets to those of the data set. */
static qp_error_t open_shard(qp_dataset_t *d, int i, const char *path)
{
    int64_t *offset = NULL;
    QP_TRY(qp_shard_open(path, &d->shard[i], &offset));
    int64_t first = d->first_sequence[i];
    int64_t n_sequence = d->shard[i].n_sample * d->shard[i].sequences_per_sample;
    int64_t first_token = i > 0 ? d->offset[first] : 0;
    d->first_sequence[i + 1] = first + n_sequence;
    d->offset =
        qp_realloc("dataset", d->offset, qp_bytes(first + n_sequence + 1, sizeof *d->offset));
    for (int64_t s = 0; s <= n_sequence; s++)
        d->offset[first + s] = first_token + offset[s];
    d->n_sample += d->shard[i].n_sample;
    qp_free(offset);
    return NULL;
}

/* Rank-local: opens everything, verifies the checksums of this rank's share. */
static qp_error_t open_all(qp_dataset_t *d, const qp_str_t *paths, const char *kind,
                           uint64_t tokenizer_id, int rank, int n_rank)
{
    for (size_t i = 0; i < paths->n; i++)
        d->n_shard += paths->data[i] == '\0';
    QP_ASSERT(d->n_shard > 0 && paths->data != NULL);
    d->shard = QP_NEW("dataset", qp_shard_t, d->n_shard);
    d->first_sequence = QP_NEW("dataset", int64_t, d->n_shard + 1);
    const char *path = paths->data;
    for (int i = 0; i < d->n_shard; i++, path += strlen(path) + 1) {
        QP_TRY(open_shard(d, i, path));
        QP_TRY(check_fit(d, &d->shard[i], kind, tokenizer_id));
        int64_t n_bytes = d->shard[i].n_token * 5;
        if (i % n_rank == rank && n_bytes <= QP_SHARD_VERIFY_BYTES)
            QP_TRY(qp_shard_verify(&d->shard[i]));
    }
    d->sequences_per_sample = d->shard[0].sequences_per_sample;
    if (d->n_sample == 0)
        return QP_ERROR(QP_INPUT, "%s: the shards hold no sample", paths->data);
    return NULL;
}

qp_error_t qp_dataset_open(qp_comm_t *comm, const qp_deck_strings_t *patterns, const char *kind,
                           uint64_t tokenizer_id, qp_dataset_t **dataset)
{
    qp_str_t paths = {0};
    qp_dataset_t *d = QP_NEW("dataset", qp_dataset_t, 1);
    d->n_read = QP_NEW("dataset", atomic_llong, 1);
    qp_error_t error = NULL;
    QP_TRY_DONE(agree_on_paths(comm, patterns, &paths));
    error = open_all(d, &paths, kind, tokenizer_id, qp_comm_rank(comm), qp_comm_size(comm));
    error = qp_comm_agree(comm, error);
done:
    qp_str_fini(&paths);
    if (error != NULL)
        qp_dataset_close(&d);
    *dataset = d;
    return error;
}

void qp_dataset_close(qp_dataset_t **dataset)
{
    qp_dataset_t *d = *dataset;
    if (d == NULL)
        return;
    for (int i = 0; i < d->n_shard; i++)
        qp_shard_close(&d->shard[i]);
    qp_free(d->shard);
    qp_free(d->first_sequence);
    qp_free(d->offset);
    qp_free(d->n_read);
    QP_FREE(*dataset);
}

void qp_dataset_inputs(const qp_dataset_t *d, const char *role, qp_str_t *lines)
{
    for (int i = 0; i < d->n_shard; i++)
        qp_str_printf(lines, "%s %016llx %s\n", role, (unsigned long long)d->shard[i].id,
                      qp_h5_path(d->shard[i].file));
}

/* order [n_shard] of the shards as lines have them; false: they are others. */
static bool find_order(const qp_dataset_t *d, const char *role, const char *lines, int *order)
{
    const size_t n_role = strlen(role);
    bool *taken = QP_NEW("dataset", bool, d->n_shard);
    int n = 0;
    bool same = true;
    for (const char *line = lines; *line != '\0' && same; line += strcspn(line, "\n"), line++) {
        if (strncmp(line, role, n_role) != 0 || line[n_role] != ' ')
            continue;
        const uint64_t id = strtoull(line + n_role + 1, NULL, 16);
        int i = 0;
        while (i < d->n_shard && (taken[i] || d->shard[i].id != id))
            i++;
        same = i < d->n_shard;
        if (same) {
            taken[i] = true;
            order[n++] = i;
        }
    }
    qp_free(taken);
    return same && n == d->n_shard;
}

static void arrange(qp_dataset_t *d, const int *order)
{
    qp_shard_t *shard = QP_NEW("dataset", qp_shard_t, d->n_shard);
    int64_t *first_sequence = QP_NEW("dataset", int64_t, d->n_shard + 1);
    int64_t *offset = QP_NEW("dataset", int64_t, qp_dataset_n_sequence(d) + 1), at = 0;
    for (int i = 0; i < d->n_shard; i++) {
        const int64_t from = d->first_sequence[order[i]];
        const int64_t n = d->first_sequence[order[i] + 1] - from;
        shard[i] = d->shard[order[i]];
        for (int64_t s = 0; s < n; s++, at++)
            offset[at + 1] = offset[at] + qp_dataset_length(d, from + s);
        first_sequence[i + 1] = at;
    }
    qp_free(d->shard);
    qp_free(d->first_sequence);
    qp_free(d->offset);
    d->shard = shard;
    d->first_sequence = first_sequence;
    d->offset = offset;
}

void qp_dataset_arrange(qp_dataset_t *d, const char *role, const char *lines)
{
    int *order = QP_NEW("dataset", int, d->n_shard);
    if (find_order(d, role, lines, order))
        arrange(d, order);
    qp_free(order);
}

/* --- reading ---------------------------------------------------------------------------------- */

int64_t qp_dataset_n_sample(const qp_dataset_t *d)
{
    return d->n_sample;
}

const char *qp_dataset_kind(const qp_dataset_t *d)
{
    return d->shard[0].kind;
}

int64_t qp_dataset_sequences_per_sample(const qp_dataset_t *d)
{
    return d->sequences_per_sample;
}

int64_t qp_dataset_n_sequence(const qp_dataset_t *d)
{
    return d->n_sample * d->sequences_per_sample;
}

int64_t qp_dataset_n_token(const qp_dataset_t *d)
{
    return d->offset[qp_dataset_n_sequence(d)];
}

int64_t qp_dataset_n_read(const qp_dataset_t *d)
{
    return (int64_t)atomic_load(d->n_read);
}

int64_t qp_dataset_length(const qp_dataset_t *d, int64_t sequence)
{
    return d->offset[sequence + 1] - d->offset[sequence];
}

int64_t qp_dataset_longest(const qp_dataset_t *d)
{
    int64_t longest = 0;
    for (int64_t s = 0; s < qp_dataset_n_sequence(d); s++)
        longest = qp_dataset_length(d, s) > longest ? qp_dataset_length(d, s) : longest;
    return longest;
}

/* The last shard that starts at or before the sequence (empty shards start where the next does). */
static int shard_of(const qp_dataset_t *d, int64_t sequence)
{
    int low = 0, high = d->n_shard;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (d->first_sequence[middle] <= sequence)
            low = middle;
        else
            high = middle;
    }
    return low;
}

float qp_dataset_margin(const qp_dataset_t *d, int64_t i)
{
    QP_ASSERT(i >= 0 && i < d->n_sample);
    int64_t sequence = i * d->sequences_per_sample;
    int s = shard_of(d, sequence);
    int64_t in_shard = (sequence - d->first_sequence[s]) / d->sequences_per_sample;
    return d->shard[s].margin != NULL ? d->shard[s].margin[in_shard] : 0.0f;
}

const char *qp_dataset_path(const qp_dataset_t *d, int64_t sequence)
{
    return qp_h5_path(d->shard[shard_of(d, sequence)].file);
}

qp_error_t qp_dataset_read_run(const qp_dataset_t *d, int64_t sequence, int64_t start, int64_t n,
                               int32_t *token, uint8_t *loss)
{
    QP_ASSERT(start >= 0 && n > 0 && start + n <= qp_dataset_length(d, sequence));
    int i = shard_of(d, sequence);
    int64_t in_shard = d->offset[sequence] - d->offset[d->first_sequence[i]];
    atomic_fetch_add(d->n_read, 1);
    return qp_shard_read(&d->shard[i], in_shard + start, n, token, loss);
}

qp_error_t qp_dataset_read(const qp_dataset_t *d, int64_t i, int32_t **tokens, uint8_t **loss,
                           int64_t *n_token)
{
    QP_ASSERT(i >= 0 && i < d->n_sample);
    int64_t k = d->sequences_per_sample, first = i * k, n = d->offset[first + k] - d->offset[first];
    *tokens = QP_NEW("dataset", int32_t, n);
    *loss = QP_NEW("dataset", uint8_t, n);
    qp_error_t error = NULL;
    int64_t done_tokens = 0;
    for (int64_t s = 0; s < k; s++) {
        n_token[s] = qp_dataset_length(d, first + s);
        QP_TRY_DONE(qp_dataset_read_run(d, first + s, 0, n_token[s], *tokens + done_tokens,
                                        *loss + done_tokens));
        done_tokens += n_token[s];
    }
done:
    if (error != NULL) {
        QP_FREE(*tokens);
        QP_FREE(*loss);
    }
    return error;
}
