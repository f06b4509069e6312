/*
 * Log-probability, entropy and gradient in one pass over the vocabulary, with the running maximum
 * of online softmax (Milakov and Gimelshein 2018). With z the logits of a row, t its target, m the
 * largest logit so far,
 *
 *     sum = sum of exp(z_j - m) over j != t,   out = sum of exp(z_j - m) W_j over j != t,
 *     d logprob / d hidden = (sum W_t - out) / (sum + exp(z_t - m)).
 *
 * The target stays out of both sums: where it is almost certain, 1 - p_t would cancel otherwise.
 */
#include "cuda/head/head.cuh"

enum { THREADS = 256 };

/* Running statistics of a row over the vocabulary. */
struct row_t {
    float top;      /* largest logit so far */
    float sum;      /* of exp(z - top), without the target */
    float weighted; /* of exp(z - top) (z - top), without the target */
    float target_logit;
};

/* Some tokens of some rows. */
struct scan_t {
    float *z; /* [n_row, n_token] */
    int64_t n_token, ld, first;
    const int32_t *target; /* [n_row] */
    row_t *row;            /* [n_row] */
    float *out;            /* [n_row, d], or NULL: no gradient */
    int64_t d;
};

/* Takes logits into the statistics of a row (a block) and brings out to the new maximum. With a
 * gradient z becomes exp(z - top), 0 at the target. */
static __global__ void scan_kernel(const scan_t s)
{
    const int64_t r = blockIdx.x, target = s.target[r] - s.first;
    const int thread = (int)threadIdx.x;
    float *z = s.z + r * s.ld;
    row_t row = {-INFINITY, 0.0f, 0.0f, 0.0f};
    if (s.first > 0)
        row = s.row[r];
    float top = row.top;
    for (int64_t i = thread; i < s.n_token; i += THREADS)
        top = qp_max(z[i], top);
    top = qp_block_max(top, -INFINITY);
    float sum = 0.0f, weighted = 0.0f;
    for (int64_t i = thread; i < s.n_token; i += THREADS) {
        const float below = z[i] - top;
        float p = 0.0f;
        if (i == target) {
            s.row[r].target_logit = z[i];
        } else {
            p = expf(below);
            sum += p;
            weighted += p * qp_head_below(below);
        }
        if (s.out != NULL)
            z[i] = p;
    }
    sum = qp_block_sum(sum);
    weighted = qp_block_sum(weighted);
    float shrink = 0.0f;
    if (row.sum != 0.0f) { /* else there is nothing to shrink; NaN stays */
        shrink = expf(row.top - top);
        sum += shrink * row.sum;
        weighted += shrink * (row.weighted + (row.top - top) * row.sum);
    }
    if (thread == 0) {
        s.row[r].top = top;
        s.row[r].sum = sum;
        s.row[r].weighted = weighted;
        if (s.first == 0 && (target < 0 || target >= s.n_token))
            s.row[r].target_logit = 0.0f; /* it comes later, or never */
    }
    if (s.out != NULL && s.first > 0 && shrink != 1.0f)
        for (int64_t i = thread; i < s.d; i += THREADS)
            s.out[r * s.d + i] *= shrink;
}

/* Results of some rows whose statistics are complete. */
struct result_t {
    float *logprob, *entropy; /* [n_row]; entropy may be NULL */
    qp_mat_t dhidden;         /* may have no data */
    const int32_t *target;
    const row_t *row;
    const float *out; /* [n_row, d] */
    qp_mat_t w;       /* the head, or its rows of the targets */
    bool w_by_row;
};

static __global__ void write_kernel(const result_t to)
{
    const int64_t r = blockIdx.x, target = to.target[r], d = to.dhidden.n_col;
    const bool counts = target >= 0;
    const row_t row = to.row[r];
    const float below = counts ? row.target_logit - row.top : 0.0f;
    const float target_p = counts ? expf(below) : 0.0f, sum = row.sum + target_p;
    if (threadIdx.x == 0) {
        to.logprob[r] = counts ? below - logf(sum) : 0.0f;
        if (to.entropy != NULL)
            to.entropy[r] = logf(sum) - (row.weighted + target_p * qp_head_below(below)) / sum;
    }
    if (to.dhidden.data.address == 0)
        return;
    const float scale = 1.0f / sum;
    for (int64_t i = threadIdx.x; i < d; i += THREADS) {
        float x = 0.0f;
        if (counts)
            x = scale *
                (row.sum * qp_mat_get(to.w, to.w_by_row ? r : target, i) - to.out[r * d + i]);
        qp_mat_put(to.dhidden, r, i, x);
    }
}

/* --- the slot --------------------------------------------------------------------------------- */

struct scratch_t {
    qp_head_t h;
    row_t *row;
    float *out;
    size_t bytes;
};

static scratch_t carve(char *memory, const qp_cuda_device_t *device, const qp_weight_t *head,
                       int64_t n, bool gradient)
{
    scratch_t s = {};
    char *at = memory;
    s.h = qp_head(head);
    s.row = static_cast<row_t *>(qp_cuda_carve(&at, (size_t)n * sizeof(row_t)));
    if (gradient)
        s.out = static_cast<float *>(qp_cuda_carve(&at, (size_t)(n * head->n_in) * sizeof(float)));
    qp_head_carve(&s.h, device, n, gradient, &at);
    s.bytes = (size_t)(at - memory);
    return s;
}

static size_t logit_bytes(int64_t n_row, int64_t n_vocab)
{
    return (size_t)(n_row * qp_min_i64(n_vocab, QP_HEAD_TOKENS)) * sizeof(float);
}

