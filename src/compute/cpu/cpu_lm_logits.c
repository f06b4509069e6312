/*
 * Logits of few rows, as decoding wants them: bound by reading the head, which is far larger than
 * all else, so it is read once and as it lies. A task is a block of the vocabulary; the threads'
 * tasks stand together.
 *
 * With AVX-512 BF16 a logit is a dot product of our own whose order of sums is always the same: a
 * row's bits do not depend on the rows beside it. Elsewhere oneDNN multiplies
 *
 *     logits^T [V, N] = head [V, D] hidden^T [D, N]
 *
 * with the head as first operand; the rows are filled up to a multiple of STEP, so that there are
 * few sizes of products.
 */
#include "compute/cpu/cpu.h"
#include "compute/cpu/cpu_dot.h"
#include "compute/cpu/cpu_math.h"
#include "compute/cpu/cpu_pack.h"
#include "compute/cpu/cpu_tile.h"

enum { FEW_ROWS = 64, STEP = 16, BLOCK = 256 };

typedef struct {
    qp_cpu_device_t *device;
    qp_dtype_t dtype; /* of the product */
    qp_mat_t logits, hidden, head;
    bool dots;     /* our own product */
    int64_t n_pad; /* rows of hidden, filled up */
    void *rows;    /* hidden [n_pad, D] in dtype */
    qp_cpu_cut_t blocks;
    /* oneDNN's product */
    const qp_cpu_gemm_t *gemm[QP_N_CUT];
    void *packed;                              /* hidden^T [D, n_pad] */
    char *lane;                                /* [n_thread] of lane_bytes: */
    size_t tile_bytes, head_bytes, lane_bytes; /* [BLOCK, n_pad] fp32; a block of the head, cast */
} logits_t;

static void copy_hidden(logits_t *l)
{
    const int64_t d = l->hidden.n_col;
    const size_t row_bytes = qp_bytes(d, qp_dtype_bytes(l->dtype));
    char *rows = qp_cpu_scratch(l->device, QP_SCRATCH_HEAD_ROWS, (size_t)l->n_pad * row_bytes);
    memset(rows, 0, (size_t)l->n_pad * row_bytes);
    for (int64_t r = 0; r < l->hidden.n_row; r++)
        qp_cpu_convert(rows + (size_t)r * row_bytes, l->dtype, qp_cpu_at(&l->hidden, r, 0),
                       l->hidden.dtype, d);
    l->rows = rows;
}

/* --- by oneDNN -------------------------------------------------------------------------------- */

static qp_error_t prepare_product(logits_t *l)
{
    const int64_t d = l->hidden.n_col;
    const size_t packed_bytes = qp_cpu_operand_bytes(l->device, l->dtype, d, l->n_pad);
    l->tile_bytes = qp_bytes(BLOCK * l->n_pad, sizeof(float));
    l->head_bytes = l->head.dtype == l->dtype ? 0 : qp_bytes(BLOCK * d, qp_dtype_bytes(l->dtype));
    l->lane_bytes = l->tile_bytes + qp_cpu_round64(l->head_bytes);
    l->packed = qp_cpu_scratch(l->device, QP_SCRATCH_HEAD,
                               packed_bytes + (size_t)l->device->n_thread * l->lane_bytes);
    l->lane = (char *)l->packed + packed_bytes;
    qp_cpu_operand_pack(l->device, l->packed, l->dtype, l->rows, l->dtype, d, true, d, l->n_pad);
    for (int i = 0; i < QP_N_CUT; i++) {
        qp_cpu_gemm_spec_t spec = {.m = l->blocks.size[i],
                                   .n = l->n_pad,
                                   .k = d,
                                   .lda = d,
                                   .ldc = l->n_pad,
                                   .a = (int32_t)l->dtype,
                                   .b = (int32_t)l->dtype,
                                   .c = QP_F32,
                                   .alpha = 1.0f};
        qp_cpu_operand_describe(l->device, &spec, true);
        if (spec.m > 0)
            QP_TRY(qp_cpu_gemm_get(l->device, &spec, &l->gemm[i]));
    }
    return NULL;
}

/* Columns [first, first + n) of the logits from tile [n, n_pad]. */
QP_CPU_CLONES static void write_block(const logits_t *l, const float *restrict tile, int64_t first,
                                      int64_t n)
{
    for (int64_t r = 0; r < l->logits.n_row; r++) {
        float *restrict to = (float *)qp_cpu_at(&l->logits, r, first);
        for (int64_t i = 0; i < n; i++)
            to[i] = tile[i * l->n_pad + r];
    }
}

static qp_error_t multiply_block(const logits_t *l, int thread, qp_cpu_cut_kind_t kind,
                                 int64_t first, int64_t n)
{
    char *tile = l->lane + (size_t)thread * l->lane_bytes, *copy = tile + l->tile_bytes;
    const void *head = qp_cpu_at(&l->head, first, 0);
    if (l->head_bytes > 0) {
        qp_cpu_convert(copy, l->dtype, head, l->head.dtype, n * l->head.n_col);
        head = copy;
    }
    QP_TRY(qp_cpu_gemm_run(l->gemm[kind], thread, head, l->packed, tile));
    write_block(l, (const float *)tile, first, n);
    return NULL;
}

/* --- blocks ----------------------------------------------------------------------------------- */

static qp_error_t run_block(const logits_t *l, int thread, int64_t block)
{
    const qp_cpu_cut_kind_t kind = qp_cpu_cut_kind(&l->blocks, block);
    const int64_t first = qp_cpu_cut_first(&l->blocks, block), n = l->blocks.size[kind];
    if (!l->dots)
        return multiply_block(l, thread, kind, first, n);
    qp_cpu_dots(&(qp_cpu_dots_t){.a = qp_cpu_at(&l->head, first, 0),
                                 .n_a = n,
                                 .b = l->rows,
                                 .n_b = l->logits.n_row,
                                 .n = l->head.n_col,
                                 .c = qp_cpu_at(&l->logits, 0, first),
                                 .ldc = l->logits.ld});
    return NULL;
}

qp_error_t qp_cpu_lm_logits(qp_queue_t *q, qp_mat_t logits, qp_mat_t hidden, qp_mat_t head)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    const bool exact = hidden.dtype == QP_F32 && head.dtype == QP_F32;
    QP_ASSERT(logits.dtype == QP_F32 && logits.n_row == hidden.n_row);
    QP_ASSERT(logits.n_col == head.n_row && hidden.n_col == head.n_col);
    if (hidden.n_row > FEW_ROWS || head.ld != head.n_col)
        return qp_cpu_matmul(q, 1.0f, hidden, false, head, true, 0.0f, logits, (qp_mask_t){0});
    logits_t l = {.device = device,
                  .dtype = exact ? QP_F32 : qp_device_dtype(&device->base),
                  .logits = logits,
                  .hidden = hidden,
                  .head = head,
                  .n_pad = (hidden.n_row + STEP - 1) / STEP * STEP,
                  .blocks = qp_cpu_cut(head.n_row, BLOCK)};
    l.dots = device->packed_bf16 && l.dtype == QP_BF16 && head.dtype == QP_BF16;
    copy_hidden(&l);
    if (!l.dots)
        QP_TRY(prepare_product(&l));
    qp_error_t error = NULL;
#pragma omp parallel for schedule(static) num_threads(device->n_thread)
    for (int64_t block = 0; block < l.blocks.n_piece; block++)
        qp_cpu_keep_error(&error, run_block(&l, omp_get_thread_num(), block));
    return error;
}
