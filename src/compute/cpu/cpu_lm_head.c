/*
 * Language-model head: log-probability, entropy and gradient over row and vocabulary chunks. The
 * logits of one row chunk are kept in fp32, so nothing is computed twice: a chunk holds as many
 * rows as LOGIT_BYTES allow (256 at 49,152 tokens, 128 at 128,256), and the head is read once per
 * row chunk and direction. Within it, every vocabulary chunk is worked on while it is in the cache.
 */
#include "compute/cpu/cpu.h"
#include "compute/cpu/cpu_math.h"

#include <math.h>

enum { VOCAB_CHUNK = 2048, MIN_ROW = 32, MAX_ROW = 256 };
static const int64_t LOGIT_BYTES = 72 << 20;

/* Running statistics of one row over the vocabulary. */
typedef struct {
    float top;      /* largest logit so far */
    float sum;      /* of exp(z - top) */
    float weighted; /* of exp(z - top) (z - top), for the entropy */
    float target_logit;
} row_t;

/* One chunk of rows. */
typedef struct {
    qp_mat_t logits;  /* [n_row, V] fp32 */
    qp_mat_t dlogits; /* [n_row, VOCAB_CHUNK] in the type of the products */
    qp_mat_t dhidden; /* [n_row, D] fp32 */
    row_t *row;
    const int32_t *target;
    int64_t n_row;
} chunk_t;

/* Takes n more columns into a row's statistics; always all of them, so that asking for the entropy
 * does not change the log-probability's bits. */
QP_CPU_CLONES static void scan_row(row_t *row, const float *restrict z, int64_t n)
{
    float top = row->top, sum = 0.0f, weighted = 0.0f;
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < n; i++)
        top = z[i] > top ? z[i] : top;
#pragma omp simd reduction(+ : sum, weighted)
    for (int64_t i = 0; i < n; i++) {
        float below = z[i] - top, p = qp_cpu_expf(below);
        sum += p;
        weighted += p * (below < -128.0f ? -128.0f : below); /* p is 0 there; 0 times -inf is not */
    }
    if (row->sum > 0.0f) {
        float shrink = qp_cpu_expf(row->top - top);
        weighted += shrink * (row->weighted + (row->top - top) * row->sum);
        sum += shrink * row->sum;
    }
    row->top = top;
    row->sum = sum;
    row->weighted = weighted;
}

/* dlogits of columns [first, first + n): scale (onehot - p). */
QP_CPU_CLONES static void gradient_row(const chunk_t *c, int64_t r, int64_t first, int64_t n,
                                       float scale)
{
    float d[VOCAB_CHUNK];
    const float *restrict z = qp_cpu_at(&c->logits, r, first);
    float top = c->row[r].top, share = -scale / c->row[r].sum;
    for (int64_t i = 0; i < n; i++)
        d[i] = qp_cpu_expf(z[i] - top) * share;
    int64_t target = c->target[r] - first;
    if (target >= 0 && target < n)
        d[target] += scale;
    qp_cpu_store(qp_cpu_at(&c->dlogits, r, 0), c->dlogits.dtype, d, n);
}

/* Logits and statistics of all rows of a chunk. */
static qp_error_t forward_chunk(qp_queue_t *q, const chunk_t *c, qp_mat_t hidden, qp_mat_t head)
{
    for (int64_t r = 0; r < c->n_row; r++)
        c->row[r] = (row_t){.top = -INFINITY};
    for (int64_t first = 0; first < head.n_row; first += VOCAB_CHUNK) {
        int64_t n = qp_cpu_min(head.n_row - first, VOCAB_CHUNK);
        QP_TRY(qp_cpu_matmul(q, 1.0f, hidden, false, qp_mat_rows(head, first, n), true, 0.0f,
                             qp_mat_cols(c->logits, first, n), (qp_mask_t){0}));
#pragma omp parallel for num_threads(qp_cpu_device(q)->n_thread)
        for (int64_t r = 0; r < c->n_row; r++) {
            int64_t target = c->target[r] - first;
            scan_row(&c->row[r], qp_cpu_at(&c->logits, r, first), n);
            if (target >= 0 && target < n)
                c->row[r].target_logit = *(float *)qp_cpu_at(&c->logits, r, first + target);
        }
    }
    return NULL;
}

static qp_error_t backward_chunk(qp_queue_t *q, const chunk_t *c, const float *dlogprob,
                                 qp_mat_t head, qp_mat_t dhidden)
{
    for (int64_t first = 0; first < head.n_row; first += VOCAB_CHUNK) {
        int64_t n = qp_cpu_min(head.n_row - first, VOCAB_CHUNK);
#pragma omp parallel for num_threads(qp_cpu_device(q)->n_thread)
        for (int64_t r = 0; r < c->n_row; r++)
            gradient_row(c, r, first, n, c->target[r] < 0 ? 0.0f : dlogprob[r]);
        QP_TRY(qp_cpu_matmul(q, 1.0f, qp_mat_cols(c->dlogits, 0, n), false,
                             qp_mat_rows(head, first, n), false, first == 0 ? 0.0f : 1.0f,
                             c->dhidden, (qp_mask_t){0}));
    }
    return qp_cpu_axpby(q, 1.0f, c->dhidden, 0.0f, dhidden);
}

