/*
 * KL between the distributions over the vocabulary that two hidden states give. With z the logits
 * of a row, m the largest of them so far and s the sum of exp(z - m),
 *
 *     kl = sum of p ((z_p - m_p) - (z_q - m_q)) - log s_p + log s_q.
 *
 * Equal hidden states give 0, exactly: each difference is.
 */
#include "cuda/head/head.cuh"

enum { THREADS = 256 };

struct row_t {
    float top_p, top_q, sum_p, sum_q;
    float weighted; /* sum of exp(z_p - top_p) ((z_p - top_p) - (z_q - top_q)) */
};

/* Some tokens of some rows. */
struct scan_t {
    const float *p, *q; /* [n_row, n_token] */
    int64_t n_token;
    bool starts, ends; /* these tokens the vocabulary */
    row_t *row;        /* [n_row] */
    float *kl;         /* [n_row] */
};

static __global__ void kl_kernel(const scan_t s)
{
    const int64_t r = blockIdx.x;
    const int thread = (int)threadIdx.x;
    const float *p = s.p + r * s.n_token, *q = s.q + r * s.n_token;
    row_t row = {-INFINITY, -INFINITY, 0.0f, 0.0f, 0.0f};
    if (!s.starts)
        row = s.row[r];
    float top_p = row.top_p, top_q = row.top_q;
    for (int64_t i = thread; i < s.n_token; i += THREADS) {
        top_p = qp_max(p[i], top_p);
        top_q = qp_max(q[i], top_q);
    }
    top_p = qp_block_max(top_p, -INFINITY);
    top_q = qp_block_max(top_q, -INFINITY);
    float sum_p = 0.0f, sum_q = 0.0f, weighted = 0.0f;
    for (int64_t i = thread; i < s.n_token; i += THREADS) {
        const float below_p = p[i] - top_p, below_q = q[i] - top_q, w = expf(below_p);
        sum_p += w;
        sum_q += expf(below_q);
        weighted += w * (below_p - below_q);
    }
    sum_p = qp_block_sum(sum_p);
    sum_q = qp_block_sum(sum_q);
    weighted = qp_block_sum(weighted);
    if (thread != 0)
        return;
    if (!s.starts) {
        const float down_p = row.top_p - top_p, down_q = row.top_q - top_q;
        const float shrink = expf(down_p);
        weighted += shrink * (row.weighted + (down_p - down_q) * row.sum_p);
        sum_p += shrink * row.sum_p;
        sum_q += expf(down_q) * row.sum_q;
    }
    s.row[r] = {top_p, top_q, sum_p, sum_q, weighted};
    if (s.ends)
        s.kl[r] = weighted / sum_p - logf(sum_p) + logf(sum_q);
}

/* --- the slot --------------------------------------------------------------------------------- */

static int64_t rows_at_once(const qp_cuda_device_t *device, int64_t n_row)
{
    return (qp_head_rows_at_once(device, n_row) + 1) / 2;
}

struct scratch_t {
    qp_head_t p, q;
    row_t *row;
    size_t bytes;
};

static scratch_t carve(char *memory, const qp_cuda_device_t *device, const qp_weight_t *head,
                       int64_t n)
{
    scratch_t s;
    char *at = memory;
    s.p = s.q = qp_head(head);
    s.row = static_cast<row_t *>(qp_cuda_carve(&at, (size_t)n * sizeof(row_t)));
    qp_head_carve(&s.p, device, n, false, &at);
    qp_head_carve(&s.q, device, n, false, &at);
    s.bytes = (size_t)(at - memory);
    return s;
}

size_t qp_head_kl_bytes(const qp_cuda_device_t *device, const qp_weight_t *weight, int64_t n_row)
{
    return carve(NULL, device, weight, rows_at_once(device, n_row)).bytes;
}

static qp_error_t run_rows(qp_queue_t *q, const qp_head_t *p_side, const qp_head_t *q_side,
                           scan_t *s, float *z)
{
    const int64_t n_row = p_side->hidden.n_row, n_vocab = p_side->weight->n_out;
    for (int64_t first = 0; first < n_vocab; first += QP_HEAD_TOKENS) {
        const int64_t n = qp_min_i64(n_vocab - first, QP_HEAD_TOKENS);
        const qp_mat_t p = qp_mat({(uintptr_t)z}, QP_F32, n_row, n);
        const qp_mat_t other = qp_mat({(uintptr_t)(z + n_row * n)}, QP_F32, n_row, n);
        QP_TRY(qp_head_logits(q, p_side, p, first));
        QP_TRY(qp_head_logits(q, q_side, other, first));
        s->p = z;
        s->q = z + n_row * n;
        s->n_token = n;
        s->starts = first == 0;
        s->ends = first + n == n_vocab;
        QP_TRY(QP_LAUNCH(q, kl_kernel, (unsigned)n_row, THREADS, *s));
    }
    return NULL;
}

QP_CUDA_BEGIN
qp_error_t qp_cuda_lm_kl(qp_queue_t *q, qp_dptr_t kl, qp_mat_t hidden_p, qp_mat_t hidden_q,
                         const qp_weight_t *head)
{
    const qp_cuda_device_t *device = qp_cuda_device(q);
    const int64_t n_row = hidden_p.n_row, most = rows_at_once(device, n_row);
    QP_ASSERT(head->is_head && hidden_q.n_row == n_row);
    if (n_row == 0)
        return NULL;
    const size_t bytes =
        (size_t)(2 * most * qp_min_i64(head->n_out, QP_HEAD_TOKENS)) * sizeof(float);
    float *z = static_cast<float *>(qp_cuda_scratch(q, QP_CUDA_SCRATCH_HEAD, bytes));
    const size_t row_bytes = carve(NULL, device, head, most).bytes;
    scratch_t side =
        carve(static_cast<char *>(qp_cuda_scratch(q, QP_CUDA_SCRATCH_HEAD_ROWS, row_bytes)), device,
              head, most);
    scan_t s = {};
    s.row = side.row;
    for (int64_t first = 0; first < n_row; first += most) {
        const int64_t n = qp_min_i64(most, n_row - first);
        QP_TRY(qp_head_take(q, &side.p, qp_mat_rows(hidden_p, first, n)));
        QP_TRY(qp_head_take(q, &side.q, qp_mat_rows(hidden_q, first, n)));
        s.kl = qp_at<float>(kl) + first;
        QP_TRY(run_rows(q, &side.p, &side.q, &s, z));
    }
    return NULL;
}
QP_CUDA_END
