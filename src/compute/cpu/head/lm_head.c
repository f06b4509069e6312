/*
 * Language-model head: log-probability, entropy and gradient in one pass over the vocabulary, with
 * the running maximum of online softmax (Milakov and Gimelshein 2018), as attention does it
 * (Dao et al. 2022). With z the logits of a row, t its target, m the largest logit so far,
 *
 *     sum = sum of exp(z_j - m) over j != t,   out = sum of exp(z_j - m) W_j over j != t,
 *     d logprob / d hidden = (sum W_t - out) / (sum + exp(z_t - m)).
 *
 * The target stays out of both sums: where it is almost certain, 1 - p_t would cancel otherwise.
 * Slices of the vocabulary are packed once for all rows, a few at a time; a task is a block of rows
 * over these, so that its logits never leave the second-level cache.
 */
#include "compute/cpu/head/head.h"

#include "compute/cpu/rows/math.h"
#include "compute/cpu/gemm/pack.h"
#include "compute/cpu/gemm/tile.h"

enum { ROWS = 256, SLICE = 256, SLICES = 8, MAX_ROW = 4096 };

/* Up to MAX_ROW rows of a call. */
typedef struct {
    qp_cpu_device_t *device;
    qp_dtype_t dtype; /* of the products */
    bool gradient;
    qp_mat_t hidden, head;
    void *a;                /* hidden [n, D] in dtype, dense */
    qp_cpu_head_row_t *row; /* [n] */
    float *out;             /* [n, D] */
    const int32_t *target;
    qp_cpu_cut_t rows, slices;
    char *packed;             /* [SLICES] W^T [D, SLICE], then W [SLICE, D] */
    size_t to_logits, to_out; /* bytes of the two */
    char *lane;               /* [n_thread] logits [ROWS, SLICE] fp32, then exp of them in dtype */
    size_t logit_bytes, lane_bytes;
    const qp_cpu_gemm_t *logits[QP_N_CUT][QP_N_CUT], *add[QP_N_CUT][QP_N_CUT];
} head_t;

/* --- preparation ------------------------------------------------------------------------------ */

static qp_error_t get_products(head_t *h)
{
    const int64_t d = h->hidden.n_col;
    for (int i = 0; i < QP_N_CUT; i++)
        for (int j = 0; j < QP_N_CUT; j++) {
            const int64_t m = h->rows.size[i], n = h->slices.size[j];
            if (m == 0 || n == 0)
                continue;
            qp_cpu_gemm_spec_t spec = {.m = m,
                                       .n = n,
                                       .k = d,
                                       .lda = d,
                                       .ldc = n,
                                       .a = (int32_t)h->dtype,
                                       .b = (int32_t)h->dtype,
                                       .c = QP_F32,
                                       .alpha = 1.0f};
            qp_cpu_operand_describe(h->device, &spec, true);
            QP_TRY(qp_cpu_gemm_get(h->device, &spec, &h->logits[i][j]));
            spec.n = spec.ldc = d;
            spec.k = spec.lda = n;
            spec.accumulate = 1;
            qp_cpu_operand_describe(h->device, &spec, false);
            if (h->gradient)
                QP_TRY(qp_cpu_gemm_get(h->device, &spec, &h->add[i][j]));
        }
    return NULL;
}

/* Bytes of scratch: of all rows, of the packed slices, of one thread. */
typedef struct {
    size_t a, row, out, slices, lane;
} bytes_t;

static bytes_t bytes_of(const qp_cpu_device_t *device, qp_dtype_t dtype, int64_t n_row, int64_t d)
{
    const int64_t n = qp_min_i64(n_row, MAX_ROW);
    const size_t width = qp_dtype_bytes(dtype);
    return (bytes_t){
        .a = qp_cpu_round64(qp_bytes(n * d, width)),
        .row = qp_cpu_round64(qp_bytes(n, sizeof(qp_cpu_head_row_t))),
        .out = qp_cpu_round64(qp_bytes(n * d, sizeof(float))),
        .slices = SLICES * (qp_cpu_operand_bytes(device, dtype, d, SLICE) +
                            qp_cpu_operand_bytes(device, dtype, SLICE, d)),
        .lane = qp_bytes(ROWS * SLICE, sizeof(float) + width),
    };
}

static size_t rows_bytes(const bytes_t *bytes)
{
    return bytes->a + bytes->row + bytes->out;
}

static size_t slices_bytes(const bytes_t *bytes, const qp_cpu_device_t *device)
{
    return bytes->slices + (size_t)device->n_thread * bytes->lane;
}