static int64_t rows_of_chunk(int64_t n_vocab)
{
    int64_t n_row = LOGIT_BYTES / (int64_t)sizeof(float) / n_vocab / MIN_ROW * MIN_ROW;
    return n_row < MIN_ROW ? MIN_ROW : qp_cpu_min(n_row, MAX_ROW);
}

size_t qp_cpu_lm_head_scratch(const qp_pass_size_t *size, qp_dtype_t dtype)
{
    size_t row_bytes = sizeof(row_t) + qp_bytes(size->d_model + size->n_vocab, sizeof(float)) +
                       VOCAB_CHUNK * qp_dtype_bytes(dtype);
    return qp_bytes(rows_of_chunk(size->n_vocab), row_bytes);
}

/* Scratch for chunks of n_row rows. */
static void take_scratch(chunk_t *c, qp_cpu_device_t *device, int64_t n_row, qp_dtype_t dtype,
                         const qp_mat_t *head)
{
    int64_t n_vocab = head->n_row, d = head->n_col;
    size_t row_bytes = qp_bytes(n_row, sizeof(row_t));
    size_t hidden_bytes = qp_bytes(n_row * d, sizeof(float));
    size_t logit_bytes = qp_bytes(n_row * n_vocab, sizeof(float));
    size_t gradient_bytes = qp_bytes(n_row * VOCAB_CHUNK, qp_dtype_bytes(dtype));
    char *rows = qp_cpu_scratch(device, QP_SCRATCH_HEAD_ROWS,
                                qp_cpu_round64(row_bytes) + qp_cpu_round64(hidden_bytes));
    char *logits = qp_cpu_scratch(device, QP_SCRATCH_HEAD,
                                  qp_cpu_round64(logit_bytes) + qp_cpu_round64(gradient_bytes));
    c->row = qp_cpu_carve(&rows, row_bytes);
    c->dhidden =
        qp_mat((qp_dptr_t){(uintptr_t)qp_cpu_carve(&rows, hidden_bytes)}, QP_F32, n_row, d);
    c->logits =
        qp_mat((qp_dptr_t){(uintptr_t)qp_cpu_carve(&logits, logit_bytes)}, QP_F32, n_row, n_vocab);
    c->dlogits = qp_mat((qp_dptr_t){(uintptr_t)qp_cpu_carve(&logits, gradient_bytes)}, dtype, n_row,
                        VOCAB_CHUNK);
}

/* Results of a chunk's rows, which are rows first... of the whole. */
static void write_results(const chunk_t *c, int64_t first, float *logprob, float *entropy)
{
    for (int64_t r = 0; r < c->n_row; r++) {
        const row_t *row = &c->row[r];
        float log_sum = logf(row->sum);
        logprob[first + r] = c->target[r] < 0 ? 0.0f : row->target_logit - row->top - log_sum;
        if (entropy != NULL)
            entropy[first + r] = log_sum - row->weighted / row->sum;
    }
}

qp_error_t qp_cpu_lm_head(qp_queue_t *q, qp_dptr_t logprob, qp_dptr_t entropy, qp_mat_t dhidden,
                          qp_dptr_t dlogprob, qp_mat_t hidden, qp_mat_t head, qp_dptr_t target)
{
    bool gradient = !qp_dptr_is_null(dlogprob);
    QP_ASSERT(hidden.n_col == head.n_col);
    QP_ASSERT(!gradient || (dhidden.n_row == hidden.n_row && dhidden.n_col == hidden.n_col));
    int64_t n_row = rows_of_chunk(head.n_row);
    chunk_t whole = {0};
    take_scratch(&whole, qp_cpu_device(q), n_row, hidden.dtype, &head);
    for (int64_t first = 0; first < hidden.n_row; first += n_row) {
        int64_t n = qp_cpu_min(hidden.n_row - first, n_row);
        chunk_t c = whole;
        c.n_row = n;
        c.target = qp_cpu_i32(target) + first;
        c.logits.n_row = c.dlogits.n_row = c.dhidden.n_row = n;
        QP_TRY(forward_chunk(q, &c, qp_mat_rows(hidden, first, n), head));
        write_results(&c, first, qp_cpu_f32(logprob), qp_cpu_f32(entropy));
        if (gradient)
            QP_TRY(backward_chunk(q, &c, qp_cpu_f32(dlogprob) + first, head,
                                  qp_mat_rows(dhidden, first, n)));
    }
    return NULL;
}

qp_error_t qp_cpu_lm_logits(qp_queue_t *q, qp_mat_t logits, qp_mat_t hidden, qp_mat_t head)
{
    return qp_cpu_matmul(q, 1.0f, hidden, false, head, true, 0.0f, logits, (qp_mask_t){0});
}
