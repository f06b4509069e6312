/*
 * Logits of few rows, as decoding wants them: bound by reading the head, which is far larger than
 * all else, so it is read once and as it lies. A task is a block of the vocabulary; the threads'
 * tasks stand together. A logit is a dot product whose order of sums is always the same: a row's
 * bits do not depend on the rows beside it. What are more rows than few is done in turns.
 */
#include "compute/cpu/head/head.h"
#include "compute/cpu/gemm/dot.h"
#include "compute/cpu/rows/math.h"
#include "compute/cpu/gemm/tile.h"

enum { FEW_ROWS = 64, STEP = 16, BLOCK = 256 };

static size_t hidden_bytes(int64_t n_row, int64_t d, qp_dtype_t dtype)
{
    return qp_bytes((n_row + STEP - 1) / STEP * STEP * d, qp_dtype_bytes(dtype));
}

void qp_cpu_lm_logits_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                              qp_cpu_scratch_need_t *need)
{
    (void)device; /* rows in fp32 are possible on all */
    const int64_t n = size->n_vocab > 0 ? qp_min_i64(size->n_token, FEW_ROWS) : 0;
    qp_cpu_need(need, QP_SCRATCH_HEAD_ROWS, hidden_bytes(n, size->d_model, QP_F32));
}

/* Rows of hidden in \a dtype, filled up to a multiple of STEP. */
static void *copy_hidden(qp_cpu_device_t *device, const qp_mat_t *hidden, qp_dtype_t dtype)
{
    const int64_t d = hidden->n_col;
    const size_t row_bytes = qp_bytes(d, qp_dtype_bytes(dtype));
    const size_t bytes = hidden_bytes(hidden->n_row, d, dtype);
    char *rows = qp_cpu_scratch(device, QP_SCRATCH_HEAD_ROWS, bytes);
    memset(rows, 0, bytes);
    for (int64_t r = 0; r < hidden->n_row; r++)
        qp_cpu_convert(rows + (size_t)r * row_bytes, dtype, qp_cpu_at(hidden, r, 0), hidden->dtype,
                       d);
    return rows;
}

static void few_logits(qp_cpu_device_t *device, qp_cpu_dot_product_t product, qp_mat_t logits,
                       const void *rows, qp_mat_t head)
{
    const qp_cpu_cut_t blocks = qp_cpu_cut_coarse(head.n_row, BLOCK);
#pragma omp parallel for schedule(static) num_threads(device->n_thread)
    for (int64_t block = 0; block < blocks.n_piece; block++) {
        const int64_t first = qp_cpu_cut_first(&blocks, block);
        product(&(qp_cpu_dots_t){.a = qp_cpu_at(&head, first, 0),
                                 .n_a = blocks.size[qp_cpu_cut_kind(&blocks, block)],
                                 .b = rows,
                                 .n_b = logits.n_row,
                                 .n = head.n_col,
                                 .c = qp_cpu_at(&logits, 0, first),
                                 .ldc = logits.ld});
    }
}

qp_error_t qp_cpu_lm_logits(qp_queue_t *q, qp_mat_t logits, qp_mat_t hidden,
                            const qp_weight_t *weight)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    QP_ASSERT(weight->is_head && logits.dtype == QP_F32 && logits.n_row == hidden.n_row);
    QP_ASSERT(logits.n_col == weight->n_out && hidden.n_col == weight->n_in);
    if (weight->kind == QP_WEIGHT_INT8) {
        const qp_input_t x = qp_input(hidden);
        return qp_cpu_linear_forward(q, logits, &x, weight, (qp_mat_t){0});
    }
    const qp_mat_t head = qp_cpu_head_rows(weight);
    /* In bf16 compute a bf16 head takes rows in bf16, if there are such products; else all is fp32.
     */
    qp_dtype_t dtype = head.dtype == QP_BF16 ? qp_device_dtype(&device->base) : QP_F32;
    qp_cpu_dot_product_t product = qp_cpu_dot_product(head.dtype, dtype);
    if (product == NULL) {
        dtype = QP_F32;
        product = qp_cpu_dot_product(head.dtype, dtype);
    }
    if (product == NULL)
        return qp_cpu_matmul(q, 1.0f, hidden, false, head, true, 0.0f, logits, (qp_mask_t){0});
    for (int64_t first = 0; first < hidden.n_row; first += FEW_ROWS) {
        const int64_t n = qp_min_i64(FEW_ROWS, hidden.n_row - first);
        const qp_mat_t some = qp_mat_rows(hidden, first, n);
        few_logits(device, product, qp_mat_rows(logits, first, n),
                   copy_hidden(device, &some, dtype), head);
    }
    return NULL;
}