static void need_for(const qp_cpu_device_t *device, const qp_pass_size_t *size, qp_dtype_t dtype,
                     qp_cpu_scratch_need_t *need)
{
    const bytes_t bytes = bytes_of(device, dtype, size->n_token, size->d_model);
    qp_cpu_need(need, QP_SCRATCH_HEAD_ROWS, rows_bytes(&bytes));
    qp_cpu_need(need, QP_SCRATCH_HEAD, slices_bytes(&bytes, device));
}

void qp_cpu_lm_head_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                            qp_cpu_scratch_need_t *need)
{
    if (size->n_vocab == 0)
        return;
    if (size->lm_head == QP_WEIGHT_INT8) {
        qp_cpu_lm_head_int8_scratch(device, size, need);
        return;
    }
    need_for(device, size, qp_device_dtype(&device->base), need);
    if (size->mixed)
        need_for(device, size, QP_F32, need);
}

static void take_scratch(head_t *h)
{
    const int64_t d = h->hidden.n_col;
    const bytes_t bytes = bytes_of(h->device, h->dtype, h->hidden.n_row, d);
    char *rows = qp_cpu_scratch(h->device, QP_SCRATCH_HEAD_ROWS, rows_bytes(&bytes));
    h->row = qp_cpu_carve(&rows, bytes.row);
    h->out = qp_cpu_carve(&rows, bytes.out);
    h->a = rows;
    h->to_logits = qp_cpu_operand_bytes(h->device, h->dtype, d, SLICE);
    h->to_out = qp_cpu_operand_bytes(h->device, h->dtype, SLICE, d);
    h->packed = qp_cpu_scratch(h->device, QP_SCRATCH_HEAD, slices_bytes(&bytes, h->device));
    h->lane = h->packed + bytes.slices;
    h->lane_bytes = bytes.lane;
    h->logit_bytes = qp_bytes(ROWS * SLICE, sizeof(float));
}

/* Rows [first, first + n) of hidden, in the type of the products; nothing of them seen yet. */
static void start_rows(qp_queue_t *q, const head_t *h, int64_t first, int64_t n)
{
    const int64_t d = h->hidden.n_col;
    const size_t row_bytes = qp_bytes(d, qp_dtype_bytes(h->dtype));
#pragma omp parallel for num_threads(qp_cpu_threads(q, n *d))
    for (int64_t r = 0; r < n; r++) {
        h->row[r] = qp_cpu_head_row();
        qp_cpu_convert((char *)h->a + (size_t)r * row_bytes, h->dtype,
                       qp_cpu_at(&h->hidden, first + r, 0), h->hidden.dtype, d);
        if (h->gradient)
            memset(h->out + r * d, 0, qp_bytes(d, sizeof *h->out));
    }
}

static void pack_slice(const head_t *h, int64_t slice)
{
    const int64_t n = h->slices.size[qp_cpu_cut_kind(&h->slices, slice)], d = h->head.n_col;
    const void *from = qp_cpu_at(&h->head, qp_cpu_cut_first(&h->slices, slice), 0);
    char *to = h->packed + (size_t)(slice % SLICES) * (h->to_logits + h->to_out);
    qp_cpu_operand_pack(h->device, to, h->dtype, from, h->head.dtype, h->head.ld, true, d, n);
    if (h->gradient)
        qp_cpu_operand_pack(h->device, to + h->to_logits, h->dtype, from, h->head.dtype, h->head.ld,
                            false, n, d);
}

/* --- tasks ------------------------------------------------------------------------------------ */

/* Statistics of a block's rows; their exp (z - top) in p, and what came before brought to its top.
 */
static void scan_block(const head_t *h, float *z, char *p, int64_t first, int64_t n_row,
                       int64_t first_token, int64_t n)
{
    const size_t row_bytes = qp_bytes(n, qp_dtype_bytes(h->dtype));
    const int64_t d = h->hidden.n_col;
    for (int64_t r = 0; r < n_row; r++) {
        const int64_t target = h->target[first + r] - first_token;
        float *out = h->gradient ? h->out + (first + r) * d : NULL;
        qp_cpu_head_scan(&h->row[first + r], z + r * n, n, target < n ? target : -1, out, d);
        if (!h->gradient)
            continue;
        qp_cpu_store(p + (size_t)r * row_bytes, h->dtype, z + r * n, n);
    }
}