/* All tokens of some rows. */
static qp_error_t run_rows(qp_queue_t *q, const qp_head_t *h, scan_t *s, float *logits)
{
    const int64_t n_row = h->hidden.n_row, n_vocab = h->weight->n_out;
    const qp_mat_t out = qp_mat({(uintptr_t)s->out}, QP_F32, n_row, s->d);
    for (s->first = 0; s->first < n_vocab; s->first += QP_HEAD_TOKENS) {
        s->z = logits;
        s->n_token = s->ld = qp_min_i64(n_vocab - s->first, QP_HEAD_TOKENS);
        const qp_mat_t z = qp_mat({(uintptr_t)s->z}, QP_F32, n_row, s->n_token);
        QP_TRY(qp_head_logits(q, h, z, s->first));
        QP_TRY(QP_LAUNCH(q, scan_kernel, (unsigned)n_row, THREADS, *s));
        if (s->out != NULL)
            QP_TRY(qp_head_add(q, h, out, z, s->first));
    }
    return NULL;
}

/* Rows of a call, from \a first on. */
static qp_error_t write_rows(qp_queue_t *q, const scratch_t *s, result_t to, const scan_t *scan,
                             int64_t first)
{
    const int64_t n = s->h.hidden.n_row;
    to.logprob += first;
    to.entropy = to.entropy != NULL ? to.entropy + first : NULL;
    if (scan->out != NULL)
        to.dhidden = qp_mat_rows(to.dhidden, first, n);
    to.target = scan->target;
    to.row = scan->row;
    to.out = scan->out;
    to.w_by_row = s->h.int8;
    if (!s->h.int8) {
        to.w = qp_head_matrix(s->h.weight);
    } else if (scan->out != NULL) {
        to.w = qp_mat({(uintptr_t)s->h.target}, QP_F32, n, scan->d);
        QP_TRY(qp_head_load_targets(q, &s->h, to.target));
    }
    return QP_LAUNCH(q, write_kernel, (unsigned)n, THREADS, to);
}

/* What the products of linears need; the sums of backward ones go over tokens. */
static void int8_need(const qp_cuda_device_t *device, const qp_weight_t *head, int64_t n_row,
                      qp_cuda_need_t *need)
{
    qp_pass_size_t linear = {};
    linear.n_token = n_row;
    linear.widest = qp_max_i64(head->n_in, QP_HEAD_TOKENS);
    linear.weight = QP_WEIGHT_INT8;
    linear.backward = true;
    qp_cuda_linear_need(device, &linear, need);
}

QP_CUDA_BEGIN

void qp_cuda_head_need(const qp_cuda_device_t *device, const qp_pass_size_t *size,
                       qp_cuda_need_t *need)
{
    if (size->n_vocab == 0)
        return;
    const int64_t n = qp_head_rows_at_once(device, size->n_token);
    qp_weight_t head = {};
    head.kind = size->lm_head;
    head.n_out = size->n_vocab;
    head.n_in = size->d_model;
    head.is_head = true;
    qp_cuda_need(need, QP_CUDA_SCRATCH_HEAD, 2 * logit_bytes((n + 1) / 2, size->n_vocab));
    for (int int8 = 0; int8 < 2; int8++) { /* an int8 head computes so or so */
        head.mode.int8_activation = head.mode.int8_gradient = int8 != 0;
        qp_cuda_need(need, QP_CUDA_SCRATCH_HEAD_ROWS, carve(NULL, device, &head, n, true).bytes);
        qp_cuda_need(need, QP_CUDA_SCRATCH_HEAD_ROWS,
                     qp_head_kl_bytes(device, &head, size->n_token));
    }
    if (size->lm_head == QP_WEIGHT_INT8)
        int8_need(device, &head, n, need);
}

qp_error_t qp_cuda_lm_head(qp_queue_t *q, qp_dptr_t logprob, qp_dptr_t entropy, qp_mat_t dhidden,
                           qp_mat_t hidden, const qp_weight_t *head, qp_dptr_t target)
{
    const qp_cuda_device_t *device = qp_cuda_device(q);
    const int64_t d = head->n_in, most = qp_head_rows_at_once(device, hidden.n_row);
    const bool gradient = !qp_dptr_is_null(dhidden.data);
    QP_ASSERT(head->is_head && hidden.n_col == d);
    QP_ASSERT(!gradient || (dhidden.n_row == hidden.n_row && dhidden.n_col == d));
    if (hidden.n_row == 0)
        return NULL;
    const size_t bytes = carve(NULL, device, head, most, gradient).bytes;
    scratch_t s = carve(static_cast<char *>(qp_cuda_scratch(q, QP_CUDA_SCRATCH_HEAD_ROWS, bytes)),
                        device, head, most, gradient);
    float *z = static_cast<float *>(
        qp_cuda_scratch(q, QP_CUDA_SCRATCH_HEAD, logit_bytes(most, head->n_out)));
    result_t to = {};
    to.logprob = qp_at<float>(logprob);
    to.entropy = qp_at<float>(entropy);
    to.dhidden = dhidden;
    for (int64_t first = 0; first < hidden.n_row; first += most) {
        const int64_t n = qp_min_i64(most, hidden.n_row - first);
        scan_t scan = {};
        scan.target = qp_at<const int32_t>(target) + first;
        scan.row = s.row;
        scan.out = s.out;
        scan.d = d;
        QP_TRY(qp_head_take(q, &s.h, qp_mat_rows(hidden, first, n)));
        QP_TRY(run_rows(q, &s.h, &scan, z));
        QP_TRY(write_rows(q, &s, to, &scan, first));
    }
    return NULL;
}

QP_CUDA_END
