#include "compute/cpu/cpu_pack.h"

#include "compute/cpu/cpu_math.h"
#include "compute/cpu/cpu_transpose.h"

enum { COLS = 64, ROWS = 32, PAIRS = ROWS / 2 };

static bool is_packed(const qp_cpu_device_t *device, qp_dtype_t dtype)
{
    return device->packed_bf16 && dtype == QP_BF16;
}

static int64_t blocks(int64_t n, int64_t block)
{
    return (n + block - 1) / block;
}

size_t qp_cpu_operand_bytes(const qp_cpu_device_t *device, qp_dtype_t dtype, int64_t k, int64_t n)
{
    if (is_packed(device, dtype))
        return qp_bytes(blocks(n, COLS) * blocks(k, ROWS) * COLS * ROWS, sizeof(uint16_t));
    return qp_cpu_round64(qp_bytes(k * n, qp_dtype_bytes(dtype)));
}

void qp_cpu_operand_describe(const qp_cpu_device_t *device, qp_cpu_gemm_spec_t *spec, bool trans)
{
    spec->packed_b = is_packed(device, (qp_dtype_t)spec->b);
    spec->trans_b = trans && !spec->packed_b;
    spec->ldb = spec->packed_b ? 0 : (trans ? spec->k : spec->n);
}

/* to [16 pairs, 16 columns] (rows 64 pairs apart) from 16 columns of 16 pairs each. */
static inline void transpose_pairs(uint32_t *restrict to, qp_words_t v[QP_WORDS])
{
    qp_cpu_transpose(v);
    for (int i = 0; i < QP_WORDS; i++)
        memcpy(to + i * COLS, &v[i], sizeof v[i]);
}

/* n_row x n_col elements of fp32 or bf16 rows, as bf16 rows of \a width, the rest zero. */
static inline void load_block(uint16_t *restrict to, int64_t height, int64_t width,
                              const void *from, qp_dtype_t dtype, int64_t ld, int64_t n_row,
                              int64_t n_col)
{
    if (n_row < height || n_col < width)
        memset(to, 0, (size_t)(height * width) * sizeof *to);
    for (int64_t i = 0; i < n_row; i++) {
        const void *row = (const char *)from + (size_t)(i * ld) * qp_dtype_bytes(dtype);
        if (dtype == QP_BF16)
            memcpy(to + i * width, row, (size_t)n_col * sizeof *to);
        else
            qp_cpu_store(to + i * width, QP_BF16, row, n_col);
    }
}

/* A block of bf16 rows: where it stands if it is whole, or a copy. */
typedef struct {
    const uint16_t *row;
    int64_t ld;
} rows_t;

static inline rows_t find_rows(uint16_t *copy, int64_t height, int64_t width, const void *from,
                               qp_dtype_t dtype, int64_t ld, int64_t n_row, int64_t n_col)
{
    if (dtype == QP_BF16 && n_row == height && n_col == width)
        return (rows_t){from, ld};
    load_block(copy, height, width, from, dtype, ld, n_row, n_col);
    return (rows_t){copy, width};
}

/* One block from b itself: rows [n_row <= 32], columns [n_col <= 64]. */
QP_CPU_CLONES static void pack_block(uint16_t *restrict to, const void *from, qp_dtype_t dtype,
                                     int64_t ld, int64_t n_row, int64_t n_col)
{
    _Alignas(64) uint16_t copy[ROWS * COLS];
    const rows_t rows = find_rows(copy, ROWS, COLS, from, dtype, ld, n_row, n_col);
    for (int64_t p = 0; p < PAIRS; p++) {
        const uint16_t *restrict first = rows.row + 2 * p * rows.ld;
        const uint16_t *restrict second = first + rows.ld;
        for (int64_t j = 0; j < COLS; j++) {
            to[(p * COLS + j) * 2] = first[j];
            to[(p * COLS + j) * 2 + 1] = second[j];
        }
    }
}

/* One block from the transpose: its columns [n_col <= 64] are rows of \a from. */
QP_CPU_CLONES static void pack_transposed(uint16_t *restrict to, const void *from, qp_dtype_t dtype,
                                          int64_t ld, int64_t n_row, int64_t n_col)
{
    _Alignas(64) uint16_t copy[COLS * ROWS];
    const rows_t rows = find_rows(copy, COLS, ROWS, from, dtype, ld, n_col, n_row);
    for (int64_t j = 0; j < COLS; j += QP_WORDS) {
        qp_words_t v[QP_WORDS];
        for (int64_t i = 0; i < QP_WORDS; i++)
            memcpy(&v[i], rows.row + (j + i) * rows.ld, sizeof v[i]);
        transpose_pairs((uint32_t *)to + j, v);
    }
}

void qp_cpu_operand_pack(const qp_cpu_device_t *device, void *to, qp_dtype_t dtype,
                         const void *from, qp_dtype_t from_dtype, int64_t ld, bool trans, int64_t k,
                         int64_t n)
{
    const size_t width = qp_dtype_bytes(from_dtype);
    if (!is_packed(device, dtype)) {
        const int64_t n_row = trans ? n : k, n_col = trans ? k : n;
        for (int64_t i = 0; i < n_row; i++)
            qp_cpu_convert((char *)to + (size_t)(i * n_col) * qp_dtype_bytes(dtype), dtype,
                           (const char *)from + (size_t)(i * ld) * width, from_dtype, n_col);
        return;
    }
    uint16_t *at = to;
    for (int64_t j = 0; j < n; j += COLS)
        for (int64_t i = 0; i < k; i += ROWS, at += ROWS * COLS) {
            const int64_t n_row = qp_cpu_min(k - i, ROWS), n_col = qp_cpu_min(n - j, COLS);
            const char *corner =
                (const char *)from + (size_t)(trans ? j * ld + i : i * ld + j) * width;
            if (trans)
                pack_transposed(at, corner, from_dtype, ld, n_row, n_col);
            else
                pack_block(at, corner, from_dtype, ld, n_row, n_col);
        }
}