/* A block of rows and one slice of the vocabulary. */
static qp_error_t run_slice(const head_t *h, int thread, int64_t block, int64_t slice)
{
    const qp_cpu_cut_kind_t i = qp_cpu_cut_kind(&h->rows, block),
                            j = qp_cpu_cut_kind(&h->slices, slice);
    const int64_t first = qp_cpu_cut_first(&h->rows, block), d = h->hidden.n_col;
    const char *packed = h->packed + (size_t)(slice % SLICES) * (h->to_logits + h->to_out);
    const char *a = (const char *)h->a + qp_bytes(first * d, qp_dtype_bytes(h->dtype));
    char *lane = h->lane + (size_t)thread * h->lane_bytes, *p = lane + h->logit_bytes;
    QP_TRY(qp_cpu_gemm_run(h->logits[i][j], thread, a, packed, lane));
    scan_block(h, (float *)lane, p, first, h->rows.size[i], qp_cpu_cut_first(&h->slices, slice),
               h->slices.size[j]);
    if (!h->gradient)
        return NULL;
    return qp_cpu_gemm_run(h->add[i][j], thread, p, packed + h->to_logits, h->out + first * d);
}

static qp_error_t run_rows(const head_t *h)
{
    qp_error_t error = NULL;
    for (int64_t done = 0; done < h->slices.n_piece; done += SLICES) {
        const int64_t end = qp_min_i64(done + SLICES, h->slices.n_piece);
#pragma omp parallel num_threads(h->device->n_thread)
        {
#pragma omp for schedule(dynamic)
            for (int64_t slice = done; slice < end; slice++)
                pack_slice(h, slice);
#pragma omp for schedule(dynamic)
            for (int64_t block = 0; block < h->rows.n_piece; block++)
                for (int64_t slice = done; slice < end; slice++)
                    qp_cpu_keep_error(&error, run_slice(h, omp_get_thread_num(), block, slice));
        }
    }
    return error;
}

/* Results of rows [0, n), which are rows [first, first + n) of the call. */
static void write_rows(const head_t *h, int64_t first, int64_t n, const qp_cpu_head_result_t *to)
{
    const int64_t d = h->hidden.n_col;
#pragma omp parallel for num_threads(h->device->n_thread)
    for (int64_t r = 0; r < n; r++) {
        float *w = (float *)(h->lane + (size_t)omp_get_thread_num() * h->lane_bytes);
        if (h->gradient && h->target[r] >= 0)
            qp_cpu_load(w, h->head.dtype, qp_cpu_at(&h->head, h->target[r], 0), d);
        qp_cpu_head_write(to, first + r, &h->row[r], h->target[r] >= 0,
                          h->gradient ? h->out + r * d : NULL, w);
    }
}

/* --- the slot --------------------------------------------------------------------------------- */

static qp_error_t lm_head(qp_queue_t *q, const qp_cpu_head_result_t *to, qp_mat_t hidden,
                          qp_mat_t head, const int32_t *target)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    const bool exact = hidden.dtype == QP_F32 && head.dtype == QP_F32;
    head_t h = {.device = device,
                .dtype = exact ? QP_F32 : qp_device_dtype(&device->base),
                .gradient = !qp_dptr_is_null(to->dhidden.data),
                .hidden = hidden,
                .head = head,
                .slices = qp_cpu_cut(head.n_row, SLICE)};
    QP_ASSERT(hidden.n_col <= ROWS * SLICE);
    take_scratch(&h);
    for (int64_t first = 0; first < hidden.n_row; first += MAX_ROW) {
        const int64_t n = qp_min_i64(hidden.n_row - first, MAX_ROW);
        h.rows = qp_cpu_cut(n, ROWS);
        h.target = target + first;
        QP_TRY(get_products(&h));
        start_rows(q, &h, first, n);
        QP_TRY(run_rows(&h));
        write_rows(&h, first, n, to);
    }
    return NULL;
}

qp_error_t qp_cpu_lm_head(qp_queue_t *q, qp_dptr_t logprob, qp_dptr_t entropy, qp_mat_t dhidden,
                          qp_mat_t hidden, const qp_weight_t *head, qp_dptr_t target)
{
    const qp_cpu_head_result_t to = {qp_cpu_f32(logprob), qp_cpu_f32(entropy), dhidden};
    QP_ASSERT(head->is_head && hidden.n_col == head->n_in);
    QP_ASSERT(qp_dptr_is_null(dhidden.data) ||
              (dhidden.n_row == hidden.n_row && dhidden.n_col == hidden.n_col));
    if (head->kind == QP_WEIGHT_INT8)
        return qp_cpu_lm_head_int8(q, &to, hidden, head, qp_cpu_i32(target));
    return lm_head(q, &to, hidden, qp_cpu_head_rows(head), qp_cpu_i32(target));
}
